"""Every option and argument of every command, found by looking: what it cannot mean is one line, exit code 2.

A new option is covered on the day it is written. The normal suite takes a sample; `-m slow` takes all.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tamperlens.cli import app

NUMBERS = ("nan", "inf", "-1", "1e400", str(2**70), "x", "", "1,5", "½")
TEXTS = ("", "PIPE", "DEVICE", "\x1b[2J\x07", "no/such\u202ething")
MAY = {
    # An option that takes any text, or for which the value means something.
    ("compute", "flops", "inf"), ("grid run", "memory", str(2**70)),
}  # fmt: skip
_NUMBER = re.compile(r"\b(int|float)\b")
RUN = ("--limit", "2", "--max-new-tokens", "2", "--quiet", "--out", "OUT")
GOOD: dict[str, tuple[str, ...]] = {
    "audit": ("organism:tiny", "--steps", "1", *RUN),
    "judge": ("FILE",),
    "compare": ("organism:tiny", "organism:tiny", "--quick", *RUN),
    "drift": ("organism:tiny", "organism:tiny"),
    "trajectory": ("organism:tiny", "RUNS", "--quick"),
    "monitor": ("RUNS",),
    "compute": ("1e15",),
    "screen": ("FILE", "--model", "organism:tiny", "--quick"),
    "grid run": ("SWEEP", "--out", "OUT", "--quiet"),
    "grid status": ("GRID",),
    "grid table": ("GRID",),
    "grid plot": ("GRID",),
    "report": ("GRID", "--out", "OUT"),
    "models": ("RUNS",),
    **dict.fromkeys(("rates", "direction", "heads", "neurons"), ("organism:tiny", "--quick")),
}
SWEEP = """models = ["organism:tiny"]
ranks = [2]
steps = [1]
seeds = [0]
[evaluation]
limit = 2
max_new_tokens = 2
"""


def commands() -> Iterator[tuple[str, Any]]:
    root = typer.main.get_command(app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", one) for inner, one in command.commands.items())
        else:
            yield name, command


def cases() -> Iterator[tuple[str, str, str, str, int]]:
    """Command, parameter, how it is written ("" for an argument), value, place among the arguments."""
    for command, found in commands():
        place = 0
        hints = inspect.get_annotations(inspect.unwrap(found.callback))
        for parameter in found.params:
            argument = parameter.param_type_name == "argument"
            if getattr(parameter, "is_flag", False) or parameter.name == "help":
                continue
            number = _NUMBER.search(str(hints[parameter.name])) is not None
            # Where to write may have any name.
            texts = TEXTS[:3] if parameter.name in ("out", "page") else TEXTS
            for value in NUMBERS if number else texts:
                if not {(command, parameter.name), (command, parameter.name, value)} & MAY:
                    yield command, parameter.name, "" if argument else parameter.opts[0], value, place
            place += argument


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("places")
    os.mkfifo(root / "pipe.csv")
    (root / "good.csv").write_text("prompt,response\nhow do I fold a paper bird,like so\n")
    (root / "sweep.toml").write_text(SWEEP)
    (root / "runs").mkdir()
    (root / "device.csv").symlink_to("/dev/zero")
    from tamperlens.grid import Grid
    from tamperlens.grid.folder import begun, open_folder

    with open_folder(Grid.from_toml(root / "sweep.toml"), root / "grid") as folder:
        begun(folder)
    names = {"FILE": "good.csv", "SWEEP": "sweep.toml", "GRID": "grid", "RUNS": "runs", "PIPE": "pipe.csv",
             "DEVICE": "device.csv"}  # fmt: skip
    return {short: str(root / name) for short, name in names.items()}


def test_every_command_is_known() -> None:
    assert {name for name, _ in commands()} == set(GOOD)


@pytest.mark.parametrize(
    ("command", "parameter", "option", "value", "place"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if i % 12 else [], id=f"{case[0]} {case[1]} {case[3]!r}")
        for i, case in enumerate(cases())
    ],
)
def test_what_it_cannot_mean(command, parameter, option, value, place, places, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = list(GOOD[command])
    if option:
        if option in words:
            i = words.index(option)
            del words[i : i + 2]
        words += [option, value]
    else:
        words[place : place + 1] = ["--", value] if value.startswith("-") else [value]
    full = {**places, "OUT": str(tmp_path / "out")}
    result = CliRunner().invoke(app, [*command.split(), *(full.get(word, word) for word in words)])
    assert result.exit_code == 2, (result.output[-600:], result.exception)
    assert "Traceback" not in result.output
    assert not {"\x1b[2J", "\x07", "\u202e"} & set(result.output)
    assert "\x1b[2J" not in result.output
    for name in ("PIPE", "DEVICE"):
        assert Path(places[name]).exists()
    assert not Path(places["PIPE"]).is_file() and not Path(places["DEVICE"]).is_file()
