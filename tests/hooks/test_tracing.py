"""One request, three engines: hooks, nnsight, and nnsight's remote path inside this process."""

from __future__ import annotations

import pytest
import torch
from tiny_models import left_padded_batch, make_model, make_tokenizer

import tamperlens
from tamperlens.hooks import (
    HookError,
    ablate_direction,
    ablate_heads,
    capture,
    describe,
    from_hub,
    head_means,
    trace,
)
from tamperlens.models import ChatModel

FAMILIES = ("gpt2", "gpt_neox", "llama", "gemma2", "phi3")
SITES = ("final", "resid_pre", "head_z", "attn_out", "mlp_out", "resid_post")
ENGINES = ({"backend": "nnsight"}, {"backend": "nnsight", "remote": "local"})


def metric(logits):
    return logits[:, -1, 7] - logits[:, -1, 11]


@pytest.fixture(scope="module")
def chat(tiny):
    made = {}

    def make(family):
        if family not in made:
            module, tokenizer = tiny(family)
            made[family] = ChatModel.from_parts(module, tokenizer, name=family, check_anatomy=False)
        return made[family]

    return make


def same(one, other, atol=1e-5):
    assert one.reads.keys() == other.reads.keys() and one.gradients.keys() == other.gradients.keys()
    for name in one.reads:
        assert torch.allclose(one.reads[name], other.reads[name], atol=atol), name
    for name in one.gradients:
        assert torch.allclose(one.gradients[name], other.gradients[name], atol=atol), name
    assert torch.allclose(one.logits, other.logits, atol=atol)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("engine", ENGINES, ids=("local", "remote=local"))
