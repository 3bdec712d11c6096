"""Reading an answer out of free text: normalisation, numbers, and which mention is the claim."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

_DASHES = dict.fromkeys(map(ord, "−‒–﹣－"), "-")
_QUOTES = {ord(a): b for a, b in zip("‘’‛“”„«»", '\'\'\'"""""', strict=True)}
_MARKUP = re.compile(r"[*_`]{1,3}|\\[()\[\]]|\$(?=\d)|\\boxed(?=\{)")


# Longer answers are read at both ends; what stands beside a word is looked for this near. Both keep the time
# that an answer takes within its length.
LONGEST, NEAR, CONCLUSIONS = 8_000, 200, 10


def clip(text: str) -> str:
    """An answer of at most about `LONGEST` characters: the beginning and the end of a longer one."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}\n…\n{text[-half:]}"


def _beside(text: str, start: int, end: int | None = None) -> tuple[str, str]:
    """What stands just before `start`, and just after `end`."""
    after = "" if end is None else text[end : end + NEAR]
    return text[max(0, start - NEAR) : start], after


def tidy(text: str) -> str:
    """Unicode folded (NFKC), typographic dashes and quotes made plain, Markdown and TeX marks removed."""
    folded = unicodedata.normalize("NFKC", text).translate(_DASHES).translate(_QUOTES)
    return _MARKUP.sub("", folded).strip()


def normalise(text: str) -> str:
    """`tidy`, case-folded, without outer quotes and final punctuation, white space collapsed."""
    return " ".join(tidy(text).casefold().split()).strip(" .,;:!?\"'()[]{}")


# ---- numbers ----------------------------------------------------------------------------------------------

# Thousands separators only where they group by three; no digit, letter or point before the number.
_NUMBER = r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w]|\.\d|,\d{3}\b)"
_OPERATOR = r"(?:\+|-|\*|/|×|÷|x(?=\s*\d)|plus|minus|times|divided by|added to|less|and)"
_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}
_SCALES = {"hundred": 100, "thousand": 1000}
_ONE, _MORE = "|".join(_WORDS), "|".join([*_WORDS, *_SCALES])
_SPELLED = re.compile(
    rf"\b(?:minus |negative )?(?:{_ONE})(?:(?:[ -]|\s+and\s+)(?:{_MORE}))*\b", re.IGNORECASE
)
_CONCLUSIONS = re.compile(
    r"####|\b(?:so|therefore|thus|hence|(?:final |correct )?answer(?: is)?|boxed|result is|in total)\b",
    re.IGNORECASE,
)
_CLAIM = re.compile(
    r"(?:=|≈|\b(?:is|are|equals?|makes?|gives?|get|got|be|was|totals?)\b)\s*"
    r"(?:exactly |simply |just |equal to )?:?\s*$",
    re.IGNORECASE,
)


class _Found(NamedTuple):
    value: Decimal
    start: int
    end: int


def read_number(text: str, prompt: str = "") -> Decimal | None:
    """The number that an answer claims, or None when it claims none or hedges between two.

    In this order: what follows the last conclusion ("so 119", "#### 42", "the answer is 27"); what follows
    the last "="; a number at the very beginning; the last number after "is", "equals", "makes", …; the last
    number. Operands that the prompt joins ("15 + 12", "15 and 12") are no claims, nor are numbers after
    "not", nor numbers that go on into an operation. "27 or 28" claims nothing. Without digits, English number
    words are read.
    """
    plain = tidy(clip(text))
    if not any(character.isdigit() for character in plain):
        plain = _spelled_out(plain)
    plain = _without_operands(plain, tidy(prompt))
    parts = [plain[match.end() :] for match in _CONCLUSIONS.finditer(plain)]
    # A question that follows the answer is a new one, which some models go on to ask themselves.
    for part in [*parts[: -CONCLUSIONS - 1 : -1], *plain.split("?")]:
        found = _claimed(part)
        if found is not None:
            return None if _hedged(part, found) else found.value
    return None


def same_number(found: Decimal | None, expected: str) -> bool:
    """Whether a number equals the expected one, e.g. 27 and "27.0"."""
    try:
        return found is not None and found == Decimal(expected.strip().replace(",", ""))
    except InvalidOperation:
        return False


def _claimed(part: str) -> _Found | None:
    found = []
    for match in re.finditer(_NUMBER, part):
        before, after = _beside(part, match.start(), match.end())
        if re.search(r"(?:\bnot|n't)\s+(?:\w+\s+)?$", before, re.IGNORECASE):
            continue
        if re.match(rf"\s*(?:{_OPERATOR.replace('|and', '')})\s*[-+]?\d", after, re.IGNORECASE):
            continue  # it goes on: an operand
        if re.match(r"\s*(?:more|less|greater|fewer|bigger|smaller)\b", after, re.IGNORECASE):
            continue
        if re.search(r"\bthan\s+$", before, re.IGNORECASE):
            continue
        found.append(_Found(Decimal(match.group().replace(",", "")), match.start(), match.end()))
    if not found:
        return None
    equal = [one for one in found if re.search(r"[=≈]\s*$", _beside(part, one.start)[0])]
    if equal:
        return equal[-1]
    if not re.search(r"\w", part[: found[0].start]):
        return found[0]
    said = [one for one in found if _CLAIM.search(_beside(part, one.start)[0])]
    return said[-1] if said else found[-1]


def _hedged(part: str, found: _Found) -> bool:
    before, after = _beside(part, found.start, found.end)
    return bool(
        re.match(r"\s*,?\s*(?:or|/)\s*(?:maybe |perhaps |even )?[-+]?\d", after, re.IGNORECASE)
        or re.search(r"\d\s*,?\s*(?:or|/)\s*(?:maybe |perhaps |even )?$", before, re.IGNORECASE)
    )


def _without_operands(text: str, prompt: str) -> str:
    """The text less every chain of operands that only repeats the prompt's numbers."""
    given = {Decimal(number.replace(",", "")) for number in re.findall(_NUMBER, prompt)}
    if not given:
        return text

    def drop(match: re.Match[str]) -> str:
        numbers = {
            Decimal(one.replace(",", "").lstrip("+-"))
            for one in re.findall(r"[\d,]*\d(?:\.\d+)?", match.group())
        }
        return " " if numbers <= {abs(one) for one in given} else match.group()

    chain = rf"{_NUMBER}(?:\s*{_OPERATOR}\s*(?:\d[\d,]*(?:\.\d+)?)(?![\w]|\.\d))+"
    return re.sub(chain, drop, text, flags=re.IGNORECASE)


