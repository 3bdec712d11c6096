"""Several directions at one place: SVD of the contrast, SVD of the shift, iterative nullspace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.directions.cache import ActivationCache
from tamperlens.directions.candidates import check_disjoint
from tamperlens.directions.geometry import auroc_estimate, orthonormal
from tamperlens.directions.nulls import activations_at
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, hash_prompts, prompt_texts


@dataclass(frozen=True)
class Subspace(Result):
    """Orthonormal directions in the residual stream at one layer and position.

    Attributes:
        basis: orthonormal rows, most important first, `[k, d_model]` float32.
        norms: length that each is added with, `[k]`: the gap between the harmful and the harmless mean along
            it, or the size that the method optimised for.
        weights: what the order goes by, `[k]`: singular values, held-out AUROC, or losses; see `method`.
        method: how it was made, in words.
        layer: block whose input was read.
        position: token position, negative from the end.
        n_harmful: harmful prompts behind it.
        n_harmless: harmless prompts behind it.
        harmful_sha256: hash of the harmful prompts.
        harmless_sha256: hash of the harmless prompts.
        model: name of the model.
        fingerprint: its fingerprint.
        log: what happened on the way, one row per step or round; empty where there is nothing to tell.
    """

    basis: Tensor
    norms: Tensor
    weights: Tensor
    method: str
    layer: int
    position: int
    n_harmful: int
    n_harmless: int
    harmful_sha256: str
    harmless_sha256: str
    model: str
    fingerprint: str
    log: pd.DataFrame

    def check_model(self, model: ChatModel) -> None:
        """Subspaces of one width can be used in any model of it.

        Raises:
            InputError: the model has another width, or no such block.
        """
        if self.basis.shape[1] != model.d_model or self.layer >= model.n_layers:
            raise InputError(
                f"the subspace was found at block {self.layer} of {self.model} (width "
                f"{self.basis.shape[1]}), and {model.name} has width {model.d_model} and {model.n_layers} "
                "blocks; find one in that model"
            )

    def summary(self) -> str:
        """Size, place and method."""
        return (
            f"{self.model}: {self.k} orthogonal directions at layer {self.layer}, position {self.position}, "
            f"by {self.method}, from {self.n_harmful} harmful and {self.n_harmless} harmless prompts."
        )

    @property
    def k(self) -> int:
        """Number of directions."""
        return len(self.basis)

    @property
    def raw(self) -> Float[Tensor, "k d_model"]:
        """The directions with the lengths that addition uses."""
        return self.basis * self.norms[:, None]

    def to_frame(self) -> pd.DataFrame:
        """One row per direction: direction, weight, norm, layer, position, method, model."""
        return pd.DataFrame(
            {
                "direction": range(self.k),
                "weight": self.weights.tolist(),
                "norm": self.norms.tolist(),
                "layer": self.layer,
                "position": self.position,
                "method": self.method,
                "model": self.model,
            }
        )


def contrast_subspace(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    k: int = 3,
    *,
    cache: ActivationCache | None = None,
) -> Subspace:
    """SVD of the contrast: right singular vectors of (harmful activation − harmless mean), uncentred.

    The first is close to the difference of means where that dominates; the others are along what harmful
    prompts differ in from each other.

    Args:
        model: any chat model.
        harmful: harmful prompts, more than k.
        harmless: harmless prompts.
        layer: block whose input is read.
        position: negative token position from the end.
        k: number of directions.
        cache: where activations are kept between calls.

    Raises:
        InputError: k does not fit the prompts or the width, prompts in both sets, or no such place.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import directions, prompts
        >>> model = tamperlens.load('organism')
        >>> harmful, harmless = prompts.packaged('harmful').head(24), prompts.packaged('harmless').head(24)
        >>> directions.contrast_subspace(model, harmful, harmless, 2, -1, k=2).basis.shape
        torch.Size([2, 128])
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    bad, good = both_activations(model, harmful, harmless, layer, position, cache)
    check_k(k, len(bad), model.d_model)
    values, basis = contrast_svd(bad, good, k)
    method = "svd of the contrast: harmful activations − harmless mean, uncentred; singular values"
    return make_subspace(model, basis, values, bad, good, method, harmful, harmless, layer, position)


