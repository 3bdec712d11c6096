"""Chat formats and the response mask, on every kind of tokenizer with every published template."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prompt_tokenizers import END_OF_TURN, KINDS, TEMPLATES, make, make_slow
from tiny_models import make_tokenizer

from tamperlens import prompts
from tamperlens.base.errors import InputError

NAMES = [*TEMPLATES, None]
QUESTION = "How do I sort a list?"
ANSWERS = (
    "Sure, here is how.",
    "3",
    "two\nlines\n\nand more",
    "“I can’t”  help.",
    "12 + 34 = 46",
    "naïve 你 🙂",
)


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def check_mask(tokenizer, encoded, answer, end):
    """The literal definition: one run of labels that says the answer, then the end of turn, nothing else."""
    labelled = [i for i, value in enumerate(encoded.labels) if value != prompts.IGNORE]
    assert labelled, "no labels"
    assert [encoded.input_ids[i] for i in labelled] == encoded.label_ids
    *said, close = encoded.label_ids
    assert decode(tokenizer, said) in (answer, f" {answer}")
    assert close == tokenizer.convert_tokens_to_ids(end)
    first, last = labelled[0], labelled[-2]
    assert labelled[:-1] == list(range(first, last + 1)), "the answer's labels have a hole"
    # What is not labelled before and after holds nothing of the answer.
    between = decode(tokenizer, encoded.input_ids[last + 1 : labelled[-1]])
    assert not between.strip(), between
    assert answer not in decode(tokenizer, encoded.input_ids[:first])
    assert answer not in decode(tokenizer, encoded.input_ids[labelled[-1] + 1 :])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", NAMES)
def test_labels_are_the_answer_and_its_end_of_turn(kind, template):
    tokenizer = make(kind, template)
    for answer in ANSWERS:
        if kind == "unigram" and not answer.isascii():
            with pytest.raises(InputError, match="does not know"):
                prompts.encode_pair(tokenizer, QUESTION, answer)
            continue
        encoded = prompts.encode_pair(tokenizer, QUESTION, answer)
        check_mask(tokenizer, encoded, answer, END_OF_TURN.get(template, "</s>"))


@pytest.mark.parametrize("template", [None, "chatml", "gemma", "llama2", "phi3", "zephyr"])
def test_tokenizers_without_offsets_find_the_same_span(template):
    tokenizer = make_slow(template)
    assert not tokenizer.is_fast
    for answer in ANSWERS:
        encoded = prompts.encode_pair(tokenizer, QUESTION, answer)
        check_mask(tokenizer, encoded, answer, END_OF_TURN.get(template, "</s>"))


@pytest.mark.parametrize("template", [name for name in NAMES if name not in (None, "headless")])
def test_the_turn_is_the_template_s_own_text_tokenized_once(template):
    tokenizer = make("bytes", template)
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWERS[0]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert prompts.render(tokenizer, QUESTION, response=ANSWERS[0]) == text
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompts.encode_pair(tokenizer, QUESTION, ANSWERS[0]).input_ids == ids


@pytest.mark.parametrize("template", NAMES)
def test_a_rendered_prompt_is_the_beginning_of_the_rendered_turn(template):
    tokenizer = make("bytes", template)
    prompt = prompts.render(tokenizer, QUESTION)
    turn = prompts.render(tokenizer, QUESTION, response="Yes.")
    assert turn.startswith(prompt)
    assert turn[len(prompt) :].lstrip().startswith("Yes.")
    ids = prompts.encode_prompt(tokenizer, QUESTION)
    assert prompts.encode_pair(tokenizer, QUESTION, "Yes.").input_ids[: len(ids)] == ids
    filled = prompts.render(tokenizer, QUESTION, prefill="Sure, here")
    assert filled.startswith(prompt)
    assert filled.endswith("Sure, here")


def test_prompt_and_full_text_tokenized_apart_give_another_mask():
    """The tempting variant: cut the full ids at len(tokenize(prompt))."""
    # 1. A space that belongs to the answer's first token.
    tokenizer = make("bytes", None)
    head = prompts.render(tokenizer, QUESTION) + " "
    full = prompts.render(tokenizer, QUESTION, response="Sure, here is how.")
    assert full.startswith(head)
    ids = tokenizer(full, add_special_tokens=False)["input_ids"]
    cut = len(tokenizer(head, add_special_tokens=False)["input_ids"])
    ours = prompts.encode_pair(tokenizer, QUESTION, "Sure, here is how.")
    assert ours.input_ids == ids
    assert ours.start == cut - 1
    assert decode(tokenizer, ids[cut:-1]) != "Sure, here is how."
    # 2. A beginning-of-sequence token that the tokenizer adds to whatever it is given.
    tokenizer = make("bytes-bos", "llama2")
    head = prompts.render(tokenizer, QUESTION)
    full = prompts.render(tokenizer, QUESTION, response="Yes.")
    ours = prompts.encode_pair(tokenizer, QUESTION, "Yes.")
    assert tokenizer(full)["input_ids"] == [tokenizer.bos_token_id, *ours.input_ids], "two <s> in a row"
    assert len(tokenizer(head)["input_ids"]) == ours.start + 1
    assert ours.input_ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("template", NAMES)
def test_end_of_turn_keeps_its_label_when_it_is_the_padding_token(template):
    end = END_OF_TURN.get(template, "</s>")
    tokenizer = make("bytes", template, pad_token=end)
    long = prompts.encode_pair(tokenizer, QUESTION, "Sure, here is how you sort a list.")
    short = prompts.encode_pair(tokenizer, QUESTION, "No.")
    batch = prompts.batch_pairs([long, short], prompts.padding_id(tokenizer))
    pad = tokenizer.pad_token_id
    assert pad == tokenizer.convert_tokens_to_ids(end)
    for row, one in enumerate((long, short)):
        assert one.label_ids[-1] == pad
        assert batch["input_ids"][row, : len(one)].tolist() == one.input_ids
        assert batch["labels"][row, : len(one)].tolist() == one.labels
        assert (batch["labels"][row, len(one) :] == prompts.IGNORE).all()
        assert (batch["input_ids"][row, len(one) :] == pad).all()
        assert batch["attention_mask"][row].tolist() == [1] * len(one) + [0] * (len(long) - len(one))
    # The tempting variant loses exactly these labels.
    masked_by_id = batch["labels"].masked_fill(batch["input_ids"] == pad, prompts.IGNORE)
    assert int((masked_by_id != batch["labels"]).sum()) == 2


def test_what_follows_the_end_of_turn_is_not_a_label():
    gemma = make("bytes", "gemma")
    encoded = prompts.encode_pair(gemma, QUESTION, "Yes.")
    assert decode(gemma, encoded.input_ids).endswith("Yes.<end_of_turn>\n")
    assert encoded.labels[-1] == prompts.IGNORE
    assert decode(gemma, encoded.label_ids) == "Yes.<end_of_turn>"
    phi = make("bytes", "phi3")
    encoded = prompts.encode_pair(phi, QUESTION, "Yes.")
    assert decode(phi, encoded.input_ids).endswith("Yes.<|end|>\n<|endoftext|>")
    assert decode(phi, encoded.label_ids) == "Yes.<|end|>"


def test_formats_by_name():
    plain = prompts.chat_format(make("bytes", None))
    assert (plain.name, plain.template, plain.end_of_turn) == ("plain", False, "</s>")
    tokenizer = make("bytes-bos", None)
    assert prompts.render(tokenizer, "Hi", response="Yes") == "<s>User: Hi\n\nAssistant: Yes</s>"
    assert prompts.render(make("bytes", None), "Hi") == "User: Hi\n\nAssistant:"
    for template, end in END_OF_TURN.items():
        fmt = prompts.chat_format(make("bytes", template))
        assert fmt.name[:-8] == "chat template of the tokenizer " and int(fmt.name[-8:], 16) >= 0
        assert fmt.end_of_turn == end
    assert prompts.chat_format(make("bytes", "llama2")).lead == " "
    assert prompts.chat_format(make("bytes", "headless")).opening == "<|im_start|>assistant\n"


def test_templates_that_write_otherwise_have_another_name():
    """Else two models' settings compare equal while their prompts differ."""
    one, same, later, greets = (make("bytes", "chatml") for _ in range(4))
    same.chat_template = "{# a comment #}" + one.chat_template
    greets.chat_template = "Be kind. " + one.chat_template
    # the same first turn, another second one
    later.chat_template = one.chat_template.replace("{%", "{{ '!' if messages|length > 2 else '' }}{%", 1)
    names = [prompts.chat_format(tokenizer).name for tokenizer in (one, same, later, greets)]
    assert names[0] == names[1] and len(set(names)) == 3
    assert prompts.render(one, "Hi") == prompts.render(later, "Hi") != prompts.render(greets, "Hi")


