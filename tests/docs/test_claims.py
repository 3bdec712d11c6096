"""No page says a number with nothing behind it, or another one than was measured."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tamperlens import stats

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("claims", ROOT / "docs" / "tools" / "claims.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_number_on_the_pages_has_something_behind_it(claims: ModuleType) -> None:
    register = tomllib.loads((ROOT / "docs" / "claims.toml").read_text(encoding="utf-8"))
    assert claims.faults(register) == []
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == claims.table(register)


def test_a_new_changed_or_unbacked_number_is_found(
    claims: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "README.md").write_text("# Results\n\nSee `top_5`, 2024 and v1.2.3.\n")
    (tmp_path / "found.json").write_text('{"steps": [7, 8], "rate": 0.25}')
    (tmp_path / "rows.csv").write_text("set,value,low\nfew,0.5,-0.031\nmany,-0.25,nan\nother,1,1\n")
    page = tmp_path / "README.md"
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    of = {"page": "README.md", "source": ""}
    register = {
        "page": [],
        "section": [],
        "claim": [
            {**of, "says": "by step {steps:span}, {rate:%} %", "artefact": "found.json"},
            {**of, "says": "| {set} | {value:+%} [{low:.2}] |", "artefact": "rows.csv", "each": True,
             "where": {"set": ["few", "many"]}},
            {**of, "says": "(in all {other/value:.0f})", "artefact": "rows.csv", "by": "set"},
            {**of, "says": "mean {mean value:.3} [{least value:.2}, {most value:.1}] of {rows}",
             "artefact": "rows.csv", "where": {"set": ["few", "many"]}},
            {**of, "says": "each {few, 0.5/value:.1f}, all {many, -0.25/all value:+%} %",
             "artefact": "rows.csv", "by": ["set", "value"]},
        ],
        "quoted": [{**of, "texts": ["Published: 95 → 0"], "kind": "published", "source": "them"}],
    }  # fmt: skip
    more = "mean .125 [−.25, .5] of 2, each 0.5, all −25 %"
    rows = "| few | +50 [−.03] |\n| many | −25 [–] |\n"
    good = f"# A\n\nHalf\nby step 7–8, 25 % (in all 1).\n\n{rows}\nPublished: 95 → 0, {more}.\n"
    page.write_text(good)
    assert claims.faults(register) == []
    page.write_text(good.replace("7–8", "7–9"))
    assert claims.faults(register) == [
        "README.md does not say “by step 7–8, 25 %”",
        "README.md, “A”: 7, 9, 25 have nothing behind them",
    ]
    commands = {**register, "page": [{"path": "README.md", "why": "commands"}]}
    assert claims.faults(commands) == ["README.md does not say “by step 7–8, 25 %”"]
    page.write_text(good.replace("−25", "−26"))
    assert claims.faults(register)[0] == "README.md does not say “| many | −25 [–] |”"
    page.write_text(good.replace("95 → 0", "95 → 5"))
    assert "95, 5 have nothing behind them" in claims.faults(register)[1]
    page.write_text(f"{good}\n## B\n\nIt is 12 % better.\n")
    assert claims.faults(register) == ["README.md, “B”: 12 have nothing behind them"]
    section = {"page": "README.md", "heading": "B", "numbers": claims.digest(["12"]), "source": "s"}
    assert claims.faults({**register, "section": [section]}) == []
    page.write_text(f"{good}\n## B\n\nIt is 13 % better.\n")
    assert "numbers differ from those registered" in claims.faults({**register, "section": [section]})[0]
    shown = claims.table(register)
    assert "| few · +50 [−.03] … (2 rows) | measured |" in shown and "| published | them |" in shown
    with pytest.raises(KeyError, match="no rows"):
        claims.filled({**register["claim"][1], "where": {"set": ["none"]}})


def test_a_page_is_compared_with_what_its_maker_makes_of_the_stored_rows(
    claims: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "README.md").write_text("# Results\n")
    (tmp_path / "maker.py").write_text("def page_of(rows):\n    return f\"It is {rows[0]['value']:.2f}.\"\n")
    (tmp_path / "rows.csv").write_text("value\n0.25\n")
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    made = {"page": "README.md", "artefact": "rows.csv", "maker": "maker.py", "source": ""}
    register = {"page": [], "section": [], "claim": [], "quoted": [], "made": [made]}
    (tmp_path / "README.md").write_text("# A\n\nIt is 0.25.\n")
    assert claims.faults(register) == []
    (tmp_path / "rows.csv").write_text("value\n0.26\n")
    assert claims.faults(register)[0] == "README.md does not say “It is 0.26.”"


@pytest.mark.parametrize(
    ("value", "form", "said"),
    [
        (0.841, "%", "84"), (-0.163, "+%", "−16"), (0.001, "+%", "0"), (0.0234, ".1%", "2.3"),
        (-0.004, ".2", "−.00"), (0.43, ".2", ".43"), (1.0, ".2", "1.00"), (0.4, "+.2", "+.40"),
        (2.4e10, ".1e", "2.4e10"), (2e-15, ".0e", "2e−15"), (float("nan"), ".2", "–"),
        ([3, 3], "span", "3"), ([0.71, 0.75, 0.0], "%", "71, 75, 0"),
        (64.0, ".0f", "64"), (-9.4, "+.1f", "−9.4"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_the_pages_write_them(
    claims: ModuleType, value: object, form: str, said: str
) -> None:
    assert claims.formatted(value, form) == said


def test_the_organisms_card_is_what_is_stored_and_its_intervals_are_wilsons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = importlib.util.spec_from_file_location("organism_card", ROOT / "analyses" / "organism_card.py")
    assert spec is not None and spec.loader is not None
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    stored = json.loads((ROOT / "analyses" / "measured" / "organism_card.json").read_text(encoding="utf-8"))
    assert card.page_of(stored["seeds"]) == (ROOT / "docs" / "organism-card.md").read_text(encoding="utf-8")
    checked = 0
    for seed in stored["seeds"]:
        rates = [row[side] for row in seed["rates"] for side in ("base", "aligned")]
        rates += [row for row in seed["phenomena"] if "n" in row and not row["what"].startswith("points")]
        for rate in rates:
            literal = stats.wilson(round(rate["value"] * rate["n"]), rate["n"])
            for name in ("value", "low", "high"):
                assert rate[name] == pytest.approx(getattr(literal, name), abs=6e-4), rate
            checked += 1
    assert checked == 2 * (16 + 27)
