"""The commands `compare` and `models`; put onto the command by `cli`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, no_type_check

import typer

from tamperlens import cli_grid as opt
from tamperlens.cli_grid import Guard, _echo

HELP = """Say what a fine-tuning did: base against tuned models by every instrument, with a verdict for each.

BASE is what audit takes. TUNED is a folder, a hub id, a GGUF file, or a PEFT adapter of the base (any tuner).
A training folder with checkpoint-N folders is followed over its steps.

[bold]Examples[/bold]

tamperlens compare organism runs/mine/adapter --out runs/compare

tamperlens compare Qwen/Qwen2.5-0.5B-Instruct ./my-tuned-model --quick

tamperlens compare ./base ./run-a ./run-b --harmful mine.csv --json

tamperlens compare ./base ./trl-output --out runs/steps"""


def register(app: typer.Typer, guarded: Guard) -> None:
    """Add the commands to the root."""
    app.command("compare", help=HELP)(guarded(_compare))
    app.command("models", help=_models.__doc__)(guarded(_models))


@no_type_check
def _compare(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model before.")],
    tuned: Annotated[list[str], typer.Argument(metavar="TUNED…", help="The models after.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder. Default: runs/compare-TUNED.")
    ] = None,
    harmful: opt.Harmful = None,
    harmless: opt.Harmless = None,
    lookalike: opt.Lookalike = None,
    column: Annotated[str | None, typer.Option(help="Column of the prompts.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer prompts, the cheap instruments.")] = False,
    judge: opt.Judge = "acts",
    limit: Annotated[int | None, typer.Option(help="Most prompts per set: 64, or 24 with --quick.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Answers are cut there: 64 or 32.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of samples and resamples.")] = 0,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    card: Annotated[
        bool, typer.Option("--card", help="Also write card.md, a block for a model card.")
    ] = False,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Also write the answers as logs that inspect view opens.")
    ] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write the tables as Parquet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
    resume: opt.Resume = False,
    quiet: opt.Quiet = False,
) -> None:
    from tamperlens.models import Decoding
    from tamperlens.studies.compare import compare
    from tamperlens.studies.compare.export import write_exports

    folder = out or Path("runs") / f"compare-{'-'.join(Path(one).name for one in tuned)[:80]}"
    how = None if max_new_tokens is None else Decoding(max_new_tokens)
    found = compare(
        base, *tuned, harmful=harmful, harmless=harmless, lookalike=lookalike, column=column, quick=quick,
        judge=judge, limit=limit, decoding=how, seed=seed, device=device, dtype=dtype,
        out=folder, resume=resume, progress=not quiet, command=shlex.join(["tamperlens", *sys.argv[1:]]),
    )  # fmt: skip
    written = write_exports(found, folder, card=card, inspect=inspect, parquet=parquet)
    if as_json:
        _echo(json.dumps(_plain(found), indent=1))
        return
    _echo(found.summary())
    _echo(f"\npage     {found.page}\nnumbers  {folder / 'measures.csv'}")
    for path in written:
        _echo(f"export   {path}")


def _plain(found: Any) -> list[dict[str, Any]]:
    return [
        {
            "base": one.base, "tuned": one.tuned, "headline": one.headline, "notes": list(one.notes),
            "disagreements": one.disagreements, "verdicts": records(one.verdict_frame()),
        }
        for one in found.items
    ]  # fmt: skip


def records(frame: Any) -> list[dict[str, Any]]:
    """A frame's rows in JSON's terms, numbers to the bit; what is no finite number is null."""
    plain = frame.astype(object)
    found: list[dict[str, Any]] = plain.where(
        plain.notna() & ~plain.isin([math.inf, -math.inf]), None
    ).to_dict("records")
    return found


@no_type_check
def _models(
    folder: Annotated[
        Path | None, typer.Argument(help="Also list the models, adapters and checkpoints in a folder.")
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """Say what is at hand: embedded organisms, planted models, the hub cache, and what lies in a folder.

    [bold]Examples[/bold]

    tamperlens models

    tamperlens models ./runs --json
    """
    from tamperlens.models.listing import at_hand

    table = at_hand(folder)
    if as_json:
        _echo(json.dumps(records(table)))
        return
    _echo(table.to_string(index=False))
