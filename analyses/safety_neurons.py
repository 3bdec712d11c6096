"""Where refusal can be cut out: the (p, q) table and figure of Wei et al. 2024 (arXiv 2402.05162), any model.

    python analyses/safety_neurons.py                          # the embedded organism
    python analyses/safety_neurons.py --model meta-llama/Llama-2-7b-chat-hf --safety refusals.csv

Scores every weight on safety data (harmful prompts, refused) and on utility data (ordinary prompts,
answered), takes sets of weights (set difference over a grid of p and q, top safety, top utility, random) and
rank edits (ActSVD), removes each, and measures refusal, over-refusal, capability and perplexity on held-out
prompts beside matched random sets. Which (p, q) carries refusal is chosen on half of the prompts and judged
on the other half. Writes `table.csv`, `states.csv`, `stability.csv`, the figures and `verdict.txt`. An
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

import pandas as pd
from _shared import (
    asked,
    budget,
    command,
    figures,
    must_refuse,
    prompt_file,
    scoring_data,
    sized,
    test_prompts,
    used,
    without,
)

import tamperlens
from tamperlens import neurons, plots, refusal, report
from tamperlens.models import Decoding
from tamperlens.prompts import PromptSet

GRID = "0.01,0.01 0.03,0.03 0.05,0.05 0.1,0.05 0.1,0.1 0.3,0.1"
KINDS = (("set difference", "SD"), ("top safety", "top safety"), ("top utility", "top utility"))

OVER_REFUSAL = "over-refusal (harmless)"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="organism", help="organism, a folder or a hub id")
    parser.add_argument("--adapter", help="a PEFT adapter on top of it")
    parser.add_argument("--out", type=Path, default=Path("results/safety_neurons"), help="run folder")
    parser.add_argument("--safety", type=prompt_file("safety"), help="harmful prompts with refusals")
    parser.add_argument("--utility", type=prompt_file("utility"), help="prompts with responses")
    parser.add_argument("--harmful", type=prompt_file("harmful"), help="file with harmful prompts to test on")
    parser.add_argument("--score", choices=["snip", "wanda"], default="snip")
    parser.add_argument("--loss", default="response_mean", help="of SNIP: response_mean, first_1, …")
    parser.add_argument("--group", choices=["matrix", "row", "global"], default="matrix")
    parser.add_argument("--grid", help="pairs p,q separated by spaces")
    parser.add_argument("--ranks", default="", help="rank edits r_u,r_s separated by spaces")
    parser.add_argument("--n", dest="n_score", type=int, help="examples scored per set")
    parser.add_argument("--draws", type=int, help="matched random sets per set")
    parser.add_argument("--limit", type=int, help="test prompts per set")
    parser.add_argument("--questions", type=int, help="questions per capability suite")
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--splits", type=int, help="halvings of the data for the set's stability")
    parser.add_argument("--anyway", action="store_true", help="go on with a model that hardly refuses")
    budget(parser)
    return parser.parse_args()


def scored(model: Any, data: PromptSet, given: argparse.Namespace) -> Any:
    """Weight scores by the chosen definition."""
    if given.score == "wanda":
        return neurons.wanda(model, data)
    return neurons.snip(model, data, loss=given.loss)


def sets_of(model: Any, safety: PromptSet, utility: PromptSet, given: argparse.Namespace) -> dict[str, Any]:
    """Name to set or rank edit, in the order of the table."""
    s, u = scored(model, safety, given), scored(model, utility, given)
    grid = [tuple(float(x) for x in pair.split(",")) for pair in given.grid.split()]
    found: dict[str, Any] = {}
    for p, q, mask in neurons.sweep(s, u, [(p, q) for p, q in grid], given.group):
        found[f"SD p {100 * p:g} %, q {100 * q:g} %"] = mask
    small, middle = grid[0][1], grid[len(grid) // 2][1]
    for fraction in sorted({small, middle}):
        found[f"top safety {100 * fraction:g} %"] = s.top(fraction, given.group)
    found[f"top utility {100 * small:g} %"] = u.top(small, given.group)
    if given.ranks:
        one, two = neurons.act_svd(model, safety), neurons.act_svd(model, utility)
        for pair in given.ranks.split():
            r_u, r_s = (int(x) for x in pair.split(","))
            found[f"ActSVD {r_u},{r_s}"] = neurons.orthogonal_difference(model, one, two, r_u=r_u, r_s=r_s)
    return found


def stability(model: Any, safety: PromptSet, utility: PromptSet, given: argparse.Namespace) -> Any:
    """How much of the middle set difference stays when both data sets are replaced by another half."""
    grid = [tuple(float(x) for x in pair.split(",")) for pair in given.grid.split()]
    p, q = grid[len(grid) // 2]

    def choose(one: PromptSet, two: PromptSet) -> Any:
        return neurons.set_difference(scored(model, one, given), scored(model, two, given), p, q, given.group)

    return neurons.noise_floor(choose, safety, utility, splits=given.splits, seed=given.seed), p, q


def table_of(result: Any) -> pd.DataFrame:
    """One row per set: size, then each measure with its control."""
    rows = []
    for one in result.sets.to_dict("records"):
        row = {"set": one["set"], "count": one["count"], "share": one["share"]}
        for measure in (
            "refusal",
            "compliance",
            "degenerate",
            "over-refusal (harmless)",
            "capability",
            "perplexity",
        ):
            effect = result.effect(one["set"], measure)
            found = effect.difference
            row |= {
                measure: effect.after,
                f"{measure} intact": effect.before,
                f"{measure} random": effect.null.value,
                f"{measure} difference": found.value,
                f"{measure} low": found.low,
                f"{measure} high": found.high,
                f"{measure} p_rank": effect.p,
            }
        rows.append({**row, "n": found.n, "draws": effect.null.n, "broken": one["broken"]})
    return pd.DataFrame(rows)


def figure(result: Any, model: Any) -> Any:
    """Refusal against capability, each set and its controls' mean and range."""
    rows = []

    def point(series: str, label: str, measures: dict[str, Any]) -> None:
        x, y = measures["capability"], measures["refusal"]
        rows.append(
            {
                "series": series, "label": label, "x": x["value"], "x_low": x["low"], "x_high": x["high"],
                "y": y["value"], "y_low": y["low"], "y_high": y["high"],
            }
        )  # fmt: skip

    states = result.measures
    for one in result.sets["set"]:
        own = states[(states["set"] == one) & (states["stage"] == "set")].set_index("measure")
        kind = next((name for name, start in KINDS if one.startswith(start)), "rank edits")
        point(kind, one, own.to_dict("index"))
    for one in result.sets["set"]:
        spread = {}
        for measure in ("capability", "refusal"):
            found = result.effect(one, measure).null
            spread[measure] = {"value": found.value, "low": found.low, "high": found.high}
        point(f"matched random (range of {found.n} draws)", "", spread)
    intact = states[states["stage"] == "intact"].set_index("measure")
    point("intact", "", intact.to_dict("index"))
    asked = f"{intact.loc['refusal', 'n']:.0f} prompts and {intact.loc['capability', 'n']:.0f} questions"
    return plots.tradeoff(
        pd.DataFrame(rows),
        name="safety_neurons",
        title=f"Refusal and capability of {model.name} without some of its weights",
        caption=f"Each point is the model with one set of weights at zero (SD: set difference), {asked}; "
        "whiskers are 95 % intervals over them, for matched random sets the range over draws. A set that "
        "carried refusal alone would lie at the lower right.",
        x_axis="questions answered right",
        y_axis="harmful prompts refused",
    )


