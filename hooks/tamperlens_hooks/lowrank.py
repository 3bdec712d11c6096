"""How far a weight has moved, from W0 and the factors of its update: W0 + s·B·A is never built.

With d = ‖Δ‖, a = ‖w‖ and ip = ⟨Δ, w⟩, for one row, one group of entries or the whole matrix:

    ‖sBA‖² = s² Σ (BᵀB ⊙ AAᵀ)        ‖row i‖² = s² bᵢᵀ (AAᵀ) bᵢ        ip of row i = s bᵢ · (W0 Aᵀ)ᵢ
    sin² = (d² − ip²/a²) / (a² + 2 ip + d²)        1 − cos = sin² / (1 + √(1 − sin²))

The last line has no subtraction of nearly equal numbers, so 1 − cos is right far below fp32's 1e-7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from tamperlens_hooks._frozen import sampled, samples
from tamperlens_hooks._modules import base_layer, original, unwrap
from tamperlens_hooks._parts import Projection
from tamperlens_hooks.effective import counting, layer_at, plain_layer, plain_lora
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.freeze import frozen_flags
from tamperlens_hooks.stored import logical, logical_weight

_BLOCK = 1 << 22
_CACHED = 1 << 20
_GATHER = 1 << 20
# LoRA initialisations after which the layer's base weight is W0 − s·B·A.
REWRITING = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over a set of entries, in fp64; scalars, or one per row.

    Attributes:
        moved: Σ Δ².
        inner: Σ Δ w.
        size: Σ w².
    """

    moved: Float[Tensor, "*rows"]
    inner: Float[Tensor, "*rows"]
    size: Float[Tensor, "*rows"]

    def relative(self) -> Float[Tensor, "*rows"]:
        """‖Δ‖ / ‖w‖; NaN where w is zero."""
        return (self.moved / _positive(self.size)).sqrt()

    def one_minus_cosine(self) -> Float[Tensor, "*rows"]:
        """1 − cos(w, w + Δ), free of cancellation; NaN where w or w + Δ is zero."""
        across = (self.moved - self.inner**2 / _positive(self.size)).clamp_min(0)
        after = self.size + 2 * self.inner + self.moved
        sine = (across / _positive(after)).clamp(0, 1)
        root = (1 - sine).sqrt()
        return torch.where(self.size + self.inner >= 0, sine / (1 + root), 1 + root)

    def total(self) -> Moments:
        """The moments of all rows together."""
        return Moments(self.moved.sum(), self.inner.sum(), self.size.sum())


@dataclass(frozen=True, eq=False)
class Entries:
    """Chosen entries of a matrix, one set after the other, in the form in which products are sampled (CSR).

    Attributes:
        crow: row pointers, the sets' rows one below the other.
        col: column of every entry.
        shape: of the matrix.
        counts: entries of each set.
    """

    crow: Integer[Tensor, " pointers"]
    col: Integer[Tensor, " n"]
    shape: tuple[int, int]
    counts: tuple[int, ...]

    @classmethod
    def of(
        cls, sets: Sequence[Bool[Tensor, "d_out d_in"]], shape: tuple[int, int], device: torch.device
    ) -> Entries:
        """Entries of flags; 4 bytes each and 4 a row.

        Args:
            sets: flags of each set.
            shape: of the matrix, where there are no sets.
            device: where they are kept.
        """
        found = [flags.nonzero(as_tuple=True) for flags in sets]
        per_row = [torch.bincount(rows, minlength=shape[0]) for rows, _ in found]
        none = torch.zeros(1, dtype=torch.int64)
        crow = torch.cat([none, *(one.cpu() for one in per_row)]).cumsum(0)
        col = torch.cat([none[:0], *(columns.cpu() for _, columns in found)])
        counts = tuple(int(rows.numel()) for rows, _ in found)
        return cls(crow.int().to(device), col.int().to(device), shape, counts)

    def rows(self) -> Integer[Tensor, " n"]:
        """Row of every entry."""
        d_out = self.shape[0]
        numbers = torch.arange(d_out * len(self.counts), device=self.col.device) % max(1, d_out)
        return numbers.repeat_interleave(self.crow.diff(), output_size=self.col.numel())


