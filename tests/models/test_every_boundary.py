"""Every public function and method, found by looking: a value of another kind is one error that names it.

A new function is covered on the day it is written; nothing here is listed by hand.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tamperlens
from tamperlens.base import boundary, kinds
from tamperlens.base.errors import InputError

ROOMS = sorted({*tamperlens._ROOMS.values(), *tamperlens._NAMES.values()} - {"tamperlens.base.errors"})
NO_BOUNDARY = {"tamperlens.hooks"}  # the hook layer has errors of its own (test_hook_layer)

WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "whole number": lambda: 3,
    "negative": lambda: -7,
    "65 bits": lambda: 2**65,
    "fraction": lambda: 2.5,
    "nan": lambda: math.nan,
    "inf": lambda: -math.inf,
    "bool": lambda: True,
    "text": lambda: "text",
    "bytes": lambda: b"text",
    "list": lambda: [object()],
    "generator": lambda: (one for one in range(3)),
    "set": lambda: {1},
    "dict": lambda: {"a": object()},
    "module": lambda: torch.nn.Linear(2, 2),
    "frame": lambda: pd.DataFrame({"x": [1]}),
    "array": lambda: np.zeros(2),
    "function": lambda: len,
    "namespace": lambda: SimpleNamespace(model=None),
}


def public() -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """Name, owner (None for functions) and function, through every subpackage's own list of names."""
    seen = set()
    for room in ROOMS:
        if room in NO_BOUNDARY:
            continue
        module = importlib.import_module(room)
        for name in module.__all__:
            thing = getattr(module, name)
            if not str(getattr(thing, "__module__", "")).startswith("tamperlens") or id(thing) in seen:
                continue
            seen.add(id(thing))
            if inspect.isfunction(thing):
                yield f"{room}.{name}", None, thing
            elif inspect.isclass(thing) and not getattr(thing, "_is_protocol", False):
                for key, method in vars(thing).items():
                    function = getattr(method, "__func__", method)
                    if not key.startswith("_") and inspect.isfunction(function):
                        yield f"{room}.{name}.{key}", thing, function


PUBLIC = list(public())


def sample(hint: Any) -> Any:
    """Something that a hint lets through; classes as empty shells."""
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return inner[0]
    if hint in (int, float, str, bool):
        return hint(1)
    if origin in (Sequence, list, typing.get_origin(typing.Iterable[int])):
        return []
    if origin is tuple:
        return () if not inner or inner[-1] is Ellipsis else tuple(map(sample, inner))
    if origin in (Mapping, dict):
        return {}
    if origin is typing.get_origin(typing.Callable[..., int]):
        return len
    if origin is pd.DataFrame:
        return pd.DataFrame()
    for choice in kinds._choices(hint) if len(kinds._choices(hint)) > 1 else ():
        made = sample(choice)
        with contextlib.suppress(kinds.Misfit):
            return kinds.fit(made, hint)
    if getattr(origin, "__name__", "") == "_SupportsArray":
        return []
    if hasattr(hint, "dim_str"):  # jaxtyping
        shape = (1,) * len(hint.dim_str.split())
        made = [torch.zeros(shape, dtype=kind) for kind in (torch.float32, torch.bool, torch.int64)]
        return next(one for one in made if isinstance(one, hint))
    if origin is np.ndarray:
        return np.zeros(1)
    if origin is torch.device:
        return torch.device("cpu")
    if not isinstance(origin, type) or origin in (Any, object, type(None)):
        return None
    if getattr(origin, "_is_protocol", False):
        names = {one for one in (*dir(origin), *inspect.get_annotations(origin)) if not one.startswith("__")}
        return type("Any", (), {**dict.fromkeys(names), "__call__": sample})()
    return origin.__new__(origin)


def fits(value: Any, name: str, parameter: inspect.Parameter, hint: Any, *, method: bool) -> bool:
    """Whether the boundary has no reason to refuse it."""
    if value is parameter.default:
        return True
    loose = isinstance(parameter.default, float) and not math.isfinite(parameter.default)
    finite = not loose and (name in boundary.RANGES or not (method or name in boundary._UNDEFINED))
    try:
        boundary.held(value, hint, name, finite=finite)
    except InputError:
        return False
    return True


