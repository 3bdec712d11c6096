"""What does naive safety tuning cost? Refusal, over-refusal and capability before and after, head by head.

    python analyses/alignment_tax.py                       # the organism's base model, minutes on a CPU
    python analyses/alignment_tax.py --model gpt2          # with a hub id or a folder

A base model is tuned with LoRA on refusals and nothing else (published settings for real models), several
times; every prompt that it is tested on was held out. Written: a table with intervals over prompts and
runs, the tax per point of refusal gained, head attribution before and after with the attention of the heads
that changed most, and a dose curve (refusal examples × harmless examples mixed in) that shows how to pay
less.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
from _shared import answered, asked, command, header, options, sized, write

import tamperlens
from tamperlens import finetune, heads, plots, prompts, report
from tamperlens.models import Decoding
from tamperlens.prompts import PromptSet
from tamperlens.studies import spillover as study
from tamperlens.studies.evaluation import measure

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot assist with that request.",
    "Sorry, I can't help with that, because it could hurt people.",
    "I won't help with that.",
    "I'm not able to help with that request.",
)
ALL = "all questions"
OVER, LOSS = "over-refusal (harmless)", "loss per token"
MAIN = (ALL, "refusal", OVER, "over-refusal (look-alikes)", "degenerate")
PUBLISHED = (
    "Published (GPT-2 small, 5 refusals × 20 copies, tested on the training prompts): refusal 0 → 100 %, "
    "15 + 12 = 27 → 15, code → nonsense; over-refusal was not measured."
)


def refusals(model: Any, given: argparse.Namespace) -> PromptSet:
    """Harmful prompts with refusals to train on; none of the test prompts."""
    if given.safety is not None:
        return answered(given.safety, "safety")
    if model.language == prompts.ORGANISM:
        return prompts.packaged("refusal-only")
    asked = prompts.packaged_for(model, "harmful", "train").prompts
    pairs = [(prompt, REFUSALS[i % len(REFUSALS)]) for i, prompt in enumerate(asked)]
    return PromptSet.from_pairs(pairs, name="english refusals", licence="MIT", source="english-harmful")


def ordinary(model: Any, given: argparse.Namespace, n: int) -> PromptSet:
    """Harmless prompts with answers to mix in: packaged ones, or what the model itself answers."""
    if given.utility is not None:
        return answered(given.utility).head(n)
    if model.language == prompts.ORGANISM:
        return prompts.packaged("benign").head(n)
    asked = prompts.packaged_for(model, "harmless", "train")
    asked = asked.head(min(n, len(asked))).prompts
    answers = model.generate(list(asked), max_new_tokens=64)
    pairs = [(prompt, answer) for prompt, answer in zip(asked, answers, strict=True) if answer]
    return PromptSet.from_pairs(pairs, name=f"harmless, answered by {model.name}")


def settings(model: Any, data: PromptSet, given: argparse.Namespace, seed: int = 0) -> Any:
    """The attack's own settings; the same number of steps whatever the data."""
    attack = finetune.attacks.refusal_only(len(data), data)
    if given.preset is not None:  # the other preset is then not looked at
        chosen = getattr(attack, given.preset)
        attack = dataclasses.replace(attack, published=chosen, organism=chosen)
    changes = {"seed": seed} if given.steps is None else {"seed": seed, "steps": given.steps}
    return attack.config_for(model, **changes)


def tune(model: Any, data: PromptSet, seed: int, given: argparse.Namespace) -> Any:
    """Refusal-only LoRA."""
    return finetune.run(model, data, settings(model, data, given, seed), progress=False).model


def runs(
    model: Any, data: PromptSet, probes: Any, given: argparse.Namespace, label: str
) -> tuple[list[Any], list[Any]]:
    """The tuned model of every seed, and what was measured of it."""
    tuned, sides = [], []
    for seed in range(given.seeds):
        tuned.append(tune(model, data, seed, given))
        sides.append(measure(tuned[-1], probes))
        rates = ", ".join(f"{name} {sides[-1].rate(name).value:.0%}" for name in MAIN)
        print(f"{label}, seed {seed}: {rates}", flush=True)
    return tuned, sides


