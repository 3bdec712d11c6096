"""Frames as JSON, a column at a time, with their dtypes, index and labels: the same to the bit when read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tamperlens.base.errors import InputError
from tamperlens.base.lazy import pd

Encode = Callable[[object, str], Any]
"""JSON of one value, and its like for reading; the second argument says where the value stands."""


def frame_to_json(frame: pd.DataFrame, encode: Encode, where: str) -> dict[str, Any]:
    """A frame as JSON.

    Raises:
        InputError: a column holds what files do not keep.
    """
    columns = [
        _column(frame.iloc[:, i].array, encode, f"{where}[{label!r}]")
        for i, label in enumerate(frame.columns)
    ]
    found = {
        "labels": _index(frame.columns, encode, f"{where} labels"),
        "columns": columns,
        "index": _index(frame.index, encode, f"{where} index"),
    }
    return found | ({"attrs": encode(dict(frame.attrs), f"{where} attrs")} if frame.attrs else {})


def frame_from_json(value: Any, decode: Encode, where: str) -> pd.DataFrame:
    """The frame that `frame_to_json` wrote; tables of earlier versions are read too.

    Raises:
        ValueError, KeyError or TypeError: the value has another shape.
    """
    if "schema" in value:
        return pd.read_json(io.StringIO(json.dumps(value)), orient="table")
    labels, index = (_read_index(value[key], decode, f"{where} {key}") for key in ("labels", "index"))
    arrays = [_read_column(one, decode, where) for one in value["columns"]]
    if len(arrays) != len(labels) or any(len(one) != len(index) for one in arrays):
        raise ValueError("columns of different lengths")
    series = {i: pd.Series(one, index=index, dtype=one.dtype) for i, one in enumerate(arrays)}
    frame = pd.DataFrame(series, index=index)
    frame.columns = labels
    frame.attrs = decode(value["attrs"], where) if "attrs" in value else {}
    return frame


def _index(index: pd.Index, encode: Encode, where: str) -> dict[str, Any]:
    if isinstance(index, pd.RangeIndex):
        found: dict[str, Any] = {"range": [index.start, index.stop, index.step]}
    elif isinstance(index, pd.MultiIndex):
        levels = [index.get_level_values(i) for i in range(index.nlevels)]
        return {"levels": [_index(level, encode, where) for level in levels]}
    else:
        found = _column(index.array, encode, where)
        if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)) and index.freq is not None:
            found["freq"] = index.freqstr
    return found | ({} if index.name is None else {"name": encode(index.name, where)})


def _read_index(value: Any, decode: Encode, where: str) -> pd.Index:
    if "levels" in value:
        levels = [_read_index(level, decode, where) for level in value["levels"]]
        return pd.MultiIndex.from_arrays(levels, names=[level.name for level in levels])
    name = decode(value["name"], where) if "name" in value else None
    if "range" in value:
        start, stop, step = value["range"]
        return pd.RangeIndex(start, stop, step, name=name)
    array = _read_column(value, decode, where)
    index: pd.Index = pd.Index(array, name=name, dtype=array.dtype)
    if "freq" in value and isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        return type(index)(index, freq=value["freq"])
    return index


def _column(array: Any, encode: Encode, where: str) -> dict[str, Any]:
    if isinstance(array, pd.arrays.NumpyExtensionArray):
        array = array.to_numpy()
    dtype = array.dtype
    found: dict[str, Any] = {"dtype": str(dtype)}
    if isinstance(dtype, pd.CategoricalDtype):
        categories = _index(dtype.categories, encode, where)
        return {
            **found,
            "codes": array.codes.tolist(),
            "categories": categories,
            "ordered": bool(dtype.ordered),
        }
    if isinstance(dtype, (pd.DatetimeTZDtype, pd.PeriodDtype)) or dtype.kind in "mM":
        return {**found, "values": array.asi8.tolist()}
    if isinstance(dtype, pd.IntervalDtype):
        sides = {side: _index(getattr(array, side), encode, where) for side in ("left", "right")}
        return {**found, **sides, "closed": array.closed}
    if isinstance(dtype, pd.StringDtype):
        values = [None if missing else value for value, missing in zip(array, array.isna(), strict=True)]
        found |= {"storage": dtype.storage, "missing": "NA" if dtype.na_value is pd.NA else "nan"}
    elif pd.api.types.is_extension_array_dtype(dtype) and hasattr(
        array, "_mask"
    ):  # Int64, boolean, Float32 …
        values = [None if gone else v for v, gone in zip(array._data.tolist(), array._mask, strict=True)]
    elif pd.api.types.is_extension_array_dtype(dtype) and not isinstance(dtype, np.dtype):
        raise InputError(
            f"{where} is a column of {dtype}, which a result file does not keep; use .astype(...)"
        )
    elif dtype.kind == "c":
        values = np.asarray(array).view(f"f{dtype.itemsize // 2}").tolist()
    else:
        values = np.asarray(array).tolist() if dtype.kind in "biuf" else list(array)
    return {**found, "values": [encode(value, f"{where}[{i}]") for i, value in enumerate(values)]}


def _read_column(value: Any, decode: Encode, where: str) -> Any:
    name = value["dtype"]
    if name == "category":
        kind = pd.CategoricalDtype(_read_index(value["categories"], decode, where), ordered=value["ordered"])
        return pd.Categorical.from_codes(value["codes"], dtype=kind)
    if name.startswith("interval"):
        left, right = (_read_index(value[side], decode, where) for side in ("left", "right"))
        return pd.arrays.IntervalArray.from_arrays(left, right, closed=value["closed"])
    values = [decode(item, f"{where}[{i}]") for i, item in enumerate(value["values"])]
    if "storage" in value:
        gap = pd.NA if value["missing"] == "NA" else np.nan
        try:
            return pd.array(values, dtype=pd.StringDtype(value["storage"], na_value=gap))
        except ImportError:  # written with pyarrow, read without it: the values are the same
            return pd.array(values, dtype=pd.StringDtype("python", na_value=gap))
    dtype: Any = pd.api.types.pandas_dtype(name)
    if isinstance(dtype, pd.DatetimeTZDtype):
        moments = np.array(values, dtype="i8").view(f"M8[{dtype.unit}]")
        return pd.Series(moments).dt.tz_localize("UTC").dt.tz_convert(dtype.tz).array
    if isinstance(dtype, pd.PeriodDtype):
        return pd.arrays.PeriodArray(np.array(values, dtype="i8"), dtype=dtype)
    if dtype.kind in "mM":
        return np.array(values, dtype="i8").view(dtype)
    if not isinstance(dtype, np.dtype):
        mask = np.array([item is None for item in values], dtype=bool)
        data = np.array([0 if item is None else item for item in values], dtype=dtype.numpy_dtype)
        return dtype.construct_array_type()(data, mask)
    if dtype.kind == "c":
        return np.array(values, dtype=f"f{dtype.itemsize // 2}").view(dtype)
    if dtype.kind in "biuf":
        kinds = {"b": bool, "f": float}
        if any(type(item) is not kinds.get(dtype.kind, int) for item in values):
            raise ValueError(f"a column of {dtype} holds something else")
        return np.array(values, dtype=dtype)
    made = np.empty(len(values), dtype=object)
    for i, item in enumerate(values):  # made[:] = values would lay lists out as a matrix
        made[i] = item
    return made
