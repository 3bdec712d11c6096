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
    "tamperlens.studies.planting": "tamperlens.studies.planted",
    "tamperlens.studies.spill": "tamperlens.studies.spillover",
    "tamperlens.studies.auditing.coverage": "tamperlens.studies.audit.coverage",
    "tamperlens.studies.auditing.figures": "tamperlens.studies.audit.figures",
    "tamperlens.studies.auditing.inputs": "tamperlens.studies.audit.inputs",
    "tamperlens.studies.auditing.layers": "tamperlens.studies.audit.layers",
    "tamperlens.studies.auditing.measures": "tamperlens.studies.audit.measures",
    "tamperlens.studies.auditing.page": "tamperlens.studies.audit.page",
    "tamperlens.studies.auditing.stages": "tamperlens.studies.audit.stages",
    "tamperlens.studies.auditing.tables": "tamperlens.studies.audit.tables",
    "tamperlens.studies.auditing.words": "tamperlens.studies.audit.words",
    "tamperlens.studies.brittle.conditions": "tamperlens.studies.brittleness.conditions",
    "tamperlens.studies.brittle.effects": "tamperlens.studies.brittleness.effects",
    "tamperlens.studies.following.answers": "tamperlens.studies.trajectory.answers",
    "tamperlens.studies.following.figures": "tamperlens.studies.trajectory.figures",
    "tamperlens.studies.following.folders": "tamperlens.studies.trajectory.folders",
    "tamperlens.studies.following.monitor": "tamperlens.studies.monitor.monitor",
    "tamperlens.studies.following.observing": "tamperlens.studies.trajectory.observing",
    "tamperlens.studies.following.ordering": "tamperlens.studies.trajectory.ordering",
    "tamperlens.studies.following.page": "tamperlens.studies.trajectory.page",
    "tamperlens.studies.following.passes": "tamperlens.studies.trajectory.passes",
    "tamperlens.studies.following.quiet": "tamperlens.studies.trajectory.quiet",
    "tamperlens.studies.following.recorder": "tamperlens.studies.trajectory.recorder",
    "tamperlens.studies.following.records": "tamperlens.studies.trajectory.records",
    "tamperlens.studies.following.rules": "tamperlens.studies.monitor.rules",
    "tamperlens.studies.following.schedule": "tamperlens.studies.trajectory.schedule",
    "tamperlens.studies.following.together": "tamperlens.studies.monitor.together",
    "tamperlens.studies.following.watch": "tamperlens.studies.trajectory.watch",
    "tamperlens.studies.planting.causal": "tamperlens.studies.planted.causal",
    "tamperlens.studies.planting.directions": "tamperlens.studies.planted.directions",
    "tamperlens.studies.planting.methods": "tamperlens.studies.planted.methods",
    "tamperlens.studies.planting.scoring": "tamperlens.studies.planted.scoring",
    "tamperlens.studies.spill.probes": "tamperlens.studies.spillover.probes",
    "tamperlens.studies.spill.seeds": "tamperlens.studies.spillover.seeds",
    "tamperlens.studies.spill.tables": "tamperlens.studies.spillover.tables",
    "tamperlens.refusal.judges": "tamperlens.judges",
}
"""Old path to new path; to be emptied at the next release."""


class MovedModules(MetaPathFinder, Loader):
    """Imports the new module in place of the old one, with a `DeprecationWarning`."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for an old path, None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module at the new path."""
        new = MOVED[spec.name]
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
