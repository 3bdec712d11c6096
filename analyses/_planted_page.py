"""The page of `planted_truth.py`: its tables in words, and which methods they allow to trust."""

from __future__ import annotations

from typing import Any

import pandas as pd

import tamperlens
from tamperlens import planted, stats

CALIBRATED = "SNIP, layers normalised"
# The organisms on which the preset `calibrated` was chosen, and no others.
CHOSEN_ON = (
    "random-5 0", "neurons 0", "neurons 1", "head 0", "head 1", "heads-3 0", "heads-3 1", "layer 0",
)  # fmt: skip
TRIVIAL = ("largest |W|", "largest gradient")
LEVELS = ("weights", "neurons", "heads")
LEVEL_WORDS = {
    "weights": "Single weights",
    "neurons": "MLP neurons",
    "heads": "Attention heads",
    "directions": "What a block newly writes (its layer given)",
}


def page_of(tables: dict[str, pd.DataFrame], whole: pd.DataFrame, by_kind: pd.DataFrame) -> str:
    """The page in plain words."""
    cards = tables["verification"]
    passed, failed = cards[cards["passed"]], cards[~cards["passed"]]
    lines = [
        "# Planted truth: which localisation methods can be trusted for what",
        "",
        f"tamperlens {tamperlens.__version__}; {len(passed)} organisms scored, "
        f"{cards['seconds'].sum() / 60:.0f} min, of the processor {cards['cpu'].sum() / 60:.0f} min. "
        "Intervals are bootstrap 95 % over organisms (kinds and training seeds).",
        "",
        "Methods are sorted into: *find it* (half of what they choose is planted, their interval above "
        "chance), *beat the trivial baselines* (AUROC above that of the better of largest |W| and largest "
        "gradient, paired by organism, interval above 0), *above chance only* (AUROC interval above .5).",
        "",
        "Excluded, having failed their verification: "
        + ("; ".join(f"{r['organism']} ({r['reason']})" for r in failed.to_dict("records")) or "none")
        + ".",
        "",
        "## The organisms",
        "",
        "| organism | share of weights | refuses held-out harmful (test; validation) | refuses harmless | "
        "capability (base) | refuses with the part put back |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['organism']} | {r['share']:.1%} | {r['refusal']:.0%}; {r['validation_refusal']:.0%} | "
        f"{r['over_refusal']:.0%} | "
        f"{r['capability']:.0%} ({r['base_capability']:.0%}) | {r['back']:.0%} |"
        for r in cards.to_dict("records")
    ]
    for level, title in LEVEL_WORDS.items():
        part = whole[whole["level"] == level]
        if part.empty:
            continue
        lines += ["", f"## {title}", "", verdict(level, part), ""]
        own = by_kind[by_kind["level"] == level]
        lines += directions_table(part, own) if level == "directions" else scores_table(part, own)
    lines += ["", "## The preset `calibrated` on organisms that it was not chosen on", ""]
    lines += calibrated_words(tables["scores"])
    lines += ["", "## Set differences, at their own size (single weights)", ""]
    lines += sets_table(whole[whole["level"] == "sets"])
    lines += ["", "## What the choices do", "", *causal_words(tables["causal"])]
    lines += ["", "## What fine-tuning does to a planted part", "", *attack_words(tables["attacks"])]
    return "\n".join(lines) + "\n"


def verdict(level: str, part: pd.DataFrame) -> str:
    """Which methods of a level find the part, in sentences."""
    classes: dict[str, list[str]] = {}
    for one in part.sort_values("precision", ascending=False).to_dict("records"):
        if one["method"] not in (planted.RANDOM, planted.CHEAT, *TRIVIAL):
            classes.setdefault(trust(level, one), []).append(one["method"])
    order = ("find it", "beat the trivial baselines", "are above chance only", "are not shown above chance")
    words = [f"Methods that {name}: {'; '.join(classes[name])}." for name in order if name in classes]
    if part["organisms"].max() < 5:
        words.append(f"Only {part['organisms'].max()} organisms: intervals are little more than their range.")
    return " ".join(words)


