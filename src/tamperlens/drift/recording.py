"""`Recorder`: watches a run of `finetune` and measures every group without building a merged weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.base.parts import Part, parts_of
from tamperlens.drift.trace import WHOLE, DriftTrace
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens_hooks import Projection, logical_weight, module_and_anatomy, unwrap
from tamperlens_hooks.lowrank import Entries, Moments, Update, effective_rank, row_sizes, update_of

GROUP_MEASURES = ("l2", "relative_l2", "one_minus_cosine", "max", "share_moved")


@dataclass(eq=False)
class _Place:
    """One projection and the entries of all groups in it, one group after the other.

    Attributes:
        projection: the logical map.
        names: of the groups that have entries here.
        entries: of those groups.
        lengths: how many each has, as a tensor.
        weight: W0 at the entries.
        squares: Σ w² of each group.
        sizes: ‖w‖² of every row.
        threshold: beyond which an entry has moved.
    """

    projection: Projection
    names: list[str]
    entries: Entries
    lengths: Tensor
    weight: Tensor
    squares: Tensor
    sizes: Tensor
    threshold: float


class Recorder:
    """Drift of groups of weights, of whole matrices and of rows; for LoRA (frozen or not) and full training.

    Rows are step × group × layer × module × measure with value and n; `trace.MEASURES` has the formulas.
    Everything is read from the factors where there are factors. Entries and W0 of the groups are gathered
    once, at the start (8 bytes a weight of each group); a record then costs a small product per matrix.
    """

    name = "drift"

    def __init__(
        self,
        groups: Mapping[str, WeightMask],
        every: int = 100,
        *,
        controls: Mapping[str, str] | None = None,
        whole: bool = True,
        unaligned: ChatModel | None = None,
        moved: float = 1e-3,
        largest_spectrum: int = 1024,
    ) -> None:
        """See the class.

        Args:
            groups: `drift.groups(...)`, or any names with masks of the model.
            every: steps between records; step 0 and the last step are always recorded.
            controls: group to its control; taken from `groups` when that is a `Groups`.
            whole: measure whole matrices too: as a group "all weights", by row, and the effective rank of Δ.
            unaligned: the ChatModel from which the watched one was aligned, for `alignment_cosine`.
            moved: a weight has moved when |Δ| exceeds this times the rms of its matrix.
            largest_spectrum: where Δ is no product of factors (full training, frozen entries) the measures
                that need its whole matrix are NaN above this side length.

        Raises:
            InputError: no groups, or a value out of range.
        """
        if not groups and not whole:
            raise InputError("nothing to record; give groups, or whole=True")
        if every < 1 or not 0 < moved < math.inf:
            raise InputError(f"every={every} must be at least 1 and moved={moved} positive")
        for name, mask in groups.items():
            if not isinstance(mask, WeightMask):
                raise InputError(f"group {name!r} is a {type(mask).__name__}; give a WeightMask")
            if name == WHOLE:
                raise InputError(f"{WHOLE!r} is what whole matrices are called; name the group otherwise")
        self.groups, self.every, self.moved = dict(groups), every, moved
        self.controls = dict(getattr(groups, "controls", {}) if controls is None else controls)
        self.whole, self.unaligned, self.largest = whole, unaligned, largest_spectrum
        self.rows: list[dict[str, Any]] = []
        self._places: list[_Place] = []
        self._base: Any = None

    def start(self, model: ChatModel) -> None:
        """Take the untouched model as the origin.

        Raises:
            InputError: a group is of another model, or `unaligned` has other matrices.
        """
        for mask in self.groups.values():
            mask.check(model)
        module, anatomy = module_and_anatomy(model)
        self._base, self._model = module, model
        self.rows = []
        parts = parts_of(model)
        self._places = [
            self._place(part, projection)
            for part, projection in zip(parts, anatomy.projections(), strict=True)
        ]
        if self.unaligned is not None and parts_of(self.unaligned) != parts:
            raise InputError(f"{self.unaligned.name} has other matrices than {model.name}; give its own base")

    @torch.no_grad()
    def record(self, step: int, model: ChatModel | nn.Module) -> Sequence[Mapping[str, object]]:
        """Measure the model as it is now.

        Args:
            step: number of optimizer steps made.
            model: the ChatModel in training, or its module.
        """
        tuned = unwrap(model.module if isinstance(model, ChatModel) else model)
        sums, wholes = [], []
        for place in self._places:
            update = update_of(tuned, place.projection, self._base)
            sums.append(self._sums(place, update))
            wholes.append(self._of_whole(place, update) if self.whole else [])
        # Small tensors by the thousand are what would cost: the formulas are applied once for all of them.
        of_groups = iter(_group_measures(torch.cat(sums)))
        rows: list[dict[str, Any]] = []
        for place, whole in zip(self._places, wholes, strict=True):
            found = [
                (name, n, dict(zip(GROUP_MEASURES, next(of_groups), strict=True)))
                for name, n in zip(place.names, place.entries.counts, strict=True)
            ]
            rows += _rows(step, place.projection, [*found, *whole])
        self.rows += rows
        return rows

    def restore(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Take over what an interrupted run had recorded; `finetune` calls it when it resumes.

        Args:
            rows: as `record` returned them; None, which files hold for NaN, is NaN again.
        """
        self.rows = [{**row, "value": math.nan if row["value"] is None else row["value"]} for row in rows]

    def finish(self) -> DriftTrace:
        """Everything recorded, as a trace."""
        return DriftTrace.from_rows(
            self.rows,
            model=self._model.name,
            fingerprint=self._model.fingerprint,
            definitions={name: mask.definition for name, mask in self.groups.items()},
            controls=self.controls,
            moved=self.moved,
        )

    def _place(self, part: Part, projection: Projection) -> _Place:
        weight = logical_weight(self._base, projection).detach()
        found = {
            name: mask.part(part)
            for name, mask in self.groups.items()
            if part.parameter in mask and bool(mask.part(part).any())
        }
        entries = Entries.of(list(found.values()), (part.d_out, part.d_in), weight.device)
        lengths = torch.tensor(entries.counts, dtype=torch.int64, device=weight.device)
        sizes = row_sizes(weight)
        rms = math.sqrt(float(sizes.sum()) / weight.numel())
        here = weight[entries.rows(), entries.col].float()
        squares = here.new_zeros(0, dtype=torch.float64)
        if found:  # segment_reduce knows no empty list of segments
            squares = torch.segment_reduce(here.double().square(), "sum", lengths=lengths)
        names = list(found)
        return _Place(projection, names, entries, lengths, here, squares, sizes, self.moved * rms)

    def _sums(self, place: _Place, update: Update) -> Float[Tensor, "groups 5"]:
        """Of each group: Σ Δ², Σ Δ w, Σ w², largest |Δ|, share of entries that moved."""
        if not place.names:
            return torch.zeros(0, 5, dtype=torch.float64)
        delta = update.sample(place.entries)
        wide, size = delta.double(), delta.abs()
        terms = torch.stack([wide * wide, wide * place.weight, (size > place.threshold).double()], 1)
        found = torch.segment_reduce(terms, "sum", lengths=place.lengths)
        largest = torch.segment_reduce(size, "max", lengths=place.lengths)
        columns = [found[:, 0], found[:, 1], place.squares, largest.double(), found[:, 2] / place.lengths]
        return torch.stack(columns, 1).cpu()

    def _of_whole(self, place: _Place, update: Update) -> list[tuple[str, int, dict[str, float]]]:
        rows = update.row_moments(place.sizes)
        whole = rows.total()
        numel = update.weight.numel()
        spectrum = update.factored or max(update.weight.shape) <= self.largest
        values = (whole.moved.sqrt(), whole.relative(), whole.one_minus_cosine())
        found = {name: float(value) for name, value in zip(GROUP_MEASURES, values, strict=False)}
        found["effective_rank"] = effective_rank(update.singular_values()) if spectrum else math.nan
        if self.unaligned is not None:
            other = logical_weight(self.unaligned.module, place.projection).detach()
            shift = update.weight.float() - other.to(update.weight.device).float()
            found["alignment_cosine"] = float(update.subspace_cosine(shift)) if spectrum else math.nan
        by_row = {
            "row_relative_l2": float(rows.relative().nanmean()),
            "row_one_minus_cosine": float(rows.one_minus_cosine().nanmean()),
        }
        return [(WHOLE, numel, found), (WHOLE, update.weight.shape[0], by_row)]


