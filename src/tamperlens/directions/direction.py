"""`Direction`: a direction in the residual stream, with where it comes from and how it was chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result, scalars
from tamperlens.directions.tokens import RefusalTokens
from tamperlens.models import ChatModel
from tamperlens.plots import Plot

SITE = "resid_pre"


@dataclass(frozen=True, kw_only=True)
class Direction(Result):
    """A direction in the residual stream, with where it comes from and how it was chosen.

    Attributes:
        vector: unit vector, `[d_model]` float32; NaN when the means do not differ.
        raw_norm: length of the difference of means before it was made a unit vector; `raw` is what is added.
        layer: the block at whose input it was read.
        position: token position, negative, from the end of the rendered prompt.
        passed: whether it passes every filter; None when it was not selected but read at a given place.
        flag: why it does not pass, or why the vector is NaN; "" when all is well.
        bypass: mean refusal metric on harmful validation prompts with it ablated.
        induce: mean refusal metric on harmless validation prompts with it added.
        kl: mean KL divergence on harmless validation prompts with it ablated.
        baseline_harmful: mean refusal metric on the harmful validation prompts, nothing changed.
        baseline_harmless: the same on the harmless ones.
        table: every candidate with its scores (see `score_table`); empty when it was not selected.
        tokens: the refusal tokens of the metric; None when it was not selected.
        site: where in a block it was read.
        n_train: prompts per kind behind the means (harmful, harmless).
        n_val: prompts per kind behind the scores.
        seed: of the split.
        harmful_sha256: hash of the harmful prompts used.
        harmless_sha256: hash of the harmless prompts used.
        n_layers: blocks of the model.
        model: its name.
        fingerprint: its fingerprint.
        chat_format: how prompts were written for it.
        definition: the definition in words, with thresholds.
    """

    vector: Tensor
    raw_norm: float
    layer: int
    position: int
    passed: bool | None = None
    flag: str
    bypass: float = math.nan
    induce: float = math.nan
    kl: float = math.nan
    baseline_harmful: float = math.nan
    baseline_harmless: float = math.nan
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    tokens: RefusalTokens | None = None
    site: str = SITE
    n_train: tuple[int, int]
    n_val: tuple[int, int] = (0, 0)
    seed: int = 0
    harmful_sha256: str
    harmless_sha256: str
    n_layers: int
    model: str
    fingerprint: str
    chat_format: str
    definition: str

    def check_model(self, model: ChatModel) -> None:
        """Directions of one architecture can be compared and used in any of its models.

        Raises:
            InputError: the model has another width or number of blocks.
        """
        mine, theirs = (len(self.vector), self.n_layers), (model.d_model, model.n_layers)
        if mine != theirs:
            raise InputError(
                f"the direction was read in {self.model} (width {mine[0]}, {mine[1]} blocks), and "
                f"{model.name} has width {theirs[0]} and {theirs[1]} blocks; find one in that model"
            )

    def summary(self) -> str:
        """Where it sits, what it does, and whether it passes the filters."""
        if not self.defined:
            return f"{self.model} has no direction: {self.flag}."
        place = (
            f"{self.model}: the direction at layer {self.layer}, position {self.position}, norm "
            f"{self.raw_norm:.3g}"
        )
        if self.passed is None:
            return f"{place}, from {self.n_train[0]} harmful and {self.n_train[1]} harmless prompts."
        return (
            f"{place}; ablated, the refusal log-odds of harmful prompts go from {self.baseline_harmful:.2f} "
            f"to {self.bypass:.2f}; added, those of harmless ones from {self.baseline_harmless:.2f} to "
            f"{self.induce:.2f}; KL {self.kl:.2f}; {'passes all filters' if self.passed else self.flag}."
        )

    @property
    def raw(self) -> Float[Tensor, " d_model"]:
        """The difference of means itself, float32: what addition adds."""
        return self.vector * self.raw_norm

    @property
    def defined(self) -> bool:
        """False when the means do not differ and the vector is NaN."""
        return bool(torch.isfinite(self.vector).all())

    def to_frame(self) -> pd.DataFrame:
        """The candidate table with a column `chosen`; one row of scalars when there was no selection."""
        if self.table.empty:
            return scalars(vars(self))
        frame = self.table.copy()
        frame["chosen"] = (frame["position"] == self.position) & (frame["layer"] == self.layer)
        return frame

    def plot(self) -> Plot:
        """A `tamperlens.plots.Plot`: candidates by layer and position, the chosen one outlined, failures
        crossed.

        Raises:
            InputError: the direction was not selected, so there are no candidates.
        """
        from tamperlens.plots import direction_map

        if self.table.empty:
            raise InputError("this direction was read at a given place: there are no candidates to draw")
        tokens = self.table.drop_duplicates("position").sort_values("position")["token"].tolist()
        caption = (
            f"Mean log-odds of a refusal on {self.n_val[0]} harmful prompts while each candidate is ablated "
            f"({self.baseline_harmful:.1f} with nothing ablated); lower is better. In brackets: fails a "
            f"filter. Outlined: layer {self.layer}, position −{-self.position}. {self.flag}"
        ).strip()
        return direction_map(
            self.table, layer=self.layer, position=self.position, tokens=tokens, caption=caption
        )
