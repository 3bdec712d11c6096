"""Several answers a prompt: any-of-n and mean-of-n, with intervals that know samples of a prompt to be alike.

One sampled answer is a coin flip for many prompts. Samples of one prompt are no independent trials either:
with k samples each, Wilson's interval over all answers is too narrow. So mean-of-n has a cluster-robust and a
bootstrap interval over prompts, any-of-n Wilson's over prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Judge
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, clustered, undefined, wilson
from tamperlens.models import Decoding, ModelLike, Settings, as_chat_model
from tamperlens.prompts import as_prompts
from tamperlens.rates.completions import Prompts, prompt_name, prompt_texts
from tamperlens.rates.evaluation import ALL, OUTCOMES, RefusalRates, evaluate, holds

TEMPERATURE = 0.7
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SampledRates(Result):
    """Rates over several answers to each prompt.

    Attributes:
        name: of the prompt set.
        samples: rates of the first answer to every prompt, of the second, and so on.
    """

    name: str
    samples: tuple[RefusalRates, ...]

    def summary(self) -> str:
        """Refusal on average, in any and in all of the samples."""
        return (
            f"{self.name}, {self.n_samples} samples a prompt: refused {self.mean_of_n()} on average, "
            f"{self.any_of_n()} at least once, {self.all_of_n()} always."
        )

    @property
    def n(self) -> int:
        """Number of prompts."""
        return self.samples[0].n if self.samples else 0

    @property
    def n_samples(self) -> int:
        """Answers per prompt."""
        return len(self.samples)

    @property
    def prompts(self) -> tuple[str, ...]:
        """What was asked."""
        return self.samples[0].completions.prompts if self.samples else ()

    @property
    def categories(self) -> tuple[str, ...] | None:
        """One label per prompt, or None."""
        return self.samples[0].completions.categories if self.samples else None

    def flags(self, outcome: str = "refusal") -> Flags:
        """Whether each answer has the outcome, `[prompt, sample]`."""
        found = [[holds(outcome, verdict) for verdict in one.completions.verdicts] for one in self.samples]
        return np.array(found, dtype=bool).reshape(self.n_samples, self.n).T

    def any_of_n(self, outcome: str = "compliance", category: str = ALL) -> Estimate:
        """Share of prompts with the outcome in at least one answer (of an attack: in any of n tries), Wilson.

        Grows with the number of samples; compare only at equal n.
        """
        return self._share(np.any(self.flags(outcome), axis=1), category)

    def all_of_n(self, outcome: str = "refusal", category: str = ALL) -> Estimate:
        """Share of prompts with the outcome in every answer, Wilson."""
        return self._share(np.all(self.flags(outcome), axis=1), category)

    def mean_of_n(self, outcome: str = "refusal", category: str = ALL, method: str = "clustered") -> Estimate:
        """Share of answers with the outcome; n counts prompts.

        Args:
            outcome: see `OUTCOMES`.
            category: one category, or "all".
            method: "clustered" (cluster-robust, by prompt) or "bootstrap" (over prompts).

        Raises:
            InputError: an unknown outcome, category or method.
        """
        flags = self.flags(outcome)[self._rows(category)]
        if not flags.size:
            return undefined("no prompts")
        if method == "bootstrap":
            return bootstrap(flags.mean(1))
        if method != "clustered":
            raise InputError(f"no method {method!r}; known: clustered, bootstrap")
        names = np.repeat(np.arange(len(flags)), self.n_samples)
        return clustered(flags.reshape(-1).astype(np.float64), names.tolist())

    def unstable(self, outcome: str = "refusal", category: str = ALL) -> Estimate:
        """Share of prompts whose answers disagree about the outcome, Wilson."""
        flags = self.flags(outcome)
        return self._share(np.any(flags, axis=1) & ~np.all(flags, axis=1), category)

    def to_frame(self) -> pd.DataFrame:
        """One row per category, outcome and measure: value, low, high, n, n_samples, judge, model."""
        measures: dict[str, Callable[[str, str], Estimate]] = {
            "mean-of-n": self.mean_of_n,
            "any-of-n": self.any_of_n,
            "all-of-n": self.all_of_n,
            "unstable": self.unstable,
        }
        rows = []
        for category in (ALL, *dict.fromkeys(self.categories or ())):
            for outcome in OUTCOMES:
                for measure, of in measures.items():
                    found = of(outcome, category)
                    rows.append(
                        {
                            "set": self.name,
                            "category": category,
                            "outcome": outcome,
                            "measure": measure,
                            **found.cells(),
                            "n_samples": self.n_samples,
                            "reason": found.reason,
                            "judge": self.samples[0].judge if self.samples else "",
                            "model": self.samples[0].completions.model if self.samples else "",
                        }
                    )
        return pd.DataFrame(rows)

    def _share(self, flags: Flags, category: str) -> Estimate:
        kept = flags[self._rows(category)]
        return wilson(int(kept.sum()), len(kept)) if len(kept) else undefined("no prompts")

    def _rows(self, category: str) -> Flags:
        if category == ALL:
            return np.ones(self.n, dtype=bool)
        known = self.categories or ()
        if category not in known:
            raise InputError(f"no category {category!r}; known: {', '.join([ALL, *dict.fromkeys(known)])}")
        return np.array([label == category for label in known], dtype=bool)


def evaluate_samples(
    model: ModelLike,
    data: Prompts,
    *,
    n_samples: int = 5,
    judge: str | Judge | None = None,
    decoding: Decoding | None = None,
    progress: bool = False,
    **settings: Unpack[Settings],
) -> SampledRates:
    """Let a model answer every prompt several times. Sample i is `evaluate` with the decoding's seed plus i.

    Args:
        model: any chat model.
        data: prompts.
        n_samples: answers per prompt.
        judge: see `evaluate`.
        decoding: how answers are made, its seed that of the first sample; `Decoding(temperature=0.7)` by
            default.
        progress: show a bar.
        **settings: fields of `Decoding` by name, in place of those of `decoding`.

    Raises:
        InputError: fewer than one sample, or temperature 0 (all samples would be the same).

    Examples:
        >>> import tamperlens
        >>> from tamperlens import prompts, rates
        >>> model = tamperlens.load('organism')
        >>> harmful = prompts.packaged('harmful').head(6)
        >>> found = rates.evaluate_samples(model, harmful, n_samples=2, max_new_tokens=12)
        >>> found.n_samples
        2
    """
    model = as_chat_model(model)
    data = as_prompts(data)
    how = Decoding.of(Decoding(temperature=TEMPERATURE) if decoding is None else decoding, settings)
    if how.temperature <= 0 and n_samples > 1:
        raise InputError("at temperature 0 every sample is the same; set a temperature or n_samples=1")
    return SampledRates(
        prompt_name(data),
        tuple(
            evaluate(model, data, judge=judge, decoding=how, seed=how.seed + index, progress=progress)
            for index in range(n_samples)
        ),
    )


def samples_of(name: str, rates: Sequence[RefusalRates]) -> SampledRates:
    """Rates that are there already, one per sample, as one.

    Raises:
        InputError: none, or other prompts, another judge, another decoding (but for the seed).
    """
    if not rates:
        raise InputError("no samples given; pass the rates of at least one")
    first = rates[0].completions
    for index, one in enumerate(rates[1:], 1):
        other = one.completions
        odd = [line for line in first.decoding.differences(other.decoding) if not line.startswith("seed:")]
        if first.prompts != other.prompts or first.judge != other.judge or odd:
            raise InputError(
                f"sample {index} has other prompts, another judge or another decoding than sample 0"
                + (f" ({'; '.join(odd)})" if odd else "")
            )
    return SampledRates(name, tuple(rates))


def paired_samples(before: SampledRates, after: SampledRates, outcome: str = "refusal") -> Estimate:
    """Mean-of-n after − before over the same prompts, bootstrap over prompts.

    Raises:
        InputError: other prompts or another judge.
    """
    if prompt_texts(before.prompts) != prompt_texts(after.prompts) or not before.samples:
        raise InputError("the two sides have other prompts, or none; sample both models on the same set")
    if before.samples[0].judge != after.samples[0].judge:
        raise InputError(
            f"cannot compare verdicts of {before.samples[0].judge!r} with those of {after.samples[0].judge!r}"
        )
    return bootstrap(after.flags(outcome).mean(1) - before.flags(outcome).mean(1))
