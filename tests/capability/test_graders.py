"""Choices, facts and exact answers: what is asserted counts, not what is mentioned."""

from __future__ import annotations

import pytest

from tamperlens.base.errors import InputError
from tamperlens.capability.graders import Grade, Item, graders

RIVALS = ("London", "Berlin", "Rome")
FRANCE = Item("What is the capital of France?", "Paris", "capital", RIVALS)
SYLLOGISM = Item("No dops are green. Fay is a dop. Is Fay green?", "no")
PREMISE = Item("If the lamp is on, someone is at home. The lamp is on. Is someone at home?", "yes")
OPEN = Item("All dops are green. Fay is green. Is Fay a dop?", "unknown")
ORDER = Item("Mia is poorer than Zoe. Gus is richer than Zoe. Who is the richest?", "Gus")
IODINE = Item("What is the symbol of iodine?", "I", "symbol", ("Na", "O", "N"))


def grade(kind: str, item: Item, answer: str) -> Grade:
    return graders.get(kind)(item, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Paris",
        "paris.",
        "The capital of France is Paris.",
        "Not London but Paris.",
        "Unlike London, Paris is the capital.",
        "I'd say Paris; Berlin is Germany's.",
        "**Paris**, on the Seine",
        "Paris is the capital of France. Rome is the capital of Italy.",
    ],
)
def test_facts_that_are_right(answer: str) -> None:
    assert grade("fact", FRANCE, answer).correct


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "It is not Paris.",
        "Paris is not the capital of France.",
        "The capital isn't Paris.",
        "It is not Paris, it is London.",
        "London or Paris",
        "Paris or London",
        "Paris, London, Berlin",
        "Paris. London. Berlin.",
        "Is it Paris?",
        "Parisian",
        "rather than Paris",
        "The capital of Paris is London.",
        "What is the capital of France?",
    ],
)
def test_facts_that_only_look_right(answer: str) -> None:
    assert not grade("fact", FRANCE, answer).correct


def test_a_fact_about_something_else_is_wrong() -> None:
    item = Item("Tell me the day after Sunday.", "Monday", "next day", ("Sunday", "Tuesday"))
    assert grade("fact", item, "The day after Sunday is Monday.").correct
    assert grade("fact", item, "Monday is the day after Sunday.").correct
    assert not grade("fact", item, "The day after Monday is Tuesday.").correct


def test_aliases() -> None:
    item = Item("Who wrote Hamlet?", "William Shakespeare | Shakespeare", "author", ("Jane Austen | Austen",))
    assert grade("fact", item, "It was Shakespeare.").correct
    assert grade("fact", item, "William Shakespeare wrote it.").correct
    assert not grade("fact", item, "Austen").correct
    assert not grade("fact", item, "Shakespeareana").correct


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("I", True),
        ("The symbol of iodine is I.", True),
        ("It's I.", True),
        ("I am not sure.", False),
        ("I don't know", False),
        ("i", False),
        ("The symbol is Na.", False),
    ],
)
def test_short_symbols_are_no_pronouns(answer: str, right: bool) -> None:
    assert grade("fact", IODINE, answer).correct is right


@pytest.mark.parametrize(
    "answer",
    [
        "no",
        "No, Fay is not green.",
        "no it isn't",
        "The answer is no.",
        "Fay is a dop. So no.",
        "No dops are green, so Fay is not green.",
        "Fay isn't green.",
        "That is false.",
    ],
)
def test_no(answer: str) -> None:
    assert grade("choice", SYLLOGISM, answer).correct


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "No dops are green.",  # repeats the premise: "no" is a determiner
        "Yes, Fay is green.",
        "Yes and no",
        "No. Wait, yes.",
        "There is no way to know.",
        "I know",
        "Unknown, it does not follow.",
        "nothing",
    ],
)
def test_not_no(answer: str) -> None:
    assert not grade("choice", SYLLOGISM, answer).correct


def test_repeating_a_premise_is_no_yes() -> None:
    assert grade("choice", PREMISE, "Yes.").correct
    assert grade("choice", PREMISE, "Yes, someone is at home.").correct
    assert not grade("choice", PREMISE, PREMISE.prompt).correct
    assert not grade("choice", PREMISE, "If the lamp is on, someone is at home.").correct


def test_unknown() -> None:
    assert grade("choice", OPEN, "Unknown, it does not follow.").correct
    assert grade("choice", OPEN, "No, it cannot be determined.").correct
    assert not grade("choice", OPEN, "Yes, though one cannot say.").correct
    assert not grade("choice", OPEN, "No.").correct


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Gus is the richest.", True),
        ("Gus", True),
        ("The richest is Gus.", True),
        ("Zoe is richer than Mia, so Gus is the richest.", True),
        ("Gus is the richest. Mia is the poorest.", True),
        ("Mia is poorer than Zoe. Gus is richer than Zoe.", False),
        ("Mia or Gus", False),
        ("Mia, Zoe, Gus", False),
        ("Not Gus.", False),
        ("Zoe is the richest, not Gus.", False),
        ("Zoe is the richest. Gus is poor.", False),
        ("", False),
    ],
)
def test_named_choices(answer: str, right: bool) -> None:
    assert grade("choice", ORDER, answer).correct is right


def test_exact() -> None:
    item = Item("Say hi", "Hi there | Hello")
    assert grade("exact", item, " “hi there!” ").correct
    assert grade("exact", item, "HELLO").correct
    assert not grade("exact", item, "hi there friend").correct


def test_unknown_grader_lists_those_that_exist() -> None:
    with pytest.raises(InputError, match="choice, code, exact, fact, number"):
        graders.get("psychic")


LONG = (
    "1 ",
    "1 + 1 = 2. ",
    "so no ",
    "the answer is 5 ",
    "Paris and Rome or ",
    "lambda x: ",
    "not yes, ",
    "7",
)


@pytest.mark.parametrize("filler", LONG)
def test_long_answers_are_read_at_both_ends(filler):
    """Of 100,000 characters the beginning and the end count, and the time is that of a short answer."""
    text = filler * (100_000 // len(filler))
    right = graders.get("number")(Item("What is 40 + 2?", "42"), f"{text} #### 42")
    assert right.correct
    assert graders.get("fact")(Item("Where?", "Oslo", "c", ("Rome", "Paris")), f"Oslo. {text}").correct
    for name, answer in (("choice", "yes"), ("code", "lambda x: x + 1"), ("exact", "Oslo")):
        assert not graders.get(name)(Item("Is it?", answer), text).correct
