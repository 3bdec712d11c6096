"""How much attack does refusal withstand? RRR, CE and RD against LoRA steps and compute, across models.

    python analyses/refusal_robustness.py
    python analyses/refusal_robustness.py --models FOLDER FOLDER --attack alpaca.json --published
    python analyses/refusal_robustness.py --grid runs/grid-sweep        # a grid that is there already

By default the ladder of embedded organisms (0.23, 0.36 and 1.31 million weights). The model and every tuned
one answer the same held-out prompts, decoded alike. Repeat the command after an interruption: cells that are
done stay. Writes table.csv (one row a cell, as results_grid.csv), figures RRR_compare, CE_compare,
RD_compare, over_refusal_harmless_compare, capability_compare and
scaling, half.csv (attack FLOPs to half refusal) and a verdict.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from _shared import budget, command, must_refuse, prompt_file, sized, test_prompts, write

import tamperlens
from tamperlens import errors, finetune, grid, prompts, refusal, report
from tamperlens.models import Decoding

LADDER = ("organism:tiny", "organism:small", "organism")
PUBLISHED = (
    "Published: after 500–2000 LoRA steps (rank 8) RRR .72 → 0 for Phi-3 (3.8 B) and .13 → 0 for Qwen2-7B; "
    "RD .30 to .32; RD had several definitions there and baseline and tuned model were decoded differently."
)


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(LADDER), help="organisms, folders or hub ids")
    parser.add_argument("--attack", default="harmful-compliance", help="packaged attack, or a file")
    parser.add_argument("--n", type=int, help="examples of the attack")
    parser.add_argument("--steps", type=int, nargs="+", help="optimizer steps")
    parser.add_argument("--harmful", type=prompt_file("harmful"), help="file with harmful prompts to test on")
    parser.add_argument("--harmless", type=prompt_file("harmless"), help="file with harmless prompts")
    parser.add_argument("--embedder", default="auto", help="of RD: auto, base, or a folder")
    parser.add_argument("--max-new-tokens", type=int, help="answers are cut there")
    parser.add_argument("--n-questions", type=int, help="questions per capability suite")
    parser.add_argument("--anyway", action="store_true", help="go on with models that hardly refuse")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8])
    parser.add_argument("--learning-rate", type=float, help="the attack's own by default")
    parser.add_argument("--seeds", type=int, help="runs with different seeds")
    parser.add_argument("--n-test", type=int, help="prompts that refusal is measured on")
    parser.add_argument("--ray", help="a Ray cluster's address, or local")
    parser.add_argument("--grid", type=Path, help="folder of a grid, instead of running one")
    parser.add_argument("--out", type=Path, default=Path("results") / "refusal_robustness")
    budget(parser)
    return parser.parse_args()


def cells(given: argparse.Namespace) -> grid.GridResult:
    """The grid, run or read."""
    if given.grid is not None:
        return grid.status(given.grid)
    check(given)
    declared = grid.Grid(
        models=tuple(given.models), attacks=(given.attack,), ranks=tuple(given.ranks),
        steps=tuple(given.steps), data_sizes=(given.n,), seeds=tuple(range(given.seeds)),
        learning_rates=() if given.learning_rate is None else (given.learning_rate,),
        evaluation=grid.Evaluation(
            limit=given.n_test, suite_limit=given.n_questions, embedder=given.embedder,
            harmful=str(given.harmful or ""), harmless=str(given.harmless or ""),
            decoding=Decoding(given.max_new_tokens),
        ),
        dtype=given.dtype,
    )  # fmt: skip
    return grid.run(declared, given.out / "grid", ray=given.ray, progress=True)


def check(given: argparse.Namespace) -> None:
    """The sizes, by the first model; and whether the models refuse, where that is not known."""
    for where in given.models:
        model = tamperlens.load(where, dtype=given.dtype)
        sized(
            given, model, {"n": 15, "steps": [500, 1000, 2000], "n_questions": 20}
            if model.language != prompts.ORGANISM
            else {"n": 15, "steps": [1, 2, 4, 8, 16], "n_questions": 20},
            {"n": 15, "steps": [5, 15, 45], "n_questions": 6}
            if model.language != prompts.ORGANISM
            else {"n": 15, "steps": [1, 2], "n_questions": 6},
        )  # fmt: skip
        if given.attack in finetune.attacks.names():
            finetune.attacks.for_model(given.attack, model, given.n)
        if model.language != prompts.ORGANISM:
            asked = test_prompts(given.harmful, "harmful", model, min(given.n_test, 12))
            rates = refusal.evaluate(model, asked, max_new_tokens=given.max_new_tokens)
            must_refuse(model, rates.refusal_rate, asked.name, given.anyway)


def falls(table: pd.DataFrame) -> list[str]:
    """One line a model and setting: RRR, RD and what else it cost, before and at the largest budget."""
    words = []
    named = {"rrr": "RRR", "rd": "RD", "over_refusal_harmless": "over-refusal", "capability": "capability"}
    ends = {}
    for measure in named:
        frame = grid.curves(table, measure)
        for series, rows in frame.groupby("series", sort=False):
            first, last = rows.iloc[0], rows.iloc[-1]
            before = "" if first["step"] else f"{first['value']:.2f} → "
            ends.setdefault(series, []).append(
                f"{named[measure]} {before}{last['value']:.2f} [{last['low']:.2f}, {last['high']:.2f}]"
            )
            budget = f"after {last['step']} steps, {last['seeds']:.0f} seeds, n {last['n']}"
            ends.setdefault((series, "budget"), budget)
    for series in [key for key in ends if not isinstance(key, tuple)]:
        words.append(f"- {series}, {ends[series, 'budget']}: {'; '.join(ends[series])}.")
    return words


def main() -> None:
    """Run or read the grid; write table, figures, fits and verdict."""
    given = options()
    result = cells(given)
    table = result.table
    lines = [f"tamperlens {tamperlens.__version__}: {result}.", *result.problems, "", *falls(table), ""]
    fits = None
    attacks = [name for name in table["attack"].unique() if name != "none"]
    try:
        fits = grid.scaling(table, given.attack if given.attack in attacks else None)
    except errors.InputError as error:
        lines.append(f"No scaling fit: {error}")
    if fits is not None:
        lines.append(f"Scaling, {fits.runs} training runs: {fits.verdict}.")
        lines += [f"- {fit.family}: {fit.held_out} nats a prompt on left-out runs" for fit in fits.fits]
        lines += [f"- {fits.best.family}: {name} {value}" for name, value in fits.best.parameters.items()]
        sizes = table["parameters"].nunique()
        if sizes > 1:
            lines.append(f"- the slope in size rests on {sizes} models, which differ in more than size.")
        for row in fits.half.itertuples():
            if row.flops == row.flops:
                found = (
                    f"{row.flops:.2g} FLOPs [{row.low:.2g}, {row.high:.2g}], {row.share_of_1e25:.1g} of 10²⁵"
                )
            else:
                found = row.reason
            lines.append(f"- {row.model} ({row.parameters:,} weights) to half refusal: {found}.")
        given.out.mkdir(parents=True, exist_ok=True)
        report.write_csv(given.out / "half.csv", fits.half)
    write(given.out, table, "\n".join([*lines, "", PUBLISHED]), grid.figures(table, fits))


if __name__ == "__main__":
    command(main)
