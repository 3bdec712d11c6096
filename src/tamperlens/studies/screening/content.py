"""The baseline: a classifier of words that has never seen the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tamperlens.models import ChatModel
from tamperlens.prompts import packaged_for


class ContentClassifier:
    """Logistic regression on words and pairs of words (TF-IDF) of the request: harmful or not.

    Learned on the packaged harmful requests against harmless ones and look-alikes in the model's language. It
    reads requests alone, so a refused harmful request scores like one that is complied with.
    """

    def __init__(self, model: ChatModel) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        bad = packaged_for(model, "harmful", "train").prompts
        good = [p for role in ("harmless", "lookalike") for p in packaged_for(model, role, "train").prompts]
        self.pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=10, max_iter=1000, class_weight="balanced"),
        )
        self.pipeline.fit([*map(str, bad), *map(str, good)], [1] * len(bad) + [0] * len(good))

    def __call__(self, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Log-odds of harmful, by request."""
        return np.asarray(self.pipeline.decision_function([str(one) for one in prompts]), dtype=np.float64)
