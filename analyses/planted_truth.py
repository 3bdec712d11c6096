"""Does a localisation method find what is there? Every method against organisms whose answer is known.

    python analyses/planted_truth.py --quick        # five kinds, one seed, two causal tests, 3 attacks each
    python analyses/planted_truth.py                # every shipped organism, every causal test, attacks

`base` was made to refuse by training that could change only a known part. Each method ranks weights, neurons
or heads of the result; precision and recall at the planted size, average precision, AUROC and rank say how
well it points at the part, beside chance, trivial baselines, a random method and one that cheats. Then each
method's choice is removed or put back to base (refusal lost, capability lost), and each organism is attacked
with its part free and frozen. Writes verification.csv, scores.csv, table.csv, causal.csv, attacks.csv, the
figure, verdict.txt and page.md, which says in plain words what can be trusted for what.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd
from _planted_page import CALIBRATED, LEVEL_WORDS, LEVELS, page_of
from _shared import figures

import tamperlens
from tamperlens import planted, plots, report

QUICK = ("random-5", "neurons", "heads-3", "rank-3", "layer")
CAUSAL = {
    "weights": ("SNIP", CALIBRATED, planted.RANDOM),
    "neurons": ("activation contrast with base", planted.RANDOM),
    "heads": ("direct", planted.RANDOM),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="five kinds, one seed: under five minutes")
    parser.add_argument("--kinds", nargs="*", choices=planted.KINDS, help="instead of all")
    parser.add_argument(
        "--seeds",
        nargs="*",
        type=int,
        help="of planted organisms; those shipped by default, others are trained",
    )
    parser.add_argument("--out", type=Path, default=Path("results/planted_truth"), help="folder")
    parser.add_argument("--n-score", type=int, help="examples that weights are scored on")
    parser.add_argument("--limit", type=int, help="held-out prompts")
    parser.add_argument("--attacks", type=int, help="free runs of the attack, per organism")
    given = parser.parse_args()
    kinds = given.kinds or (QUICK if given.quick else planted.KINDS)
    pairs = [(kind, seed) for kind in kinds for seed in given.seeds or ()]
    pairs = pairs or [at for at in planted.shipped() if at[0] in kinds and (at[1] == 0 or not given.quick)]
    started = time.time()
    given.out.mkdir(parents=True, exist_ok=True)
    data = planted.Data.packaged(given.n_score or (48 if given.quick else 128))
    base = tamperlens.load("organism:base")
    limit = given.limit or (40 if given.quick else 100)
    held_out = planted.prompts_for(base, limit=limit, questions=10 if given.quick else 30)
    edits = planted.prompts_for(base, limit=min(limit, 40), questions=6)
    validation = planted.prompts_for(base, limit=limit, questions=1, split="validation")
    cards, scores, causal, attacks = [], [], [], []
    for kind, seed in pairs:
        folder = given.out / ("parts-quick" if given.quick else "parts") / f"{kind}-{seed}"
        if not (folder / "verification.csv").is_file():
            one_organism(folder, kind, seed, data, (held_out, validation, edits), given)
            print(f"{time.time() - started:.0f}s {kind} {seed}", flush=True)
        kept = {"verification": cards, "scores": scores, "causal": causal, "attacks": attacks}
        for name, rows in kept.items():
            if (folder / f"{name}.csv").is_file():
                rows.append(pd.read_csv(folder / f"{name}.csv"))
    tables = {
        "verification": joined(cards), "scores": joined(scores), "causal": joined(causal),
        "attacks": joined(attacks),
    }  # fmt: skip
    write(given.out, tables)


def joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all organisms."""
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def one_organism(folder: Path, kind: str, seed: int, data: Any, probes: Any, given: Any) -> None:
    """Everything about one organism, into files of its own, so that an interrupted run goes on."""
    held_out, validation, edits = probes
    started = time.time(), time.process_time()
    model, truth = planted.make(kind, seed)
    card = planted.verify(model, truth, held_out)
    tuned_on = planted.outcome(model, validation)["refusal"].value
    found: dict[str, pd.DataFrame] = {}
    if card.passed:
        head = {"organism": truth.name, "kind": kind, "seed": seed}
        said = planted.candidates(model, truth, data, seed=seed)
        found["scores"] = planted.score(model, truth, said)
        methods = {level: [m for m in of if m in said.scores[level]] for level, of in CAUSAL.items()}
        if truth.mask.density < 1:
            sets = planted.top_sets(model, truth, said, methods)
            kept = dict(list(sets.items())[:2]) if given.quick else sets
            rows = planted.interventions(model, truth, kept, edits)
            bases = {"refusal direction": said.refusal, "what was planted": truth.write}
            known = {name: basis for name, basis in bases.items() if basis is not None}
            rows += planted.ablations(model, known, edits)
            found["causal"] = pd.DataFrame([{**head, **row} for row in rows])
        attack = planted.attacked(model, truth, edits, seeds=given.attacks or 3)
        found["attacks"] = pd.DataFrame([{**head, **attack}])
    folder.mkdir(parents=True, exist_ok=True)
    # The verification comes last: it says that the others are there.
    spent = {"seconds": time.time() - started[0], "cpu": time.process_time() - started[1]}
    found["verification"] = pd.DataFrame([{**card_row(card), "validation_refusal": tuned_on, **spent}])
    for name, frame in found.items():
        report.write_csv(folder / f"{name}.csv", frame)


