"""Answers as vectors: a model's own mean hidden state offline, sentence-transformers where installed.

An embedder of your own is anything with a `name` that maps texts to rows of numbers. Distances by two
embedders are not comparable; every result stores which one made it.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Embedder
from tamperlens.models import ChatModel
from tamperlens.models.generation import in_batches, left_pad
from tamperlens_hooks import Site, capture
from tamperlens_hooks.state import evaluating

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


class HiddenStateEmbedder:
    """A language model's own hidden states, averaged over the tokens of a text (no chat format around it).

    Needs no download: the base model at hand embeds the answers of base and tuned model alike. Hidden states
    share a large common part, so cosine distances are small; look at them beside the distance between
    unrelated answers (`RepresentationDistance.unrelated`).

    Args:
        model: the model that reads; always the *base*, also for a tuned model's answers.
        layer: block whose output is averaged, negative from the end; None for the output of the final norm.
        batch_size: texts at once, or "auto".
        max_tokens: longer texts are cut there.
    """

    def __init__(
        self,
        model: ChatModel,
        *,
        layer: int | None = None,
        batch_size: Any = "auto",
        max_tokens: int = 512,
    ) -> None:
        layers = model.n_layers
        if layer is not None and not -layers <= layer < layers:
            raise InputError(f"{model.name} has {layers} layers; layer {layer} does not exist")
        self.model = model
        self.layer = None if layer is None else layer % layers
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        where = "final norm" if self.layer is None else f"layer {self.layer}"
        self.name = f"mean hidden state, {model.name} ({model.fingerprint[:8]}), {where}"

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "n d_model"]:
        """One row per text, fp32 on the CPU; NaN for a text without tokens."""
        tokenizer = self.model.tokenizer
        ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
        rows = torch.full((len(texts), self.model.d_model), torch.nan)
        filled = [index for index, one in enumerate(ids) if one]
        sequences = [ids[index][: self.max_tokens] for index in filled]
        site: Site = "final" if self.layer is None else "resid_post"
        layers = None if self.layer is None else [self.layer]
        device = self.model.device

        def embed(batch: list[int]) -> None:
            padded = left_pad([sequences[i] for i in batch], self.model.pad_id, device)
            with capture(self.model, sites=site, layers=layers) as tape:
                self.model.module(
                    input_ids=padded.input_ids,
                    attention_mask=padded.attention_mask,
                    position_ids=padded.position_ids,
                    use_cache=False,
                )
            states = tape[site].float().to(device)
            states = states[0] if states.ndim == 4 else states
            mask = padded.attention_mask[..., None].to(states)
            means = (states * mask).sum(1) / mask.sum(1)
            for i, mean in zip(batch, means.cpu(), strict=True):
                rows[filled[i]] = mean

        with evaluating(self.model.module):
            in_batches(self.model.module, sequences, 0, self.batch_size, device, embed)
        return rows


class SentenceEmbedder:
    """A sentence-transformers model, e.g. the MiniLM of the published RD.

    Args:
        name: hub id or folder.
        device: where it runs; its own choice by default.

    Raises:
        InputError: sentence-transformers is not installed (the message says which extra), or no such model.
    """

    def __init__(self, name: str = MINILM, *, device: str | None = None) -> None:
        try:
            library = importlib.import_module("sentence_transformers")
        except ImportError as error:
            raise InputError(
                f"embedding with {name!r} needs the optional extra 'embeddings': "
                "pip install 'tamperlens[embeddings]'; offline, pass refusal.HiddenStateEmbedder(base_model)"
            ) from error
        try:
            self.model = library.SentenceTransformer(name, device=device)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load the sentence-transformers model {name!r}: {error}") from error
        self.name = name

    def __call__(self, texts: Sequence[str]) -> Any:
        """One row per text."""
        return self.model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)


def get_embedder(embedder: str | ChatModel | Embedder) -> Embedder:
    """A sentence-transformers model by name, a chat model's own hidden states, or an embedder as it is.

    Raises:
        InputError: the extra is not installed, or the thing has no name or cannot be called.
    """
    if isinstance(embedder, str):
        return SentenceEmbedder(embedder)
    if isinstance(embedder, ChatModel):
        return HiddenStateEmbedder(embedder)
    if not callable(embedder) or not getattr(embedder, "name", ""):
        raise InputError(
            "an embedder is called with texts and has a non-empty `name`, which is stored in every result"
        )
    return embedder


def embed(embedder: Embedder, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows of an embedder as float64 `[n, d]`; texts without a word get NaN and are not asked about.

    Raises:
        InputError: the embedder returns something that is not one finite row per text.
    """
    asked = [index for index, text in enumerate(texts) if text.strip()]
    found = embedder([texts[index] for index in asked]) if asked else np.zeros((0, 1))
    raw = found.detach().cpu().double().numpy() if isinstance(found, Tensor) else found
    table = np.asarray(raw, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(asked):
        raise InputError(
            f"embedder {embedder.name!r} gave an array of shape {table.shape} for {len(asked)} texts; "
            "it must give one row per text"
        )
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(1))[0])
        raise InputError(f"embedder {embedder.name!r} gave NaN or infinite numbers for text {asked[row]}")
    rows = np.full((len(texts), table.shape[1]), np.nan)
    rows[asked] = table
    return rows
