"""Modules that were moved: the old path still imports for one release and names the new one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from tamperlens.base.deprecation import warn

MOVED = {
    "tamperlens.refusal.directions": "tamperlens.directions.finding",
    "tamperlens.refusal.judges": "tamperlens.judges",
    "tamperlens.refusal.metric": "tamperlens.base.logits",
    "tamperlens.refusal.rates": "tamperlens.rates.evaluation",
    "tamperlens.studies.auditing": "tamperlens.studies.audit",
    "tamperlens.studies.brittle": "tamperlens.studies.brittleness",
    "tamperlens.studies.following": "tamperlens.studies.trajectory",
    "tamperlens.studies.following.monitor": "tamperlens.studies.monitor.monitor",
    "tamperlens.studies.following.rules": "tamperlens.studies.monitor.rules",
    "tamperlens.studies.following.together": "tamperlens.studies.monitor.processes",
    "tamperlens.studies.following.watch": "tamperlens.studies.trajectory.setup",
    "tamperlens.studies.planting": "tamperlens.studies.planted",
    "tamperlens.studies.spill": "tamperlens.studies.spillover",
}
"""Old path to new path, of a package with everything inside it; to be emptied at the next release."""
OF_REFUSAL = ("tamperlens.directions", "tamperlens.judges", "tamperlens.rates")
"""Where the other modules of `tamperlens.refusal` are, each under its own name."""

_TOOLS = "docs/tools/judge_training"
GONE = {
    "tamperlens.refusal.anchors": f"{_TOOLS}/anchors.py",
    "tamperlens.refusal.train_judge": f"{_TOOLS}/calibrated.py",
}
"""Modules that are no longer in the package, and the file of the repository that has their code."""


def new_path(old: str) -> str:
    """Where a module is now; "" where it did not move."""
    package, _, name = old.rpartition(".")
    if package == "tamperlens.refusal" and old not in MOVED:
        paths = (f"{room}.{name}" for room in OF_REFUSAL)
        return next((path for path in paths if importlib.util.find_spec(path)), "")
    return MOVED.get(old) or (f"{MOVED[package]}.{name}" if package in MOVED else "")


class MovedModules(MetaPathFinder, Loader):
    """Imports the new module in place of the old one, with a `DeprecationWarning`."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for an old path, None for any other.

        Raises:
            ModuleNotFoundError: the module has left the package; the message names its file.
        """
        if fullname in GONE:
            where = GONE[fullname]
            raise ModuleNotFoundError(
                f"{fullname} has left the package; its code is {where} in the repository", name=fullname
            )
        return ModuleSpec(fullname, self) if new_path(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module at the new path."""
        new = new_path(spec.name)
        warn(spec.name, new)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Hand out the module under its old path as it is."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state  # the import system has put the old path there


def install() -> None:
    """Let old paths be imported."""
    if not any(isinstance(one, MovedModules) for one in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())  # before the finder of files