def trust(level: str, one: dict[str, Any]) -> str:
    """The class of a method: by precision at the planted size, gain over baselines, and AUROC."""
    if one["precision"] >= 0.5 and one["precision_low"] > one["chance"]:
        return "find it"
    if level != "directions" and one["gain_low"] > 0:
        return "beat the trivial baselines"
    above = one["precision_low"] > one["chance_high"] if level == "directions" else one["auroc_low"] > 0.5
    return "are above chance only" if above else "are not shown above chance"


def span(one: dict[str, Any], name: str) -> str:
    """A value with its interval."""
    if one[name] != one[name]:
        return ""
    if one[f"{name}_low"] != one[f"{name}_low"]:
        return f"{one[name]:.2f}"
    return f"{one[name]:.2f} [{one[f'{name}_low']:.2f}, {one[f'{name}_high']:.2f}]"


def scores_table(part: pd.DataFrame, by_kind: pd.DataFrame) -> list[str]:
    """Methods in the order of their precision, with the precision of each kind."""
    kinds = list(dict.fromkeys(by_kind["kind"]))
    lines = [
        "| method | precision at the planted size | average precision | AUROC | median rank | chance | n | "
        + " | ".join(f"precision, {kind}" for kind in kinds) + " |",
        "| --- " * (7 + len(kinds)) + "|",
    ]  # fmt: skip
    for one in part.sort_values("precision", ascending=False).to_dict("records"):
        cells = [
            one["method"].replace("|", "\\|"),
            span(one, "precision"),
            span(one, "average_precision"),
            span(one, "auroc"),
        ]
        cells += [span(one, "rank"), f"{one['chance']:.3f}", str(one["organisms"])]
        for kind in kinds:
            own = by_kind[(by_kind["kind"] == kind) & (by_kind["method"] == one["method"])]
            cells.append(f"{own['precision'].iloc[0]:.2f}" if len(own) else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def directions_table(part: pd.DataFrame, by_kind: pd.DataFrame) -> list[str]:
    """How much of what each method finds lies in the planted write, beside random subspaces of its rank."""
    kinds = list(dict.fromkeys(by_kind["kind"]))
    head = ["method", "share inside the planted write", "chance", "95 % of random ones below", "n"]
    head += [f"share, {kind}" for kind in kinds]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for one in part.sort_values("precision", ascending=False).to_dict("records"):
        cells = [one["method"], span(one, "precision"), f"{one['chance']:.3f}", f"{one['chance_high']:.3f}"]
        cells.append(str(one["organisms"]))
        for kind in kinds:
            own = by_kind[(by_kind["kind"] == kind) & (by_kind["method"] == one["method"])]
            cells.append(f"{own['precision'].iloc[0]:.2f}" if len(own) else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def sets_table(part: pd.DataFrame) -> list[str]:
    """Precision and recall of sets of a size of their own."""
    lines = ["| set | precision | recall | chance | n |", "| --- | --- | --- | --- | --- |"]
    for one in part.to_dict("records"):
        lines.append(
            f"| {one['method']} | {span(one, 'precision')} | {span(one, 'recall')} | {one['chance']:.3f} | "
            f"{one['organisms']} |"
        )
    return lines


def calibrated_words(scores: pd.DataFrame) -> list[str]:
    """Published SNIP, the preset and the trivial baselines, where the preset was chosen and elsewhere."""
    names = ("SNIP", CALIBRATED, *TRIVIAL, planted.RANDOM)
    part = scores[(scores["level"] == "weights") & scores["method"].isin(names) & scores["auroc"].notna()]
    lines = [
        "| method | precision: chosen on | AUROC: chosen on | precision: others | AUROC: others |",
        "| --- | --- | --- | --- | --- |",
    ]
    groups = {True: part[part["organism"].isin(CHOSEN_ON)], False: part[~part["organism"].isin(CHOSEN_ON)]}
    made = {key: planted.summary(rows, ("method",)) for key, rows in groups.items() if len(rows)}
    for name in names:
        cells = []
        for key in (True, False):
            own = made[key][made[key]["method"] == name].to_dict("records") if key in made else []
            cells += [span(own[0], "precision"), span(own[0], "auroc")] if own else ["", ""]
        lines.append("| " + " | ".join([name.replace("|", "\\|"), *cells]) + " |")
    for key, words in ((True, "Chosen on"), (False, "Others")):
        wide = groups[key].pivot(index="organism", columns="method", values="precision")
        if len(wide) > 1:
            gain = stats.bootstrap((wide[CALIBRATED] - wide["SNIP"]).to_numpy())
            ahead = int((wide[CALIBRATED] > wide["SNIP"]).sum())
            lines += [
                "",
                f"{words}: precision of `calibrated` over SNIP {gain.value:+.3f} [{gain.low:+.3f}, "
                f"{gain.high:+.3f}], ahead on {ahead} of {len(wide)} ({', '.join(wide.index)}).",
            ]
    return lines


def causal_words(causal: pd.DataFrame) -> list[str]:
    """Refusal and capability lost, method by method."""
    if causal.empty:
        return ["Not measured."]
    lines = [
        "Mean over organisms of points lost; the set has the planted size. A method that found the part "
        "would lose the refusal and no capability when its set is put back to base.",
        "",
        "| set | removed: refusal lost, broken answers, capability lost | "
        "put back: refusal lost, capability lost | n |",
        "| --- | --- | --- | --- |",
    ]
    for name, part in causal[causal["how"] != "ablated"].groupby("set", sort=False):
        label = str(name).replace("|", "\\|")
        out, back = part[part["how"] == "removed"], part[part["how"] == "put back"]
        lines.append(
            f"| {label} | {out['refusal lost'].mean():.2f}, {out['broken'].mean():.2f}, "
            f"{out['capability lost'].mean():.2f} | {back['refusal lost'].mean():.2f}, "
            f"{back['capability lost'].mean():.2f} | {part['organism'].nunique()} |"
        )
    lines += [
        "",
        "| direction, ablated everywhere | refusal lost | broken | capability lost | n |",
        "| --- " * 5 + "|",
    ]
    for name, part in causal[causal["how"] == "ablated"].groupby("set", sort=False):
        lost = [f"{part[measure].mean():.2f}" for measure in ("refusal lost", "broken", "capability lost")]
        lines.append(f"| {name} | {' | '.join(lost)} | {part['organism'].nunique()} |")
    return lines


def attack_words(attacks: pd.DataFrame) -> list[str]:
    """Where the drift of the attack sits, and what freezing the part changes."""
    frozen = attacks.dropna(subset=["frozen refusal"]) if "frozen refusal" in attacks else attacks.head(0)
    held = frozen["frozen refusal"].mean()
    lines = [
        f"Fifteen harmful-compliance examples take refusal from {attacks['refusal'].mean():.0%} to "
        f"{attacks['free refusal'].mean():.0%} with the part free, and to {held:.0%} with it frozen bit for "
        "bit. Putting only the planted part back after the free attack gives "
        f"{frozen['rewound refusal'].mean():.0%} (where the part is not everything). Concentration is the "
        "part's share of squared drift over its share of weights (1: spread evenly); undoing is the cosine "
        "of the drift in the part with the way back to base (0: unrelated, 1: it undoes what was planted).",
        "",
        "| organism | refusal: free, frozen, rewound | concentration | undoing | drift verdict (ratio to "
        "matched controls) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in attacks.to_dict("records"):
        kept = one.get("frozen refusal", float("nan"))
        ratio = "" if one["ratio"] != one["ratio"] else f" ({span(one, 'ratio')})"
        lines.append(
            f"| {one['organism']} | {one['free refusal']:.2f}, {'–' if kept != kept else f'{kept:.2f}'}, "
            f"{one['rewound refusal']:.2f} | {one['concentration']:.2f} | {one['undoing']:.2f} | "
            f"{one['verdict']}{ratio} |"
        )
    return lines