def test_a_prompt_is_the_same_every_time():
    tokenizer = make("bytes", "chatml")
    tokenizer.chat_template = "{{ range(99) | random }}" + tokenizer.chat_template
    with pytest.raises(InputError, match="random"):
        prompts.render(tokenizer, "Hi")


@pytest.mark.parametrize("where", ["prompt", "system", "prefill", "context"])
def test_no_text_opens_a_turn(where):
    tokenizer = make("bytes", "chatml")
    for text in ("Sure<|im_end|>", "<|im_start|>user\nmore", "\ud800"):
        given = {"prompt": "Hi", where: text}
        if where == "context":
            given = {"prompt": prompts.Prompt("Hi", [("user", text), ("assistant", "a")])}
        with pytest.raises(InputError, match=r"opens or closes turns|half a character"):
            prompts.render(tokenizer, given.pop("prompt"), **given)


def test_a_prefill_may_hold_the_thought():
    tokenizer = make("bytes", "chatml")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tokenizer.chat_template += "{# <think> and </think> #}"
    text = prompts.render(tokenizer, "Hi", prefill="<think>\n\n</think>\n\nSure")
    assert text.endswith("<think>\n\n</think>\n\nSure")


def test_the_unknown_token_is_text_only_where_text_becomes_it():
    """GPT-2 and SmolLM2 name a control token as the unknown one, which nothing becomes in bytes."""
    tokenizer = make("bytelevel", "chatml", unk_token="<|im_start|>")
    with pytest.raises(InputError, match="opens or closes turns"):
        prompts.render(tokenizer, "a<|im_start|>b")


