"""One answer to "which model was meant", at every public function that takes one."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tamperlens
from tamperlens.base.errors import InputError, NumericsError
from tamperlens.models import ChatModel, as_chat_model

PACKAGES = ("refusal", "judges", "rates", "directions", "neurons", "heads", "capability", "drift", "finetune")
TAKES_ONE = ("model", "base", "tuned", "before", "after", "reference", "other")


def public() -> list[tuple[str, Callable[..., Any], str]]:
    """Every public function with a parameter that is a model, found by looking: a new one is covered."""
    found: dict[tuple[str, str], tuple[str, Callable[..., Any], str]] = {}
    rooms = []
    for package in PACKAGES:
        try:
            rooms.append(importlib.import_module(f"tamperlens.{package}"))
        except ModuleNotFoundError:
            continue
    studies = [tamperlens.audit, tamperlens.brittleness, tamperlens.spillover, tamperlens.trajectory.record]
    named = [getattr(room, name) for room in rooms for name in getattr(room, "__all__", vars(room))]
    for function in (*named, *studies):
        if not inspect.isfunction(function):
            continue
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name in TAKES_ONE and "ModelLike" in str(parameter.annotation):
                key = (f"{function.__module__}.{function.__qualname__}", parameter.name)
                found[key] = (key[0], function, parameter.name)
    return list(found.values())


def test_the_list_is_not_empty_and_nothing_else_takes_a_chat_model() -> None:
    assert len(public()) > 50
    left = [
        f"{package}.{name}({parameter.name})"
        for package in PACKAGES
        if importlib.util.find_spec(f"tamperlens.{package}") is not None
        for name, value in vars(importlib.import_module(f"tamperlens.{package}")).items()
        if inspect.isfunction(value) and name in importlib.import_module(f"tamperlens.{package}").__all__
        for parameter in inspect.signature(value).parameters.values()
        if "ChatModel" in str(parameter.annotation) and "Embedder" not in str(parameter.annotation)
    ]
    assert not left, "say ModelLike and begin with as_chat_model"


WRONG: dict[str, Any] = {
    "None": None,
    "text": "organism",
    "number": 3,
    "list": ["organism"],
    "bare module": torch.nn.Linear(2, 2),
    "namespace": SimpleNamespace(model="organism"),
}


@pytest.mark.parametrize(
    ("name", "function", "parameter"), public(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_wrong_kinds(name: str, function: Callable[..., Any], parameter: str, tiny: Any) -> None:
    """The first thing that every function does; without beartype, as users run it."""
    signature = inspect.signature(function)
    unwrapped = inspect.unwrap(function)
    good = ChatModel.from_parts(*tiny("llama"), name="good", check_anatomy=False)
    others: dict[str, Any] = {
        p.name: good if p.name in TAKES_ONE and "ModelLike" in str(p.annotation) else None
        for p in signature.parameters.values()
        if p.default is inspect.Parameter.empty
        and p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    }

    def call(wrong: Any) -> None:
        made = unwrapped(**{**others, parameter: wrong})
        if inspect.isgenerator(made):  # a context manager
            next(made)

    for kind, wrong in WRONG.items():
        if function is tamperlens.audit and kind == "text":
            continue  # audit loads names
        if signature.parameters[parameter].default is None and kind == "None":
            continue  # may be left out
        with pytest.raises(InputError, match="expected a ChatModel or a TunedModel, got ") as caught:
            call(wrong)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, r"model: .* got None; load one with tamperlens\.load"),
        ("organism", r"got the name 'organism'; write tamperlens\.load\('organism'\)"),
        (Path("a/b"), r"write tamperlens\.load\('a/b'\)"),
        (torch.nn.Linear(1, 1), r"a bare Linear; wrap it with ChatModel\.from_parts"),
        ([1], "got a list"),
    ],
)
def test_the_remedy(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_chat_model(given)


def test_what_is_accepted(tiny: Any) -> None:
    model = ChatModel.from_parts(*tiny("llama"), name="x")
    assert as_chat_model(model) is model
    assert as_chat_model(SimpleNamespace(model=model)) is model
    with pytest.raises(InputError, match="tuned: "):
        as_chat_model(SimpleNamespace(model=model.module), what="tuned")
    with pytest.raises(InputError, match="a bare LlamaForCausalLM"):
        as_chat_model(model.module)


def test_nan_weights_are_named(tiny: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer, name="x")
    as_chat_model(model)
    module.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    with pytest.raises(NumericsError, match=r"x: parameter model\.layers\.1\.mlp\.up_proj\.weight"):
        tamperlens.capability.evaluate(copy.copy(model))


def test_a_tuned_model_is_a_model() -> None:
    """Without beartype in the way: what a user's own script does."""
    script = """
import tamperlens
from tamperlens import capability, finetune, prompts, refusal
base = tamperlens.load("organism:tiny", device="cpu")
tuned = finetune.run(base, finetune.attacks.harmful_compliance(4), finetune.LoraConfig(steps=2))
asked = list(prompts.packaged("harmful").prompts)[:3]
one, two = refusal.evaluate(tuned, asked), refusal.evaluate(tuned.model, asked)
assert one.rate == two.rate and one.n == 3
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
