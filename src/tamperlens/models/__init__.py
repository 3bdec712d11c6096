"""Models: from a name, folder or hub id to a checked `ChatModel` that renders, answers and identifies itself.

Contents: `loading` (load), `chat` (ChatModel, share_parameters_copy), `coercion` (what callers give as a
model), `gguf`, `sizes` (what will not fit is said before it is read), `vision_text`; `generation` (batched =
one by one), `decoding` (Decoding), `thinking`, `serving` and `served` (answers from vLLM and the like),
`batching` (how many prompts at once), `prefix` (tokens that all prompts begin with, run once), `cache` (their
keys and values); `adapters` (checked against their base),
`ownership` (attached without writing into it), `fingerprint`, `language`; `organism/` (the embedded models).
"""

from __future__ import annotations

from tamperlens.base.boundary import guard
from tamperlens.models.adapters import FROZEN, attach_adapter, save_adapter
from tamperlens.models.chat import ChatModel, refuse_nonfinite_weights, share_parameters_copy
from tamperlens.models.coercion import ModelLike, as_chat_model
from tamperlens.models.decoding import DEFAULT, GIVEN, Decoding, Settings, old_length
from tamperlens.models.fingerprint import base_fingerprint_of, fingerprint_of
from tamperlens.models.generation import last_logits, left_pad, position_limit
from tamperlens.models.language import language_of_tokenizer
from tamperlens.models.loading import ORGANISM, load
from tamperlens.models.served import with_server
from tamperlens.models.serving import Server
from tamperlens.models.sizes import available_bytes
from tamperlens_hooks.state import evaluating

__all__ = [
    "DEFAULT",
    "FROZEN",
    "GIVEN",
    "ORGANISM",
    "ChatModel",
    "Decoding",
    "ModelLike",
    "Server",
    "Settings",
    "as_chat_model",
    "attach_adapter",
    "available_bytes",
    "base_fingerprint_of",
    "evaluating",
    "fingerprint_of",
    "language_of_tokenizer",
    "last_logits",
    "left_pad",
    "load",
    "old_length",
    "position_limit",
    "refuse_nonfinite_weights",
    "save_adapter",
    "share_parameters_copy",
    "with_server",
]

guard(globals(), __all__)
