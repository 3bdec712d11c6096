"""Defences that choose or mix packaged data are for models that speak its language."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamperlens import grid
from tamperlens.base.errors import InputError
from tamperlens.grid.measuring import Bench


@pytest.mark.parametrize(
    ("defence", "words"),
    [
        (grid.Defence(kind="freeze"), r"packaged harmful .* give the defence data= \(or mask=\)"),
        (grid.Defence(kind="rewind"), r"packaged harmful .* give the defence data= \(or mask=\)"),
        (grid.Defence(kind="mix", examples=2), "packaged harmful .* give the defence data=, a file"),
    ],
)
def test_toy_pairs_are_refused_on_a_model_of_another_language(declared, defence, words) -> None:
    declaration = declared(defences=(defence,))
    with pytest.raises(InputError, match=words):
        Bench(declaration, declaration.models[0]).pins()


def test_own_pairs_choose_the_weights_and_are_part_of_the_address(declared, pairs) -> None:
    defence = grid.Defence(kind="freeze", select="safety-critical", data=pairs, share=0.1)
    declaration = declared(defences=(defence,))
    with pytest.raises(InputError, match=r"packaged benign .* give the defence utility="):
        Bench(declaration, declaration.models[0]).pins()
    defence = grid.Defence(kind="freeze", select="safety-critical", data=pairs, utility=pairs, share=0.1)
    declaration = declared(defences=(defence,))
    bench = Bench(declaration, declaration.models[0])
    assert f"input {pairs}" in bench.pins()
    assert bench.mask(defence).count == 0  # the same pairs on both sides leave nothing
    assert bench.sets["harmful"].name.startswith("english-harmful")


def test_a_grid_says_so_before_anything_is_trained(declared, tmp_path: Path) -> None:
    declaration = declared(defences=(grid.Defence(kind="freeze"),))
    with pytest.raises(InputError, match="speaks English"):
        grid.run(declaration, tmp_path / "grid")
    assert not list((tmp_path / "grid").glob("cells/*"))