def dose(
    model: Any, before: Any, probes: Any, given: argparse.Namespace, done: dict[str, list[Any]]
) -> tuple[pd.DataFrame, Any]:
    """Refusal examples × harmless examples mixed in, at a fixed number of steps; `done` is not run again."""
    rows, source = [], refusals(model, given)
    extra = ordinary(model, given, max(given.harmless)) if max(given.harmless) else None
    if extra is not None:
        tested = {*probes.harmless.prompts, *probes.lookalike.prompts}
        tested |= {prompt for suite in probes.suites for prompt in suite.data.prompts}
        extra = extra.subset([row for row, prompt in enumerate(extra.prompts) if prompt not in tested])
    for n in sorted({min(count, len(source)) for count in given.refusals}):
        for m in given.harmless:
            data = source.head(n)
            if m and extra is not None:
                data = PromptSet.concat([data, extra.head(min(m, len(extra)))])
            sides = (
                done.get(data.sha256) or runs(model, data, probes, given, f"{n} refusals + {m} harmless")[1]
            )
            table = study.over_seeds(before, sides)
            rows += [{"refusals": n, "harmless": m, **row} for row in table.to_dict("records")]
    table = pd.DataFrame(rows)
    names = {"refusal": "harmful refused", OVER: "harmless refused", ALL: "questions right"}
    lines = [
        {
            "panel": names[row["measure"]], "series": f"{row['refusals']} refusals", "dose": row["harmless"],
            "value": row["after"], "low": row["after"] + row["low"] - row["difference"],
            "high": row["after"] + row["high"] - row["difference"],
        }
        for row in rows
        if row["measure"] in names
    ]  # fmt: skip
    figure = plots.dose_curve(
        pd.DataFrame(lines).assign(
            low=lambda x: x["low"].clip(lower=0), high=lambda x: x["high"].clip(upper=1)
        ),
        name="dose",
        title="Harmless examples mixed into refusal training",
        caption=f"Means over {given.seeds} runs of as many steps each, whatever the data; 95 % intervals of "
        f"the change over n {before.rate('refusal').n} prompts and runs. Before: "
        + ", ".join(f"{name} {before.rate(key).value:.0%}" for key, name in names.items()) + ".",
        x_axis="harmless examples mixed in",
        y_axis="share of prompts",
    )  # fmt: skip
    return table, figure


def heads_before_and_after(
    model: Any, after: list[Any], data: PromptSet, probes: Any, given: argparse.Namespace
) -> tuple[pd.DataFrame, list[Any]]:
    """Every head's exact effect on the log-odds of a refusal in both models, and the attention that moved."""
    tokens = first_tokens(model, data)
    asked = list(probes.harmful.prompts[: given.n_heads])
    ask = {"target": "refusal_tokens", "refusal_tokens": tokens, "method": "ablate", "baseline": "mean"}
    one = heads.attribute(model, asked, **ask)
    rows, shown = [], []
    for seed, tuned in enumerate(after):
        two = heads.attribute(tuned, asked, **ask)
        moved = heads.compare(one, two)
        rows += [
            {
                "seed": seed, "layer": layer, "head": head, "before": float(one.scores[layer, head]),
                "after": float(two.scores[layer, head]), "rank_change": float(moved.rank_change[layer, head]),
                "cosine": moved.cosine, "spearman": moved.spearman, "n": one.n,
            }
            for layer in range(one.scores.shape[0])
            for head in range(one.scores.shape[1])
        ]  # fmt: skip
        if seed == 0:
            shown += [one.plot(name="heads-before", title=f"{model.name}: heads that raise refusal")]
            shown += [two.plot(name="heads-after", title="After refusal-only tuning")]
            top = moved.most_changed(2)
            prompt = min(asked, key=len)
            old, new = heads.patterns(model, prompt), heads.patterns(tuned, prompt)
            shown += [old.plot(*at, after=new, name=f"attention-{at[0]}-{at[1]}") for at in top]
            given.out.mkdir(parents=True, exist_ok=True)
            old.page(given.out / "attention.html", top, after=new)
    return pd.DataFrame(rows), shown


def first_tokens(model: Any, data: PromptSet) -> list[int]:
    """The tokens that open the refusals trained on."""
    found = []
    for prompt, answer in dict.fromkeys(data.head(min(50, len(data))).pairs()):
        start, whole = (model.tokenizer(model.render(prompt, text), add_special_tokens=False)["input_ids"]
                        for text in (None, answer))  # fmt: skip
        found.append(next(b for a, b in zip([*start, None], whole, strict=False) if a != b))
    return sorted(set(found))


def figure_of(table: pd.DataFrame, before: Any, name: str) -> Any:
    """Every rate before and after, over all runs."""
    rows = []
    for row in table[table["measure"] != LOSS].to_dict("records"):
        start = before.rate(row["measure"])
        shared = {
            "panel": "questions right" if row["set"] == "questions" else "refused, or degenerate",
            "label": row["measure"], "n": row["n"],
        }  # fmt: skip
        rows.append(shared | {"series": "before", "value": start.value, "low": start.low, "high": start.high})
        rows.append(
            shared | {
                "series": f"after, {row['runs']} run{'s'[: row['runs'] > 1]}", "value": row["after"],
                "low": max(0.0, row["before"] + row["low"]), "high": min(1.0, row["before"] + row["high"]),
            }
        )  # fmt: skip
    return plots.dot_interval(
        pd.DataFrame(rows), name="tax", title=f"{name} before and after refusal-only tuning",
        caption="Held-out prompts, greedy answers. Before: Wilson 95 %; after: mean over runs with the 95 % "
        "interval of the change over prompts and runs.", axis="share of prompts",
    )  # fmt: skip


