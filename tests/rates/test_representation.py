"""RD and its embedders: medians by hand, empty sets, hidden states against a literal forward pass."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tamperlens import refusal
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Embedder
from tamperlens.judges.embedders import embed
from tamperlens.judges.ensembles import EnsembleJudge
from tamperlens.models import ChatModel


class Angles:
    """Reads an angle in degrees from each text."""

    name = "angles"

    def __call__(self, texts: Sequence[str]) -> Any:
        turn = np.radians([float(text) for text in texts])
        return np.stack([np.cos(turn), np.sin(turn)], 1)


def test_medians_by_hand() -> None:
    found = refusal.representation_distance(
        ["0", "0", "0", "0"], ["0", "60", "90", "180"], Angles(), verdicts=[True, True, False, False]
    )
    assert found.distances == pytest.approx([0, 0.5, 1, 2], abs=1e-12)
    assert found.overall.value == pytest.approx(0.75)  # median, not mean (0.875)
    assert found.refused.value == pytest.approx(0.25) and found.refused.n == 2
    assert found.unrelated.value == pytest.approx(0.0, abs=1e-12)
    assert found.overall.low <= found.overall.value <= found.overall.high
    assert found.embedder == "angles" and isinstance(Angles(), Embedder)
    assert found.quantiles((0.5,))[0.5] == pytest.approx(0.75)
    assert len(found.to_frame()) == 4


def test_empty_sets_are_undefined_with_a_reason(tmp_path: Path) -> None:
    none = refusal.representation_distance(["0", "0"], ["0", "60"], Angles(), verdicts=[False, False])
    assert math.isnan(none.refused.value) and none.refused.n == 0
    assert none.refused.reason == "the base refused none of the prompts"
    without = refusal.representation_distance(["0"], ["60"], Angles())
    assert without.refused.reason == "no verdicts on the base answers"
    assert without.unrelated.reason == "fewer than two base answers"
    blank = refusal.representation_distance(["0", " "], ["60", "0"], Angles(), verdicts=[True, True])
    assert blank.n_empty == 1 and blank.overall.n == 1 and math.isnan(blank.distances[1])
    empty = refusal.representation_distance([], [], Angles(), verdicts=[])
    assert math.isnan(empty.overall.value) and empty.overall.n == 0
    again = refusal.RepresentationDistance.load(blank.save(tmp_path / "rd.json"))
    assert again.overall == blank.overall and math.isnan(again.distances[1])


def test_completions_bring_their_own_verdicts() -> None:
    base = refusal.judge_answers(
        ["p", "q"], ["I cannot help with that.", "Boil it."], "weighted-1"
    ).completions
    tuned = refusal.judge_answers(["p", "q"], ["Sure.", "Boil it."], "weighted-1").completions

    class Letters:
        name = "letters"

        def __call__(self, texts: Sequence[str]) -> Any:
            return np.array([[text.count(c) + 0.1 for c in "abcdefghilmnorst"] for text in texts])

    found = refusal.representation_distance(base, tuned, Letters())
    assert found.base_refused == (True, False)
    assert found.refused.value == pytest.approx(found.distances[0]) and found.distances[1] == 0
    other = refusal.judge_answers(["p", "r"], ["a", "b"], "weighted-1").completions
    with pytest.raises(InputError, match="answer other prompts"):
        refusal.representation_distance(base, other, Letters())
    hot = refusal.judge_answers(
        ["p", "q"], ["a", "b"], "weighted-1", decoding=refusal.Decoding(temperature=0.7)
    )
    with pytest.raises(InputError, match="decoded differently"):
        refusal.representation_distance(base, hot.completions, Letters())
    with pytest.raises(InputError, match="2 base answers and 1 tuned"):
        refusal.representation_distance(["a", "b"], ["c"], Letters())
    with pytest.raises(InputError, match="1 verdicts for 2 base answers"):
        refusal.representation_distance(["a", "b"], ["c", "d"], Letters(), verdicts=[True])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("layer", [None, -2])
def test_hidden_states_are_means_over_real_tokens(
    tiny: Callable[..., Any], family: str, layer: int | None
) -> None:
    module, tokenizer = tiny(family)
    model = ChatModel.from_parts(module, tokenizer, name=family)
    texts = ["short", "a rather longer text here", "", "mid size"]
    found = refusal.HiddenStateEmbedder(model, layer=layer, batch_size=3)(texts)
    for row, text in enumerate(texts):
        if not text:
            assert found[row].isnan().all()
            continue
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            states = module(ids, output_hidden_states=True).hidden_states
        # hidden_states[-1] is behind the final norm; [-2] is the output of the block before the last.
        wanted = states[-1 if layer is None else layer][0].mean(0)
        torch.testing.assert_close(found[row], wanted, atol=2e-5, rtol=1e-4)
    with pytest.raises(InputError, match="layer 99 does not exist"):
        refusal.HiddenStateEmbedder(model, layer=99)


def test_a_chat_model_is_an_embedder_and_is_left_alone(tiny: Callable[..., Any]) -> None:
    module, tokenizer = tiny("llama")
    model = ChatModel.from_parts(module, tokenizer, name="toy")
    before = model.fingerprint
    found = refusal.representation_distance(["abc", "xyz"], ["abc", "zzz"], model)
    assert found.embedder.startswith("mean hidden state, toy (") and found.embedder.endswith("final norm")
    assert found.distances[0] == pytest.approx(0, abs=1e-9) and found.distances[1] > 1e-6
    assert model.fingerprint == before


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="installed here")
def test_a_missing_embedder_names_its_extra() -> None:
    with pytest.raises(InputError, match=r"pip install 'tamperlens\[embeddings\]'"):
        refusal.representation_distance(["a"], ["b"], "sentence-transformers/all-MiniLM-L6-v2")


def test_bad_embedders_are_refused() -> None:
    class Bad:
        name = "bad"

        def __init__(self, out: Any) -> None:
            self.out = out

        def __call__(self, texts: Sequence[str]) -> Any:
            return self.out

    with pytest.raises(InputError, match=r"shape \(1, 2\) for 2 texts"):
        embed(Bad(np.zeros((1, 2))), ["a", "b"])
    with pytest.raises(InputError, match="NaN or infinite numbers for text 1"):
        embed(Bad(np.array([[1.0], [math.nan]])), ["a", "b"])
    nameless = Bad(None)
    nameless.name = ""
    with pytest.raises(InputError, match="non-empty `name`"):
        refusal.get_embedder(nameless)


LABELLED = refusal.LabelledAnswers(
    ("q",) * 8,
    ("0", "5", "10", "90", "95", "85", "45", ""),
    ("refusal", "refusal", "refusal", "compliance", "compliance", "compliance", "partial", "degenerate"),
    ("m",) * 8,
)


@pytest.mark.parametrize("method", ["logistic", "centroid"])
def test_embedding_judge(method: str) -> None:
    judge = refusal.EmbeddingJudge.fit(LABELLED, Angles(), method=method, penalty=1000.0)
    verdicts = judge(["q"] * 4, ["2", "88", "45", ""])
    assert [v.label for v in verdicts] == ["refusal", "compliance", "partial", "degenerate"]
    assert verdicts[0].probability > 0.5 > verdicts[1].probability
    assert verdicts[2].partial <= verdicts[2].probability <= 1
    assert judge.name == f"{method} on angles"
    two = refusal.EmbeddingJudge.fit(LABELLED.where([True] * 6 + [False] * 2), Angles(), method=method)
    assert [v.label for v in two(["q"] * 2, ["1", "91"])] == ["refusal", "compliance"]
    with pytest.raises(InputError, match="holds only refusal; fitting needs"):
        refusal.EmbeddingJudge.fit(LABELLED.where([True] * 3 + [False] * 5), Angles())
    with pytest.raises(InputError, match="no method 'svm'"):
        refusal.EmbeddingJudge.fit(LABELLED, Angles(), method="svm")


def ask(judge: Any, answer: str) -> Any:
    return judge(["?"], [answer])[0]


class Fixed:
    def __init__(self, name: str, label: str, probability: float) -> None:
        self.name, self.verdict = name, refusal.Verdict(label, probability)

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Any]:
        return [self.verdict] * len(answers)


def test_ensembles() -> None:
    yes, sure, no = Fixed("a", "refusal", 0.6), Fixed("b", "partial", 0.6), Fixed("c", "compliance", 0.0)
    broken = Fixed("d", "degenerate", 0.0)
    assert ask(EnsembleJudge([yes, sure, no]), "x").label == "refusal"
    # By mean probability (0.4) the same three say the opposite.
    assert ask(EnsembleJudge([yes, sure, no], "mean"), "x").label == "compliance"
    assert ask(EnsembleJudge([sure, sure, yes]), "x").label == "partial"
    assert ask(EnsembleJudge([yes, no]), "x").label == "compliance"  # a tie goes by the mean, 0.3
    assert ask(EnsembleJudge([broken, broken, yes]), "x").label == "degenerate"
    assert ask(EnsembleJudge([broken, yes]), "x").label == "refusal"
    mixed = EnsembleJudge(["weighted-1", "arditi", "calibrated"])
    verdict = ask(mixed, "I cannot help with that.")
    assert mixed.name == "majority(weighted-1, arditi, calibrated)" and verdict.label == "refusal"
    assert len(verdict.evidence) == 3 and ask(mixed, "").label == "degenerate"
    with pytest.raises(InputError, match="at least two"):
        EnsembleJudge(["weighted-1"])
    with pytest.raises(InputError, match="no rule 'vote'"):
        EnsembleJudge(["weighted-1", "arditi"], "vote")
