"""x Δᵀ and its gradients for Δ = (1 − M) ⊙ s·B·A, without keeping a d² tensor for the backward pass."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_ROWS = 256
_GATHER = 1 << 20


@dataclass(eq=False)
class Pattern:
    """Frozen entries M of one matrix in logical orientation [out, in].

    Attributes:
        count: number of frozen entries.
        shape: of the matrix.
        separable: M is a union of whole rows and whole columns.
        listed: M or its complement is small enough to be listed.
        keep: the list holds the free entries, not the frozen ones.
        rows: whole frozen rows.
        columns: whole frozen columns.
        dense: M itself, for the blocks path.
        crow: row pointers of the listed entries, CSR.
        col: their columns.
        row: their rows.
        crow_t: row pointers of the transposed CSR.
        col_t: its columns.
        order: listed entries in the order of the transposed CSR.
    """

    count: int
    shape: tuple[int, int]
    separable: bool
    listed: bool
    keep: bool
    rows: Tensor | None = None
    columns: Tensor | None = None
    dense: Tensor | None = None
    crow: Tensor | None = None
    col: Tensor | None = None
    row: Tensor | None = None
    crow_t: Tensor | None = None
    col_t: Tensor | None = None
    order: Tensor | None = None

    def prepare(self, chosen: Bool[Tensor, "d_out d_in"], path: str) -> None:
        """Keep what a path needs, and nothing else."""
        if path != "free":
            self.rows = self.columns = None
        if path == "blocks":
            self.dense = chosen.contiguous()
        if path == "sparse":
            wanted = ~chosen if self.keep else chosen
            row, col = wanted.nonzero(as_tuple=True)
            order = torch.argsort(col * self.shape[0] + row)
            self.row, self.col, self.order = row, col, order
            self.col_t = row[order]
            self.crow = _pointers(row, self.shape[0])
            self.crow_t = _pointers(col, self.shape[1])

    def to(self, device: torch.device) -> Pattern:
        """This pattern with its tensors on a device; they stay there."""
        for name in ("rows", "columns", "dense", "crow", "col", "row", "crow_t", "col_t", "order"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.device != device:
                setattr(self, name, tensor.to(device))
        return self

    def matrix(self, values: Float[Tensor, " n"], transposed: bool = False) -> Tensor:
        """The listed entries as a sparse matrix."""
        if transposed:
            return _csr(self.crow_t, self.col_t, values[self.order], self.shape[::-1])
        return _csr(self.crow, self.col, values, self.shape)

    def at(self, left: Float[Tensor, "d_out k"], right: Float[Tensor, "k d_in"]) -> Float[Tensor, " n"]:
        """(left right) at the listed entries only."""
        assert self.row is not None
        assert self.col is not None
        assert self.crow is not None
        if left.dtype in (torch.float32, torch.float64) and samples(left):
            return sampled(self.crow, self.col, self.shape, left, right)
        turned = right.T.contiguous()
        step = max(1, _GATHER // max(1, left.shape[1]))
        pieces = [
            (left[i] * turned[j]).sum(1)
            for i, j in zip(self.row.split(step), self.col.split(step), strict=True)
        ]
        return torch.cat(pieces) if pieces else left.new_zeros(0)


def pattern_of(chosen: Bool[Tensor, "d_out d_in"], limit: float) -> Pattern:
    """Count the frozen entries and see what form they have.

    Args:
        chosen: M.
        limit: entries are listed when at most this share of all is frozen, or is free.
    """
    count = int(chosen.sum())
    rows, columns = chosen.all(1), chosen.all(0)
    separable = count == int(rows.sum()) * chosen.shape[1] + int(columns.sum()) * int((~rows).sum())
    free = chosen.numel() - count
    keep = free < count
    listed = min(count, free) <= limit * chosen.numel()
    shape = (int(chosen.shape[0]), int(chosen.shape[1]))
    return Pattern(count, shape, separable, listed, keep, rows, columns)


def sparse(
    x: Float[Tensor, "t d_in"],
    a: Float[Tensor, "rank d_in"],
    b: Float[Tensor, "d_out rank"],
    scale: float,
    pattern: Pattern,
) -> Float[Tensor, "t d_out"]:
    """s·(xAᵀ)Bᵀ − s·xSᵀ with S = BA at frozen entries; or s·xSᵀ alone with S at the free ones."""
    made: Tensor = _Sparse.apply(x, a, b, scale, pattern)  # type: ignore[no-untyped-call]
    return made


def blocked(
    x: Float[Tensor, "t d_in"],
    a: Float[Tensor, "rank d_in"],
    b: Float[Tensor, "d_out rank"],
    scale: float,
    pattern: Pattern,
) -> Float[Tensor, "t d_out"]:
    """x Δᵀ with Δ built a block of rows at a time, again in the backward pass."""
    made: Tensor = _Blocked.apply(x, a, b, scale, pattern)  # type: ignore[no-untyped-call]
    return made


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, scale: float, pattern: Pattern) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(a.dtype)
            values = pattern.at(b, a)
            ctx.save_for_backward(x, a, b, values)
            ctx.scale, ctx.pattern = scale, pattern
            held = (pattern.matrix(values) @ wide.T).T
            made = held if pattern.keep else torch.addmm(held, wide @ a.T, b.T, beta=-1)
            return made * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, a, b, values = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(a.dtype)
            g = grads[0].to(a.dtype) * ctx.scale
            dv = pattern.at(g.T.contiguous(), wide)
            # S = BA at the list, so its gradient goes on to B and A.
            db = pattern.matrix(dv) @ a.T.contiguous()
            da = (pattern.matrix(dv, transposed=True) @ b).T
            dx = (pattern.matrix(values, transposed=True) @ g.T).T if ctx.needs_input_grad[0] else None
            if not pattern.keep:
                through = g @ b
                db = torch.addmm(db, g.T, wide @ a.T, beta=-1)
                da = torch.addmm(da, through.T, wide, beta=-1)
                dx = None if dx is None else torch.addmm(dx, through, a, beta=-1)
            return None if dx is None else dx.to(x.dtype), da, db, None, None


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, scale: float, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(x, a, b)
        ctx.scale, ctx.pattern = scale, pattern
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(a.dtype)
            made = wide.new_empty(x.shape[0], b.shape[0])
            for place, delta in _deltas(a, b, scale, pattern):
                torch.mm(wide, delta.T, out=made[:, place])
            return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, a, b = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            wide, g = x.to(a.dtype), grads[0].to(a.dtype)
            da, db = torch.zeros_like(a), torch.empty_like(b)
            dx = torch.zeros_like(wide) if ctx.needs_input_grad[0] else None
            for place, delta in _deltas(a, b, ctx.scale, ctx.pattern):
                part = g[:, place]
                if dx is not None:
                    dx.addmm_(part, delta)
                moved = (part.T @ wide).masked_fill_(ctx.pattern.dense[place], 0)
                torch.mm(moved, a.T, out=db[place])
                da.addmm_(b[place].T, moved)
            db *= ctx.scale
            return None if dx is None else dx.to(x.dtype), da * ctx.scale, db, None, None


def _deltas(a: Tensor, b: Tensor, scale: float, pattern: Pattern) -> Any:
    assert pattern.dense is not None
    for start in range(0, b.shape[0], _ROWS):
        place = slice(start, min(b.shape[0], start + _ROWS))
        yield place, (b[place] @ a).mul_(scale).masked_fill_(pattern.dense[place], 0)


def _pointers(index: Tensor, n: int) -> Tensor:
    counts = torch.bincount(index, minlength=n)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _csr(crow: Tensor | None, col: Tensor | None, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR layout a beta
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)  # type: ignore[arg-type]


def sampled(crow: Tensor, col: Tensor, shape: tuple[int, int], left: Tensor, right: Tensor) -> Tensor:
    """(left right) at the entries of a CSR pattern."""
    empty = _csr(crow, col, left.new_zeros(col.numel()), shape)
    return torch.sparse.sampled_addmm(empty, left, right, beta=0.0).values()  # type: ignore[no-any-return]


def samples(tensor: Tensor) -> bool:
    """Whether torch can sample products where the tensor lives."""
    return tensor.is_cuda or bool(torch.backends.mkl.is_available())
