"""Read activations: a tape for one or more forward passes, and sums that run over thousands of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from tamperlens_hooks._calling import on_model
from tamperlens_hooks._means import head_means, read_positions, residual_means
from tamperlens_hooks._modules import attach, hooks_attached, in_backward
from tamperlens_hooks._sites import Site, chosen_layers, negative_positions, place
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError

__all__ = ["Site", "Tape", "capture", "head_means", "read_positions", "residual_means"]


class Tape:
    """What `capture` read. `tape[site]` stacks the layers: shape [layer, batch, (pos,) d].

    Shapes by site, with `pos` gone for `positions="last"`:
        resid_pre, resid_post, attn_out, mlp_out: [layer, batch, pos, d_model]
        head_z: [layer, batch, pos, head, d_head]
        final: [batch, pos, d_model]

    Several forward passes inside one `with` are joined along the batch; while generating, where each pass
    holds the next token of the same rows, use `calls`.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        sites: Sequence[str],
        layers: Sequence[int],
        positions: Sequence[int] | None = None,
        last: bool = False,
        detach: bool = True,
    ) -> None:
        self.anatomy = anatomy
        self.sites = tuple(sites)
        self.layers = tuple(layers)
        self._positions = None if positions is None else list(positions)
        self._last = last
        self._detach = detach
        self._reads: dict[tuple[str, int], list[Tensor]] = {
            (site, layer): [] for site in sites for layer in (self.layers if site != "final" else (-1,))
        }

    def __contains__(self, site: object) -> bool:
        """Whether the site was captured."""
        return site in self.sites

    def __getitem__(self, site: str) -> Tensor:
        """All reads of one site, forward passes joined along the batch.

        Raises:
            HookError: the site was not asked for, nothing ran, or the passes differ in length.
        """
        calls = self.calls(site)
        axis = 0 if site == "final" else 1
        if len({call.shape[axis + 1 :] for call in calls}) > 1:
            raise HookError(
                f"the forward passes of {site!r} differ in length: read tape.calls({site!r}), "
                "or capture positions"
            )
        return torch.cat(calls, dim=axis) if len(calls) > 1 else calls[0]

    def calls(self, site: str) -> list[Tensor]:
        """The reads of one site, one tensor for each forward pass.

        Raises:
            HookError: the site was not asked for, or no forward pass reached all of its layers.
        """
        passes = [self.raw(site, call) for call in range(self._n_calls(site))]
        if not passes:
            raise HookError(f"nothing was captured at {site!r}: run the model inside the `with` block")
        return [self._shape(site, tensors) for tensors in passes]

    def raw(self, site: str, call: int = -1) -> list[Tensor]:
        """One tensor per layer as the model computed it in one forward pass, for `torch.autograd.grad`.

        With `detach=False` these are nodes of the graph, all positions; head_z has its heads side by side.

        Raises:
            HookError: the site was not asked for, or there was no such forward pass.
        """
        n = self._n_calls(site)
        if not -n <= call < n:
            raise HookError(f"{site!r} has seen {n} forward passes, so there is no number {call}")
        return [reads[call % n] for (name, _), reads in self._reads.items() if name == site]

    def _n_calls(self, site: str) -> int:
        if site not in self.sites:
            raise HookError(f"{site!r} was not captured; this tape holds {', '.join(self.sites)}")
        return min((len(reads) for (name, _), reads in self._reads.items() if name == site), default=0)

    def _store(self, site: str, layer: int, value: Tensor) -> None:
        if self._detach:
            value = self._cut(value).detach().clone()  # later in-place work must not change what was read
        self._reads[site, layer].append(value)

    def _cut(self, value: Tensor) -> Tensor:
        if self._positions is None:
            return value
        deepest = min(self._positions)
        if -deepest > value.shape[1]:
            raise HookError(f"position {deepest} lies before the start of a batch of {value.shape[1]} tokens")
        return value[:, self._positions]

    def _shape(self, site: str, tensors: list[Tensor]) -> Tensor:
        if not self._detach:
            tensors = [self._cut(tensor) for tensor in tensors]
        found = torch.stack([tensor.to(tensors[0].device) for tensor in tensors])
        if self._last:
            found = found[:, :, 0]
        if site == "head_z":
            found = rearrange(found, "... (head d) -> ... head d", head=self.anatomy.n_heads)
        return found[0] if site == "final" else found


@on_model
@contextmanager
def capture(
    model: nn.Module,
    anatomy: Anatomy,
    sites: Sequence[Site] | Site = ("resid_pre",),
    layers: Sequence[int] | int | None = None,
    positions: Sequence[int] | Literal["last"] | None = None,
    detach: bool = True,
) -> Iterator[Tape]:
    """Read activations of the forward passes inside the `with` block.

    ```python
    with capture(model, sites=["resid_pre", "head_z"], positions="last") as tape:
        model.module(**batch)
    tape["resid_pre"]  # [layer, batch, d_model]
    ```

    Args:
        model: module and anatomy, or one object with both. The adapter of a PEFT model counts.
        anatomy: of the module.
        sites: "resid_pre" (block input), "resid_post" (block output), "attn_out", "mlp_out" (what is added to
            the residual stream: behind the norm where there is one), "head_z" (the heads' outputs in front of
            the output projection), "final" (output of the final norm).
        layers: blocks to read; all by default. Does not concern "final".
        positions: None for all; "last" for the last token, without a position axis; or negative positions
            from the end, for left-padded batches.
        detach: copies, cut to the positions. With False the graph is kept, and where nothing upstream
            requires a gradient the activation becomes a leaf that does, so that `torch.autograd.grad(metric,
            tape.raw(site))` works on frozen weights.

    Raises:
        HookError: unknown site, layer or position.

    Examples:
        >>> import tamperlens, torch
        >>> from tamperlens import hooks
        >>> model = tamperlens.load('organism')
        >>> ids = torch.tensor([model.tokenizer('Name a tree.')['input_ids']])
        >>> with hooks.capture(model.module, model.anatomy, ['resid_pre'], layers=[0]) as read:
        ...     _ = model.module(input_ids=ids)
        >>> tuple(read['resid_pre'].shape[:2])
        (1, 1)
    """
    names = [sites] if isinstance(sites, str) else list(dict.fromkeys(sites))
    rows = chosen_layers(anatomy, layers)
    last = positions == "last"
    columns = (
        None if positions is None else [-1] if isinstance(positions, str) else negative_positions(positions)
    )
    tape = Tape(anatomy, names, rows, columns, last, detach)
    handles: list[Any] = []
    with hooks_attached(handles):
        for site in names:
            for layer in rows if site != "final" else [-1]:
                path, at_input = place(anatomy, site, layer)
                handles.append(attach(model.get_submodule(path), at_input, partial(_read, tape, site, layer)))
        yield tape


def _read(tape: Tape, site: str, layer: int, x: Tensor) -> Tensor | None:
    """Store what passes by; return a replacement only where a gradient leaf is needed."""
    leaf = None
    if not tape._detach and torch.is_grad_enabled() and not x.requires_grad:
        x = leaf = x.detach().requires_grad_(True)
    if not in_backward():  # gradient checkpointing repeats the pass; it has been read already
        tape._store(site, layer, x)
    return leaf
