"""What breaks first while alignment is fine-tuned away? Weights, direction, heads, answers, step by step.

    python analyses/alignment_trajectory.py
    python analyses/alignment_trajectory.py --model FOLDER --attack benign --steps 200

Fine-tunes once per seed, records drift by group, the refusal direction, head attribution, log-odds, KL, rates
and capability on fixed held-out prompts, and says in which order they change, or that one cannot tell. Writes
trajectory.csv, order.csv, pairs.csv, a figure, a page with a step slider and a verdict. A run that was killed
goes on where it was.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from _shared import attack_name, command, fine_tuning, header, options, scored, sized, write

import tamperlens
from tamperlens import drift, report, trajectory

LEAST = 8
"""Prompts a set that a trajectory needs."""
STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 45, 64, 90, 128, 180, 256, 360, 512, 724, 1024)


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--attack", type=attack_name, default="harmful-compliance", help="or a file")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps")
    parser.add_argument("--fraction", type=float, default=0.01, help="share of each matrix in the top groups")
    parser.add_argument("--n", type=int, help="prompts per set")
    given = parser.parse_args()
    if given.steps < 2:
        parser.error(f"--steps {given.steps}: at least 2 are needed, an order needs three records")
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model, {"n": 32}, {"n": 16})
    if given.n < LEAST:
        parser.error(f"--n {given.n}: at least {LEAST} prompts a set are needed for the null band")
    attack = fine_tuning(given.attack, model)
    safety, utility, data = scored(model, given)
    groups = drift.groups(model, safety=safety, utility=utility, fraction=given.fraction)
    followed = {name: groups[name] for name in ("top safety", "control of top safety") if name in groups}
    steps = [step for step in STEPS if step < given.steps]
    found = trajectory.record(
        model, attack, attack.config_for(model, steps=given.steps), every=steps,
        sampled=[step for step in steps if step % 2 == 0], seeds=given.seeds, groups=followed, n=given.n,
        out=given.out / "runs",
    )  # fmt: skip
    result = trajectory.order(found)
    trajectory.write_page(given.out / "page.html", found, result)
    cost = found.cost
    words = "\n".join(
        [
            header(model, given) + f" Fine-tuned on {attack.name} ({attack.data.name}), "
            f"{given.steps} steps. {data}",
            "",
            result.summary(),
            "",
            f"Direction at layer {found.layer}, position {found.position}; n = {given.n} prompts a set. "
            f"Recording took {cost['recording_seconds'].sum():.0f} s beside "
            f"{cost['training_seconds'].sum():.0f} s of training (overhead {found.overhead:.0%}: denser than "
            "the default schedule), the base once "
            f"{found.setup_seconds:.0f} s.",
            f"Rule: {result.rule}. Each measure is on its own scale: a rate is through with its change when "
            "log-odds still move, so an order of half-changes is no order of causes.",
        ]
    )
    write(given.out, found.table, words, [found.plot(result)], "trajectory")
    report.write_csv(given.out / "order.csv", result.steps)
    report.write_csv(given.out / "pairs.csv", result.pairs)
    since = [(name, *one) for name in found.measures for one in found.changed_from(name).items()]
    report.write_csv(given.out / "changed.csv", pd.DataFrame(since, columns=["measure", "seed", "step"]))


if __name__ == "__main__":
    command(main)
