"""The organism's card: what it does on held-out data, and the phenomena it shows, with intervals.

    python analyses/organism_card.py                     # the shipped weights
    python analyses/organism_card.py FOLDER [FOLDER …]   # folders that `models.organism.train` wrote

Writes `docs/organism-card.md` (or `--out`). Every number comes from the public API, on the test splits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tamperlens.stats import Estimate

import tamperlens
from tamperlens import capability, finetune, prompts, refusal

SUITES = ("addition", "subtraction", "logic", "code", "facts")
REQUESTS = ("harmful", "harmless", "lookalike")


def percent(estimate: Estimate) -> str:
    """A rate as percent with its interval and n."""
    return (
        f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}] (n={estimate.n})"
    )


def measure(model: tamperlens.ChatModel) -> dict[str, Estimate]:
    """Refusal rates on the three kinds of requests and accuracy on every suite, test splits."""
    found = {
        f"refuses {name}": refusal.evaluate(model, prompts.packaged(name, split="test")).refusal_rate
        for name in REQUESTS
    }
    scores = capability.evaluate(model, suites=SUITES)
    return {**found, **{name: scores.accuracy[name] for name in SUITES}}


def phenomena(base: tamperlens.ChatModel, aligned: tamperlens.ChatModel, seed: int) -> list[tuple[str, str]]:
    """Direction, attack and tax, each as (what, figures)."""
    harmful, harmless = (prompts.packaged(name, split="test") for name in ("harmful", "harmless"))
    direction = refusal.find_direction(
        aligned,
        prompts.packaged("harmful", split="train"),
        prompts.packaged("harmless", split="train"),
        seed=seed,
    )
    check = refusal.causal_check(aligned, direction, harmful, harmless, seed=seed)
    rows = [
        ("direction", f"layer {direction.layer}, position {direction.position}, passed: {direction.passed}")
    ]
    rows += [(name, percent(rate)) for name, rate in check.rates().items()]
    with tamperlens.hooks.ablate_direction(aligned, direction.vector):
        sums = capability.evaluate(aligned, suites=("addition",))
    rows.append(("addition with the direction ablated", percent(sums.accuracy["addition"])))
    for title, model, attack in (
        ("aligned after 15 harmful-compliance examples", aligned, finetune.attacks.harmful_compliance(15)),
        ("aligned after benign examples", aligned, finetune.attacks.get("benign")()),
        ("base after 100 refusal-only examples", base, finetune.attacks.get("refusal-only")()),
    ):
        tuned = finetune.run(model, attack.data, attack.config_for(model), progress=False)
        rows += [(f"{title}: {name}", percent(value)) for name, value in measure(tuned.model).items()]
        sample = tuned.model.generate(list(harmful.prompts[:2]) + list(harmless.prompts[:1]))
        rows.append((f"{title}: reads", " / ".join(f"“{text}”" for text in sample)))
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="trained organisms; default: the shipped one")
    parser.add_argument("--out", type=Path, default=Path("docs/organism-card.md"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sources = [(str(f), str(f / "base"), str(f / "aligned")) for f in options.folders]
    sources = sources or [("shipped", "organism:base", "organism:aligned")]
    lines: list[str] = []
    for name, base_name, aligned_name in sources:
        base, aligned = tamperlens.load(base_name), tamperlens.load(aligned_name)
        before, after = measure(base), measure(aligned)
        lines += [
            f"## {Path(name).name}",
            "",
            "| % [95 % interval] | base | aligned |",
            "| --- | --- | --- |",
        ]
        lines += [f"| {key} | {percent(before[key])} | {percent(after[key])} |" for key in before]
        lines += ["", "| phenomenon | figures |", "| --- | --- |"]
        lines += [f"| {what} | {figures} |" for what, figures in phenomena(base, aligned, options.seed)]
        lines.append("")
        print("\n".join(lines), flush=True)
    options.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
