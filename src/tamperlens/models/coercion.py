"""What a function was given as its model, as a `ChatModel`: the one place where that is decided."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol, TypeAlias

from torch import nn

from tamperlens.base.errors import InputError
from tamperlens.models.chat import ChatModel, refuse_nonfinite_weights


class HasModel(Protocol):
    """Something that holds a `ChatModel`, such as a `finetune.TunedModel`."""

    @property
    def model(self) -> ChatModel:
        """The model that is meant."""


if TYPE_CHECKING:
    ModelLike: TypeAlias = ChatModel | HasModel
else:
    ModelLike = object  # anything comes in at run time; what is wrong is named below


def as_chat_model(model: ModelLike, *, what: str = "model") -> ChatModel:
    """The `ChatModel` that was meant: itself, or the tuned one of a `TunedModel`.

    Its weights are read once (less than one forward pass costs), so that NaN in them is named here and not
    after minutes.

        >>> import tamperlens
        >>> model = tamperlens.load("organism:tiny", device="cpu")
        >>> as_chat_model(model) is model
        True

    Args:
        model: what a caller gave.
        what: what an error calls it.

    Raises:
        InputError: a name, a module, None or anything else; the message says what to write instead.
        NumericsError: a weight is NaN or infinite.
    """
    found = model if isinstance(model, ChatModel) else getattr(model, "model", None)
    if not isinstance(found, ChatModel) or isinstance(model, nn.Module):
        raise InputError(f"{what}: expected a ChatModel or a TunedModel, got {_described(model)}")
    refuse_nonfinite_weights(found.module, found.name)
    return found


def _described(model: object) -> str:
    if model is None:
        return "None; load one with tamperlens.load(NAME_OR_FOLDER)"
    if isinstance(model, (str, os.PathLike)):
        return f"the name {str(model)[:80]!r}; write tamperlens.load({str(model)[:80]!r})"
    kind = type(model).__name__
    if isinstance(model, nn.Module):
        return f"a bare {kind}; wrap it with ChatModel.from_parts(module, tokenizer)"
    return f"a {kind}; load one with tamperlens.load(NAME_OR_FOLDER)"
