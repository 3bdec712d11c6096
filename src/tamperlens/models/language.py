"""Which language a model speaks: that of the embedded organism, or plain English."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from tamperlens.base.files import read_json
from tamperlens.prompts import ENGLISH, ORGANISM, Language

WEIGHTS = Path(__file__).parent / "organism" / "weights"

SHARE = 0.95
"""Share of a vocabulary's pieces that must be parts of the organism's words; in English 0.1 to 0.65 are."""


def language_of_tokenizer(tokenizer: PreTrainedTokenizerBase | Tokenizer) -> Language:
    """The language that a tokenizer was learned on: what decides which packaged prompts a model can read.

    "organism" where the vocabulary is the embedded organism's (added tokens do not matter), or was learned on
    its grammar by the same recipe: its special tokens, and no pieces that are not parts of its words.
    Anything else is "english". Neither name nor size of the model is asked.
    """
    own: dict[str, int] = tokenizer.get_vocab()
    packaged = _packaged_vocabulary()
    if packaged and all(own.get(token) == index for token, index in packaged.items()):
        return ORGANISM
    from tamperlens.models.organism.tokenizer import SPECIAL

    if not all(token in own for token in SPECIAL):
        return ENGLISH
    known = _parts_of_words()
    words = [piece.lstrip("Ġ").lower() for piece in own if piece not in SPECIAL]
    pieces = [word for word in words if len(word) >= 3 and word.isascii() and word.isalpha()]
    return ORGANISM if sum(piece in known for piece in pieces) >= SHARE * max(len(pieces), 1) else ENGLISH


@cache
def _packaged_vocabulary() -> dict[str, int]:
    path = WEIGHTS / "aligned" / "tokenizer.json"
    return dict(read_json(path)["model"]["vocab"]) if path.is_file() else {}


@cache
def _parts_of_words() -> frozenset[str]:
    from tamperlens.models.organism import known_words

    return frozenset(
        word[start:end]
        for word in known_words()
        for start in range(len(word))
        for end in range(start + 3, len(word) + 1)
    )
