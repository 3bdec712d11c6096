"""One door to `judges`, `rates` and `directions`, for scripts: `refusal.evaluate`,
`refusal.find_direction`, …

`refusal.judges.get("calibrated")` gives a judge. Look each name up in its own subpackage.
"""

from tamperlens.rates import compare as compare  # that of directions is `distance` here

# isort: split
from tamperlens import directions, rates
from tamperlens import judges as judges
from tamperlens.directions import *  # type: ignore[assignment]  # noqa: F403
from tamperlens.judges import *  # noqa: F403
from tamperlens.rates import *  # noqa: F403

_OF_JUDGES = {"DEFAULT", "UNFINISHED", "agreement", "ask", "get", "names", "reads_answers", "register"}
__all__ = sorted({"judges", *directions.__all__, *judges.__all__, *rates.__all__} - _OF_JUDGES)


def __dir__() -> list[str]:
    return __all__
