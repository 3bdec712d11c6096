"""Candidate directions: splits of the prompts, differences of means, and their three causal scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.base.logits import kl_divergence, refusal_metric
from tamperlens.base.results import Result
from tamperlens.directions.cache import ActivationCache, fetch
from tamperlens.directions.geometry import auroc, tpr_at_fpr
from tamperlens.directions.selection import SelectionRule
from tamperlens.models import ChatModel
from tamperlens.models.generation import last_logits, left_pad
from tamperlens.prompts import PromptSet, as_prompts, content, post_instruction_tokens
from tamperlens.rates.completions import Prompts, hash_prompts, prompt_texts
from tamperlens_hooks import ablate_direction, add_direction, read_positions, residual_means

# A difference of means this small against the means themselves is rounding: the token at that place does not
# see the prompt (a template token at the input of block 0, for one).
ZERO = 1e-6
# Tokens in a batch of the pass over the training prompts.
BATCH_TOKENS = 4096

BatchSize = int | Literal["auto"]


@dataclass(frozen=True)
class Split(Result):
    """Disjoint training and validation prompts of both kinds.

    Attributes:
        harmful_train: prompts behind the harmful mean.
        harmful_val: prompts that bypass is scored on.
        harmless_train: prompts behind the harmless mean.
        harmless_val: prompts that induce and KL are scored on.
    """

    harmful_train: tuple[str, ...]
    harmful_val: tuple[str, ...]
    harmless_train: tuple[str, ...]
    harmless_val: tuple[str, ...]

    @property
    def harmful_sha256(self) -> str:
        """Hash of the harmful prompts used, training then validation."""
        return hash_prompts((*self.harmful_train, *self.harmful_val))

    @property
    def harmless_sha256(self) -> str:
        """Hash of the harmless prompts used, training then validation."""
        return hash_prompts((*self.harmless_train, *self.harmless_val))


def split_sizes(harmful: int, harmless: int) -> tuple[int, int]:
    """Sizes for sets smaller than the published 128 + 32: 4 to 1, at most 128 and 32.

    Args:
        harmful: distinct harmful prompts at hand.
        harmless: distinct harmless prompts at hand.

    Returns:
        (n_train, n_val) that both sets can give.
    """
    available = min(harmful, harmless)
    n_val = min(32, max(1, available // 5))
    return min(128, available - n_val), n_val


def split_prompts(harmful: Prompts, harmless: Prompts, n_train: int, n_val: int, seed: int) -> Split:
    """Seeded disjoint parts of both sets. Repeated prompts are used once, so no prompt is on both sides.

    Raises:
        InputError: fewer distinct prompts than needed, sizes below 1, or a prompt that is in both sets.
    """
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    if n_train < 1 or n_val < 1:
        raise InputError(f"n_train={n_train} and n_val={n_val}: both must be at least 1")
    check_disjoint(harmful, harmless)
    parts: list[tuple[str, ...]] = []
    for kind, data in (("harmful", harmful), ("harmless", harmless)):
        # Two conversations that end in the same words are two prompts.
        distinct = PromptSet.from_prompts(
            {content(one): one for one in data.prompts}.values(), name=data.name
        )
        if len(distinct) < n_train + n_val:
            fits = split_sizes(len(distinct), len(distinct))
            raise InputError(
                f"{kind} prompts {data.name!r}: {len(distinct)} distinct ones, but {n_train} for "
                f"training and {n_val} for validation need {n_train + n_val}; add prompts or pass smaller "
                f"sizes, e.g. n_train={fits[0]}, n_val={fits[1]}"
            )
        train, validation = distinct.split([n_train, n_val], seed)
        parts += [train.prompts, validation.prompts]
    return Split(*parts)


def check_disjoint(harmful: Prompts, harmless: Prompts) -> None:
    """Refuse prompts that are called harmful and harmless at once.

    Raises:
        InputError: names how many and shows one.
    """
    bad = set(map(content, prompt_texts(harmful)))
    both = {str(one) for one in prompt_texts(harmless) if content(one) in bad}
    if both:
        example = min(both)
        raise InputError(
            f"{len(both)} prompts are in both the harmful and the harmless set, e.g. {example[:60]!r}; "
            "remove them from one"
        )


def candidate_positions(model: ChatModel) -> list[int]:
    """Every post-instruction template position, negative from the end; [-1] when the template has none."""
    count = len(post_instruction_tokens(model.tokenizer, fmt=model.chat_format))
    return list(range(-max(count, 1), 0))


def mean_activations(
    model: ChatModel,
    prompts: Sequence[str],
    positions: Sequence[int],
    layers: Sequence[int] | None = None,
    *,
    cache: ActivationCache | None = None,
) -> Float64[Tensor, "pos layer d_model"]:
    """Mean block input over prompts at each position and layer, summed in float64 in one pass.

    Prompts go sorted by length, without the unembedding, and stop behind the last layer asked for, so that
    thousands of them cost about that share of a plain forward pass.

    Args:
        model: any chat model.
        prompts: at least one.
        positions: negative, from the end.
        layers: blocks; all by default.
        cache: where means are kept between calls.

    Raises:
        NumericsError: an activation is NaN or infinite.
    """

    def read() -> Tensor:
        return residual_means(
            model, batches(model, prompts)[0], positions=list(positions), layers=layers, site="resid_pre"
        )[0]

    means = fetch(cache, model, prompts, "means", read, layers=layers, positions=positions)
    if not bool(torch.isfinite(means).all()):
        raise NumericsError(
            f"{model.name}: activations are NaN or infinite; load the model in float32 or bfloat16"
        )
    return means


def batches(model: ChatModel, prompts: Sequence[str]) -> tuple[list[dict[str, Tensor]], list[int]]:
    """Left-padded batches of prompts sorted by length, and which prompt each row is, over all batches."""
    sequences = model.token_ids(list(prompts))
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    made, start = [], 0
    while start < len(order):
        end = start + 1
        # Sorted, so the next sequence is the longest of the batch that it would join.
        while end < len(order) and (end + 1 - start) * len(sequences[order[end]]) <= BATCH_TOKENS:
            end += 1
        rows = [sequences[row] for row in order[start:end]]
        made.append(vars(left_pad(rows, model.pad_id, model.device)).copy())
        start = end
    return made, order


@dataclass(frozen=True)
class Baseline(Result):
    """The untouched model on the validation prompts.

    Attributes:
        harmful: mean refusal metric on harmful prompts.
        harmless: mean refusal metric on harmless prompts.
        logits: last-position logits on the harmless prompts, `[n_val, vocab]`.
        each_harmful: the metric on each harmful prompt, `[n_val]`.
        each_harmless: the metric on each harmless prompt, `[n_val]`.
    """

    harmful: float
    harmless: float
    logits: Tensor
    each_harmful: Tensor
    each_harmless: Tensor


@dataclass(frozen=True)
class PromptScores(Result):
    """What an edit does, prompt by prompt.

    Attributes:
        bypass: refusal metric on each harmful prompt under ablation.
        induce: refusal metric on each harmless prompt under addition.
        kl: KL(untouched ‖ ablated) at the last position of each harmless prompt, in nats.
    """

    bypass: Tensor
    induce: Tensor
    kl: Tensor


class Scorer:
    """Scores candidates on fixed validation prompts; last-position logits only, each prompt encoded once.

    Args:
        model: the model; hooks are attached for each score and detached after it.
        harmful: harmful validation prompts.
        harmless: harmless validation prompts.
        tokens: refusal token ids.
        batch_size: rows at once.
    """

    def __init__(
        self,
        model: ChatModel,
        harmful: Sequence[str],
        harmless: Sequence[str],
        tokens: Sequence[int],
        batch_size: BatchSize = "auto",
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.batch_size = batch_size
        self._harmful = model.token_ids(list(harmful))
        self._harmless = model.token_ids(list(harmless))
        logits = self._logits(self._harmful + self._harmless)
        bad, good = logits[: len(self._harmful)], logits[len(self._harmful) :]
        each = [refusal_metric(side, tokens).cpu() for side in (bad, good)]
        self.baseline = Baseline(float(each[0].mean()), float(each[1].mean()), good, each[0], each[1])

    def score(self, vector: Float[Tensor, " d_model"], layer: int) -> tuple[float, float, float]:
        """(bypass, induce, KL) of one raw difference of means read at the input of `layer`.

        bypass: mean metric on harmful prompts with the direction ablated everywhere. induce: mean metric on
        harmless prompts with +1 · vector added at `layer`, all positions. KL: mean over harmless prompts of
        KL(untouched ‖ ablated) at the last position. NaN where the edited model's logits are not finite.
        """
        found = self.by_prompt([vector], vector, layer)
        return float(found.bypass.mean()), float(found.induce.mean()), float(found.kl.mean())

    def by_prompt(
        self, removed: Sequence[Float[Tensor, " d_model"]], added: Float[Tensor, " d_model"], layer: int
    ) -> PromptScores:
        """The three scores prompt by prompt, with one or several orthogonal directions ablated together.

        Args:
            removed: directions to ablate, orthogonal to each other; their lengths do not matter.
            added: vector to add, with its own length.
            layer: where it is added.
        """
        try:
            # One pass for both sets: the ablation is the same.
            with ExitStack() as stack:
                for vector in removed:
                    stack.enter_context(ablate_direction(self.model, vector))
                logits = self._logits(self._harmful + self._harmless)
            bad, good = logits[: len(self._harmful)], logits[len(self._harmful) :]
            with add_direction(self.model, added, layer=layer):
                raised = self._logits(self._harmless)
        except NumericsError:
            nothing = [torch.full((len(ids),), math.nan) for ids in (self._harmful, self._harmless)]
            return PromptScores(nothing[0], nothing[1], nothing[1])
        return PromptScores(
            refusal_metric(bad, self.tokens).cpu(),
            refusal_metric(raised, self.tokens).cpu(),
            kl_divergence(self.baseline.logits, good).cpu(),
        )

    def _logits(self, sequences: list[list[int]]) -> Float[Tensor, "n vocab"]:
        return last_logits(
            self.model.module,
            sequences,
            pad_id=self.model.pad_id,
            device=self.model.device,
            batch_size=self.batch_size,
        )


def score_table(
    scorer: Scorer,
    differences: Float64[Tensor, "pos layer d_model"],
    scale: Float64[Tensor, "pos layer"],
    positions: Sequence[int],
    labels: Sequence[str],
    rule: SelectionRule,
    *,
    separations: Float64[Tensor, "pos layer 2"] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score every candidate.

    Args:
        scorer: validation prompts and metric.
        differences: harmful mean − harmless mean.
        scale: size of the means themselves; differences below 1e-6 of it are zero and not scored.
        positions: token position of each row of `differences`.
        labels: the template token at each position, for the reader.
        rule: filters, for the columns `passed` and `reason`.
        separations: AUROC and TPR of each candidate (`separation_table`); they do not enter the selection.
        progress: show a bar.

    Returns:
        One row per candidate, in order of position, then layer: position, token, layer, raw_norm, bypass,
        induce, kl, auroc, tpr_at_1_fpr, passed, reason.
    """
    model = scorer.model
    rows: list[dict[str, object]] = []
    with _bar(len(positions) * differences.shape[1], progress) as advance:
        for p, position in enumerate(positions):
            for layer in range(differences.shape[1]):
                vector = differences[p, layer]
                norm = float(vector.norm())
                scores = (math.nan, math.nan, math.nan)
                if norm <= ZERO * float(scale[p, layer]):
                    reason = "zero: the two means are equal here"
                else:
                    scores = scorer.score(vector.float().to(model.device), layer)
                    reason = rule.objection(layer, *scores, n_layers=model.n_layers)
                rows.append(
                    {
                        "position": position,
                        "token": labels[p],
                        "layer": layer,
                        "raw_norm": norm,
                        "bypass": scores[0],
                        "induce": scores[1],
                        "kl": scores[2],
                        "auroc": math.nan if separations is None else float(separations[p, layer, 0]),
                        "tpr_at_1_fpr": math.nan if separations is None else float(separations[p, layer, 1]),
                        "passed": not reason,
                        "reason": reason,
                    }
                )
                advance()
    return pd.DataFrame(rows)


