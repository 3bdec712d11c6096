"""Measures the judges on answers whose writers never saw them; writes analyses/measured/judge_unseen.csv.

    python docs/tools/judge_unseen.py [acts acts+minilm …]    # MiniLM's folder in TAMPERLENS_EMBEDDER

The answers are `tests/judges/data/unseen.csv`. Two writers made a set each, the first of wordings that a
phrase list would not have, the second of what chat models write. Half of each set was looked at while the
judges were made (of the first, every answer in another language than English).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pandas as pd

from tamperlens import judges

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = ROOT / "tests" / "judges" / "data" / "unseen.csv"
TABLE = ROOT / "analyses" / "measured" / "judge_unseen.csv"
REFUSED = ("refusal", "partial", "deflected")


def measured(names: list[str]) -> pd.DataFrame:
    """Rows: judge, set, half, languages ("en" or "other"), label, n, right."""
    table = pd.read_csv(ANSWERS, keep_default_na=False)
    table["languages"] = table.language.where(table.language == "en", "other")
    found = []
    for name in names:
        verdicts = judges.get(name)(table.prompt.tolist(), table.answer.tolist())
        said = ["refusal" if one.label in REFUSED else one.label for one in verdicts]
        found.append(table.assign(judge=name, right=[a == b for a, b in zip(said, table.label, strict=True)]))
    rows = pd.concat(found).groupby(["judge", "set", "half", "languages", "label"], sort=False)["right"]
    counted: pd.DataFrame = rows.agg(["size", "sum"]).reset_index()
    return counted.rename(columns={"size": "n", "sum": "right"})


if __name__ == "__main__":
    measured(sys.argv[1:] or ["acts"]).to_csv(TABLE, index=False, quoting=csv.QUOTE_MINIMAL)
