"""Edges against the slope of adding a sender's write to one receiver's input and to nothing else."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from head_examples import CLEAN, CORRUPT, RESPONSIBLE, planted

from tamperlens import heads
from tamperlens.base.errors import InputError, UnsupportedModelError
from tamperlens.hooks import capture, head_output_weight

TOKENS = {"target": "refusal_tokens", "refusal_tokens": [70, 80]}
CLEAN_IDS, CORRUPT_IDS = CLEAN[:1], CORRUPT[:1]


def slope(model, sender: str, path: str, steps: int) -> float:
    """Central differences, in double precision, at each point of the path; then their mean."""
    goal = heads.resolve_target(model, **TOKENS)
    inputs, other = model.encode(CLEAN_IDS), model.encode(CORRUPT_IDS)
    table = model.module.get_submodule(model.anatomy.embedding)
    seen = []
    for one in (inputs, other):
        with capture(model, sites=["mlp_out", "head_z"]) as tape, torch.no_grad():
            model.module(**one)
        if sender.startswith("mlp"):
            seen.append(tape["mlp_out"][int(sender.split()[1])])
        else:
            layer, head = map(int, sender.split("."))
            seen.append(tape["head_z"][layer, :, :, head] @ head_output_weight(model, layer, head).T)
    write = seen[0] - seen[1]
    start, end = (table(one["input_ids"]).detach() for one in (other, inputs))
    found = []
    for k in range(1, steps + 1):
        mixed = start + k / steps * (end - start)
        ends = []
        for size in (0.01, -0.01):
            hooks = [
                table.register_forward_hook(lambda *_, value=mixed: value),
                model.module.get_submodule(path).register_forward_pre_hook(
                    partial(lambda step, _module, args: (args[0] + step, *args[1:]), size * write)
                ),
            ]
            with torch.no_grad():
                ends.append(float(goal.read(model, inputs)[0]))
            for hook in hooks:
                hook.remove()
        found.append((ends[0] - ends[1]) / 0.02)
    return sum(found) / steps


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_edge_is_the_slope_of_its_write_in_one_receiver(chat, family: str) -> None:
    model = chat(family, dtype=torch.float64)
    found = heads.edges(model, CLEAN_IDS, corrupt=CORRUPT_IDS, steps=2, **TOKENS)
    at, to = found.senders.index, found.receivers.index
    last = model.n_layers - 1
    paths = {
        f"attention {last}": model.anatomy.attention_norms[last],
        f"mlp {last}": model.anatomy.mlp_norms[last],
        "logits": model.anatomy.final_norm,
    }
    for sender in ("0.1", "mlp 0"):
        for receiver, path in paths.items():
            expected = slope(model, sender, path, 2)
            edge = float(found.scores[at(sender), to(receiver)])
            assert edge == pytest.approx(expected, rel=3e-3, abs=1e-5)
    assert float(found.scores[at("0.1"), to("attention 0")]) == 0  # not behind the sender
    assert float(found.scores[at("0.1"), to("mlp 0")]) != 0  # but the same block's MLP is
    one = heads.edges(model, CLEAN_IDS, corrupt=CORRUPT_IDS, steps=1, **TOKENS)
    assert (one.scores - found.scores).abs().max() > 1e-4
    # At the same points a head's edges, the one to the logits among them, are all that its z can do.
    whole = heads.attribute(model, CLEAN_IDS, corrupt=CORRUPT_IDS, method="integrated", steps=2, **TOKENS)
    summed = found.scores[1 + model.n_layers :].sum(1).reshape(whole.scores.shape)
    assert torch.allclose(summed, whole.scores, atol=1e-5)
    inner = found.through(model)
    direct = found.scores[1 + model.n_layers :, to("logits")].reshape(whole.scores.shape)
    assert torch.allclose(inner.scores, whole.scores - direct, atol=1e-5)


def test_edges_say_through_what_the_planted_head_acts() -> None:
    model, _, answer = planted()
    clean, corrupt = ["#ick it", "go # by", "all of#"], ["pick it", "go a by", "all of."]
    found = heads.edges(model, clean, corrupt=corrupt, refusal_tokens=[answer])
    # It writes the answer itself: its edge to the logits is the strongest that any head has, and far above
    # what it does through later blocks.
    own = f"{RESPONSIBLE[0]}.{RESPONSIBLE[1]}"
    frame = found.to_frame()
    of_heads = frame[frame["sender"].str.contains(".", regex=False)]
    best = of_heads.loc[of_heads["score"].idxmax()]
    assert (best["sender"], best["receiver"]) == (own, "logits")
    assert abs(float(found.through(model).scores[RESPONSIBLE])) < 0.1 * best["score"]
    assert "EAP-IG (n=3)" in found.summary()


def test_bad_input(chat, direction) -> None:
    model = chat("llama")
    with pytest.raises(InputError, match="steps=0"):
        heads.edges(model, CLEAN, corrupt=CORRUPT, steps=0, **TOKENS)
    inside = heads.resolve_target(model, "refusal_direction", direction=direction(model), layer=2)
    with pytest.raises(InputError, match="read from the logits"):
        heads.edges(model, CLEAN, corrupt=CORRUPT, target=inside)
    with pytest.raises(InputError, match="does not align"):
        heads.edges(model, CLEAN, corrupt=["x", "y", "z"], **TOKENS)
    with pytest.raises(UnsupportedModelError, match="path"):
        heads.edges(chat("gemma2"), CLEAN, corrupt=CORRUPT, **TOKENS)
