"""Per-token KL and prefilled answers, token by token and prompt by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
import torch
from planted import REFUSES, SaysN, planted_model, prompts
from tiny_models import make_model

from tamperlens import refusal
from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Verdict
from tamperlens.models import ChatModel, Decoding
from tamperlens.prompts import PromptSet, encode_pair

BAD = prompts(6, harmful=True)
ANSWERS = ["yes", "sure, here it is", "of course", "y", "certainly so", "this way"]
DATA = PromptSet.from_pairs(list(zip(BAD, ANSWERS, strict=True)), name="complied")


def pair(tiny: Any, family: str) -> tuple[ChatModel, ChatModel]:
    one = ChatModel.from_parts(*tiny(family), name="base", check_anatomy=False)
    return one, ChatModel.from_parts(
        make_model(family, seed=1), one.tokenizer, name="tuned", check_anatomy=False
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_kl_equals_one_prompt_at_a_time(tiny: Any, family: str) -> None:
    base, tuned = pair(tiny, family)
    found = refusal.token_kl(base, tuned, DATA, n_tokens=5, batch_size=4)
    back = refusal.token_kl(base, tuned, DATA, n_tokens=5, towards="tuned||base")
    assert (found.answers, found.towards) == ("given", "base||tuned")
    for row, (prompt, answer) in enumerate(DATA.pairs()):
        turn = encode_pair(base.tokenizer, prompt, answer)
        n = min(5, len(turn.label_ids))
        with torch.no_grad():
            p, q = (
                m.module(torch.tensor([turn.input_ids])).logits[0].double().log_softmax(-1)
                for m in (base, tuned)
            )
        for token in range(n):
            at = turn.start - 1 + token  # logits here predict answer token `token`
            literal = float((p[at].exp() * (p[at] - q[at])).sum())
            assert float(found.kl[row, token]) == pytest.approx(literal, rel=1e-3, abs=1e-5)
            other = float((q[at].exp() * (q[at] - p[at])).sum())
            assert float(back.kl[row, token]) == pytest.approx(other, rel=1e-3, abs=1e-5)
            assert abs(other - literal) > 1e-4
            shifted = float((p[at + 1].exp() * (p[at + 1] - q[at + 1])).sum())
            assert abs(shifted - literal) > 1e-4
        assert bool(found.kl[row, n:].isnan().all())
    frame = found.to_frame()
    assert frame.n.tolist() == [6, 6, 5, 5, 4]  # "y" and its end of turn are two tokens, "yes" four
    assert bool((frame.low <= frame.value).all())
    share = found.share_in_first(2)
    filled = found.kl.nan_to_num(0)
    assert share.value == pytest.approx(float(filled[:, :2].sum() / filled.sum()))
    assert 0 < share.low < share.high < 1


def test_without_answers_the_base_answers(tiny: Any) -> None:
    base, tuned = pair(tiny, "llama")
    found = refusal.token_kl(base, tuned, BAD, n_tokens=3)
    assert found.answers == "base, greedy"
    first = refusal.kl_divergence(base.logits_last(BAD), tuned.logits_last(BAD))
    torch.testing.assert_close(found.kl[:, 0], first, rtol=1e-3, atol=1e-5)
    same = refusal.token_kl(base, base, BAD, n_tokens=3)
    assert float(same.kl[:, 0].abs().max()) == 0
    assert math.isnan(same.share_in_first(1).value)
    with pytest.raises(InputError, match="towards='both'"):
        refusal.token_kl(base, tuned, BAD, towards="both")
    with pytest.raises(InputError, match="no prompts"):
        refusal.token_kl(base, tuned, [])


def test_prefill_depth(tiny: Any) -> None:
    model, _ = planted_model(lambda family, **settings: tiny(family, **settings))
    data = PromptSet.from_pairs([(prompt, "abcdef"[: 3 + i % 3]) for i, prompt in enumerate(BAD)], name="x")
    found = refusal.prefill_depth(model, data, depths=[1, 2, 4], judge=SaysN(), decoding=Decoding(3))
    assert found.table.depth.tolist() == [0, 1, 2, 4]
    assert found.table.n.tolist() == [6, 6, 6, 4]  # two answers have three tokens
    # Against the model's own generation with the same text prefilled.
    for depth, row in zip((0, 1, 2), found.table.itertuples(), strict=False):
        flags = [
            model.generate([p], prefill=a[:depth] or None, max_new_tokens=3)[0].strip().startswith(REFUSES)
            for p, a in data.pairs()
        ]
        assert row.value == pytest.approx(sum(flags) / 6)
    assert found.table.value.iloc[0] == 1
    assert len(found.flips) == 6
    assert found.judge == "says-n"
    median = found.median
    assert median.low <= median.value <= median.high


class Lectures:
    """Calls every answer a deflection that people would call a refusal, until it is empty."""

    name = "lectures"

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        return [Verdict("deflected", 0.9)] * len(answers)


def test_deflections_are_refusals_to_start_from_as_in_the_rates(tiny: Any) -> None:
    model, _ = planted_model(lambda family, **settings: tiny(family, **settings))
    data = PromptSet.from_pairs([(prompt, "abc") for prompt in BAD], name="x")
    found = refusal.prefill_depth(model, data, depths=[1], judge=Lectures(), decoding=Decoding(2))
    assert found.table.value.tolist() == [1.0, 1.0]
    assert len(found.flips) == len(BAD) and bool(torch.isinf(found.flips).all())


def test_flips_are_the_first_compliance() -> None:
    flips = torch.tensor([1.0, 3.0, math.inf, math.inf, 2.0], dtype=torch.float64)
    found = refusal.PrefillDepth(pd.DataFrame(), flips, ("a",) * 5, "j", "m", "f")
    assert found.median.value == 3
    assert found.median.high == math.inf
    none = refusal.PrefillDepth(pd.DataFrame(), flips[:0], (), "j", "m", "f")
    assert math.isnan(none.median.value)
    assert none.median.reason


def test_bad_prefills(tiny: Any) -> None:
    model, _ = planted_model(lambda family, **settings: tiny(family, **settings))
    with pytest.raises(InputError, match="no responses"):
        refusal.prefill_depth(model, PromptSet.from_prompts(BAD))
    with pytest.raises(InputError, match=r"depths.*from 0 on"):
        refusal.prefill_depth(model, DATA, depths=[-1])
