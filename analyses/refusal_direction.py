"""Where the refusal direction is, what it does, and what fine-tuning does to it.

    python analyses/refusal_direction.py
    python analyses/refusal_direction.py --model FOLDER --harmful harmful.csv --harmless harmless.csv

Finds the direction as published (Arditi et al. 2024) and shows every candidate by layer and position, what
each does when ablated and when added, the directions of several methods put to the same test, and the base's
direction followed through fine-tuning with its null band. Writes candidates.csv, subspaces.csv, steps.csv,
distances.csv, transfer.csv, shallowness.csv, figures, a verdict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from _shared import (
    asked,
    attack_name,
    command,
    fine_tuning,
    header,
    must_refuse,
    options,
    prompt_file,
    sized,
    test_prompts,
    without,
    write,
)

import tamperlens
from tamperlens import capability, finetune, plots, prompts, refusal, report
from tamperlens.models import Decoding
from tamperlens.prompts import PromptSet


def sets(model: Any, given: Any) -> tuple[PromptSet, PromptSet]:
    """Harmful and harmless prompts to find the direction with."""
    found = []
    for kind in ("harmful", "harmless"):
        path = getattr(given, kind)
        data = asked(path, kind) if path is not None else prompts.packaged_for(model, kind, "train")
        found.append(data.sample(min(given.n_find, len(data)), seed=0))
    return found[0], found[1]


def subspaces(
    model: Any, direction: refusal.Direction, split: refusal.Split, k: int, steps: int
) -> tuple[pd.DataFrame, dict[str, refusal.Subspace]]:
    """Several directions at the selected place by three methods, each put to the causal test.

    A method that finds none on these prompts is said and left out.
    """
    place = (split.harmful_train, split.harmless_train, direction.layer, direction.position, k)
    tokens = {"refusal_tokens": direction.tokens, "steps": steps}
    found = {}
    for name, method, more in (
        ("svd of the contrast", refusal.contrast_subspace, {}),
        ("iterative nullspace", refusal.nullspace_subspace, {}),
        ("gradient-optimised", refusal.optimise_subspace, tokens),
    ):
        try:
            found[name] = method(model, *place, **more)
        except tamperlens.errors.InputError as error:
            print(f"{name}: left out: {error}", flush=True)
    frames = []
    for name, subspace in found.items():
        check = refusal.validate_subspace(
            model, subspace, split.harmful_val, split.harmless_val, refusal_tokens=direction.tokens
        )
        frames.append(check.to_frame().assign(subspace=name))
    return pd.concat(frames, ignore_index=True), found


def main() -> None:
    """Command line."""
    parser = options(__doc__, Path(__file__).stem)
    parser.add_argument("--harmless", type=prompt_file("harmless"), help="file with harmless prompts")
    parser.add_argument("--n-find", type=int, help="prompts per kind to find the direction with")
    parser.add_argument("--attack", type=attack_name, default="harmful-compliance", help="or a file")
    parser.add_argument("--steps", type=int, help="optimizer steps; the attack's own by default")
    parser.add_argument("--every", type=int, help="steps between records")
    parser.add_argument("--n-questions", type=int, help="questions per capability suite, by dose")
    parser.add_argument("--dose", type=int, nargs=2, metavar=("LAYER", "POSITION"),
                        help="only the dose curve of the difference of means there, no search")  # fmt: skip
    parser.add_argument("--k", type=int, default=2, help="dimensions of the subspaces")
    parser.add_argument("--optimise", type=int, help="steps of the gradient-optimised subspace")
    given = parser.parse_args()
    model = tamperlens.load(given.model, dtype=given.dtype)
    sized(given, model, {"n_find": 160, "every": 2, "optimise": 60, "n_questions": 12},
          {"n_find": 40, "every": 8, "optimise": 15, "n_questions": 6})  # fmt: skip
    attack = fine_tuning(given.attack, model)
    harmful, harmless = sets(model, given)
    if given.dose:
        layer, position = given.dose
        there = refusal.direction_at(model, harmful, harmless, layer=layer, position=position)
        dose = dosed(model, there, harmless, given)
        write(given.out, placed(dose), f"{header(model, given)}\n\n{dose.summary()}", [dose.plot()], "dose")
        return
    rates = refusal.evaluate(
        model, harmful.head(min(given.n_test, len(harmful))), max_new_tokens=given.max_new_tokens
    )
    must_refuse(model, rates.refusal_rate, harmful.name, given.anyway)
    cache = refusal.ActivationCache(given.out / "activations")
    n_train, n_val = refusal.split_sizes(len(set(harmful.prompts)), len(set(harmless.prompts)))
    direction = refusal.find_direction(model, harmful, harmless, n_train=n_train, n_val=n_val, cache=cache)
    split = refusal.split_of(direction, harmful, harmless)
    apart = refusal.separation(model, direction, split.harmful_val, split.harmless_val, cache=cache)
    halves = refusal.split_half_null(
        model, split.harmful_train, split.harmless_train, direction.layer, direction.position, cache=cache
    )
    harm = refusal.harmfulness_and_refusal(model, direction, harmful, harmless, cache=cache)
    print(f"direction: layer {direction.layer}, position {direction.position} {direction.flag}", flush=True)
    tests, found = subspaces(model, direction, split, given.k, given.optimise)
    print(f"subspaces: {', '.join(found)}", flush=True)
    traces, distances, transfers, shallow = [], [], [], []
    for seed in range(given.seeds):
        changes = {} if given.steps is None else {"steps": given.steps}
        recorder = refusal.DirectionRecorder(
            direction, harmful, harmless, every=given.every, k=given.k, cache=cache
        )
        config = attack.config_for(model, seed=seed, **changes)
        tuned = finetune.run(model, attack.data, config, recorders=[recorder], progress=False)
        traces.append(tuned.recordings[0])
        compared = refusal.compare_checkpoints(
            model, tuned.model, direction, harmful, harmless, k=given.k, cache=cache
        )
        distances.append(compared.to_frame().assign(seed=seed))
        own = refusal.direction_like(tuned.model, direction, harmful, harmless)
        both = refusal.causal_transfer(
            model, tuned.model, direction, own, split.harmful_val, split.harmless_val
        )
        transfers.append(both.to_frame().assign(seed=seed))
        answers = attack.data if attack.data.responses else split.harmful_val
        shallow.append(refusal.token_kl(model, tuned.model, answers).to_frame().assign(seed=seed))
        print(f"seed {seed}: {tuned.accounting.steps} steps, recording "
              f"{tuned.accounting.recorder_seconds:.1f} s", flush=True)  # fmt: skip
    dose = dosed(model, direction, harmless, given)
    table = direction.to_frame()
    transfer, shallowness = pd.concat(transfers), pd.concat(shallow)
    figures = [
        direction.plot(),
        plots.causal_scatter(
            table, baseline=(direction.baseline_harmful, direction.baseline_harmless),
            caption="Each candidate: refusal log-odds on harmful prompts with it ablated (lower is better) "
            f"against harmless prompts with it added (higher is better), {direction.n_val[0]} and "
            f"{direction.n_val[1]} validation prompts. Lines: nothing changed. Filled: passes every filter.",
        ),
        followed(traces, direction),
        effects(traces, direction),
        kl_by_token(shallowness, attack.name),
        dose.plot(),
    ]  # fmt: skip
    write(given.out, table, words(model, given, direction, apart, halves, harm, found, tests, distances,
                                  transfer, shallowness, attack.name), figures, "candidates")  # fmt: skip
    report.write_csv(given.out / "subspaces.csv", tests)
    report.write_csv(
        given.out / "steps.csv", pd.concat([t.to_frame().assign(seed=i) for i, t in enumerate(traces)])
    )
    report.write_csv(given.out / "distances.csv", pd.concat(distances))
    report.write_csv(given.out / "transfer.csv", transfer)
    report.write_csv(given.out / "dose.csv", placed(dose))
    report.write_csv(given.out / "shallowness.csv", shallowness)
    direction.save(given.out / "direction.safetensors")


def dosed(model: Any, direction: refusal.Direction, harmless: PromptSet, given: Any) -> refusal.DoseCurve:
    """What adding the direction does to harmless prompts it was not found on, and to capability, by scale."""
    asked_of = without(test_prompts(None, "harmless", model, given.n_test), harmless)
    right = {"questions right": lambda one: capability.evaluate(one, limit=given.n_questions).overall}
    dose = refusal.dose_curve(model, direction, asked_of, decoding=Decoding(24), also=right)
    print(dose.summary(), flush=True)
    return dose


def placed(dose: refusal.DoseCurve) -> pd.DataFrame:
    """The curve's rows, each with a name of its own."""
    return dose.table.assign(place=dose.table["measure"] + " at " + dose.table["scale"].map("{:g}".format))


