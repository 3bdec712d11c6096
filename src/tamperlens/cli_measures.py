"""A command for every measure; each calls one function of the library and prints what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, no_type_check

import typer

from tamperlens import cli_grid as opt
from tamperlens.cli_compare import records
from tamperlens.cli_grid import Guard, _echo

Model = Annotated[str, typer.Argument(metavar="MODEL", help="organism, a folder, a hub id or a GGUF file.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Also save the result in this file.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer prompts and places.")]


def register(app: typer.Typer, guarded: Guard) -> None:
    """Add the commands to the root."""
    commands: Sequence[tuple[str, Callable[..., None]]] = (
        ("rates", _rates), ("direction", _direction), ("heads", _heads), ("neurons", _neurons),
        ("drift", _drift), ("trajectory", _trajectory), ("monitor", _monitor), ("compute", _compute),
        ("screen", _screen),
    )  # fmt: skip
    for name, command in commands:
        app.command(name, help=command.__doc__)(guarded(opt.looked_first(command)))


@no_type_check
def _rates(
    model: Model = "organism",
    harmful: opt.Harmful = None,
    harmless: opt.Harmless = None,
    judge: opt.Judge = "acts",
    adapter: opt.Adapter = None,
    out: Out = None,
    quick: Quick = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """Share of harmful, harmless and look-alike requests refused, with intervals.

    [bold]Example[/bold]

    tamperlens rates organism --quick --json
    """
    from tamperlens.base.measurement import Measurement, table
    from tamperlens.models import Decoding
    from tamperlens.studies.evaluation import EvalPrompts, measure

    ready = _load(model, adapter, device, dtype)
    asked = EvalPrompts.for_model(
        ready, harmful=_read(harmful), harmless=_read(harmless), judge=judge, limit=24 if quick else 200,
        questions=8 if quick else 64, decoding=Decoding(32 if quick else 64), loss=False,
    )  # fmt: skip
    found = measure(ready, asked)
    rows = [Measurement.of(name, found.set_of(name), "", found.estimate(name)) for name in found.measures]
    _give(found, table(rows), out, as_json)


def _searched(ready: Any, bad: Any, good: Any, quick: bool) -> Any:
    from tamperlens import refusal
    from tamperlens.base.errors import InputError

    n_train, n_val = refusal.split_sizes(len(set(bad.prompts)), len(set(good.prompts)))
    if n_train < 1:
        raise InputError("a direction is found on some prompts and chosen on others: give two of each kind")
    most = (32, 8) if quick else (128, 32)
    return refusal.find_direction(
        ready, bad, good, n_train=min(n_train, most[0]), n_val=min(n_val, most[1]),
        positions=[-1] if quick else None,
    )  # fmt: skip


@no_type_check
def _direction(
    model: Model = "organism",
    harmful: opt.Harmful = None,
    harmless: opt.Harmless = None,
    adapter: opt.Adapter = None,
    out: Out = None,
    quick: Quick = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """Find the refusal direction and say where it sits and what it does; --out keeps it (safetensors).

    [bold]Example[/bold]

    tamperlens direction organism --quick --out direction.safetensors
    """
    ready = _load(model, adapter, device, dtype)
    bad, good = _sides(ready, harmful, harmless)
    found = _searched(ready, bad, good, quick)
    _give(found, found.to_frame(), out, as_json)


@no_type_check
def _heads(
    model: Model = "organism",
    harmful: opt.Harmful = None,
    method: Annotated[str, typer.Option(help="gradient, direct, integrated, ablate, ships, …")] = "gradient",
    direction: Annotated[
        Path | None, typer.Option(help="What `tamperlens direction --out` kept; found anew by default.")
    ] = None,
    adapter: opt.Adapter = None,
    out: Out = None,
    quick: Quick = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """Score every attention head for the refusal direction.

    [bold]Example[/bold]

    tamperlens heads organism --quick
    """
    from tamperlens import heads, refusal

    ready = _load(model, adapter, device, dtype)
    bad, good = _sides(ready, harmful, None)
    where = _searched(ready, bad, good, quick) if direction is None else refusal.Direction.load(direction)
    found = heads.attribute(ready, bad.head(8 if quick else 32), direction=where, method=method)
    table = found.to_frame().sort_values("rank")
    _give(found, table.head(10) if quick and not as_json else table, out, as_json)


@no_type_check
def _neurons(
    model: Model = "organism",
    data: Annotated[
        str | None, typer.Option(help="Prompts with responses (a file); by default the model's own answers.")
    ] = None,
    fraction: Annotated[float, typer.Option(help="Share of weights in the set.")] = 0.01,
    adapter: opt.Adapter = None,
    out: Out = None,
    quick: Quick = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """Weights that answers to harmful requests rest on most (SNIP), by matrix; --out keeps the set.

    [bold]Example[/bold]

    tamperlens neurons organism --quick --out safety.safetensors
    """
    from tamperlens import neurons, prompts

    ready = _load(model, adapter, device, dtype)
    rows = _read(data)
    if rows is None:
        asked = _sides(ready, None, None)[0].head(16 if quick else 64)
        said = ready.generate(list(asked.prompts), max_new_tokens=32)
        pairs = [pair for pair in zip(map(str, asked.prompts), said, strict=True) if pair[1].strip()]
        rows = prompts.PromptSet.from_pairs(pairs, name="harmful, own answers")
    mask = neurons.snip(ready, rows).top(fraction)
    _give(mask, mask.to_frame(), out, as_json)


@no_type_check
def _drift(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model before.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The model or adapter after.")],
    out: Out = None,
    quick: Quick = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """How far every matrix moved, and the rank spectrum of its change; --quick sums over modules.

    [bold]Example[/bold]

    tamperlens drift organism runs/mine/adapter --json
    """
    from tamperlens.base.errors import InputError
    from tamperlens.studies.compare.weights import drift
    from tamperlens.studies.opening import open_base, pair_with

    ready = open_base(base, device=device, dtype=dtype)
    pair = pair_with(ready, tuned, device=device, dtype=dtype)
    if pair.no_inside:
        raise InputError(f"{pair.no_inside}; drift needs equal shapes")
    found = drift(pair)
    table = found.tables["drift"]
    if quick:
        table = table.groupby("module", sort=False)[["relative_l2", "effective_rank"]].mean().reset_index()
    _give(found, table, out, as_json)


@no_type_check
def _trajectory(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model before.")],
    runs: Annotated[
        list[str], typer.Argument(metavar="FOLDER…", help="Training folders, or checkpoints of one run.")
    ],
    harmful: opt.Harmful = None,
    harmless: opt.Harmless = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the trajectory.")] = None,
    page: Annotated[Path | None, typer.Option(help="Also write the page with the step slider.")] = None,
    quick: Quick = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """What changed first, over the checkpoints that a training left (Trainer, TRL), adapters or whole models.

    [bold]Example[/bold]

    tamperlens trajectory organism ./trl-output --out runs/steps --page steps.html
    """
    from tamperlens import Decoding, trajectory

    ready = _load(base, None, device, dtype)
    found = trajectory.over(
        ready, runs, out=out, harmful=_read(harmful), harmless=_read(harmless), limit=8 if quick else 16,
        decoding=Decoding(16 if quick else 24),
    )  # fmt: skip
    order = trajectory.order(found)
    if page is not None:
        trajectory.write_page(page, found, order)
    _give(order, found.table if as_json else order.half(), None, as_json)


@no_type_check
def _monitor(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A Monitor's or trajectory's folder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the page.")] = None,
    quick: Quick = False,
    as_json: opt.Json = False,
) -> None:
    """What a Monitor has recorded so far, during the training or after; --quick: the newest step alone.

    [bold]Example[/bold]

    tamperlens monitor runs/mine --quick
    """
    from tamperlens import trajectory

    found = trajectory.read(folder)
    table = found.table
    if quick:
        table = table[table["step"] == table["step"].max()]
    if out is not None:
        trajectory.write_page(out, found)
    if as_json:
        _echo(json.dumps(records(table)))
        return
    shown = table[["seed", "step", "measure", "value", "low", "high", "null_low", "null_high"]]
    _echo(shown.to_string(index=False, float_format=lambda value: f"{value:.3g}"))


@no_type_check
def _screen(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Prompts with responses: a file, a folder, a hub id.")
    ],
    model: Annotated[str, typer.Option("--model", help="The model that is to be fine-tuned.")] = "organism",
    by: Annotated[
        str,
        typer.Option(help="push, gradient, 'first token', representation, projection or content: it ranks."),
    ] = "push",
    also: Annotated[list[str] | None, typer.Option(help="Compute this score too; repeatable.")] = None,
    harmful: Annotated[
        str | None, typer.Option(help="Harmful prompts with compliant responses to hold rows against.")
    ] = None,
    direction: Annotated[
        Path | None, typer.Option(help="For 'projection': what `tamperlens direction --out` kept.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut rows to so many tokens.")] = None,
    top: Annotated[int, typer.Option(help="Rows to print, those closest to harm first.")] = 10,
    adapter: opt.Adapter = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Every row's scores as CSV.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Gradients of the upper half of the blocks.")
    ] = False,
    as_json: opt.Json = False,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
) -> None:
    """Before training: which rows of a data set stand out as harmful, and what the set would cost.

    [bold]Example[/bold]

    tamperlens screen data.jsonl --model organism --out scores.csv
    """
    from tamperlens import screening
    from tamperlens.base.files import write_csv

    ready = _load(model, adapter, device, dtype)
    anchors = None if harmful is None else screening.anchors_for(ready, _read(harmful))
    layers = range(ready.anatomy.n_layers // 2, ready.anatomy.n_layers) if quick else None
    found = screening.screen(
        data, ready, by=by, scores=["content", *(also or ())], anchors=anchors, direction=direction,
        layers=layers, max_length=max_length, progress=not as_json,
    )  # fmt: skip
    if out is not None:
        write_csv(out, found.table)
    shown = found.table.iloc[found.top(top)].dropna(axis=1, how="all")
    _give(found, found.table if as_json else shown, None, as_json)
    if out is not None and not as_json:
        _echo(f"saved {out}")


@no_type_check
def _compute(
    flops: Annotated[
        float | None, typer.Argument(metavar="[FLOPS]", help="Of the training; or give --run.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="A run folder that says what its training took.")] = None,
    parameters: Annotated[float | None, typer.Option(help="Parameters of the original model.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens that the original was trained on.")] = None,
    out: Out = None,
    quick: Quick = False,
    as_json: opt.Json = False,
) -> None:
    """Training compute beside 10²³ and 10²⁵ FLOPs and a third of the original's, with sources.

    [bold]Example[/bold]

    tamperlens compute 3e15 --parameters 0.5e9 --tokens 5.5e12
    """
    from tamperlens.base.errors import InputError
    from tamperlens.base.runs import RunFolder
    from tamperlens.finetune import thresholds

    if (flops is None) == (run is None):
        raise InputError("give the FLOPs of the training, or --run FOLDER; one of the two")
    if run is not None:
        flops = RunFolder.read(run).manifest.get("training_flops")
        if flops is None:
            raise InputError(f"{run} says nothing of training compute; give the FLOPs")
    found = thresholds(flops, original_parameters=parameters, original_tokens=tokens)
    table = found.to_frame()
    _give(found, table.drop(columns="source") if quick else table, out, as_json)


def _load(model: str, adapter: str | None, device: str, dtype: str) -> Any:
    from tamperlens.models import load

    return load(model, adapter=adapter, device=device, dtype=dtype)


def _read(file: str | None) -> Any:
    from tamperlens import prompts

    return None if file is None else prompts.read(file)


def _sides(model: Any, harmful: str | None, harmless: str | None) -> tuple[Any, Any]:
    """Prompts that directions and sets are found on: the user's, or packaged training prompts."""
    from tamperlens.prompts import packaged_for

    given = {"harmful": _read(harmful), "harmless": _read(harmless)}
    bad, good = (packaged_for(model, role, "train") if one is None else one for role, one in given.items())
    return bad, good


def _give(found: Any, table: Any, out: Path | None, as_json: bool) -> None:
    """Print a result in words and as a table, or as JSON; keep it where that was asked for."""
    if out is not None:
        found.save(out)
    if as_json:
        _echo(json.dumps({"summary": found.summary(), "rows": records(table)}))
        return
    _echo(found.summary())
    _echo(table.to_string(index=False, float_format=lambda value: f"{value:.3g}"))
    if out is not None:
        _echo(f"saved {out}")
