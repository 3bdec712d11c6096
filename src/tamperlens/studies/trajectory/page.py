"""The page with the step slider: one file, no network; model text goes in as data and is shown as text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tamperlens.base.files import PathLike, write_text
from tamperlens.report.page import json_in_page, script_digest, visible
from tamperlens.studies.trajectory.figures import curve_of, panels_of
from tamperlens.studies.trajectory.ordering import Order

SHOWN = ("step", "value", "low", "high", "null_low", "null_high")
MARK = ("step", "low", "high")


def write(path: PathLike, found: Any, order: Order) -> Path:
    """Write the page atomically.

    Args:
        path: the file.
        found: a `Trajectory`.
        order: its half-change steps and statement.
    """
    return write_text(path, render(found, order))


def render(found: Any, order: Order) -> str:
    """The page as HTML.

    Its content security policy allows the one script of ours, by hash, and nothing from outside. Data are
    JSON inside the page with every `<` escaped, and the script sets text, never markup.
    """
    environment = Environment(
        loader=PackageLoader("tamperlens.studies.trajectory", "templates"), autoescape=True,
        undefined=StrictUndefined, finalize=visible,
    )  # fmt: skip
    script, sheet = _file("slider.js"), _file("slider.css")
    template = environment.get_template("slider.html.j2")
    return template.render(
        title=f"{found.model} under {found.attack}", statement=order.summary(), rule=order.rule,
        steps=sorted({int(step) for step in found.layers["step"]} | {int(s) for s in _steps(found)}),
        script=_markup(script), sheet=_markup(sheet), digest=script_digest(script),
        data=json_in_page(data_of(found, order)),
        seeds=len(found.seeds), layer=found.layer, position=found.position,
    )  # fmt: skip


def data_of(found: Any, order: Order) -> dict[str, Any]:
    """What the script draws: curves, head scores, layers and answers by seed and step."""
    half = order.half().set_index("measure")
    curves = []
    for name in panels_of(found):
        curve = curve_of(found, name)
        mark = [float(half[key].to_dict()[name]) for key in MARK] if name in half.index else None
        columns = {key: curve[key].tolist() for key in SHOWN}
        rows = found.of(name)
        told = [_told(rows[rows["step"] == step]) for step in curve["step"]]
        curves.append({"measure": name, "half": mark, "changed": told, **columns})
    by_step: dict[str, dict[str, Any]] = {}
    for seed in found.seeds:
        for step in _steps(found):
            by_step[f"{seed}/{step}"] = {
                "heads": _heads(found, seed, step),
                "layers": _pick(found.layers, seed, step)["cosine"].tolist(),
                "answers": [
                    {key: str(visible(row[key])) for key in ("prompt", "answer", "label")}
                    for row in _pick(found.examples, seed, step).to_dict("records")
                ],
            }
    return {
        "curves": curves, "seeds": found.seeds, "steps": _steps(found), "at": by_step, "layer": found.layer
    }  # fmt: skip


def _told(rows: Any) -> str:
    """Whether a measure has changed on the same prompts at one step, over the seeds, in words; "" unknown."""
    known = [bool(one) for one in rows.get("changed", []) if one is not None and one == one]
    if not known:
        return ""
    if len(known) == 1:
        return "changed" if known[0] else "not shown to have changed"
    return f"changed in {sum(known)} of {len(known)} seeds"


def _steps(found: Any) -> list[int]:
    rows = found.table[found.table["measure"] != "training loss"]
    return sorted(int(step) for step in rows["step"].unique())


def _pick(frame: Any, seed: int, step: int) -> Any:
    return frame[(frame["seed"] == seed) & (frame["step"] == step)]


def _heads(found: Any, seed: int, step: int) -> list[list[float]]:
    rows = _pick(found.heads, seed, step)
    if rows.empty:
        return []
    wide = rows.pivot(index="layer", columns="head", values="score")
    return [[float(value) for value in row] for row in wide.to_numpy()]


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # our own files and JSON without "<"


@lru_cache
def _file(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