@dataclass(frozen=True, eq=False)
class Update:
    """Δ of one logical map, beside its W0; the factors are given, or the trained weight, or Δ.

    Attributes:
        weight: W0 in logical orientation, in whatever type it is held.
        b: factor with s in it already; rank 0 says that nothing has moved.
        a: the other factor.
        trained: the weight after full fine-tuning, or None.
        shift: Δ itself, for adapters whose update is no product, or None.
        frozen: entries at which Δ is zero whatever the factors say, or None.
    """

    weight: Float[Tensor, "d_out d_in"]
    b: Float[Tensor, "d_out rank"]
    a: Float[Tensor, "rank d_in"]
    trained: Float[Tensor, "d_out d_in"] | None = None
    frozen: Bool[Tensor, "d_out d_in"] | None = None
    shift: Float[Tensor, "d_out d_in"] | None = None

    @property
    def factored(self) -> bool:
        """Whether Δ is exactly the product of the factors."""
        return self.trained is None and self.frozen is None and self.shift is None

    @torch.no_grad()
    def gather(self, rows: Integer[Tensor, " n"], columns: Integer[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Δ at chosen entries, in fp32."""
        if self.shift is not None:
            found = self.shift[rows, columns]
        elif self.trained is not None:
            found = self.trained[rows, columns].float() - self.weight[rows, columns].float()
        elif self.a.shape[0] == 0:
            found = torch.zeros(rows.shape, device=self.weight.device)
        else:
            b, a = self.b.float(), self.a.float().T.contiguous()
            pieces = [
                torch.linalg.vecdot(b.index_select(0, i), a.index_select(0, j))
                for i, j in zip(rows.split(_GATHER), columns.split(_GATHER), strict=True)
            ]
            found = torch.cat(pieces) if pieces else b.new_zeros(0)
        if self.frozen is not None:
            found = found.masked_fill(self.frozen[rows, columns], 0)
        return found

    @torch.no_grad()
    def sample(self, entries: Entries) -> Float[Tensor, " n"]:
        """Δ at the entries, in fp32, set after set: `gather` by one sampled product."""
        if self.a.shape[0] == 0 or not samples(self.b):
            return self.gather(entries.rows(), entries.col)
        sets = len(entries.counts)
        shape = (sets * entries.shape[0], entries.shape[1])
        found = sampled(entries.crow, entries.col, shape, self.b.float().repeat(sets, 1), self.a.float())
        if self.frozen is not None:
            found = found.masked_fill(self.frozen[entries.rows(), entries.col], 0)
        return found

    @torch.no_grad()
    def row_squares(self) -> Float[Tensor, " d_out"]:
        """‖Δ‖² of every row, in fp64."""
        if self.factored:
            b, a = self.b.double().T, self.a.double()
            return ((a @ a.T @ b) * b).sum(0)
        return torch.cat([delta.double().square().sum(1) for _, delta in self.blocks()])

    @torch.no_grad()
    def row_moments(self, sizes: Float[Tensor, " d_out"] | None = None) -> Moments:
        """Moments of every row.

        Args:
            sizes: `row_sizes(weight)` of an earlier call; W0 does not change, so they need computing once.
        """
        size = row_sizes(self.weight) if sizes is None else sizes
        if self.factored:
            across = torch.cat([block.float() @ self.a.float().T for _, block in self._weight_blocks()])
            return Moments(self.row_squares(), (self.b.double() * across.double()).sum(1), size)
        moved, inner = [], []
        for place, delta in self.blocks():
            wide = delta.double()
            moved.append(wide.square().sum(1))
            inner.append((wide * self.weight[place].double()).sum(1))
        return Moments(torch.cat(moved), torch.cat(inner), size)

    @torch.no_grad()
    def singular_values(self) -> Float[Tensor, " k"]:
        """Of Δ, in fp64, largest first.

        From two thin QRs where Δ is s·B·A; else from the Gram matrix of the built Δ, several times as fast as
        its SVD and right to 1e-8 of the largest.
        """
        if not self.factored:
            delta = self.delta().double()
            gram = delta @ delta.T if delta.shape[0] <= delta.shape[1] else delta.T @ delta
            return torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().flip(0)  # type: ignore[no-any-return]
        if self.a.shape[0] == 0:
            return torch.zeros(0, dtype=torch.float64, device=self.weight.device)
        left = torch.linalg.qr(self.b.double(), mode="r").R
        right = torch.linalg.qr(self.a.double().T, mode="r").R
        return torch.linalg.svdvals(left @ right.T)  # type: ignore[no-any-return]

    @torch.no_grad()
    def subspace_cosine(self, shift: Float[Tensor, "d_out d_in"]) -> Float[Tensor, ""]:
        """Cosine between Δ and C Δ with C = V Vᵀ / ‖V‖, V the shift that alignment made (Hsu et al. 2024).

        SafeLoRA (arXiv 2405.16833) drops updates for which this is small. NaN for an update of zero.

        Args:
            shift: V = W_aligned − W_unaligned.
        """
        v = shift.float()
        b = self.b.float() if self.factored else self.delta()
        inside = v.T @ b
        outside = (v @ inside).double()
        b, inside = b.double(), inside.double()
        if not self.factored:
            return inside.square().sum() / (outside.norm() * b.norm())  # type: ignore[no-any-return]
        a = self.a.double()
        gram = a @ a.T
        inner = ((inside.T @ inside) * gram).sum()
        norms = ((outside.T @ outside) * gram).sum() * ((b.T @ b) * gram).sum()
        return inner / norms.sqrt()

    def delta(self) -> Float[Tensor, "d_out d_in"]:
        """Δ itself in fp32: a new matrix, for small ones and for tests."""
        return torch.cat([delta for _, delta in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Float[Tensor, "rows d_in"]]]:
        """Δ in blocks of rows, fp32, so that it never stands in memory whole."""
        for place, block in self._weight_blocks():
            if self.shift is not None:
                delta = self.shift[place]
            elif self.trained is not None:
                delta = self.trained[place].detach().float() - block.float()
            else:
                delta = self.b[place].float() @ self.a.float()
            yield place, delta if self.frozen is None else delta.masked_fill(self.frozen[place], 0)

    def _weight_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        rows, columns = self.weight.shape
        # On a processor blocks that fit its cache are read fastest; a GPU wants few, large products.
        block = _CACHED if self.factored and not self.weight.is_cuda else _BLOCK
        step = max(1, block // columns)
        for start in range(0, rows, step):
            place = slice(start, min(rows, start + step))
            yield place, self.weight[place]


@torch.no_grad()
def row_sizes(weight: Float[Tensor, "d_out d_in"]) -> Float[Tensor, " d_out"]:
    """‖w‖² of every row, in fp64."""
    rows, columns = weight.shape
    step = max(1, _BLOCK // columns)
    return torch.cat([weight[i : i + step].double().square().sum(1) for i in range(0, rows, step)])


def moments(delta: Float[Tensor, " n"], weight: Float[Tensor, " n"], size: float | None = None) -> Moments:
    """Moments of gathered entries.

    Args:
        delta: Δ at the entries, from `Update.gather`.
        weight: W0 there.
        size: Σ w² when it is known.
    """
    d, w = delta.double(), weight.double()
    known = w @ w if size is None else torch.tensor(size, dtype=torch.float64, device=d.device)
    return Moments(d @ d, d @ w, known)


def effective_rank(singular_values: Float[Tensor, " k"]) -> float:
    """exp of the entropy of σ / Σσ (Roy & Vetterli 2007); NaN for a matrix of zeros."""
    total = singular_values.sum()
    if singular_values.numel() == 0 or float(total) == 0:
        return float("nan")
    share = singular_values / total
    return float(torch.special.entr(share).sum().exp())


def update_of(model: nn.Module, projection: Projection, base: nn.Module | None = None) -> Update:
    """What training has done to one projection, whatever was trained: Δ = W − W0.

    The factors where the active adapters are plain LoRA; the trained weight after full fine-tuning and for
    `modules_to_save`; for every other adapter the difference of merged weights (see `effective`).

    Args:
        model: the tuned module, PEFT-wrapped or not.
        projection: the logical map; fused and transposed weights are cut and turned.
        base: the module before training, whose weights are W0; needed after full fine-tuning and for
            adapters whose initialisation rewrites the base weight (PiSSA, OLoRA, …). By default W0 is
            the base weight in the model itself.

    Raises:
        HookError: a quantised weight, an adapter that has no fixed weight, or one that is merged or has
            rewritten its base weight, with no base to compare to.
    """
    layer: Any = layer_at(model, projection.module)
    own = logical_weight(model, projection).detach()
    before = own if base is None else logical_weight(base, projection).detach()
    given = before.data_ptr() != own.data_ptr() or before.dtype != own.dtype
    alike = not given or (before.dtype == own.dtype and torch.equal(before.to(own.device), own))
    before = own if alike else before.to(own.device)
    nothing = before.new_zeros((before.shape[0], 0)), before.new_zeros((0, before.shape[1]))
    names = plain_lora(layer)
    if not given:
        _refuse_without_base(model, layer, projection.module)
    if names and alike:
        rows = list(projection.rows) if isinstance(projection.rows, tuple) else projection.rows
        left = [layer.lora_B[n].weight.detach()[rows].float() * float(layer.scaling[n]) for n in names]
        right = [layer.lora_A[n].weight.detach().float() for n in names]
        flags = frozen_flags(layer)
        frozen = None if flags is None else logical(flags, projection).to(before.device)
        return Update(before, torch.cat(left, 1), torch.cat(right, 0), frozen=frozen)
    plain = plain_layer(layer, projection.module)
    if alike and plain is original(unwrap(model), projection.module):
        return Update(before, *nothing)
    after = logical(plain.get_parameter("weight").detach(), projection)
    if plain is base_layer(layer):
        return Update(before, *nothing, trained=after.to(before.device))
    return Update(before, *nothing, shift=(after - before.to(after)).float())


def rewritten(model: nn.Module, layer: nn.Module | None = None) -> str | None:
    """Which active adapter's initialisation has rewritten base weights, so that the model no longer holds W0.

    Args:
        model: wrapped or not.
        layer: only adapters that count in this layer; those of any layer by default.
    """
    configs: Any = getattr(unwrap(model), "peft_config", {})
    layers = unwrap(model).modules() if layer is None else [layer]
    for name in dict.fromkeys(name for one in layers if hasattr(one, "base_layer") for name in counting(one)):
        how = getattr(configs.get(name), "init_lora_weights", None)
        if isinstance(how, str) and how.lower().startswith(REWRITING):
            return f"the initialisation {how!r} of adapter {name!r}"
    return None


def _refuse_without_base(model: nn.Module, layer: nn.Module, path: str) -> None:
    """The layer's own base weight must be W0."""
    if getattr(layer, "merged_adapters", ()):
        raise HookError(f"{path} has its adapter merged; unmerge it to read its update, or give the base")
    how = rewritten(model, layer)
    if how is not None:
        raise HookError(
            f"{path}: {how} has rewritten the base weight, so that the model no longer holds W0; give the "
            "model before as base"
        )


def _positive(values: Tensor) -> Tensor:
    """The values, NaN where they are not positive."""
    return torch.where(values > 0, values, torch.full_like(values, float("nan")))