def followed(traces: list[refusal.DirectionTrace], direction: refusal.Direction) -> plots.Plot:
    """The cosine to the base's direction while fine-tuning, one line a seed."""
    frame = pd.concat([t.of("cosine").assign(series=f"seed {i}") for i, t in enumerate(traces)])
    return plots.band_over_steps(
        frame,
        name="cosine_over_steps",
        title="Refusal direction before and after fine-tuning",
        axis="cosine to the base's direction",
        caption=f"Layer {direction.layer}, position −{-direction.position}; {direction.n_train[0]} harmful "
        f"and {direction.n_train[1]} harmless prompts, those of the base. "
        "Bars: paired bootstrap 95 %. Band: where other prompts of the base would put it (split halves).",
    )


def effects(traces: list[refusal.DirectionTrace], direction: refusal.Direction) -> plots.Plot:
    """What ablating each direction takes off the tuned model's refusals, first seed."""
    names = {
        "none_metric_harmful": "refusal itself",
        "base_drop": "drop, base direction",
        "own_drop": "drop, own direction",
    }
    frame = pd.concat([traces[0].of(name).assign(series=label) for name, label in names.items()])
    null = traces[0].of("base_drop").set_index("step")[["null", "null_low", "null_high"]]
    frame[["null", "null_low", "null_high"]] = null.loc[frame["step"]].to_numpy()
    return plots.band_over_steps(
        frame,
        name="effects_over_steps",
        title="What the directions still do in the tuned model",
        axis="log-odds of a refusal",
        null="drop, random directions",
        caption="Log-odds of a refusal on harmful validation prompts, and how much of it each ablation takes "
        f"away, n {direction.n_val[0]}, seed 0. Bars and band: bootstrap 95 % over prompts.",
    )