def shift_subspace(
    base: ModelLike,
    tuned: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    k: int = 3,
    *,
    kind: Literal["samples", "affine"] = "samples",
    ridge: float = 1e-2,
    cache: ActivationCache | None = None,
) -> Subspace:
    """SVD of the shift between two checkpoints on the same prompts (Pan et al. 2025, arXiv 2502.09674).

    "samples", as in their published code (`calculate_components` with `method="identity"`): right singular
    vectors of tuned − base activations, one row a prompt, uncentred. "affine", as in the paper's text: fit
    tuned ≈ W·base + b by ridge regression and take the left singular vectors of W − I, which leaves out the
    constant shift b.

    Args:
        base: the checkpoint before.
        tuned: the checkpoint after.
        harmful: harmful prompts; both sets go into the shift.
        harmless: harmless prompts.
        layer: block whose input is read.
        position: negative token position from the end.
        k: number of directions.
        kind: "samples" or "affine".
        ridge: penalty of the fit, as a share of the mean squared singular value of the centred activations.
        cache: where activations are kept between calls.

    Raises:
        InputError: nothing shifted, k does not fit, or no such place.
    """
    base = as_chat_model(base, what="base")
    tuned = as_chat_model(tuned, what="tuned")
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    before = both_activations(base, harmful, harmless, layer, position, cache)
    after = both_activations(tuned, harmful, harmless, layer, position, cache)
    x, y = torch.cat(before), torch.cat(after)
    check_k(k, len(x), base.d_model)
    shift = y - x
    if float(shift.norm()) <= 1e-7 * float(x.norm()):
        raise InputError(
            f"{base.name} and {tuned.name} have the same activations at layer {layer}, position {position}: "
            "there is no shift to decompose"
        )
    if kind == "samples":
        _, values, right = torch.linalg.svd(shift, full_matrices=False)
        basis = right[:k]
    else:
        values, basis = _affine(x, shift, k, ridge)
    method = f"svd of the shift {base.name} → {tuned.name} ({kind}; arXiv 2502.09674); singular values"
    # Signs are free in an SVD: here the tuned model lies on the positive side of the base.
    basis = basis * _sign(basis @ shift.mean(0))[:, None]
    return make_subspace(
        tuned, basis, values[:k], after[0], after[1], method, harmful, harmless, layer, position, orient=False
    )


