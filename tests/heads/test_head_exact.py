"""Exact effects against one whole forward pass per head, and against TransformerLens's patching."""

from __future__ import annotations

import copy

import pytest
import torch
from head_examples import CLEAN, CORRUPT

from tamperlens import heads
from tamperlens.base.errors import InputError
from tamperlens.heads import resolve_target
from tamperlens.hooks import ablate_heads, capture, head_means, patch_heads
from tamperlens.models import ChatModel

TARGETS = ["direction", "tokens"]


def settings(model: ChatModel, kind: str, direction) -> dict:
    if kind == "direction":
        return {"direction": direction(model), "layer": 2}
    return {"target": "refusal_tokens", "refusal_tokens": [70, 80, 90]}


def read(model: ChatModel, prompts, given: dict) -> torch.Tensor:
    """The target by one plain pass a prompt, unpadded."""
    words = dict(given)
    goal = resolve_target(model, words.pop("target", "refusal_direction"), **words)
    with torch.no_grad():
        return torch.cat([goal.read(model, model.encode([one])) for one in prompts])


def every_head(model: ChatModel):
    return [(layer, head) for layer in range(model.n_layers) for head in range(model.anatomy.n_heads)]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "olmo2"])
def test_ablation_is_a_whole_pass_with_the_head_replaced(chat, direction, family, kind) -> None:
    model = chat(family)
    given = settings(model, kind, direction)
    prompts = [*CLEAN, "now a longer one"]
    means, _ = head_means(model, [model.encode(prompts)])
    for baseline, mode in (("zero", "zero"), ("mean", means.float())):
        found = heads.attribute(model, prompts, method="ablate", baseline=baseline, batch_size=3, **given)
        before = read(model, prompts, given)
        assert torch.allclose(found.metric, before.double(), atol=1e-5)
        for layer, head in every_head(model):
            with ablate_heads(model, [(layer, head)], mode):
                after = read(model, prompts, given)
            error = (found.per_prompt[:, layer, head] - (before - after)).abs().max()
            assert error <= 1e-5 * max(1, float(before.abs().max())), (baseline, layer, head)
        assert float(found.scores.abs().max()) > 1e-3


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_patching_and_resampling_use_the_partner(chat, direction, family) -> None:
    model = chat(family)
    given = settings(model, "tokens", direction)
    found = heads.attribute(model, CLEAN, corrupt=CORRUPT, method="patch", **given)
    other = heads.attribute(model, CLEAN, corrupt=CORRUPT, method="ablate", baseline="resample", **given)
    for i, (one, two) in enumerate(zip(CLEAN, CORRUPT, strict=True)):
        z = {}
        for key, text in (("clean", one), ("corrupt", two)):
            with capture(model, sites="head_z") as tape, torch.no_grad():
                model.module(**model.encode([text]))
            z[key] = tape["head_z"]
        start, end = read(model, [two], given), read(model, [one], given)
        for layer, head in every_head(model):
            with patch_heads(model, {(layer, head): z["clean"][layer, 0, :, head]}):
                denoised = read(model, [two], given)
            with patch_heads(model, {(layer, head): z["corrupt"][layer, 0, :, head]}):
                noised = read(model, [one], given)
            assert found.per_prompt[i, layer, head] == pytest.approx(float(denoised - start), abs=1e-5)
            assert other.per_prompt[i, layer, head] == pytest.approx(float(end - noised), abs=1e-5)
    # adding clean to corrupt is not the same as taking clean away from clean
    assert (found.scores - other.scores).abs().max() > 1e-2


def indirect_by_hand(model: ChatModel, one: str, layer: int, head: int, z: torch.Tensor, given: dict):
    """The target of a clean run in which blocks behind `layer` read the head's z, and the logits do not."""
    norm = model.module.get_submodule(model.anatomy.final_norm)
    with capture(model, sites=["attn_out"]) as clean, torch.no_grad():
        model.module(**model.encode([one]))
    with patch_heads(model, {(layer, head): z}), torch.no_grad():
        with capture(model, sites=["attn_out", "resid_post"]) as edited:
            model.module(**model.encode([one]))
        last = edited["resid_post"][-1] - (edited["attn_out"][layer] - clean["attn_out"][layer])
        return resolve_target(model, **given).metric(
            model.module.get_submodule(model.anatomy.unembedding)(norm(last))[:, -1]
        )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "olmo2"])
