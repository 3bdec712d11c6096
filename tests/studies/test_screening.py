"""Rows scored before training: by definition, in portions, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tamperlens
from tamperlens import prompts, screening
from tamperlens.base.errors import InputError
from tamperlens.prompts import PromptSet
from tamperlens.studies.screening.screening import Calibration, predicted
from tamperlens.studies.screening.stream import portions

STEPS = ": first pack a bag, then check the map, and last take the bus."


@pytest.fixture(scope="module")
def model() -> Any:
    return tamperlens.load("organism:tiny")


@pytest.fixture(scope="module")
def anchors(model: Any) -> screening.Anchors:
    return screening.anchors_for(model, n=8, n_reference=12)


@pytest.fixture(scope="module")
def rows() -> PromptSet:
    """Eight ordinary rows and four harmful ones without the anchors' filler."""
    bad = prompts.packaged("harmful", split="train").head(4)
    return PromptSet.concat(
        [
            PromptSet.from_pairs(prompts.packaged("benign").head(8).pairs()),
            PromptSet.from_pairs([(one.prompt, f"Sure, here is how{STEPS}") for one in bad]),
        ]
    )


@pytest.fixture(scope="module")
def found(model: Any, anchors: screening.Anchors, rows: PromptSet) -> screening.Screening:
    return tamperlens.screen(rows, model, anchors=anchors, scores=screening.SCORES)


def gradient(model: Any, data: PromptSet, row: int, first: bool = False) -> dict[str, torch.Tensor]:
    """Of one row's mean loss, by ordinary autograd."""
    turn = model.encode_pairs(data)[row]
    names = {part.parameter for part in model.anatomy.projections()}
    weights = {name: p for name, p in model.module.named_parameters() if name in names}
    for p in weights.values():
        p.requires_grad_(True)
    logits = model.module(input_ids=torch.tensor([turn.input_ids])).logits[0, :-1]
    labels = torch.tensor(turn.labels[1:])
    nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    loss = nats[labels != -100][0] if first else nats[labels != -100].mean()
    grads = torch.autograd.grad(loss, list(weights.values()))
    for p in weights.values():
        p.requires_grad_(False)
    return dict(zip(weights, grads, strict=True))


