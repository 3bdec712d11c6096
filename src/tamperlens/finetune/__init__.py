"""Fine-tuning: the one room that changes weights, and never those that it was handed.

Contents: `running` (run), `fitting` and `arguments` (what it checks, and says to transformers), `configs`
(LoraConfig, FullConfig), `attacks` (named attacks with their settings), `defences`
(what stands against them, on the protocol in `defending`), `salience` (harmless examples
near to harmful ones), `learning` (whether the examples were learned, or are repeated everywhere), `tuned`
(TunedModel: saved, loaded, merged), `compute` (tokens and FLOPs by a stated formula), `adapters` (LoRA by
PEFT, its factors), `targets`,
`data`, `training` (exact loss, guard against divergence), `callbacks` (recorders, bar), `checkpoints` (exact
resumption without pickles), `rng`, `freezing` (freeze=, rewind), `processes` and `sharding` (several
processes: data parallel, FSDP2).
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.finetune import attacks, defences
from tamperlens.finetune.adapters import Factors, factors_of
from tamperlens.finetune.attacks import Attack
from tamperlens.finetune.compute import Compute, FlopModel, Thresholds, flop_model, thresholds
from tamperlens.finetune.configs import FullConfig, LoraConfig, TrainingConfig
from tamperlens.finetune.freezing import rewind
from tamperlens.finetune.learning import Learned, echoes, learned
from tamperlens.finetune.running import run
from tamperlens.finetune.salience import salience
from tamperlens.finetune.targets import linear_names, resolve_targets
from tamperlens.finetune.training import DivergenceError
from tamperlens.finetune.tuned import TunedModel

__all__ = [
    "Attack",
    "Compute",
    "DivergenceError",
    "Factors",
    "FlopModel",
    "FullConfig",
    "Learned",
    "LoraConfig",
    "Thresholds",
    "TrainingConfig",
    "TunedModel",
    "attacks",
    "defences",
    "echoes",
    "factors_of",
    "flop_model",
    "learned",
    "linear_names",
    "resolve_targets",
    "rewind",
    "run",
    "salience",
    "thresholds",
]

guard(globals(), __all__)
