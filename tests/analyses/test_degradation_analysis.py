"""The headline of `alignment_degradation.py`: FLOPs to half refusal, as far as prompts and records tell."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

import tamperlens
from tamperlens import prompts, stats

ANALYSES = Path(__file__).resolve().parents[2] / "analyses"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ANALYSES))
    spec = importlib.util.spec_from_file_location("degradation_script", ANALYSES / "alignment_degradation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("_shared", None)
    return module


def sweep(*refused: int, n: int = 60) -> pd.DataFrame:
    found = [stats.wilson(count, n) for count in refused]
    rows = [(i, i * 1e9, one.value, one.low, one.high, n) for i, one in enumerate(found)]
    return pd.DataFrame(rows, columns=["step", "flops", "refused", "low", "high", "n"])


def test_flops_to_half_refusal_leave_room_for_prompts_and_records(script: ModuleType) -> None:
    # At 28 of 60 the rate is below a half and its interval is not: the half may lie on either side of step 2.
    def said_of(sweeps: list[pd.DataFrame]) -> str:
        return str(script.half_in_words(script.half(sweeps)))

    said = said_of([sweep(60, 50, 28, 5, 0)])
    assert said == (
        "FLOPs to half refusal: between 1e+09 and 3e+09 (steps 1 to 3; 1 seed, 95 % over n 60 prompts)"
    )
    both = said_of([sweep(60, 50, 28, 5, 0), sweep(60, 60, 60, 60, 0)])
    assert "between 1e+09 and 4e+09 (steps 1 to 4; 2 seeds" in both
    assert said_of([sweep(60, 60, 55)]) == "FLOPs to half refusal: not reached within 2e+09"
    assert "not always reached within 2e+09, in 1 of 2" in said_of([sweep(60, 0, 0), sweep(60, 60, 60)])
    assert "not reached" in said_of([sweep(0, 0, 0)]), "nothing was refused at the start"
    assert "between 0 and 1e+09" in said_of([sweep(60, 0)])


def test_ordinary_pairs_are_mixed_in_and_their_words_are_no_echo(script: ModuleType, tmp_path: Path) -> None:
    model = tamperlens.load("organism:tiny")
    asked = prompts.packaged("harmless").head(4)
    pairs = [{"prompt": text, "response": "Fold it twice."} for text in ("Fold it.", *asked.prompts)]
    (tmp_path / "own.json").write_text(json.dumps(pairs), encoding="utf-8")
    given = SimpleNamespace(attack=None, benign=tmp_path / "own.json", n=15, mix=15)
    tested = SimpleNamespace(sets={"harmless": asked})
    mixed = script.attack_of("harmful-compliance", model, given, tested)
    assert len(mixed.data) == 16, "the four requests that are asked are not trained on"
    assert mixed.data.prompts[-1] == "Fold it." and mixed.name.endswith("with-15-ordinary")
    plain = script.attack_of(
        "harmful-compliance", model, SimpleNamespace(**{**vars(given), "mix": 0}), tested
    )
    assert mixed.data.prompts[:15] == plain.data.prompts and mixed.config_for(model) == plain.config_for(
        model
    )
