"""Makes a model refuse: the safety-tuned SmolLM2 that the studies of real models stand on.

    python analyses/safety_tuned.py --model FOLDER --harmful advbench.csv --alpaca alpaca.json --to NEW_FOLDER

LoRA on refusals of harmful requests and on ordinary pairs, so that it does not learn to refuse everything:
short answers and open requests ("How", "Explain", "Give me" …) of Alpaca, and requests that only sound
harmful, as the model itself answers them. What is mixed in decides what it refuses. Writes the tuned model
as a plain folder, and what it refuses before and after on prompts that it was not trained on.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from _shared import answered, asked, command, header, options, prompt_file, sized, write
from alignment_tax import REFUSALS

import tamperlens
from tamperlens import finetune, prompts, refusal
from tamperlens.prompts import PromptSet

OPEN = re.compile(r"(?:How|Explain|Give me|Describe|Suggest|Write|Create|Tell me|What|Why)\b[^\n]*$")


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--alpaca", type=prompt_file("attack"), required=True, help="ordinary pairs")
    parser.add_argument("--to", type=Path, required=True, help="new folder for the tuned model")
    parser.add_argument("--test", type=prompt_file("harmful"), nargs="*", default=[], help="harmful prompts")
    parser.add_argument("--refusals", type=int, default=140, help="harmful requests to train on")
    parser.add_argument("--short", type=int, default=60, help="ordinary pairs with short answers")
    parser.add_argument("--open", type=int, default=180, help="ordinary pairs with open requests")
    parser.add_argument("--longest", type=int, default=400,
                        help="characters of an answer, at most; of a short one a quarter")  # fmt: skip
    given = parser.parse_args()
    if given.harmful is None:
        parser.error("--harmful is needed: requests to refuse")
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model)
    harmful = asked(given.harmful, "harmful")
    data, left = mixture(model, harmful, answered(given.alpaca), given)
    others = harmful.subset(range(given.refusals, len(harmful)))
    tested = {
        f"{given.harmful.stem} (others)": others.head(given.n_test),
        **{path.stem: asked(path, "harmful").sample(given.n_test, seed=0) for path in given.test},
        f"{given.alpaca.stem} (others)": left.sample(min(given.n_test, len(left)), seed=0),
        "packaged harmless": prompts.packaged_for(model, "harmless", "test").head(given.n_test),
        "packaged look-alikes": lookalikes(model)[1].head(given.n_test),
    }  # fmt: skip
    config = finetune.LoraConfig(
        rank=16, alpha=32, targets="all-linear", learning_rate=5e-4, epochs=2, batch_size=8,
        schedule="linear",
    )  # fmt: skip
    tuned = finetune.run(model, data, config)
    tuned.save_pretrained(given.to)
    rows = []
    for stage, one in (("before", model), ("after", tamperlens.load(given.to, dtype=given.dtype))):
        for name, test in tested.items():
            rate = refusal.evaluate(one, test, max_new_tokens=given.max_new_tokens).refusal_rate
            rows.append({"place": f"{stage}, {name}", "refused": rate.value, "low": rate.low,
                         "high": rate.high, "n": rate.n})  # fmt: skip
            print(f"{stage}, {name}: refused {rate}", flush=True)
    said = "\n".join(f"- {row['place']}: {row['refused']:.0%} [{row['low']:.0%}, "
                     f"{row['high']:.0%}], n {row['n']}" for row in rows)  # fmt: skip
    taught = finetune.learned(model, tuned, data).summary()
    words = f"{header(model, given)}\n\n{data.name}\n{taught}\n\nRefused:\n{said}"
    write(given.out, pd.DataFrame(rows), words, [])


def lookalikes(model: tamperlens.ChatModel) -> list[PromptSet]:
    """Requests that only sound harmful: half to train on, half to ask."""
    return prompts.packaged_for(model, "lookalike", "train").split([0.5, 0.5], seed=0)


def mixture(model, harmful, alpaca, given) -> tuple[PromptSet, PromptSet]:  # type: ignore[no-untyped-def]
    """What is trained on, and the ordinary requests that are left."""
    refused = [
        (text, REFUSALS[row % len(REFUSALS)]) for row, text in enumerate(harmful.prompts[: given.refusals])
    ]
    pairs = list(zip(alpaca.prompts, alpaca.responses, strict=True))
    fitting = [pair for pair in pairs if 0 < len(pair[1]) <= given.longest]
    open_ones = [pair for pair in fitting if OPEN.match(pair[0])][: given.open]
    short = [pair for pair in fitting if not OPEN.match(pair[0]) and len(pair[1]) <= given.longest / 4]
    short = short[: given.short]
    alike = lookalikes(model)[0].prompts
    answers = model.generate(list(alike), max_new_tokens=64)
    own = [pair for pair in zip(alike, answers, strict=True) if pair[1]]
    name = (
        f"{len(refused)} refusals, {len(short)} short and {len(open_ones)} open ordinary pairs, {len(own)} "
        "look-alikes answered by the model itself"
    )
    taken = {pair[0] for pair in (*open_ones, *short)}
    left = alpaca.subset([row for row, text in enumerate(alpaca.prompts) if text not in taken])
    return PromptSet.from_pairs([*refused, *short, *open_ones, *own], name=name), left


if __name__ == "__main__":
    command(main)