def write(out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Tables, figure, page."""
    scores = tables["scores"]
    if scores.empty:
        failed = tables["verification"].to_dict("records")
        faults = "; ".join(f"{r['organism']} {r['reason']}" for r in failed)
        raise SystemExit(f"no organism passed its verification, so none was scored: {faults or 'none given'}")
    whole = planted.summary(scores).assign(kind="all")
    by_kind = planted.summary(scores, ("level", "method", "kind"))
    tables["table"] = pd.concat([whole, by_kind], ignore_index=True)
    for name, frame in tables.items():
        report.write_csv(out / f"{name}.csv", frame)
    figures(out, [figure(whole, scores["organism"].nunique())])
    page = page_of(tables, whole, by_kind)
    (out / "page.md").write_text(page, encoding="utf-8")
    said = [
        line for line in page.splitlines() if line.startswith(("Excluded", "##", "Methods that", "Fifteen"))
    ]
    (out / "verdict.txt").write_text("\n".join(said) + "\n", encoding="utf-8")
    print(page, f"Written to {out}", sep="\n", flush=True)


def card_row(card: Any) -> dict[str, Any]:
    """One line of the organisms' card."""
    row = {"organism": card.name, "weights": card.weights, "share": card.share, "passed": card.passed}
    for name in ("refusal", "over_refusal", "capability", "base_capability", "back"):
        one = getattr(card, name)
        row |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_n": one.n}
    return {**row, "reason": card.reason}


def figure(whole: pd.DataFrame, n: int) -> plots.Plot:
    """Precision at the planted size and AUROC of every method, level by level."""
    rows = []
    drawn = pd.concat(
        [whole[whole["level"] == level].sort_values("auroc", ascending=False) for level in LEVELS]
    )
    for one in drawn.to_dict("records"):
        for series, name in (("AUROC (chance .5)", "auroc"), ("precision at the planted size", "precision")):
            low, high = one[f"{name}_low"], one[f"{name}_high"]
            rows.append(
                {"panel": LEVEL_WORDS[one["level"]], "label": one["method"], "series": series,
                 "value": one[name], "low": low if low == low else one[name],
                 "high": high if high == high else one[name], "n": one["organisms"]}
            )  # fmt: skip
    return plots.dot_interval(
        pd.DataFrame(rows),
        name="planted_truth",
        title="How well each method finds what was planted",
        caption=f"Mean over {n} planted organisms (n: those with something to find at that level), bootstrap "
        "95 % intervals over organisms. Chance of precision is the planted share, 1 to 20 % of weights.",
        axis="AUROC, or share of the chosen that is planted",
    )


if __name__ == "__main__":
    main()
