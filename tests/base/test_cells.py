"""Text that leaves: cells come back exactly and act nowhere."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamperlens.base.cells import file_name, neutral, plain, visible
from tamperlens.base.errors import InputError
from tamperlens.base.files import read_csv, write_csv

HOSTILE = [
    "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "'quoted", "'=1", "'\"json\"", '"="', "",
    "\x1b[2Jgone", "a\x00b", "\x9b31m", "\u202eevil", "\ud800", "two\r\nlines", "NA", " spaced ", "naïve 你",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=[])) | st.sampled_from(HOSTILE))
def test_cells_come_back_and_begin_harmlessly(text):
    cell = neutral(text)
    assert plain(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert visible(cell) == cell, "nothing that a terminal obeys"


def test_tables_come_back(tmp_path):
    frame = pd.DataFrame(
        {"=text": pd.Series(HOSTILE, dtype=object), "n": range(len(HOSTILE)), "x": [-0.1] * len(HOSTILE)}
    )
    path = write_csv(tmp_path / "a.csv", frame)
    back = read_csv(path, keep_default_na=False)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)
    with path.open(encoding="utf-8", newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@")) or "\x1b" in cell]
    assert "-0.1" in cells, "numbers stay numbers"


def test_damaged_tables_are_one_line(tmp_path):
    for name, content in {"a": b"", "b": b"\xff\xfe\x00", "c": b'a,b\n"1,2\n'}.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.csv .*damaged") as caught:
            read_csv(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read"):
        read_csv(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "text", ["../../x", "/etc/x", "..", "", ".hidden", "a/b\\c", "x" * 999, "C:\\x", "a\x00\x1b"]
)
def test_names_stay_in_their_folder(tmp_path, text):
    made = tmp_path / file_name(text)
    assert made.parent == tmp_path and not made.name.startswith(".") and len(made.name) <= 120
    assert made.resolve().parent == tmp_path.resolve()
    assert file_name("rates-1.5_b") == "rates-1.5_b"
