"""Prompts: sets of them, files of them, and how a chat model reads them.

Sets: `PromptSet`, `Example`, `Prompt` (a text with the conversation before it). Files and tables: `read`,
`read_each`; what functions are given: `as_prompts`. Packaged: `packaged`, `packaged_names`,
`packaged_splits`;
`packaged_for` (the defaults in a model's language).
Chat: `chat_format`, `render`, `encode_prompt`, `encode_pair`, `encode_pairs` (the exact response mask),
`post_instruction_tokens`; `split_reply` (thought and answer apart). Training batches: `batch_pairs`,
`padding_id`.
"""

from tamperlens.base.boundary import guard
from tamperlens.prompts.batching import batch_pairs, padding_id
from tamperlens.prompts.chatformat import ChatFormat, chat_format
from tamperlens.prompts.defaults import (
    ENGLISH,
    GRAMMAR,
    ORGANISM,
    Language,
    as_language,
    packaged_for,
    pairs_for,
    warn_of_language,
)
from tamperlens.prompts.frames import PromptsLike
from tamperlens.prompts.library import packaged, packaged_names, packaged_splits
from tamperlens.prompts.prompt import Message, Prompt, content
from tamperlens.prompts.promptset import Example, PromptSet
from tamperlens.prompts.readers import as_prompts, read, read_each
from tamperlens.prompts.rendering import (
    IGNORE,
    Encoded,
    encode_pair,
    encode_pairs,
    encode_prompt,
    post_instruction_tokens,
    render,
)
from tamperlens.prompts.templating import DATE
from tamperlens.prompts.thoughts import Reply, split_reply

__all__ = [
    "DATE",
    "ENGLISH",
    "GRAMMAR",
    "IGNORE",
    "ORGANISM",
    "ChatFormat",
    "Encoded",
    "Example",
    "Language",
    "Message",
    "Prompt",
    "PromptSet",
    "PromptsLike",
    "Reply",
    "as_language",
    "as_prompts",
    "batch_pairs",
    "chat_format",
    "content",
    "encode_pair",
    "encode_pairs",
    "encode_prompt",
    "packaged",
    "packaged_for",
    "packaged_names",
    "packaged_splits",
    "padding_id",
    "pairs_for",
    "post_instruction_tokens",
    "read",
    "read_each",
    "render",
    "split_reply",
    "warn_of_language",
]

guard(globals(), __all__)
