"""Planted truth: the organism's `base`, made to refuse by training that may change only a known part.

    model, truth = planted.make("neurons", seed=0)
    truth.mask                                      # WeightMask of exactly the weights that differ from base
    truth.base                                      # what the model was before

| kind | what safety training may change | share of the blocks' weights |
| --- | --- | --- |
| `random-1`, `random-5` | weights drawn evenly from every matrix | 1 %, 5 % |
| `neurons` | 24 MLP neurons in each of two blocks: rows of gate and up, columns of down | 1.9 % |
| `head`, `heads-3` | one head, or three in three blocks: rows of q, k and v, columns of o | 1.7 %, 5 % |
| `rank-1`, `rank-3` | what attention and MLP of block 1 write, by a rank-r term U·[A_o, A_down] | 6.7 % |
| `layer` | one block | 20 % |
| `everything` | all matrices of all blocks: the control in which there is nothing to find | 100 % |

Embeddings and norms never move. The wheel holds the differences to `base` of the organisms in `shipped()`
(half precision, planted entries only); `planting` is the recipe that makes them, and others, anew. What
each refuses, still can do, and does when the part is put back is in docs/planted-truth.md, measured by
`studies.planted.verify`; some fail it, and the benchmark leaves them out by name.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.masks import WeightMask
from tamperlens.base.parts import parts_of, shapes_of
from tamperlens.models.chat import ChatModel
from tamperlens.models.loading import ORGANISM
from tamperlens.models.organism import nibbles
from tamperlens_hooks import stored_parameter

FOLDER = ORGANISM / "planted"
KINDS = ("random-1", "random-5", "neurons", "head", "heads-3", "rank-1", "rank-3", "layer", "everything")
SEEDS = (0, 1)
FORMAT = 1
NEURONS = 24


@dataclass(frozen=True)
class Plan:
    """The part that safety training may change.

    Attributes:
        kind: one of `KINDS`.
        seed: of the draw, and of training.
        flags: parameter name to the weights that may change; parameters that may not are left out.
        layers: blocks that hold the part.
        heads: (layer, head) of planted heads.
        neurons: (layer, neuron) of planted MLP neurons.
        rank: of a planted write, 0 where the part is a set of free weights.
    """

    kind: str
    seed: int
    flags: dict[str, Bool[Tensor, "a b"]] = field(repr=False)
    layers: tuple[int, ...]
    heads: tuple[tuple[int, int], ...] = ()
    neurons: tuple[tuple[int, int], ...] = ()
    rank: int = 0


@dataclass(frozen=True)
class Truth:
    """What was planted in a model.

    Attributes:
        kind: one of `KINDS`.
        seed: of the draw, and of training.
        mask: the weights that differ from `base`; of the planted model.
        layers: blocks that hold them.
        heads: (layer, head) of planted heads.
        neurons: (layer, neuron) of planted MLP neurons.
        write: of rank kinds, an orthonormal basis [d_model, r] of what the block newly writes; else None.
        base: the model before planting.
    """

    kind: str
    seed: int
    mask: WeightMask
    layers: tuple[int, ...]
    heads: tuple[tuple[int, int], ...]
    neurons: tuple[tuple[int, int], ...]
    write: Float[Tensor, "d_model r"] | None
    base: ChatModel

    @property
    def name(self) -> str:
        """Kind and seed."""
        return f"{self.kind} {self.seed}"


def path_of(kind: str, seed: int, folder: PathLike | None = None) -> Path:
    """The file of a planted organism's difference to base."""
    return Path(FOLDER if folder is None else folder) / f"{kind}-{seed}.safetensors"


def shipped() -> list[tuple[str, int]]:
    """(kind, seed) of the planted organisms that are in this installation."""
    return [
        (kind, int(path.stem[-1]))
        for kind in KINDS
        for path in sorted(FOLDER.glob(f"{kind}-[0-9].safetensors"))
    ]


