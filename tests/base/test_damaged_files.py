"""Files that somebody or something damaged: one clear error or what they still say, no traceback, no hang.

Every case follows from its number alone. The normal suite takes a sample; `-m slow` takes all of them.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tamperlens import grid, prompts
from tamperlens.base.errors import TamperlensError
from tamperlens.base.masks import WeightMask
from tamperlens.base.runs import RunFolder
from tamperlens.base.stats import Estimate
from tamperlens.models import ChatModel, attach_adapter, save_adapter
from tamperlens.studies.merging import merge
from tamperlens.studies.trajectory.records import Record, append, read
from tamperlens.studies.trajectory.result import read_plan

N_ALL, N_SAMPLE, SECONDS = 2400, 64, 20
WRONG_KIND = (
    None,
    "",
    "x",
    -1,
    0.5,
    True,
    [],
    {},
    [1],
    {"a": 1},
    2**70,
    float("nan"),
    "\x00\x1b[2J",
    "9" * 400,
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><g id="x"/></svg>'
SWEEP = """models = ["organism:tiny"]
attacks = ["benign"]
ranks = [4, 8]
steps = [1, 2]
learning_rates = [0.001]
seeds = [0]
dtype = "auto"
[training]
batch_size = 2
weight_decay = 0.0
[evaluation]
limit = 3
judge = "acts"
suites = ["facts"]
max_new_tokens = 8
[[defences]]
kind = "mix"
examples = 2
"""
Target = tuple[Path, Callable[[Path], Any], frozenset[str]]


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def targets(chat, tmp_path_factory) -> dict[str, Target]:
    """Name to (folder of good files, what reads them, entries that must be there and of their kind)."""
    root = tmp_path_factory.mktemp("good")
    model = chat("llama")
    made: dict[str, Target] = {}

    def add(name: str, reads: Callable[[Path], Any], *needed: str) -> Path:
        folder = root / name.replace(" ", "-")
        folder.mkdir()
        made[name] = (folder, reads, frozenset(needed))
        return folder

    folder = add("run folder", _read_run, "kind", "status", "config", "seeds", "hashes", "versions", "stages")
    with RunFolder.open(folder, kind="audit", config={"seed": 0}, artefacts=("measures.csv",)) as run:
        with run.stage("all"):
            row = {"measure": "refusal_rate", "set": "harmful", "stage": "after", "value": 0.5, "low": 0.4}
            pd.DataFrame([{**row, "high": 0.6, "n": 40}] * 3).to_csv(folder / "measures.csv", index=False)
            (folder / "figures").mkdir()
            (folder / "figures" / "a.svg").write_text(SVG)
        run.finish()
    folder = add("plan", read_plan, "watch", "layer", "position", "model", "fingerprint", "frozen", "config")
    plan = {"watch": "w", "layer": 1, "position": -1, "model": "m", "fingerprint": "f", "attack": "a",
            "data": "d", "frozen": 0, "config": {"steps": 1}, "kind": "trajectory"}  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    folder = add("records", lambda place: read(place / "records.jsonl"), "step", "rows")
    record = Record(1)
    record.add("token KL", "harmless", 0.5, torch.rand(4), 4)
    append(folder / "records.jsonl", record)
    folder = add("result", lambda place: Estimate.load(place / "estimate.json"), "kind", "format", "body")
    Estimate(0.5, 0.4, 0.6, 10, "wilson").save(folder / "estimate.json")
    folder = add("mask", lambda place: WeightMask.load(place / "mask.safetensors", model))
    part = model.anatomy.projection("up", 0).parameter
    flags = torch.rand_like(model.module.get_parameter(part)) < 0.1
    WeightMask.from_tensors(model, {part: flags}).save(folder / "mask.safetensors")
    folder = add("sweep", lambda place: grid.Grid.from_toml(place / "sweep.toml"))
    (folder / "sweep.toml").write_text(SWEEP)
    folder = add("prompts", _read_prompts)
    (folder / "a.csv").write_text('id,prompt,response\n1,how,no\n2,why,"a,\nb"\n')
    (folder / "b.jsonl").write_text(
        '{"prompt": "how", "response": "no"}\n{"prompt": "why", "response": "so"}\n'
    )
    folder = add(
        "adapter", lambda place: attach_adapter(model, place), "peft_type", "base_fingerprint", "base_dtype"
    )
    wrapped = get_peft_model(copy.deepcopy(model.module), LoraConfig(r=2, target_modules=["q_proj"]))
    save_adapter(model.with_module(wrapped), folder)
    for extra in folder.glob("*.md"):
        extra.unlink()
    folder = add("template", lambda place: _render(model, place))
    (folder / "chat_template.jinja").write_text(model.tokenizer.chat_template)
    folder = add("tokenizer", _load_tokenizer)
    model.tokenizer.save_pretrained(folder)
    return made


def _read_run(folder: Path) -> Any:
    RunFolder.read(folder)
    return merge([folder], folder / "page.html")


def _read_prompts(folder: Path) -> Any:
    return [prompts.read(folder / name) for name in ("a.csv", "b.jsonl")]


def _render(model: ChatModel, folder: Path) -> Any:
    tokenizer = copy.deepcopy(model.tokenizer)
    path = folder / "chat_template.jinja"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
    tokenizer.chat_template = text
    made = ChatModel.from_parts(model.module, tokenizer, name="mutated", check_anatomy=False)
    return made.render("hello")


def _load_tokenizer(folder: Path) -> Any:
    from tamperlens.models.loading import _read_tokenizer, _Source

    return _read_tokenizer(_Source(folder, "mutated", None, False))


def damage(folder: Path, rng: random.Random) -> tuple[str, str]:
    """Damage one file of a folder; (what was done, entry that was broken for certain, if one was)."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (".lock", "page.html"))
    path = rng.choice(files)
    raw = path.read_bytes()
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.7:
        return _damage_json(path, rng)
    if path.suffix in (".csv", ".toml", ".jinja", ".svg") and rng.random() < 0.6:
        return f"{path.name}: {_damage_text(path, rng)}", ""
    kind = rng.choice(
        ["truncated", "emptied", "bytes changed", "bytes put in", "random", "doubled", "removed"]
    )
    if kind == "removed":
        path.unlink()
        return f"{path.name}: removed", ""
    at = rng.randrange(max(1, len(raw)))
    noise = rng.randbytes(rng.choice([1, 3, 40]))
    made = {
        "truncated": raw[:at], "emptied": b"", "bytes changed": raw[:at] + noise + raw[at + len(noise) :],
        "bytes put in": raw[:at] + rng.choice([noise, b"\x00", b"\xff\xfe", b"{[" * 3000]) + raw[at:],
        "random": rng.randbytes(200), "doubled": raw + raw,
    }[kind]  # fmt: skip
    path.write_bytes(made)
    return f"{path.name}: {kind}", ""


