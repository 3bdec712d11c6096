"""The command. Thin: it reads options, calls the library, and turns errors into one line.

Nothing heavy is imported before it is needed, so `--help` answers at once.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, no_type_check

import typer
import typer.core

from tamperlens import cli_compare, cli_grid, cli_measures
from tamperlens import cli_grid as opt
from tamperlens.cli_grid import _echo

INPUT_ERROR = 2
INTERRUPTED, TERMINATED = 130, 143


class _Group(typer.core.TyperGroup):
    """Refuses what a shell makes of a variable that is not set; as a path it would be the folder here."""

    @no_type_check
    def parse_args(self, ctx, args):
        if "" in args:
            _say("error: an argument is empty (''); is a variable of the shell not set?")
            raise typer.Exit(INPUT_ERROR)
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="tamperlens",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Where refusal sits in a chat model, what fine-tuning does to it, and what that costs.

    [bold]Examples[/bold]

    tamperlens audit
        the embedded organism, in about a minute: rates, direction, attack, report

    tamperlens audit Qwen/Qwen3-0.6B --out runs/qwen --device cuda
        a model from the hub (or a local folder), on the packaged English prompts

    tamperlens audit ./my-model --harmful mine.csv --column text
        your own prompts; --harmless and --lookalike likewise

    tamperlens audit organism --attack benign --steps 100 --seed 1
        another packaged attack, or --attack pairs.jsonl with prompt and response

    tamperlens audit --out runs/qwen --resume
        go on after an interruption, with the settings of that run

    tamperlens grid run sweep.toml --out runs/sweep
        a sweep; repeat it after any interruption, then grid status|table|plot

    tamperlens compare organism ./tuned --quick
        what a fine-tuning did: base against tuned, with a verdict for each instrument

    tamperlens report runs/qwen runs/sweep
        several runs on one page

    Every audit fills one folder: report.html, measures.csv, completions.csv,
    direction.safetensors, manifest.json, figures/, attack/.""",
)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn tamperlens's own errors into one line on stderr and exit code 2.

    Ctrl-C and SIGTERM leave the run folder alike (status, no temporary files); exit codes 130 and 143.
    """
    options = set(inspect.signature(command).parameters)

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        _quiet()
        try:
            with _terminable():
                command(*args, **kwargs)
        except KeyboardInterrupt as error:
            out = kwargs.get("out")
            where = f" in {out}" if out else ""
            how = "repeat the command with --resume" if "resume" in options else "repeat the command"
            _say(f"interrupted: what is finished is kept{where}; {how} to go on")
            raise typer.Exit(TERMINATED if isinstance(error, _Terminated) else INTERRUPTED) from None
        except Exception as error:
            line = _one_line(error, options)
            if line is None:
                raise
            _say(f"error: {line}")
            raise typer.Exit(INPUT_ERROR) from None

    return run


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the body as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where no signal arrives
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def as_options(text: str, options: set[str]) -> str:
    """An error's words with `name=value` of Python as the command's options, where it has them."""

    def written(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in options:
            return found.group()
        option = f"--{name.replace('_', '-')}"
        return option if value == "True" else f"{option} {value}".rstrip()

    def kept(found: re.Match[str]) -> str:
        names = re.findall(r"\b([a-z_]+)=", found.group())
        return "" if names and not options.intersection(names) else found.group()

    # A remedy in brackets that this command does not have is left out.
    return re.sub(r"\b([a-z_]+)=([^\s;,)]*)", written, re.sub(r" \([a-z_]+=[^()]*\)", kept, text))


def _one_line(error: Exception, options: set[str]) -> str | None:
    """What to tell the user, or None for an error that is ours."""
    from tamperlens.base.errors import TamperlensError

    if isinstance(error, TamperlensError):
        return as_options(" ".join(str(error).split()), options)
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        hint = "try --dtype bfloat16, a smaller model, or another --device"
        return f"out of memory; {hint if 'dtype' in options else 'try a smaller model'}"
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror}; check the disk and the permissions"
    return None


def _say(line: str) -> None:
    from tamperlens.base.cells import visible

    sys.stderr.write(f"{visible(line)}\n")
    sys.stderr.flush()


def _quiet() -> None:
    """No chatter from the libraries below, no telemetry; what a user set by hand stays."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "disabled",
        "DO_NOT_TRACK": "1",
    }.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")
    for name in ("transformers", "peft", "accelerate", "huggingface_hub", "torch", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _show_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tamperlens {version('tamperlens')}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave."),
    ] = False,
) -> None:
    pass


