"""Results come back from disk the same to the bit, and what cannot be read says file and field."""

from __future__ import annotations

import dataclasses
import json
import math
import string
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamperlens.base.errors import InputError
from tamperlens.base.results import Result


@dataclass(frozen=True)
class Small(Result):
    value: float
    name: str = "small"


@dataclass(frozen=True)
class Other(Result):
    value: float
    count: int = 1


@dataclass(frozen=True)
class Everything(Result):
    number: float = 0.0
    whole: int = 0
    flag: bool = False
    text: str = ""
    maybe: float | None = None
    kind: Literal["a", "b"] = "a"
    numbers: tuple[float, ...] = ()
    pair: tuple[int, str] = (0, "")
    table: dict[str, float] = field(default_factory=dict)
    by_step: dict[int, tuple[float, ...]] = field(default_factory=dict)
    anything: Any = None
    inner: Small = Small(0.0)
    either: Small | Other = Other(0.0)
    inners: tuple[Small, ...] = ()
    tensor: torch.Tensor | None = None
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    frame: pd.DataFrame | None = None


def bits(value: Any) -> Any:
    """Something that is equal only where two values are the same to the bit, types and all."""
    if isinstance(value, float):
        return "float", struct.pack(">d", value)
    if isinstance(value, torch.Tensor):
        raw = value.detach().contiguous().reshape(-1)
        raw = torch.view_as_real(raw) if raw.is_complex() else raw
        return "tensor", str(value.dtype), tuple(value.shape), raw.view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, value.tobytes()
    if dataclasses.is_dataclass(value):
        return type(value), {one.name: bits(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, dict):
        return "dict", [(key, bits(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [bits(item) for item in value]
    if isinstance(value, pd.DataFrame):
        columns = [value.iloc[:, i] for i in range(value.shape[1])]
        return "frame", index(value.columns), index(value.index), [column(one.array) for one in columns]
    return type(value), value


def index(labels: pd.Index) -> Any:
    return type(labels), str(labels.dtype), list(labels.names), getattr(labels, "freq", None), list(labels)


def column(array: Any) -> Any:
    array = array.to_numpy() if isinstance(array, pd.arrays.NumpyExtensionArray) else array
    dtype = array.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "biufcmM":
        return str(dtype), np.asarray(array).tobytes()
    gone = [bool(one) for one in array.isna()] if hasattr(array, "isna") else None
    values = [
        bits(v) if not pd.api.types.is_scalar(v) or not pd.isna(v) else (type(v), repr(v)) for v in array
    ]
    return dtype, gone, values


def there_and_back(one: Result, folder: Path) -> Any:
    return type(one).load(one.save(folder / "result"))


floats = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
words = st.text(st.characters(), max_size=8)  # surrogates included
scalars = st.none() | st.booleans() | st.integers() | floats | words | st.integers(2**70, 2**90)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(words | st.integers() | st.sampled_from(["$float", "$class"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=floats,
    whole=st.integers(-(2**80), 2**80),
    flag=st.booleans(),
    text=words,
    maybe=st.none() | floats | st.integers(),
    numbers=st.lists(floats, max_size=5).map(tuple),
    table=st.dictionaries(words, floats, max_size=3),
    by_step=st.dictionaries(st.integers(), st.lists(floats, max_size=2).map(tuple), max_size=3),
    anything=nested,
    either=st.builds(Small, floats) | st.builds(Other, floats),
    inners=st.lists(st.builds(Small, floats, words), max_size=3).map(tuple),
)
def test_round_trip_to_the_bit(tmp_path, **values):
    one = Everything(**values)
    assert bits(there_and_back(one, tmp_path)) == bits(one)


@pytest.mark.parametrize(
    "value",
    [
        5e-324,
        -0.0,
        math.nan,
        math.inf,
        -math.inf,
        1.2345678901e-6,
        0.1 + 0.2,
        2**53 + 1,
        10**5000,
        -(10**400),
    ],
    ids=range(10),
)
def test_hard_numbers(value, tmp_path):
    one = Everything(anything=value, maybe=value, table={"x": value})
    assert bits(there_and_back(one, tmp_path)) == bits(one)


DTYPES = [
    "float64", "float32", "float16", "int8", "int64", "uint8", "uint64", "bool", "complex128", "Int64",
    "UInt8", "Float64", "Float32", "boolean", "str", "string", "object", "category", "datetime64[ns]",
    "datetime64[s]", "datetime64[us, Europe/Berlin]", "timedelta64[ms]", "period[M]", "interval",
]  # fmt: skip


def values_of(dtype: str) -> Any:
    numbers = [1.2345678901e-6, -0.0, 5e-324, math.inf, math.nan, 0.1]
    whole = [0, 1, 127, 3, 5, 8]
    special: dict[str, Any] = {
        "uint64": [0, 2**64 - 1, 2**63, 1, 2, 3],
        "int64": [0, -(2**63), 2**63 - 1, 2**53 + 1, 5, 8],
        "bool": [True, False] * 3,
        "complex128": [complex(0.1, -0.0), 1j, 2, complex(math.nan, 1), 3, 4],
        "Int64": [1, None, 2**62 + 1, 4, 5, None],
        "UInt8": [1, None, 255, 4, 5, None],
        "boolean": [True, None, False, True, True, None],
        "str": ["a", None, "", "ü\u2028", "1", "nan"],
        "string": ["a", None, "", "ü\u2028", "1", "<NA>"],
        "object": [1, "1", None, 0.1, [1, 2], {"a": 3}],
        "category": ["b", "a", None, "b", "c", "a"],
        "interval": pd.interval_range(0, 6, closed="left"),
        "period[M]": pd.period_range("2020-01", periods=6, freq="M"),
    }
    if dtype in special:
        return special[dtype]
    if dtype.startswith("datetime"):
        moments = pd.to_datetime(
            ["1970-01-01", "2026-03-29 02:30:01", None, "1890-01-01", "2024-02-29", "2000-01-01"],
            format="mixed",
        )
        return moments.tz_localize("UTC") if "," in dtype else moments
    if dtype.startswith("timedelta"):
        return pd.to_timedelta([0, 1, None, -5, 10**9, 3], unit="ms")
    return numbers if dtype.lower().startswith("float") else whole


@pytest.mark.parametrize("dtype", DTYPES)
def test_frames_keep_every_dtype(dtype, tmp_path):
    values = values_of(dtype)
    column = pd.Series(values) if dtype == "interval" else pd.Series(values, dtype=dtype)
    if dtype == "category":
        column = column.cat.set_categories(["c", "b", "a", "unused"], ordered=True)
    frame = pd.DataFrame({"x": column, "y": range(6)})
    one = Everything(frame=frame)
    again = there_and_back(one, tmp_path)
    assert bits(again) == bits(one)
    pd.testing.assert_frame_equal(again.frame, frame, check_exact=True)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        pd.DataFrame({"a": []}),
        pd.DataFrame(index=[3, 1]),
        pd.DataFrame([[1, 2.5], [3, 4.5]], columns=["twice", "twice"]),
        pd.DataFrame({"a": [1, 2]}, index=pd.Index(["p", "q"], name="row")),
        pd.DataFrame({1: [0.1], None: ["x"]}),
        pd.DataFrame(
            np.eye(2),
            index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["k", None]),
            columns=pd.MultiIndex.from_tuples([("u", "v"), ("u", "w")]),
        ),
        pd.DataFrame({"a": [1.0, 2.0]}, index=pd.date_range("2020", periods=2, tz="UTC")),
    ],
)
def test_frames_keep_index_and_labels(frame, tmp_path):
    again = there_and_back(Everything(frame=frame), tmp_path).frame
    pd.testing.assert_frame_equal(again, frame, check_exact=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.tuples(floats, st.integers(-(2**63), 2**63 - 1), words), max_size=6))
def test_frames_keep_every_float(tmp_path, values):
    frame = pd.DataFrame(
        {
            "x": np.array([row[0] for row in values], dtype=float),
            "n": np.array([row[1] for row in values], dtype="int64"),
            "words": np.array([row[2] for row in values], dtype=object),
        }
    )
    one = Everything(frame=frame.astype({"words": object}))
    assert bits(there_and_back(one, tmp_path)) == bits(one)


def test_a_column_of_foreign_things_is_refused_by_name(tmp_path):
    one = Everything(frame=pd.DataFrame({"ok": [1], "odd": [object()]}))
    with pytest.raises(InputError, match=r"frame\['odd'\]\[0\] holds an object"):
        one.save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool],
)
def test_tensors(dtype, tmp_path):
    values = torch.tensor([[1.5, -0.0, float("nan")], [float("inf"), 3, 1e-7]])
    values = values.nan_to_num(0, 2, 0).to(dtype) if not dtype.is_floating_point else values.to(dtype)
    one = Everything(
        tensor=values.T,
        tensors={"a.b": values[0], "a": values[:0], "scalar": values[0, 0]},
        anything={"a": {"b": values[1]}, "array": values.float().numpy()},
    )
    assert bits(there_and_back(one, tmp_path)) == bits(one)


