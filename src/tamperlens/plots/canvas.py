"""One drawing in two forms: what is put on a canvas is drawn by matplotlib and by plotly alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from plotly.subplots import make_subplots

from tamperlens.plots.plot import Plot
from tamperlens.plots.style import (
    DIVERGING,
    GREY,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    PLOTLY_MARKERS,
    RISING,
    WIDTH_INCHES,
    layout,
    settle,
    short,
    style,
    whiskers,
)

DASHES = (0, (4, 2))
_LIGHT, _DARK = "#fefefe", "#111111"  # on cells, whatever the colours of the page
_SYMBOLS = dict(zip(MARKERS, PLOTLY_MARKERS, strict=True))


class Canvas:
    """Panels, still and interactive; the house style holds inside the `with`.

    Args:
        height: of the still figure, inches.
        pixels: height of the interactive one.
        x: label of the horizontal axes, one for all or one each.
        y: label of the first vertical axis, or one each.
        panels: their titles; one without a title by default.
        ratios: widths of the panels; equal, with one vertical scale, by default.
        grid: which lines the still figure has: "x", "y", "both" or none ("").
        stacked: panels below each other, with one horizontal axis; titles are in the interactive figure only,
            labels of vertical axes in the still one only.

    Attributes:
        still: matplotlib's figure.
        axes: its panels.
        figure: plotly's figure.
    """

    def __init__(
        self,
        height: float,
        pixels: int,
        *,
        x: str | Sequence[str] = "",
        y: str | Sequence[str] = "",
        panels: Sequence[str] = ("",),
        ratios: Sequence[float] = (),
        grid: str = "y",
        stacked: bool = False,
    ) -> None:
        """See the class."""
        self._labels, self._titles, self._ratios, self._grid = (x, y), list(panels), list(ratios), grid
        self._height, self._pixels, self._stacked = height, pixels, stacked
        self._named: set[str] = set()
        self._style = style()

    def __enter__(self) -> Canvas:
        self._style.__enter__()
        n, ratios, stacked = len(self._titles), self._ratios, self._stacked
        self.still = Figure(figsize=(WIDTH_INCHES, self._height), layout="constrained")
        grid = self.still.subplots(
            *((n, 1) if stacked else (1, n)), sharex=stacked, sharey=not (ratios or stacked), squeeze=False,
            width_ratios=ratios or None,
        )  # fmt: skip
        self.axes: list[Any] = list(grid.flat)
        titles = [short(title, 40) for title in self._titles]
        self.figure: go.Figure = make_subplots(
            *((n, 1) if stacked else (1, n)), subplot_titles=titles if any(titles) else None,
            shared_xaxes=stacked, shared_yaxes=not (ratios or stacked), column_widths=ratios or None,
            vertical_spacing=0.02 if stacked else None,
        )  # fmt: skip
        self.figure.update_layout(layout(height=self._pixels))
        style_of = self.figure.layout.xaxis.to_plotly_json()
        for name in ("gridcolor", "linecolor", "zeroline", "automargin", "ticks"):  # of further panels too
            self.figure.update_xaxes({name: style_of[name]})
            self.figure.update_yaxes({name: style_of[name]})
        x, y = self._labels
        across = ([""] * (n - 1) + [x] if stacked else [x] * n) if isinstance(x, str) else x
        up = [y, *[""] * (n - 1)] if isinstance(y, str) else y
        for i, axes in enumerate(self.axes):
            axes.set(xlabel=across[i], ylabel=up[i], title="" if stacked else short(self._titles[i], 30))
            if self._grid:
                axes.grid(axis=self._grid)
            self.figure.update_xaxes(title={"text": short(across[i], 90)}, **self._at(i))
            self.figure.update_yaxes(title={"text": "" if stacked else short(up[i], 90)}, **self._at(i))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._named:
                    self.still.legend(loc="outside upper left", ncols=2 if len(self._named) < 5 else 3)
                settle(self.still)
        finally:
            self._style.__exit__(kind, error, trace)

    def _at(self, panel: int) -> dict[str, int]:
        """Plotly's name of a panel."""
        return {"row": panel + 1, "col": 1} if self._stacked else {"row": 1, "col": panel + 1}

    def line(
        self,
        x: Any,
        y: Any,
        label: str = "",
        colour: str = INK,
        *,
        reach: np.ndarray | None = None,
        across: np.ndarray | None = None,
        marker: str = "",
        size: float = 4.5,
        filled: bool = True,
        join: bool = True,
        dash: bool = False,
        width: float = 1.3,
        alpha: float = 1.0,
        shift: float = 0.0,
        panel: int = 0,
        **interactive: Any,
    ) -> None:
        """Points, joined or not, with whiskers.

        Args:
            x: places, [n].
            y: values, [n].
            label: in the legend, where it stands once; "" for none.
            colour: of all of it.
            reach: vertical whiskers below and above, [2, n] (`style.reach`).
            across: horizontal ones.
            marker: one of `MARKERS`, or "".
            size: of the marker, points.
            filled: whether the marker is.
            join: draw lines between the points.
            dash: as dashes.
            width: of the line.
            alpha: how opaque the line is.
            shift: to the right in the still figure, so that no whisker hides another's.
            panel: which one.
            interactive: further settings of plotly's trace, such as what it shows on hover.
        """
        name = short(label)
        fresh = bool(name) and name not in self._named
        self._named |= {name} if name else set()
        self.axes[panel].errorbar(
            x + shift if shift else x, y, yerr=reach, xerr=across, color=colour, marker=marker, ms=size,
            mfc=colour if filled else "none", mec=PAPER if filled else colour, mew=0.5 if filled else 1.0,
            ls="" if not join else DASHES if dash else "-", lw=width, elinewidth=1.2, alpha=alpha,
            label=name if fresh else None,
        )  # fmt: skip
        ends = {"error_y": reach, "error_x": across}
        bars = {name: whiskers(end) for name, end in ends.items() if end is not None}
        symbol = _SYMBOLS.get(marker, "circle") + ("" if filled else "-open")
        trace = go.Scatter(
            x=x, y=y, name=name or None, legendgroup=name or None, showlegend=fresh, opacity=alpha,
            mode="+".join(["lines"] * join + ["markers"] * bool(marker)),
            line={"color": colour, "dash": "dash" if dash else "solid", "width": 1.5 * width},
            marker={"symbol": symbol, "size": 2 * size, "color": colour}, **bars, **interactive,
        )  # fmt: skip
        self.figure.add_trace(trace, **self._at(panel))

    def band(
        self,
        x: Any,
        low: Any,
        high: Any,
        label: str = "",
        colour: str = GREY,
        *,
        middle: Any = None,
        alpha: float = 0.25,
        panel: int = 0,
    ) -> None:
        """The area between two lines, with a dashed one in its middle where that is given."""
        self._named |= {label} if label else set()
        self.axes[panel].fill_between(x, low, high, color=colour, alpha=alpha, lw=0, label=label or None)
        fill = f"rgba{(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)), alpha)}"
        shared = {"x": x, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
        area = {"fill": "tonexty", "fillcolor": fill, "name": label, "showlegend": bool(label)}
        for y, look in ((high, {"showlegend": False}), (low, area)):
            self.figure.add_trace(go.Scatter(y=y, **shared, **look), **self._at(panel))
        if middle is not None:
            self.line(x, middle, "", colour, dash=True, width=1.2, panel=panel)

    def rule(
        self, axis: Literal["x", "y"], at: float, note: str = "", *, colour: str = GREY, panel: int = 0
    ) -> None:
        """A dashed line across a panel at a place on an axis, with a word beside it."""
        vertical = axis == "x"
        draw = self.axes[panel].axvline if vertical else self.axes[panel].axhline
        draw(at, color=colour, lw=0.9, ls=DASHES)
        if note:
            self.axes[panel].annotate(
                note, (at, 0.0), xycoords=("data", "axes fraction"), xytext=(3, 3),
                textcoords="offset points", fontsize=7.5, color=MUTED, va="bottom",
            )  # fmt: skip
        add = self.figure.add_vline if vertical else self.figure.add_hline
        add(
            at,
            line={"color": colour, "dash": "dash", "width": 1},
            annotation_text=note or None,
            **self._at(panel),
        )

    def scale(
        self,
        axis: Literal["x", "y"],
        *,
        span: tuple[float, float] | None = None,
        log: bool = False,
        percent: bool = False,
        whole: bool = False,
        zero: bool = False,
        ticks: tuple[Sequence[float], Sequence[str]] | None = None,
        panel: int | None = None,
    ) -> None:
        """What an axis shows.

        Args:
            axis: which one.
            span: its ends; the second may be the smaller one.
            log: logarithmic.
            percent: shares as percent.
            whole: ticks at whole numbers only.
            zero: from 0.
            ticks: places and what is written there.
            panel: of one panel; of all by default.
        """
        change: dict[str, Any] = {"type": "log"} if log else {}
        if span is not None:
            change["range"] = [math.log10(end) for end in span] if log else list(span)
        if percent:
            change["tickformat"] = ".0%"
        if zero:
            change["rangemode"] = "tozero"
        if ticks is not None:
            change |= {"tickvals": list(ticks[0]), "ticktext": list(ticks[1])}
        update = self.figure.update_xaxes if axis == "x" else self.figure.update_yaxes
        update(change, **({} if panel is None else self._at(panel)))
        for axes in self.axes if panel is None else [self.axes[panel]]:
            ruler, limits = getattr(axes, f"{axis}axis"), getattr(axes, f"set_{axis}lim")
            if log:
                getattr(axes, f"set_{axis}scale")("log")
            if span is not None:
                limits(*span)
            if percent:
                ruler.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
            if whole:
                ruler.set_major_locator(MaxNLocator(integer=True))
            if zero:
                limits(0)
            if ticks is not None:
                getattr(axes, f"set_{axis}ticks")(*ticks)

    def heat(
        self,
        values: Any,
        rows: Sequence[str],
        columns: Sequence[str],
        *,
        top: float,
        label: str,
        hover: str,
        words: Any = None,
        rising: bool = False,
        turn: bool = False,
        bar: Literal["top", "right"] = "top",
        panel: int = 0,
        **interactive: Any,
    ) -> None:
        """Numbers as cells, the first row on top.

        Args:
            values: [row, column]; NaN is left blank.
            rows: a label each.
            columns: likewise.
            top: value of the strongest colour; colours run from −top to top.
            label: of the colour bar.
            hover: plotly's template.
            words: what is written in each cell, [row, column]; "" for nothing.
            rising: colours from 0 to `top` instead.
            turn: write the columns' labels aslant.
            bar: where the colour bar stands.
            panel: which one; the last one brings the colour bar.
            interactive: further settings of plotly's trace.
        """
        grid = np.asarray(values, dtype=float)
        axes, stops = self.axes[panel], RISING if rising else DIVERGING
        low = 0.0 if rising else -top
        # Cells as shapes, not as pixels: they stay sharp at any size.
        image = axes.pcolormesh(
            np.arange(len(columns) + 1) - 0.5, np.arange(len(rows) + 1) - 0.5, np.ma.masked_invalid(grid),
            cmap=LinearSegmentedColormap.from_list("tamperlens", stops), vmin=low, vmax=top,
            edgecolors="face", linewidth=0.2,
        )  # fmt: skip
        axes.set_ylim(len(rows) - 0.5, -0.5)
        for labels, place in ((rows, axes.set_yticks), (columns, axes.set_xticks)):
            step = max(1, math.ceil(len(labels) / 24))
            place(range(0, len(labels), step), labels[::step])
        if turn:
            slant = 90 if len(columns) > 12 else 40
            axes.tick_params(axis="x", rotation=slant)
            axes.tick_params(labelsize=7.5)
            for text in axes.get_xticklabels() if slant < 90 else ():
                text.set_ha("right")
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for (i, j), word in np.ndenumerate(words) if words is not None else ():
            ink = _LIGHT if abs(grid[i, j]) > 0.72 * top else _DARK
            axes.text(j, i, word, ha="center", va="center", fontsize=7.5, color=ink)
        if panel == len(self.axes) - 1:
            shape: dict[str, Any] = (
                {"aspect": 45, "shrink": 0.98, "pad": 0.03} if bar == "top" else {"aspect": 30, "shrink": 0.9}
            )
            drawn = self.still.colorbar(image, ax=self.axes, location=bar, **shape)
            drawn.set_label(short(label, 90), fontsize=8.5)
            drawn.outline.set_visible(False)  # type: ignore[operator]
            drawn.ax.tick_params(length=2, labelsize=8)
        trace = go.Heatmap(
            z=grid, x=_apart(columns), y=_apart(rows), zmin=low, zmax=top, xgap=1, ygap=1,
            colorscale=[list(stop) for stop in stops], hovertemplate=f"{hover}<extra></extra>",
            showscale=panel == 0, colorbar={"title": {"text": short(label, 60), "side": "right"}},
            **interactive,
        )  # fmt: skip
        self.figure.add_trace(trace, **self._at(panel))
        self.figure.update_xaxes(type="category", showgrid=False)
        self.figure.update_yaxes(type="category", showgrid=False, autorange="reversed")

    def outline(self, row: int, column: int) -> None:
        """A frame around a cell of `heat`."""
        # A white line inside a dark one is seen on any cell colour.
        for colour, width in ((_LIGHT, 4.2), (_DARK, 2.0)):
            box = Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fill=False, ec=colour, lw=width, clip_on=False, zorder=5
            )
            self.axes[0].add_patch(box)
        self.figure.add_shape(
            type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5,
            line={"color": INK, "width": 3}, layer="above",
        )  # fmt: skip

    def plot(self, name: str, title: str, caption: str, alt: str) -> Plot:
        """The finished figure with its words."""
        return Plot(name, title, caption, alt, self.figure, self.still)


def _apart(labels: Sequence[str]) -> list[str]:
    """Labels that differ from each other, as plotly's categories must: tokens may repeat."""
    return [f"{i} {one}" for i, one in enumerate(labels)] if len(set(labels)) < len(labels) else list(labels)
