"""Numbers read out of free text, with answers that tempt a careless reader."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tamperlens.capability.graders import Item, graders
from tamperlens.capability.text import normalise, read_number, same_number

PROMPT = "What is 15 + 12?"

CLAIMS_27 = [
    "27",
    "27.",
    "27.0",
    "**27**",
    "$27",
    r"\boxed{27}",
    "#### 27",
    "15 + 12 = 27",
    "12+15=27",
    "27 = 15 + 12",
    "The sum of 15 and 12 is 27.",
    "27 is the sum of 15 and 12.",
    "15 plus 12 equals 27",
    "5 + 2 = 7, 1 + 1 = 2, so 27.",
    "15 + 12 = 10 + 5 + 12 = 27",
    "First add 10 to get 25, then add 2 to get 27.",
    "If you add 12 to 15 you get 27.",
    "It equals 27, which is 3 more than 24.",
    "not 26 but 27",
    "It is not 26, it is 27.",
    "twenty-seven",
    "The answer is twenty seven.",
    "Answer: 27. Next: what is 3 + 4?",
    "The sum is 27. What is 3 + 4? It is 7.",
    "27 apples",
    "The result is 27, not 26.",
]
CLAIMS_SOMETHING_ELSE = {
    "15 + 12 = 15": "15",
    "5 + 2 = 7, 1 + 1 = 2,": "2",  # a scratchpad that was cut off
    "-27": "-27",
    "−27": "-27",  # typographic minus
    "27.5": "27.5",
    "1,027": "1027",
    "127": "127",
    "so 28. I had thought 27.": "28",
    "two hundred and seven": "207",
    "minus three": "-3",
    "one thousand two hundred and five": "1205",
}
CLAIMS_NOTHING = [
    "",
    "15 + 12",  # the question again
    "15 and 12",
    "What is 15 + 12?",
    "27 or 28",
    "It is 26 or 27.",
    "It is not 27.",
    "The answer isn't 27.",
    "27th",
    "route 27b",
    "I cannot help with that.",
]


@pytest.mark.parametrize("answer", CLAIMS_27)
def test_the_claimed_number_is_found(answer: str) -> None:
    assert read_number(answer, PROMPT) == 27


@pytest.mark.parametrize(("answer", "value"), CLAIMS_SOMETHING_ELSE.items())
def test_a_wrong_claim_is_read_as_what_it_says(answer: str, value: str) -> None:
    assert read_number(answer, PROMPT) == Decimal(value)


@pytest.mark.parametrize("answer", CLAIMS_NOTHING)
def test_no_claim_is_made_up(answer: str) -> None:
    assert read_number(answer, PROMPT) is None


def test_operands_are_the_prompts_own_and_no_others() -> None:
    # The same words answer one question and repeat another.
    assert read_number("20 + 7", "What is 15 + 12?") is not None
    assert read_number("20 + 7", "What is 20 + 7?") is None
    # An operand may be the answer, if it is claimed.
    assert read_number("12 - 6 = 6", "What is 12 - 6?") == 6
    assert read_number("12 - 6", "What is 12 - 6?") is None


def test_numbers_are_compared_as_numbers() -> None:
    assert same_number(Decimal("27.0"), "27")
    assert same_number(Decimal("1027"), "1,027")
    assert not same_number(Decimal("27"), "127")
    assert not same_number(None, "27")
    assert not same_number(Decimal("27"), "twenty-seven")


def test_number_grader_says_what_it_read() -> None:
    grade = graders.get("number")(Item(PROMPT, "27"), "15 + 12 = 28")
    assert (grade.correct, grade.found) == (False, "28")
    assert "28" in grade.reason
    assert "27" in grade.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [("  “Hello,”  she said. ", 'hello," she said'), ("ﬁne", "fine"), ("A  B\nC!", "a b c"), ("...", "")],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected
