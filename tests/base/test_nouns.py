"""Every noun is one line as repr, says its finding in words and is a small, escaped table in a notebook."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pkgutil
import types
import typing
import warnings
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
import torch

import tamperlens
from tamperlens.base import deprecation
from tamperlens.base.nouns import Noun
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate, bootstrap, mcnemar, undefined, wilson

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # modules kept under their old names
    for found in pkgutil.walk_packages(tamperlens.__path__, "tamperlens."):
        with contextlib.suppress(ModuleNotFoundError):  # what needs an extra that is not installed
            importlib.import_module(found.name)


def kinds(parent: type) -> list[type]:
    return [one for child in parent.__subclasses__() for one in (child, *kinds(child))]


NOUNS = [
    one for one in dict.fromkeys(kinds(Noun)) if one.__module__.startswith("tamperlens") and one is not Result
]


def large(hint: Any, depth: int = 0) -> Any:
    """A value of a type that would fill pages if it were printed in full."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return arguments[0]
    if origin is typing.Union or type(hint).__name__ == "UnionType":
        return large(arguments[0], depth)
    if dataclasses.is_dataclass(hint):
        return filled(hint, depth + 1) if depth < 3 else None  # type: ignore[arg-type]
    if origin is tuple or hint is tuple:
        if arguments and arguments[-1] is not Ellipsis:
            return tuple(large(one, depth) for one in arguments)
        return tuple(large(arguments[0] if arguments else str, depth) for _ in range(20))
    if origin is list or hint is list:
        return [large(arguments[0] if arguments else str, depth) for _ in range(20)]
    if hint is str:
        return "<b>a long\nline</b> " * 30
    if hint in (int, float, bool):
        return {int: 10**9, float: 1.23456789012345, bool: True}[hint]
    if hint is pd.DataFrame:
        return pd.DataFrame({"value": [0.5] * 40, "low": 0.25, "high": 0.75, "name": "<b>x</b>"})
    if isinstance(hint, type) and issubclass(hint, torch.Tensor):
        return torch.zeros(30, 30)
    return {f"key {i}": 1.0 for i in range(50)}


def filled(kind: type, depth: int = 0) -> Any:
    made = object.__new__(kind)
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        object.__setattr__(made, field.name, large(hints[field.name], depth))
    return made


def test_there_are_nouns_to_look_at():
    assert len(NOUNS) > 60


@pytest.mark.parametrize("kind", NOUNS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_repr_is_one_short_line(kind):
    line = repr(filled(kind))
    assert line.startswith(kind.__name__)
    assert len(line) < 200
    assert "\n" not in line


@pytest.mark.parametrize("kind", NOUNS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_noun_has_words_and_a_page(kind):
    for name in ("summary", "_repr_html_"):
        assert callable(getattr(kind, name))
    assert typing.get_type_hints(kind.summary)["return"] is str


@pytest.mark.parametrize("name", [name for name in dir(tamperlens) if not name.startswith("_")])
def test_dir_shows_the_public_names_and_nothing_else(name):
    shown = getattr(tamperlens, name)
    if isinstance(shown, types.ModuleType):
        assert dir(shown) == sorted(shown.__all__)
        assert all(hasattr(shown, one) for one in dir(shown))
        assert not any(one.startswith("_") for one in dir(shown))


def test_rules_are_public():
    assert tamperlens.Rule.parse("refusal rate below 0.5").bound == 0.5


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in ("line", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(noun: Noun) -> Tags:
    tags = Tags()
    tags.feed(noun._repr_html_())
    assert tags.open == []
    return tags


@dataclass(frozen=True)
class Rows(Result):
    rows: pd.DataFrame
    note: str = ""

    def to_frame(self) -> pd.DataFrame:
        return self.rows


def test_a_page_has_a_row_per_row_and_a_bar_per_interval():
    frame = pd.DataFrame(
        {"name": ["<script>alert(1)</script>", "b"], "value": [0.25, float("nan")],
         "low": [0.1, float("nan")], "high": [0.5, float("nan")], "d": [1.0, -2.0],
         "d_low": [0.0, -3.0], "d_high": [2.0, -1.0]}
    )  # fmt: skip
    found = page(Rows(frame, "<i>note</i>"))
    assert found.seen.count("tr") == 3
    assert found.seen.count("svg") == 3  # an undefined value has none
    assert "script" not in found.seen
    assert "i" not in found.seen
    assert "0.25 [0.1, 0.5]" in found.text
    assert "<i>note</i>" in found.text
    assert found.seen.count("th") == 5


def test_a_long_table_says_what_it_leaves_out():
    found = page(Rows(pd.DataFrame({"x": range(100)})))
    assert found.seen.count("tr") == 13
    assert "88 more rows" in found.text
    assert page(Rows(pd.DataFrame({"x": []}))).seen == ["p"]


@pytest.mark.parametrize(
    "noun",
    [wilson(3, 10), undefined("no trials"), mcnemar([True, False], [False, False]), bootstrap([1.0, 2.0])],
)
def test_numbers_show_themselves(noun):
    assert len(noun.summary()) < 200
    assert page(noun).text
    if isinstance(noun, Estimate) and noun.reason:
        assert noun.reason in noun.summary()


def test_deprecated_names_work_and_warn_where_they_are_used():
    @deprecation.deprecated("old()", "new()")
    def old(x: int) -> int:
        """Doc."""
        return x + 1

    with pytest.warns(DeprecationWarning, match=r"old\(\) is deprecated .* use new\(\)") as caught:
        assert old(1) == 2
    assert caught[0].filename == __file__
    assert old.__doc__ == "Doc."

    @deprecation.renamed_arguments(n_samples="n")
    def draw(*, n: int) -> int:
        return n

    assert draw(n=1) == 1
    with pytest.warns(DeprecationWarning, match="use n=") as caught:
        assert draw(n_samples=3) == 3
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match="n= and its old name n_samples="):
        draw(n=1, n_samples=2)

    find = deprecation.moved("here", {"old": "tamperlens.base.stats:wilson", "rate": "tamperlens.base.stats"})
    with pytest.warns(
        DeprecationWarning, match=r"here.old is deprecated .* use tamperlens.base.stats.wilson"
    ):
        assert find("old") is wilson
    with pytest.warns(DeprecationWarning, match="here.rate"):
        assert find("rate")([True]).n == 1
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'other'"):
        find("other")