def _damage_json(path: Path, rng: random.Random) -> tuple[str, str]:
    value = json.loads(path.read_text().splitlines()[0] if path.suffix == ".jsonl" else path.read_text())
    place, keys = value, []
    while isinstance(place, (dict, list)) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        keys.append(key)
        if rng.random() < 0.5 or not isinstance(place[key], (dict, list)) or not place[key]:
            break
        place = place[key]
    if not keys:
        path.write_text("[]")
        return f"{path.name}: []", ""
    broken = str(keys[0]) if len(keys) == 1 else ""
    if rng.random() < 0.25:
        if isinstance(place, dict):
            place.pop(keys[-1])
        else:
            del place[keys[-1]]
        what = "removed"
    else:
        old = place[keys[-1]]
        other = [one for one in WRONG_KIND if type(one) is not type(old) and not _alike(one, old)]
        place[keys[-1]] = new = rng.choice(other)
        what = f"{new!r:.30}"
    path.write_text(json.dumps(value) + ("\n" if path.suffix == ".jsonl" else ""))
    return f"{path.name}: {'.'.join(map(str, keys))} {what}", broken


def _alike(one: Any, two: Any) -> bool:
    numbers = (int, float)
    return isinstance(one, numbers) and isinstance(two, numbers) and not isinstance(one, bool)


def _damage_text(path: Path, rng: random.Random) -> str:
    lines = path.read_text().split("\n")
    at = rng.randrange(len(lines))
    kind = rng.choice(["line removed", "line doubled", "word changed", "quote", "shuffled", "long"])
    if kind == "line removed":
        del lines[at]
    elif kind == "line doubled":
        lines.insert(at, lines[at])
    elif kind == "word changed":
        for word in ("0.5", "40", "2", "4", "seeds", '"auto"', "prompt", "[", "%}", "{{", "messages"):
            if word in lines[at]:
                new = rng.choice(["nan", "-1", '"x"', "", "inf", "{%", "[]", "999999999999999999999", "3.5"])
                lines[at] = lines[at].replace(word, new, 1)
    elif kind == "quote":
        lines[at] = lines[at][: len(lines[at]) // 2] + rng.choice(['"', "'", "{%", "\x1b]0;x\x07", "=cmd()"])
    elif kind == "shuffled":
        rng.shuffle(lines)
    else:
        lines[at] += ",x" * 2000
    path.write_text("\n".join(lines))
    return kind


def attempt(targets: dict[str, Target], seed: int, place: Path) -> str:
    """What is wrong with how one damaged copy was read; "" when nothing is."""
    rng = random.Random(seed)
    name = sorted(targets)[seed % len(targets)]
    good, reads, needed = targets[name]
    shutil.copytree(good, place)
    try:
        what, broken = damage(place, rng)
        try:
            with within(SECONDS):
                reads(place)
        except TamperlensError as error:
            return f"{seed} {name}: {what}: several lines: {error}" if "\n" in str(error).strip() else ""
        except Exception as error:
            return f"{seed} {name}: {what}: {type(error).__name__}: {error}"
        return f"{seed} {name}: {what}: accepted" if broken in needed and broken else ""
    finally:
        shutil.rmtree(place)


def test_a_sample_of_damaged_files(targets, tmp_path: Path) -> None:
    assert [said for seed in range(N_SAMPLE) if (said := attempt(targets, seed, tmp_path / "copy"))] == []


@pytest.mark.slow
def test_all_damaged_files(targets, tmp_path: Path) -> None:
    found = [said for seed in range(N_ALL) if (said := attempt(targets, seed, tmp_path / "copy"))]
    assert found == [], "\n".join(found)
