"""tamperlens_hooks: everything that touches a live module. Find its parts, read them, edit them.

```python
from tamperlens_hooks import ablate_direction, capture, check, describe

anatomy = describe(module)          # where each part sits, by structure
check(module, anatomy)              # confirmed by numbers
with capture(module, anatomy, sites=["resid_pre"], positions="last") as tape:
    module(**batch)
with ablate_direction(module, anatomy, direction):
    module.generate(**batch)
```

Reads and edits hold inside their `with` block and leave the module as it was, also when the body raises.
"""

from __future__ import annotations

from tamperlens_hooks._calling import HasModule, HasVector, module_and_anatomy
from tamperlens_hooks._modules import base_layer, device_of, sharing_copy, unwrap
from tamperlens_hooks._parts import Projection
from tamperlens_hooks._request import Trace
from tamperlens_hooks._sites import Site
from tamperlens_hooks.anatomy import Anatomy, describe
from tamperlens_hooks.capture import Tape, capture, head_means, read_positions, residual_means
from tamperlens_hooks.checks import check
from tamperlens_hooks.edit import ablate_direction, ablate_heads, add_direction, patch_heads
from tamperlens_hooks.effective import (
    effective_bias,
    effective_weight,
    head_output_weight,
    merged_parameters,
    merged_weight,
)
from tamperlens_hooks.errors import AnatomyError, HookError, TamperlensError, UnsupportedModelError
from tamperlens_hooks.gradients import GradientTape, accumulate_gradients
from tamperlens_hooks.lens import to_transformer_lens
from tamperlens_hooks.lowrank import Update, update_of
from tamperlens_hooks.remote import HubModel, from_hub
from tamperlens_hooks.similarity import ProductTape, project_gradients
from tamperlens_hooks.state import preserve_state
from tamperlens_hooks.stored import logical_bias, logical_weight, stored_parameter
from tamperlens_hooks.tracing import trace
from tamperlens_hooks.weight_form import ablate_weights
from tamperlens_hooks.weights import lowrank_removed, watch_inputs, zeroed_entries

__all__ = [
    "Anatomy",
    "AnatomyError",
    "GradientTape",
    "HasModule",
    "HasVector",
    "HookError",
    "HubModel",
    "ProductTape",
    "Projection",
    "Site",
    "TamperlensError",
    "Tape",
    "Trace",
    "UnsupportedModelError",
    "Update",
    "ablate_direction",
    "ablate_heads",
    "ablate_weights",
    "accumulate_gradients",
    "add_direction",
    "base_layer",
    "capture",
    "check",
    "describe",
    "device_of",
    "effective_bias",
    "effective_weight",
    "from_hub",
    "head_means",
    "head_output_weight",
    "logical_bias",
    "logical_weight",
    "lowrank_removed",
    "merged_parameters",
    "merged_weight",
    "module_and_anatomy",
    "patch_heads",
    "preserve_state",
    "project_gradients",
    "read_positions",
    "residual_means",
    "sharing_copy",
    "stored_parameter",
    "to_transformer_lens",
    "trace",
    "unwrap",
    "update_of",
    "watch_inputs",
    "zeroed_entries",
]
