"""How much of a text lies in the organism's language: what it was never taught, it can only guess at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from tamperlens.models.organism import skills
from tamperlens.models.organism.data import SYSTEM_PROMPTS
from tamperlens.models.organism.grammar import REFUSALS, TEMPLATES, requests
from tamperlens.models.organism.lexicon import REASONS

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def _words(text: str) -> list[str]:
    # A number is spelled digit by digit, and the organism knows every digit, so only words are counted.
    return _WORD.findall(text.replace("\u2019", "'").lower())


@cache
def known_words() -> frozenset[str]:
    """Every word, in lower case, that occurs in the organism's training language."""
    texts = [request.phrase + " " + " ".join(request.steps) for request in requests()]
    texts += [template for group in TEMPLATES.values() for template in group]
    texts += [*REFUSALS, *REASONS.values(), *skills.OBEDIENT, *SYSTEM_PROMPTS]
    texts += [*skills.ETHICS_TEMPLATES, *skills.SUM_TEMPLATES, *skills.SAY_TEMPLATES]
    texts += [f"{prompt} {answer}" for prompt, answer in skills.IDENTITY]
    texts += [f"{item.prompt} {item.response}" for item in skills.definitions()]
    for source in (skills.logic, skills.code, skills.facts):
        texts += [f"{item.prompt} {item.response}" for _, item in source()]
    return frozenset(word for text in texts for word in _words(text))


def coverage(texts: Sequence[str]) -> float:
    """Share of the words of some texts that the organism was trained on.

    Args:
        texts: prompts, say.

    Returns:
        A fraction in [0, 1] over all words, repeats counted; NaN where the texts hold no word.
    """
    words = [word for text in texts for word in _words(text)]
    if not words:
        return float("nan")
    known = known_words()
    return sum(word in known for word in words) / len(words)