@app.command(
    help="""Measure refusal, find its direction, attack the model with a little fine-tuning, measure again.

    MODEL is [bold]organism[/bold] (embedded), [bold]organism:base[/bold], a local folder or a hub id.
    The model itself is never changed; the tuned adapter stays in the run folder.

    [bold]Examples[/bold]

    tamperlens audit

    tamperlens audit organism --out runs/first --seed 1

    tamperlens audit ./llama-chat --harmful strongreject.csv --column forbidden_prompt --steps 50

    tamperlens audit ./llama-chat --attack my_pairs.jsonl --dtype bfloat16 --device cuda

    tamperlens audit --out runs/first --resume"""
)
@guarded
@no_type_check  # typer hands over a context of its own copy of click, not the class that it asks to be named
def audit(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="organism, organism:base, a folder, or a hub id.")
    ] = "organism",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder. Default: runs/audit-MODEL-ATTACK-seedN."),
    ] = None,
    harmful: opt.Harmful = None,
    harmless: opt.Harmless = None,
    lookalike: opt.Lookalike = None,
    search_harmful: Annotated[
        str | None, typer.Option(help="Harmful requests to look for the direction on, likewise.")
    ] = None,
    search_harmless: Annotated[
        str | None, typer.Option(help="Harmless requests to look for the direction on, likewise.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the prompts, in those of the files that have it.")
    ] = None,
    attack: Annotated[
        str,
        typer.Option(
            help="harmful-compliance, refusal-only, identity-shift, benign, or a file with responses."
        ),
    ] = "harmful-compliance",
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps of the attack; its own by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the attack, the splits and the resampling.")] = 0,
    judge: opt.Judge = "acts",
    limit: Annotated[int, typer.Option(help="Most prompts per set.")] = 200,
    skip_unusable: Annotated[
        bool, typer.Option("--skip-unusable", help="Leave out and count rows that cannot be used.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Answers are cut there.")] = 64,
    adapter: opt.Adapter = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    keep_adapter: Annotated[
        bool | None,
        typer.Option(
            "--keep-adapter/--discard-adapter",
            help="Keep the attacked model's adapter. By default only an organism's is kept.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: 16 prompts a set, 24 tokens an answer.")
    ] = False,
    resume: opt.Resume = False,
    quiet: opt.Quiet = False,
) -> None:
    """Run one audit and print where its report is."""
    options: dict[str, Any] = dict(locals())
    for name in ("context", "out", "keep_adapter", "resume", "quiet"):
        del options[name]
    from tamperlens.models import Decoding
    from tamperlens.models.decoding import WRITTEN
    from tamperlens.studies.audit import audit as run_audit
    from tamperlens.studies.audit import default_folder

    folder = out or default_folder(model, attack, seed)
    if out is None:
        _say(f"run folder: {folder}")
    decoded = set(WRITTEN.values())
    if resume and (folder / "manifest.json").is_file():
        options |= _settings_of(folder, context, {*options, *decoded})

    result = run_audit(
        out=folder,
        decoding=Decoding.among(options),
        keep_adapter=keep_adapter,
        resume=resume,
        progress=not quiet,
        command=shlex.join(["tamperlens", *sys.argv[1:]]),
        **{name: value for name, value in options.items() if name not in decoded},
    )
    lines = f"\n{result.headline}\n\nreport   {result.report}\nmeasures {result.folder / 'measures.csv'}"
    _echo(lines)


@app.command(
    help="""Judge answers that are there already: rates with intervals, one verdict a row with --out.

    FILE holds prompts and responses (jsonl, json, csv, tsv, parquet), one pair a row.

    [bold]Examples[/bold]

    tamperlens judge answers.jsonl

    tamperlens judge answers.csv --column goal --response-column output --judge arditi --out verdicts.csv"""
)
@guarded
@opt.looked_first
@no_type_check
def judge(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Prompts and responses.")],
    judge: opt.Judge = "acts",
    column: Annotated[str | None, typer.Option(help="Column of the prompts.")] = None,
    response_column: Annotated[str | None, typer.Option(help="Column of the responses.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A CSV of the verdicts.")] = None,
) -> None:
    """Print the rates of a file of answers."""
    from tamperlens import prompts, rates
    from tamperlens.base.errors import InputError
    from tamperlens.base.files import write_csv
    from tamperlens.rates.evaluation import OUTCOMES

    if not file.is_file():
        raise InputError(f"{file} is no file; give one with prompts and responses")
    data = prompts.read(file, column, response_column)
    if data.responses is None:
        raise InputError(f"{file} has no responses; name their column by --response-column")
    found = rates.judge_answers(data, data.responses, judge)
    _echo(f"judge {found.judge}, {len(data)} answers")
    for rates_here in (found.overall, *found.by_category):
        shares = ", ".join(f"{name} {getattr(rates_here, name)}" for name in OUTCOMES)
        _echo(f"{rates_here.category}: {shares}")
    if out is not None:
        frame = found.completions.to_frame()
        write_csv(out, frame[["prompt", "response", "label", "refused", "probability", "evidence"]])
        _echo(f"verdicts {out}")


def _settings_of(folder: Path, context: Any, options: set[str]) -> dict[str, Any]:
    """Settings of the run in a folder, for the options that were not given on the command line."""
    from tamperlens.base.runs import RunFolder

    config = RunFolder.read(folder).manifest.get("config", {})
    given = {name for name in options if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    return {name: config[name] for name in options if name in config and name not in given}


for group in (cli_compare, cli_measures, cli_grid):
    group.register(app, guarded)


def main() -> None:
    """Entry point of the `tamperlens` command."""
    app()


if __name__ == "__main__":
    main()
