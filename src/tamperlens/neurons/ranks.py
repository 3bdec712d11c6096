"""Rank level: the directions in which a matrix writes on some data, their removal, and their overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.parts import Part, parts_of
from tamperlens.base.progress import progress_bar
from tamperlens.base.results import Result
from tamperlens.models import ChatModel, ModelLike, as_chat_model, evaluating
from tamperlens.neurons.examples import BatchSize, Examples, Pairs, batch_rows, batches
from tamperlens.neurons.passes import Memory, chosen_projections, memory_bytes
from tamperlens.neurons.simple import body
from tamperlens.prompts import IGNORE
from tamperlens_hooks import Projection
from tamperlens_hooks.effective import merged_weight
from tamperlens_hooks.weights import lowrank_removed, watch_inputs


@dataclass(frozen=True)
class Subspaces(Result):
    """Left singular vectors of W X for every projection, strongest first.

    Attributes:
        bases: part name ("3.up") to U [d_out, rank], orthonormal columns, fp32.
        values: part name to the singular values of W X [rank], fp32.
        parts: the projections, in order.
        prompts: name of the prompt set to its sha256.
        n: number of examples.
        fingerprint: of the model.
        model: its name.
        definition: formula and choices.
    """

    bases: dict[str, Tensor]
    values: dict[str, Tensor]
    parts: tuple[Part, ...]
    prompts: dict[str, str]
    n: int
    fingerprint: str
    model: str
    definition: str

    def check_model(self, model: ChatModel) -> None:
        """Subspaces belong to the very weights that they were made of.

        Raises:
            InputError: the model is another one.
        """
        _made_of(self, "this subspace", model)

    def summary(self) -> str:
        """Of what, and how many directions in each projection."""
        ranks = [basis.shape[1] for basis in self.bases.values()]
        return (
            f"{self.model}: {min(ranks)} to {max(ranks)} output directions in each of {len(self.parts)} "
            f"projections, from {self.n} examples; {self.definition}."
        )

    def basis(self, part: str, rank: int) -> Float[Tensor, "d_out rank"]:
        """The strongest `rank` directions of a projection, fewer where it has fewer.

        Raises:
            InputError: unknown projection, or more than were kept.
        """
        if part not in self.bases:
            raise InputError(f"no subspace of {part!r}; there are {', '.join(list(self.bases)[:6])}, …")
        full = self.bases[part]
        whole = next(p for p in self.parts if p.name == part)
        if rank < 1 or (rank > full.shape[1] and full.shape[1] < min(whole.d_out, whole.d_in)):
            raise InputError(
                f"rank {rank} of {part} was not kept (1 to {full.shape[1]} were); act_svd(rank=) keeps more"
            )
        return full[:, :rank]

    def to_frame(self) -> pd.DataFrame:
        """One row per projection: ranks kept, share of the squared norm in the first one and first ten."""
        rows = []
        for part in self.parts:
            squared = self.values[part.name].double().square()
            total = float(squared.sum())
            rows.append(
                {
                    "layer": part.layer,
                    "module": part.projection,
                    "kept": squared.numel(),
                    "first": float(squared[0]) / total if total else math.nan,
                    "first_10": float(squared[:10].sum()) / total if total else math.nan,
                }
            )
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class RankEdit(Result):
    """Low-rank pieces to take out of a model's matrices: W ← W − L R.

    Attributes:
        left: part name to L [d_out, rank].
        right: part name to R [rank, d_in].
        parts: the projections concerned.
        fingerprint: of the model it was made for.
        model: its name.
        definition: what the pieces are.
    """

    left: dict[str, Tensor]
    right: dict[str, Tensor]
    parts: tuple[Part, ...]
    fingerprint: str
    model: str
    definition: str

    def check_model(self, model: ChatModel) -> None:
        """A rank edit belongs to the very weights that it was made of.

        Raises:
            InputError: the model is another one.
        """
        _made_of(self, "this rank edit", model)

    def summary(self) -> str:
        """Of what, and the largest rank."""
        return (
            f"{self.model}: at most {self.rank} ranks in each of {len(self.parts)} projections; "
            f"{self.definition}."
        )

    @property
    def rank(self) -> int:
        """The largest rank taken out of a matrix."""
        return max((factor.shape[1] for factor in self.left.values()), default=0)

    def delta(self, part: str) -> Float[Tensor, "d_out d_in"]:
        """What is taken out of one matrix, L R."""
        return self.left[part] @ self.right[part]


def act_svd(
    model: ModelLike,
    data: Pairs,
    *,
    rank: int | None = None,
    modules: str | Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    batch_size: BatchSize = "auto",
    max_memory: Memory = "4GiB",
    max_length: int | None = None,
    progress: bool = False,
) -> Subspaces:
    """Singular directions of what each matrix writes on the response tokens: W X = U S Vᵀ.

    X [d_in, tokens] holds the inputs at the response's tokens (ActSVD, Wei et al. 2024, §3.3). U and S come
    from the eigenvectors of W (X Xᵀ) Wᵀ, with X Xᵀ summed in fp64, so no activation is kept. W is the merged
    weight where an adapter is attached. All matrices are measured in the intact model.

    Args:
        model: the model.
        data: prompts with responses.
        rank: directions to keep per matrix; all by default.
        modules: projections; all by default.
        layers: blocks; all by default.
        batch_size: rows at once.
        max_memory: bound on the bytes of X Xᵀ held at a time; the pass is repeated for portions of blocks.
        max_length: cut turns to this many tokens.
        progress: show a bar.

    Raises:
        InputError: a row that cannot be used, or one matrix does not fit into max_memory.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import neurons, prompts
        >>> model = tamperlens.load('organism')
        >>> found = neurons.act_svd(model, prompts.packaged('benign').head(4), rank=4)
        >>> type(found).__name__
        'Subspaces'
    """
    model = as_chat_model(model)
    projections = chosen_projections(model, modules, layers)
    examples = Examples.of(model, data, max_length)
    bases, values = {}, {}
    for portion in _portions(projections, memory_bytes(max_memory)):
        grams = _grams(model, examples, portion, batch_size, progress)
        for projection, part in zip(portion, parts_of(model, portion), strict=True):
            weight = part.read(merged_weight(model.module, projection)).double()
            gram = grams[projection.module].to(weight.device)
            found, directions = torch.linalg.eigh(weight @ gram @ weight.T)
            keep = min(rank or part.d_out, part.d_out, part.d_in)
            bases[part.name] = directions.flip(1)[:, :keep].float().cpu().contiguous()
            values[part.name] = found.flip(0)[:keep].clamp_min(0).sqrt().float().cpu()
    parts = parts_of(model, projections)
    return Subspaces(
        {part.name: bases[part.name] for part in parts},
        {part.name: values[part.name] for part in parts},
        parts,
        {examples.name: examples.sha256},
        len(examples),
        model.fingerprint,
        model.name,
        "ActSVD: left singular vectors of W X over response tokens, intact model",
    )


def top_ranks(model: ModelLike, subspaces: Subspaces, rank: int) -> RankEdit:
    """The strongest `rank` directions, to be removed: Π W with Π = U Uᵀ over the first `rank`.

    Raises:
        InputError: the subspaces are of another model, or keep fewer directions.
    """
    model = as_chat_model(model)
    left, right = {}, {}
    for part, weight in _weights(model, subspaces.parts):
        basis = subspaces.basis(part.name, rank)
        left[part.name], right[part.name] = basis, basis.T @ weight
    words = f"top {rank} ranks of [{subspaces.definition}; {', '.join(subspaces.prompts)}]"
    return RankEdit(left, right, subspaces.parts, subspaces.fingerprint, subspaces.model, words)


def orthogonal_difference(
    model: ModelLike, safety: Subspaces, utility: Subspaces, *, r_u: int, r_s: int
) -> RankEdit:
    """ΔW = (I − Π_u) Π_s W: what safety data use and utility data do not (Wei et al. 2024, §3.3).

    Args:
        model: whose weights W are.
        safety: directions on safety data.
        utility: directions on utility data, same projections.
        r_u: utility ranks to retain: Π_u projects on the strongest r_u.
        r_s: safety ranks to retain in Π_s, which bounds the rank removed. The published settings count from
            the other end: their (3450, 4000) on width 4096 are r_u = 646 and r_s = 96 here.

    Raises:
        InputError: subspaces of different models or projections, or fewer directions kept than asked for.
    """
    model = as_chat_model(model)
    _require_pair(safety, utility)
    left, right = {}, {}
    for part, weight in _weights(model, safety.parts):
        s, u = safety.basis(part.name, r_s), utility.basis(part.name, r_u)
        left[part.name] = s - u @ (u.T @ s)
        right[part.name] = s.T @ weight
    words = (
        f"orthogonal difference (I − Π_u) Π_s W, r_s = {r_s} of [{', '.join(safety.prompts)}], "
        f"r_u = {r_u} of [{', '.join(utility.prompts)}]"
    )
    return RankEdit(left, right, safety.parts, safety.fingerprint, safety.model, words)


def random_ranks(model: ModelLike, edit: RankEdit, *, seed: int) -> RankEdit:
    """A control for a rank edit: Π W with Π on a random subspace of the same rank in every matrix."""
    model = as_chat_model(model)
    generator = torch.Generator().manual_seed(seed)
    left, right = {}, {}
    for part, weight in _weights(model, edit.parts):
        rank = edit.left[part.name].shape[1]
        drawn = torch.randn(part.d_out, rank, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(drawn).Q.float()
        left[part.name], right[part.name] = basis, basis.T @ weight
    words = f"random subspaces of the ranks of [{edit.definition}], seed {seed}"
    return RankEdit(left, right, edit.parts, edit.fingerprint, edit.model, words)


def subspace_overlap(safety: Subspaces, utility: Subspaces, *, r_u: int, r_s: int) -> pd.DataFrame:
    """φ = ‖U_sᵀ U_u‖²_F / min(r_s, r_u) per projection, with its chance level max(r_s, r_u) / d_out.

    1 when the smaller subspace lies in the larger, 0 when they are orthogonal (Hu et al. 2021, §G). Chance is
    the expectation for independent uniformly random subspaces.

    Raises:
        InputError: subspaces of different models or projections, or fewer directions kept than asked for.
    """
    _require_pair(safety, utility)
    rows = []
    for part in safety.parts:
        s, u = safety.basis(part.name, r_s), utility.basis(part.name, r_u)
        small, large = sorted((s.shape[1], u.shape[1]))
        overlap = float((s.double().T @ u.double()).square().sum()) / small
        rows.append(
            {
                "layer": part.layer,
                "module": part.projection,
                "r_s": s.shape[1],
                "r_u": u.shape[1],
                "overlap": overlap,
                "chance": large / part.d_out,
            }
        )
    return pd.DataFrame(rows)


@contextmanager
def ranks_removed(model: ModelLike, edit: RankEdit) -> Iterator[ChatModel]:
    """Compute with W − L R inside the block; no weight is written.

    Raises:
        InputError: the edit was made for another model.
    """
    model = as_chat_model(model)
    known = {(p.layer, p.name): p for p in model.anatomy.projections()}
    edits = [
        (known[part.layer, part.projection], edit.left[part.name], edit.right[part.name])
        for part in edit.parts
    ]
    with lowrank_removed(model, edits):
        yield model


def _grams(
    model: ChatModel,
    examples: Examples,
    portion: Sequence[Projection],
    batch_size: BatchSize,
    progress: bool,
) -> Mapping[str, Tensor]:
    """Module path to X Xᵀ [d_in, d_in] in fp64 over response tokens."""
    grams: dict[str, Tensor] = {}
    kept: list[Tensor] = []

    def see(part: Projection, x: Tensor) -> None:
        picked = x[kept[0].to(x.device)].double()
        if part.module not in grams:
            grams[part.module] = picked.T @ picked
        else:
            grams[part.module].addmm_(picked.T, picked)

    with (
        evaluating(model.module),
        watch_inputs(model, see, portion),
        progress_bar(len(examples), "activations", progress) as advance,
    ):
        for batch in batches(
            examples, batch_rows(model, examples, batch_size, 0), model.pad_id, model.device
        ):
            kept[:] = [batch.labels != IGNORE]
            body(model, batch.input_ids, batch.attention_mask)
            advance(len(batch.rows))
    return grams


def _portions(projections: Sequence[Projection], limit: int | None) -> Iterator[list[Projection]]:
    """Runs of projections whose X Xᵀ fit into the limit."""
    portion: list[Projection] = []
    room = limit or 0
    for projection in projections:
        fused = bool(portion) and portion[-1].module == projection.module
        need = 0 if fused else 8 * projection.d_in**2
        if limit is not None and need > limit:
            raise InputError(
                f"max_memory of {limit:,} bytes does not hold X Xᵀ of {projection.module} ({need:,} bytes)"
            )
        if portion and limit is not None and need > room:
            yield portion
            portion, room = [], limit
        portion.append(projection)
        room -= need
    if portion:
        yield portion


def _weights(model: ChatModel, parts: Sequence[Part]) -> Iterator[tuple[Part, Tensor]]:
    known = {(p.layer, p.name): p for p in model.anatomy.projections()}
    for part in parts:
        projection = known[part.layer, part.projection]
        yield part, part.read(merged_weight(model.module, projection)).float().cpu()


def _made_of(made: Subspaces | RankEdit, what: str, model: ChatModel) -> None:
    if made.fingerprint != model.fingerprint:
        raise InputError(
            f"{what} was made for {made.model} ({made.fingerprint[:12]}), not for {model.name} "
            f"({model.fingerprint[:12]}); make one of that model"
        )


def _require_pair(safety: Subspaces, utility: Subspaces) -> None:
    if safety.fingerprint != utility.fingerprint:
        raise InputError(f"subspaces of different models: {safety.model} and {utility.model}")
    if safety.parts != utility.parts:
        raise InputError("subspaces of different projections; use the same modules= for both")
