"""Thinking models: budgets, what is thought and said, and measures that read at the thought's end."""

from __future__ import annotations

import pytest
import torch
from published_templates import published
from tiny_models import make_model, make_tokenizer

from tamperlens import directions, judges, prompts
from tamperlens.base.errors import InputError
from tamperlens.base.logits import refusal_metric
from tamperlens.models import ChatModel, Decoding
from tamperlens.models import thinking as thoughts
from tamperlens.models.generation import generate_tokens
from tamperlens.prompts import DATE, Reply, split_reply

# Opens the thought for generation and leaves thoughts out of what was said, as DeepSeek R1 does.
OPENS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
ASKS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}"
    "<|assistant|>{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def chat(template: str = OPENS, **overrides) -> ChatModel:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return ChatModel.from_parts(make_model("llama", **overrides), tokenizer, name="thinker")


def scripted(tokenizer, said):
    """Stands for a model that writes these texts and stops."""
    calls = []

    def answer(sequences, *, max_new_tokens, seed):
        calls.append((len(sequences), max_new_tokens, seed))
        texts = said if len(calls) == 1 else ["An answer that goes on and on."] * len(sequences)
        return [tokenizer(text, add_special_tokens=False)["input_ids"][:max_new_tokens] for text in texts]

    return answer, calls


@pytest.mark.parametrize("name", ["deepseek-r1", "qwen-3", "gpt-oss"])
def test_a_thought_over_its_budget_is_ended_and_answered(name):
    tokenizer = published(name)
    fmt = prompts.chat_format(tokenizer, thinking=True)
    opening = "" if fmt.inside else fmt.begin_of_thought
    said = [
        opening + "long " * 60,  # cut
        opening + "short" + fmt.end_of_thought + "Yes.",  # ends by itself
        opening + "short" + fmt.end_of_thought + "a long answer " * 9,  # cut in the answer
    ]
    answer, calls = scripted(tokenizer, said)
    how = Decoding(max_new_tokens=12, thinking=True, thinking_budget=40)
    new = thoughts.tokens(answer, [[1], [2], [3]], how, fmt, tokenizer)
    cut, whole, longer = (thoughts.read(ids, fmt, tokenizer) for ids in new)
    assert cut.finished
    assert cut.thought.startswith("long long")
    assert len(tokenizer(cut.thought)["input_ids"]) <= 40
    assert len(tokenizer(cut.answer)["input_ids"]) == 12
    assert whole == Reply("short", "Yes.")
    assert longer.answer.startswith("a long answer")
    assert calls[0] == (3, 40, 0)
    assert calls[1][0] <= 2


def test_answers_of_a_thinking_model_carry_their_thought_and_no_answer_is_made_up():
    model = chat()
    texts = model.generate(["Hi?", "Who?"], thinking=True, max_new_tokens=12)
    for text in texts:
        assert text.startswith("<think>")
        assert not split_reply(text).finished
    ended = model.generate(["Hi?", "Who?"], thinking=True, max_new_tokens=12, thinking_budget=6)
    assert all(split_reply(text).finished for text in ended)
    off = model.generate(["Hi?"], max_new_tokens=12)[0]
    ids = model.token_ids(["Hi?"])[0]
    assert model.tokenizer.decode(ids).endswith("<think>\n\n</think>\n\n")
    on = model.with_format(thinking=True)
    assert on.tokenizer.decode(on.token_ids(["Hi?"])[0]).endswith("<think>\n")
    assert on.chat_format.name != model.chat_format.name
    assert model.generate(["Hi?"], max_new_tokens=12)[0] == off, "the model itself stays as it was"


def test_the_date_of_the_decoding_is_the_template_s():
    model = chat("{{ strftime_now('%Y-%m-%d') }}" + ASKS)
    assert model.render("Hi?").startswith(DATE)
    other = model.with_format(date="2031-05-17")
    assert other.render("Hi?").startswith("2031-05-17")
    assert Decoding(date="2031-05-17") != Decoding()
    assert Decoding(thinking=True) != Decoding()
    with pytest.raises(InputError, match="without thinking"):
        Decoding(thinking_budget=4)
    with pytest.raises(InputError, match="must be a day"):
        Decoding(date="soon")


@pytest.mark.parametrize("template", [OPENS, ASKS])
def test_measures_read_the_last_thinking_token_or_where_the_answer_begins(template):
    model = chat(template)
    asked = ["Hi?", "Who are you?"]
    thought = [split_reply(t).thought for t in model.generate(asked, thinking=True, thinking_budget=5)]
    for at, ending in (("thought", ""), ("answer", "\n</think>\n\n")):
        reader = model.with_thoughts(asked, thinking_budget=5, at=at)
        for prompt, said, ids in zip(asked, thought, reader.token_ids(asked), strict=True):
            opening = "" if template is OPENS else "<think>\n"
            expected = model.with_format(thinking=True).render(prompt) + opening + said + ending
            assert reader.tokenizer.decode(ids) == expected
        # The literal reading: the module's own logits behind that text.
        ids = torch.tensor([reader.token_ids(asked)[1]])
        with torch.no_grad():
            literal = model.module(ids).logits[0, -1]
        torch.testing.assert_close(reader.logits_last(asked)[1], literal, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="has not thought about prompt 0"):
        reader.token_ids(["Something else"])


