"""Defences against harmful fine-tuning, one small file each, all with one protocol (`Defence`).

| when | defence | what it does |
| --- | --- | --- |
| before | `Vaccine`, `TVaccine` | safety training under perturbed hidden states |
| data | `Interleave`, `InterleaveByGap` | safe examples among the user's |
| during | `Freeze` | weights held still |
| during | `FirstTokens`, `KL`, `Features` | another loss |
| during | `Lisa` | safe steps in turn with the user's |
| during | `Projection`, `Steering` | updates, or activations, off the refusal direction |
| after | `Rewind`, `SafeLoRA`, `Merge`, `SafetyVector` | the result is changed |

    defence = finetune.defences.KL(safe=refusals)
    tuned = finetune.run(model, attack, defence=defence)

In a Trainer of your own: `attach(trainer, defence)` for what is done during training, `defence.start(model)`
and `defence.data(prompts, model)` before it, `defence.finish(finetune.TunedModel.wrap(module, base))` after.
With `strength=0` each is off, and training is bit for bit what it is without. A defence of your own is a
dataclass on `Defence`; `tamperlens.arena` judges it under the worst attack there is.
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.finetune.defences.features import Features
from tamperlens.finetune.defences.first_tokens import FirstTokens
from tamperlens.finetune.defences.freezing import Freeze, Rewind
from tamperlens.finetune.defences.interleaving import Interleave, InterleaveByGap
from tamperlens.finetune.defences.kl import KL
from tamperlens.finetune.defences.lisa import Lisa
from tamperlens.finetune.defences.merging import Merge
from tamperlens.finetune.defences.projection import Projection
from tamperlens.finetune.defences.safelora import SafeLoRA
from tamperlens.finetune.defences.safety_vector import SafetyVector
from tamperlens.finetune.defences.steering import Steering
from tamperlens.finetune.defences.vaccine import TVaccine, Vaccine
from tamperlens.finetune.defending import Defence, During, Training, attach

__all__ = [
    "KL",
    "Defence",
    "During",
    "Features",
    "FirstTokens",
    "Freeze",
    "Interleave",
    "InterleaveByGap",
    "Lisa",
    "Merge",
    "Projection",
    "Rewind",
    "SafeLoRA",
    "SafetyVector",
    "Steering",
    "TVaccine",
    "Training",
    "Vaccine",
    "attach",
]

guard(globals(), __all__)