def plan(model: ChatModel, kind: str, seed: int) -> Plan:
    """Draw the part of a kind; the same for one seed on every machine.

    Raises:
        InputError: unknown kind.
    """
    check(kind)
    dice = random.Random(f"planted {kind} {seed}")
    anatomy, parts = model.anatomy, parts_of(model)
    shapes = shapes_of(model, parts)
    empty = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    # The first block cannot see the whole prompt yet, and what the last one writes no block reads.
    middle = list(range(1, anatomy.n_layers - 1)) or [0]

    def fill(layers: Iterable[int], choose: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        for part in parts:
            if part.layer in layers:
                part.write(empty[part.parameter], choose(part))
        return {name: flags for name, flags in empty.items() if bool(flags.any())}

    every = range(anatomy.n_layers)
    if kind.startswith("random"):
        share = int(kind.rpartition("-")[2]) / 100
        generator = torch.Generator().manual_seed(1000 + seed)

        def drawn(part: Any) -> Tensor:
            order = torch.rand(part.numel, generator=generator).argsort()
            return (order < int(share * part.numel)).reshape(part.d_out, part.d_in)

        return Plan(kind, seed, fill(every, drawn), tuple(every))
    if kind == "neurons":
        layers = sorted(dice.sample(middle, min(2, len(middle))))
        count = min(NEURONS, anatomy.d_mlp)
        units = {at: sorted(dice.sample(range(anatomy.d_mlp), count)) for at in layers}
        flags = fill(layers, lambda part: _unit(part, units[part.layer], ("gate", "up"), "down"))
        return Plan(kind, seed, flags, tuple(layers), neurons=_pairs(units))
    if kind in ("head", "heads-3"):
        layers = sorted(dice.sample(middle, min(1 if kind == "head" else 3, len(middle))))
        own = {at: [dice.randrange(anatomy.n_heads)] for at in layers}
        flags = fill(layers, lambda part: _head(part, anatomy, own[part.layer][0]))
        return Plan(kind, seed, flags, tuple(layers), heads=_pairs(own))
    if kind.startswith("rank"):
        # Attention of the second block holds the best linear read-out of harm that base has (probe AUROC .99
        # on validation prompts; its MLP .81, later blocks' attention .98 to .91), and three blocks follow.
        at = middle[0]
        flags = fill([at], lambda part: _whole(part, part.projection in ("o", "down")))
        return Plan(kind, seed, flags, (at,), rank=int(kind.rpartition("-")[2]))
    layers = [dice.choice(middle)] if kind == "layer" else list(every)
    return Plan(kind, seed, fill(layers, lambda part: _whole(part, True)), tuple(layers))


def grow(
    base: ChatModel, tensors: dict[str, Tensor], header: dict[str, Any], *, where: Path
) -> tuple[ChatModel, Truth]:
    """Apply a stored difference: only planted entries are written, all others keep the base's bits.

    Args:
        base: the model before planting; not changed.
        tensors: what `shrink` or `write_factors` of the recipe made.
        header: likewise.
        where: file to name in errors.

    Raises:
        InputError: another kind of file, or made for another base.
    """
    if header.get("kind") != "planted" or header.get("format") != FORMAT:
        raise InputError(f"{where} holds no planted organism; make it again with planted.make")
    if header["base"] != base.fingerprint:
        raise InputError(
            f"{where} was made for another base ({header['base'][:12]}, this is {base.fingerprint[:12]}); "
            "make it again with planted.make"
        )
    module = copy.deepcopy(base.module)
    drawn = plan(base, header["part"], header["seed"])
    moved = {}
    with torch.no_grad():
        for name, flags in drawn.flags.items():
            weight = stored_parameter(module, name)
            delta = _delta(tensors, name, flags)
            old = weight.detach().clone()
            weight.copy_(torch.where(flags, old + delta, old))
            moved[name] = weight != old
    model = base.with_module(module, name=f"organism:planted {drawn.kind} {drawn.seed}")
    words = f"weights of {drawn.kind} (seed {drawn.seed}) that safety training moved"
    write = torch.linalg.qr(tensors["U"].double()).Q.float() if drawn.rank else None
    mask = WeightMask.from_tensors(model, moved, definition=words)
    truth = Truth(drawn.kind, drawn.seed, mask, drawn.layers, drawn.heads, drawn.neurons, write, base)
    return model, truth


def shrink(base: ChatModel, module: Any, drawn: Plan) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The difference of a trained module to base at the planted entries, in half precision (`everything`:
    half a byte an entry, see `nibbles`).

    Raises:
        InputError: something else moved as well.
    """
    tensors = {}
    for name, parameter in base.module.named_parameters():
        new = dict(module.named_parameters())[name].detach()
        flags = drawn.flags.get(name)
        if flags is None:
            flags = torch.zeros_like(new, dtype=torch.bool)
        elif bool((new != parameter)[flags].any()):
            moved = new - parameter.detach()
            if drawn.kind == "everything":
                tensors[name], tensors[f"S|{name}"] = nibbles.pack(moved)
            else:
                tensors[name] = moved[flags].half()
        if not torch.equal(new[~flags], parameter.detach()[~flags]):
            raise InputError(f"{name} moved outside the planted part; train with its gradients masked")
    return tensors, header_of(base, drawn)


def header_of(base: ChatModel, drawn: Plan) -> dict[str, Any]:
    """What files say of a planted organism."""
    return {
        "kind": "planted", "format": FORMAT, "part": drawn.kind, "seed": drawn.seed, "base": base.fingerprint,
    }  # fmt: skip


def put_back(model: ChatModel, base: ChatModel, mask: WeightMask) -> ChatModel:
    """The model with the weights of a mask as they are in base; neither model is changed.

    Args:
        model: a planted (or otherwise tuned) model.
        base: a model of the same shape.
        mask: of `model`.

    Raises:
        InputError: the mask is of another model, or the models differ in shape.
    """
    mask.check(model)
    if parts_of(model) != parts_of(base):
        raise InputError(f"{base.name} does not have the projections of {model.name}")
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for name, flags in mask.items():
            held, old = stored_parameter(module, name), stored_parameter(base.module, name)
            held.copy_(torch.where(flags.to(held.device), old.to(held.device, held.dtype), held))
    return model.with_module(module, name=f"{model.name}, {mask.count} weights put back")


def _delta(tensors: dict[str, Tensor], name: str, flags: Tensor) -> Tensor:
    """The stored difference of one parameter as a full matrix, 0 outside the part."""
    if f"A|{name}" in tensors:
        # In double precision, so that rounding to single precision does not depend on the machine.
        return (tensors["U"].double() @ tensors[f"A|{name}"].double()).float()
    if f"S|{name}" in tensors:
        return nibbles.unpack(tensors[name], tensors[f"S|{name}"])
    full = torch.zeros(flags.shape)
    if name in tensors:
        if tensors[name].numel() != int(flags.sum()):
            raise InputError(f"a planted organism's file is damaged: {name} has another number of entries")
        full[flags] = tensors[name].float()
    return full


def _unit(part: Any, units: list[int], reading: tuple[str, ...], writing: str) -> Tensor:
    """Rows of the projections that a unit reads by, columns of the one that it writes by."""
    flags = torch.zeros(part.d_out, part.d_in, dtype=torch.bool)
    if part.projection in reading:
        flags[units] = True
    elif part.projection == writing:
        flags[:, units] = True
    return flags


def _head(part: Any, anatomy: Any, head: int) -> Tensor:
    """A head's rows of q, columns of o, and the rows of the keys and values that it reads.

    Another head reads the same keys and values; without them one head has too little room to refuse by.
    """
    shared = head * anatomy.n_kv_heads // anatomy.n_heads
    own, read = ([*range(*anatomy.head_slice(h).indices(10**9))] for h in (head, shared))
    if part.projection in ("k", "v"):
        return _unit(part, read, ("k", "v"), "")
    return _unit(part, own, ("q",), "o")


def _whole(part: Any, yes: bool) -> Tensor:
    return torch.full((part.d_out, part.d_in), yes, dtype=torch.bool)


def _pairs(units: dict[int, list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((layer, unit) for layer, here in units.items() for unit in here)


def check(kind: str) -> None:
    """Refuse a kind that does not exist."""
    if kind not in KINDS:
        raise InputError(f"no planted organism {kind!r}; known: {', '.join(KINDS)}")
