"""Public signatures: no `Any`, one name for one thing, old argument names for one release."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tamperlens
from tamperlens import neurons
from tamperlens.models import ChatModel, Decoding

STUDIES = ("arena", "audit", "brittleness", "evaluation", "monitor", "spillover")
PACKAGES = (
    *(
        "capability",
        "directions",
        "drift",
        "finetune",
        "grid",
        "heads",
        "hooks",
        "judges",
        "models",
        "neurons",
    ),
    *("planted", "plots", "prompts", "rates", "refusal", "report", "stats", "trajectory"),
    *(f"studies.{name}" for name in STUDIES),
)
ANY = re.compile(r"\bAny\b")
COMPARED = ("capability", "directions", "drift", "heads", "neurons", "rates", "refusal")


def package(name: str) -> Any:
    return importlib.import_module(f"tamperlens.{name}") if "." in name else getattr(tamperlens, name)


def callables(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    module = package(name)
    for public in getattr(module, "__all__", dir(module)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            found = getattr(module, public)
        if not str(getattr(found, "__module__", "")).startswith("tamperlens"):
            continue
        if inspect.isfunction(found):
            yield public, found
        elif inspect.isclass(found):
            for own, value in vars(found).items():
                method = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if inspect.isfunction(method) and (own in ("__init__", "__call__") or own[0] != "_"):
                    yield f"{public}.{own}", method


@pytest.fixture
def tiny_chat(tiny: Any) -> ChatModel:
    return ChatModel.from_parts(*tiny("llama"), name="tiny", check_anatomy=False)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_any_in_public_signatures(name: str) -> None:
    found = []
    for where, function in callables(name):
        signature = inspect.signature(function)
        hints = {
            **{p.name: p.annotation for p in signature.parameters.values()},
            "return": signature.return_annotation,
        }
        found += [
            f"{where}({what}: {hint})" for what, hint in hints.items() if re.search(r"\bAny\b", str(hint))
        ]
    assert not found


@pytest.mark.parametrize("name", COMPARED)
def test_every_measure_compares_two_results(name: str) -> None:
    assert list(inspect.signature(package(name).compare).parameters)[:2] == ["before", "after"]
    assert "compare" in dir(package(name))


def test_old_argument_names_still_work_and_warn(tiny_chat: Any) -> None:
    how: dict[str, Any] = {"limit": 2, "questions": 1, "loss": False}
    bench = tamperlens.studies.evaluation.EvalPrompts
    with pytest.warns(DeprecationWarning, match=r"for_model\(max_new_tokens=…\).*use decoding=Decoding\(…\)"):
        asked = bench.for_model(tiny_chat, max_new_tokens=3, **how)
    assert asked.decoding == Decoding(3)
    assert asked.settings()["max_new_tokens"] == 3
    with pytest.warns(DeprecationWarning, match=r"Evaluation\(max_new_tokens=…\)"):
        assert tamperlens.grid.Evaluation(max_new_tokens=5).decoding == Decoding(5)
    with pytest.raises(TypeError, match="its old name max_new_tokens="):
        tamperlens.grid.Evaluation(max_new_tokens=5, decoding=Decoding(5))
    with pytest.warns(DeprecationWarning, match="Watch is deprecated"):
        assert tamperlens.trajectory.Watch is tamperlens.trajectory.Setup


def test_a_grid_file_holds_decoding_settings_beside_the_others() -> None:
    made = tamperlens.grid.Grid.from_dict(
        {"models": ["organism"], "evaluation": {"limit": 3, "max_new_tokens": 7, "system": "Be brief."}}
    )
    assert made.evaluation.decoding == Decoding(7, system="Be brief.")
    assert tamperlens.grid.Grid.from_dict(made.describe()) == made
    plain = tamperlens.grid.Grid(models=("organism",)).describe()["evaluation"]
    assert plain["max_new_tokens"] == 64 and not {"decoding", "system", "temperature"} & set(plain)


def test_decoding_reaches_every_answer(tiny_chat: Any) -> None:
    from tamperlens.studies.evaluation import EvalPrompts, measure

    how: dict[str, Any] = {"limit": 2, "questions": 1, "loss": False}
    seen = []
    original = type(tiny_chat).generate

    def generate(self: Any, prompts: Any, decoding: Any = None, **settings: Any) -> Any:
        seen.append(
            Decoding.of(decoding, {k: v for k, v in settings.items() if k in Decoding.__annotations__})
        )
        return original(self, prompts, decoding, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tiny_chat), "generate", generate)
        measure(
            tiny_chat, EvalPrompts.for_model(tiny_chat, decoding=Decoding(3, system="S", prefill="P"), **how)
        )
    prompts = [one for one in seen if one.max_new_tokens == 3]
    assert len(prompts) == 3 and all((one.system, one.prefill) == ("S", "P") for one in prompts)
    questions = [one for one in seen if one.max_new_tokens != 3]
    assert questions and all((one.system, one.prefill) == ("S", None) for one in questions)


def test_comparing_sets_is_their_overlap() -> None:
    assert neurons.compare is neurons.overlap
