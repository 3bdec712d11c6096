"""Measures over attack steps, and the figures of a grid."""

from __future__ import annotations

import math

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.grid.scaling import Scaling, scaling
from tamperlens.plots import Plot, band_over_steps, compute_curve

NAMED = {
    "rrr": "RRR (share refused)",
    "ce": "CE (share not refused)",
    "rd": "RD (median 1 − cos)",
    "over_refusal_harmless": "harmless prompts refused",
    "capability": "questions right (share)",
}
SERIES = ["attack", "rank", "data_size", "learning_rate", "defence"]


def curves(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure over steps, by model and setting: mean over seeds of value and of interval limits.

    The limits are means of per-seed intervals over prompts, so they do not shrink with the number of seeds;
    `lowest` and `highest` are the seeds' range. Settings that do not vary are left out of the series' name.

    Args:
        table: of a grid.
        measure: rrr, ce, rd, rd_refused, over_refusal_harmless, over_refusal_lookalike, degenerate_harmful or
            capability.

    Returns:
        step, series, model, value, low, high, n (prompts), seeds, lowest, highest.

    Raises:
        InputError: no such measure, or no cells.
    """
    if measure not in table or table[table["attack"] != "none"].empty:
        raise InputError(f"the table has no cells with the measure {measure!r}")
    cells, before = table[table["attack"] != "none"], table[table["attack"] == "none"]
    varied = [name for name in SERIES if cells[name].nunique(dropna=False) > 1]
    rows = []
    for key, group in cells.groupby(["model", *SERIES], sort=False, dropna=False):
        settings = dict(zip(["model", *SERIES], key, strict=True))
        extra = ", ".join(_named(name, settings[name]) for name in varied)
        series = f"{settings['model']}{', ' if extra else ''}{extra}"
        start = before[before["model"] == settings["model"]]
        for step, part in [(0, start), *group.groupby("steps")]:
            known = part[part[measure].notna()]
            if len(known):
                rows.append({"step": int(str(step)), "series": series, "model": settings["model"]}
                            | _mean(known, measure))  # fmt: skip
    return pd.DataFrame(rows)


def figures(table: pd.DataFrame, fits: Scaling | None = None) -> list[Plot]:
    """RRR_compare, CE_compare and RD_compare over steps, over-refusal and capability, and the scaling figure.

    Args:
        table: of a grid.
        fits: from `scaling`; made here, where the table allows, by default.

    Raises:
        InputError: no cells.
    """
    made = []
    for measure in ("rrr", "ce", "rd", "over_refusal_harmless", "capability"):
        frame = curves(table, measure).assign(null=math.nan, null_low=math.nan, null_high=math.nan)
        n, seeds = int(frame["n"].max()), int(frame["seeds"].max())
        short = measure.upper() if len(measure) < 4 else measure
        made.append(
            band_over_steps(
                frame, axis=NAMED[measure], name=f"{short}_compare", title=_title(measure),
                across="attack steps",
                caption=f"Mean over {seeds} seeds; bars are the mean over seeds of the 95 % interval over "
                f"n = {n} prompts. Step 0 is the model before the attack.",
            )
        )  # fmt: skip
    if fits is None:
        try:
            fits = scaling(table)
        except InputError:  # several attacks, or too few runs: the other figures stand without it
            return made
    return [*made, scaling_figure(table, fits)]


def scaling_figure(table: pd.DataFrame, fits: Scaling) -> Plot:
    """Refusal against attack compute with the best fit, and compute to half refusal against size."""
    cells = table[(table["attack"] == fits.attack) & (table["defence"] == "none")]
    dots = cells[["model", "parameters", "flops", "rrr", "rrr_low", "rrr_high"]].set_axis(
        ["series", "size", "flops", "value", "low", "high"], axis=1
    )
    lines = []
    for (model, size), part in dots.groupby(["series", "size"], sort=False):
        low, high = float(part["flops"].min()), float(part["flops"].max())
        start = float(fits.half.loc[fits.half["model"] == model, "before"].iloc[0])
        for i in range(81):
            flops = min(max(low * (high / low) ** (i / 80), low), high)
            value = fits.predict(flops, int(str(size)), before=start)
            lines.append({"series": model, "flops": flops, "value": value})
    half = fits.half.rename(columns={"model": "series", "parameters": "size", "flops": "value"})
    return compute_curve(
        dots, pd.DataFrame(lines), half, name="scaling", title="Refusal against attack compute",
        axis=NAMED["rrr"],
        caption=f"{fits.attack}, {fits.runs} training runs; bars are 95 % intervals over prompts. Lines: "
        f"{fits.best.family} fitted to all models, drawn only where observed ({fits.verdict}). Right: FLOPs "
        "to half of the refusal rate before the attack, model by model, intervals over runs and answers.",
    )  # fmt: skip


def _mean(part: pd.DataFrame, measure: str) -> dict[str, float]:
    value = part[measure]
    return {
        "value": float(value.mean()), "low": float(part[f"{measure}_low"].mean()),
        "high": float(part[f"{measure}_high"].mean()), "n": int(part[f"{measure}_n"].max()),
        "seeds": len(part), "lowest": float(value.min()), "highest": float(value.max()),
    }  # fmt: skip


def _named(name: str, value: object) -> str:
    words = {"rank": "rank {}", "data_size": "{} examples", "learning_rate": "lr {}"}
    return words.get(name, "{}").format(value)


def _title(measure: str) -> str:
    return {
        "rrr": "Refusal robustness over attack steps", "ce": "Compliance error over attack steps",
        "rd": "How far answers move over attack steps",
        "over_refusal_harmless": "Over-refusal over attack steps",
        "capability": "Capability over attack steps",
    }[measure]  # fmt: skip