def separation_table(
    model: ChatModel,
    differences: Float64[Tensor, "pos layer d_model"],
    scale: Float64[Tensor, "pos layer"],
    harmful: Sequence[str],
    harmless: Sequence[str],
    positions: Sequence[int],
) -> Float64[Tensor, "pos layer 2"]:
    """AUROC, and true positive rate at 1 % false positives, of each candidate on validation prompts.

    Each prompt is read at the candidate's own place and projected onto it; NaN where the candidate is zero.
    """
    read = []
    for prompts in (harmful, harmless):
        made, _ = batches(model, prompts)
        read.append(read_positions(model, made, positions=list(positions), site="resid_pre").double())
    found = torch.full((*differences.shape[:2], 2), math.nan, dtype=torch.float64)
    for p, layer in torch.cartesian_prod(*(torch.arange(n) for n in differences.shape[:2])).tolist():
        vector = differences[p, layer]
        if float(vector.norm()) <= ZERO * float(scale[p, layer]):
            continue
        bad, good = (rows[:, p, layer] @ vector for rows in read)
        if not bool(torch.isfinite(torch.cat([bad, good])).all()):
            continue
        above, _ = tpr_at_fpr(bad, good)
        found[p, layer] = torch.tensor([auroc(bad, good), above / len(bad)])
    return found


@contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[], None]]:
    if not show:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task("candidate directions", total=total)
        yield lambda: bar.advance(task)
