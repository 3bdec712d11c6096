"""Cells of a table as numbers, and samples of them drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tamperlens.base.errors import InputError

Array = npt.NDArray[np.float64]
RUN = ["model", "attack", "rank", "data_size", "learning_rate", "seed", "defence"]
"""What the cells of one training run share."""


@dataclass(frozen=True)
class Points:
    """Cells as numbers; every array has one entry a cell.

    Attributes:
        flops: training compute.
        size: log10 of the model's parameters, less their mean over models.
        refused: refused prompts.
        asked: prompts.
        before: refusal rate before the attack.
        run: index of the training run, cells of which go together.
    """

    flops: Array
    size: Array
    refused: Array
    asked: Array
    before: Array
    run: npt.NDArray[np.int64]

    def only(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Points:
        """Some of the cells."""
        return Points(*(values[keep] for values in vars(self).values()))


def points_of(cells: pd.DataFrame, table: pd.DataFrame) -> tuple[Points, float]:
    """Cells as numbers, and the mean log10 size over models."""
    before = table[table["attack"] == "none"].set_index("model")
    sizes = np.log10(cells.groupby("model")["parameters"].first().to_numpy(dtype=float))
    centre = float(sizes.mean())
    missing = set(cells["model"]) - set(before.index)
    if missing:
        raise InputError(f"the table has no row before the attack for {sorted(missing)[0]}")
    start = before.loc[cells["model"], "rrr"].to_numpy(dtype=float)
    asked = cells["rrr_n"].to_numpy(dtype=float)
    run = cells.groupby(RUN, sort=False, dropna=False).ngroup().to_numpy()
    refused = np.round(cells["rrr"].to_numpy(dtype=float) * asked)
    size = np.log10(cells["parameters"].to_numpy(dtype=float)) - centre
    return Points(
        cells["flops"].to_numpy(dtype=float), size, refused, asked, start, run.astype(np.int64)
    ), centre


def resampled(points: Points, rng: np.random.Generator, draws: int) -> list[Points]:
    """Training runs drawn with replacement, and answers drawn anew at each cell's rate."""
    runs = np.unique(points.run)
    made = []
    for _ in range(draws):
        picks = rng.choice(runs, len(runs))
        index = np.concatenate([np.flatnonzero(points.run == run) for run in picks])
        drawn = points.only(index)
        again = rng.binomial(drawn.asked.astype(int), drawn.refused / drawn.asked).astype(float)
        made.append(Points(drawn.flops, drawn.size, again, drawn.asked, drawn.before, drawn.run))
    return made
