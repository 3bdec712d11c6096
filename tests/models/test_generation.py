"""Batched generation is one-by-one generation, in every family, and leaves no trace."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import FAMILIES

from tamperlens.base.errors import InputError, NumericsError
from tamperlens.models import ChatModel, generation

# Lengths differ, and two prompts are longer than the sliding window (24) of the families that have one.
PROMPTS = [
    "hello",
    "How do I open a door that has no handle on this side?",
    "x" * 70,
    "what is 12 + 7?",
    "ünïcode ✓",
]
NEW = 10


def literal_answers(model: ChatModel, literally: Any, prompts: list[str], most: int = NEW) -> list[list[int]]:
    return [literally(model.module, ids, most, model.stop_ids) for ids in model.token_ids(prompts)]


def batched(model: ChatModel, prompts: list[str], most: int = NEW, **settings: Any) -> list[list[int]]:
    return generation.generate_tokens(
        model.module,
        model.token_ids(prompts),
        max_new_tokens=most,
        stop_ids=model.stop_ids,
        pad_id=model.pad_id,
        device=model.device,
        **settings,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_is_the_literal_definition(family: str, chat: Any, literally: Any) -> None:
    model = chat(family)
    assert max(map(len, model.token_ids(PROMPTS))) > 60
    expected = literal_answers(model, literally, PROMPTS)
    assert batched(model, PROMPTS) == expected
    assert batched(model, PROMPTS, batch_size=2) == expected
    assert len({tuple(tokens) for tokens in expected}) > 3, (
        "answers must depend on the prompt for this to test"
    )


def test_text_batched_is_text_alone(chat: Any) -> None:
    model = chat("gemma3_text")
    alone = [model.generate([prompt], max_new_tokens=NEW)[0] for prompt in PROMPTS]
    assert model.generate(PROMPTS, max_new_tokens=NEW) == alone


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("gpt2", {"tie_word_embeddings": True}),
        ("gemma2", {"sliding_window": 6}),
        ("gemma3_text", {"sliding_window": 6}),
        ("mistral", {"sliding_window": 6}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        ("phi3", {"sliding_window": 10}),
        ("llama", {"use_cache": False}),
    ],
)
def test_variants(family: str, settings: dict[str, Any], chat: Any, literally: Any) -> None:
    model = chat(family, **settings)
    assert batched(model, PROMPTS) == literal_answers(model, literally, PROMPTS)


def test_rows_that_end_early_leave_the_batch(chat: Any, literally: Any) -> None:
    """Many stop tokens, so that the batch shrinks again and again."""
    model = chat("llama", seed=5)
    model._stop_ids = frozenset(range(5, 264, 9))
    rng = random.Random(0)
    prompts = ["".join(rng.choices("abcdefgh ", k=rng.randint(1, 40))) for _ in range(16)]
    expected = literal_answers(model, literally, prompts, 20)
    lengths = {len(tokens) for tokens in expected}
    assert len(lengths) > 4
    assert {0, 20} <= lengths
    widths: list[int] = []
    hook = model.module.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        assert batched(model, prompts, 20) == expected
    finally:
        hook.remove()
    assert widths[0] == 16
    assert widths[-1] < 9


def test_with_an_adapter(chat: Any, tiny: Any, literally: Any) -> None:
    model = chat("qwen2")
    before = batched(model, PROMPTS)
    wrapped = get_peft_model(copy.deepcopy(model.module), LoraConfig(r=4, target_modules="all-linear")).eval()
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned = model.with_module(wrapped)
    assert tuned.anatomy is model.anatomy
    expected = literal_answers(tuned, literally, PROMPTS)
    assert batched(tuned, PROMPTS) == expected != before


def test_stops_at_every_declared_end(tiny: Any, literally: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer)
    free = literally(module, model.token_ids(PROMPTS[:1])[0], 12, frozenset())
    third = free[3]
    module.generation_config.eos_token_id = [263, third]
    model = ChatModel.from_parts(module, tokenizer)
    assert {263, third, tokenizer.eos_token_id} <= model.stop_ids
    assert batched(model, PROMPTS[:1], 12) == [free[: free.index(third)]]


def test_prefill_and_system(chat: Any, literally: Any) -> None:
    model = chat("llama")
    ids = model.token_ids(["hi"], system="Be brief.", prefill="Sure, ")[0]
    text = model.tokenizer.decode(ids)
    assert text == "<|bos|>Be brief.<|end|><|user|>hi<|end|><|assistant|>Sure, "
    new = literally(model.module, ids, 8, model.stop_ids)
    answer = model.generate(["hi"], max_new_tokens=8, system="Be brief.", prefill="Sure, ")
    assert answer == [model.tokenizer.decode(ids + new, skip_special_tokens=True).partition("Sure, ")[2]]
    assert answer != model.generate(["hi"], max_new_tokens=8)


def test_answers_hold_no_special_tokens(chat: Any) -> None:
    model = chat("gemma")
    model._stop_ids = frozenset({260})  # go on over the end token
    for answer in model.generate(PROMPTS, max_new_tokens=60):
        assert "<|" not in answer
        assert answer == answer.strip()


def test_progress_bar(chat: Any) -> None:
    model = chat("llama")
    plain = model.generate(PROMPTS, max_new_tokens=2)
    assert model.generate(PROMPTS, max_new_tokens=2, batch_size=2, progress=True) == plain


def test_no_prompts(chat: Any) -> None:
    model = chat("llama")
    assert model.generate([]) == []
    for method in (model.encode, model.logits_last):
        with pytest.raises(InputError, match="no prompts"):
            method([])


def test_plain_format_stops_at_the_next_turn(tiny: Any) -> None:
    module, _ = tiny("llama")
    from tiny_models import make_tokenizer

    model = ChatModel.from_parts(module, make_tokenizer(None))
    assert model.chat_format.name.startswith("plain")
    assert any("no chat template" in note for note in model.notes)
    assert model._own(" Yes.\n\nUser: and now?") == " Yes.\n"
    # Gemma's base model writes "Assistant:" again and again.
    assert model._own(" Yes.\nAssistant: Yes.\nUser: no") == " Yes."
    assert model._own("The Assistant: a story\nUsers: many") == "The Assistant: a story\nUsers: many"


# ---- sampling ----------------------------------------------------------------------------------------------


def test_samples_do_not_depend_on_the_batch(chat: Any) -> None:
    model = chat("mistral")
    whole = batched(model, PROMPTS, temperature=1.0, seed=7)
    assert batched(model, PROMPTS, temperature=1.0, seed=7, batch_size=2) == whole
    assert batched(model, PROMPTS[:3], temperature=1.0, seed=7) == whole[:3]
    assert batched(model, PROMPTS, temperature=1.0, seed=8) != whole
    assert batched(model, PROMPTS) != whole
    twice = batched(model, [PROMPTS[0]] * 2, temperature=1.0, seed=7)
    assert twice[0] != twice[1], "the same prompt twice must be two draws"


def test_sampling_leaves_the_global_generator_alone(chat: Any) -> None:
    model = chat("llama")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model.generate(PROMPTS, max_new_tokens=4, temperature=0.7)
    assert torch.equal(torch.get_rng_state(), state)


def test_samples_follow_the_softmax(chat: Any) -> None:
    model = chat("llama")
    n, temperature = 4000, 0.8
    probabilities = torch.softmax(model.logits_last(["hello"])[0].double() / temperature, -1)
    first = generation._uniforms(list(range(n)), 1, 0)[:, 0]
    logits = model.logits_last(["hello"]).expand(n, -1)
    drawn, _ = generation._choose(logits, temperature, first)
    counts = torch.bincount(drawn, minlength=len(probabilities)).double()
    often = probabilities * n > 20
    z = (counts - n * probabilities)[often] / (n * probabilities * (1 - probabilities))[often].sqrt()
    assert int(often.sum()) >= 5
    assert float(z.abs().max()) < 4.5
    rare = float(counts[~often].sum()), float(probabilities[~often].sum())
    assert rare[0] == pytest.approx(n * rare[1], abs=5 * (n * rare[1]) ** 0.5 + 5)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_temperature_must_make_sense(bad: float, chat: Any) -> None:
    with pytest.raises(InputError, match="temperature"):
        chat("llama").generate(["a"], temperature=bad)


# ---- logits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_last(family: str, chat: Any) -> None:
    model = chat(family)
    got = model.logits_last(PROMPTS, batch_size=3)
    assert got.shape == (len(PROMPTS), 264)
    assert got.dtype == torch.float32
    with torch.no_grad():
        for row, ids in zip(got, model.token_ids(PROMPTS), strict=True):
            want = model.module(input_ids=torch.tensor([ids])).logits[0, -1]
            torch.testing.assert_close(row, want, atol=1e-5, rtol=1e-5)


def test_encode_is_ready_for_the_module(chat: Any) -> None:
    model = chat("gpt2")
    batch = model.encode(PROMPTS)
    assert set(batch) == {"input_ids", "attention_mask", "position_ids"}
    lengths = [len(ids) for ids in model.token_ids(PROMPTS)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert bool((batch["attention_mask"][:, -1] == 1).all()), "left padding"
    assert (batch["position_ids"][:, -1] + 1).tolist() == lengths
    with torch.no_grad():
        logits = model.module(**batch).logits[:, -1]
    torch.testing.assert_close(logits, model.logits_last(PROMPTS), atol=1e-5, rtol=1e-5)


# ---- memory, limits, broken numbers ------------------------------------------------------------------------


def test_backs_off_when_memory_runs_out(chat: Any) -> None:
    model = chat("llama")
    expected = batched(model, PROMPTS)
    tried: list[int] = []

    def small_memory(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        tried.append(len(kwargs["input_ids"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = model.module.register_forward_pre_hook(small_memory, with_kwargs=True)
    try:
        assert batched(model, PROMPTS) == expected
        assert tried[:3] == [5, 2, 2]
    finally:
        hook.remove()


def test_one_prompt_that_does_not_fit_is_named(chat: Any) -> None:
    model = chat("llama")

    def no_memory(module: Any, args: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    hook = model.module.register_forward_pre_hook(no_memory)
    try:
        with pytest.raises(InputError, match=r"prompt 2 .* does not fit"):
            batched(model, PROMPTS)
    finally:
        hook.remove()


def test_other_errors_pass_through(chat: Any) -> None:
    model = chat("llama")

    def broken(module: Any, args: Any) -> None:
        raise RuntimeError("something else")

    hook = model.module.register_forward_pre_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="something else"):
            batched(model, PROMPTS)
    finally:
        hook.remove()


def test_absolute_positions_end(tiny: Any, literally: Any) -> None:
    """GPT-2 cannot go beyond its table of positions: answers end there, longer prompts are refused."""
    module, tokenizer = tiny("gpt2", n_positions=64)
    model = ChatModel.from_parts(module, tokenizer, name="short")
    ids = model.token_ids(["x" * 50])[0]
    assert batched(model, ["x" * 50], 40) == [literally(module, ids, 64 - len(ids), model.stop_ids)]
    with pytest.raises(InputError, match=r"prompt 1 has \d+ tokens, the model 64 positions"):
        model.generate(["a", "x" * 90])


def test_broken_numbers_name_the_prompt(tiny: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer)
    module.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("z")] = float("nan")
    prompts = ["short", "a longer prompt, which is sorted first", "puzzle", "last one"]
    with pytest.raises(NumericsError, match="prompt 2"):
        model.generate(prompts, max_new_tokens=3)
    with pytest.raises(NumericsError, match="prompt 2"):
        model.logits_last(prompts)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"prompts": "one string"}, "got one string"),
        ({"prompts": ["a"], "max_new_tokens": 0}, "max_new_tokens"),
        ({"prompts": ["a"], "batch_size": 0}, "batch_size"),
    ],
)
def test_bad_calls(call: dict[str, Any], words: str, chat: Any) -> None:
    with pytest.raises(InputError, match=words):
        chat("llama").generate(**call)


def test_token_without_embedding(tiny: Any) -> None:
    module, tokenizer = tiny("llama", vocab_size=100)
    model = ChatModel.from_parts(module, tokenizer, name="narrow")
    with pytest.raises(InputError, match=r"prompt 1 has token \d+ and narrow embeds 100"):
        model.generate(["!", "ÿ"])


# ---- no trace ----------------------------------------------------------------------------------------------


def test_nothing_is_changed(tiny: Any) -> None:
    module, tokenizer = tiny("llama", fresh=True)
    model = ChatModel.from_parts(module, tokenizer)
    module.train()
    module.model.layers[1].eval()
    module.config.use_cache = False
    module.generation_config.temperature, module.generation_config.do_sample = 0.6, True
    tokenizer.padding_side = "right"
    flags = {name: part.training for name, part in module.named_modules()}
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    before = (module.config.to_dict(), module.generation_config.to_dict(), repr(tokenizer))
    fingerprint = model.fingerprint
    grads = {name: p.requires_grad for name, p in module.named_parameters()}

    first = model.generate(PROMPTS, max_new_tokens=6)
    model.logits_last(PROMPTS)
    with pytest.raises(InputError):
        model.generate(["a"], max_new_tokens=0)

    assert {name: part.training for name, part in module.named_modules()} == flags
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    assert (module.config.to_dict(), module.generation_config.to_dict(), repr(tokenizer)) == before
    assert {name: p.requires_grad for name, p in module.named_parameters()} == grads
    assert all(p.grad is None for p in module.parameters())
    assert model.fingerprint == fingerprint
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert torch.is_grad_enabled()
    module.eval()
    assert model.generate(PROMPTS, max_new_tokens=6) == first, "greedy whatever generation_config says"