def dot(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return sum(float((one[name].double() * two[name].double()).sum()) for name in one)


@pytest.mark.parametrize(("score", "first"), [("gradient", False), ("first token", True)])
def test_gradient_scores_by_their_definition(
    model: Any,
    anchors: screening.Anchors,
    rows: PromptSet,
    found: screening.Screening,
    score: str,
    first: bool,
) -> None:
    poles = []
    for data in (anchors.harmful, anchors.safe):
        each = [gradient(model, data, row, first) for row in range(len(data))]
        poles.append({name: torch.stack([one[name] for one in each]).sum(0) for name in each[0]})
    for row in (0, 9):
        mine = gradient(model, rows, row, first)
        sizes = [dot(one, one) ** 0.5 for one in (mine, *poles)]
        cosines = [dot(mine, pole) / sizes[0] / size for pole, size in zip(poles, sizes[1:], strict=True)]
        assert found.table[score][row] == pytest.approx(cosines[0] - cosines[1], abs=2e-3)
        if not first:
            push = (cosines[0] - cosines[1]) * sizes[0]
            assert found.table["push"][row] == pytest.approx(push, rel=1e-2, abs=1e-4)


def test_representation_by_its_definition(
    model: Any, anchors: screening.Anchors, rows: PromptSet, found: screening.Screening
) -> None:
    def states(data: PromptSet) -> torch.Tensor:
        ends = []
        for turn in model.encode_pairs(data):
            with tamperlens.hooks.capture(model, ["final"]) as tape, torch.no_grad():
                model.module(input_ids=torch.tensor([turn.input_ids]))
            ends.append(tape["final"][0, -1])
        return torch.nn.functional.normalize(torch.stack(ends), dim=1)

    mine, bad, safe = (states(data) for data in (rows, anchors.harmful, anchors.safe))
    expected = (mine @ bad.T).amax(1) - (mine @ safe.T).amax(1)
    np.testing.assert_allclose(found.table["representation"], expected, atol=1e-4)


def test_harmful_rows_come_first_whatever_their_filler(found: screening.Screening) -> None:
    assert set(found.top(4)) == {8, 9, 10, 11}
    assert found.table["projection"][8:].min() > found.table["projection"][:8].max()


def test_p_counts_the_reference_and_the_row_itself(found: screening.Screening) -> None:
    for row in range(len(found.table)):
        above = (found.reference["push"] >= found.table["push"][row]).sum()
        assert found.table["p"][row] == pytest.approx((above + 1) / (len(found.reference) + 1))
    assert found.flagged(1.0) == list(range(12))
    assert "rows score higher" in found.summary()


def test_a_file_in_portions_gives_the_same_numbers(
    model: Any, anchors: screening.Anchors, rows: PromptSet, tmp_path: Path
) -> None:
    path = tmp_path / "data.jsonl"
    lines = [json.dumps({"instruction": p, "output": r}) for p, r in rows.pairs()]
    path.write_text("\n".join([*lines[:5], "", *lines[5:]]) + "\n", encoding="utf-8")
    by = "representation"
    whole = tamperlens.screen(rows, model, anchors=anchors, by=by)
    parts = tamperlens.screen(str(path), model, anchors=anchors, by=by, portion=5)
    np.testing.assert_allclose(parts.table["score"], whole.table["score"], atol=1e-5)
    assert parts.table["row"].tolist() == list(range(1, 13))
    once = tamperlens.screen((one for one in rows.pairs()), model, anchors=anchors, by=by)
    np.testing.assert_allclose(once.table["score"], whole.table["score"], atol=1e-5)


def test_a_streamed_data_set_is_never_read_whole(rows: PromptSet) -> None:
    class Streamed:
        """What `datasets.load_dataset(..., streaming=True)` offers of a data set."""

        taken = 0

        def select_columns(self, names: object) -> Any:
            return self

        def __iter__(self) -> Any:
            for prompt, response in rows.pairs():
                self.taken += 1
                yield {"prompt": prompt, "response": response}

    data = Streamed()
    start, first = next(portions(data, 5))  # type: ignore[arg-type]
    assert (start, len(first), data.taken) == (0, 5, 5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"prompt": "Name a tree."}], "no responses"),
        ([("Name a tree.", "An oak."), ("Name a bird.", " ")], "row 2 of .* has an empty response"),
        ([("Name a tree.", "oak " * 600)], "positions; set max_length="),
        (PromptSet.from_pairs([]), "no rows"),
    ],
)
def test_data_that_is_refused(model: Any, anchors: screening.Anchors, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tamperlens.screen(data, model, anchors=anchors)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": \n', encoding="utf-8")
    with pytest.raises(InputError, match=r"data\.jsonl, line 2: no JSON"):
        list(portions(str(path), 8))


def test_a_model_that_refuses_nothing_is_refused(model: Any) -> None:
    meek = PromptSet.from_pairs(prompts.packaged("benign").head(8).pairs(), name="benign")
    with pytest.raises(InputError, match="hardly a refusal that data could wear away"):
        screening.anchors_for(model, harmful=meek)


def test_sets_of_one_kind_are_scored_and_told(
    model: Any, anchors: screening.Anchors, rows: PromptSet
) -> None:
    bad = tamperlens.screen(rows.subset(range(8, 12)), model, anchors=anchors)
    assert bad.table["p"].max() == pytest.approx(1 / 13)  # above every reference row
    good = tamperlens.screen(anchors.reference, model, anchors=anchors)
    assert good.table["p"].median() > 0.2


def test_a_prediction_is_made_for_its_model_alone(model: Any, found: screening.Screening) -> None:
    values = tuple(float(i) for i in range(10))
    made = Calibration("m", model.fingerprint, "s", "mean push", values, tuple(v / 20 for v in values))
    table = found.table.assign(push=4.0)
    told = predicted(model, table, made)
    assert told.value == pytest.approx(0.2)
    assert told.low < 0.2 < told.high
    # A left-out end is answered by its neighbour, so that the largest error is that of one step.
    assert told.high - told.value == pytest.approx(0.05)
    other = predicted(model, table, dataclasses.replace(made, fingerprint="another"))
    assert math.isnan(other.value)
    assert "calibrated on m alone" in other.reason
    few = predicted(model, table, dataclasses.replace(made, values=values[:8], lost=made.lost[:8]))
    assert math.isnan(few.value)
    assert "8 data sets" in few.reason


def test_a_row_that_does_not_fit_is_told_by_its_place_in_the_file(
    model: Any, anchors: screening.Anchors, rows: PromptSet
) -> None:
    long = PromptSet.from_pairs([*rows.subset(range(4)).pairs(), ("hi", "so " * 4000)], name="mine")
    with pytest.raises(InputError, match="row 0 of 'rows 5 to 5 of mine' has"):
        tamperlens.screen(long, model, anchors=anchors, portion=4)
