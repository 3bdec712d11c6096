"""Newer architectures: every number of a measure is right, or the measure says that it does not apply."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from newer_families import MEASURES, NEWER, last, literal_experts, make, measured

from tamperlens import finetune, heads, hooks, neurons, prompts
from tamperlens.base.errors import InputError
from tamperlens_hooks.queries import scale_queries

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
FAST = ("qwen3_moe", "lfm2")
PAIRS = [("Name a tree.", "An oak."), ("Hi", "Hello there."), ("And now?", "No.")]


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=() if one in FAST else pytest.mark.slow) for one in NEWER]
)
def test_the_page_says_what_is_measured(family):
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {family} |")
    ]
    found = measured(make(family))
    assert rows == [f"| {family} | {' | '.join(found[name] for name in MEASURES)} |"]


def test_scores_of_experts_are_absolute_inside_the_mean_and_count_every_example():
    model = make("mixtral")
    data = prompts.PromptSet.from_pairs(PAIRS, name="pairs")
    found = neurons.expert_snip(model, data)
    name = next(iter(found.scores))
    one = [neurons.expert_snip(model, prompts.PromptSet.from_pairs([pair], name="one")) for pair in PAIRS]
    mean = torch.stack([each.scores[name] for each in one]).mean(0)
    torch.testing.assert_close(found.scores[name], mean, rtol=1e-3, atol=1e-4 * float(mean.max()))
    # The tempting variant, |mean of gradients|, is another number.
    signed = torch.zeros_like(mean)
    model.module.requires_grad_(True)
    for turn in model.encode_pairs(data):
        ids, labels = torch.tensor([turn.input_ids]), torch.tensor(turn.labels)[1:]
        logits = model.module(input_ids=ids, use_cache=False).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100).backward()
    weight = model.module.get_parameter(name)
    signed = weight.grad.abs() / len(PAIRS) * weight.detach().abs()
    model.module.zero_grad()
    assert float((signed - mean).abs().max() / mean.abs().max()) > 0.1
    torch.testing.assert_close(
        literal_experts(model, PAIRS)[name], mean, rtol=1e-3, atol=1e-4 * float(mean.max())
    )
    table = found.to_frame()
    assert set(table["expert"]) == {0, 1, 2, 3}
    assert "scores highest" in found.summary()
    assert found.prompts == {data.name: data.sha256}


def test_what_a_model_lacks_is_named():
    model = make("lfm2")
    with pytest.raises(InputError, match=r"model\.layers\.0 routes"):
        neurons.snip(model, prompts.PromptSet.from_pairs(PAIRS, name="pairs"))
    with pytest.raises(InputError, match="no sparse experts"):
        neurons.expert_snip(model, prompts.PromptSet.from_pairs(PAIRS, name="pairs"))
    with pytest.raises(
        ValueError, match=r"lfm2 has no heads here: none can be read in model\.layers\.0\.conv"
    ):
        heads.attribute(model, ["Hi"], metric=last, method="gradient")


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "lfm2", "qwen3_next"])
def test_the_weight_form_of_an_ablation_reaches_experts_and_mixers(family):
    model = make(family)
    unit = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    batch = model.encode(["Name a tree."])
    with hooks.ablate_weights(model, unit), hooks.capture(model, ["resid_post"]) as tape:
        by_weights = model.module(**batch).logits
    seen = tape["resid_post"]
    assert float((seen @ unit / unit.norm()).abs().max() / seen.norm(dim=-1).max()) < 1e-5
    with hooks.ablate_direction(model, unit):
        torch.testing.assert_close(by_weights, model.module(**batch).logits, rtol=1e-3, atol=1e-3)


def test_neurons_and_heads_that_are_not_there_have_no_scores():
    """The tempting variant gives blocks of experts neurons with score 0, and moves rows up by one block."""
    data = prompts.PromptSet.from_pairs(PAIRS, name="pairs")
    model = make("glm4_moe")
    scores = neurons.snip(model, data, modules=["gate", "up", "down"])
    for measure in (
        lambda: neurons.by_neuron(model, scores),
        lambda: neurons.activation_contrast(model, model, data),
        lambda: neurons.contrastive_attribution(model, ["A", "B"], ["C", "D"]),
    ):
        with pytest.raises(InputError, match=r"model\.layers\.1\.mlp routes tokens to experts"):
            measure()
    hybrid = make("lfm2")
    scores = neurons.snip(hybrid, data, modules=["q", "k", "v", "o"])
    with pytest.raises(ValueError, match="has no heads here"):
        neurons.by_head(hybrid, scores)


def test_flops_count_attention_where_it_is_and_say_what_they_leave_out():
    anatomy = make("lfm2").anatomy
    counted = finetune.flop_model(anatomy)
    assert counted.attention == counted.attention_backward == anatomy.n_heads * anatomy.d_head
    assert "a lower bound" in counted.formula()
    assert "a lower bound" in finetune.flop_model(make("mixtral").anatomy, adapted=["x"], rank=2).formula()


@pytest.mark.parametrize("family", ["qwen3_next", "lfm2", "hunyuan_v1_moe", "glm4_moe", "gptj"])
def test_queries_are_scaled_behind_their_norm_and_beside_their_gate(family):
    """Half a query is half of every logit of its head: log w' − log w / 2 is the same for every key."""
    model = make(family)
    layer = next(at for at, path in enumerate(model.anatomy.output_projections) if path)
    attention = model.module.get_submodule(model.anatomy.attention[layer])
    model.module.set_attn_implementation("eager")
    seen = []
    handle = attention.register_forward_hook(lambda _, __, output: seen.append(output[1][0, :, -1].log()))
    batch = model.encode(["Name a tree."])
    with torch.no_grad():
        model.module(**batch)
        with scale_queries(model, [(layer, 1)], 0.5):
            model.module(**batch)
    handle.remove()
    plain, halved = seen
    rest = halved[1] - plain[1] / 2
    torch.testing.assert_close(rest, rest.mean().expand_as(rest), rtol=1e-3, atol=1e-3)
    others = [head for head in range(len(plain)) if head != 1]
    torch.testing.assert_close(halved[others], plain[others])
    assert float((plain[1] - plain[1].mean()).abs().max()) > 0.01
