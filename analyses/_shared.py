"""What the drift and degradation analyses have in common: options, prompt sets, scores, files."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

import tamperlens
from tamperlens import errors, finetune, neurons, prompts, refusal
from tamperlens.prompts import PromptSet


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
    parser.add_argument("--seeds", type=int, default=3, help="runs with different seeds")
    parser.add_argument("--safety", type=prompt_file("safety"), help="harmful prompts with refusals")
    parser.add_argument("--utility", type=prompt_file("utility"), help="prompts with responses")
    parser.add_argument("--harmful", type=prompt_file("harmful"), help="file with harmful prompts to test on")
    parser.add_argument("--n-score", type=int, default=128, help="examples that weights are scored on")
    parser.add_argument("--n-test", type=int, default=60, help="prompts that refusal is measured on")
    return parser


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


def pairs(model: Any, path: Path | None, packaged: str, n: int) -> PromptSet:
    """Prompts with responses from a file, or the organism's training split; refused for other models."""
    if path is not None:
        return answered(path, "safety" if packaged == "harmful" else "utility").head(n)
    option = {"harmful": "--safety", "benign": "--utility"}[packaged]
    data = prompts.pairs_for(model, packaged, option=option)
    return data.sample(min(n, len(data)), seed=0)


def fine_tuning(name: str) -> finetune.Attack:
    """A packaged attack by name, or benign fine-tuning on a file with columns prompt and response."""
    if not Path(name).suffix:
        return finetune.attacks.get(name)()
    data = answered(name, "attack")
    return finetune.attacks.benign(len(data), data)


def test_prompts(path: Path | None, packaged: str, model: Any, n: int) -> PromptSet:
    """Held-out prompts: a file's, or the packaged set in the model's language."""
    if path is not None:
        return asked(path, packaged).head(n)
    data = prompts.packaged_for(model, packaged, "test")
    return data.sample(min(n, len(data)), seed=0)


def scored(model: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """SNIP scores on refused harmful requests and on ordinary instructions."""
    safety = neurons.snip(model, pairs(model, options.safety, "harmful", options.n_score))
    return safety, neurons.snip(model, pairs(model, options.utility, "benign", options.n_score))


def write(folder: Path, table: pd.DataFrame, verdict: str, plots: list[Any], name: str = "table") -> None:
    """The table as CSV, the verdict as text, the figures as HTML, PNG, SVG and PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", index=False)
    (folder / "verdict.txt").write_text(inspect.cleandoc(verdict) + "\n", encoding="utf-8")
    figures(folder, plots)
    print(inspect.cleandoc(verdict), f"\nWritten to {folder}", sep="\n", flush=True)


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
    made = f"tamperlens {tamperlens.__version__}, {model.name} ({model.fingerprint[:12]}, {model.language})"
    return f"{made}, {options.seeds} seeds."
