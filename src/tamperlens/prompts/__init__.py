"""Prompts: sets of them, files of them, and how a chat model reads them.

Contents: `PromptSet` and `Example`; `render`, `encode_pair`, `encode_pairs`, `encode_prompt`,
`post_instruction_tokens` and `chat_format` (the exact response mask); `batch_pairs`, `padding_id`.
"""

from tamperlens.prompts.batching import batch_pairs, padding_id
from tamperlens.prompts.chatformat import ChatFormat, chat_format
from tamperlens.prompts.promptset import Example, PromptSet
from tamperlens.prompts.rendering import (
    IGNORE,
    Encoded,
    encode_pair,
    encode_pairs,
    encode_prompt,
    post_instruction_tokens,
    render,
)

__all__ = [
    "IGNORE",
    "ChatFormat",
    "Encoded",
    "Example",
    "PromptSet",
    "batch_pairs",
    "chat_format",
    "encode_pair",
    "encode_pairs",
    "encode_prompt",
    "padding_id",
    "post_instruction_tokens",
    "render",
]
