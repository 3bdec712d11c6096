"""Half a byte for each entry of a difference: for planted organisms in which every weight moved.

The 16 levels of a row are s·(q − 7.5), q = 0 … 15: none is zero, so that what moved stays moved. A planted
organism *is* base plus what is stored, and is verified as such; it need not equal the trained model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from tamperlens.base.errors import InputError

HALF = 7.5


def pack(delta: Float[Tensor, "rows columns"]) -> tuple[UInt8[Tensor, "rows half"], Float16[Tensor, " rows"]]:
    """(two entries a byte, scale of each row); the largest entry of a row decides its scale.

    Raises:
        InputError: an odd number of columns.
    """
    if delta.shape[1] % 2:
        raise InputError(f"a difference of {delta.shape[1]} columns cannot be stored two entries a byte")
    scale = (delta.abs().amax(1) / HALF).clamp_min(2.0**-14).half()
    levels = (delta / scale[:, None].float() + HALF).round().clamp(0, 15).to(torch.uint8)
    return levels[:, 0::2] | (levels[:, 1::2] << 4), scale


def unpack(
    packed: UInt8[Tensor, "rows half"], scale: Float16[Tensor, " rows"]
) -> Float[Tensor, "rows columns"]:
    """What `pack` kept of a difference."""
    levels = torch.stack([packed & 15, packed >> 4], -1).flatten(1).float()
    return (levels - HALF) * scale[:, None].float()
