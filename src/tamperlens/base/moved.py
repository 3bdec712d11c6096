"""Modules that were moved: the old path still imports for one release and names the new one."""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from tamperlens.base.deprecation import warn

MOVED = {
    "tamperlens.refusal.cache": "tamperlens.directions.cache",
    "tamperlens.refusal.calibrated": "tamperlens.judges.calibrated",
    "tamperlens.refusal.candidates": "tamperlens.directions.candidates",
    "tamperlens.refusal.cards": "tamperlens.judges.cards",
    "tamperlens.refusal.causal": "tamperlens.directions.causal",
    "tamperlens.refusal.checkpoints": "tamperlens.directions.checkpoints",
    "tamperlens.refusal.completions": "tamperlens.rates.completions",
    "tamperlens.refusal.concepts": "tamperlens.directions.concepts",
    "tamperlens.refusal.cones": "tamperlens.directions.cones",
    "tamperlens.refusal.cues": "tamperlens.judges.cues",
    "tamperlens.refusal.degenerate": "tamperlens.judges.degenerate",
    "tamperlens.refusal.directions": "tamperlens.directions.direction",
    "tamperlens.refusal.distances": "tamperlens.directions.distances",
    "tamperlens.refusal.embedders": "tamperlens.judges.embedders",
    "tamperlens.refusal.embedding_judge": "tamperlens.judges.embedding_judge",
    "tamperlens.refusal.ensembles": "tamperlens.judges.ensembles",
    "tamperlens.refusal.evidence": "tamperlens.judges.evidence",
    "tamperlens.refusal.geometry": "tamperlens.directions.geometry",
    "tamperlens.refusal.guard_formats": "tamperlens.judges.guard_formats",
    "tamperlens.refusal.guards": "tamperlens.judges.guards",
    "tamperlens.refusal.harmfulness": "tamperlens.directions.harmfulness",
    "tamperlens.refusal.keyword": "tamperlens.judges.keyword",
    "tamperlens.refusal.labelled": "tamperlens.judges.labelled",
    "tamperlens.refusal.lists": "tamperlens.judges.lists",
    "tamperlens.refusal.metric": "tamperlens.base.logits",
    "tamperlens.refusal.nulls": "tamperlens.directions.nulls",
    "tamperlens.refusal.rates": "tamperlens.rates.evaluation",
    "tamperlens.refusal.recording": "tamperlens.directions.recording",
    "tamperlens.refusal.representation": "tamperlens.rates.representation",
    "tamperlens.refusal.samples": "tamperlens.rates.samples",
    "tamperlens.refusal.selection": "tamperlens.directions.selection",
    "tamperlens.refusal.separation": "tamperlens.directions.separation",
    "tamperlens.refusal.shallowness": "tamperlens.rates.shallowness",
    "tamperlens.refusal.subspaces": "tamperlens.directions.subspaces",
    "tamperlens.refusal.tokens": "tamperlens.directions.tokens",
    "tamperlens.refusal.transfer": "tamperlens.directions.transfer",
    "tamperlens.refusal.validation": "tamperlens.directions.validation",
    "tamperlens.refusal.variants": "tamperlens.rates.variants",
    "tamperlens.refusal.weighted": "tamperlens.judges.weighted",
    "tamperlens.studies.auditing": "tamperlens.studies.audit",
    "tamperlens.studies.brittle": "tamperlens.studies.brittleness",
    "tamperlens.studies.following": "tamperlens.studies.trajectory",
    "tamperlens.studies.following.monitor": "tamperlens.studies.monitor.monitor",
    "tamperlens.studies.following.rules": "tamperlens.studies.monitor.rules",
    "tamperlens.studies.following.together": "tamperlens.studies.monitor.processes",
    "tamperlens.studies.following.watch": "tamperlens.studies.trajectory.setup",
    "tamperlens.studies.monitor.together": "tamperlens.studies.monitor.processes",
    "tamperlens.studies.planting": "tamperlens.studies.planted",
    "tamperlens.studies.spill": "tamperlens.studies.spillover",
    "tamperlens.studies.trajectory.watch": "tamperlens.studies.trajectory.setup",
    "tamperlens.refusal.judges": "tamperlens.judges",
}
"""Old path to new path, of a package with everything inside it; to be emptied at the next release."""

_TOOLS = "docs/tools/judge_training"
GONE = {
    "tamperlens.refusal.anchors": f"{_TOOLS}/anchors.py",
    "tamperlens.refusal.train_judge": f"{_TOOLS}/calibrated.py",
    "tamperlens.judges.anchors": f"{_TOOLS}/anchors.py",
    "tamperlens.judges.training": f"{_TOOLS}/calibrated.py",
    "tamperlens.judges.acts.training": f"{_TOOLS}/acts.py",
}
"""Modules that are no longer in the package, and the file of the repository that has their code."""


def new_path(old: str) -> str:
    """Where a module is now; "" where it did not move."""
    package, _, name = old.rpartition(".")
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
