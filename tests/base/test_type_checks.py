"""The suite's own type checks: on every function, and with sizes wherever a hint has arrays."""

from __future__ import annotations

import beartype
import jaxtyping
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from tamperlens.base.boundary import held
from tamperlens.studies.compare.readings import number
from tamperlens_hooks.lowrank import Moments

Row = Float[Tensor, " n"]


def checked(function):
    """As the import hook decorates."""
    return jaxtyping.jaxtyped(typechecker=beartype.beartype)(function)


def test_functions_without_arrays_are_checked_going_in_and_out() -> None:
    def length(text: str, more: float = 0) -> int:
        return len(text) + more  # type: ignore[return-value]

    assert checked(length)("four", 0) == 4
    for wrong in ((4, 0), ("four", "0"), ("four", 0.5)):  # the last one's value is no int
        with pytest.raises(TypeCheckError):
            checked(length)(*wrong)
    assert str(length.__annotations__["more"]) == "float"  # as written, for those who read signatures


def test_sizes_are_shared_wherever_a_hint_has_arrays() -> None:
    def both(one: Float[Tensor, " n"], two: Float[Tensor, " n"]) -> None: ...

    def hidden(one: Row, others: dict[str, list[Row]] | None = None) -> Row:
        return one if others is None else others["x"][0]

    three, two = torch.zeros(3), torch.zeros(2)
    checked(both)(three, three)
    with pytest.raises(TypeCheckError):
        checked(both)(three, two)
    with pytest.raises(TypeCheckError):
        checked(hidden)(three, {"x": [two]})


def test_the_boundary_compares_each_value_by_itself() -> None:
    def outer(one: Float[Tensor, "a b"]) -> Tensor:
        return held(one.T, Float[Tensor, "a b"], "one")

    assert checked(outer)(torch.zeros(2, 3)).shape == (3, 2)


def test_the_package_is_checked() -> None:
    with pytest.raises(TypeCheckError):
        number("a")  # type: ignore[arg-type]
    rows, more = torch.zeros(3), torch.zeros(4)
    Moments(rows, rows, rows)
    with pytest.raises(TypeCheckError):
        Moments(rows, rows, more)
