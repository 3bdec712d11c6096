"""How a number is written for a reader."""

from __future__ import annotations

import math
from typing import Literal

from tamperlens.base.stats import Estimate

Stage = Literal["before", "after"]
SHARE = "proportion"


def share(estimate: Estimate, *, n: bool = False) -> str:
    """A proportion for a reader: "98 % [95, 99]"."""
    if math.isnan(estimate.value):
        return f"undefined{f' ({estimate.reason})' if estimate.reason else ''}"
    text = _percent(estimate.value) + "\u00a0%"
    if not math.isnan(estimate.low):
        text += f"\u00a0[{_percent(estimate.low)},\u00a0{_percent(estimate.high)}]"
    return f"{text} (n\u00a0=\u00a0{estimate.n})" if n else text


def points(estimate: Estimate, *, sign: bool = True) -> str:
    """A difference of proportions in percentage points: "−96 [−98, −93]"."""
    if math.isnan(estimate.value):
        return "undefined"
    parts = [signed(100 * x) for x in (estimate.value, estimate.low, estimate.high)]
    value, low, high = parts if sign else [part.replace("+", "") for part in parts]
    return f"{value}\u00a0[{low},\u00a0{high}]"


def number(estimate: Estimate, digits: int = 2) -> str:
    """A plain number with its interval."""
    if math.isnan(estimate.value):
        return "undefined"
    value, low, high = (
        f"{x:.{digits}f}".replace("-", "−") for x in (estimate.value, estimate.low, estimate.high)
    )
    return value if math.isnan(estimate.low) else f"{value}\u00a0[{low},\u00a0{high}]"


def signed(value: float) -> str:
    """A number of points with its sign, to one decimal, whole numbers bare."""
    text = f"{abs(value):.1f}".removesuffix(".0")
    return text if text == "0" else f"{'−' if value < 0 else '+'}{text}"


def p_text(p: float) -> str:
    """A p-value for a reader."""
    if math.isnan(p):
        return "–"
    if p >= 0.9995:
        return "1"
    return "<\u00a00.001" if p < 0.001 else f"{p:.3f}"


def scientific(value: float) -> str:
    """1.2 × 10¹²."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(value)))
    mantissa = value / 10**exponent
    if f"{mantissa:.1f}" == "10.0":
        mantissa, exponent = 1.0, exponent + 1
    return f"{mantissa:.1f}\u00a0×\u00a010{str(exponent).translate(_RAISED)}"


_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def _percent(value: float) -> str:
    """To one decimal, whole numbers bare; near 50 % the decimal says nothing at the usual n."""
    scaled = 100 * value
    return f"{scaled:.0f}" if 10 <= scaled <= 90 else f"{scaled:.1f}".removesuffix(".0")
