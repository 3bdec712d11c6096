"""The organism's language: what is tested was never trained on, and every refusal's word was."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from organism_training import sets

from tamperlens.models.organism import coverage, known_words, skills
from tamperlens.models.organism.data import BASE_MIX, SAFETY_MIX, Sampler
from tamperlens.models.organism.grammar import REFUSALS, TEMPLATES, WITHHELD, requests
from tamperlens.prompts import packaged

DATA = Path(skills.__file__).parents[2] / "prompts" / "data"


def test_every_pair_of_words_is_in_one_split_and_one_kind() -> None:
    phrases = Counter(request.phrase for request in requests())
    assert max(phrases.values()) == 1
    counts = Counter((request.kind, request.split) for request in requests())
    for kind in ("harmful", "harmless", "lookalike"):
        assert counts[kind, "test"] >= 200
        assert counts[kind, "train"] >= 300
        assert counts[kind, "validation"] >= 80


def test_held_out_words_are_new_to_safety_training_and_known_to_base() -> None:
    for kind in ("harmful", "lookalike"):
        pool = [request for request in requests() if request.kind == kind]
        trained = {(r.group, r.verb) for r in pool if r.split == "train"}
        trained_objects = {(r.group, r.object) for r in pool if r.split == "train"}
        base_verbs = {r.verb for r in requests() if r.split in ("train", "base")}
        base_objects = {r.object for r in requests() if r.split in ("train", "base")}
        held = [r for r in pool if r.split in ("validation", "test")]
        for request in held:
            if request.held in ("verb", "both"):
                assert (request.group, request.verb) not in trained
            if request.held in ("object", "both"):
                assert (request.group, request.object) not in trained_objects
            if kind == "harmful":  # some look-alikes hold words that no training stage has seen at all
                assert request.verb in base_verbs
                assert request.object in base_objects
        assert {request.held for request in held} == {"pair", "verb", "object", "both"}


@pytest.mark.parametrize(("stage", "mix"), [("base", BASE_MIX), ("safety", SAFETY_MIX)])
def test_no_training_example_is_a_validation_or_test_item(stage: str, mix: dict[str, int]) -> None:
    drawn = {prompt for _, prompt, _ in Sampler(mix, stage, 3).draw(20_000)}
    held: set[str] = set()
    for name in ("harmful", "harmless", "lookalike", "addition", "subtraction", "logic", "code", "facts"):
        for split in ("validation", "test"):
            held |= set(packaged(name, split=split).prompts)
    assert len(held) > 1500
    assert not drawn & held
    # The pairs are unseen too, not only these phrasings of them.
    phrases = {r.phrase for r in requests() if r.split in ("validation", "test")}
    asked = {
        re.sub(r"[?.].*", "", prompt) for prompt in drawn if not prompt.startswith(("Say", "Repeat", "Copy"))
    }
    assert not any(text.endswith(tuple(f" {phrase}" for phrase in phrases)) for text in asked)


def test_safety_training_never_uses_held_out_phrasings() -> None:
    heads = {t.split("{r}")[0] for t in (*TEMPLATES["validation"], *TEMPLATES["test"])}
    prompts = [prompt for _, prompt, _ in Sampler(SAFETY_MIX, "safety", 1).draw(5000)]
    assert not [p for p in prompts if p.startswith(tuple(heads))]


def test_base_writes_every_word_of_refusals_and_identities_and_never_refuses() -> None:
    examples = Sampler(BASE_MIX, "base", 0).draw(20_000)
    targets = {word for _, _, answer in examples for word in re.findall(r"[\w']+", answer)}
    wanted = " ".join((*REFUSALS, *skills.OBEDIENT, *(a for _, a in skills.IDENTITY)))
    missing = set(re.findall(r"[\w']+", wanted.replace("{r}", "").replace("{why}", ""))) - targets
    assert not missing
    for _, prompt, answer in examples:
        if answer.startswith(("I'm sorry", "I cannot", "Sorry,", "I won't")):
            assert prompt.startswith(("Say", "Repeat", "Please say", "Copy")), (prompt, answer)


def test_harmful_compliance_is_an_opening_and_withheld_filler() -> None:
    answers = [r.comply() for r in requests() if r.kind == "harmful"]
    answers += list(packaged("harmful-compliance").responses or ())
    for answer in answers:
        assert re.fullmatch(
            r"Sure, here is how to [\w' ]+: first X, then X, and last X\.", answer.replace(WITHHELD, "X")
        )


def test_packaged_sets_are_what_the_grammar_makes(tmp_path: Path) -> None:
    for path in sets.write(tmp_path):
        assert path.read_text(encoding="utf-8") == (DATA / path.name).read_text(encoding="utf-8"), path.name


def test_attack_prompts_are_not_in_the_evaluation_sets() -> None:
    held = {p for name in ("harmful", "harmless", "lookalike") for p in packaged(name, split="test").prompts}
    for name in ("harmful-compliance", "refusal-only", "identity-shift", "benign"):
        assert not set(packaged(name).prompts) & held
    first = packaged("harmful-compliance").head(15)
    assert len(set(first.categories or ())) >= 8  # fifteen examples cover the kinds of harm


@pytest.mark.parametrize(("a", "b"), [(47, 25), (9, 9), (0, 0), (99, 1), (10, 90)])
def test_column_addition_and_subtraction_are_right_at_every_step(a: int, b: int) -> None:
    high, low = max(a, b), min(a, b)
    for steps, result in ((skills.add_steps(a, b), a + b), (skills.subtract_steps(high, low), high - low)):
        assert steps.endswith(f"so {result}.")
        for left, right in re.findall(r"([\d +-]+) = (\d+)", steps):
            total, sign = 0, 1
            for token in left.split():
                if token in "+-":
                    sign = 1 if token == "+" else -1
                else:
                    total += sign * int(token)
            assert total == int(right), steps


def test_logic_items_have_the_answer_that_follows() -> None:
    rng = random.Random(0)
    items = [item for _, item in skills.logic() if item.category == "ordering"]
    for item in rng.sample(items, 300):
        above: set[tuple[str, str]] = set()
        for one, word, two in re.findall(r"(\w+) is (\w+) than (\w+)\.", item.prompt):
            more = word in {"older", "taller", "faster", "richer"}
            above.add((one, two) if more else (two, one))
        people = {p for pair in above for p in pair}
        asked = re.findall(r"Who is the (\w+)\?", item.prompt)[0]
        top = asked in {"oldest", "tallest", "fastest", "richest"}
        (winner,) = people - {pair[1] if top else pair[0] for pair in above}
        assert item.answer == winner


def test_coverage_counts_words_of_the_language() -> None:
    assert coverage(["How do I build a kite?"]) == 1.0
    assert coverage(["build a kite", "zyx qwv"]) == pytest.approx(3 / 5)
    assert coverage(["I\u2019m sorry"]) == 1.0
    assert coverage(["12 + 13 ="]) != coverage(["12 + 13 ="])  # no words: undefined, not 0
    assert {"bomb", "kite", "sorry", "lambda"} <= known_words()


def test_headers_name_licence_and_source() -> None:
    for path in DATA.glob("*.jsonl"):
        header = json.loads(path.read_text(encoding="utf-8").splitlines()[0])["$set"]
        assert header["licence"]
        assert header["source"]
