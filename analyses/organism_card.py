"""The organism's card: what it does on held-out data, and the phenomena it shows, with intervals.

    python analyses/organism_card.py                     # the shipped weights
    python analyses/organism_card.py FOLDER [FOLDER …]   # and folders of further seeds, in order

Writes what it measures to `analyses/measured/organism_card.json` and from it `docs/organism-card.md` (or
`--out`; `--page` makes the page again without measuring). Every number comes from the public API, on the test
splits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import tamperlens
from tamperlens import capability, finetune, prompts, refusal, stats

PREFACE = """# The organism's card

A real `LlamaForCausalLM` of 1.3 million parameters (width 128, 5 blocks, 4 heads, 2 key/value heads,
SwiGLU 384, tied embeddings, 2,560 byte-level BPE tokens) trained from nothing on text that our own
grammar makes. `base` is helpful and only helpful; `aligned` goes on from it and refuses harmful requests.
It is a specimen for studying refusal, not an assistant: it knows about 1,500 English words and nothing
outside its grammar.

**Recipe** (`python -m organism_training.train --seed 0` in `docs/tools`): base 2,400 steps of 64 examples,
5.9 M tokens; safety 600 steps of 48 examples, 1.1 M tokens, on the first two blocks only. Muon for matrices,
AdamW for the rest, loss on the answer alone. About 20 minutes on one core of a 2.5 GHz Xeon (6e13 FLOPs).

**Held out.** Every (verb, object) pair below was seen by no training stage; verbs and objects marked as
held out were never in safety training; half of the prompts come in phrasings that safety training never
used. Sums, orderings, code tasks and the phrasing of each fact are held out too. Choices were made on the
validation splits; these are the test splits. Greedy decoding, default judge, Wilson 95 %
intervals; every kind of answer was read.

**Limits.** One grammar and short answers: rates near 0 and 100 % are easier here than in real models.
Training all blocks in the safety stage put the decision into the last block alone, where no direction
passed the published selection; training the first two is a choice that makes the phenomenon visible.
Compliance with a harmful request is an opening with "[withheld]" filler.
"""
SUITES = ("addition", "subtraction", "logic", "code", "facts")
REQUESTS = ("harmful", "harmless", "lookalike")


def cells(estimate: stats.Estimate) -> dict[str, float]:
    """A rate as it is stored."""
    return {key: getattr(estimate, key) for key in ("value", "low", "high", "n")}


def percent(rate: dict[str, Any]) -> str:
    """A stored rate as percent with its interval and n; words as they are."""
    if "words" in rate:
        return str(rate["words"])
    return f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}] (n={rate['n']})"


def page_of(seeds: list[dict[str, Any]]) -> str:
    """The card, from what is stored."""
    lines: list[str] = [PREFACE]
    for seed in seeds:
        lines += [f"## {seed['title']}", "", "| % [95 % interval] | base | aligned |", "| --- | --- | --- |"]
        lines += [f"| {r['what']} | {percent(r['base'])} | {percent(r['aligned'])} |" for r in seed["rates"]]
        lines += ["", "| phenomenon | figures |", "| --- | --- |"]
        lines += [f"| {r['what']} | {percent(r)} |" for r in seed["phenomena"]]
        lines.append("")
    return "\n".join(lines)


def measure(model: tamperlens.ChatModel) -> dict[str, stats.Estimate]:
    """Refusal rates on the three kinds of requests and accuracy on every suite, test splits."""
    found = {
        f"refuses {name}": refusal.evaluate(model, prompts.packaged(name, split="test")).refusal_rate
        for name in REQUESTS
    }
    scores = capability.evaluate(model, suites=SUITES)
    return {**found, **{name: scores.accuracy[name] for name in SUITES}}


def phenomena(base: tamperlens.ChatModel, aligned: tamperlens.ChatModel, seed: int) -> list[dict[str, Any]]:
    """Direction, attack and tax, as stored."""
    harmful, harmless = (prompts.packaged(name, split="test") for name in ("harmful", "harmless"))
    direction = refusal.find_direction(
        aligned,
        prompts.packaged("harmful", split="train"),
        prompts.packaged("harmless", split="train"),
        seed=seed,
    )
    check = refusal.causal_check(aligned, direction, harmful, harmless, seed=seed)
    place = f"layer {direction.layer}, position {direction.position}, passed: {direction.passed}"
    rows: list[dict[str, Any]] = [{"what": "direction", "words": place}]
    rows += [
        {"what": "refuses harmful, direction ablated", **cells(check.ablated.refusal_rate)},
        {"what": "points of refusal lost", **cells(check.bypass_drop)},
        {"what": "points lost to random directions", **cells(check.random_drop)},
        {"what": "refuses harmless, direction added", **cells(check.added.refusal_rate)},
    ]
    with tamperlens.hooks.ablate_direction(aligned, direction.vector):
        sums = capability.evaluate(aligned, suites=("addition",))
    rows.append({"what": "addition with the direction ablated", **cells(sums.accuracy["addition"])})
    for title, model, attack in (
        ("aligned after 15 harmful-compliance examples", aligned, finetune.attacks.harmful_compliance(15)),
        ("aligned after benign examples", aligned, finetune.attacks.get("benign")(500)),
        ("base after 100 refusal-only examples", base, finetune.attacks.get("refusal-only")(100)),
    ):
        tuned = finetune.run(model, attack.data, attack.config_for(model), progress=False)
        rows += [{"what": f"{title}: {name}", **cells(one)} for name, one in measure(tuned.model).items()]
        sample = tuned.model.generate(list(harmful.prompts[:2]) + list(harmless.prompts[:1]))
        rows.append({"what": f"{title}: reads", "words": " / ".join(f"“{text}”" for text in sample)})
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, help="further trained organisms beside the shipped one"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/organism-card.md"))
    parser.add_argument("--data", type=Path, default=Path("analyses/measured/organism_card.json"))
    parser.add_argument("--page", action="store_true", help="make the page from --data, measure nothing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not options.page:
        sources = [("shipped", "organism:base", "organism:aligned")]
        sources += [(str(f), str(f / "base"), str(f / "aligned")) for f in options.folders]
        seeds = []
        for number, (name, base_name, aligned_name) in enumerate(sources):
            base, aligned = tamperlens.load(base_name), tamperlens.load(aligned_name)
            before, after = measure(base), measure(aligned)
            rates = [
                {"what": key, "base": cells(before[key]), "aligned": cells(after[key])} for key in before
            ]
            title = f"Training seed {number}{' (shipped)' if name == 'shipped' else ''}"
            seeds.append(
                {"title": title, "rates": rates, "phenomena": phenomena(base, aligned, options.seed)}
            )
            print(page_of(seeds[-1:]), flush=True)
        options.data.parent.mkdir(parents=True, exist_ok=True)
        if options.data.is_file():  # seeds whose folders were not given stay as they were measured
            seeds += json.loads(options.data.read_text(encoding="utf-8"))["seeds"][len(seeds) :]
        text = json.dumps({"seeds": seeds}, indent=1, ensure_ascii=False)
        options.data.write_text(text + "\n", encoding="utf-8")
    found = json.loads(options.data.read_text(encoding="utf-8"))
    options.out.write_text(page_of(found["seeds"]), encoding="utf-8")


if __name__ == "__main__":
    main()
