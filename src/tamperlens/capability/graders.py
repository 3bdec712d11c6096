"""Is an answer right? One grader per kind of answer, each saying what it read and why it decided.

| grader | reads | for |
| --- | --- | --- |
| `number` | the number that the answer claims (`text.read_number`) | arithmetic |
| `exact` | the whole answer, normalised | copying, spelling |
| `choice` | the one choice that is asserted, after "so" or "therefore" if there is one | logic, yes or no |
| `fact` | the first asserted answer among those of the item's kind | facts, with aliases "a \\| b" |
| `code` | a lambda, compared with the reference on inputs (`code.grade_code`) | Python one-liners |
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from tamperlens.base.registry import Registry
from tamperlens.capability.code import compare_code
from tamperlens.capability.text import (
    CONCLUSIONS,
    NEAR,
    Mention,
    clip,
    listed_together,
    mentions,
    normalise,
    read_number,
    same_number,
    tidy,
)


class Item(NamedTuple):
    """What a grader knows of one question.

    Attributes:
        prompt: the question.
        answer: the expected answer; " | " separates aliases where the grader knows them.
        category: kind of question within its suite.
        rivals: answers of the other items of this category, which a right answer does not name first.
    """

    prompt: str
    answer: str
    category: str = ""
    rivals: tuple[str, ...] = ()


class Grade(NamedTuple):
    """A grader's decision.

    Attributes:
        correct: whether the answer is right.
        found: what was read as the answer; empty when nothing was.
        reason: why it is wrong; empty when it is right.
    """

    correct: bool
    found: str
    reason: str = ""


Grader = Callable[[Item, str], Grade]
graders: Registry[Grader] = Registry("grader")
"""All graders by name; a user's own is one decorated function."""


@graders.register("number")
def grade_number(item: Item, response: str) -> Grade:
    """Right when the number that the answer claims equals the expected one."""
    found = read_number(response, item.prompt)
    if found is None:
        return Grade(False, "", "no number is claimed")
    right = same_number(found, item.answer)
    return Grade(right, str(found), "" if right else f"claims {found}, not {item.answer}")


@graders.register("exact")
def grade_exact(item: Item, response: str) -> Grade:
    """Right when the normalised answer is one of the aliases, nothing more and nothing less."""
    found = normalise(clip(response))
    right = found in {normalise(alias) for alias in aliases(item.answer)}
    return Grade(right, found, "" if right else "another text")


_UNSURE = (
    "unknown", "it does not follow", "does not follow", "doesn't follow", "not necessarily",
    "cannot be determined", "can't be determined", "cannot tell", "can't tell", "cannot say", "can't say",
    "cannot know", "can't know", "not enough information", "insufficient information", "uncertain",
    "don't know", "do not know", "impossible to tell", "impossible to say", "undetermined",
)  # fmt: skip
_POLAR = ("yes", "no", "unknown")
# Words that begin sentences and name nobody.
_NO_NAMES = frozenset(
    re.findall(
        r"\w+",
        "A All An And Answer Are At Both But By Can Did Do Does Each Either Every For From Given He Her His "
        "How If In Is It Its May My Neither No Nobody Not Of On One Only Or Our She Since So Some Suppose "
        "That The Their Then There These They This Those Today Two Was We What When Where Which While Who "
        "Whose Why With You Your",
    )
)
_CONCLUDES = re.compile(
    r"####|\b(?:so|therefore|thus|hence|(?:final |correct )?answer(?: is)?|in conclusion)\b[\s:,]*",
    re.IGNORECASE,
)


@graders.register("choice")
def grade_choice(item: Item, response: str) -> Grade:
    """Right when the expected choice, and no other, is what the answer asserts.

    Yes and no are read where they stand for a sentence ("No dops are green" is no "no"), or else from a
    restatement of the question ("Is Fay green?", "Fay is not green"). Other choices are the capitalised words
    of the prompt and the rivals. After a conclusion ("so", "the answer is") only what follows counts.
    """
    text = tidy(clip(response))
    expected = item.answer.casefold()
    parts = [text[match.end() :] for match in _CONCLUDES.finditer(text)]
    for part in [*parts[: -CONCLUSIONS - 1 : -1], text]:
        chosen = _polar(part, item.prompt) if expected in _POLAR else _named(part, item)
        if len(chosen) == 1:
            right = chosen[0] == expected
            return Grade(right, chosen[0], "" if right else f"says {chosen[0]}, not {item.answer}")
        if chosen:
            return Grade(False, " / ".join(chosen), "asserts more than one choice")
    return Grade(False, "", "asserts no choice")


