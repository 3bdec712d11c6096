"""What the drift and degradation analyses have in common: options, prompt sets, scores, files."""

from __future__ import annotations

import argparse
import inspect
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import tamperlens
from tamperlens import errors, finetune, neurons, prompts, refusal, report, stats
from tamperlens.prompts import PromptSet

LEAST_REFUSED = 0.2
"""Share of harmful prompts that a model must refuse for a study of how refusal is lost; our choice."""
LEAST_SCORED = 8
"""Answers of its own that a model must give to have its weights scored on them."""
_STARTED = time.perf_counter()


def command(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user got wrong is one line and exit status 2, not a traceback."""
    try:
        main()
    except errors.TamperlensError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def must_refuse(model: Any, rate: stats.Estimate, asked: str, anyway: bool) -> None:
    """Stop before the long part where a model hardly refuses."""
    if rate.value >= LEAST_REFUSED or anyway:
        return
    raise errors.InputError(
        f"{model.name} refuses {rate} of {asked}, and this study needs a model "
        f"that refuses at least {LEAST_REFUSED:.0%}; give another model, other --harmful prompts, or "
        "safety-tune it first (docs/tasks/tax.md says how); --anyway goes on regardless"
    )


def prompt_file(role: str) -> Callable[[str], Path]:
    """An argparse type: a file that can be read in this role, which is tried before any model is loaded."""

    def path(text: str) -> Path:
        try:
            if role in ("safety", "utility", "attack"):
                answered(text, role)
            else:
                asked(text, role)
        except errors.InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return Path(text)

    return path


def attack_name(text: str) -> str:
    """An argparse type: a packaged attack, or a file of prompts and responses."""
    return text if text in finetune.attacks.names() else str(prompt_file("attack")(text))


def options(text: str | None, name: str) -> argparse.ArgumentParser:
    """Options that every one of these analyses takes."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="organism", help="organism, a folder or a hub id")
    parser.add_argument("--out", type=Path, default=Path("results") / name, help="folder for what is written")
    parser.add_argument("--seeds", type=int, help="runs with different seeds")
    parser.add_argument("--safety", type=prompt_file("safety"), help="harmful prompts with refusals")
    parser.add_argument("--utility", type=prompt_file("utility"), help="prompts with responses")
    parser.add_argument("--harmful", type=prompt_file("harmful"), help="file with harmful prompts to test on")
    parser.add_argument("--n-score", type=int, help="examples that weights are scored on")
    parser.add_argument("--n-test", type=int, help="prompts that refusal is measured on")
    parser.add_argument("--max-new-tokens", type=int, help="answers are cut there")
    parser.add_argument("--anyway", action="store_true", help="go on with a model that hardly refuses")
    budget(parser)
    return parser


# Sizes of the published tables, and sizes that end in minutes on a laptop's processor at .1–.5 B weights.
FULL = {"seeds": 3, "n_score": 128, "n_test": 60, "max_new_tokens": 64}
SMALL = {"seeds": 1, "n_score": 32, "n_test": 24, "max_new_tokens": 24}


def budget(parser: argparse.ArgumentParser) -> None:
    """The type of the weights, and the two options that choose the sizes (their own options override)."""
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quick", action="store_true", help="small sizes: the default on a CPU, real models")
    group.add_argument("--published", action="store_true", help="the published sizes: the default elsewhere")


def sized(
    given: argparse.Namespace,
    model: Any,
    full: dict[str, Any] | None = None,
    small: dict[str, Any] | None = None,
) -> None:
    """Fill in the sizes that were not given, and say so where they are the small ones.

    Args:
        given: the options, which are changed.
        model: whose language and device decide, unless --quick or --published was said.
        full: a script's own sizes beside `FULL`.
        small: likewise beside `SMALL`; what it leaves out is as in `full`.
    """
    wide = {**FULL, **(full or {})}
    slow = model.language != prompts.ORGANISM and model.device.type == "cpu"
    quick = given.quick or (slow and not given.published)
    chosen = {**wide, **SMALL, **(small or {})} if quick else wide
    missing = [name for name in chosen if hasattr(given, name) and getattr(given, name) is None]
    for name in missing:
        setattr(given, name, chosen[name])
    if quick and missing:
        said = ", ".join(f"--{name.replace('_', '-')} {_said(chosen[name])}" for name in missing)
        print(f"Small sizes ({said}); --published takes those of the papers.", flush=True)


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def answered(path: Path | str, role: str = "utility") -> PromptSet:
    """Prompts with responses from a file; for the role "safety" at least half of them must be refusals."""
    data = prompts.read(path, skip_empty=True)
    if data.responses is None:
        raise errors.InputError(f"{path} has prompts and no responses; --{role} needs a column of responses")
    if role == "safety":  # AdvBench's targets, say, comply: scored as safety they would turn the sign
        refused = sum(one.refused for one in refusal.judges.get(None)(data.prompts, data.responses))
        if 2 * refused < len(data):
            raise errors.InputError(
                f"{refused} of the {len(data)} responses in {path} refuse; --safety needs harmful requests "
                "with refusals"
            )
    return data


def asked(path: Path | str, role: str) -> PromptSet:
    """Prompts of a file; of one that says which rows are safe, those of the role's kind."""
    return prompts.read(path).labelled("unsafe" if role == "harmful" else "safe")


def scoring_data(model: Any, given: argparse.Namespace) -> tuple[PromptSet, PromptSet]:
    """(refused harmful requests, answered ordinary ones) to score weights on, none of them test prompts.

    Files where they are given, the organism's training splits, and else the model's own answers to one half
    of the packaged English prompts (rates are measured on the other half): its refusals of harmful ones, its
    answers to harmless ones.
    """
    found = []
    for path, option, role, packaged in (
        (given.safety, "safety", "harmful", "harmful"), (given.utility, "utility", "harmless", "benign")
    ):  # fmt: skip
        if path is not None:
            found.append(answered(path, option).head(given.n_score))
        elif model.language == prompts.ORGANISM:
            data = prompts.pairs_for(model, packaged, option=f"--{option}")
            found.append(data.sample(min(given.n_score, len(data)), seed=0))
        else:
            found.append(own_answers(model, role, given, option))
    print(
        f"Scored on {found[0].name} (n {len(found[0])}) and {found[1].name} (n {len(found[1])}).", flush=True
    )
    return found[0], found[1]


def own_answers(model: Any, role: str, given: argparse.Namespace, option: str) -> PromptSet:
    """What the model answers to packaged English prompts: its refusals of harmful ones, or its answers."""
    asked = prompts.packaged_for(model, role, "train")
    asked = asked.head(min(given.n_score, len(asked)))
    answers = refusal.evaluate(model, asked, max_new_tokens=given.max_new_tokens).completions
    kept = [
        (prompt, answer)
        for prompt, answer, one in zip(answers.prompts, answers.responses, answers.verdicts, strict=True)
        if answer and one.label != "degenerate" and one.refused == (role == "harmful")
    ]
    if len(kept) < LEAST_SCORED:
        raise errors.InputError(
            f"{model.name} gave {len(kept)} usable answers to {len(asked)} packaged {role} prompts, too few "
            f"to score weights on (at least {LEAST_SCORED}); give --{option}, a file of prompts and responses"
        )
    return PromptSet.from_pairs(kept, name=f"{asked.name}, {'refused' if role == 'harmful' else 'answered'} "
                                f"by {model.name}")  # fmt: skip


def fine_tuning(name: str, model: Any, n: int | None = None) -> finetune.Attack:
    """A packaged attack in the model's language, or benign fine-tuning on a file of prompts and responses."""
    if not Path(name).suffix:
        return finetune.attacks.for_model(name, model, n)
    data = answered(name, "attack")
    return finetune.attacks.benign(min(n or len(data), len(data)), data)


def without(data: PromptSet, *others: PromptSet | None) -> PromptSet:
    """The rows whose prompts no other set has."""
    taken = {prompt for other in others if other is not None for prompt in other.prompts}
    kept = [row for row, prompt in enumerate(data.prompts) if prompt not in taken]
    if not kept:
        raise errors.InputError(f"every prompt of {data.name} is used elsewhere too; give another file")
    return data.subset(kept)


def test_prompts(path: Path | None, packaged: str, model: Any, n: int) -> PromptSet:
    """Held-out prompts: a file's, or the packaged set in the model's language."""
    if path is not None:
        return asked(path, packaged).head(n)
    data = prompts.packaged_for(model, packaged, "test")
    return data.sample(min(n, len(data)), seed=0)


def scored(model: Any, options: argparse.Namespace) -> tuple[Any, Any, str]:
    """SNIP scores on refused harmful requests and on ordinary ones, and what they were scored on."""
    safety, utility = scoring_data(model, options)
    words = f"Scored on {safety.name} (n {len(safety)}) and {utility.name} (n {len(utility)})."
    return neurons.snip(model, safety), neurons.snip(model, utility), words


def write(folder: Path, table: pd.DataFrame, verdict: str, plots: list[Any], name: str = "table") -> None:
    """The table as CSV, the verdict as text, the figures as HTML, PNG, SVG and PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    report.write_csv(folder / f"{name}.csv", table)
    verdict = f"{inspect.cleandoc(verdict)}\n\n{used()}"
    (folder / "verdict.txt").write_text(verdict + "\n", encoding="utf-8")
    figures(folder, plots)
    print(verdict, f"\nWritten to {folder}", sep="\n", flush=True)


def used() -> str:
    """Time and memory of this process so far, and the machine."""
    bill = resource.getrusage(resource.RUSAGE_SELF)
    peak = bill.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return (
        f"Took {time.perf_counter() - _STARTED:.0f} s, {bill.ru_utime + bill.ru_stime:.0f} s of processor "
        f"with {torch.get_num_threads()} thread(s), peak memory {peak:.1f} GiB; {where}."
    )


def figures(folder: Path, plots: list[Any]) -> None:
    """Each figure as HTML, PNG, SVG and PDF, and their captions as captions.md."""
    for plot in plots:
        plot.save(folder, pdf=True)
    lines = [
        f"**{plot.name}.** {plot.title}{'' if plot.title.endswith('?') else '.'} {plot.caption}"
        for plot in plots
    ]
    (folder / "captions.md").write_text("\n\n".join(lines) + "\n", encoding="utf-8")


def header(model: Any, options: argparse.Namespace) -> str:
    """One line that says what was run."""
    kind = str(model.module.dtype).removeprefix("torch.")
    made = f"tamperlens {tamperlens.__version__}, {model.name} ({model.fingerprint[:12]}, {model.language})"
    return f"{made}, {kind}, {options.seeds} seed{'s'[: options.seeds != 1]}."
