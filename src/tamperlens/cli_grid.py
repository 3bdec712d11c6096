"""The commands `grid run|status|table|plot` and `report`; put onto the command by `cli`."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, no_type_check

import typer

CELLS_FAILED = 1
"""Exit code of a sweep some of whose cells failed; the others are made."""
Guard = Callable[[Callable[..., None]], Callable[..., None]]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A grid's folder.")]
# Options that several commands have.
Adapter = Annotated[str | None, typer.Option(help="A PEFT adapter to put on the model first.")]
Harmful = Annotated[
    str | None, typer.Option(help="Harmful requests (csv, tsv, json, jsonl, txt); packaged ones by default.")
]
Harmless = Annotated[str | None, typer.Option(help="Harmless requests, likewise.")]
Lookalike = Annotated[str | None, typer.Option(help="Harmless requests that sound harmful, likewise.")]
Judge = Annotated[str, typer.Option(help="acts, calibrated, weighted-1, arditi, qi, xstest, wei.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]

EXAMPLE = """A grid is a TOML file:

    models = \\["organism:tiny", "organism:small", "organism"]
    attacks = \\["harmful-compliance"]
    ranks = \\[8]
    steps = \\[5, 10, 20, 40]
    seeds = \\[0, 1, 2]

Also data_sizes, learning_rates, \\[\\[defences]] (kind = "freeze", "rewind", "mix"), \\[training],
\\[evaluation], dtype, device."""


def _echo(text: object, *, err: bool = False) -> None:
    """Print, with control characters of file and model names shown as code points."""
    from tamperlens.base.cells import visible

    typer.echo(visible(str(text)), err=err)


def looked_first(command: Callable[..., None]) -> Callable[..., None]:
    """Look before a command's work at what is cheap to look at: whether its file (`--page`, or else `--out`)
    can be written, over none of its inputs, and whether its judge exists."""
    name = "page" if "page" in inspect.signature(command).parameters else "out"

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        from tamperlens.base.errors import InputError
        from tamperlens.base.files import check_target

        path = kwargs.get(name)
        if path is not None:
            check_target(path)
            read = [one for key, one in kwargs.items() if key != name and isinstance(one, str | Path)]
            if path.exists() and any(os.path.isfile(one) and path.samefile(one) for one in read):
                raise InputError(f"--{name} {path} is what the command reads; name another file")
        if "judge" in kwargs:
            from tamperlens import judges

            judges.get(kwargs["judge"])
        command(*args, **kwargs)

    return run


def register(app: typer.Typer, guarded: Guard) -> None:
    """Add the commands to the root."""
    grid = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Sweeps of attacks over models.")
    grid.command(
        "run",
        help=f"Make every cell of a grid that is not there yet; exit code 1 if any failed.\n\n{EXAMPLE}",
    )(guarded(_run))
    grid.command("status", help="How far a grid has come, and what failed.")(guarded(_status))
    grid.command("table", help="Write results_grid.csv and print it.")(guarded(_table))
    grid.command("plot", help="Draw RRR, CE and RD over steps and the scaling figure.")(guarded(_plot))
    app.add_typer(grid, name="grid")
    app.command("report", help=_report.__doc__)(guarded(looked_first(_report)))


@no_type_check
def _run(
    declaration: Annotated[Path, typer.Argument(metavar="GRID.toml", help="The declaration.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder. Default: runs/grid-NAME.")] = None,
    ray: Annotated[
        str | None, typer.Option(help="Ray cluster: auto, host:port, ray://host:port, or local.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Workers on Ray; one a CPU by default.")] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of a worker on Ray.")] = 0.0,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed and skipped cells again.")] = False,
    memory: Annotated[
        float | None, typer.Option(help="GB a worker may use; larger cells are skipped.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: the i-th of n parts, for n processes on one folder (Slurm arrays)."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    from tamperlens import grid

    folder = out or Path("runs") / f"grid-{declaration.stem}"
    result = grid.run(
        declaration, folder, ray=ray, workers=workers, gpus=gpus, retry=retry, memory=memory, shard=shard,
        progress=not quiet, command=shlex.join(["tamperlens", *sys.argv[1:]]),
    )  # fmt: skip
    _show(result)
    _echo(f"table {folder / 'results_grid.csv'}")
    if result.counts["failed"]:
        raise typer.Exit(CELLS_FAILED)


@no_type_check
def _status(folder: Folder) -> None:
    from tamperlens import grid

    _show(grid.status(folder))


@no_type_check
def _table(folder: Folder) -> None:
    from tamperlens import grid
    from tamperlens.base.files import write_csv

    table = grid.status(folder).table
    write_csv(folder / "results_grid.csv", table)
    wanted = ("model", "attack", "defence", "rank", "steps", "seed", "rrr", "ce", "rd",
              "over_refusal_harmless",
              "capability", "flops")  # fmt: skip
    names = [name for name in wanted if name in table]
    _echo(table[names].to_string(index=False, float_format=lambda value: f"{value:.3g}"))


@no_type_check
def _plot(
    folder: Folder,
    attack: Annotated[str | None, typer.Option(help="Attack of the scaling figure.")] = None,
) -> None:
    from tamperlens import grid
    from tamperlens.base.errors import InputError

    table = grid.status(folder).table
    fits = None
    try:
        fits = grid.scaling(table, attack)
        _echo(f"{fits.verdict}\n{fits.half.to_string(index=False)}")
    except InputError as error:
        if attack is not None:
            raise
        _echo(f"no scaling figure: {error}")
    for plot in grid.figures(table, fits):
        plot.save(folder / "figures")
        _echo(f"figure {folder / 'figures' / plot.name}.png")


def _show(result: Any) -> None:
    _echo(str(result))
    for line in result.problems:
        _echo(line)


@no_type_check
def _report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders of any kind.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("report.html"),
) -> None:
    """Merge run folders into one self-contained page; two of one kind are also compared."""
    from tamperlens.studies.merging import merge

    _echo(f"report {merge(runs, out, tell=lambda line: _echo(line, err=True))}")
