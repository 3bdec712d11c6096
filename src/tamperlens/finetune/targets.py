"""Which matrices an adapter goes on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from tamperlens.base.errors import InputError
from tamperlens.finetune.configs import TARGET_GROUPS
from tamperlens.models import ChatModel, ModelLike, as_chat_model

_GROUPS = {"all-linear": None, "attention": ("q", "k", "v", "o"), "qkv": ("q", "k", "v")}


def resolve_targets(model: ModelLike, targets: str | Sequence[str]) -> list[str]:
    """Module paths of the matrices that `targets` names, in the model's order.

    Groups go by the model's anatomy, so "attention" finds GPT-2's `c_attn` and `attn.c_proj` and never its
    `mlp.c_proj`; the unembedding belongs to no group.

    Args:
        model: an unwrapped model.
        targets: a group of `LoraConfig.targets`, or names that end a module's path.

    Raises:
        InputError: a name that matches nothing (the message lists what exists), a module that is no matrix,
            or an unembedding that shares its weights with the embedding.
    """
    model = as_chat_model(model)
    modules = dict(model.module.named_modules())
    if isinstance(targets, str):
        kinds = _GROUPS[targets]
        chosen = {part.module for part in model.anatomy.projections() if kinds is None or part.name in kinds}
        return [path for path in modules if path in chosen]
    chosen = set()
    for name in targets:
        found = [path for path in modules if path == name or path.endswith(f".{name}")]
        if not found:
            raise InputError(
                f"target {name!r} matches no module of {model.name}; there are "
                f"{', '.join(linear_names(model))}, and the groups {', '.join(TARGET_GROUPS)}"
            )
        for path in found:
            _check_matrix(model, path, modules[path])
        chosen.update(found)
    return [path for path in modules if path in chosen]


def linear_names(model: ModelLike) -> list[str]:
    """Last parts of the paths of all matrices, each once, in the model's order."""
    model = as_chat_model(model)
    names = (path.rpartition(".")[2] for path, part in model.module.named_modules() if _is_matrix(part))
    return list(dict.fromkeys(names))


def shortest_names(model: ChatModel, paths: Sequence[str]) -> list[str]:
    """Names for PEFT's config: last parts where they say exactly these modules, whole paths otherwise."""
    short = list(dict.fromkeys(path.rpartition(".")[2] for path in paths))
    matched = {
        path
        for path, _ in model.module.named_modules()
        if any(path == name or path.endswith(f".{name}") for name in short)
    }
    return short if matched == set(paths) else list(paths)


def is_transposed(model: ChatModel, path: str) -> bool:
    """Whether a module stores its weight as [in, out] (GPT-2's Conv1D; PEFT's `fan_in_fan_out`)."""
    return isinstance(model.module.get_submodule(path), Conv1D)


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


def _check_matrix(model: ChatModel, path: str, module: nn.Module) -> None:
    if not _is_matrix(module):
        raise InputError(
            f"target {path!r} is a {type(module).__name__}, not a matrix; there are "
            f"{', '.join(linear_names(model))}"
        )
    embedding = getattr(model.module.get_submodule(model.anatomy.embedding), "weight", None)
    if embedding is not None and getattr(module, "weight", None) is embedding:
        raise InputError(
            f"target {path!r} shares its weights with the embedding of {model.name}, so an adapter on it has "
            "no merged weight; leave it out"
        )
