"""The same prompts under system prompts and with prefilled answers; harmful and harmless side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Unpack

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, PairedTest, holm, mcnemar
from tamperlens.models import Decoding, ModelLike, Settings, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts
from tamperlens.rates.evaluation import RefusalRates, evaluate

PLAIN = "plain"


@dataclass(frozen=True)
class Robustness(Result):
    """What a model refuses of what it should, and of what it should not.

    Attributes:
        harmful: rates on harmful prompts.
        harmless: rates on harmless prompts.
    """

    harmful: RefusalRates
    harmless: RefusalRates

    def summary(self) -> str:
        """RRR, CE and over-refusal."""
        return f"{self}."

    @property
    def rrr(self) -> Estimate:
        """Refusal robustness rate: share of harmful prompts refused."""
        return self.harmful.rrr

    @property
    def ce(self) -> Estimate:
        """Compliance error, 1 − RRR."""
        return self.harmful.ce

    @property
    def over_refusal(self) -> Estimate:
        """Share of harmless prompts refused."""
        return self.harmless.refusal_rate

    def to_frame(self) -> pd.DataFrame:
        """Three rows, RRR, CE and over-refusal: measure, value, low, high, n, judge, model."""
        rows = [
            {
                "measure": name,
                **found.cells(),
                "judge": rates.judge,
                "model": rates.completions.model,
            }
            for name, found, rates in (
                ("RRR", self.rrr, self.harmful),
                ("CE", self.ce, self.harmful),
                ("over-refusal", self.over_refusal, self.harmless),
            )
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        return f"RRR {self.rrr}, CE {self.ce}, over-refusal {self.over_refusal}"


def robustness(
    model: ModelLike,
    harmful: Prompts,
    harmless: Prompts,
    *,
    judge: str | Judge | None = None,
    decoding: Decoding | None = None,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> Robustness:
    """RRR, CE and over-refusal of one model by one judge, greedy unless told otherwise (see `evaluate`).

    A refusal rate alone does not tell a safe model from one that refuses everything; give both sets.
    """
    model = as_chat_model(model)
    harmful, harmless = as_prompts(harmful, what="harmful"), as_prompts(harmless, what="harmless")
    bad, good = (
        evaluate(model, data, judge=judge, decoding=decoding, progress=progress, **settings)
        for data in (harmful, harmless)
    )
    return Robustness(bad, good)


@dataclass(frozen=True)
class VariantRates(Result):
    """Rates of one model on the same prompts, said in several ways.

    Attributes:
        rates: by variant; "plain" is without system prompt and prefill.
        tests: each other variant against "plain" on the same prompts: paired difference, exact McNemar.
        adjusted: the tests' p-values after Holm.
    """

    rates: dict[str, RefusalRates]
    tests: dict[str, PairedTest]
    adjusted: dict[str, float]

    def summary(self) -> str:
        """Refusal plain and under each variant."""
        listed = "; ".join(f"{name} {found.refusal_rate}" for name, found in self.rates.items())
        return f"Refused: {listed}."

    def to_frame(self) -> pd.DataFrame:
        """One row per variant: refusal rate with interval, change against plain, Holm-adjusted p."""
        rows = []
        for name, rates in self.rates.items():
            found, test = rates.refusal_rate, self.tests.get(name)
            rows.append(
                {
                    "variant": name,
                    "system": rates.completions.decoding.system,
                    "prefill": rates.completions.decoding.prefill,
                    **found.cells(),
                    "difference": test.difference.value if test else 0.0,
                    "difference_low": test.difference.low if test else 0.0,
                    "difference_high": test.difference.high if test else 0.0,
                    "p_adjusted": self.adjusted.get(name),
                    "judge": rates.judge,
                }
            )
        return pd.DataFrame(rows)


def evaluate_variants(
    model: ModelLike,
    data: Prompts,
    *,
    systems: Mapping[str, str] | None = None,
    prefills: Mapping[str, str] | None = None,
    judge: str | Judge | None = None,
    decoding: Decoding | None = None,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> VariantRates:
    """Rates without anything, under each system prompt, and with each prefilled beginning of an answer.

    The judge sees what the model wrote after a prefill.

    Args:
        model: any chat model.
        data: prompts.
        systems: name → system prompt.
        prefills: name → beginning put into the assistant's mouth.
        judge: see `evaluate`.
        decoding: how answers are made, but for what the variants set; `Decoding()` by default.
        progress: show a bar.
        **settings: fields of `Decoding` by name, in place of those of `decoding`.

    Raises:
        InputError: a name used twice, "plain" among them, or no variant.
    """
    model = as_chat_model(model)
    data = as_prompts(data)
    plainly = Decoding.of(decoding, settings)
    ways = {PLAIN: plainly}
    for kind, named in (("system", systems or {}), ("prefill", prefills or {})):
        for name, text in named.items():
            if name in ways:
                raise InputError(f"variant {name!r} is given twice (or is 'plain'); use another name")
            ways[name] = Decoding.of(plainly, {"system": text} if kind == "system" else {"prefill": text})
    if len(ways) == 1:
        raise InputError("no variants: give systems= or prefills=, or call evaluate")
    rates = {
        name: evaluate(model, data, judge=judge, decoding=way, progress=progress)
        for name, way in ways.items()
    }
    plain = [verdict.refused for verdict in rates[PLAIN].completions.verdicts]
    tests = {
        name: mcnemar(plain, [verdict.refused for verdict in found.completions.verdicts])
        for name, found in rates.items()
        if name != PLAIN
    }
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return VariantRates(rates, tests, adjusted)
