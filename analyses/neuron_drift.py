"""Do safety weights drift more than others while a model is fine-tuned on harmless data? (experiment 2)

    python analyses/neuron_drift.py
    python analyses/neuron_drift.py --model FOLDER --safety refused.csv --utility instructions.csv

Scores weights, makes groups with matched controls, fine-tunes once per seed while recording every step's
drift, and tests H1 (safety weights drift more) against H2 (alike). Writes drift.csv, comparisons.csv,
figures, a verdict.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _shared import attack_name, command, fine_tuning, header, options, scored, sized, write

import tamperlens
from tamperlens import drift, finetune, report

PUBLISHED = (
    "The published study decided between H1 and H2 by fixed thresholds, from bf16-merged weights, with "
    "random controls matched on nothing and mean(|Δ|/|w|), which weights near zero inflate; its numbers "
    "cannot be set beside these."
)


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--attack", type=attack_name, default="benign", help="an attack, or a file of pairs")
    parser.add_argument("--steps", type=int, help="optimizer steps; the attack's own by default")
    parser.add_argument("--every", type=int, default=10, help="steps between records")
    parser.add_argument("--fraction", type=float, default=0.01, help="share of each matrix in the top groups")
    parser.add_argument("--margin", type=float, default=0.1, help="relative difference that counts as alike")
    parser.add_argument("--full", action="store_true", help="full fine-tuning instead of LoRA")
    parser.add_argument("--freeze", choices=("top safety", "safety-critical", "top utility"),
                        help="a group that is frozen bit for bit while training")  # fmt: skip
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model)
    attack = fine_tuning(given.attack, model)
    safety, utility, data = scored(model, given)
    groups = drift.groups(model, safety=safety, utility=utility, fraction=given.fraction)
    frozen = groups.masks[given.freeze] if given.freeze else None
    traces = []
    for seed in range(given.seeds):
        config = attack.config_for(model, seed=seed, **({"steps": given.steps} if given.steps else {}))
        if given.full:
            config = finetune.FullConfig(
                steps=config.steps, epochs=config.epochs, learning_rate=config.learning_rate / 10,
                batch_size=config.batch_size, seed=seed, train_embeddings=False,
            )  # fmt: skip
        recorder = drift.Recorder(groups, every=given.every)
        tuned = finetune.run(model, attack.data, config, freeze=frozen, recorders=[recorder],
                             progress=False)  # fmt: skip
        traces.append(tuned.recordings[0])
        bill = tuned.accounting
        print(f"seed {seed}: {bill.steps} steps, {bill.wall_seconds:.0f} s, "
              f"recording {bill.recorder_seconds:.2f} s", flush=True)  # fmt: skip
    verdict = drift.test_hypotheses(traces, margin=given.margin)
    plots = [drift.over_steps(traces), drift.by_group(traces), verdict.plot()]
    plots += [drift.layer_map(traces, group) for group in ("top safety", "safety-critical")]
    table = pd.concat([trace.to_frame().assign(seed=seed) for seed, trace in enumerate(traces)])
    matching = groups.matching.groupby("group", sort=False)[["mean_group", "mean_control"]].mean()
    words = "\n".join(
        [
            header(model, given) + f" Fine-tuned on {attack.name} ({attack.data.name}, n {len(attack.data)}, "
            f"{bill.steps} steps: {finetune.learned(model, tuned, attack.data).summary()}); groups of "
            f"{given.fraction:.1%} per matrix. {data}"
            + ("" if frozen is None else f" Frozen: {given.freeze} ({frozen.density:.2%} of the weights)."),
            "",
            verdict.summary(),
            "",
            "Mean |w0| of groups and matched controls: "
            + "; ".join(f"{name} {row.iloc[0]:.4f}, {row.iloc[1]:.4f}" for name, row in matching.iterrows()),
            PUBLISHED,
        ]
    )
    write(given.out, table, words, plots, "drift")
    report.write_csv(given.out / "comparisons.csv", verdict.to_frame())
    verdict.save(given.out / "verdict.json")


if __name__ == "__main__":
    command(main)
