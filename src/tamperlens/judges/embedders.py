"""Answers as vectors: a model's own mean hidden state offline, sentence-transformers where installed.

An embedder of your own is anything with a `name` that maps texts to rows of numbers. Distances by two
embedders are not comparable; every result stores which one made it.
"""

from __future__ import annotations

import importlib
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file

from tamperlens.base.errors import InputError
from tamperlens.base.protocols import Embedder
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.models.generation import BatchSize, in_batches, left_pad
from tamperlens.prompts import ORGANISM
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
        batch_size: BatchSize = "auto",
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

    Without that library, folders and cached models that average a transformer's token states (as MiniLM
    does, sentence-transformers' "mean tokens" pooling) are read by transformers itself.

    Args:
        name: hub id or folder.
        device: where it runs; its own choice by default.

    Raises:
        InputError: no such model, or one that pools otherwise while sentence-transformers is not installed
            (the message says which extra).
    """

    def __init__(self, name: str = MINILM, *, device: str | None = None) -> None:
        self.name = name
        try:
            library = importlib.import_module("sentence_transformers")
        except ImportError:
            self.model: Any = _MeanPooled(name, device)
            return
        try:
            self.model = library.SentenceTransformer(name, device=device)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot load the sentence-transformers model {name!r}: {error}") from error

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """One row per text."""
        rows: np.ndarray = self.model.encode(list(texts), convert_to_numpy=True, show_progress_bar=False)
        return rows


class _MeanPooled:
    """Token states of a transformer, averaged over each text: the pooling that `1_Pooling` must name."""

    def __init__(self, name: str, device: str | None) -> None:
        remedy = f"embedding with {name!r} needs the optional extra 'embeddings': "
        remedy += "pip install 'tamperlens[embeddings]'; or pass refusal.HiddenStateEmbedder(base_model)"
        try:
            found = {
                part: cached_file(name, f"{part}.json", local_files_only=True)
                for part in ("1_Pooling/config", "sentence_bert_config")
            }
            settings = {part: json.loads(Path(path).read_text("utf-8")) for part, path in found.items()}
            self.tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
            self.module = AutoModel.from_pretrained(name, local_files_only=True).eval()
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"no sentence embedder {name!r} at hand; {remedy}") from error
        pooling = {
            key for key, on in settings["1_Pooling/config"].items() if key.startswith("pooling") and on
        }
        if pooling != {"pooling_mode_mean_tokens"}:
            raise InputError(f"{name!r} does not average its tokens; {remedy}")
        self.longest = int(settings["sentence_bert_config"]["max_seq_length"])
        self.module.to(device or "cpu")

    @torch.no_grad()
    def encode(self, texts: Sequence[str], **ignored: Any) -> Any:
        """One row per text, 32 at a time."""
        rows = []
        for start in range(0, len(texts), 32):
            batch = self.tokenizer(
                list(texts[start : start + 32]), padding=True, truncation=True, max_length=self.longest,
                return_tensors="pt",
            ).to(self.module.device)  # fmt: skip
            states = self.module(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(states)
            rows.append(((states * mask).sum(1) / mask.sum(1)).cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, self.module.config.hidden_size))


def default_embedder(model: ModelLike) -> Embedder:
    """What RD is measured with unless told otherwise: MiniLM, as published, wherever it is at hand.

    `TAMPERLENS_EMBEDDER` names another model or its folder. Models in the embedded organism's language, which
    MiniLM cannot read, and machines without it take the base's own mean hidden state; a warning says so for
    real models, whose hidden states hardly tell answers apart (refused .17, unrelated .13; MiniLM .85).

    Args:
        model: the base.
    """
    model = as_chat_model(model)
    if model.language == ORGANISM:
        return HiddenStateEmbedder(model)
    try:
        return SentenceEmbedder(os.environ.get("TAMPERLENS_EMBEDDER", MINILM))
    except InputError as error:
        warnings.warn(
            f"RD is measured with {model.name}'s own hidden states, which hardly tell answers apart: {error} "
            "(TAMPERLENS_EMBEDDER may name a folder that holds one)",
            UserWarning,
            stacklevel=2,
        )
        return HiddenStateEmbedder(model)


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
