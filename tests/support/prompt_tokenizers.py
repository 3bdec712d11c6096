# ruff: noqa: E501 (templates as published)
"""Tokenizers of the kinds that chat models use, trained here in milliseconds, and their chat templates."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CORPUS = [
    "How do I sort a list in Python? Sure, here is how you do it. I cannot help with that, I am sorry.",
    "User: question\n\nAssistant: answer. You are a helpful assistant. Tell me a story about 12 + 34 = 46.",
    "<|im_start|>user\nTell me.<|im_end|>\n<|im_start|>assistant\n [INST] word [/INST] naïve café",
    "The quick brown fox jumps over the lazy dog; THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG? 567890!",
] * 30

SPECIAL = [
    *(
        "<unk>",
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<bos>",
        "<eos>",
    ),
    *(
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|user|>",
        "<|system|>",
    ),
    *("<|assistant|>", "<|end|>", "<|endoftext|>", "<|bos|>", "<|pad|>"),
]

# As published with the models, shortened where they deal with tools.
TEMPLATES: dict[str, str] = {
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
        "{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + "
        "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
        "message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 "
        "%}{% set content = '<|begin_of_text|>' + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    # Phi-3-mini's first template: a system turn is dropped without a word, eos after the last turn.
    "phi3": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>\n' + "
        "message['content'] + '<|end|>\n<|assistant|>\n' }}{% elif message['role'] == 'assistant' %}{{ "
        "message['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
        "{% if not add_generation_prompt %}{{ '<|endoftext|>' }}{% endif %}"
    ),
    "zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
        "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
        "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
        "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
        "'<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = '' %}{% endif %}{% for message in loop_messages %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + (system_message if loop.first else '') + message['content'].strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' '  + message['content'].strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "organism": (
        "<|bos|>{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    # Qwen 3: an empty thought stands before the answer when thinking is off.
    "qwen3": (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>assistant\n<think>\n\n"
        "</think>\n\n' + message['content'] + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ "
        "'<|im_start|>assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}{{ "
        "'<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
    ),
    # A template that ignores add_generation_prompt: the assistant's header only comes with an answer.
    "headless": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
        "{% endfor %}"
    ),
}
END_OF_TURN = {
    **{"chatml": "<|im_end|>", "gemma": "<end_of_turn>", "llama3": "<|eot_id|>", "phi3": "<|end|>"},
    **{
        "zephyr": "</s>",
        "llama2": "</s>",
        "organism": "<|end|>",
        "qwen3": "<|im_end|>",
        "headless": "<|im_end|>",
    },
}
KINDS = (
    *("bytes", "bytes-bos", "bytes-prefix", "bytes-prefix-untrimmed"),
    *("metaspace", "metaspace-first", "metaspace-legacy", "unigram"),
)


@cache
def _backend(kind: str) -> str:
    if kind.startswith("bytes"):
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space="prefix" in kind)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(CORPUS, trainer)
        backend.post_processor = processors.ByteLevel(trim_offsets="untrimmed" not in kind)
        if kind == "bytes-bos":
            backend.post_processor = processors.Sequence(
                [
                    processors.ByteLevel(trim_offsets=True),
                    processors.TemplateProcessing(
                        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
                    ),
                ]
            )
        return str(backend.to_str())
    pieces = [f"<0x{i:02X}>" for i in range(256)]
    if kind == "unigram":
        backend = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
    else:
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*SPECIAL, *pieces], show_progress=False)
    # Trained with word boundaries whatever the kind: no piece runs on into the next word, as in Llama's own.
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme="first" if kind == "metaspace-first" else "always"
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.train_from_iterator(CORPUS, trainer)
    state = json.loads(backend.to_str())
    # Byte pieces are ordinary vocabulary, not control tokens.
    state["added_tokens"] = [one for one in state["added_tokens"] if one["content"] not in pieces]
    backend = Tokenizer.from_str(json.dumps(state))
    if kind == "metaspace-legacy":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return str(backend.to_str())


def make(kind: str, template: str | None, **settings: str) -> PreTrainedTokenizerFast:
    """A tokenizer of a kind of `KINDS` with a template of `TEMPLATES` (None: no chat template)."""
    eos = "</s>" if template in (None, "zephyr", "llama2") else END_OF_TURN[template]
    bos = {"gemma": "<bos>", "llama3": "<|begin_of_text|>"}.get(template or "", "<s>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(kind)),
        **{"eos_token": eos, "bos_token": bos, "unk_token": "<unk>", **settings},
        additional_special_tokens=[t for t in SPECIAL if t not in (eos, bos, "<unk>")],
    )
    if template is not None:
        tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def make_slow(template: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer without offsets: ByT5's bytes, written in Python."""
    tokenizer = ByT5Tokenizer(extra_ids=0, bos_token="<s>", additional_special_tokens=SPECIAL[1:])
    if template is not None:
        tokenizer.chat_template = TEMPLATES[template]
    return tokenizer