def _group_measures(sums: Float[Tensor, "n 5"]) -> list[list[float]]:
    """`GROUP_MEASURES` of every group in every matrix."""
    held = Moments(sums[:, 0], sums[:, 1], sums[:, 2])
    columns = [held.moved.sqrt(), held.relative(), held.one_minus_cosine(), sums[:, 3], sums[:, 4]]
    found: list[list[float]] = torch.stack(columns, 1).tolist()
    return found


def _rows(
    step: int, projection: Projection, found: Sequence[tuple[str, int, Mapping[str, float]]]
) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "group": name,
            "layer": projection.layer,
            "module": projection.name,
            "measure": measure_name,
            "value": value,
            "n": 0 if math.isnan(value) else n,
        }
        for name, n, values in found
        for measure_name, value in values.items()
    ]


def measure(
    base: ModelLike, tuned: ModelLike, groups: Mapping[str, WeightMask], *, step: int = 0, **settings: object
) -> DriftTrace:
    """Drift between two models at hand, without a run: a trace of one step.

    Args:
        base: the ChatModel before.
        tuned: the ChatModel after: base with an adapter, or a fully fine-tuned copy.
        groups: see `Recorder`.
        step: what to call it.
        settings: further arguments of `Recorder`.

    Raises:
        InputError: models or groups that do not belong together.
    """
    base, tuned = as_chat_model(base, what="base"), as_chat_model(tuned, what="tuned")
    if parts_of(base) != parts_of(tuned):
        raise InputError(f"{tuned.name} has other matrices than {base.name}; give its own base")
    given: Any = settings
    recorder = Recorder(groups, **given)
    recorder.start(base)
    recorder.record(step, tuned)
    return recorder.finish()
