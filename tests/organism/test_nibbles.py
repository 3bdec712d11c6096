"""Half a byte an entry: within half a step of what was stored, and never zero."""

from __future__ import annotations

import pytest
import torch

from tamperlens.base.errors import InputError
from tamperlens.models.organism import nibbles


def test_every_entry_is_within_half_a_step_and_none_is_zero() -> None:
    torch.manual_seed(0)
    delta = torch.randn(6, 10) * torch.logspace(-3, 0, 6)[:, None]
    delta[2, 3] = 0.0
    packed, scale = nibbles.pack(delta)
    assert packed.shape == (6, 5) and packed.dtype == torch.uint8
    back = nibbles.unpack(packed, scale)
    # The literal definition: the nearest of the levels s·(q − 7.5), entry by entry.
    levels = torch.arange(16) - 7.5
    for row in range(6):
        near = [min(levels * float(scale[row]), key=lambda level: abs(level - x)) for x in delta[row]]
        assert (back[row] - delta[row]).abs().tolist() == pytest.approx(
            [float(abs(level - x)) for level, x in zip(near, delta[row], strict=True)], abs=1e-6
        )
    step = scale.float()[:, None]
    assert bool(((back - delta).abs() <= 0.5001 * step).all())
    assert bool((back != 0).all())
    # Rounding to multiples of the step would have lost the small entries.
    assert bool(((delta / step).round() == 0).any())


def test_rows_of_zeros_and_odd_columns() -> None:
    packed, scale = nibbles.pack(torch.zeros(2, 4))
    assert bool((scale > 0).all()) and nibbles.unpack(packed, scale).abs().max() < 1e-4
    with pytest.raises(InputError, match="3 columns"):
        nibbles.pack(torch.zeros(2, 3))