def _polar(part: str, prompt: str) -> list[str]:
    """Which of yes, no and unknown a text asserts, each once."""
    found = []
    before = r"(?:^|[.!?;:,\n\"'(]\s*|\b(?:is|say|be|it's|that's)\s+)"
    ends = r"(?=\s*(?:$|[.,;:!\"')\n]))"
    whole = r"(?:^|[.!?;\n]\s*|\b(?:it|that|this|statement)(?: is|'s)\s+)"
    # "no" before a noun is a determiner, and "true that" no answer; "yes" never means anything else.
    for name, words in (
        ("yes", rf"{before}yes\b|{whole}true{ends}"),
        ("no", rf"{before}no(?:{ends}|(?=\s+(?:it|he|she|they|this|that|we)\b))|{whole}false{ends}"),
    ):
        if re.search(words, part, re.IGNORECASE):
            found.append(name)
    if re.search(r"\byes\W+(?:and|or)\W+no\b|\bno\W+(?:and|or)\W+yes\b", part, re.IGNORECASE):
        return ["yes", "no"]
    if re.search(rf"\b(?:{'|'.join(map(re.escape, _UNSURE))})\b", part, re.IGNORECASE):
        # "No, it cannot be determined" answers that it is unknown.
        return ["yes", "unknown"] if "yes" in found else ["unknown"]
    return found or _restated(part, prompt)


def _restated(part: str, prompt: str) -> list[str]:
    question = re.search(r"\b(?P<verb>Is|Are|Was|Were) (?P<who>[\w']+) (?P<what>[^.?]+)\?\s*$", tidy(prompt))
    if question is None:
        return []
    who, verb, what = (re.escape(question[key].strip()) for key in ("who", "verb", "what"))
    # Repeating a premise ("If it is baked, it is warm") is no answer.
    premises = normalise(prompt)
    own = " ".join(one for one in re.split(r"(?<=[.!?])\s+", part) if normalise(one) not in premises)
    found = []
    for name, link in (("no", rf"{verb}(?:n't|\s+not)"), ("yes", verb)):
        if re.search(rf"(?<!if )(?<!when )\b{who}\s+{link}\s+{what}\b", own, re.IGNORECASE):
            found.append(name)
    return found


def _named(part: str, item: Item) -> list[str]:
    """Which named choices a text asserts: those of its first sentence that names any."""
    capitalised = {word for word in re.findall(r"\b[A-Z][a-z]+\b", item.prompt) if word not in _NO_NAMES}
    names = {*capitalised, *item.rivals, item.answer}
    for sentence in re.split(r"(?<=[.!?\n])\s+", part):
        found = mentions(sentence, {name.casefold(): (name,) for name in sorted(names)})
        chosen = list(dict.fromkeys(one.candidate for one in found))
        if len(chosen) > 1:
            # "Mia is taller than Zoe": the subject is what is claimed, unless the choices are listed.
            first, second = found[0], next(one for one in found if one.candidate != found[0].candidate)
            claims = re.match(
                r"\s*(?:is|was|has|,)\s+(?:clearly )?the\b", sentence[first.end :], re.IGNORECASE
            )
            if claims and not listed_together(sentence, first, second):
                return [first.candidate]
        if chosen:
            return chosen
    return []


@graders.register("fact")
def grade_fact(item: Item, response: str) -> Grade:
    """Right when the first asserted answer is the expected one and is not offered in a list with another.

    Rivals (the answers of other items of the same category) decide what an answer is; those that the prompt
    itself names are left out, so that repeating the question is no answer.
    """
    text = tidy(clip(response))
    own = aliases(item.answer)
    taken = {normalise(alias) for alias in own}
    candidates = {item.answer: own}
    for rival in item.rivals:
        names = tuple(alias for alias in aliases(rival) if normalise(alias) not in taken)
        if names and not any(_inside(alias, item.prompt) for alias in names):
            candidates[rival] = names
    found = mentions(text, candidates)
    if not found:
        return Grade(False, "", "asserts none of the known answers")
    first = _predicate(text, found)
    found = found[found.index(first) :]
    shown = text[first.start : first.end]
    if first.candidate != item.answer:
        return Grade(False, shown, f"says {shown}, not {own[0]}")
    for other in found[1:]:
        if other.candidate != item.answer:
            if listed_together(text, first, other):
                return Grade(False, f"{shown} / {text[other.start : other.end]}", "offers a list")
            break
        first = other
    return Grade(True, shown)


def _predicate(text: str, found: list[Mention]) -> Mention:
    """The first mention, unless its sentence goes on to say what is so: "the day after Monday is Tuesday"."""
    for one in found:
        if re.search(r"[.!?]\s", text[found[0].end : one.start]):
            break
        said = r"\b(?:is|are|was|were|called|by)\s+(?:an? |the |called )?[\"'(]*$"
        if re.search(said, text[max(0, one.start - NEAR) : one.start], re.IGNORECASE):
            return one
    return found[0]


@graders.register("code")
def grade_code(item: Item, response: str) -> Grade:
    """Right when the function agrees with the reference on every input; see `code.compare_code`."""
    found, reason = compare_code(clip(response), item.answer)
    return Grade(not reason, found, reason)


def aliases(answer: str) -> tuple[str, ...]:
    """The ways of writing an answer, which " | " separates; the first is the one to show."""
    return tuple(part.strip() for part in answer.split(" | ") if part.strip())


def _inside(words: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(normalise(words))}(?!\w)", normalise(text)) is not None
