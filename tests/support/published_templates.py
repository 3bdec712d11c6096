# ruff: noqa: E501 (templates, one a line where they fit)
"""The chat templates of widely used model families, rebuilt here in our own words: what they write, not how.

Tools, images and documents are left out. Each entry is the template's source; tokens in it become control
tokens of a small byte-level tokenizer.
"""

from __future__ import annotations

import json
import re

from prompt_tokenizers import _backend
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast


def chatml(
    head: str = "",
    default: str = "",
    trim: bool = False,
    gen: str = "",
    assistant: str | None = None,
    end: str = "\\n",
) -> str:
    """ChatML with what its many users change: a beginning, a default system turn, what opens the answer."""
    system = (
        "{% if messages[0].role != 'system' %}<|im_start|>system\n" + default + "<|im_end|>\n{% endif %}"
        if default
        else ""
    )
    said = assistant or "m.content"
    return (
        head
        + system
        + "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' + "
        + said
        + " + '<|im_end|>"
        + end
        + "' }}"
        "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content"
        + (" | trim" if trim else "")
        + " + '<|im_end|>"
        + end
        + "' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n" + gen + "' }}{% endif %}"
    )


def roles(user: str, assistant: str, system: str, gen: str, head: str = "", tail: str = "") -> str:
    """One line a role, `%` where the text goes."""

    def line(pattern: str) -> str:
        before, after = pattern.split("%")
        return "{{ " + json.dumps(before) + " + text + " + json.dumps(after) + " }}"

    return (
        head
        + "{% for m in messages %}{% set text = m.content %}{% if m.role == 'user' %}"
        + line(user)
        + "{% elif m.role == 'assistant' %}"
        + line(assistant)
        + "{% else %}"
        + (line(system) if system else "{{ raise_exception('no system turn') }}")
        + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ " + json.dumps(gen) + " }}{% endif %}" + tail
    )


LLAMA3 = (
    "{{ bos_token }}%s{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TODAY = "{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
LLAMA31 = (
    "{{ bos_token }}%s{% if messages[0].role == 'system' %}{% set said = messages[0].content | trim %}{% set rest = messages[1:] %}"
    "{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' + said + '<|eot_id|>' }}"
    "{% for m in rest %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% set said = m.content if m.content is string else '' %}{% if m.role == 'assistant' %}{% set thought = '' %}"
    "{% if m.reasoning_content is string %}{% set thought = m.reasoning_content %}{% elif '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}{{ '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + said.lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>assistant\n' + said + '<|im_end|>\n' }}{% endif %}{% else %}{{ '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}%s{% endif %}"
)
OFF = "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
STRIPPED = "m.content.split('</think>')[-1].lstrip('\\n')"
GEMMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = (messages[0].content if messages[0].content is string else messages[0].content[0].text) + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for m in rest %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + (first if loop.first else '') }}"
    "{% if m.content is string %}{{ m.content | trim }}{% else %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def instruct(user: str, answer: str, system: str) -> str:
    """Mistral's family: [INST] around what the user says, the system text before it."""
    return (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
        "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}{% set text = ("
        + system
        + " if system and loop.first else '') + m.content %}"
        + user
        + "{% elif m.role == 'assistant' %}"
        + answer
        + "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
    )


