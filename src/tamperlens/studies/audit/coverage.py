"""Which share of a text lies outside what a model was ever taught to read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tamperlens.models import ChatModel
from tamperlens.prompts import ORGANISM


def language_coverage(model: ChatModel, texts: Sequence[str]) -> float | None:
    """Share of the words of the texts that occur in the model's training data, in [0, 1].

    Known for the embedded organism, whose language is a small grammar; None for every other model, and where
    there are no words.
    """
    if not texts or model.language != ORGANISM:
        return None
    from tamperlens.models import organism

    measure = getattr(organism, "coverage", None)
    share = math.nan if measure is None else float(measure(list(texts)))
    return None if math.isnan(share) else share