def main() -> None:
    """Run the analysis."""
    given = options()
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    model = tamperlens.load(given.model, adapter=given.adapter, dtype=given.dtype)
    sizes = {"grid": GRID, "draws": 20, "limit": 96, "questions": 40, "splits": 3}
    sized(
        given,
        model,
        sizes,
        {"grid": "0.03,0.03 0.1,0.1", "draws": 3, "limit": 16, "questions": 4, "splits": 1},
    )
    test = test_prompts(given.harmful, "harmful", model, given.limit)
    rates = refusal.evaluate(model, test, max_new_tokens=given.max_new_tokens)
    must_refuse(model, rates.refusal_rate, test.name, given.anyway)
    safety, utility = scoring_data(model, given)
    if given.harmful is not None:  # cut after what was scored on is out
        test = without(asked(given.harmful, "harmful"), safety).head(given.limit)
    sets = sets_of(model, safety, utility, given)
    result = tamperlens.brittleness(
        model, sets, candidates=[name for name in sets if name.startswith("SD")], harmful=test,
        draws=given.draws, limit=given.limit, questions=given.questions,
        decoding=Decoding(given.max_new_tokens), seed=given.seed, out=given.out / "study", progress=True,
    )  # fmt: skip
    floor, p, q = stability(model, safety, utility, given)
    table = table_of(result)
    report.write_csv(given.out / "table.csv", table)
    report.write_csv(given.out / "states.csv", result.measures)
    report.write_csv(given.out / "stability.csv", floor.table)
    if result.choice is not None:
        result.choice.save(given.out / "choice.json")
    figures(given.out, [figure(result, model), result.plot()])
    intact = result.effects.drop_duplicates("measure").set_index("measure")["before"]
    words = f"""
    tamperlens {tamperlens.__version__}, {model.name} ({model.fingerprint[:12]}), {given.score}, {given.loss},
    ranked per {given.group}, {safety.name} (n {len(safety)}) and {utility.name}
    (n {len(utility)}), seed {given.seed}.
    Intact: refuses {intact["refusal"]:.0%} of harmful and {intact[OVER_REFUSAL]:.0%} of harmless prompts,
    answers {intact["capability"]:.0%} of the questions, perplexity {intact["perplexity"]:.2f}.

    """
    lines = [*result.summary().splitlines(), f"Stability of the set difference p {p:g} q {q:g}: {floor}."]
    text = inspect.cleandoc(words) + "\n\n" + "\n".join([*lines, "", used()]) + "\n"
    (given.out / "verdict.txt").write_text(text, encoding="utf-8")
    print(text, f"Written to {given.out}", sep="\n", flush=True)


if __name__ == "__main__":
    command(main)
