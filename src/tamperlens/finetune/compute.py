"""What a training run costs: tokens, floating-point operations by a stated formula, time."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result
from tamperlens.base.runs import FRONTIER_FLOPS
from tamperlens_hooks import Anatomy


@dataclass(frozen=True)
class Compute(Result):
    """The bill of one training run.

    Attributes:
        steps: optimizer steps.
        sequences: examples seen, repetitions counted.
        tokens: real input tokens seen (prompt, answer and template), repetitions counted.
        label_tokens: tokens that the loss was taken on.
        positions: token positions computed, padding included; what FLOPs are counted on.
        flops: floating-point operations of matrix products, by `formula`.
        formula: how `flops` was computed, with this model's numbers.
        trained_parameters: number of weights that were trained.
        wall_seconds: time in training, recorders excluded.
        recorder_seconds: time in recorders.
        device: where it ran.
    """

    steps: int
    sequences: int
    tokens: int
    label_tokens: int
    positions: int
    flops: float
    formula: str
    trained_parameters: int
    wall_seconds: float
    recorder_seconds: float
    device: str

    @property
    def ratio_to_1e25(self) -> float:
        """FLOPs over 10²⁵, above which the EU AI Act (Art. 51) presumes systemic risk."""
        return self.flops / FRONTIER_FLOPS

    @property
    def tokens_per_second(self) -> float:
        """Real tokens per second of training; NaN when no time was measured."""
        return self.tokens / self.wall_seconds if self.wall_seconds > 0 else float("nan")


GENERAL_FLOPS = 1e23
GUIDELINES = (
    "Commission guidelines on the obligations for providers of general-purpose AI models, C(2025) 7719 "
    "(first published 18 July 2025)"
)


@dataclass(frozen=True)
class Thresholds(Result):
    """Training compute beside the amounts that European law counts by.

    Attributes:
        flops: of the training.
        rows: threshold, its FLOPs, ratio (training over threshold), source.
    """

    flops: float
    rows: pd.DataFrame = field(compare=False)

    def ratio(self, threshold: str) -> float:
        """The ratio to one threshold: "general purpose", "systemic risk" or "modifier".

        Raises:
            InputError: no such threshold.
        """
        found = self.rows[self.rows["threshold"] == threshold]
        if found.empty:
            raise InputError(f"no threshold {threshold!r}; there are {', '.join(self.rows['threshold'])}")
        return float(found.iloc[0]["ratio"])

    def summary(self) -> str:
        """The ratios in words."""
        told = "; ".join(
            f"{row['ratio']:.2g} of {row['flops']:.2g} ({row['threshold']})"
            for row in self.rows.to_dict("records")
        )
        return f"{self.flops:.2g} FLOPs: {told}."


def thresholds(
    flops: float, *, original_parameters: float | None = None, original_tokens: float | None = None
) -> Thresholds:
    """Ratios of a training's compute to 10²³ and 10²⁵ FLOPs and to a third of the original model's.

    The original's compute is 6 × parameters × tokens (Kaplan et al. 2020, arXiv 2001.08361), an estimate.
    Where it can be neither known nor estimated, the guidelines put a third of 10²³ in its place (a third of
    10²⁵ for a model with systemic risk). The thresholds are indicative, and no legal advice.

    Args:
        flops: of the training.
        original_parameters: of the model that was modified.
        original_tokens: that it was trained on.

    Raises:
        InputError: a number that is not positive, or one of the last two without the other.

    Examples:
        >>> from tamperlens import finetune
        >>> finetune.thresholds(1e20, original_parameters=1e9, original_tokens=1e12).ratio("modifier")
        0.05
    """
    given = {"flops": flops, "original_parameters": original_parameters, "original_tokens": original_tokens}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value}; it must be a positive number")
    if (original_parameters is None) != (original_tokens is None):
        raise InputError("a third of the original's compute needs its parameters and its tokens")
    known = original_parameters is not None and original_tokens is not None
    third = 2.0 * original_parameters * original_tokens if known else GENERAL_FLOPS / 3  # type: ignore[operator]
    if not 0 < third < math.inf:
        raise InputError("original_parameters and original_tokens: their product is no compute of a training")
    modifier = "a third of the original's training compute"
    if not known:
        modifier = f"a third of the criterion, in place of {modifier}, which is not known"
    rows = [
        ("general purpose", GENERAL_FLOPS, f"{GUIDELINES}: indicative criterion"),
        ("systemic risk", FRONTIER_FLOPS, "Regulation (EU) 2024/1689, Art. 51(2)"),
        ("modifier", third, f"{GUIDELINES}: {modifier}"),
    ]
    return Thresholds(
        flops,
        pd.DataFrame(
            [(name, amount, flops / amount, source) for name, amount, source in rows],
            columns=["threshold", "flops", "ratio", "source"],
        ),
    )


@dataclass
class Meter:
    """Counts while a run goes on.

    Attributes:
        steps: optimizer steps.
        sequences: rows of batches.
        tokens: unmasked positions.
        label_tokens: labelled positions.
        positions: rows times length.
        squares: rows times length squared, for attention.
        wall_seconds: time in training.
        recorder_seconds: time in recorders.
    """

    steps: int = 0
    sequences: int = 0
    tokens: int = 0
    label_tokens: int = 0
    positions: int = 0
    squares: int = 0
    wall_seconds: float = 0.0
    recorder_seconds: float = 0.0

    def add(self, rows: int, length: int, tokens: int, label_tokens: int) -> None:
        """Count one batch."""
        self.sequences += rows
        self.tokens += tokens
        self.label_tokens += label_tokens
        self.positions += rows * length
        self.squares += rows * length * length


@dataclass(frozen=True)
class FlopModel:
    """FLOPs of training, from shapes: which products a step needs, forward and backward.

    A product with a matrix of m·n weights costs 2·m·n FLOPs a position. Forward: every matrix, with the
    unembedding (embedding look-ups cost nothing). Backward: 2·m·n for the gradient of a matrix's input if
    that is needed (something trained lies before it), and 2·m·n for the gradient of the matrix itself if it
    is trained. Attention: 4·T·H·d_head a layer and position for QKᵀ and PV over T positions (causality not
    deducted, as is usual), twice that backward. So full fine-tuning costs 6·N + 12·L·T·H·d_head a position,
    and LoRA about 4·N + 6·A + 12·L·T·H·d_head, less what lies before the first adapter; torch's own counter
    gives the same numbers. Gradient checkpointing adds one forward pass of the blocks (torch stops it early
    where it can, so up to 6 % less is computed). Norms, softmax, loss and optimizer are not counted, nor are
    experts and mixers whose heads cannot be read (linear attention, convolutions, latent attention): the
    number is then a lower bound, and `name` says so.

    Attributes:
        forward: weights multiplied per position going forward.
        inputs: weights multiplied per position for the gradients of inputs.
        weights: weights multiplied per position for gradients of what is trained.
        adapter: weights of the adapters; 0 for full fine-tuning.
        attention: attention layers' width: sum over layers of heads × d_head.
        attention_backward: the same over the layers whose attention is differentiated.
        recomputed: weights multiplied once more with gradient checkpointing.
        recomputed_attention: attention width computed once more.
        name: what is trained.
    """

    forward: int
    inputs: int
    weights: int
    adapter: int
    attention: int
    attention_backward: int
    recomputed: int = 0
    recomputed_attention: int = 0
    name: str = ""

    def flops(self, positions: int, squares: int) -> float:
        """FLOPs for so many positions, and for the sum over sequences of their squared length."""
        linear = 2.0 * (self.forward + self.inputs + self.weights + self.recomputed)
        quadratic = 4.0 * (self.attention + 2 * self.attention_backward + self.recomputed_attention)
        return linear * positions + quadratic * squares

    def formula(self) -> str:
        """The formula with this model's numbers."""
        base = self.forward - self.adapter
        again = f" + {self.recomputed:,} recomputed" if self.recomputed else ""
        both = self.attention + 2 * self.attention_backward + self.recomputed_attention
        return (
            f"{self.name}: 2 x ({base:,} base + {self.adapter:,} adapter weights forward + {self.inputs:,} "
            f"for input gradients + {self.weights:,} for gradients of what is trained{again}) x positions + "
            f"4 x {both:,} x sum of squared lengths (attention, forward + 2 x backward); matrix products "
            "only, unembedding included, padding included, causal half not deducted"
        )


