"""`import tamperlens` costs nothing and offers the subpackages that exist."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

import tamperlens


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    return done.stdout.strip()


def test_import_is_light() -> None:
    heavy = ["torch", "transformers", "peft", "nnsight", "transformer_lens", "wandb", "pandas", "matplotlib"]
    code = f"import tamperlens, sys; dir(tamperlens); print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_load_pulls_in_no_tracker() -> None:
    heavy = ["nnsight", "transformer_lens", "wandb", "plotly", "matplotlib", "datasets", "pandas"]
    code = f"import tamperlens, sys; tamperlens.load; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_surface() -> None:
    from tamperlens import base, hooks, models, prompts, stats

    assert tamperlens.load is models.load
    assert tamperlens.ChatModel is models.ChatModel
    assert tamperlens.PromptSet is prompts.PromptSet
    assert stats.__name__ == "tamperlens.base.stats"
    assert hooks.capture.__module__ == "tamperlens_hooks.capture"
    assert base.__name__ == "tamperlens.base"
    assert {"load", "prompts", "models", "hooks", "stats", "ChatModel"} <= set(dir(tamperlens))
    assert tamperlens.__version__[0].isdigit()


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'laod'; it has .*load"):
        tamperlens.laod  # noqa: B018
    with pytest.raises(ImportError):
        from tamperlens import no_such_room  # noqa: F401


def test_old_module_paths_import_for_one_release() -> None:
    import importlib

    for old, new in (
        ("tamperlens.refusal.nulls", "tamperlens.directions.nulls"),
        ("tamperlens.refusal.judges", "tamperlens.judges"),
        ("tamperlens.studies.auditing.page", "tamperlens.studies.audit.page"),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = importlib.import_module(old)
        assert any(one.category is DeprecationWarning and new in str(one.message) for one in said)
        assert found is importlib.import_module(new)
        assert found.__spec__ is not None and found.__spec__.name == new


def test_modules_that_left_the_package_say_where_their_code_is() -> None:
    import importlib
    from pathlib import Path

    from tamperlens.base.moved import GONE

    root = Path(__file__).resolve().parents[2]
    for old, file in GONE.items():
        assert (root / file).is_file()
        with pytest.raises(ModuleNotFoundError, match=f"{old} has left the package; its code is {file}"):
            importlib.import_module(old)
