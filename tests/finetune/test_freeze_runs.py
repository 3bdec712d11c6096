"""freeze= and rewind(): the merged weight holds the base's bits, through training, saving and loading."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import tamperlens
from tamperlens import finetune
from tamperlens.base.errors import InputError
from tamperlens.base.masks import WeightMask
from tamperlens.finetune.freezing import check_freeze
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet

DATA = PromptSet.from_pairs([(f"say {i}", f"word {i * 7}") for i in range(8)], name="words")
INTS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
LORA = finetune.LoraConfig(
    steps=3, learning_rate=2e-2, batch_size=2, accumulation=2, weight_decay=0.1, gradient_checkpointing=True
)


def chat(tiny, family: str, dtype=torch.float32, seed: int = 3) -> ChatModel:
    module, tokenizer = tiny(family, dtype=dtype, seed=seed)
    return ChatModel.from_parts(module, tokenizer, name=f"tiny {family}")


def random_mask(model: ChatModel, share: float = 0.3) -> WeightMask:
    generator = torch.Generator().manual_seed(0)
    names = {part.parameter for part in model.anatomy.projections()}
    flags = {
        name: torch.rand(model.module.get_parameter(name).shape, generator=generator) < share
        for name in sorted(names)
    }
    return WeightMask.from_tensors(model, flags)


def assert_held(tuned: finetune.TunedModel, base: ChatModel, mask: WeightMask) -> None:
    """As ints, in fp32 (merged_state_dict) and in the base's own type (merged_model)."""
    merged = tuned.merged_state_dict()
    again = dict(tuned.merged_model().module.named_parameters())
    for name, flags in mask.items():
        old, new = base.module.get_parameter(name).detach(), merged[name]
        assert torch.equal(new.view(torch.int32)[flags], old.float().view(torch.int32)[flags])
        held = again[name].detach().contiguous()
        kind = INTS[old.dtype]
        assert torch.equal(held.view(kind)[flags], old.contiguous().view(kind)[flags])
        assert not torch.equal(new[~flags], old.float()[~flags])


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", torch.float32), ("llama", torch.bfloat16), ("gpt2", torch.float32), ("phi3", torch.float32)],
)
def test_lora(tiny, tmp_path, family: str, dtype: torch.dtype) -> None:
    base = chat(tiny, family, dtype)
    mask, before = random_mask(base), base.fingerprint
    tuned = finetune.run(base, DATA, LORA, freeze=mask, progress=False)
    assert tuned.frozen is mask
    assert_held(tuned, base, mask)
    folder = tuned.save(tmp_path / "tuned")
    loaded = finetune.TunedModel.load(folder, base)
    assert_held(loaded, base, mask)
    assert loaded.frozen == mask
    for name, weight in tuned.merged_state_dict().items():
        assert torch.equal(loaded.merged_state_dict()[name], weight)
    assert "WARNING: plain PEFT" in (folder / "FROZEN.txt").read_text()
    assert dataclasses.replace(base, _fingerprint=None).fingerprint == before


def test_plain_peft_reads_the_folder_and_loses_the_mask(tiny, tmp_path) -> None:
    from peft import PeftModel

    base = chat(tiny, "llama")
    tuned = finetune.run(base, DATA, LORA, freeze=random_mask(base), progress=False)
    folder = tuned.save(tmp_path / "tuned")
    by_us = tamperlens.models.attach_adapter(base, folder)
    ids = torch.randint(5, 200, (1, 9))
    with torch.no_grad():
        expected = tuned.model.module(input_ids=ids).logits
        torch.testing.assert_close(by_us.module(input_ids=ids).logits, expected)
        plain = PeftModel.from_pretrained(tiny("llama", seed=3)[0], str(folder)).eval()
        assert (plain(input_ids=ids).logits - expected).abs().max() > 1e-3
    assert by_us.fingerprint == tuned.model.fingerprint
    assert by_us.fingerprint != base.with_module(plain).fingerprint


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_full(tiny, tmp_path, dtype: torch.dtype) -> None:
    base = chat(tiny, "gpt2", dtype)
    mask = random_mask(base)
    config = finetune.FullConfig(steps=3, learning_rate=1e-2, batch_size=2, weight_decay=0.5, accumulation=2)
    tuned = finetune.run(base, DATA, config, freeze=mask, progress=False)
    assert_held(tuned, base, mask)
    loaded = finetune.TunedModel.load(tuned.save(tmp_path / "full"), base)
    assert_held(loaded, base, mask)


def test_rewind(tiny) -> None:
    """The rewound weights are the freely tuned ones outside the mask and the base's inside."""
    base = chat(tiny, "llama")
    mask = random_mask(base)
    for config in (LORA, finetune.FullConfig(steps=2, learning_rate=1e-2, batch_size=2)):
        tuned = finetune.run(base, DATA, config, progress=False)
        free = tuned.merged_state_dict()
        back = finetune.rewind(tuned, base, mask)
        assert_held(back, base, mask)
        for name, weight in back.merged_state_dict().items():
            outside = ~mask[name] if name in mask else torch.ones_like(weight, dtype=torch.bool)
            assert torch.equal(weight[outside], free[name][outside])
        assert all(torch.equal(w, free[n]) for n, w in tuned.merged_state_dict().items())


def test_freezing_is_not_rewinding(tiny) -> None:
    base = chat(tiny, "llama")
    mask = random_mask(base, 0.5)
    frozen = finetune.run(base, DATA, LORA, freeze=mask, progress=False).merged_state_dict()
    back = finetune.rewind(finetune.run(base, DATA, LORA, progress=False), base, mask).merged_state_dict()
    name = next(iter(mask.keys()))
    assert (frozen[name] - back[name]).abs().max() > 1e-4


def test_a_frozen_run_is_another_run(tiny, tmp_path) -> None:
    base = chat(tiny, "llama")
    mask = random_mask(base)
    first = finetune.run(base, DATA, LORA, freeze=mask, out=tmp_path / "run", progress=False)
    again = finetune.run(base, DATA, LORA, freeze=mask, out=tmp_path / "run", progress=False)
    assert_held(again, base, mask)
    assert again.model.fingerprint == first.model.fingerprint
    with pytest.raises(tamperlens.errors.RunFolderError):
        finetune.run(base, DATA, LORA, out=tmp_path / "run", progress=False)


def test_refusals(tiny) -> None:
    base, other = chat(tiny, "llama"), chat(tiny, "llama", seed=4)
    mask = random_mask(other)
    with pytest.raises(InputError, match="made for"):
        finetune.run(base, DATA, LORA, freeze=mask, progress=False)
    with pytest.raises(InputError, match="WeightMask"):
        check_freeze(base, {"a": 1})
    own, dora = random_mask(base), dataclasses.replace(LORA, dora=True, steps=1)
    with pytest.raises(InputError, match="DoRA rescales whole rows"):
        finetune.run(base, DATA, dora, freeze=own, progress=False)
    with pytest.raises(InputError, match="DoRA rescales whole rows"):
        finetune.rewind(finetune.run(base, DATA, dora, progress=False), base, own)
