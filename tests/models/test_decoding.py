"""Decoding settings: equal ones compare equal, others do not, and wrong ones are named."""

from __future__ import annotations

import pytest
from jaxtyping import TypeCheckError

from tamperlens.base.errors import InputError
from tamperlens.models import GIVEN, Decoding


def test_equal_settings_compare_equal_and_others_do_not(tmp_path):
    assert Decoding() == Decoding(seed=7, system="", prefill="")
    assert Decoding(temperature=0.5) != Decoding(temperature=0.5, seed=7)
    changed = {
        "max_new_tokens": 5,
        "temperature": 0.5,
        "system": "Be brief.",
        "prefill": "Sure",
        "chat_format": "x",
    }
    for name, value in changed.items():
        other = Decoding(**{name: value})
        assert other != Decoding()
        assert [line.partition(":")[0] for line in Decoding().differences(other)] == [name]
        assert Decoding.load(other.save(tmp_path / "decoding.json")) == other
    assert Decoding() != GIVEN


def test_settings_by_name_go_over_the_argument():
    assert Decoding.of(None, {}, max_new_tokens=32) == Decoding(max_new_tokens=32)
    assert Decoding.of(Decoding(temperature=0.7), {"seed": 3}) == Decoding(temperature=0.7, seed=3)
    with pytest.raises(InputError, match="did you mean 'max_new_tokens'"):
        Decoding.of(None, {"max_new_token": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": -1},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": True},
        {"max_new_tokens": None},
        {"temperature": float("nan")},
        {"temperature": -1},
        {"temperature": "hot"},
        {"seed": "a"},
        {"seed": None},
    ],
)
def test_values_that_cannot_be_used(wrong):
    with pytest.raises((InputError, TypeCheckError), match=next(iter(wrong))):  # types first, where checked
        Decoding.of(None, wrong)