def kl_by_token(shallowness: pd.DataFrame, attack: str) -> plots.Plot:
    """KL between base and tuned along the first answer tokens."""
    frame = shallowness.rename(columns={"token": "step"}).assign(
        series=[f"seed {seed}" for seed in shallowness["seed"]],
        null=float("nan"),
        null_low=float("nan"),
        null_high=float("nan"),
    )
    return plots.band_over_steps(
        frame,
        name="kl_by_token",
        title="How deep the update goes",
        axis="KL(base ‖ tuned), nats",
        across="answer token",
        caption=f"Along {shallowness['n'].max():.0f} answers of {attack}; bars: bootstrap 95 % over answers.",
    )


def words(
    model: Any,
    given: Any,
    direction: refusal.Direction,
    apart: refusal.Separation,
    halves: refusal.DirectionNull,
    harm: refusal.HarmfulnessAndRefusal,
    found: dict[str, refusal.Subspace],
    tests: pd.DataFrame,
    distances: list[pd.DataFrame],
    transfer: pd.DataFrame,
    shallowness: pd.DataFrame,
    attack: str,
) -> str:
    """The verdict."""
    tokens = direction.tokens
    lines = [
        header(model, given) + f" Prompts {direction.n_train[0]} + {direction.n_val[0]} a kind.",
        "",
        f"Direction: layer {direction.layer} of {direction.n_layers}, position {direction.position}; "
        f"{'passes every filter' if direction.passed else direction.flag}.",
        f"Refusal tokens ({tokens.source if tokens else 'none'}): {list(tokens.texts) if tokens else []}.",
        f"Log-odds of a refusal: harmful {direction.baseline_harmful:.2f}, ablated {direction.bypass:.2f}; "
        f"harmless {direction.baseline_harmless:.2f}, added {direction.induce:.2f}; KL {direction.kl:.3f}.",
        f"Held-out AUROC {apart.auroc}; TPR at 1 % FPR {apart.tpr}; d′ {apart.d_prime}.",
        f"Split halves: cosine {halves.estimate}, at full size {halves.full_size:.3f}.",
        f"Harmfulness direction: layer {harm.harmfulness.layer}, position {harm.harmfulness.position}, "
        f"cosine to refusal {harm.apart.cosine:.2f}.",
        "",
    ]
    for name in found:
        rows = tests[tests["subspace"] == name].pivot(index="name", columns="measure", values="value")
        parts = [
            f"{at}: bypass {row.bypass:.1f}, induce {row.induce:.1f}, KL {row.kl:.2f}"
            for at, row in rows.iterrows()
            if at.startswith(("direction", "all"))
        ]
        lines.append(f"{name} ({found[name].k}): " + "; ".join(parts))
    lines += ["", f"After {attack}, mean over {given.seeds} seeds (null of the first):"]
    every = pd.concat(distances)
    for measure, rows in every.groupby("measure", sort=False):
        first = rows.iloc[0]
        lines.append(
            f"  {measure}: {rows['value'].mean():.3f} [{rows['value'].min():.3f}, {rows['value'].max():.3f}] "
            f"over seeds; null {first['null']:.3f} [{first['null_low']:.3f}, {first['null_high']:.3f}] "
            f"({first['null_kind']}){_changed(rows)}"
        )
    drops = transfer[transfer["measure"] == "drop"].groupby(["model", "direction"])["value"].mean()
    lines.append(
        "Causal transfer, drop of log-odds under ablation: "
        + "; ".join(f"{d} direction in {m} {value:.1f}" for (m, d), value in drops.items())
    )
    by_token = shallowness.groupby("token")["value"].mean()
    lines.append(f"KL(base ‖ tuned) by answer token: {', '.join(f'{value:.2f}' for value in by_token)} nats.")
    return "\n".join(lines)


def _changed(rows: pd.DataFrame) -> str:
    """On the same prompts: in how many seeds the model moved the quantity (paired bootstrap)."""
    told = rows["changed"].dropna().astype(bool)
    return f"; changed on the same prompts in {int(told.sum())} of {len(told)} seeds" if len(told) else ""


if __name__ == "__main__":
    command(main)