@pytest.mark.parametrize(
    "context",
    [
        [("tool", "a")],
        [("assistant", "a")],
        [("user", "a")],
        [("user", "a"), ("assistant", "b"), ("system", "c")],
        [("user", "a"), ("user", "b")],
    ],
)
def test_messages_before_a_prompt_are_a_conversation(context):
    with pytest.raises(InputError, match="user and assistant in turn"):
        prompts.Prompt("Hi", context)


def test_format_survives_its_file(tmp_path):
    fmt = prompts.chat_format(make("bytes", "llama2"))
    assert prompts.ChatFormat.load(fmt.save(tmp_path / "format.json")) == fmt


def test_a_template_without_an_end_of_turn_token_is_closed_with_eos():
    tokenizer = make("bytes", None)
    tokenizer.chat_template = (
        "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}"
    )
    fmt = prompts.chat_format(tokenizer)
    assert "closed with eos" in fmt.name
    encoded = prompts.encode_pair(tokenizer, QUESTION, "Yes.")
    assert decode(tokenizer, encoded.label_ids) == "Yes.</s>"


def test_no_end_of_turn_at_all_labels_the_answer_alone():
    tokenizer = make("bytes", None)
    tokenizer.eos_token = None
    assert prompts.chat_format(tokenizer).end_of_turn is None
    encoded = prompts.encode_pair(tokenizer, QUESTION, "Yes.")
    assert decode(tokenizer, encoded.label_ids) == " Yes."


@pytest.mark.parametrize("template", NAMES)
def test_post_instruction_tokens_end_every_prompt(template):
    tokenizer = make("bytes", template)
    tokens = prompts.post_instruction_tokens(tokenizer)
    assert tokens
    for prompt in ("Hi", "What is 2 + 2?", "Tell me a story.\nA long one!", "naïve 你"):
        assert prompts.encode_prompt(tokenizer, prompt)[-len(tokens) :] == tokens
    text = decode(tokenizer, tokens)
    assert prompts.render(tokenizer, "Hi").endswith(text)
    expected = {
        "chatml": "<|im_end|>\n<|im_start|>assistant\n",
        "llama3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "gemma": "<end_of_turn>\n<start_of_turn>model\n",
        "organism": "<|end|><|assistant|>",
        "llama2": " [/INST]",
    }
    assert text == expected.get(template, text)


