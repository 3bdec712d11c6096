"""What each stage of an audit will cost, before it runs: tokens counted, seconds from a short calibration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tamperlens import refusal
from tamperlens.base.results import Result
from tamperlens.directions.candidates import candidate_positions
from tamperlens.directions.dose import SCALES
from tamperlens.directions.shortlist import CAP, FEW
from tamperlens.models import ChatModel
from tamperlens.models.prefix import common_length
from tamperlens.studies.audit import stages
from tamperlens.studies.audit.stages import Bench

# Prompts of the calibration, and tokens that each of them is continued by.
_ROWS, _NEW = 8, 6
_TRAINING = 3  # a training step in forward passes: one forward, and about two for the backward pass


@dataclass(frozen=True)
class Speed(Result):
    """What a calibration measured.

    Attributes:
        read: seconds per token of a prompt.
        written: seconds per token of an answer, many answers together.
        alone: seconds per token of a prompt by itself, as small batches are trained on.
    """

    read: float
    written: float
    alone: float = 0.0


@dataclass(frozen=True)
class StageCost(Result):
    """The bill of a stage. Answers count to their limit, so that tokens, FLOPs and seconds are upper ones.

    Attributes:
        stage: its name in the manifest.
        read: tokens of prompts, those that all prompts begin with left out; a backward pass counts as two.
        written: tokens of answers.
        flops: 2 · parameters · tokens.
        seconds: by the speed that was measured before.
        memory: bytes of the weights and of one batch of answers.
    """

    stage: str
    read: int
    written: int
    flops: float
    seconds: float
    memory: float

    def summary(self) -> str:
        """One line: time, tokens, operations, memory."""
        tokens = self.read + self.written
        return (
            f"about {self.seconds:.0f} s if all answers are long: {tokens:,} tokens, {self.flops:.1e} FLOPs, "
            f"{self.memory / 1e9:.1f} GB"
        )


def calibrate(model: ChatModel, prompts: Sequence[str]) -> Speed:
    """Time one pass over a few prompts and a few tokens of answers to them.

    Args:
        model: in its present state.
        prompts: at least one; the first eight are used.
    """
    rows = list(prompts[:_ROWS])
    model.logits_last(rows[:1])  # what the first pass allocates is not its speed
    began = time.perf_counter()
    model.logits_last(rows[:1])
    alone = (time.perf_counter() - began) / max(1, len(model.token_ids(rows[:1])[0]))
    began = time.perf_counter()
    model.logits_last(rows)
    read = time.perf_counter() - began
    began = time.perf_counter()
    answers = model.generate(rows, max_new_tokens=_NEW)
    rest = time.perf_counter() - began - read
    written = sum(map(len, model.tokenizer(answers, add_special_tokens=False)["input_ids"]))
    per_token = read / max(1, sum(map(len, model.token_ids(rows))))
    return Speed(per_token, max(rest / max(1, written), per_token), max(alone, per_token))


def expected_costs(bench: Bench, speed: Speed | None = None) -> dict[str, StageCost]:
    """The bill of every stage that asks the model.

    Args:
        bench: what the audit works with.
        speed: of the model; measured here by default.
    """
    model, asked, settings = bench.model, bench.asked, bench.settings
    speed = speed or calibrate(model, asked.harmful.prompts)
    new = settings.decoding.max_new_tokens

    def read(prompts: Sequence[str]) -> int:
        ids = model.token_ids(list(prompts))
        return sum(map(len, ids)) - common_length(ids) * max(0, len(ids) - 1)

    sides = [(read(one.prompts), len(one)) for one in (asked.harmful, asked.harmless)]
    suites = sum(read(one.data.prompts) for one in asked.suites)
    graded = sum(len(one.data) * one.max_new_tokens for one in asked.suites)
    sets = list(asked.sets.values())
    measured = (
        sum(read(one.prompts) for one in sets) + suites + sides[1][0] + sides[1][1] * new,
        sum(map(len, sets)) * new + graded,
    )
    each = 1 + stages.controls(bench)  # conditions of the causal check that either set is asked in
    causal = (sum(n for n, _ in sides) * each, sum(n for _, n in sides) * new * each)
    added = stages.dosed(bench)
    doses = 1 + 2 * len(SCALES)  # the untouched model, then the direction and a random vector
    dose = (read(added.prompts) * 2 * doses, len(added) * new * doses)

    harmful, harmless = bench.prompts.direction
    n_train, n_val, positions = stages.search(bench)
    both = (read(harmful.prompts) + read(harmless.prompts)) / max(1, len(harmful) + len(harmless))
    layers = int(refusal.SelectionRule().max_layer * model.n_layers)
    candidates = layers * len(positions or candidate_positions(model))
    scored = candidates * 3 * n_val * (1 if candidates <= FEW else CAP)
    screen = 0 if candidates <= FEW else 6 * min(n_val, 16) + 8 * min(n_val, 8)
    shown = min(48, n_train)
    search = (int(both * (3 * shown + 4 * n_train + 4 * n_val + scored + screen)), shown * 32)

    config = stages.attack_config(bench)
    pairs = [
        f"{a} {b}" for a, b in zip(bench.attack.data.prompts, bench.attack.data.responses or (), strict=True)
    ]
    length = sum(map(len, model.token_ids(pairs))) / max(1, len(pairs))
    examples = config.steps * config.batch_size if config.steps else (config.epochs or 1) * len(pairs)
    parts = {
        "before": measured,
        "direction": (
            search[0] + causal[0] + dose[0] + suites,
            search[1] + causal[1] + dose[1] + graded,
        ),
        "attack": (int(length * (_TRAINING * examples + 2 * len(pairs))), 0),  # and the loss, twice
        "after": (measured[0] + causal[0] + int(both * 4 * n_train), measured[1] + causal[1]),
    }
    small = max(speed.alone, speed.read) if config.batch_size < _ROWS else speed.read
    memory = _memory(model, max(map(len, sets)), int(both) + new)
    return {
        name: StageCost(
            name, reads, writes, 2.0 * model.n_parameters * (reads + writes),
            reads * (small if name == "attack" else speed.read) + writes * speed.written, memory,
        )
        for name, (reads, writes) in parts.items()
    }  # fmt: skip


def _memory(model: ChatModel, rows: int, tokens: int) -> float:
    """Bytes of weights, and of keys, values and logits of one batch."""
    size = next(model.module.parameters()).element_size()
    anatomy = model.anatomy
    rows = min(rows, 128)
    keys = 2 * anatomy.n_layers * anatomy.n_kv_heads * anatomy.d_head * tokens
    return float(size * (model.n_parameters + rows * keys) + 8 * rows * anatomy.d_vocab)