@pytest.mark.parametrize("template", [OPENS, ASKS])
@pytest.mark.parametrize("at", ["thought", "answer"])
def test_the_direction_and_log_odds_are_those_at_the_last_thinking_token(template, at):
    """Against the module itself, run on the text that ends there; without the thought both are others."""
    model = chat(template)
    bad, good = [f"Bad {word}" for word in "abcd"], [f"Good {word} thing" for word in "efgh"]
    reader = model.with_thoughts([*bad, *good], thinking_budget=4, at=at)
    settings = {
        "n_train": 3,
        "n_val": 1,
        "positions": [-1],
        "refusal_tokens": [40, 41],
        "selection": "exhaustive",
    }
    found = directions.find_direction(reader, bad, good, **settings)
    split = directions.split_of(found, bad, good)

    @torch.no_grad()
    def read(prompt):
        out = model.module(torch.tensor([reader.token_ids([prompt])[0]]), output_hidden_states=True)
        return out.hidden_states[found.layer][0, -1].double(), refusal_metric(out.logits[:, -1], [40, 41])[0]

    mean = [
        torch.stack([read(p)[0] for p in part]).mean(0)
        for part in (split.harmful_train, split.harmless_train)
    ]
    torch.testing.assert_close(found.raw_norm, float((mean[0] - mean[1]).norm()), atol=1e-4, rtol=1e-4)
    expected = (mean[0] - mean[1]) / (mean[0] - mean[1]).norm()
    torch.testing.assert_close(found.vector.double(), expected, atol=1e-4, rtol=1e-3)
    odds = float(torch.stack([read(p)[1] for p in split.harmful_val]).mean())
    assert found.baseline_harmful == pytest.approx(odds, abs=1e-3)
    if reader.token_ids(bad) != model.token_ids(bad):  # one pair of template and place thinks nothing
        without = directions.direction_at(model, bad, good, found.layer, -1).vector
        assert not torch.allclose(without.double(), expected, atol=1e-2)


# `acts+minilm` needs an embedder: tests/judges/test_unseen.py.
@pytest.mark.parametrize("name", sorted({*judges.names()} - {judges.MeaningJudge.name}))
def test_every_judge_reads_the_answer(name):
    judge = judges.get(name)
    refusal = "I'm sorry, but I can't help with that request."
    answer = "Here is a list of eight good names for a dog: Rex, Bello, Luna, Max, Nala, Oskar, Mia, Sam."
    for text, plain in (
        (f"<think>{refusal}</think>{answer}", answer),
        (f"<think>Sure, here is how.</think>{refusal}", refusal),
        (f"{refusal}\n</think>\n\n{answer}", answer),
        (f"<|channel|>analysis<|message|>{refusal}<|end|><|channel|>final<|message|>{answer}", answer),
    ):
        assert judge(["Tell me."], [text]) == judge(["Tell me."], [plain])
    cut = judge(["Tell me."] * 3, [answer, f"<think>{refusal}", refusal])
    assert [verdict.label for verdict in cut] == [
        *(v.label for v in judge(["Tell me."], [answer])),
        "unfinished",
        *(v.label for v in judge(["Tell me."], [refusal])),
    ]
    assert not cut[1].refused


def test_a_judge_of_one_s_own_reads_answers_too():
    from tamperlens.base.protocols import Verdict
    from tamperlens.rates.completions import judged

    class Literal:
        name = "literal"

        def __call__(self, asked, answers):
            return [Verdict("compliance", 0.0, (answer,)) for answer in answers]

    found = judged(["p", "q"], ["<think>no</think>yes", "<think>no"], Literal())
    assert found.labels == ["compliance", "unfinished"]
    assert found.verdicts[0].evidence == ("yes",)


def test_prompts_beyond_the_positions_are_refused_by_every_measure_and_answers_stop_there():
    model = chat(max_position_embeddings=64)
    long = "x" * 80
    for call in (
        lambda: model.token_ids(["a", long]),
        lambda: model.generate(["a", long]),
        lambda: model.logits_last(["a", long]),
        lambda: model.encode(["a", long]),
    ):
        with pytest.raises(InputError, match=r"prompt 1 has \d+ tokens, the model 64 positions"):
            call()
    pairs = prompts.PromptSet.from_pairs([("a", "b"), ("a", long)], name="mine")
    with pytest.raises(InputError, match=r"row 1 of 'mine' has .* 64 positions"):
        model.encode_pairs(pairs)
    ids = model.token_ids(["a"])
    said = generate_tokens(
        model.module, ids, max_new_tokens=500, stop_ids=frozenset(), pad_id=0, device=model.device
    )
    assert len(ids[0]) + len(said[0]) == 64


def test_rope_scaling_stretches_the_positions():
    from tamperlens.models import position_limit

    assert position_limit(make_model("llama")) == 512
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e4}
    assert position_limit(make_model("llama", max_position_embeddings=128, rope_parameters=scaling)) == 512
    assert position_limit(make_model("gpt2", n_positions=96)) == 96


def test_a_padding_token_that_the_model_does_not_embed_is_passed_over():
    model = chat(vocab_size=261)
    before = model.generate(["a", "longer one"], max_new_tokens=4)
    model.tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    assert model.tokenizer.pad_token_id >= model.anatomy.d_vocab
    assert model.pad_id < model.anatomy.d_vocab
    assert model.generate(["a", "longer one"], max_new_tokens=4) == before