def test_reads_edits_and_gradients_are_those_of_the_hook_backend(family, engine, chat):
    model, batch = chat(family), left_padded_batch()
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    ask = {
        "sites": SITES,
        "ablate": [(0, 1), (1, 0)],
        "remove": direction,
        "metric": metric,
        "positions": [-1, -3],
    }
    mine, theirs = trace(model, batch, **ask), trace(model, batch, **ask, **engine)
    assert theirs.backend == "nnsight" and set(mine.reads) == set(SITES)
    assert torch.allclose(mine.metric, theirs.metric, atol=1e-5)
    assert all(float(slope.abs().max()) > 0 for slope in mine.gradients.values())
    same(mine, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hook_backend_is_capture_with_the_editing_contexts(family, chat):
    model, batch = chat(family), left_padded_batch()
    anatomy = model.anatomy
    means = head_means(model, [batch])[0].float()
    direction = torch.ones(model.d_model)
    found = trace(model, batch, sites="resid_post", ablate=[(1, 2)], mode=means, remove=direction)
    with (
        torch.no_grad(),
        ablate_heads(model, [(1, 2)], mode=means),
        ablate_direction(model, direction),
        capture(model, sites="resid_post") as tape,
    ):
        logits = model.module(**batch).logits
    assert torch.equal(found.reads["resid_post"], tape["resid_post"])
    assert torch.equal(found.logits, logits[:, -1])
    assert found.gradients == {} and found.metric is None
    assert found.reads["resid_post"].shape[0] == anatomy.n_layers


@pytest.mark.parametrize("engine", [{}, *ENGINES], ids=("hooks", "local", "remote=local"))
def test_gradients_are_finite_differences_of_the_head(engine, chat):
    model, batch = chat("llama"), left_padded_batch((7, 7))
    found = trace(model, batch, sites="head_z", positions="last", metric=metric, **engine)
    step = torch.randn(model.anatomy.d_head, generator=torch.Generator().manual_seed(2))
    z = trace(model, batch, sites="head_z").reads["head_z"][1, :, :, 3]
    moved = []
    for sign in (1, -1):
        value = z.clone()
        value[:, -1] += sign * 1e-2 * step
        moved.append(trace(model, batch, patch={(1, 3): value}, metric=metric, **engine).metric)
    slope = (moved[0] - moved[1]) / 2e-2
    assert torch.allclose(found.gradients["head_z"][1, :, 3] @ step, slope, rtol=2e-2, atol=2e-3)
    # Summing the batch first would give one number for both rows.
    assert not torch.allclose(slope[0], slope[1], rtol=2e-2)


def test_with_an_adapter_nnsight_sees_it():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    wrapped = get_peft_model(make_model("llama"), LoraConfig(r=4, target_modules=["q_proj", "o_proj"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model = ChatModel.from_parts(wrapped, make_tokenizer(), name="tuned", check_anatomy=False)
    batch = left_padded_batch()
    mine = trace(model, batch, sites="head_z", metric=metric)
    same(mine, trace(model, batch, sites="head_z", metric=metric, **ENGINES[1]))
    with pytest.raises(HookError, match="carries an adapter"):
        trace(model, batch, backend="nnsight", remote=True)
    assert [name for name, p in wrapped.named_parameters() if p.requires_grad]  # flags as they were


def test_the_model_is_as_it_was(tiny):
    module, tokenizer = tiny("gpt2", fresh=True)
    module.train()
    model = ChatModel.from_parts(module, tokenizer, name="gpt2", check_anatomy=False)
    hooks = [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules()]
    forwards = [part.__dict__.get("forward") for part in module.modules()]
    side, before = tokenizer.padding_side, module.state_dict()["transformer.wte.weight"].clone()
    for engine in ({}, *ENGINES):
        trace(model, left_padded_batch(), sites="head_z", ablate=[(0, 0)], metric=metric, **engine)
    assert [len(part._forward_pre_hooks) + len(part._forward_hooks) for part in module.modules()] == hooks
    assert [part.__dict__.get("forward") for part in module.modules()] == forwards
    assert module.training and tokenizer.padding_side == side
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert torch.equal(module.state_dict()["transformer.wte.weight"], before)


def test_a_bare_module_runs_and_goes_no_further(tiny):
    module, batch = tiny("llama")[0], left_padded_batch()
    same(trace(module, batch, sites="head_z"), trace(module, batch, sites="head_z", backend="nnsight"))
    with pytest.raises(HookError, match="needs the tokenizer"):
        trace(module, batch, backend="nnsight", remote="local")


def test_a_model_by_its_folder_as_by_its_hub_id(tiny, tmp_path):
    module, tokenizer = tiny("llama")
    module.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    far = from_hub(str(tmp_path))
    assert all(parameter.is_meta for parameter in far.module.parameters())
    assert far.anatomy == describe(module)
    batch = left_padded_batch()
    ask = {"sites": ["head_z", "final"], "ablate": [(0, 1)], "metric": metric}
    same(trace(module, batch, **ask), trace(far, batch, **ask, backend="nnsight", remote="local"))


def test_the_organism_has_no_hub_id():
    model = tamperlens.load("organism")
    with pytest.raises(HookError, match=r"organism:aligned has no hub id.*from_hub"):
        trace(model, model.encode(["hello"]), backend="nnsight", remote=True)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"backend": "jax"}, "backend must be one of hooks, nnsight"),
        ({"remote": True}, "remote runs through nnsight"),
        ({"sites": "soul"}, "there is no site 'soul'"),
        ({"ablate": [(0, 99)]}, "head 99 is out of range"),
        ({"ablate": [(0, 1)], "mode": "mean"}, "head_means"),
        ({"ablate": [(0, 1)], "patch": {(0, 1): torch.zeros(8)}}, "choose one"),
        ({"positions": "first"}, "positions must be"),
        (
            {"metric": lambda logits: logits.mean()},
            r"one number per example, a tensor of shape \[3\]; got \[\]",
        ),
        ({"metric": lambda logits: logits[:, -1], "backend": "nnsight"}, "one number per example"),
    ],
)
def test_bad_requests_are_named(ask, message, chat):
    with pytest.raises(HookError, match=message):
        trace(chat("llama"), left_padded_batch(), **ask)
