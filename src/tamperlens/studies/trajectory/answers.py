"""What needs generated answers: refusal, over-refusal and degenerate answers, RD, capability."""

from __future__ import annotations

import torch
from torch import Tensor

from tamperlens import refusal
from tamperlens.capability.graders import graders
from tamperlens.directions.nulls import resamples
from tamperlens.judges.embedders import embed
from tamperlens.models import ChatModel
from tamperlens.studies.evaluation import DEGENERATE
from tamperlens.studies.trajectory.records import Record
from tamperlens.studies.trajectory.setup import Setup
from tamperlens.studies.trajectory.unchanged import unchanged_share

SHOWN, LONGEST = 4, 400


class Answers:
    """Greedy answers to the fixed prompts, judged and set beside the base's.

    All prompts go through one call of `generate`: by the batch, tokens are what costs.
    """

    def __init__(self, setup: Setup, base: ChatModel) -> None:
        self.setup, self.asked = setup, setup.asked
        roles = ("harmful", "lookalike") if "rates" in setup.measures else ("harmful",)
        self.prompts = {role: list(setup.asked.sets[role].prompts) for role in roles}
        if "capability" in setup.measures:
            self.prompts |= {f"suite {one.name}": list(one.data.prompts) for one in setup.asked.suites}
        self.embedder = refusal.HiddenStateEmbedder(base) if "rd" in setup.measures else None
        self.vectors: Tensor | None = None
        self.before: dict[str, list[bool]] = {}
        if self.embedder is not None:
            rows = self._vectors(self._generate(base)["harmful"])
            self.vectors = torch.nn.functional.normalize(rows, dim=1)

    def measure(self, record: Record, model: ChatModel) -> None:
        """Add the sampled measures to a record."""
        answers, wanted = self._generate(model), self.setup.measures
        judged = refusal.judge_answers(self.asked.harmful, answers["harmful"], self.asked.judge).completions
        if "rates" in wanted:
            self._share(record, "refusal rate", "harmful", judged.refused)
            self._share(
                record, "degenerate rate", "harmful", [label == DEGENERATE for label in judged.labels]
            )
            over = refusal.judge_answers(self.asked.lookalike, answers["lookalike"], self.asked.judge)
            self._share(record, "over-refusal rate (look-alikes)", "lookalike", over.completions.refused)
        if self.embedder is not None:
            self._distance(record, answers["harmful"])
        if "capability" in wanted:
            right = [
                bool(graders.get(suite.grader)(item, answer).correct)
                for suite in self.asked.suites
                for item, answer in zip(suite.items(), answers[f"suite {suite.name}"], strict=True)
            ]
            self._share(record, "capability", "all suites", right)
        shown = zip(judged.prompts, judged.responses, judged.labels, strict=True)
        record.examples = [
            {"prompt": prompt, "answer": answer[:LONGEST], "label": str(label)}
            for prompt, answer, label in list(shown)[:SHOWN]
        ]

    def _generate(self, model: ChatModel) -> dict[str, list[str]]:
        every = [prompt for prompts in self.prompts.values() for prompt in prompts]
        answers = iter(model.generate(every, self.asked.decoding))
        return {name: [next(answers) for _ in prompts] for name, prompts in self.prompts.items()}

    def _share(self, record: Record, measure: str, which: str, flags: list[bool]) -> None:
        values = torch.tensor(flags, dtype=torch.float64)
        draws = self._resampled(len(values)) @ values
        same = unchanged_share(self.before.setdefault(measure, list(flags)), flags)  # first: the base
        record.add(measure, which, float(values.mean()), draws, len(values), unchanged=same)

    def _distance(self, record: Record, answers: list[str]) -> None:
        """RD as `refusal.representation_distance` defines it: the median of 1 − cos; base rows are kept."""
        assert self.vectors is not None
        unit = torch.nn.functional.normalize(self._vectors(answers), dim=1)
        # ‖u − v‖²/2 is 1 − u·v without the cancellation; NaN where an answer is empty.
        values = (unit - self.vectors).square().sum(1) / 2
        counts = (self._resampled(len(values)) * len(values)).round().long()
        medians = torch.stack([values.repeat_interleave(count).nanquantile(0.5) for count in counts])
        record.add(
            "RD", "harmful", float(values.nanquantile(0.5)), medians, int(torch.isfinite(values).sum())
        )

    def _vectors(self, answers: list[str]) -> Tensor:
        assert self.embedder is not None
        return torch.from_numpy(embed(self.embedder, answers))

    def _resampled(self, n: int) -> Tensor:
        return resamples(n, self.setup.draws, torch.Generator().manual_seed(self.setup.seed))
