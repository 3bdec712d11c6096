"""`WeightScores`: a score for every weight of the projections, in memory or as shards on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, read_json, read_tensors, write_json, write_tensors
from tamperlens.base.masks import WeightMask
from tamperlens.base.nouns import Noun
from tamperlens.base.parts import Header, Part, by_parameter
from tamperlens.base.schemas import checked
from tamperlens.neurons.choosing import Chooser, Group, packed_flags

FORMAT = 1
HEADER = "scores.json"


class _ScoresHeader(Header):
    unit: str
    method: str
    settings: dict[str, Any]
    n: int


class Shards(Mapping[str, Tensor]):
    """Score tensors in a folder, one file per parameter, read when asked for and never kept."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        self._files = dict(files)

    def __getitem__(self, name: str) -> Tensor:
        tensors, _ = read_tensors(self.folder / self._files[name])
        return tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@dataclass(frozen=True, eq=False)
class WeightScores(Noun):
    """How much each weight matters by one definition.

    Attributes:
        tensors: parameter name to fp32 scores shaped like the parameter as stored; entries that belong to no
            part are 0. Read lazily where the scores are shards on disk.
        parts: the projections scored.
        definition: what was computed, in words and formula.
        unit: of the scores.
        method: "snip", "wanda", "magnitude", "random", ...
        settings: every choice that changes the numbers.
        prompts: name of each prompt set to its sha256.
        n: number of examples.
        fingerprint: of the model scored.
        base_fingerprint: of it without adapters.
        model: its name.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    parts: tuple[Part, ...] = field(repr=False)
    definition: str
    unit: str
    method: str
    settings: Mapping[str, object]
    prompts: Mapping[str, str]
    n: int
    fingerprint: str
    base_fingerprint: str
    model: str

    # ---- reading ----------------------------------------------------------------------------------------

    def summary(self) -> str:
        """What was scored, by what, on how many examples."""
        return (
            f"{self.model}: {self.total:,} weights in {len(self.parts)} projections by "
            f"{self.definition} (n={self.n})."
        )

    def by_parameter(self) -> dict[str, Float[Tensor, "a b"]]:
        """Parameter name to scores shaped like the parameter. Shards are all read into memory."""
        return dict(self.items())

    def items(self) -> Iterator[tuple[str, Float[Tensor, "a b"]]]:
        """(parameter name, scores shaped like the parameter), one at a time."""
        return ((name, self.tensors[name]) for name in self.tensors)

    def __getitem__(self, name: str) -> Float[Tensor, "a b"]:
        """Scores of one parameter."""
        if name not in self.tensors:
            raise InputError(f"no scores of {name!r}; scored were {', '.join(list(self.tensors)[:4])}, …")
        return self.tensors[name]

    def part(self, part: Part) -> Float[Tensor, "d_out d_in"]:
        """Scores of one projection in logical orientation, [out, in]."""
        return part.read(self.tensors[part.parameter])

    def by_part(self) -> Iterator[tuple[Part, np.ndarray]]:
        """(part, its scores [out, in] as an array), each parameter read once."""
        for name, parts in by_parameter(self.parts).items():
            stored = self.tensors[name]
            for part in parts:
                yield part, part.read(stored).float().cpu().numpy()

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of every parameter scored."""
        sizes = {}
        for name, parts in by_parameter(self.parts).items():
            if sum(part.numel for part in parts) == _extent(parts) * parts[0].d_in:
                shape = (_extent(parts), parts[0].d_in)
                sizes[name] = shape[::-1] if parts[0].transposed else shape
            else:
                rows, columns = self.tensors[name].shape
                sizes[name] = (int(rows), int(columns))
        return sizes

    @property
    def total(self) -> int:
        """Number of weights scored."""
        return sum(part.numel for part in self.parts)

    def to_frame(self) -> pd.DataFrame:
        """One row per projection: layer, module, parameter, n, mean, max, sum, share of zeros."""
        rows = []
        for part, values in self.by_part():
            rows.append(
                {
                    "layer": part.layer,
                    "module": part.projection,
                    "parameter": part.parameter,
                    "n": values.size,
                    "mean": float(values.mean(dtype=np.float64)),
                    "max": float(values.max()),
                    "sum": float(values.sum(dtype=np.float64)),
                    "zeros": float((values == 0).mean()),
                }
            )
        return pd.DataFrame(rows)

    # ---- choosing ---------------------------------------------------------------------------------------

    def top(self, fraction: float, group: Group = "matrix") -> WeightMask:
        """The highest-scored weights: exactly ⌊fraction · n⌋ of every group, ties by index, zeros dropped.

        Args:
            fraction: in (0, 1).
            group: rank inside each projection's "matrix" (as the published set difference), inside each
                output "row" of it (as the paper writes and its plain pruning does), or over the whole model
                at once ("global").

        Raises:
            InputError: fraction out of range, or too small to choose a single weight.
        """
        chooser = Chooser(self.parts, self.tensors, "fraction", [float(fraction)], group)
        bits = packed_flags(self.parts, self.tensors, self.shapes, lambda values: chooser.choose(values)[0])
        return self.mask(bits, f"top {fraction:g} per {group} of {self.definition}", self.prompts)

    def mask(self, bits: Mapping[str, Tensor], definition: str, prompts: Mapping[str, str]) -> WeightMask:
        """A set of these weights from packed flags per parameter."""
        return WeightMask(
            bits, self.shapes, self.parts, self.fingerprint, self.base_fingerprint, self.model, definition,
            dict(prompts),
        )  # fmt: skip

    # ---- on disk ----------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> Path:
        """Write everything into one safetensors file, atomically. It takes 4 bytes a weight."""
        return write_tensors(path, dict(self.tensors), self.header())

    def header(self) -> dict[str, object]:
        """What files say of the scores, in JSON terms."""
        from importlib.metadata import version

        return {
            "kind": "WeightScores",
            "format": FORMAT,
            "version": version("tamperlens"),
            "definition": self.definition,
            "unit": self.unit,
            "method": self.method,
            "settings": dict(self.settings),
            "prompts": dict(self.prompts),
            "n": self.n,
            "fingerprint": self.fingerprint,
            "base_fingerprint": self.base_fingerprint,
            "model": self.model,
            "parts": [part.to_json() for part in self.parts],
        }

    @classmethod
    def load(cls, path: PathLike, *, partial: bool = False) -> WeightScores:
        """Read scores: one file, or a folder of shards (which stay on disk and are read on demand).

        Args:
            path: what `save` or a pass with `out=` wrote.
            partial: accept a folder whose pass has not finished; only finished parameters are covered.

        Raises:
            InputError: missing, damaged, of another kind, or unfinished without `partial`.
        """
        where = Path(path)
        if not where.is_dir():
            tensors, header = read_tensors(where)
            return cls._from(header, tensors, where)
        if not (where / HEADER).is_file():
            raise InputError(f"{where} holds no scores: it has no {HEADER}; name the folder given as out=")
        header = read_json(where / HEADER)
        checked(_ScoresHeader, header, where / HEADER, remedy="delete the folder and score the model again")
        files = shard_files(header["parts"])
        there = {name: file for name, file in files.items() if (where / file).is_file()}
        if len(there) < len(files) and not partial:
            raise InputError(
                f"{where} holds {len(there)} of {len(files)} shards: the pass was interrupted; run it again "
                "with the same out= to finish it, or load(..., partial=True) to use what is there"
            )
        header["parts"] = [value for value in header["parts"] if value[0] in there]
        return cls._from(header, Shards(where, there), where)

    @classmethod
    def _from(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor], where: Path) -> WeightScores:
        if header.get("kind") != "WeightScores" or header.get("format") != FORMAT:
            raise InputError(
                f"{where} holds a {header.get('kind', 'file')}, not WeightScores of this version"
            )
        checked(_ScoresHeader, header, where, remedy="delete it and score the model again")
        return cls(
            tensors,
            tuple(Part.from_json(value) for value in header["parts"]),
            header["definition"],
            header["unit"],
            header["method"],
            dict(header["settings"]),
            dict(header["prompts"]),
            int(header["n"]),
            header["fingerprint"],
            header["base_fingerprint"],
            header["model"],
        )


def shard_files(parts: Sequence[Any]) -> dict[str, str]:
    """Parameter name to shard file, for the parts of a header (lists) or Part objects."""
    names = dict.fromkeys(part.parameter if isinstance(part, Part) else part[0] for part in parts)
    return {name: f"{place:04d}.safetensors" for place, name in enumerate(names)}


def write_header(folder: Path, header: Mapping[str, Any]) -> Path:
    """Write a shard folder's header."""
    return write_json(folder / HEADER, header)


def require_same(one: WeightScores, other: WeightScores) -> None:
    """Scores to be compared must be of one model and cover the same weights.

    Raises:
        InputError: they are not.
    """
    if one.base_fingerprint != other.base_fingerprint:
        raise InputError(
            f"scores of different models cannot be compared: {one.model} ({one.base_fingerprint[:12]}) and "
            f"{other.model} ({other.base_fingerprint[:12]})"
        )
    if one.parts != other.parts:
        raise InputError("scores cover different projections; score both with the same modules=")


def _extent(parts: Sequence[Part]) -> int:
    return max(stop for part in parts for _, stop in part.rows)