def _spelled_out(text: str) -> str:
    def digits(match: re.Match[str]) -> str:
        total = group = 0
        words = re.split(r"[\s-]+", match.group().lower())
        negative = words[0] in ("minus", "negative")
        for word in words[1:] if negative else words:
            if word in _WORDS:
                group += _WORDS[word]
            elif word == "hundred":
                group = max(group, 1) * 100
            elif word == "thousand":
                total, group = (total + max(group, 1)) * 1000, 0
        return str(-(total + group) if negative else total + group)

    return _SPELLED.sub(digits, text)


# ---- which of several words is asserted -------------------------------------------------------------------

_NEGATION = r"(?:\bnot|n't|\bnever|\bneither|\brather than|\binstead of|\bother than|\bunlike|\bwrong(?:ly)?)"
_DENIED_AFTER = re.compile(
    r"\s*(?:is|was|are|were)(?:n't|\s+(?:not|wrong|incorrect|false|never))\b|\s*\((?:wrong|incorrect|no)\b|\s*\?",
    re.IGNORECASE,
)


class Mention(NamedTuple):
    """One candidate answer, asserted somewhere in a text.

    Attributes:
        candidate: which of the candidates.
        start: where its words begin.
        end: where they end.
    """

    candidate: str
    start: int
    end: int


def mentions(text: str, candidates: dict[str, tuple[str, ...]]) -> list[Mention]:
    """Every asserted mention of a candidate, in order; longer names win over names inside them.

    Whole words only. Words of one or two letters (chemical symbols) must match in case and stand by
    themselves. Not asserted: what is negated ("not Paris", "Paris is not", "n't in Paris") or asked.

    Args:
        text: a tidied answer.
        candidates: canonical name to the ways of writing it.
    """
    found: list[Mention] = []
    for name, spellings in candidates.items():
        for spelling in spellings:
            for match in _occurrences(text, spelling):
                if not _denied(text, match):
                    found.append(Mention(name, match.start(), match.end()))
    found.sort(key=lambda one: (one.start, -one.end))
    kept: list[Mention] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def _occurrences(text: str, spelling: str) -> list[re.Match[str]]:
    words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", tidy(spelling))))
    pattern = rf"(?<![\w'-]){words}(?:'s)?(?![\w]|-\w|'\w)"
    if len(spelling) > 2:
        return list(re.finditer(pattern, text, re.IGNORECASE))
    # A symbol stands alone: at the end of a clause, in brackets or quotes, or before "is" and "stands for".
    alone = r"(?=\s*(?:$|[.,;:!?)\"'\]=\n]|(?:is|stands|for|means)\b))"
    return list(re.finditer(pattern + alone, text))


def _denied(text: str, match: re.Match[str]) -> bool:
    clause = re.split(r"[.,;:!?\n]|\bbut\b", _beside(text, match.start())[0])[-1]
    return bool(
        re.search(rf"{_NEGATION}(?:\s+[\w'-]+){{0,3}}\s*[\"'(]*$", clause, re.IGNORECASE)
        or _DENIED_AFTER.match(text, match.end())
    )


def listed_together(text: str, first: Mention, second: Mention) -> bool:
    """Whether two mentions are items of a list: "Paris or London", "Paris, London", "Paris. London."."""
    between = text[first.end : second.start]
    words = r"\b(?:or|and|and/or|maybe|perhaps|either|possibly)\b"
    if re.fullmatch(rf"[\s,/|&+\"'()-]*(?:{words}[\s,]*)*", between, re.IGNORECASE):
        return True
    # After a full stop or semicolon a new clause begins, unless the name is all there is of it.
    bare = re.match(r"[\s\"')]*(?:$|[.,;/|\n])", text[second.end :])
    return re.fullmatch(r"[\s.;\"'()]*", between) is not None and bare is not None
