"""What a function was given as its model, as a `ChatModel`: the one place where that is decided."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from torch import nn

from tamperlens.base.boundary import rule
from tamperlens.base.errors import InputError
from tamperlens.base.nouns import Noun
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
    if all(parameter.is_meta for parameter in found.module.parameters()):
        raise InputError(f"{what}: {found.name} is on the meta device and has no weights; load it on another")
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


@rule
def _made_of_that_model(function: str, arguments: Mapping[str, Any]) -> None:
    """Masks, directions and scores beside one model must be such that they can belong to it."""
    # Others, such as a reference from before the alignment, are not what the rest was made of.
    given = [arguments[name] for name in ("model", "base", "tuned") if name in arguments]
    models = [
        one for one in (getattr(value, "model", value) for value in given) if isinstance(one, ChatModel)
    ]
    if len(models) != 1:
        return
    for name, value in arguments.items():
        several = list(value.values()) if isinstance(value, Mapping) else [value]
        for one in several if name != "self" else []:
            if isinstance(one, Noun):
                try:
                    one.check_model(models[0])
                except InputError as error:
                    raise InputError(f"{function}: {name}: {error}") from None
