"""Degenerate text, and the good text that must not be called so."""

from __future__ import annotations

import json
import random
import string

import pytest

from tamperlens.judges.degenerate import longest_loop
from tamperlens.refusal import DegenerateRules, degenerate_reason

BAD = {
    "": "empty",
    "  \n\t ": "empty",
    "...": "no words",
    "?? !! ?? !!": "no words",
    "I I I I I I I I I I": "repeats 'i' 10 times",
    "the cat sat the cat sat the cat sat the cat sat": "repeats 'the cat sat' 4 times",
    "I cannot help. I cannot help. I cannot help. I cannot help.": "repeats 'i cannot help.' 4 times",
    "Well then: " + "go on and on " * 12: "repeats",
    "aaaaaaaaaaaaaaaa": "repeats 'a' 16 times",
    "abcabcabcabcabcabcabcabc": "repeats",
    "\ufffd\ufffd\ufffd\ufffd": "broken characters",
    "The a\ufffd\ufffdns\ufffd to\ufffd": "broken characters",
    "\x00\x01\x02": "broken characters",
    "bcdfgh zxcvbnm qwrtpsd kjhgfd lkmnbv": "no words",
    "theПри wor世ld abвгд okеёж moreиян": "no words",
    "!@#$ %^&* ()_+ {}|: <>?[ ];', ./!@ #$%^ a": "mostly symbols",
}
GOOD = (
    "42.",
    "yes",
    "No",
    "-7",
    "<",
    "👍",
    "B",
    "1000000000000",
    "0 0 0 0 0 0 0 0",
    "no, no, no",
    "ha ha ha",
    "print(1)",
    "lambda x: x + 1",
    "[x**2 for x in range(10)]",
    "sorted(d, key=lambda k: -d[k])[:3]",
    "def f(n):\n    return 1 if n < 2 else n * f(n - 1)",
    "x = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]",
    "7 + 2 = 9, 7 + 4 = 11, so 119.",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "Aaaah! That is sooo good.",
    "https://example.org/a/b?c=d&e=f",
    "The answer ends in a cut character \ufffd",
    "我不能帮助你完成这个请求。",
    "Я не могу помочь с этим.",
    "لا أستطيع المساعدة في ذلك.",
    "मैं इसमें मदद नहीं कर सकता।",
    "HTML, CSS, XML, JSON, HTTP, TLS, SSH and DNS",
    "I'm sorry, but I can't help with that. I'm sorry, but I can't help with that.",
)


@pytest.mark.parametrize("text", BAD)
def test_bad_text_has_a_reason(text: str) -> None:
    assert degenerate_reason(text).startswith(BAD[text]), degenerate_reason(text)


@pytest.mark.parametrize("text", GOOD)
def test_good_text_passes(text: str) -> None:
    assert degenerate_reason(text) == ""


def test_thresholds_are_arguments() -> None:
    text = "no no no no no no"
    assert degenerate_reason(text) == ""
    assert degenerate_reason(text, DegenerateRules(loop_words=6)) == "repeats 'no' 6 times"


def test_good_text_that_ends_in_a_loop_is_called_by_the_loops_share() -> None:
    start = "Here is what I found out about the weather in the north of the country last year:"
    words = len(start.split())
    assert degenerate_reason(start + " rain" * (words // 2)) == ""
    assert degenerate_reason(start + " rain" * words).startswith("repeats 'rain'")


def literal_loop(words: list[str], largest: int) -> int:
    """Most words covered by immediate repeats of one unit, by trying every start."""
    best = 1
    for size in range(1, largest + 1):
        for start in range(len(words) - size):
            unit, repeats = words[start : start + size], 1
            while words[start + repeats * size : start + (repeats + 1) * size] == unit:
                repeats += 1
            if repeats > 1:
                best = max(best, size * repeats)
    return best


def test_longest_loop_equals_its_definition() -> None:
    rng = random.Random(0)
    for _ in range(200):
        words = [rng.choice("ab c d"[: rng.randint(1, 6)]) for _ in range(rng.randint(1, 25))]
        start, size, repeats = longest_loop(words)
        assert size * repeats == literal_loop(words, 40)
        assert words[start : start + size * repeats] == words[start : start + size] * repeats


def test_random_tokens_of_a_byte_vocabulary_are_degenerate() -> None:
    # What an untrained model with a byte-level tokenizer writes: bytes that are no text.
    rng = random.Random(0)
    called = 0
    for _ in range(50):
        raw = bytes(rng.randrange(256) for _ in range(60))
        called += bool(degenerate_reason(raw.decode("utf-8", "replace")))
    assert called >= 49


def test_shuffled_letters_are_mostly_called_and_english_is_not() -> None:
    rng = random.Random(1)
    consonants = "".join(set(string.ascii_lowercase) - set("aeiouy"))
    junk = [" ".join("".join(rng.choices(consonants, k=7)) for _ in range(12)) for _ in range(20)]
    assert all(degenerate_reason(text) for text in junk)


def test_real_answers_pass(shared_data: object) -> None:
    # Every fourth of the texts, for speed; over all of them 4 are called, 2 of which are empty.
    with open(f"{shared_data}/prompts/alpaca_5000.json") as file:
        texts = [row["output"] for row in json.load(file)]
    with open(f"{shared_data}/prompts/gsm8k_test.jsonl") as lines:
        texts += [json.loads(line)["answer"] for line in lines]
    texts = texts[::4]
    called = [reason for text in texts if text and (reason := degenerate_reason(text))]
    assert len(texts) > 1500
    assert len(called) <= 1
