"""True neurons and heads: weight scores summed to units, and units scored by their activations alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.masks import WeightMask
from tamperlens.base.parts import parts_of, shapes_of
from tamperlens.base.results import Result
from tamperlens.models import ChatModel, ModelLike, as_chat_model, evaluating
from tamperlens.neurons.cutoffs import check_fraction, cutoffs, quota, take
from tamperlens.neurons.examples import BatchSize, Examples, Pairs, batch_rows, batches
from tamperlens.neurons.scores import WeightScores
from tamperlens.neurons.simple import body
from tamperlens.prompts import IGNORE, PromptsLike, as_prompts
from tamperlens_hooks import Projection
from tamperlens_hooks.weights import watch_inputs

Kind = Literal["neuron", "head"]
Statistic = Literal["difference", "standardised"]


@dataclass(frozen=True)
class UnitScores(Result):
    """A score for every MLP neuron or attention head.

    Attributes:
        scores: [layer, unit], fp32; larger means more important.
        signed: [layer, unit], the same with its sign where the definition has one, else equal to `scores`.
        kind: "neuron" (a hidden unit of an MLP) or "head".
        definition: formula and choices.
        prompts: name of each prompt set to its sha256.
        n: number of examples (prompts or tokens, as the definition says).
        fingerprint: of the model.
        model: its name.
    """

    scores: Float[Tensor, "layer unit"]
    signed: Float[Tensor, "layer unit"]
    kind: str
    definition: str
    prompts: dict[str, str]
    n: int
    fingerprint: str
    model: str

    def summary(self) -> str:
        """The units that score highest."""
        listed = ", ".join(f"{layer}.{unit}" for layer, unit in self.top(min(3, self.scores.numel())))
        return (
            f"{self.model}: {self.scores.numel()} {self.kind}s by {self.definition} (n={self.n}); highest "
            f"(layer.unit) {listed}."
        )

    def top(self, fraction: float) -> list[tuple[int, int]]:
        """(layer, unit) of the ⌊fraction · n⌋ highest-scored units of the model, best first.

        Ties go to the lower layer and index; units with score 0 are never in.

        Raises:
            InputError: fraction out of range, or too small to choose one unit.
        """
        check_fraction("fraction", fraction)
        values = self.scores.numpy()
        k = quota(float(fraction), values.size)
        if k == 0:
            raise InputError(
                f"fraction = {fraction:g} chooses nothing of {values.size} {self.kind}s; use at least "
                f"{1 / values.size:.3g}"
            )
        flags, _ = take(values, cutoffs(values, [k])[0])
        found = [(int(layer), int(unit)) for layer, unit in zip(*flags.nonzero(), strict=True)]
        return sorted(found, key=lambda at: (-float(values[at]), at))

    def to_frame(self) -> pd.DataFrame:
        """One row per unit: layer, unit, kind, score, signed."""
        layers, units = self.scores.shape
        return pd.DataFrame(
            {
                "layer": [layer for layer in range(layers) for _ in range(units)],
                "unit": list(range(units)) * layers,
                "kind": self.kind,
                "score": self.scores.flatten().tolist(),
                "signed": self.signed.flatten().tolist(),
            }
        )

    def mask(self, model: ModelLike, units: Sequence[tuple[int, int]]) -> WeightMask:
        """The weights of some units: rows of gate and up and columns of down, or rows of q and columns of o.

        Raises:
            InputError: the scores are of another model, or a unit does not exist.
        """
        model = as_chat_model(model)
        if self.fingerprint not in (model.fingerprint, model.base_fingerprint):
            raise InputError(f"these scores were made for {self.model}, not for {model.name}")
        return unit_mask(model, self.kind, units)


def unit_mask(model: ModelLike, kind: str, units: Sequence[tuple[int, int]]) -> WeightMask:
    """The weights that belong to some neurons or heads alone (shared keys and values of GQA stay out)."""
    model = as_chat_model(model)
    anatomy, parts = model.anatomy, parts_of(model)
    limit = anatomy.d_mlp if kind == "neuron" else anatomy.n_heads
    flags = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes_of(model, parts).items()}
    own = {(part.layer, part.projection): part for part in parts}
    reading, writing = (("gate", "up"), "down") if kind == "neuron" else (("q",), "o")
    for layer in sorted({layer for layer, _ in units}):
        here = [unit for at, unit in units if at == layer]
        if not 0 <= layer < anatomy.n_layers or not all(0 <= unit < limit for unit in here):
            raise InputError(f"{kind}s {here} of layer {layer} do not all exist: there are {limit} a layer")
        if kind == "head":
            here = [row for head in here for row in range(*anatomy.head_slice(head).indices(10**9))]
        for name in (*reading, writing):
            part = own.get((layer, name))
            if part is None:
                continue  # GPT-2 and GPT-NeoX have no gate
            chosen = torch.zeros(part.d_out, part.d_in, dtype=torch.bool)
            if name == writing:
                chosen[:, here] = True
            else:
                chosen[here] = True
            part.write(flags[part.parameter], chosen | part.read(flags[part.parameter]))
    return WeightMask.from_tensors(model, flags, definition=f"{len(set(units))} {kind}s")


def by_row(scores: WeightScores) -> dict[str, Float[Tensor, " d_out"]]:
    """Sum of the scores of each output row, by `Part.name`, fp64."""
    return {part.name: scores.part(part).double().sum(1) for part in scores.parts}


def by_neuron(model: ModelLike, scores: WeightScores) -> UnitScores:
    """Scores of MLP neurons: their rows of gate and up and their column of down, summed.

    Raises:
        InputError: the MLP's projections were not scored, or a block routes tokens to experts.
    """
    model = as_chat_model(model)
    _require_neurons(model)
    total = torch.zeros(model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.float64)
    found = {part.projection for part in scores.parts}
    wanted = {part.name for part in model.anatomy.projections(0)} & {"gate", "up", "down"}
    if not wanted <= found:
        raise InputError(f"scores by neuron need {', '.join(sorted(wanted))}; {sorted(found)} were scored")
    for part in scores.parts:
        if part.projection in wanted:
            total[part.layer] += scores.part(part).double().sum(0 if part.projection == "down" else 1)
    return _units(model, total, "neuron", f"sum over a neuron's weights of [{scores.definition}]", scores)


def by_head(model: ModelLike, scores: WeightScores) -> UnitScores:
    """Scores of attention heads: rows of q and columns of o, and an equal share of the keys and values read.

    With grouped queries a key/value head is shared by several heads; each gets the same share, so that the
    sum over heads is the sum over the attention's weights.

    Raises:
        InputError: the attention's projections were not scored.
        HookError: a block has no heads.
    """
    model = as_chat_model(model)
    anatomy = model.anatomy
    anatomy.require_heads()
    total = torch.zeros(anatomy.n_layers, anatomy.n_heads, dtype=torch.float64)
    found = {part.projection for part in scores.parts}
    if not {"q", "k", "v", "o"} <= found:
        raise InputError(f"scores by head need q, k, v and o; {sorted(found)} were scored")
    group = anatomy.n_heads // anatomy.n_kv_heads
    for part in scores.parts:
        values = scores.part(part).double()
        if part.projection == "q":
            total[part.layer] += values.sum(1).reshape(anatomy.n_heads, -1).sum(1)
        elif part.projection in ("k", "v"):
            shared = values.sum(1).reshape(anatomy.n_kv_heads, -1).sum(1) / group
            total[part.layer] += shared.repeat_interleave(group)
        elif part.projection == "o":
            total[part.layer] += values.sum(0).reshape(anatomy.n_heads, -1).sum(1)
    return _units(model, total, "head", f"sum over a head's weights of [{scores.definition}]", scores)


def activation_contrast(
    model: ModelLike, other: ModelLike, data: Pairs, *, batch_size: BatchSize = "auto"
) -> UnitScores:
    """Safety neurons by activation contrast between two models (Chen et al. 2024, arXiv 2406.14144).

    Score of an MLP neuron: root mean square, over response tokens, of the difference of its activations in
    the two models that read the same text. An activation is what the down projection reads. The published
    code counts the completion's tokens at the positions where they are read, and so does this.

    Args:
        model: the aligned model.
        other: the model without alignment (or tuned), of the same shape.
        data: prompts with responses; the paper lets one of the two models write them.
        batch_size: rows at once.

    Raises:
        InputError: models of different shape, a block that routes tokens to experts, or a row that cannot be
            used.
        NumericsError: activations are NaN or infinite.
    """
    model = as_chat_model(model)
    other = as_chat_model(other, what="other")
    _require_neurons(model)
    if other.anatomy.maps != model.anatomy.maps:
        raise InputError(f"{model.name} and {other.name} do not have the same projections")
    examples = Examples.of(model, data)
    if [t.input_ids for t in examples.turns] != [t.input_ids for t in Examples.of(other, data).turns]:
        raise InputError(f"{model.name} and {other.name} write the prompts differently; use one tokenizer")
    squares = torch.zeros(model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.float64)
    size, tokens = batch_rows(model, examples, batch_size, 0), 0
    for batch in batches(examples, size, model.pad_id, model.device):
        picked = batch.labels != IGNORE
        one, two = (
            _neurons(
                which,
                partial(body, which, batch.input_ids.to(which.device), batch.attention_mask.to(which.device)),
                partial(_at, picked),
            )
            for which in (model, other)
        )
        squares += (one - two).square().sum(1)
        tokens += int(picked.sum())
    total = (squares / tokens).sqrt()
    _require_finite(total, model.name)
    return UnitScores(
        total.float(),
        total.float(),
        "neuron",
        f"activation contrast with {other.name}: RMS difference over {tokens} response tokens",
        {examples.name: examples.sha256},
        tokens,
        model.fingerprint,
        model.name,
    )


def contrastive_attribution(
    model: ModelLike,
    harmful: PromptsLike,
    harmless: PromptsLike,
    *,
    statistic: Statistic = "difference",
    batch_size: int = 16,
) -> UnitScores:
    """MLP neurons that tell harmful from harmless prompts, by forward passes alone (arXiv 2605.12290).

    The activation of a neuron is what the down projection reads at the last token of the rendered prompt.
    "difference" (as published) scores |mean over harmful − mean over harmless|; "standardised" divides by the
    pooled standard deviation, which does not favour neurons for being loud.

    Args:
        model: the model.
        harmful: prompts of the behaviour.
        harmless: prompts without it.
        statistic: "difference" or "standardised".
        batch_size: rows at once.

    Raises:
        InputError: an empty set, an unknown statistic, or a block that routes tokens to experts.
        NumericsError: activations are NaN or infinite.
    """
    model = as_chat_model(model)
    _require_neurons(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    sums, variances, counts = [], [], []
    for data in (harmful, harmless):
        if len(data) < 2:
            raise InputError(f"prompt set {data.name!r} has {len(data)} prompts; at least 2 are needed")
        total = torch.zeros(model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.float64)
        squares = torch.zeros_like(total)
        for start in range(0, len(data), batch_size):
            batch = model.encode(list(data.prompts[start : start + batch_size]))
            values = _neurons(model, partial(model.module, **batch, use_cache=False), _last)
            total += values.sum(1)
            squares += values.square().sum(1)
        mean = total / len(data)
        sums.append(mean)
        variances.append((squares - len(data) * mean.square()).clamp_min(0))
        counts.append(len(data))
    signed = sums[0] - sums[1]
    if statistic == "standardised":
        pooled = ((variances[0] + variances[1]) / (sum(counts) - 2)).sqrt()
        signed = torch.where(pooled > 0, signed / pooled, torch.zeros_like(signed))
    _require_finite(signed, model.name)
    return UnitScores(
        signed.abs().float(),
        signed.float(),
        "neuron",
        f"contrastive attribution: {statistic} of means at the last prompt token",
        {harmful.name: harmful.sha256, harmless.name: harmless.sha256},
        sum(counts),
        model.fingerprint,
        model.name,
    )


def _require_neurons(model: ChatModel) -> None:
    for layer, path in enumerate(model.anatomy.mlp):
        if "down" not in {part.name for part in model.anatomy.projections(layer)}:
            raise InputError(
                f"{model.name}: {path} routes tokens to experts, whose neurons cannot be read; score experts "
                "with neurons.expert_snip"
            )


def _neurons(
    model: ChatModel, run: Callable[[], object], pick: Callable[[Tensor], Tensor]
) -> Float[Tensor, "layer item d_mlp"]:
    """Activations of all MLP neurons in one forward pass, fp64 on the CPU, cut by `pick`."""
    found: list[Tensor] = []

    def see(part: Projection, x: Tensor) -> None:
        found.append(pick(x).double().cpu())

    downs = [part for part in model.anatomy.projections() if part.name == "down"]
    with evaluating(model.module), watch_inputs(model, see, downs):
        run()
    return torch.stack(found)


def _at(picked: Tensor, x: Tensor) -> Tensor:
    return x[picked.to(x.device)]


def _last(x: Tensor) -> Tensor:
    return x[:, -1]


def _require_finite(values: Tensor, name: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NumericsError(f"activations of {name} are NaN or infinite; load it in float32 or bfloat16")


def _units(model: ChatModel, total: Tensor, kind: Kind, definition: str, scores: WeightScores) -> UnitScores:
    if scores.fingerprint != model.fingerprint:
        raise InputError(f"the scores are of {scores.model}, not of {model.name}")
    values = total.float()
    return UnitScores(
        values, values, kind, definition, dict(scores.prompts), scores.n, scores.fingerprint, scores.model
    )
