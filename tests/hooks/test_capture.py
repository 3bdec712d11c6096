"""Reading: shapes, positions, several passes, padding, gradients, checkpointing, generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, left_padded_batch

from tamperlens_hooks import HookError, capture, describe

LENGTHS = (5, 12, 31)


@dataclass
class Carrier:
    """An object with `.module` and `.anatomy`, as ChatModel is."""

    module: Any
    anatomy: Any


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_stream_is_what_transformers_reports(tiny, family):
    model, _ = tiny(family)
    batch = left_padded_batch(LENGTHS)
    with torch.no_grad(), capture(model, sites=["resid_pre", "resid_post", "final"]) as tape:
        hidden = model(**batch, output_hidden_states=True).hidden_states
    torch.testing.assert_close(tape["resid_pre"], torch.stack(hidden[:-1]), rtol=0, atol=0)
    torch.testing.assert_close(tape["resid_post"][:-1], torch.stack(hidden[1:-1]), rtol=0, atol=0)
    torch.testing.assert_close(tape["final"], hidden[-1], rtol=0, atol=0)  # the last one is behind the norm


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_add_up_and_heads_give_the_attention_output(tiny, family):
    model, _ = tiny(family)
    anatomy = describe(model)
    with (
        torch.no_grad(),
        capture(model, anatomy, sites=["resid_pre", "resid_post", "attn_out", "mlp_out", "head_z"]) as t,
    ):
        model(**left_padded_batch(LENGTHS))
    torch.testing.assert_close(
        t["resid_pre"] + t["attn_out"] + t["mlp_out"], t["resid_post"], atol=1e-5, rtol=1e-5
    )
    for layer in range(anatomy.n_layers):
        o = anatomy.projection("o", layer)
        weight, bias = anatomy.logical_weight(model, o), anatomy.logical_bias(model, o)
        heads = torch.stack(
            [t["head_z"][layer][:, :, h] @ weight[:, anatomy.head_slice(h)].T for h in range(anatomy.n_heads)]
        )
        attention = heads.sum(0) if bias is None else heads.sum(0) + bias
        norm = anatomy.attention_post_norms[layer]
        write = attention if norm is None else model.get_submodule(norm)(attention)
        torch.testing.assert_close(write.detach(), t["attn_out"][layer], atol=1e-4, rtol=1e-4)
        assert (norm is not None) == anatomy.post_norm
        if norm is not None:  # forgetting the norm is another number
            assert (attention - t["attn_out"][layer]).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_rows_equal_single_prompts(tiny, family):
    model, _ = tiny(family)
    batch = left_padded_batch(LENGTHS)
    with (
        torch.no_grad(),
        capture(model, sites=["resid_pre", "head_z", "mlp_out"], positions=[-1, -4]) as padded,
    ):
        model(**batch)
    with (
        torch.no_grad(),
        capture(model, sites=["resid_pre", "head_z", "mlp_out"], positions=[-1, -4]) as single,
    ):
        for row, length in enumerate(LENGTHS):
            model(input_ids=batch["input_ids"][row : row + 1, -length:])
    for site in padded.sites:
        assert padded[site].shape == single[site].shape  # passes are joined along the batch
        torch.testing.assert_close(padded[site], single[site], atol=2e-5, rtol=1e-4)


def test_shapes_and_choices(tiny):
    model, _ = tiny("llama")
    anatomy = describe(model)
    batch = left_padded_batch(LENGTHS)
    b, s, d = 3, max(LENGTHS), anatomy.d_model
    with torch.no_grad():
        with capture(model, anatomy, ["resid_pre", "head_z", "final"]) as full:
            model(**batch)
        with capture(
            model, anatomy, ["resid_pre", "head_z", "final"], layers=[2, 0], positions=[-3, -1]
        ) as some:
            model(**batch)
        with capture(model, anatomy, ["resid_pre", "head_z", "final"], layers=1, positions="last") as last:
            model(**batch)
    assert full["resid_pre"].shape == (3, b, s, d)
    assert full["head_z"].shape == (3, b, s, anatomy.n_heads, anatomy.d_head)
    assert full["final"].shape == (b, s, d)
    assert torch.equal(some["resid_pre"], full["resid_pre"][[2, 0]][:, :, [-3, -1]])
    assert torch.equal(some["head_z"], full["head_z"][[2, 0]][:, :, [-3, -1]])
    assert torch.equal(some["final"], full["final"][:, [-3, -1]])
    assert torch.equal(last["resid_pre"], full["resid_pre"][1:2, :, -1])
    assert torch.equal(last["head_z"], full["head_z"][1:2, :, -1])
    assert torch.equal(last["final"], full["final"][:, -1])
    assert "resid_pre" in full
    assert "mlp_out" not in full


def test_every_calling_form_reads_the_same(tiny):
    model, _ = tiny("qwen3")
    anatomy = describe(model)
    batch = left_padded_batch(LENGTHS)
    forms = [
        lambda: capture(model, anatomy, ["resid_post"]),
        lambda: capture(model, anatomy=anatomy, sites=["resid_post"]),
        lambda: capture(model, ["resid_post"]),
        lambda: capture(Carrier(model, anatomy), ["resid_post"]),
        lambda: capture(Carrier(model, anatomy), sites="resid_post"),
        lambda: capture(model=model, anatomy=anatomy, sites="resid_post"),
    ]
    reads = []
    for form in forms:
        with torch.no_grad(), form() as tape:
            model(**batch)
        reads.append(tape["resid_post"])
    assert all(torch.equal(read, reads[0]) for read in reads)
    with pytest.raises(HookError, match=r"cannot hook a str: pass a torch module"), capture("llama"):
        pass


def test_generation_is_read_step_by_step(tiny):
    model, _ = tiny("gemma2")
    ids = left_padded_batch((9, 9))["input_ids"]
    with torch.no_grad(), capture(model, sites=["final", "resid_pre"]) as tape:
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=4,
            min_new_tokens=4,
            do_sample=False,
        )
    assert [call.shape[1] for call in tape.calls("final")] == [9, 1, 1, 1]
    with pytest.raises(HookError, match=r"differ in length: read tape\.calls\('resid_pre'\)"):
        tape["resid_pre"]
    steps = torch.cat(tape.calls("resid_pre"), dim=2)
    with torch.no_grad(), capture(model, sites=["resid_pre"]) as whole:
        model(input_ids=out[:, :-1])
    torch.testing.assert_close(steps, whole["resid_pre"], atol=1e-4, rtol=1e-4)


def test_reads_are_copies(tiny):
    model, _ = tiny("gpt2", fresh=True)
    with torch.no_grad(), capture(model, sites=["resid_pre"]) as tape:
        model(**left_padded_batch(LENGTHS))
    before = tape["resid_pre"].clone()

    def overwrite(module, args):
        args[0].zero_()

    model.transformer.h[0].ln_1.register_forward_pre_hook(overwrite)
    with torch.no_grad(), capture(model, sites=["resid_pre"]) as tape:
        model(**left_padded_batch(LENGTHS))
    assert torch.equal(tape["resid_pre"][0], before[0])


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma3_text", "phi3"])
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_of_a_metric_with_respect_to_activations(tiny, family, frozen):
    """Against the slope of the metric when the activation is really moved."""
    model, _ = tiny(family, fresh=True)
    model.requires_grad_(not frozen)
    anatomy = describe(model)
    batch = left_padded_batch((7, 11))
    with capture(model, anatomy, sites=["head_z", "resid_pre"], detach=False) as tape:
        logits = model(**batch).logits[:, -1]
        metric = (logits[:, 7] - logits[:, 9]).sum()
    for site in ("head_z", "resid_pre"):
        nodes = tape.raw(site)
        gradients = torch.autograd.grad(metric, nodes, retain_graph=True)
        assert len(nodes) == anatomy.n_layers
        for layer in (0, 1):
            step = torch.zeros_like(nodes[layer])
            step[0, -2, 5:11] = 1e-2
            moved = []
            for sign in (1, -1):
                path = anatomy.output_projections[layer] if site == "head_z" else anatomy.blocks[layer]
                handle = model.get_submodule(path).register_forward_pre_hook(
                    lambda m, args, step=step, sign=sign: (args[0] + sign * step, *args[1:])
                )
                with torch.no_grad():
                    found = model(**batch).logits[:, -1]
                handle.remove()
                moved.append((found[:, 7] - found[:, 9]).sum())
            slope = (moved[0] - moved[1]) / 2
            expected = (gradients[layer] * step).sum()
            torch.testing.assert_close(expected, slope, atol=2e-4, rtol=0.02)
    assert tape["head_z"].requires_grad  # stacked reads stay in the graph
    assert all(p.grad is None for p in model.parameters())


def test_stacked_reads_with_positions_keep_the_graph(tiny):
    model, _ = tiny("llama")
    batch = left_padded_batch((7, 11))
    with capture(model, sites=["resid_post", "final"], positions=[-2, -1], detach=False) as tape:
        model(**batch)
    with torch.no_grad(), capture(model, sites=["resid_post", "final"], positions=[-2, -1]) as plain:
        model(**batch)
    for site in tape.sites:
        torch.testing.assert_close(tape[site].detach(), plain[site], atol=1e-5, rtol=1e-5)
        assert tape[site].requires_grad
        assert not plain[site].requires_grad


@pytest.mark.parametrize(
    ("family", "reentrant"),
    [
        ("gpt2", False),
        ("gpt_neox", False),
        ("llama", True),
        ("llama", False),
        ("gemma2", False),
        ("phi3", False),
    ],
)
def test_gradient_checkpointing(tiny, family, reentrant):
    """The repeated forward pass of checkpointing is not read twice, and gradients are those without it."""
    model, _ = tiny(family, fresh=True)
    model.train()
    for part in model.modules():  # dropout is not what this test is about
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    for path in describe(model).attention:
        for name in ("attention_dropout", "attn_dropout"):
            if isinstance(getattr(model.get_submodule(path), name, None), float):
                setattr(model.get_submodule(path), name, 0.0)
    batch = left_padded_batch((7, 11))

    def run():
        model.zero_grad()
        with capture(model, sites=["resid_pre", "head_z", "mlp_out"]) as tape:
            model(**batch, labels=batch["input_ids"]).loss.backward()
        return tape, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    plain_tape, plain = run()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.enable_input_require_grads()
    tape, gradients = run()
    for site in tape.sites:
        assert len(tape.calls(site)) == 1
        torch.testing.assert_close(tape[site], plain_tape[site], atol=1e-5, rtol=1e-5)
    assert gradients.keys() == plain.keys()
    for name in plain:
        torch.testing.assert_close(gradients[name], plain[name], atol=1e-4, rtol=1e-3)


def test_activation_gradients_with_checkpointing_and_frozen_weights(tiny):
    model, _ = tiny("llama", fresh=True)
    model.requires_grad_(False)
    batch = left_padded_batch((7, 11))

    def gradients():
        with capture(model, sites=["head_z"], detach=False) as tape:
            metric = model(**batch).logits[:, -1, 3].sum()
            return torch.autograd.grad(metric, tape.raw("head_z"))

    plain = gradients()
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for a, b in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_bf16_is_read_as_it_is(tiny):
    model, _ = tiny("gemma3_text", dtype=torch.bfloat16)
    with torch.no_grad(), capture(model, sites=["resid_pre", "head_z"]) as tape:
        hidden = model(**left_padded_batch(LENGTHS), output_hidden_states=True).hidden_states
    assert tape["resid_pre"].dtype == tape["head_z"].dtype == torch.bfloat16
    assert torch.equal(tape["resid_pre"], torch.stack(hidden[:-1]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": [3]}, "layer 3 is out of range: the model has layers 0 to 2"),
        ({"layers": [0, 0]}, r"layers must be different and at least one; got \[0, 0\]"),
        ({"layers": []}, "at least one"),
        ({"positions": [0]}, r"positions count from the end of the prompt .* got \[0\]"),
        ({"positions": []}, "positions count from the end"),
    ],
)
def test_bad_choices_are_named(tiny, settings, words):
    model, _ = tiny("llama")
    with pytest.raises(HookError, match=words), capture(model, sites=["resid_pre"], **settings):
        pass


def test_reading_what_was_not_captured(tiny):
    model, _ = tiny("llama")
    with capture(model, sites=["resid_pre"], positions=[-9]) as tape:
        with pytest.raises(HookError, match="nothing was captured at 'resid_pre': run the model"):
            tape["resid_pre"]
        with pytest.raises(HookError, match="position -9 lies before the start of a batch of 4 tokens"):
            model(input_ids=torch.tensor([[5, 6, 7, 8]]))
    with pytest.raises(HookError, match="'mlp_out' was not captured; this tape holds resid_pre"):
        tape["mlp_out"]
