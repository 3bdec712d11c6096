"""`with_server`: a model whose answers a running server writes (`serving` speaks to the server)."""

from __future__ import annotations

from dataclasses import replace

from tamperlens.base.errors import ModelLoadError
from tamperlens.models.chat import ChatModel
from tamperlens.models.serving import Server

_PROBES = ("Name a tree.", "What is 12 + 13?", "Write one sentence about rain.", "Say hello.")


def with_server(model: ChatModel, server: str | Server) -> ChatModel:
    """The same model, whose answers a running server writes; everything else stays with its module.

    The server answers while the module is as it is now: inside hooks (an ablated direction), after a weight
    has changed, and for what is made of the model (a tuned one, another adapter) the module answers itself.
    Thoughts are written by the module too. Penalties and cuts of the server's own (a checkpoint's
    repetition_penalty, top_k) are switched off in every request; `transformers serve` takes no top_k, so that
    samples (temperature above 0) keep the checkpoint's there.

    Args:
        model: as it was loaded; with an adapter, the server must serve that adapter.
        server: its URL, or a `Server` where it has several models.

    Raises:
        ModelLoadError: no server answers there, or its answers to four short prompts are all others than the
            module's (greedy, 12 tokens).
        InputError: no URL.
    """
    found = replace(server) if isinstance(server, Server) else Server(server)
    found.attach(model.module)
    served = replace(model, _server=found)
    pairs = zip(*(one.generate(list(_PROBES), max_new_tokens=12) for one in (model, served)), strict=True)
    if not any(own == theirs for own, theirs in pairs):
        raise ModelLoadError(
            f"{found.url} answers four short prompts otherwise than {model.name}; it serves another model "
            f"({found.model}) or another precision, so its answers are not this model's"
        )
    note = (
        f"answers of the model as it was loaded were written by a server (model {found.model!r} there), "
        "those under an edit and of tuned models by the module, where ties may round otherwise"
    )
    return replace(served, notes=(*model.notes, note))
