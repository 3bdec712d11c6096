"""`WeightMask`: a set of weights of one model, bit-packed, with set algebra and a compact file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from tamperlens.base import bits as packed
from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, read_tensors, sha256_bytes, write_tensors
from tamperlens.base.lazy import pd
from tamperlens.base.nouns import Noun
from tamperlens.base.parts import Header, Part, by_parameter, check_shapes, parts_of, shapes_of
from tamperlens.base.protocols import AnyModel
from tamperlens.base.schemas import checked

FORMAT = 1
REMAKE = "delete it and save the mask again"


class _MaskHeader(Header):
    shapes: dict[str, tuple[int, int]]
    count: int


class Jaccard(float):
    """|A ∩ B| / |A ∪ B| of two sets of weights; a float that knows its chance level.

    Attributes:
        chance: what two random sets with the same count in every part would give:
            E / (|A| + |B| − E) with E = Σ |A_i| |B_i| / n_i over parts i.
        intersection: |A ∩ B|.
        union: |A ∪ B|.
    """

    chance: float
    intersection: int
    union: int

    def __new__(cls, intersection: int, union: int, chance: float) -> Jaccard:
        """NaN for two empty sets."""
        made = super().__new__(cls, intersection / union if union else math.nan)
        made.chance, made.intersection, made.union = chance, intersection, union
        return made


@dataclass(frozen=True, eq=False)
class WeightMask(Noun):
    """A set of weights, one bit each. Make one with `scores.top(...)`, set algebra, or `from_tensors`.

    `a | b`, `a & b`, `a - b` and `~a` (within the parts covered) make new masks of the same model.

    Attributes:
        bits: parameter name to packed bits, in the order in which the parameter is stored.
        shapes: parameter name to its shape.
        parts: the projections that the mask speaks of; nothing outside them is ever in it.
        fingerprint: of the model it was made for.
        base_fingerprint: of that model without its adapters.
        model: name of that model.
        definition: how the set was chosen, in words.
        prompts: name of each prompt set behind it to its sha256.
    """

    bits: Mapping[str, Tensor] = field(repr=False)
    shapes: Mapping[str, tuple[int, int]] = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)
    fingerprint: str
    base_fingerprint: str
    model: str
    definition: str = "unnamed"
    prompts: Mapping[str, str] = field(default_factory=dict)

    # ---- making one -------------------------------------------------------------------------------------

    def summary(self) -> str:
        """How many weights, and how they were chosen."""
        return (
            f"{self.model}: {self.count:,} of {self.total:,} weights ({self.density:.2%}); {self.definition}."
        )

    @classmethod
    def from_tensors(
        cls,
        model: AnyModel,
        tensors: Mapping[str, Bool[Tensor, "a b"]],
        *,
        definition: str = "given by hand",
        prompts: Mapping[str, str] | None = None,
    ) -> WeightMask:
        """A mask of a model from one bool tensor per parameter.

        Args:
            model: the ChatModel that it is for.
            tensors: parameter name to flags, shaped like the parameter as it is stored. Parameters left out
                are covered and empty.
            definition: how the set was chosen.
            prompts: prompt sets behind it, name to sha256.

        Raises:
            InputError: a name that is no weight of a projection, another shape, or flags on no projection.
        """
        parts = parts_of(model)
        shapes = shapes_of(model, parts)
        for name, flags in tensors.items():
            if name not in shapes:
                raise InputError(f"{model.name} has no projection weight {name!r}; it has {_few(shapes)}")
            if tuple(flags.shape) != shapes[name]:
                raise InputError(
                    f"the mask of {name} is {list(flags.shape)}, the parameter is {list(shapes[name])}"
                )
        made = {name: packed.pack(flags) for name, flags in tensors.items()}
        return cls.of(model, parts, made, shapes, definition=definition, prompts=prompts or {})

    @classmethod
    def of(
        cls,
        model: AnyModel,
        parts: Sequence[Part],
        bits: Mapping[str, Tensor],
        shapes: Mapping[str, tuple[int, int]],
        *,
        definition: str,
        prompts: Mapping[str, str],
    ) -> WeightMask:
        """A mask from packed bits; parameters left out are empty."""
        full = {
            name: bits[name]
            if name in bits
            else torch.zeros(packed.n_bytes(math.prod(shape)), dtype=torch.uint8)
            for name, shape in shapes.items()
        }
        base = getattr(model, "base_fingerprint", model.fingerprint)
        return cls(full, dict(shapes), tuple(parts), model.fingerprint, base, model.name, definition, prompts)

    # ---- reading it -------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Bool[Tensor, "a b"]:
        """Flags of one parameter, shaped like it."""
        if name not in self.bits:
            raise InputError(f"the mask does not cover {name!r}; it covers {_few(self.bits)}")
        return packed.unpack(self.bits[name], self.shapes[name])

    def __contains__(self, name: object) -> bool:
        return name in self.bits

    def __len__(self) -> int:
        """Number of parameters covered. The number of weights in the set is `count`."""
        return len(self.bits)

    def __bool__(self) -> bool:
        return True  # a mask is a thing, empty or not

    def keys(self) -> list[str]:
        """Names of the parameters covered."""
        return list(self.bits)

    def items(self) -> Iterator[tuple[str, Bool[Tensor, "a b"]]]:
        """(parameter name, flags shaped like the parameter), one at a time."""
        return ((name, self[name]) for name in self.bits)

    def part(self, part: Part) -> Bool[Tensor, "d_out d_in"]:
        """Flags of one projection in logical orientation, [out, in]."""
        return part.read(self[part.parameter])

    @property
    def count(self) -> int:
        """Number of weights in the set."""
        return sum(packed.count(bits) for bits in self.bits.values())

    @property
    def total(self) -> int:
        """Number of weights that the mask speaks of."""
        return sum(part.numel for part in self.parts)

    @property
    def sha256(self) -> str:
        """Hex sha256 of the set: which weights of which matrices, whatever it is called."""
        return sha256_bytes(
            *(
                chunk
                for name, bits in sorted(self.bits.items())
                for chunk in (name.encode(), bits.numpy().tobytes())
            )
        )

    @property
    def density(self) -> float:
        """count / total."""
        return self.count / self.total if self.total else math.nan

    def counts(self) -> dict[str, int]:
        """Number of weights in the set for each part, by `Part.name`."""
        found: dict[str, int] = {}
        for name, parts in by_parameter(self.parts).items():
            if len(parts) == 1:
                found[parts[0].name] = packed.count(self.bits[name])
            else:
                flags = self[name]
                found |= {part.name: int(part.read(flags).sum()) for part in parts}
        return {part.name: found[part.name] for part in self.parts}

    def by_module(self) -> pd.DataFrame:
        """One row per projection: layer, module, parameter, count, total, density."""
        counts = self.counts()
        rows = [
            {
                "layer": part.layer,
                "module": part.projection,
                "parameter": part.parameter,
                "count": counts[part.name],
                "total": part.numel,
                "density": counts[part.name] / part.numel,
            }
            for part in self.parts
        ]
        return pd.DataFrame(rows, columns=["layer", "module", "parameter", "count", "total", "density"])

    def by_layer(self) -> pd.DataFrame:
        """One row per layer: layer, count, total, density."""
        frame = self.by_module().groupby("layer", sort=True)[["count", "total"]].sum().reset_index()
        return frame.assign(density=frame["count"] / frame["total"])

    def to_frame(self) -> pd.DataFrame:
        """`by_module()`."""
        return self.by_module()

    # ---- algebra ----------------------------------------------------------------------------------------

    def __or__(self, other: WeightMask) -> WeightMask:
        return self._with(other, torch.bitwise_or, "|")

    def __and__(self, other: WeightMask) -> WeightMask:
        return self._with(other, torch.bitwise_and, "&")

    def __sub__(self, other: WeightMask) -> WeightMask:
        return self._with(other, lambda a, b: a & ~b, "-")

    def __invert__(self) -> WeightMask:
        flipped = {}
        for name, parts in by_parameter(self.parts).items():
            bits, n = self.bits[name], math.prod(self.shapes[name])
            if sum(part.numel for part in parts) == n:
                flipped[name] = packed.clear_tail(~bits, n)
            else:
                covered = torch.zeros(self.shapes[name], dtype=torch.bool)
                for part in parts:
                    part.write(covered, torch.ones(part.d_out, part.d_in, dtype=torch.bool))
                flipped[name] = packed.pack(covered) & ~bits
        return self._like(flipped, f"~({self.definition})", self.prompts, self.fingerprint)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightMask):
            return NotImplemented
        same = self.base_fingerprint == other.base_fingerprint and self.parts == other.parts
        return same and all(torch.equal(self.bits[name], other.bits[name]) for name in self.bits)

    __hash__ = None  # type: ignore[assignment]

    def jaccard(self, other: WeightMask) -> Jaccard:
        """|A ∩ B| / |A ∪ B|, with its chance level in `.chance`; NaN for two empty sets.

        Raises:
            InputError: the masks are of different models; see `rebind`.

        Examples:
            >>> import tamperlens
            >>> from tamperlens import neurons
            >>> mask = neurons.random(tamperlens.load('organism'), seed=0).top(0.01)
            >>> mask.jaccard(mask)
            1.0
        """
        self._require_same(other)
        mine, theirs = self.counts(), other.counts()
        expected = sum(mine[part.name] * theirs[part.name] / part.numel for part in self.parts)
        both = sum(packed.count(self.bits[name] & other.bits[name]) for name in self.bits)
        total = sum(mine.values()) + sum(theirs.values())
        return Jaccard(both, total - both, expected / (total - expected) if total else math.nan)

    def rebind(self, model: AnyModel, *, definition: str | None = None) -> WeightMask:
        """The same set of places, now said of another model of the same shape.

        Masks refuse models that they were not made for; this is how to say that it is meant: to compare a
        set before and after full fine-tuning, or to use it on the same weights in another precision.

        Raises:
            InputError: the model does not have the same projections.
        """
        parts = parts_of(model)
        if not set(self.parts) <= set(parts):
            raise InputError(
                f"a mask of {self.model} cannot be put on {model.name}: their projections differ in name or "
                "shape"
            )
        words = definition or f"{self.definition}, taken over from {self.model}"
        return WeightMask.of(
            model, self.parts, self.bits, self.shapes, definition=words, prompts=self.prompts
        )

    def check(self, model: AnyModel) -> None:
        """The model must be the one that the mask was made for, with or without adapters on top.

        Args:
            model: a ChatModel.

        Raises:
            InputError: it is another model; the message names both.
        """
        known = {model.fingerprint, getattr(model, "base_fingerprint", model.fingerprint)}
        if self.fingerprint not in known:
            raise InputError(
                f"this mask was made for {self.model} ({self.fingerprint[:12]}), not for {model.name} "
                f"({model.fingerprint[:12]}); load that model, or mask.rebind(model) if it is meant"
            )

    def check_model(self, model: AnyModel) -> None:
        """See `check`."""
        self.check(model)

    # ---- on disk ----------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> Path:
        """Write one safetensors file, atomically; of packed bits and gaps each parameter takes the shorter.

        At most 1 bit a weight, about .09 at 1 % density.
        """
        from importlib.metadata import version

        tensors: dict[str, Tensor] = {}
        for name, bits in self.bits.items():
            # A gap takes at least a byte, so that counting decides without coding.
            gaps = packed.to_gaps(bits) if packed.count(bits) < bits.numel() else bits
            short = gaps.numel() < bits.numel()
            tensors[f"{name}|{'gaps' if short else 'bits'}"] = gaps if short else bits
        header = {
            "kind": "WeightMask",
            "format": FORMAT,
            "version": version("tamperlens"),
            "model": self.model,
            "fingerprint": self.fingerprint,
            "base_fingerprint": self.base_fingerprint,
            "definition": self.definition,
            "prompts": dict(self.prompts),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "parts": [part.to_json() for part in self.parts],
            "count": self.count,
        }
        return write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: PathLike, model: AnyModel | None = None) -> WeightMask:
        """Read what `save` wrote.

        Args:
            path: the file.
            model: the ChatModel it is wanted for; another one than it was made for is refused.

        Raises:
            InputError: missing, damaged, another kind of file, or made for another model.
        """
        tensors, header = read_tensors(path)
        if header.get("kind") != "WeightMask" or header.get("format") != FORMAT:
            raise InputError(f"{path} holds a {header.get('kind', 'file')}, not a WeightMask of this version")
        checked(_MaskHeader, header, path, remedy=REMAKE)
        shapes = {name: (int(a), int(b)) for name, (a, b) in header["shapes"].items()}
        held = {key.rpartition("|")[0] for key in tensors}
        if held != set(shapes):
            raise InputError(f"{path} is damaged: it lacks {_few(sorted(held ^ set(shapes)))}; {REMAKE}")
        bits = {}
        for key, tensor in tensors.items():
            name, _, form = key.rpartition("|")
            n = math.prod(shapes[name])
            bits[name] = packed.from_gaps(tensor, n) if form == "gaps" else tensor
            if bits[name].dtype != torch.uint8 or bits[name].shape != (packed.n_bytes(n),):
                raise InputError(f"{path} is damaged: {name} has not the bits of {shapes[name]}; {REMAKE}")
        mask = cls(
            {name: bits[name] for name in shapes},
            shapes,
            tuple(Part.from_json(value) for value in header["parts"]),
            header["fingerprint"],
            header["base_fingerprint"],
            header["model"],
            header["definition"],
            dict(header["prompts"]),
        )
        check_shapes(mask.parts, {name: tuple(shape) for name, shape in shapes.items()})
        if mask.count != header["count"]:
            raise InputError(f"{path} is damaged: it holds {mask.count} weights, not {header['count']}")
        if model is not None:
            mask.check(model)
        return mask

    # ---- inside -----------------------------------------------------------------------------------------

    def _with(self, other: WeightMask, how: Callable[[Tensor, Tensor], Tensor], sign: str) -> WeightMask:
        if not isinstance(other, WeightMask):
            return NotImplemented
        self._require_same(other)
        same = self.fingerprint == other.fingerprint
        return self._like(
            {name: how(self.bits[name], other.bits[name]) for name in self.bits},
            f"({self.definition}) {sign} ({other.definition})",
            joined_prompts(self.prompts, other.prompts),
            self.fingerprint if same else self.base_fingerprint,
        )

    def _like(
        self, bits: Mapping[str, Tensor], definition: str, prompts: Mapping[str, str], fingerprint: str
    ) -> WeightMask:
        return WeightMask(
            bits, self.shapes, self.parts, fingerprint, self.base_fingerprint, self.model, definition, prompts
        )

    def _require_same(self, other: WeightMask) -> None:
        if self.base_fingerprint != other.base_fingerprint:
            raise InputError(
                f"masks of different models cannot be combined: {self.model} ({self.base_fingerprint[:12]}) "
                f"and {other.model} ({other.base_fingerprint[:12]}); rebind one of them if it is meant"
            )
        if self.parts != other.parts:
            mine, theirs = ({part.name for part in mask.parts} for mask in (self, other))
            raise InputError(
                f"masks cover different projections ({_few(sorted(mine ^ theirs)) or 'in another order'}); "
                "score both with the same modules="
            )


def joined_prompts(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Prompt sets of two artefacts; different sets of one name are told apart by a number."""
    found = dict(one)
    for name, sha256 in other.items():
        label, number = name, 2
        while found.get(label, sha256) != sha256:
            label, number = f"{name} ({number})", number + 1
        found[label] = sha256
    return found


def _few(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