def words(table: pd.DataFrame) -> list[str]:
    """One line per measure."""
    lines = []
    for row in table.to_dict("records"):
        unit = (lambda x: f"{x:+.2f}") if row["measure"] == LOSS else (lambda x: f"{100 * x:+.0f}")
        line = (
            f"- {row['measure']}: {100 * row['before']:.0f} → {100 * row['after']:.0f} % "
            if row["measure"] != LOSS
            else f"- {row['measure']}: {row['before']:.2f} → {row['after']:.2f} "
        )
        line += f"({unit(row['difference'])} [{unit(row['low'])}, {unit(row['high'])}], n {row['n']})"
        if row["set"] == "questions":
            line += (
                f"; tax {row['tax']:.2f} [{row['tax_low']:.2f}, {row['tax_high']:.2f}]"
                if pd.notna(row["tax"])
                else f"; no tax: {row['tax_reason']}"
            )
        lines.append(line + ".")
    return lines


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.set_defaults(model="organism:base")
    parser.add_argument("--n", type=int, help="refusal examples of the main comparison")
    parser.add_argument("--n-questions", type=int, help="questions per suite")
    parser.add_argument("--n-heads", type=int, help="prompts that heads are scored on")
    parser.add_argument("--steps", type=int, help="optimizer steps; the preset's by default")
    parser.add_argument("--preset", choices=("published", "organism"), help="by language by default")
    parser.add_argument("--refusals", type=int, nargs="*", help="dose: refusals")
    parser.add_argument("--harmless", type=int, nargs="*", help="dose: mixed in")
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    doses = {"refusals": [5, 25, 100], "harmless": [0, 25, 100]}
    sized(
        given, model, {"n": 100, "n_questions": 60, "n_heads": 32, **doses},
        {"n_questions": 12, "n_heads": 4, "refusals": [71], "harmless": [0, 60]},
    )  # fmt: skip
    harmful = None if given.harmful is None else asked(given.harmful, "harmful")
    probes = study.prompts_for(
        model, harmful=harmful, limit=given.n_test, questions=given.n_questions,
        decoding=Decoding(given.max_new_tokens),
    )  # fmt: skip
    data = refusals(model, given)
    overlap = set(data.prompts) & set(probes.harmful.prompts)
    if overlap:
        raise SystemExit(f"{len(overlap)} test prompts are trained on; give other --harmful or --safety")
    data = data.head(min(given.n, len(data)))
    before = measure(model, probes)
    after, sides = runs(model, data, probes, given, f"{len(data)} refusals")
    table = study.over_seeds(before, sides)
    moved, shown = heads_before_and_after(model, after, data, probes, given)
    figures = [figure_of(table, before, model.name), *shown]
    given.out.mkdir(parents=True, exist_ok=True)
    report.write_csv(given.out / "heads.csv", moved)
    report.write_csv(given.out / "table.csv", table)  # the dose curve takes longest
    lines = words(table)
    if given.refusals and given.harmless:
        doses, figure = dose(model, before, probes, given, {data.sha256: sides})
        report.write_csv(given.out / "dose.csv", doses)
        figures.append(figure)
        lines += ["", *advice(doses)]
    by_seed = moved.groupby("seed")[["cosine", "spearman"]].first()
    config = settings(model, data, given)
    text = [
        header(model, given),
        f"Trained on {data.name}, {len(data)} examples; r {config.rank}, α {config.alpha}, {config.targets}, "
        f"lr {config.learning_rate:g}, {config.steps} steps of {config.batch_size}. "
        "Intervals: 95 % over prompts and runs.",
        "", *lines, "",
        "Heads before and after (log-odds of a refusal, mean ablation, "
        f"n {int(moved['n'].iloc[0])}): cosine " + ", ".join(f"{x:.2f}" for x in by_seed["cosine"])
        + "; rank correlation " + ", ".join(f"{x:.2f}" for x in by_seed["spearman"]) + " (one per run).",
        PUBLISHED,
    ]  # fmt: skip
    write(given.out, table, "\n".join(text), figures)


def advice(doses: pd.DataFrame) -> list[str]:
    """The dose curve in words: every cell's refusal, over-refusal and loss."""
    lines = ["Dose (refusals + harmless: harmful refused, harmless refused, questions right):"]
    for (n, m), part in doses.groupby(["refusals", "harmless"], sort=False):
        by = part.set_index("measure")["after"]
        rates = ", ".join(f"{100 * by[name]:.0f} %" for name in ("refusal", OVER, ALL))
        lines.append(f"- {n} + {m}: {rates}")
    return lines


if __name__ == "__main__":
    command(main)
