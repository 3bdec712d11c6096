"""Trajectory: weights, directions, heads, rates and capability while a model is fine-tuned, step by step.

run = trajectory.record(model, finetune.attacks.harmful_compliance(15), seeds=3)
print(trajectory.order(run).summary())
trajectory.write_page("page.html", run)

Contents: `recording` (`record`), `over` (checkpoints of any training),
`result` (`Trajectory`, `read`, `order`), `setup` (what is
measured, on what), `schedule` (when), `observing` (one model measured, with `passes` and `answers`),
`records` (rows on disk), `recorder` (in `finetune.run`), `ordering` (what changes first), `figures`,
`page`, `folders` (as a report reads them).
"""

from tamperlens.base.boundary import guard
from tamperlens.base.deprecation import moved
from tamperlens.studies.trajectory.observing import Observer
from tamperlens.studies.trajectory.ordering import CANNOT_TELL, Order, order_of
from tamperlens.studies.trajectory.over import over
from tamperlens.studies.trajectory.recorder import TrajectoryRecorder
from tamperlens.studies.trajectory.recording import record
from tamperlens.studies.trajectory.result import Trajectory, order, read, write_page
from tamperlens.studies.trajectory.setup import CHEAP, MEASURES, SAMPLED, Setup, setup_for

__all__ = [
    "CANNOT_TELL",
    "CHEAP",
    "MEASURES",
    "SAMPLED",
    "Observer",
    "Order",
    "Setup",
    "Trajectory",
    "TrajectoryRecorder",
    "order",
    "order_of",
    "over",
    "read",
    "record",
    "setup_for",
    "write_page",
]

guard(globals(), __all__)
__getattr__ = moved(__name__, {"Watch": f"{__name__}:Setup", "watch_for": f"{__name__}:setup_for"})
