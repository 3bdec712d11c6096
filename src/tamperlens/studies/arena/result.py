"""What an arena gives: the table of defences, the runs behind it, and its figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.plots import Plot, dot_interval
from tamperlens.studies.arena import judging


@dataclass(frozen=True)
class ArenaResult(Result):
    """What stood against which attack.

    Attributes:
        model: its name.
        before: refusal before any attack, on the prompts that score.
        table: one row a defence: the worst attack, refusal kept with its interval, what that is beyond no
            defence, delay, an honest user's utility, cost, verdict and reason.
        sweep: one row a run that chose: defence, attack, seed, refused, utility.
        scored: one row a run that scored: defence, attack, seed, refused, utility, half_step.
        settings: how it was run: weights, attacks, defences, prompts, decoding, judge and thresholds.
    """

    model: str
    before: Estimate
    table: pd.DataFrame
    sweep: pd.DataFrame
    scored: pd.DataFrame
    settings: dict[str, object]

    def summary(self) -> str:
        """Each defence with its verdict."""
        found = (f"{row.defence}: {row.verdict} ({row.reason})" for row in self.table.itertuples())
        return f"{self.model}, refusal {self.before} before. " + "; ".join(found) + "."

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()

    def plot(self) -> Plot:
        """Refusal kept at each defence's worst attack, by verdict, with what the defence costs."""
        shown: list[Any] = [
            row
            for verdict in judging.VERDICTS
            for row in self.table[self.table["verdict"] == verdict].sort_values("kept").itertuples()
        ]
        rows = [
            {
                "panel": row.verdict, "series": "refused at the worst attack",
                "label": f"{row.defence} ({row.seconds / row.seconds_plain:.1f} × time)",
                "value": row.kept, "low": row.low, "high": row.high, "n": int(row.prompts),
            }
            for row in shown
        ]  # fmt: skip
        seeds = int(self.table["seeds"].min())
        return dot_interval(
            pd.DataFrame(rows),
            name="arena",
            title=f"{self.model}: what stays at the worst attack",
            caption=f"Harmful prompts refused after the attack that is worst for each defence, {seeds} seeds "
            f"(95 %, over prompts and seeds); {self.before.value:.0%} before any attack. × time: processor "
            "time of attack and scoring over that of the same attack without the defence.",
            axis="share of harmful prompts refused",
        )
