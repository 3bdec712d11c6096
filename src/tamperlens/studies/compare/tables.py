"""One table of all verdicts that can be pasted into a paper."""

from __future__ import annotations

from collections.abc import Sequence

from tamperlens.studies.audit.measures import p_text
from tamperlens.studies.compare.readings import LEADING, LEFT_OUT, SHARE, Reading, number
from tamperlens.studies.compare.result import Comparison

HEADER = ("instrument", "verdict", "base", "tuned", "change [95 %]", "n", "p (Holm)")
ESCAPED = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
           "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
           "‖": r"$\Vert$", "Δ": r"$\Delta$", "−": r"$-$", "→": r"$\to$"}  # fmt: skip


def rows_of(one: Comparison) -> list[tuple[str, ...]]:
    """Cells of one comparison, an instrument a row, as `HEADER` says."""
    return [_row(reading) for reading in one.readings]


def markdown(items: Sequence[Comparison]) -> str:
    """A Markdown table for each tuned model."""
    parts = []
    for one in items:
        lines = [f"{_plain(one.base)} → {_plain(one.tuned)}", "", _line(HEADER), _line(["---"] * len(HEADER))]
        parts.append("\n".join([*lines, *(_line(row) for row in rows_of(one))]))
    return "\n\n".join(parts) + "\n"


def latex(items: Sequence[Comparison]) -> str:
    """A LaTeX table (booktabs) for each tuned model."""
    parts = []
    for one in items:
        body = [" & ".join(map(escape_latex, row)) + r" \\" for row in rows_of(one)]
        head = " & ".join(map(escape_latex, HEADER)) + r" \\"
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{escape_latex(f'{one.base} → {one.tuned}')}}}",
                    r"\begin{tabular}{llrrrrr}",
                    r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", r"\end{table}",
                ]
            )
        )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(ESCAPED.get(c, c) for c in text.replace("\u00a0", " ").replace("\n", " "))


def _row(one: Reading) -> tuple[str, ...]:
    if one.verdict == LEFT_OUT:
        return (one.instrument, f"{LEFT_OUT}: {one.effect.reason}", "–", "–", "–", "0", "–")
    measure, which = LEADING.get(one.instrument, ("", ""))
    shown = {row.stage: row for row in one.rows if row.measure == measure and which in (row.set, "")}
    n = str(one.effect.n)
    percent = any(row.unit == SHARE for row in shown.values())
    values = [
        number(shown[stage].value, percent=percent) + (" %" if percent else "") if stage in shown else "–"
        for stage in ("base", "tuned")
    ]
    return (one.instrument, one.verdict, *values, one.size(), n, p_text(one.p_holm))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _plain(text: str) -> str:
    return " ".join(text.split())