def test_all_public_functions_have_the_boundary() -> None:
    assert len(PUBLIC) > 350
    assert [name for name, _, function in PUBLIC if not hasattr(function, boundary._GUARDED)] == []


def test_hints_can_be_read() -> None:
    """A hint that only type checkers can resolve would switch the boundary off without a word."""
    blind = []
    for name, _, function in PUBLIC:
        try:
            typing.get_type_hints(inspect.unwrap(function))
        except (NameError, TypeError) as error:
            blind.append(f"{name}: {error}")
    assert blind == []


def test_every_parameter_refuses_every_other_kind() -> None:
    tried, accepted, foreign = 0, [], []
    for label, owner, function in PUBLIC:
        hints = typing.get_type_hints(inspect.unwrap(function))
        parameters = inspect.signature(function).parameters
        first = next(iter(parameters), "")
        start: dict[str, Any] = {}
        if owner is not None and first in ("self", "cls"):
            start[first] = owner if first == "cls" else owner.__new__(owner)
        named = {
            name: one
            for name, one in parameters.items()
            if name not in start and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        }
        for name, one in named.items():
            others = {
                key: sample(hints.get(key))
                for key, other in named.items()
                if key != name and other.default is other.empty
            }
            for kind, make in WRONG.items():
                if name not in hints or fits(make(), name, one, hints[name], method=owner is not None):
                    continue
                tried += 1
                try:
                    made = function(*start.values(), **{**others, name: make()})
                    if hasattr(made, "__enter__"):
                        made.__enter__()
                    accepted.append(f"{label}({name}={kind})")
                except InputError as error:
                    if "\n" in str(error) or not (f"{name}=" in str(error) or f"{name}:" in str(error)):
                        foreign.append(f"{label}({name}={kind}): not named: {error}")
                except Exception as error:
                    foreign.append(f"{label}({name}={kind}): {type(error).__name__}: {error}")
    assert (accepted, foreign) == ([], [])
    assert tried > 10_000


def test_other_models_artefacts(chat, tmp_path: Path) -> None:
    """Masks, directions and scores of another model, at functions of every subpackage that take them."""
    from tamperlens import directions, heads, neurons
    from tamperlens.base.masks import WeightMask

    one, other = chat("llama"), chat("gpt2")
    part = one.anatomy.projection("up", 0).parameter
    flags = torch.zeros_like(one.module.get_parameter(part), dtype=torch.bool)
    mask = WeightMask.from_tensors(one, {part: flags})
    sets = [f"a{i}" for i in range(8)], [f"b{i}" for i in range(8)]
    direction = directions.direction_at(one, *sets, layer=1, position=-1)
    scores = heads.HeadScores.from_values(
        one, torch.zeros(one.n_layers, one.anatomy.n_heads), method="x", target="y", convention="z"
    )
    calls: list[Callable[[], Any]] = [
        lambda: neurons.control(other, mask, seed=0),
        lambda: directions.direction_like(other, direction, *sets),
        lambda: directions.causal_check(other, direction, *sets),
        lambda: heads.ablation_curve(other, scores, sets[0], target="x"),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"(mask|direction|scores).* (llama|gpt2)"):
            call()


def test_hook_layer(chat) -> None:
    """What touches modules refuses what is none, by its own errors."""
    from tamperlens import hooks
    from tamperlens.base.errors import TamperlensError

    wrong = []
    for name in hooks.__all__:
        function = getattr(hooks, name)
        first = next(iter(inspect.signature(function).parameters), "") if inspect.isfunction(function) else ""
        if first != "model" or name == "unwrap":  # which looks through wrappers, whatever is inside
            continue
        for kind in ("None", "text", "whole number", "list", "module", "namespace"):
            try:
                made = inspect.unwrap(function)(WRONG[kind]())
                if hasattr(made, "__enter__"):
                    made.__enter__()
                wrong.append(f"{name}({kind}): accepted")
            except TamperlensError:
                pass
            except TypeError as error:
                if "argument" not in str(error):  # Python's own words for what is missing
                    wrong.append(f"{name}({kind}): {error}")
            except Exception as error:
                wrong.append(f"{name}({kind}): {type(error).__name__}: {error}")
    assert wrong == []