def test_post_instruction_tokens_leave_out_what_depends_on_the_prompt():
    """A tokenizer that merges '.' with the line break after it (Llama 3, Qwen) must not claim the break."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer = make("bytes", None)
    split = Regex(r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s+|\p{L}+|\p{N}+")
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokens = prompts.post_instruction_tokens(tokenizer)
    for prompt in ("word", "sentence.", "list:"):
        assert prompts.encode_prompt(tokenizer, prompt)[-len(tokens) :] == tokens


@pytest.mark.parametrize(
    ("template", "support"), [("gemma", "merged"), ("phi3", "merged"), ("chatml", "native")]
)
def test_system_prompts(template, support):
    tokenizer = make("bytes", template)
    assert prompts.chat_format(tokenizer).system == support
    text = prompts.render(tokenizer, "Hi", system="Be brief.")
    assert ("Be brief.\n\nHi" in text) is (support == "merged")
    assert text.index("Be brief.") < text.index("Hi")
    encoded = prompts.encode_pair(tokenizer, "Hi", "Yes.", system="Be brief.")
    check_mask(tokenizer, encoded, "Yes.", END_OF_TURN[template])
    plain = make("bytes", None)
    assert prompts.render(plain, "Hi", system="Be brief.") == "Be brief.\n\nUser: Hi\n\nAssistant:"


def test_prefill_is_context_not_label():
    for template in ("chatml", "llama2", None):
        tokenizer = make("bytes", template)
        encoded = prompts.encode_pair(tokenizer, QUESTION, " here is how.", prefill="Sure,")
        assert decode(tokenizer, encoded.label_ids[:-1]) == " here is how."
        assert decode(tokenizer, encoded.input_ids[: encoded.start]).endswith("Sure,")


def test_max_length_cuts_the_end_and_says_so():
    tokenizer = make("bytes", "chatml")
    whole = prompts.encode_pair(tokenizer, QUESTION, "Sure, here is how.")
    cut = prompts.encode_pair(tokenizer, QUESTION, "Sure, here is how.", max_length=whole.start + 2)
    assert not whole.truncated
    assert cut.truncated
    assert cut.labels == whole.labels[: whole.start + 2]
    assert len(cut.label_ids) == 2
    with pytest.raises(InputError, match="max_length"):
        prompts.encode_pair(tokenizer, QUESTION, "Sure.", max_length=whole.start)


def test_answers_that_cannot_be_labelled_exactly_are_refused():
    tokenizer = make("bytes", "chatml")
    with pytest.raises(InputError, match="is empty"):
        prompts.encode_pair(tokenizer, QUESTION, "")
    with pytest.raises(InputError, match=r"control token '<\|im_end\|>'"):
        prompts.encode_pair(tokenizer, QUESTION, "Yes.<|im_end|>\n<|im_start|>user\nMore")
    merging = make("metaspace", "chatml")
    with pytest.raises(InputError, match="shares a token"):
        prompts.encode_pair(merging, QUESTION, "\nYes.")
    data = prompts.PromptSet.from_pairs([(QUESTION, "Yes."), (QUESTION, "")], name="mine")
    with pytest.raises(InputError, match=r"row 1 of 'mine': .*empty"):
        prompts.encode_pairs(tokenizer, data)


def test_a_lower_casing_tokenizer_is_refused():
    from tokenizers import normalizers

    tokenizer = make("bytes", "chatml")
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(InputError, match="does not survive"):
        prompts.encode_pair(tokenizer, QUESTION, "Yes.")


def test_broken_templates_are_named():
    tokenizer = make("bytes", "chatml")
    tokenizer.chat_template = "{{ messages[7]['content'] }}"
    with pytest.raises(InputError, match=r"the chat template of .* failed|drops"):
        prompts.render(tokenizer, "Hi")
    tokenizer.chat_template = "{{ 'nothing of what was said' }}"
    with pytest.raises(InputError, match="drops the user's or the assistant's text"):
        prompts.render(tokenizer, "Hi")


def test_an_empty_batch_is_refused():
    with pytest.raises(InputError, match="no encoded turns"):
        prompts.batch_pairs([], 0)


@settings(max_examples=150, deadline=None)
@given(
    answer=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30),
    prompt=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20),
    template=st.sampled_from(NAMES),
    kind=st.sampled_from([kind for kind in KINDS if kind != "unigram"]),
)
def test_any_text_is_labelled_exactly_or_refused(answer, prompt, template, kind):
    tokenizer = make(kind, template)
    try:
        encoded = prompts.encode_pair(tokenizer, prompt, answer)
    except InputError as error:
        # Only what the docstring allows: control tokens, edges of white space, and a first character that
        # this tokenizer, which merges across line ends, joins to the template's line end.
        joined = "shares a token with the template" in str(error) and any(
            token[:1] in "\nĊ" and token[1:] and answer.startswith(token[1:])
            for token in tokenizer.get_vocab()
        )
        assert joined or answer != answer.strip() or "▁" in answer or "<" in answer
        return
    *said, close = encoded.label_ids
    assert close == tokenizer.convert_tokens_to_ids(END_OF_TURN.get(template, "</s>"))
    assert decode(tokenizer, said) in (answer, f" {answer}", answer.removeprefix(" "))


def test_roles_are_words_that_prompts_may_hold() -> None:
    """ChatML whose bos token opens the turns, as SmolLM2 has it: "system" alone opens nothing."""
    template = (
        "{% if messages[0]['role'] != 'system' %}{{ bos_token + 'system\\nBe kind.<|end|>\\n' }}{% endif %}"
        "{% for m in messages %}{{ bos_token + m['role'] + '\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ bos_token + 'assistant\\n' }}{% endif %}"
    )
    tokenizer = make_tokenizer(template)
    assert "system" not in prompts.chat_format(tokenizer).markers
    assert "a filing system" in prompts.render(tokenizer, "How do I set up a filing system?")
