"""How every noun shows itself: one line as `repr`, the finding in words, a small table in a notebook."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from tamperlens.base.lazy import pd

LONGEST = 160
_ROWS, _COLUMNS = 12, 8


@runtime_checkable
class Interval(Protocol):
    """Anything with a value and an interval, such as `stats.Estimate`."""

    value: float
    low: float
    high: float
    n: int


class Noun:
    """Mixin of dataclasses: a short `repr`, `summary` and `_repr_html_`."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        # Set on the class itself, or @dataclass would write its own, which prints every field in full.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """One line: the class and its fields, long ones by their size."""
        shown = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            words = short(getattr(self, field.name))
            if field.repr and words:
                shown.append(f"{field.name}={words}")
        return clip(f"{type(self).__name__}({', '.join(shown)})")

    def summary(self) -> str:
        """The finding in words."""
        found = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, name = getattr(self, field.name), field.name.replace("_", " ")
            if isinstance(value, Noun) and isinstance(value, Interval):
                found.append(f"{name} {value}")
            elif isinstance(value, (str, int, float)) and value != "" and len(str(value)) <= 80:
                found.append(f"{name} {number(value) if isinstance(value, float) else value}")
        return f"{_words(type(self).__name__)}: {'; '.join(found) or repr(self)}."

    def check_model(self, model: Any) -> None:
        """Raise InputError if this was made of a model and cannot belong to `model`, a ChatModel."""

    def _repr_html_(self) -> str:
        """For notebooks: the summary and a table, intervals drawn as bars."""
        return page_of(self)


def clip(line: str, longest: int = LONGEST) -> str:
    """One line of at most so many characters."""
    line = " ".join(line.split())
    return line if len(line) <= longest else f"{line[: longest - 2]}…{line[-1]}"


def number(value: float) -> str:
    """A float to three digits."""
    return "undefined" if math.isnan(value) else f"{value:.3g}"


def short(value: object) -> str:
    """A value in a few characters; "" for what says nothing."""
    if isinstance(value, bool) or value is None:
        return str(value) if value is not None else ""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**12 else f"{value:.3e}" if abs(value) < 10**300 else "huge"
    if isinstance(value, str):
        return repr(value if len(value) <= 28 else f"{value[:12]}…") if value else ""
    if isinstance(value, torch.Tensor):
        return f"tensor{list(value.shape)}"
    if isinstance(value, pd.DataFrame):
        return f"{len(value)} × {value.shape[1]} table"
    if isinstance(value, Interval):
        return str(value)
    if isinstance(value, (Mapping, Sequence, set, frozenset)):
        if isinstance(value, tuple) and len(value) <= 4 and all(isinstance(v, (int, float)) for v in value):
            return f"({', '.join(short(v) for v in value)})"
        return f"<{len(value)}>"
    if isinstance(value, (Path, torch.dtype, torch.device)):
        return clip(str(value), 40)
    return f"{type(value).__name__}(…)"


def _words(name: str) -> str:
    """RefusalRates → Refusal rates."""
    spaced = "".join(f" {c.lower()}" if c.isupper() and i else c for i, c in enumerate(name))
    return spaced[:1].upper() + spaced[1:]


# ---- notebooks ------------------------------------------------------------------------------------------


def page_of(noun: Noun) -> str:
    """The summary and a table of at most a dozen rows as HTML; text is escaped."""
    summary = noun.summary().replace("\n", "\n ")
    head = f"<p style='white-space:pre-wrap;max-width:60em'>{html.escape(summary)}</p>"
    to_frame = getattr(noun, "to_frame", None)
    frame = to_frame() if to_frame is not None else pd.DataFrame()
    if len(frame) == 1:
        rows = [(str(name), *cells) for name, cells in _cells(frame)[0].items()]
        return head + _table(("", "", ""), rows, 0)
    if frame.empty:
        return head
    made = _cells(frame.head(_ROWS))
    names = list(made[0])[:_COLUMNS]
    spread = [name for name in names if any(row[name][1] for row in made)]
    titles = [title for name in names for title in ((name, "") if name in spread else (name,))]
    body = [
        [cell for name in names for cell in (row[name] if name in spread else row[name][:1])] for row in made
    ]
    return head + _table(titles, body, len(frame) - len(body))


def _cells(frame: pd.DataFrame) -> list[dict[str, tuple[str, str]]]:
    """Per row: column to (text, bar); a number and its two bounds are one column."""
    bounds = {}
    for name in map(str, frame.columns):
        low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
        if low in frame.columns and high in frame.columns:
            bounds[name] = (low, high)
    hidden = {bound for pair in bounds.values() for bound in pair}
    scales = {name: _scale(frame, name, *pair) for name, pair in bounds.items()}
    made = []
    for record in frame.to_dict("records"):
        row = {}
        for key, value in record.items():
            name = str(key)
            if name in hidden:
                continue
            if name in bounds:
                left, right = (float(record[bound]) for bound in bounds[name])
                reach = "" if math.isnan(left) else f" [{number(left)}, {number(right)}]"
                row[name] = (number(float(value)) + reach, _bar(float(value), left, right, *scales[name]))
            else:
                text = number(value) if isinstance(value, float) else clip(str(value), 60)
                row[name] = (html.escape(text), "")
        made.append(row)
    return made


def _scale(frame: pd.DataFrame, *names: str) -> tuple[float, float]:
    values = pd.concat([pd.to_numeric(frame[name], errors="coerce") for name in names])
    values = values[(values.abs() < math.inf)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if high > low else (low - 1, high + 1)


def _bar(value: float, low: float, high: float, left: float, right: float) -> str:
    """An interval as a line with a dot, on a scale shared by the column."""
    if not math.isfinite(value):
        return ""

    def place(x: float) -> float:
        return 4 + 112 * (min(max(x, left), right) - left) / (right - left)

    ends = (place(low), place(high)) if not math.isnan(low) and not math.isnan(high) else (place(value),) * 2
    zero = (
        f"<line x1='{place(0):.1f}' x2='{place(0):.1f}' y1='1' y2='15' stroke='#bbb'/>"
        if left < 0 < right
        else ""
    )
    return (
        "<svg width='120' height='16' role='img' aria-hidden='true'><line x1='4' x2='116' y1='8' y2='8' "
        f"stroke='#ddd'/>{zero}<line x1='{ends[0]:.1f}' x2='{ends[1]:.1f}' y1='8' y2='8' stroke='#0072b2' "
        f"stroke-width='3'/><circle cx='{place(value):.1f}' cy='8' r='3.5' fill='#0072b2'/></svg>"
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], more: int) -> str:
    """Cells are HTML already; titles are text."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles) if any(titles) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    rest = f"<p>… {more} more rows; see .to_frame()</p>" if more > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"
