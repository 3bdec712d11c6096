"""Directions in the features of a sparse autoencoder, against the definition written out."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

import tamperlens
from tamperlens import directions, prompts
from tamperlens.base.errors import InputError, NumericsError


def saved(folder, d_in=8, d_sae=24, seed=0, **config):
    """As SAELens 6 saves one."""
    generator = torch.Generator().manual_seed(seed)
    made = {
        "W_dec": torch.randn(d_sae, d_in, generator=generator),
        "W_enc": torch.randn(d_in, d_sae, generator=generator),
        "b_dec": torch.zeros(d_in), "b_enc": torch.zeros(d_sae),
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    metadata = {"hook_name": "blocks.2.hook_resid_pre", "sae_lens_version": "6.54.12"}
    text = {"d_in": d_in, "d_sae": d_sae, "architecture": "standard", "metadata": metadata, **config}
    (folder / "cfg.json").write_text(json.dumps(text), encoding="utf-8")
    save_file(made, folder / "sae_weights.safetensors")
    return made


def test_cosines_and_the_share_explained_are_those_of_the_definition(tmp_path):
    made = saved(tmp_path)
    vector = torch.randn(8, generator=torch.Generator().manual_seed(5))
    found = directions.explain_by_features(vector, tmp_path, k=4)
    cosines = torch.cosine_similarity(made["W_dec"], vector[None])
    order = cosines.abs().argsort(descending=True)[:4]
    assert found.features["feature"].tolist() == order.tolist()
    assert found.features["cosine"].tolist() == pytest.approx(cosines[order].tolist(), abs=1e-6)
    read = torch.cosine_similarity(made["W_enc"].T, vector[None])[order]
    assert found.features["encoder_cosine"].tolist() == pytest.approx(read.tolist(), abs=1e-6)
    for j in range(1, 5):
        rows = made["W_dec"][order[:j]].T.double()
        best = torch.linalg.lstsq(rows, vector.double()[:, None]).solution
        rest = (vector.double() - (rows @ best)[:, 0]).square().sum() / vector.double().square().sum()
        assert found.features["explained"].iloc[j - 1] == pytest.approx(1 - float(rest), abs=1e-9)
    assert found.site == "blocks.2.hook_resid_pre" and found.n_features == 24 and found.note == ""
    assert 0.4 < found.chance < 1
    found.save(tmp_path / "found.safetensors")
    assert directions.FeatureExplanation.load(tmp_path / "found.safetensors").features.equals(found.features)


def test_an_update_is_explained_by_what_it_writes(tmp_path):
    made = saved(tmp_path)
    row = made["W_dec"][7]
    update = torch.outer(row, torch.randn(5, generator=torch.Generator().manual_seed(1)))
    found = directions.explain_by_features(update, tmp_path, k=1)
    assert found.features["feature"].tolist() == [7]
    assert found.features["cosine"].iloc[0] == pytest.approx(1, abs=1e-6)
    assert "Feature 7 of 24" in found.summary() and "100%" in found.summary()


def test_a_direction_of_another_layer_is_noted(tmp_path):
    model = tamperlens.load("organism")
    bad, good = (prompts.packaged(name, split="train").head(8) for name in ("harmful", "harmless"))
    there = directions.direction_at(model, bad, good, layer=2, position=-1)
    saved(tmp_path, d_in=len(there.vector))
    assert directions.explain_by_features(there, tmp_path).note == ""
    elsewhere = dataclasses.replace(there, layer=3)
    assert "blocks.2.hook_resid_pre" in directions.explain_by_features(elsewhere, tmp_path).summary()


def test_what_it_refuses(tmp_path):
    vector = torch.ones(8)
    with pytest.raises(InputError, match=r"has no cfg\.json"):
        directions.explain_by_features(vector, tmp_path / "nothing")
    saved(tmp_path)
    with pytest.raises(InputError, match="reads 8 dimensions and the direction has 9"):
        directions.explain_by_features(torch.ones(9), tmp_path)
    with pytest.raises(InputError, match="k=25"):
        directions.explain_by_features(vector, tmp_path, k=25)
    for poor in (torch.zeros(8), torch.full((8,), torch.nan)):
        with pytest.raises(NumericsError, match="nothing to explain"):
            directions.explain_by_features(poor, tmp_path)
    weights = tmp_path / "sae_weights.safetensors"
    save_file({"W_dec": torch.ones(3, 8)}, weights)
    with pytest.raises(InputError, match="has no W_enc"):
        directions.explain_by_features(vector, tmp_path)
    weights.write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable safetensors"):
        directions.explain_by_features(vector, tmp_path)


def test_a_folder_of_saelens_itself(tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    made = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=8, d_sae=24))
    made.save_model(tmp_path)
    found = directions.explain_by_features(made.W_dec[3].detach(), tmp_path, k=1)
    assert found.features["feature"].tolist() == [3]