def test_names_of_tensors_do_not_collide(tmp_path):
    one = Everything(tensors={"x.y": torch.zeros(1)}, anything={"tensors": 1})
    two = Everything(anything={"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}})
    for each in (one, two):
        assert bits(there_and_back(each, tmp_path)) == bits(each)


def test_one_of_several_classes_comes_back_as_itself(tmp_path):
    assert there_and_back(Everything(either=Small(1.0)), tmp_path).either == Small(1.0)
    assert there_and_back(Everything(either=Other(1.0)), tmp_path).either == Other(1.0)


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(InputError, match=r"cannot be saved: value: is text, not a float"):
        Small("three").save(tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="anything holds a Small"):
        Everything(anything=Small(1.0)).save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


BAD_FRAME = {
    "labels": {"range": [0, 1, 1]},
    "index": {"range": [0, 1, 1]},
    "columns": [{"dtype": "int64", "values": [1.5]}],
}


def document(body: Any, **changes: Any) -> str:
    return json.dumps({"kind": "Everything", "format": 2, "version": "1", "body": body, **changes})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (document({"number": "1"}), "number: is text, not a float"),
        (document({"number": True}), "number: is true or false, not a float"),
        (document({"whole": 1.5}), "whole: is a number, not an int"),
        (document({"kind": "c"}), "kind: is 'c', not one of 'a', 'b'"),
        (document({"numbers": [1, None]}), r"numbers\[1\]: is empty, not a float"),
        (document({"pair": [1]}), "pair: has 1 items, not 2"),
        (document({"inner": {}}), "inner.value: is missing"),
        (document({"inner": [1]}), "inner: is a list, not a Small"),
        (document({"inner": {"value": 1, "colour": 2}}), "inner.colour: is no field of Small"),
        (document({"tensor": {"$tensor": "gone"}}), "tensor: has a damaged"),
        (document({"number": {"$float": "x"}}), "number: has a damaged"),
        (document({"frame": {"$frame": {}}}), "frame: has a damaged"),
        (document({"frame": {"$frame": BAD_FRAME}}), "frame: has a damaged"),
        (document([]), "is a list, not an Everything"),
        (document(None), "is empty, not an Everything"),
        (document({}, format=3), "format 3, this version reads 1 to 2"),
        (document({}, format="2"), "format '2'"),
        (json.dumps({"kind": "Everything"}), "body: is missing"),
        ("{}", "holds a file of another program"),
        ("{", "not valid JSON"),
        ("[]", "not a readable safetensors file"),
        ("", "not a readable safetensors file"),
        ('{"kind": "Everything", "body": ' + "[" * 10**5, "not valid JSON"),
    ],
    ids=range(23),
)  # fmt: skip
def test_a_wrong_file_is_one_error_with_file_and_field(text, words, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        Everything.load(path)
    assert "result.json" in str(caught.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_read_or_refused(tmp_path, data):
    one = Everything(
        inners=(Small(1.0),), table={"x": math.nan}, by_step={1: (2.0,)}, anything={"a": (1, [2])},
        frame=pd.DataFrame({"x": [1.5], "c": pd.Categorical(["u"]), "t": pd.to_datetime(["2020"])}),
    )  # fmt: skip
    value = json.loads(one.save(tmp_path / "result").read_text())
    here = value
    while isinstance(here, (dict, list)) and here:
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if data.draw(st.booleans()) or not isinstance(here[key], (dict, list)) or not here[key]:
            here[key] = data.draw(
                st.sampled_from([None, 1, -1, 0.5, "x", "", [], {}, [1], {"$tensor": 1}, True])
            )
            break
        here = here[key]
    (tmp_path / "result").write_text(json.dumps(value))
    try:
        Everything.load(tmp_path / "result")
    except InputError as error:
        assert "result" in str(error)  # noqa: PT017


def test_files_of_the_first_format_are_read(tmp_path):
    table = {
        "schema": {"fields": [{"name": "x", "type": "number"}], "pandas_version": "1.4.0"},
        "data": [{"x": 0.5}, {"x": 1.0}],
    }
    old = {"number": {"$float": "nan"}, "pair": [1, "a"], "numbers": [1, 2.5], "frame": {"$frame": table}}
    (tmp_path / "old.json").write_text(json.dumps({"kind": "Everything", "version": "0.1.0", "body": old}))
    found = Everything.load(tmp_path / "old.json")
    assert math.isnan(found.number)
    assert found.numbers == (1, 2.5)
    assert found.pair == (1, "a")
    assert found.frame["x"].tolist() == [0.5, 1.0]


def test_letters_of_every_kind(tmp_path):
    text = string.printable + "\u2028\x00ü🙂\ud800"
    assert there_and_back(Everything(text=text, anything={text: text}), tmp_path).anything == {text: text}
