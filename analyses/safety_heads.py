"""Which attention heads carry refusal, by every method, and do the methods agree?

    python analyses/safety_heads.py
    python analyses/safety_heads.py --model FOLDER --harmful prompts.csv --harmless others.csv

Heads are scored on pairs of a harmful and a harmless request of the same token length, for the log-odds of
the model's own refusal tokens and for the projection on its refusal direction. Rank agreement has bootstrap
intervals over prompts. The best heads of each causal method are then ablated one after the other on other
prompts, beside random heads of the same layers: once for the log-odds, and (--generate) for answers that a
judge calls refused. Writes tables, figures, attention pages and a verdict.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _shared import command, header, must_refuse, options, prompt_file, sized, test_prompts, write

import tamperlens
from tamperlens import heads, plots, prompts, refusal, report, stats

EXACT = "ablate (resample)"
METHODS: dict[str, dict[str, object]] = {
    "direct": {"method": "direct"},
    "gradient (zero)": {"method": "gradient"},
    "gradient (pairs)": {"method": "gradient", "pairs": True},
    "gradient (pairs, at corrupt)": {"method": "gradient", "pairs": True, "at": "corrupt"},
    "integrated": {"method": "integrated", "pairs": True},
    "ablate (zero)": {"method": "ablate"},
    "ablate (mean)": {"method": "ablate", "baseline": "mean"},
    EXACT: {"method": "ablate", "baseline": "resample", "pairs": True},
    "patch": {"method": "patch", "pairs": True},
    "ships": {"method": "ships"},
    "sahara": {"method": "sahara", "steps": 3},
}
QUICK = ("direct", "gradient (pairs, at corrupt)", "patch", "ships")
CURVES = ("direct", "gradient (pairs, at corrupt)", "ablate (mean)", "patch", "ships", "sahara")


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--harmless", type=prompt_file("harmless"), help="prompts to pair and compare with")
    parser.add_argument("--draws", type=int, help="random head sets for each point of a curve")
    parser.add_argument("--most", type=int, help="heads to ablate together, at most")
    parser.add_argument("--methods", nargs="*", choices=METHODS, help="methods to score heads by")
    parser.add_argument("--generate", type=int, default=0, help="prompts to generate answers to; 0 for none")
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model, {"draws": 20, "most": 6, "methods": list(METHODS)},
          {"draws": 3, "most": 2, "n_test": 6, "methods": QUICK})  # fmt: skip
    harmful = test_prompts(given.harmful, "harmful", model, 10**6)
    harmless = test_prompts(given.harmless, "harmless", model, 10**6)
    found, held_out = split(model, harmful, given)
    asked = held_out.head(min(24, len(held_out)))
    rates = refusal.evaluate(model, asked, max_new_tokens=given.max_new_tokens)
    must_refuse(model, rates.refusal_rate, asked.name, given.anyway)
    direction = find(model, found, harmless, given)
    score_on, corrupt = heads.align(model, held_out.head(given.n_test), harmless, name="requests")
    curve_on = tail(held_out, given.n_test)
    print(f"{len(score_on)} pairs to score on, {len(curve_on)} prompts to ablate on", flush=True)

    figures, lines, tables, curves = [], [], [], []
    targets = {
        "log-odds": {"target": "refusal_tokens", "tokens": direction.tokens},
        "direction": {"direction": direction, "layer": model.n_layers, "position": -1},
    }
    own: dict[
        str, heads.HeadScores
    ] = {}  # Ships and Sahara have a metric of their own: once for both targets
    for name, target in targets.items():
        scores = {
            words: own.get(words) or score(model, score_on, corrupt, target, **settings)
            for words, settings in METHODS.items()
            if words in given.methods
        }
        own = {words: scores[words] for words in ("ships", "sahara") if words in scores}
        for words, one in scores.items():
            tables.append(one.to_frame().assign(target=name, method=words))
        agreement = between(scores)
        tables_path = given.out / f"agreement-{name}.csv"
        given.out.mkdir(parents=True, exist_ok=True)
        report.write_csv(tables_path, agreement)
        figures += drawn(name, scores, agreement)
        lines += said(name, scores, agreement)
        if name == "log-odds":
            for words in (name for name in CURVES if name in scores):
                curve = heads.ablation_curve(
                    model, scores[words].ranking()[: given.most], curve_on, mode="mean",
                    draws=given.draws, **target,
                )  # fmt: skip
                curves.append(curve.to_frame().assign(method=words, measure=curve.target))
                figures.append(curve.plot(name=f"ablation-{slug(words)}"))
                lines.append(f"- {words}: {fall(curve)}")
            method = next(name for name in (EXACT, "patch", *scores) if name in scores)
            best = scores[method]
            if given.generate:
                curve = generated(model, best, tail(held_out, given.n_test).head(given.generate), given)
                curves.append(curve.to_frame().assign(method=method, measure="refusal rate"))
                figures.append(curve.plot(name="ablation-refusal-rate"))
                lines.append(f"- answers refused, heads by {method}: {fall(curve)}")
            figures.append(pages(model, best, score_on, given.out))
            report.write_csv(given.out / "tokens_read.csv", heads.tokens_read(model, score_on, best.top(3)))
    report.write_csv(given.out / "curves.csv", pd.concat(curves, ignore_index=True))
    text = "\n".join([header(model, given).replace(f", {given.seeds} seeds", ""), "", *lines])
    write(given.out, pd.concat(tables, ignore_index=True), text, figures)


def split(model, harmful, given):  # type: ignore[no-untyped-def]
    """Prompts for the direction, and prompts held out from it."""
    if given.harmful is None:
        data = prompts.packaged_for(model, "harmful", "train")
        return data.sample(min(160, len(data)), seed=0), harmful
    half = len(harmful) // 2
    return harmful.head(half), tail(harmful, half)


def tail(data: tamperlens.PromptSet, start: int) -> tamperlens.PromptSet:
    """The rows from `start` on, all of them where none is left."""
    rest = data.prompts[start:] or data.prompts
    return prompts.PromptSet.from_prompts(rest, name=f"{data.name} from {start}")


def find(model, harmful, harmless, given):  # type: ignore[no-untyped-def]
    """The refusal direction, with the model's own refusal tokens."""
    others = harmless
    if given.harmless is None:
        data = prompts.packaged_for(model, "harmless", "train")
        others = data.sample(min(160, len(data)), seed=0)
    n = min(len(harmful), len(others), 160)
    return refusal.find_direction(
        model, harmful.head(n), others.head(n), n_train=int(0.8 * n), n_val=n - int(0.8 * n)
    )