def nullspace_subspace(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    k: int = 3,
    *,
    ridge: float = 1e-1,
    held_out: float = 0.25,
    seed: int = 0,
    cache: ActivationCache | None = None,
) -> Subspace:
    """Iterative nullspace projection (Ravfogel et al. 2020, arXiv 2004.07667), classifier by classifier.

    Each round fits a linear classifier (regularised least squares, in closed form) to what the rounds before
    left, adds its direction, and projects it out. Rounds end after k directions or when held-out prompts are
    no longer told apart (the AUROC's interval holds 0.5); `log` has the AUROC of each round.

    Args:
        model: any chat model.
        harmful: harmful prompts, 8 at least.
        harmless: harmless prompts, 8 at least.
        layer: block whose input is read.
        position: negative token position from the end.
        k: at most so many directions.
        ridge: penalty, as a share of the mean variance of a coordinate.
        held_out: share of prompts that the AUROC is taken on.
        seed: of that split.
        cache: where activations are kept between calls.

    Raises:
        InputError: too few prompts, k does not fit, or not even the first classifier finds anything.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    bad, good = both_activations(model, harmful, harmless, layer, position, cache)
    check_k(k, len(bad), model.d_model)
    if min(len(bad), len(good)) < 8 or not 0 < held_out < 1:
        raise InputError(f"{len(bad)} and {len(good)} prompts are too few to hold some out; pass 8 or more")
    generator = torch.Generator().manual_seed(seed)
    fit, test = [], []
    for rows in (bad, good):
        order = torch.randperm(len(rows), generator=generator)
        n = max(2, round(held_out * len(rows)))
        fit.append(rows[order[n:]])
        test.append(rows[order[:n]])
    vectors: list[Tensor] = []
    log: list[dict[str, float]] = []
    for round_ in range(k):
        left_fit, left_test = ([_without(rows, vectors) for rows in side] for side in (fit, test))
        vector = least_squares_direction(left_fit[0], left_fit[1], ridge)
        found = auroc_estimate(left_test[0] @ vector, left_test[1] @ vector)
        log.append({"round": round_, "auroc": found.value, "low": found.low, "high": found.high})
        if found.low <= 0.5:
            break
        vectors.append(_without(vector[None], vectors)[0])
        vectors[-1] = vectors[-1] / vectors[-1].norm()
    if not vectors:
        raise InputError(
            f"no linear classifier is shown to tell held-out prompts apart at layer {layer}, position "
            f"{position} (AUROC {log[0]['auroc']:.2f} [{log[0]['low']:.2f}, {log[0]['high']:.2f}] on "
            f"{len(test[0])} and {len(test[1])} of them); give more prompts, or another place"
        )
    weights = torch.tensor([row["auroc"] for row in log[: len(vectors)]])
    return make_subspace(
        model, torch.stack(vectors), weights, bad, good,
        "iterative nullspace projection, ridge classifiers; held-out AUROC",
        harmful, harmless, layer, position, log=pd.DataFrame(log),
    )  # fmt: skip


def contrast_svd(
    bad: Float64[Tensor, "n d"], good: Float64[Tensor, "m d"], k: int
) -> tuple[Float64[Tensor, " k"], Float64[Tensor, "k d"]]:
    """(singular values, orthonormal rows) of harmful activations − harmless mean, along the mean contrast."""
    contrast = bad - good.mean(0)
    _, values, right = torch.linalg.svd(contrast, full_matrices=False)
    basis = right[:k]
    return values[:k], basis * _sign(basis @ contrast.mean(0))[:, None]


def least_squares_direction(
    bad: Float64[Tensor, "n d"], good: Float64[Tensor, "m d"], ridge: float
) -> Float64[Tensor, " d"]:
    """Unit normal of the ridge classifier, (Σ + λI)⁻¹(μ₊ − μ₋) with Σ the pooled within-class covariance."""
    centred = torch.cat([bad - bad.mean(0), good - good.mean(0)])
    penalty = ridge * float(centred.square().mean()) * len(centred) + 1e-12
    gap = bad.mean(0) - good.mean(0)
    # (CᵀC + λI)⁻¹ g by the push-through identity, so that only an n × n system is solved.
    gram = centred @ centred.T + penalty * torch.eye(len(centred), dtype=torch.float64)
    vector: Tensor = (gap - centred.T @ torch.linalg.solve(gram, centred @ gap)) / penalty
    unit: Tensor = vector / vector.norm()
    return unit


def _affine(
    x: Float64[Tensor, "n d"], shift: Float64[Tensor, "n d"], k: int, ridge: float
) -> tuple[Tensor, Tensor]:
    """Singular values and left singular vectors of W − I in shift ≈ (W − I) x + b."""
    centred, moved = x - x.mean(0), shift - shift.mean(0)
    u, s, right = torch.linalg.svd(centred, full_matrices=False)
    shrunk = s / (s**2 + ridge * float((s**2).mean()) + 1e-30)
    # W − I = (centred⁺ moved)ᵀ = movedᵀ U diag(shrunk) Vᵀ; V has orthonormal columns and falls away.
    left, values, _ = torch.linalg.svd(moved.T @ (u * shrunk), full_matrices=False)
    if float(values[0]) <= 0 or not len(right):
        raise InputError("the shift is the same for every prompt, so that W is the identity; use samples")
    return values[:k], left.T[:k]


def both_activations(
    model: ChatModel,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    cache: ActivationCache | None,
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "m d"]]:
    """Activations of harmful and of harmless prompts at one place.

    Raises:
        InputError: prompts in both sets, or no such place.
    """
    check_disjoint(harmful, harmless)
    bad, good = (
        activations_at(model, prompt_texts(data), layer, position, cache=cache)
        for data in (harmful, harmless)
    )
    return bad, good


def check_k(k: int, n: int, width: int) -> None:
    """Refuse a number of directions that prompts or width cannot give.

    Raises:
        InputError: says what fits.
    """
    if not 1 <= k <= min(n, width):
        raise InputError(f"k={k} directions need 1 ≤ k ≤ {min(n, width)} with {n} prompts and width {width}")


def _without(rows: Float64[Tensor, "n d"], vectors: Sequence[Tensor]) -> Float64[Tensor, "n d"]:
    for vector in vectors:
        rows = rows - (rows @ vector)[:, None] * vector
    return rows


def _sign(values: Tensor) -> Tensor:
    return torch.where(values < 0, -torch.ones_like(values), torch.ones_like(values))


def make_subspace(
    model: ChatModel,
    basis: Tensor,
    weights: Tensor,
    bad: Tensor,
    good: Tensor,
    method: str,
    harmful: Prompts,
    harmless: Prompts,
    layer: int,
    position: int,
    *,
    norms: Tensor | None = None,
    orient: bool = True,
    log: pd.DataFrame | None = None,
) -> Subspace:
    """Orthonormal rows with the gap along each; turned so that harmful prompts lie on the positive side."""
    exact = orthonormal(basis)
    gaps = exact @ (bad.mean(0) - good.mean(0))
    if orient:
        exact = exact * _sign(gaps)[:, None]
    lengths = gaps.abs() if norms is None else norms
    if not bool(torch.isfinite(exact).all()) or not math.isfinite(float(lengths.sum())):
        raise InputError("the directions are NaN or infinite; look at the activations")
    return Subspace(
        exact.float().cpu(),
        lengths.float().cpu(),
        weights.float().cpu(),
        method,
        layer,
        position,
        len(bad),
        len(good),
        hash_prompts(prompt_texts(harmful)),
        hash_prompts(prompt_texts(harmless)),
        model.name,
        model.fingerprint,
        pd.DataFrame() if log is None else log,
    )
