"""The whole audit on a random model of every family: everything but quality."""

from __future__ import annotations

import pandas as pd
import pytest
from tiny_models import FAMILIES

import tamperlens
from tamperlens.models import Decoding


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_audit_runs_on_every_family(family, tiny, tmp_path):
    module, tokenizer = tiny(family)
    module.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    quick = family == FAMILIES[0]
    result = tamperlens.audit(
        str(tmp_path / "model"), out=tmp_path / "run", limit=6, decoding=Decoding(4), steps=2, quick=quick,
        progress=False,
    )  # fmt: skip
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"directions of the same length, mean over {1 if quick else 3}." in page
    measures = pd.read_csv(tmp_path / "run" / "measures.csv")
    assert {"refusal_rate", "degenerate_rate", "accuracy", "direction_cosine", "bypass_drop"} <= set(
        measures.measure
    )
    assert set(measures.stage) == {"before", "after"}
    undefined = measures[measures.value.isna()]
    assert (undefined.n == 0).all()
    assert result is not None
    curve = result.dose
    assert (curve is None) is (not result.direction.defined)
    if curve is not None:
        assert set(curve.of("refusal rate")["scale"]) == {0.0, 0.25, 0.5, 1.0, 2.0, 4.0}
        assert "Adding the direction" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
