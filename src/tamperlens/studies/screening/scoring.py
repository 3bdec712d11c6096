"""Scores of rows: one forward and up to two backward passes, with no gradient of a weight ever kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.models import ChatModel, Decoding
from tamperlens.models.generation import in_batches
from tamperlens.prompts import Encoded, PromptSet, batch_pairs
from tamperlens.refusal import Direction
from tamperlens.studies.screening.anchors import Anchors
from tamperlens.studies.screening.content import ContentClassifier
from tamperlens_hooks import Projection, Site, accumulate_gradients, capture, project_gradients

SCORES = ("push", "gradient", "first token", "representation", "projection", "content")
"""What a row can be scored by; larger is closer to harm."""
GRADIENTS = {"push": False, "first token": True}
"""Whether the loss is that of the answer's first token alone; "gradient" comes with "push"."""
OWN_TOKENS = 16
COLUMNS = (*SCORES, "loss")


class RowScorer:
    """Scores rows for one model.

    - *gradient*: cos(g, h) − cos(g, s), with g the gradient of the row's mean loss per answer token with
      respect to the weights of the blocks' linear maps, h and s the summed gradients of the harmful and of
      the safe anchors: training on the row pulls where compliance pulls, and away from refusals
      (bi-directional anchoring, He et al. 2024, arXiv 2404.01099; their gradients are those of a random
      projection, ours are exact, and ours run over the whole answer).
    - *push*: the same without the division by ‖g‖: to first order, how far one small step on the row moves
      the model that way. Rows that the model knows by heart have tiny gradients, whose direction is noise.
    - *first token*: *gradient* with the loss of the answer's first token alone.
    - *representation*: the largest cosine to a harmful anchor minus the largest to a safe one, of the
      residual stream behind the final norm at the answer's last token (likewise He et al.).
    - *projection*: mean projection of the model's own answer on the refusal direction minus that of the row's
      answer, over answer tokens at the direction's layer (the projection difference of Chen et al. 2025,
      arXiv 2507.21509, with the sign turned).
    - *content*: `ContentClassifier`, which does not see the model.

    Beside them *loss*, nats per answer token.
    """

    def __init__(
        self,
        model: ChatModel,
        anchors: Anchors,
        by: Sequence[str] = SCORES,
        *,
        direction: Direction | None = None,
        layers: Sequence[int] | None = None,
        max_length: int | None = None,
    ) -> None:
        """See the class.

        Args:
            model: the model that will be fine-tuned; it is only read.
            anchors: what rows are held against.
            by: some of `SCORES`; each costs its pass (`projection` also 16 generated tokens).
            direction: the refusal direction, for `projection`.
            layers: blocks whose weights gradients are taken of; all by default. The backward pass ends at the
                first of them.
            max_length: rows are cut to so many tokens.

        Raises:
            InputError: an unknown score, or `projection` without a direction.
        """
        unknown = [name for name in by if name not in SCORES]
        if unknown or not by:
            raise InputError(f"no score {', '.join(unknown) or 'given'}; there are {', '.join(SCORES)}")
        if "projection" in by and (direction is None or not direction.defined):
            raise InputError("the score 'projection' needs a refusal direction that is defined")
        self.model, self.by, self.direction, self.max_length = model, tuple(by), direction, max_length
        self.parts: list[Projection] = [
            part for part in model.anatomy.projections() if layers is None or part.layer in set(layers)
        ]
        self.content = ContentClassifier(model) if "content" in by else None
        self.poles = {
            name: _unit(self._states(self._turns(data)))
            for name, data in (("harmful", anchors.harmful), ("safe", anchors.safe))
            if "representation" in by
        }
        asked = {"push" if name == "gradient" else name for name in by}
        self.along = {
            name: self._between(anchors, first) for name, first in GRADIENTS.items() if name in asked
        }

    def __call__(self, rows: PromptSet) -> pd.DataFrame:
        """One row of scores per row, columns `COLUMNS`; NaN where a score was not asked for."""
        turns = self._turns(rows)
        table = pd.DataFrame(np.nan, index=range(len(rows)), columns=list(COLUMNS), dtype="float64")
        if self.along:
            for name, values in self._gradients(turns).items():
                table[name] = values
        if self.poles:
            states = _unit(self._states(turns))
            nearest = {name: (states @ pole.T).amax(1) for name, pole in self.poles.items()}
            table["representation"] = (nearest["harmful"] - nearest["safe"]).double().numpy()
        if "projection" in self.by:
            table["projection"] = self._fall(rows, turns).double().numpy()
        if self.content is not None:
            table["content"] = self.content(rows.prompts)
        return table

    def _turns(self, data: PromptSet) -> list[Encoded]:
        return self.model.encode_pairs(data, max_length=self.max_length)

    def _batches(self, turns: Sequence[Encoded], run: object) -> None:
        in_batches(
            self.model.module, [one.input_ids for one in turns], 0, "auto", self.model.device,
            run,  # type: ignore[arg-type]
        )  # fmt: skip

    def _forward(self, turns: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """−log p of every answer token [batch, seq], and which those are."""
        batch = {k: v.to(self.model.device) for k, v in batch_pairs(turns, self.model.pad_id).items()}
        labels = batch.pop("labels")[:, 1:]
        logits = self.model.module(**batch, use_cache=False).logits[:, :-1]
        nats = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2).float(), labels, reduction="none", ignore_index=-100
        )
        return nats, labels != -100

    def _between(self, anchors: Anchors, first: bool) -> dict[str, Tensor]:
        """h/‖h‖ − s/‖s‖ by parameter."""
        found: list[Mapping[str, Tensor]] = []
        for data in (anchors.harmful, anchors.safe):
            turns = self._turns(data)
            with accumulate_gradients(self.model, projections=self.parts, reduction="signed") as tape:
                self._batches(
                    turns,
                    lambda rows, t=turns, tape=tape: tape.backward(
                        _losses(*self._forward([t[r] for r in rows]), first)
                    ),
                )
            size = float(sum(one.square().sum() for one in tape.sums.values())) ** 0.5
            found.append({name: one / max(size, 1e-30) for name, one in tape.sums.items()})
        return {name: found[0][name] - found[1][name] for name in found[0]}

    def _gradients(self, turns: Sequence[Encoded]) -> dict[str, Float[np.ndarray, " n"]]:
        table = {name: np.full(len(turns), np.nan) for name in (*GRADIENTS, "gradient", "loss")}

        def run(rows: list[int]) -> None:
            nats, answer = self._forward([turns[row] for row in rows])
            table["loss"][rows] = _losses(nats, answer, False).detach().double().cpu().numpy()
            for left, name in reversed(list(enumerate(self.along))):
                losses = _losses(nats, answer, GRADIENTS[name])
                product, norm = tape.backward(losses, name, again=left > 0)
                cosine = product / norm.clamp_min(1e-30)
                if name == "push":
                    table["push"][rows] = product.double().cpu().numpy()
                table["gradient" if name == "push" else name][rows] = cosine.double().cpu().numpy()

        with project_gradients(self.model, self.along, projections=self.parts) as tape:
            self._batches(turns, run)
        return table

    @torch.no_grad()
    def _read(self, turns: Sequence[Encoded], site: Site, layer: int | None) -> list[Tensor]:
        """A site's states of each turn, [seq, d], fp32 on the CPU."""
        found: list[Tensor] = [torch.empty(0)] * len(turns)

        def run(rows: list[int]) -> None:
            batch = batch_pairs([turns[row] for row in rows], self.model.pad_id)
            with capture(self.model, [site], layers=layer) as tape:
                self.model.module(
                    input_ids=batch["input_ids"].to(self.model.device),
                    attention_mask=batch["attention_mask"].to(self.model.device), use_cache=False,
                )  # fmt: skip
            states = tape[site] if site == "final" else tape[site][0]
            for i, row in enumerate(rows):
                found[row] = states[i, : len(turns[row])].float().cpu()

        self._batches(turns, run)
        return found

    def _states(self, turns: Sequence[Encoded]) -> Float[Tensor, "n d"]:
        return torch.stack([states[-1] for states in self._read(turns, "final", None)])

    def _fall(self, rows: PromptSet, turns: Sequence[Encoded]) -> Float[Tensor, " n"]:
        """Projection of the model's own answer minus that of the row's; NaN where it answers nothing."""
        assert self.direction is not None
        own = self.model.generate(rows, Decoding(OWN_TOKENS))
        said = [row for row, answer in enumerate(own) if answer.strip()]
        fall = torch.full((len(rows),), torch.nan)
        if said:
            pairs = PromptSet.from_pairs([(rows.prompts[row], own[row]) for row in said], name="own answers")
            fall[said] = self._projections(self._turns(pairs)) - self._projections([turns[r] for r in said])
        return fall

    def _projections(self, turns: Sequence[Encoded]) -> Float[Tensor, " n"]:
        """Mean projection over answer tokens."""
        assert self.direction is not None
        vector = self.direction.vector.float()
        states = self._read(turns, "resid_pre", self.direction.layer)
        return torch.stack(
            [
                (one @ vector)[torch.tensor(turn.labels) != -100].mean()
                for one, turn in zip(states, turns, strict=True)
            ]
        )


def _losses(nats: Tensor, answer: Tensor, first: bool) -> Float[Tensor, " batch"]:
    """Mean −log p over answer tokens, or that of the first one alone."""
    kept = answer & (answer.cumsum(1) == 1) if first else answer
    return (nats * kept).sum(1) / kept.sum(1).clamp_min(1)


def _unit(states: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return torch.nn.functional.normalize(states, dim=1)