R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% else %}{% set said = m.content.split('</think>')[-1] if '</think>' in m.content else m.content %}{{ '<｜Assistant｜>' + said + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)
V31 = (
    "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}{% set said = m.content.split('</think>')[-1] if '</think>' in m.content else m.content %}"
    "{{ '<｜Assistant｜></think>' + said + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' + ('<think>' if thinking else '</think>') }}{% endif %}"
)
HARMONY = (
    "{{ '<|start|>system<|message|>You are ChatGPT.\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}"
    "{% if messages[0].role == 'system' %}{{ '<|start|>developer<|message|># Instructions\n\n' + messages[0].content + '<|end|>' }}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}{% elif loop.last and not add_generation_prompt %}"
    "{% if 'thinking' in m %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}{% else %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
SMOLLM3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}{% set mode = '/think' if enable_thinking else '/no_think' %}"
    "{% if messages[0].role == 'system' %}{% set said = messages[0].content.rstrip() %}{% set rest = messages[1:] %}{% else %}{% set said = 'You are a helpful AI assistant named SmolLM.' %}{% set rest = messages %}{% endif %}"
    "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' + mode + '\n\n' + said + '<|im_end|>\n' }}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}{% elif mode == '/think' %}"
    "{{ '<|im_start|>assistant\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}{% else %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + m.content.lstrip('\n') + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)


def granite(thinking: str) -> str:
    """Granite 3: a system turn with the date, roles between control tokens."""
    return (
        "{% if messages[0].role == 'system' %}{% set said = messages[0].content %}{% set rest = messages[1:] %}{% else %}"
        "{% set said = 'Knowledge Cutoff Date: April 2024.\nToday\\'s Date: ' + strftime_now('%B %d, %Y') + '.\nYou are Granite, developed by IBM.' %}"
        + thinking
        + "{% set rest = messages %}{% endif %}{{ '<|start_of_role|>system<|end_of_role|>' + said + '<|end_of_text|>\n' }}"
        "{% for m in rest %}{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
    )


COMMAND = "<|START_OF_TURN_TOKEN|><|%s_TOKEN|>%%<|END_OF_TURN_TOKEN|>"

PUBLISHED: dict[str, str] = {
    "llama-2": "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "llama-3": LLAMA3.replace("%s", ""),
    "llama-3.1": LLAMA31.replace("%s", "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"),
    "llama-3.2": LLAMA31.replace("%s", TODAY),
    "llama-4": LLAMA3.replace("%s", "").replace("<|start_header_id|>", "<|header_start|>").replace("<|end_header_id|>", "<|header_end|>").replace("<|eot_id|>", "<|eot|>"),
    "chatml": chatml(),
    "qwen-2": chatml(default="You are a helpful assistant."),
    "qwen-2.5": chatml(default="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen-3": QWEN3.replace("%s", OFF),
    "qwen-3-thinking-2507": QWEN3.replace("%s", "{{ '<think>\n' }}"),
    "qwq": chatml(gen="<think>\\n", assistant=STRIPPED),
    "gemma-1": GEMMA2.replace(" | trim", ""),
    "gemma-2": GEMMA2,
    "gemma-3": GEMMA3,
    "phi-3": roles("<|user|>\n%<|end|>\n", "<|assistant|>\n%<|end|>\n", "<|system|>\n%<|end|>\n", "<|assistant|>\n", tail="{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"),
    "phi-4": roles("<|im_start|>user<|im_sep|>%<|im_end|>", "<|im_start|>assistant<|im_sep|>%<|im_end|>", "<|im_start|>system<|im_sep|>%<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
    "phi-4-mini": roles("<|user|>%<|end|>", "<|assistant|>%<|end|>", "<|system|>%<|end|>", "<|assistant|>", tail="{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"),
    "phi-4-reasoning": roles("<|im_start|>user<|im_sep|>%<|im_end|>", "<|im_start|>assistant<|im_sep|>%<|im_end|>", "<|im_start|>system<|im_sep|>%<|im_end|>", "<|im_start|>assistant<|im_sep|>",
        head="<|im_start|>system<|im_sep|>Please structure your response into two main sections: <think> {Thought section} </think> {Solution section}.<|im_end|>"),
    "mistral-v1": instruct("{{ ' [INST] ' + text + ' [/INST]' }}", "{{ ' ' + m.content + eos_token }}", "system + '\n\n'"),
    "mistral-v3": instruct("{{ '[INST] ' + text + '[/INST]' }}", "{{ ' ' + m.content | trim + eos_token }}", "system + '\n\n'"),
    "mistral-nemo": instruct("{{ '[INST]' + text + '[/INST]' }}", "{{ m.content | trim + eos_token }}", "system + '\n\n'"),
    "mistral-v7": roles("[INST]%[/INST]", "%</s>", "[SYSTEM_PROMPT]%[/SYSTEM_PROMPT]", "", head="{{ bos_token }}"),
    "magistral": roles("[INST]%[/INST]", "%</s>", "[SYSTEM_PROMPT]%[/SYSTEM_PROMPT]", "",
        head="{{ bos_token }}{% if messages[0].role != 'system' %}[SYSTEM_PROMPT]First draft your thinking: [THINK]Your thoughts.[/THINK]Then answer.[/SYSTEM_PROMPT]{% endif %}"),
    "zephyr": roles("<|user|>\n%</s>\n", "<|assistant|>\n%</s>\n", "<|system|>\n%</s>\n", "<|assistant|>\n"),
    "vicuna": roles("USER: % ", "ASSISTANT: %</s>", "% ", "ASSISTANT:", head="{{ bos_token }}{% if messages[0].role != 'system' %}{{ 'A chat between a curious user and an artificial intelligence assistant. ' }}{% endif %}"),
    "deepseek-v2": roles("User: %\n\n", "Assistant: %</s>", "%\n\n", "Assistant:", head="{{ bos_token }}"),
    "deepseek-r1": R1,
    "deepseek-v3.1": V31,
    "gpt-oss": HARMONY,
    "olmo-2": roles("<|user|>\n%\n", "<|assistant|>\n%</s>", "<|system|>\n%\n", "<|assistant|>\n", head="{{ bos_token }}"),
    "olmo-3-think": chatml(gen="<think>", assistant=STRIPPED),
    "tulu-3": roles("<|user|>\n%\n", "<|assistant|>\n%</s>\n", "<|system|>\n%\n", "<|assistant|>\n"),
    "smollm-2": chatml(default="You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    "smollm-3": SMOLLM3,
    "granite-3.1": granite(""),
    "granite-3.3": granite("{% if thinking %}{% set said = said + '\nWrite <think></think> before <response></response>.' %}{% endif %}"),
    "command-r": roles(COMMAND % "USER", COMMAND % "CHATBOT", COMMAND % "SYSTEM", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", head="{{ bos_token }}"),
    "command-a-reasoning": roles(COMMAND % "USER", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_RESPONSE|>%<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", COMMAND % "SYSTEM", "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", head="{{ bos_token }}",
        tail="{% if add_generation_prompt %}{% if enable_thinking %}{{ '<|START_THINKING|>' }}{% else %}{{ '<|START_THINKING|><|END_THINKING|>' }}{% endif %}{% endif %}"),
    "falcon": roles("User: %\n\n", "Assistant: %\n\n", "%\n\n", "Assistant:"),
    "falcon-3": roles("<|user|>\n%\n", "<|assistant|>\n%</s>\n", "<|system|>\n%\n", "<|assistant|>\n"),
    "yi": chatml(),
    "internlm-2": chatml(head="{{ bos_token }}"),
    "exaone-3.5": roles("[|user|]%\n", "[|assistant|]%[|endofturn|]\n", "[|system|]%[|endofturn|]\n", "[|assistant|]"),
    "exaone-4": roles("[|user|]\n%[|endofturn|]\n", "[|assistant|]\n<think>\n\n</think>\n\n%[|endofturn|]\n", "[|system|]\n%[|endofturn|]\n", "[|assistant|]\n",
        tail="{% if add_generation_prompt %}{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}"),
    "exaone-deep": roles("[|user|]%\n", "[|assistant|]%[|endofturn|]\n", "[|system|]%[|endofturn|]\n", "[|assistant|]<thought>\n"),
    "openchat-3.5": roles("GPT4 Correct User: %<|end_of_turn|>", "GPT4 Correct Assistant: %<|end_of_turn|>", "%<|end_of_turn|>", "GPT4 Correct Assistant:", head="{{ bos_token }}"),
    "solar": roles("### User:\n%\n\n", "### Assistant:\n%</s>", "### System:\n%\n\n", "### Assistant:\n"),
    "stablelm-2": roles("<|user|>\n%<|endoftext|>\n", "<|assistant|>\n%<|endoftext|>\n", "<|system|>\n%<|endoftext|>\n", "<|assistant|>\n"),
    "glm-4": roles("<|user|>\n%", "<|assistant|>\n%", "<|system|>\n%", "<|assistant|>\n", head="[gMASK]<sop>"),
    "glm-4.5": roles("<|user|>\n%", "<|assistant|>\n<think></think>\n%", "<|system|>\n%", "<|assistant|>\n", head="[gMASK]<sop>",
        tail="{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}{{ '<think></think>\n' }}{% endif %}"),
    "nemotron-mini": roles("<extra_id_1>User\n%\n", "<extra_id_1>Assistant\n%\n", "<extra_id_0>System\n%\n\n", "<extra_id_1>Assistant\n"),
    "kimi-k2": roles("<|im_user|>user<|im_middle|>%<|im_end|>", "<|im_assistant|>assistant<|im_middle|>%<|im_end|>", "<|im_system|>system<|im_middle|>%<|im_end|>", "<|im_assistant|>assistant<|im_middle|>"),
    "hunyuan": roles("<｜hy_User｜>%", "<｜hy_Assistant｜>%</s>", "%<｜hy_place▁holder▁no▁3｜>", "<｜hy_Assistant｜>", head="{{ bos_token }}",
        tail="{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n' }}{% endif %}"),
    "content-parts": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "generation-tags": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
}  # fmt: skip

_TOKEN = re.compile(
    r"<[|｜][^<>\n' ]*?[|｜]>|</?s>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT|THINK)\]|\[\|\w+\|\]|\[gMASK\]|<sop>|<extra_id_\d>|</?think>|</?thought>"
)
_NOT_SPECIAL = re.compile(r"</?think>|</?thought>")
_PLAIN = {"llama-2": "[", "mistral-v1": "["}  # families whose [INST] is text


def published(name: str) -> PreTrainedTokenizerFast:
    """A small tokenizer with the template of that family and its control tokens."""
    found = dict.fromkeys(_TOKEN.findall(PUBLISHED[name]))
    found = [token for token in found if not (name in _PLAIN and token.startswith(_PLAIN[name]))]
    eos = next((token for token in found if "end▁of" in token), "</s>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend("bytes")),
        bos_token="<s>",
        eos_token=eos,
        unk_token="<unk>",
        additional_special_tokens=[
            t for t in found if not _NOT_SPECIAL.fullmatch(t) and t not in ("<s>", eos)
        ],
    )
    tokenizer.add_tokens([token for token in found if _NOT_SPECIAL.fullmatch(token)])
    tokenizer.chat_template = PUBLISHED[name]
    return tokenizer