def score(model, clean, corrupt, target, **settings):  # type: ignore[no-untyped-def]
    """Head scores of one method."""
    pairs = {"corrupt": corrupt} if settings.pop("pairs", False) else {}
    return heads.attribute(model, clean, **target, **pairs, **settings)


def between(scores: dict[str, heads.HeadScores]) -> pd.DataFrame:
    """Rank agreement of every pair of methods."""
    names = list(scores)
    rows = []
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            e = heads.rank_agreement(scores[one], scores[two])
            rows.append({"one": one, "two": two, "value": e.value, "low": e.low, "high": e.high, "n": e.n,
                         "method": e.method})  # fmt: skip
    return pd.DataFrame(rows)


def drawn(name: str, scores: dict[str, heads.HeadScores], agreement: pd.DataFrame) -> list[plots.Plot]:
    """Heat maps of the exact and the gradient scores, and the agreement."""
    figures = [
        scores[words].plot(name=f"{name}-{slug(words)}", title=f"Heads by {words}")
        for words in (EXACT, "patch", "gradient (pairs, at corrupt)", "direct", "ships", "sahara")
        if words in scores
    ]
    caption = (
        f"Spearman's ρ of two methods' scores over all heads, {agreement['n'].max():.0f} pairs. The table "
        "beside it and the interactive figure have bootstrap intervals over prompts (over heads "
        "where sahara is one of the two, which has one number for all prompts)."
    )
    return [*figures, plots.agreement_map(agreement, caption=caption, name=f"{name}-agreement")]


def said(name: str, scores: dict[str, heads.HeadScores], agreement: pd.DataFrame) -> list[str]:
    """Sentences for the verdict."""
    best = "; ".join(
        f"{words} " + ", ".join("{}.{}".format(*at) for at in one.top(3)) for words, one in scores.items()
    )
    lines = [f"Target {name}: {next(iter(scores.values())).n} pairs. Best three heads (layer.head): {best}."]
    for one, two in (
        ("gradient (zero)", "ablate (zero)"),
        ("gradient (pairs)", EXACT),
        ("gradient (pairs, at corrupt)", "patch"),
        ("integrated", "patch"),
        ("ships", EXACT),
    ):
        if one not in scores or two not in scores:
            continue
        row = agreement[agreement["one"].isin([one, two]) & agreement["two"].isin([one, two])].iloc[0]
        e = stats.Estimate(row["value"], row["low"], row["high"], int(row["n"]))
        lines.append(f"- rank correlation of {one} with {two}: {e}")
    return lines


def fall(curve: heads.AblationCurve) -> str:
    """What the curve says, at two and at all heads."""
    parts = [f"untouched {curve.values[0]}"]
    for k in sorted({min(2, curve.k[-1]), curve.k[-1]}):
        parts.append(f"{k} heads out {curve.values[k]}, random {curve.random[k]}")
    return "; ".join(parts)


def generated(model, scores, data, given):  # type: ignore[no-untyped-def]
    """The ablation curve of answers that the judge calls refused."""

    def refused(watched: tamperlens.ChatModel) -> list[float]:
        rates = refusal.evaluate(watched, data, max_new_tokens=32)
        return [float(flag) for flag in rates.completions.refused]

    return heads.ablation_curve(
        model, scores, data, measure=refused, mode="mean", most=given.most, draws=min(given.draws, 5)
    )


def pages(model, scores, data, folder: Path) -> plots.Plot:  # type: ignore[no-untyped-def]
    """Attention of the best heads over one prompt, as a figure and as a page that needs no network."""
    best = scores.top(4)
    shown = heads.patterns(model, data.prompts[0])
    shown.page(folder / "attention.html", best)
    return shown.plot(*best[0], name="attention-best")


def slug(words: str) -> str:
    """A method's name in a file name."""
    return "".join(c if c.isalnum() else "-" for c in words).strip("-").replace("--", "-")


if __name__ == "__main__":
    command(main)