def test_path_patching_leaves_out_the_direct_path_and_nothing_else(chat, direction, family) -> None:
    model = chat(family)
    given = {"target": "refusal_tokens", "refusal_tokens": [70, 80, 90]}
    found = heads.attribute(model, CLEAN, corrupt=CORRUPT, method="path", **given)
    total = heads.attribute(model, CLEAN, corrupt=CORRUPT, method="ablate", baseline="resample", **given)
    for i, (one, two) in enumerate(zip(CLEAN, CORRUPT, strict=True)):
        with capture(model, sites="head_z") as tape, torch.no_grad():
            model.module(**model.encode([two]))
        before = read(model, [one], given)
        for layer, head in every_head(model):
            after = indirect_by_hand(model, one, layer, head, tape["head_z"][layer, 0, :, head], given)
            assert found.per_prompt[i, layer, head] == pytest.approx(float(before - after), abs=2e-5)
    # with the direct path it is another number, and from the last block of parallel ones no other path leads
    assert (found.scores - total.scores).abs().max() > 1e-2
    assert (found.scores[-1].abs().max() < 1e-5) == model.anatomy.parallel
    with pytest.raises(InputError, match="direct path"):
        heads.attribute(model, CLEAN, corrupt=CORRUPT, method="path", direction=direction(model), layer=2)
    with pytest.raises(InputError, match="corrupt="):
        heads.attribute(model, CLEAN, method="path", **given)


def test_donors_have_the_prompts_length(chat, direction) -> None:
    model = chat("llama")
    given = settings(model, "tokens", direction)
    one = heads.attribute(model, CLEAN, method="ablate", baseline="resample", draws=3, seed=1, **given)
    two = heads.attribute(model, CLEAN, method="ablate", baseline="resample", draws=3, seed=1, **given)
    assert torch.equal(one.scores, two.scores)
    with pytest.raises(InputError, match="of its length"):
        heads.attribute(model, [*CLEAN, "long one here"], method="ablate", baseline="resample", **given)


def test_a_shortlist_is_measured_and_the_rest_is_not(chat, direction) -> None:
    model = chat("llama")
    given = settings(model, "tokens", direction)
    whole = heads.attribute(model, CLEAN, method="ablate", **given)
    short = heads.attribute(model, CLEAN, method="ablate", heads=[(1, 2), (0, 5)], **given)
    assert short.scores.nonzero().tolist() == [[0, 5], [1, 2]]
    assert torch.allclose(short.scores[1, 2], whole.scores[1, 2], atol=1e-6)
    assert "Shortlist of 2" in short.convention


def test_heads_above_the_place_that_is_read_do_nothing(chat, direction) -> None:
    model = chat("llama")  # three blocks; the input of block 2 is read
    given = settings(model, "direction", direction)
    for method in ("direct", "gradient", "ablate"):
        scores = heads.attribute(model, CLEAN, method=method, **given).scores
        assert (scores[2] == 0).all()
        assert (scores[:2] != 0).all()


def test_the_model_is_left_as_it_was(chat, direction) -> None:
    from fingerprints import differences, module_print

    model = chat("gpt2", seed=8)
    given = settings(model, "tokens", direction)
    model.logits_last(CLEAN)
    before = module_print(model.module)
    for method in ("direct", "gradient", "integrated", "ablate", "patch", "ships", "sahara"):
        heads.attribute(model, CLEAN, corrupt=CORRUPT, method=method, **given)
    assert not differences(before, module_print(model.module))
    assert copy.deepcopy(model.module) is not None


def test_errors(chat, direction) -> None:
    model = chat("llama")
    r = direction(model)
    with pytest.raises(InputError, match="pair 1 does not align"):
        heads.attribute(
            model, CLEAN[:2], corrupt=["bake a cake", "a pony"], method="patch", direction=r, layer=1
        )
    with pytest.raises(InputError, match="2 prompts and 1 corrupt"):
        heads.attribute(model, CLEAN[:2], corrupt=CORRUPT[:1], method="patch", direction=r, layer=1)
    with pytest.raises(InputError, match="needs corrupt="):
        heads.attribute(model, CLEAN, method="patch", direction=r, layer=1)
    with pytest.raises(InputError, match="one number per example"):
        heads.attribute(model, CLEAN, method="ablate", target=lambda logits: logits[:, 3].mean())
    with pytest.raises(InputError, match="one number per example"):
        heads.attribute(model, CLEAN, method="gradient", target=lambda logits: logits)
    with pytest.raises(InputError, match="method='magic' must be one of"):
        heads.attribute(model, CLEAN, method="magic", direction=r, layer=1)
    with pytest.raises(InputError, match="target is 'nonsense'"):
        heads.attribute(model, CLEAN, target="nonsense")
    with pytest.raises(InputError, match="needs direction="):
        heads.attribute(model, CLEAN)
    with pytest.raises(InputError, match="input of block 0"):
        heads.attribute(model, CLEAN, direction=r, layer=0)
    with pytest.raises(InputError, match="vector of 48"):
        heads.attribute(model, CLEAN, direction=torch.ones(7), layer=1)
    with pytest.raises(InputError, match="lies before the start"):
        heads.attribute(model, CLEAN, direction=r, layer=1, position=-99)
    with pytest.raises(InputError, match="no prompt has a partner"):
        heads.align(model, ["abc"], ["abcd"])


def test_align_takes_the_closest_of_the_same_length(chat) -> None:
    model = chat("llama")
    clean, corrupt = heads.align(model, ["pick it", "ab", "sick it"], ["pick at", "zzzzzzz", "abcdef"])
    assert clean.prompts == ("pick it", "sick it")
    assert corrupt.prompts == ("pick at", "zzzzzzz")
    assert clean.source == "2 of 3 prompts paired by token length"
