"""The named places where activations are read, and the arguments that choose among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError

Site = Literal["resid_pre", "resid_post", "attn_out", "mlp_out", "head_z", "final"]
SITES: tuple[str, ...] = get_args(Site)


def place(anatomy: Anatomy, site: str, layer: int) -> tuple[str, bool]:
    """(module path, whether the module's input is meant rather than its output).

    Raises:
        HookError: no such site.
    """
    match site:
        case "resid_pre":
            return anatomy.blocks[layer], True
        case "resid_post":
            return anatomy.blocks[layer], False
        case "attn_out":
            return anatomy.attention_writes[layer], False
        case "mlp_out":
            return anatomy.mlp_writes[layer], False
        case "head_z":
            return anatomy.output_projection(layer), True
        case "final":
            return anatomy.final_norm, False
    raise HookError(f"there is no site {site!r}; sites are {', '.join(SITES)}")


def chosen_layers(anatomy: Anatomy, layers: Iterable[int] | int | None) -> list[int]:
    """The layers asked for, in the order given; all of them for None.

    Raises:
        HookError: a layer does not exist, occurs twice, or there is none.
    """
    if layers is None:
        return list(range(anatomy.n_layers))
    found = [anatomy.layer_index(int(layer)) for layer in ([layers] if isinstance(layers, int) else layers)]
    if not found or len(set(found)) != len(found):
        raise HookError(f"layers must be different and at least one; got {found}")
    return found


def negative_positions(positions: Sequence[int]) -> list[int]:
    """Positions counted from the end of the prompt, which left padding does not move.

    Raises:
        HookError: none given, or one is not negative.
    """
    found = [int(position) for position in positions]
    if not found or any(position >= 0 for position in found):
        raise HookError(f"positions count from the end of the prompt (-1 is its last token); got {found}")
    return found
