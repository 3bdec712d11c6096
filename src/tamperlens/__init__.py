"""tamperlens: where refusal sits in a chat model, how fine-tuning wears it away, and at what price.

Everything here is loaded on first use, so `import tamperlens` costs nothing:

    model = tamperlens.load("organism")
    from tamperlens import prompts, refusal, finetune, stats
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from tamperlens.base import moved
from tamperlens.base.progress import quiet_notebook

if TYPE_CHECKING:
    from tamperlens.models import ChatModel as ChatModel
    from tamperlens.models import Decoding as Decoding
    from tamperlens.models import load as load
    from tamperlens.prompts import PromptSet as PromptSet
    from tamperlens.studies.arena import ArenaResult as ArenaResult
    from tamperlens.studies.arena import arena as arena
    from tamperlens.studies.audit import AuditResult as AuditResult
    from tamperlens.studies.audit import audit as audit
    from tamperlens.studies.brittleness import brittleness as brittleness
    from tamperlens.studies.compare import Comparison as Comparison
    from tamperlens.studies.compare import Comparisons as Comparisons
    from tamperlens.studies.compare import compare as compare
    from tamperlens.studies.influence import Influence as Influence
    from tamperlens.studies.influence import influence as influence
    from tamperlens.studies.monitor import Monitor as Monitor
    from tamperlens.studies.monitor import Rule as Rule
    from tamperlens.studies.screening import Screening as Screening
    from tamperlens.studies.screening import screen as screen
    from tamperlens.studies.spillover import SpilloverReport as SpilloverReport
    from tamperlens.studies.spillover import spillover as spillover

moved.install()
quiet_notebook()

# Subpackages by the name that users write. One that this version does not have is not listed by dir().
_ROOMS = {
    "capability": "tamperlens.capability",
    "directions": "tamperlens.directions",
    "drift": "tamperlens.drift",
    "errors": "tamperlens.base.errors",
    "finetune": "tamperlens.finetune",
    "grid": "tamperlens.grid",
    "heads": "tamperlens.heads",
    "hooks": "tamperlens.hooks",
    "judges": "tamperlens.judges",
    "models": "tamperlens.models",
    "neurons": "tamperlens.neurons",
    "planted": "tamperlens.studies.planted",
    "plots": "tamperlens.plots",
    "prompts": "tamperlens.prompts",
    "rates": "tamperlens.rates",
    "refusal": "tamperlens.refusal",
    "report": "tamperlens.report",
    "screening": "tamperlens.studies.screening",
    "stats": "tamperlens.base.stats",
    "trajectory": "tamperlens.studies.trajectory",
}
_NAMES = {
    "ArenaResult": "tamperlens.studies.arena",
    "AuditResult": "tamperlens.studies.audit",
    "ChatModel": "tamperlens.models",
    "Comparison": "tamperlens.studies.compare",
    "Comparisons": "tamperlens.studies.compare",
    "Decoding": "tamperlens.models",
    "Influence": "tamperlens.studies.influence",
    "Monitor": "tamperlens.studies.monitor",
    "PromptSet": "tamperlens.prompts",
    "Rule": "tamperlens.studies.monitor",
    "Screening": "tamperlens.studies.screening",
    "SpilloverReport": "tamperlens.studies.spillover",
    "arena": "tamperlens.studies.arena",
    "audit": "tamperlens.studies.audit",
    "brittleness": "tamperlens.studies.brittleness",
    "compare": "tamperlens.studies.compare",
    "influence": "tamperlens.studies.influence",
    "load": "tamperlens.models",
    "screen": "tamperlens.studies.screening",
    "spillover": "tamperlens.studies.spillover",
}


def _exists(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    return found is not None and found.origin is not None  # an empty folder is no room


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("tamperlens")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _ROOMS and _exists(_ROOMS[name]):
        return importlib.import_module(_ROOMS[name])
    raise AttributeError(f"module 'tamperlens' has no attribute {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    rooms = [name for name, module in _ROOMS.items() if _exists(module)]
    return sorted([*rooms, *(name for name, module in _NAMES.items() if _exists(module)), "__version__"])
