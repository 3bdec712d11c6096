"""Attention patterns: the numbers, what is left behind, and pages that open without network."""

from __future__ import annotations

import time

import pytest
import torch
from head_examples import CLEAN, planted
from tiny_models import FAMILIES

from tamperlens import heads
from tamperlens.base.errors import InputError, UnsupportedModelError
from tamperlens.hooks import capture
from tamperlens.models import ChatModel
from tamperlens_hooks.attention import eager_attention


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_times_values_is_z(chat, family: str) -> None:
    """Σ_k pattern[q, k] v_k is the head's z of the model's own (not eager) run."""
    model = chat(family)
    found = heads.patterns(model, CLEAN[0])
    seq, anatomy = len(found.tokens), model.anatomy
    assert found.weights.shape == (model.n_layers, anatomy.n_heads, seq, seq)
    assert torch.allclose(found.weights.sum(-1), torch.ones(1), atol=1e-5)
    assert (found.weights.triu(1) == 0).all()
    layer = 1
    part = anatomy.projection("v", layer)
    seen = {}
    hook = model.module.get_submodule(part.module).register_forward_hook(
        lambda module, args, output: seen.update(v=output)
    )
    try:
        with capture(model, sites="head_z") as tape, torch.no_grad():
            model.module(**model.encode(CLEAN[:1]))
    finally:
        hook.remove()
    rows = list(part.rows) if isinstance(part.rows, tuple) else part.rows
    values = seen["v"][0, :, rows].unflatten(-1, (anatomy.n_kv_heads, anatomy.d_head))
    values = values.repeat_interleave(anatomy.n_heads // anatomy.n_kv_heads, dim=1)
    z = torch.einsum("hqk,khd->qhd", found.weights[layer], values)
    assert torch.allclose(z, tape["head_z"][layer, 0], atol=1e-4)


def test_the_models_own_attention_comes_back(chat) -> None:
    model = chat("llama")
    before = model.module.config._attn_implementation
    assert before == "sdpa"
    heads.patterns(model, CLEAN[0])
    assert model.module.config._attn_implementation == before
    with pytest.raises(ZeroDivisionError), eager_attention(model):  # noqa: PT012
        assert model.module.config._attn_implementation == "eager"
        raise ZeroDivisionError
    assert model.module.config._attn_implementation == before


def test_eager_attention_that_is_not_there(chat, tiny) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    attention = module.model.layers[1].self_attn

    class Silent(type(attention)):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)[0], None

    attention.__class__ = Silent
    model = ChatModel.from_parts(module, tokenizer, name="silent")
    with pytest.raises(UnsupportedModelError, match=r"eager attention is not available.*layers\.1"):
        heads.patterns(model, CLEAN[0])
    assert heads.patterns(model, CLEAN[0], layers=[0]).layers == (0,)

    class Fixed(type(module)):
        def _can_set_attn_implementation(self):
            return False

    module.__class__ = Fixed
    with pytest.raises(UnsupportedModelError, match="cannot switch"):
        heads.patterns(model, CLEAN[0], layers=[0])
    assert module.config._attn_implementation == "sdpa"


def test_the_planted_head_reads_the_mark() -> None:
    model, _, _ = planted()
    found = heads.tokens_read(model, ["#ick it", "go # by", "all of#"], [(1, 2), (0, 0)], most=2)
    first = found[found["layer"] == 1].iloc[0]
    assert first["token"] == "#"
    assert first["share"] > 0.99
    assert first["n"] == 3
    assert found[found["layer"] == 0]["share"].max() < 0.5
    one = heads.patterns(model, "#ick it", layers=1)
    assert one.tokens[int(one.head(1, 2)[-1].argmax())] == "#"
    with pytest.raises(InputError, match="was not read"):
        one.head(0, 0)
    with pytest.raises(InputError, match="no heads"):
        heads.tokens_read(model, CLEAN, [])
    with pytest.raises(InputError, match="inside every prompt"):
        heads.tokens_read(model, CLEAN, [(0, 0)], query=-80)


def test_saved_patterns_come_back_and_are_drawn(chat, tmp_path) -> None:
    model = chat("gpt2")
    found = heads.patterns(model, CLEAN[0])
    again = heads.Patterns.load(found.save(tmp_path / "patterns.safetensors"))
    assert torch.equal(again.weights, found.weights)
    assert again.tokens == found.tokens
    assert found.to_frame()["weight"].sum() == pytest.approx(2 * 4)
    plot = found.plot(1, 2, after=again)
    assert all(path.stat().st_size > 1000 for path in plot.save(tmp_path))
    with pytest.raises(InputError, match="different prompts"):
        found.plot(1, 2, after=heads.patterns(model, CLEAN[1]))


def test_the_page_opens_without_network(chat, tmp_path) -> None:
    import browser

    if browser.find() is None:
        pytest.skip("no Chromium on this machine")
    model = chat("llama")
    nasty = "</script><b>&\\"
    one, two = heads.patterns(model, nasty), heads.patterns(chat("llama", seed=2), nasty)
    path = one.page(tmp_path / "page.html", [(0, 1), (2, 3)], after=two)
    text = path.read_text(encoding="utf-8")
    assert "unpkg.com/circuitsvis" not in text
    with browser.browser() as tab:
        tab.call(
            "Network.emulateNetworkConditions",
            offline=True, latency=0, downloadThroughput=0, uploadThroughput=0,
        )  # fmt: skip
        tab.open(path)
        deadline = time.monotonic() + 60
        while tab.js("document.querySelectorAll('canvas').length") < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert tab.js("document.querySelectorAll('canvas').length") >= 4
        shown = tab.js("document.body.innerText")
        assert shown.count("0.1") >= 2
        assert "Head Selector" in shown
        assert tab.requests == [path.resolve().as_uri()]
        assert not [message for message in tab.messages if message.startswith(("exception", "error"))]
    assert path.stat().st_size < 2_000_000  # the library once, for both


def test_a_special_token_does_not_end_the_script(chat, tmp_path) -> None:
    found = heads.patterns(chat("llama"), CLEAN[0])
    tokens = ("</script>", "<!--<script>", *found.tokens[2:])
    bad = heads.Patterns(found.weights, found.layers, tokens, "</p><script>1", "<i>", found.fingerprint)
    text = bad.page(tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 1
    assert "<!--<script>" not in text
    assert "</p><script>1" not in text
    assert "<h2>&lt;i&gt;</h2>" in text
