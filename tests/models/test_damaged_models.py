"""Model folders with one thing wrong: one line that says what, and no model that is measured all the same.

Every case is an edit of a good folder; the edits are made from lists of kinds, not collected by hand.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tamperlens.base.errors import InputError, TamperlensError
from tamperlens.models import as_chat_model, load

Edit = Callable[[Path], object]
JSON = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
BYTES = {
    "half": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "a list": lambda raw: b"[]",
    "null": lambda raw: b"null",
    "a word": lambda raw: b'"x"',
    "no text": lambda raw: b"\xff\xfe{}",
    "a page": lambda raw: b"<!doctype html><title>404</title>",
    "deep": lambda raw: b"[" * 100_000,
}
NUMBERS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "intermediate_size", "max_position_embeddings", "eos_token_id",
)  # fmt: skip
WRONG: tuple[Any, ...] = (0, -3, "four", [4], 1.5, 10**9)
ALLOWED = (
    "eos_token_id: 0", "eos_token_id: [4]", "num_key_value_heads: 0", "max_position_embeddings: 1000000000",
)  # fmt: skip
"""What is a setting: tokens' ids, no grouping, a long context."""


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Edit:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def configured(**settings: Any) -> Edit:
    return rewrite("config.json", lambda raw: json.dumps({**json.loads(raw), **settings}).encode())


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Edit:
    def edit(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return edit


def cases() -> Iterator[tuple[str, Edit]]:
    for name, (kind, change) in itertools.product(JSON, BYTES.items()):
        yield f"{name}: {kind}", rewrite(name, change)
    for name, value in itertools.product(NUMBERS, WRONG):
        if f"{name}: {value!r}" not in ALLOWED:
            both = {"generation_config.json": value} if name == "eos_token_id" else {}
            yield (
                f"{name}: {value!r}",
                lambda folder, n=name, v=value, b=both: (
                    configured(**{n: v})(folder),
                    [(folder / file).write_text(json.dumps({n: one})) for file, one in b.items()],
                ),
            )
    for kind, change in BYTES.items():
        yield f"weights: {kind}", rewrite("model.safetensors", change)
    name = "model.layers.0.self_attn.q_proj.weight"
    for kind, change in {
        "missing": lambda all_: {key: one for key, one in all_.items() if key != name},
        "shape": lambda all_: {**all_, name: all_[name][:-1].clone()},
        "whole numbers": lambda all_: {**all_, name: all_[name].to(torch.int64)},
        "bytes": lambda all_: {**all_, name: all_[name].to(torch.uint8)},
        "NaN": lambda all_: {**all_, name: all_[name] * torch.nan},
        "infinite": lambda all_: {**all_, name: all_[name].sign() * torch.inf},
        "prefix": lambda all_: {f"x.{key}": one for key, one in all_.items()},
        "one layer more": lambda all_: {**all_, name.replace("0", "9"): all_[name].clone()},
    }.items():
        yield f"weights: {kind}", weights(change)
    yield "one layer fewer asked for", configured(num_hidden_layers=1)
    yield "remote code", configured(model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    for kind in ("quantum", None, ["llama"], "bert", "t5"):
        yield f"model_type: {kind}", configured(model_type=kind, architectures=None)


@pytest.fixture(scope="module")
def good(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    module, tokenizer = tiny("llama")
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# The normal suite takes every sixth.
@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, id=name, marks=[pytest.mark.slow] if i % 6 else [])
        for i, (name, edit) in enumerate(cases())
    ],
)
def test_said_in_one_line(edit: Edit, good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    edit(folder)
    with pytest.raises(TamperlensError) as caught:
        load(folder, device="cpu")
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600
    assert str(folder) in line


def test_the_good_one_loads_and_other_names_do_not(good: Path) -> None:
    model = load(good, device="cpu")
    assert model.n_layers == 3
    for name in ("organism:", "organism:tiny:base", "https://example.org/model", ""):
        with pytest.raises(TamperlensError):
            load(name)
    with pytest.raises(InputError, match="meta"):
        load(good, device="meta")
    with pytest.raises(InputError, match="meta device"):
        as_chat_model(model.with_module(model.module.to("meta")))
