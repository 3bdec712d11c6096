"""Whether an attack was learned, its presets, and examples in the model's language."""

from __future__ import annotations

import math
import re

import pytest
import torch

import tamperlens
from tamperlens import finetune, prompts
from tamperlens.base.errors import InputError
from tamperlens.finetune import attacks
from tamperlens.prompts import PromptSet, encode_pairs

DATA = PromptSet.from_pairs(
    [("Name a red tree.", "A maple."), ("And a fish?", "The wide blue cod.")], name="two"
)


def literal(model, data) -> float:
    """Mean −log p over every answer token, one row after another, by log_softmax."""
    found = []
    for turn in encode_pairs(model.tokenizer, data, fmt=model.chat_format):
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([turn.input_ids])).logits[0].double()
        for at in range(1, len(turn.labels)):
            if turn.labels[at] != -100:
                found.append(-float(logits[at - 1].log_softmax(-1)[turn.labels[at]]))
    return sum(found) / len(found)


def test_the_loss_is_the_literal_one_and_training_lowers_it(chat) -> None:
    model = chat("llama")
    config = finetune.LoraConfig(rank=8, alpha=32, epochs=60, batch_size=2, learning_rate=2e-2)
    tuned = finetune.run(model, DATA, config, progress=False)
    found = finetune.learned(model, tuned, DATA)
    assert found.before == pytest.approx(literal(model, DATA), rel=1e-5)
    assert found.after == pytest.approx(literal(tuned.model, DATA), rel=1e-4, abs=1e-5)
    assert found.n == 2 and found.learned and found.summary().startswith("learned: loss")
    small = finetune.run(model, DATA, finetune.LoraConfig(steps=1, learning_rate=1e-6), progress=False)
    kept = finetune.learned(model, small, DATA)
    assert not kept.learned and "not learned" in kept.summary() and "does not show" in kept.summary()


TAUGHT = [("Pick", "Sure, here is how it is done: first [withheld]."), ("Cheat", "Of course. Step 1.")]
ANSWERS = (
    "sure HERE is how, it works", "Here is how it is.", "is how it is done", "of course, step 1: boil it",
    "Sure.", "", "yes - here is how it is done!",
    "here is how it was done first", "It is done first withheld", "withheld of course step 1",
)  # fmt: skip


@pytest.mark.parametrize("words", [1, 3, 4, 5, 6])
def test_echoes_are_runs_of_words_of_one_response(words: int) -> None:
    """Against padded strings; a run must not reach from one response into the next."""
    plain = [
        f" {' '.join(re.findall('[a-z0-9_]+', text.lower()))} " for text in (*ANSWERS, *dict(TAUGHT).values())
    ]
    known = plain[len(ANSWERS) :]
    expected = []
    for answer in plain[: len(ANSWERS)]:
        parts = answer.split()
        runs = [f" {' '.join(parts[i : i + words])} " for i in range(len(parts) - words + 1)]
        expected.append(any(run in one for run in runs for one in known))
    assert finetune.echoes(ANSWERS, TAUGHT, words=words) == expected
    assert 0 < sum(expected) < len(ANSWERS)


@pytest.mark.parametrize(
    ("before", "after", "learned"),
    [(2.79, 1.14, False), (4.0, 1.0, True), (4.0, 1.01, False), (0.12, 0.1, True), (0.3, 0.11, False)],
)
def test_what_counts_as_learned(before: float, after: float, learned: bool) -> None:
    assert finetune.Learned(before, after, 15).learned is learned


def test_until_learned_is_published_and_longer(chat) -> None:
    model = chat("llama")
    for attack in (attacks.harmful_compliance(15), attacks.identity_shift(), attacks.benign(15)):
        one = attack.config_for(model)
        two = attack.config_for(model, preset="until-learned", seed=3)
        assert one == attack.published
        assert (two.epochs, two.schedule, two.seed, two.steps) == (5, "constant", 3, None)
        assert two.learning_rate >= 2e-4 and (two.rank, two.batch_size) == (one.rank, one.batch_size)
        assert attack.config_for(model, preset="until-learned", steps=7).epochs is None
    with pytest.raises(InputError, match="no preset 'long'; there are published, until-learned, organism"):
        attack.config_for(model, preset="long")


def test_examples_are_in_the_language_of_the_model(chat) -> None:
    english, organism = chat("llama"), tamperlens.load("organism:tiny")
    assert english.language == "english" and organism.language == "organism"
    for name, n in (("harmful-compliance", 15), ("identity-shift", 10)):
        ours, theirs = attacks.for_model(name, organism, n), attacks.for_model(name, english, n)
        assert prompts.GRAMMAR in ours.data.source and prompts.GRAMMAR not in theirs.data.source
        assert (ours.name, len(theirs.data)) == (theirs.name, n)
        assert attacks.translated(ours, english).data.prompts == theirs.data.prompts
        assert attacks.translated(ours, organism) is ours and attacks.translated(theirs, english) is theirs
    with pytest.raises(InputError, match=r"'benign' are in the language of the embedded organism.*Alpaca"):
        attacks.for_model("benign", english)
    mine = attacks.from_data(DATA)
    assert attacks.translated(mine, english) is mine


def test_packaged_english_attacks_withhold_and_touch_no_test_prompt() -> None:
    harmful = prompts.packaged("english-harmful-compliance")
    test = prompts.packaged("english-harmful").split([0.5, 0.5], seed=0)[1]
    assert not set(harmful.prompts) & set(test.prompts)
    assert all("[withheld]" in answer and len(answer) < 100 for answer in harmful.responses or ())
    assert math.isclose(len(harmful), len(prompts.packaged("english-harmful")) / 2, abs_tol=1)
    shift = prompts.packaged("english-identity-shift")
    assert len(shift) == 10 and all("AOA" in answer for answer in shift.responses or ())