def flop_model(
    anatomy: Anatomy,
    *,
    adapted: Collection[str] = (),
    rank: int = 0,
    checkpointing: bool = False,
    unembedding_trained: bool = True,
) -> FlopModel:
    """Count the products that training a model takes.

    Args:
        anatomy: of the model.
        adapted: module paths with a LoRA adapter; empty for full fine-tuning.
        rank: of the adapters.
        checkpointing: whether blocks are recomputed in the backward pass.
        unembedding_trained: whether full fine-tuning trains the unembedding.
    """
    full = not adapted
    count = dict.fromkeys(("forward", "inputs", "weights", "adapter", "recomputed"), 0)
    differentiated = 0
    # Whether something trained lies before, so that gradients of inputs are needed. With checkpointing
    # transformers makes the embedding's output require a gradient.
    flows = full or checkpointing
    for layer in range(anatomy.n_layers):
        maps = anatomy.projections(layer)
        products = 0
        before, after = flows, flows
        for branch in _branches(anatomy.parallel):
            flows = before if anatomy.parallel else flows
            for stage in branch:
                began = flows
                seen: set[str] = set()
                for part in (one for one in maps if one.name in stage):
                    size = part.d_in * part.d_out
                    products += size
                    count["inputs"] += size if began else 0
                    count["weights"] += size if full else 0
                    if part.module in adapted and part.module not in seen:
                        seen.add(part.module)
                        # A fused module is one matrix with all of its maps' outputs.
                        d_out = sum(one.d_out for one in maps if one.module == part.module)
                        factors = rank * (part.d_in + d_out)
                        products += factors
                        count["adapter"] += factors
                        count["weights"] += factors
                        # B's input gradient is always needed (A is trained), A's if something lies before.
                        count["inputs"] += factors if began else rank * d_out
                        flows = True
                if "q" in stage and flows and anatomy.output_projections[layer] is not None:
                    differentiated += 1
            after = after or flows
        flows = after
        count["forward"] += products
        count["recomputed"] += products if checkpointing else 0
    unembedding = anatomy.d_vocab * anatomy.d_model
    count["forward"] += unembedding
    count["inputs"] += unembedding
    count["weights"] += unembedding if full and unembedding_trained else 0
    width = anatomy.n_heads * anatomy.d_head
    whole = all(
        {"o", "down"} <= {one.name for one in anatomy.projections(at)} for at in range(anatomy.n_layers)
    )
    name = "full fine-tuning" if full else f"LoRA rank {rank} on {len(set(adapted))} matrices"
    return FlopModel(
        **count,
        attention=sum(path is not None for path in anatomy.output_projections) * width,
        attention_backward=differentiated * width,
        recomputed_attention=differentiated * width if checkpointing else 0,
        name=name
        if whole
        else f"{name}, a lower bound without experts and mixers whose heads cannot be read",
    )


def _branches(parallel: bool) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Branches of a block, each a chain of groups of matrices that read the same input."""
    attention, mlp = (("q", "k", "v"), ("o",)), (("gate", "up"), ("down",))
    return (attention, mlp) if parallel else ((*attention, *mlp),)
