"""Thought and answer apart: what a reasoning model thinks is not what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tamperlens.base.results import Result

TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
    ("<scratchpad>", "</scratchpad>"),
    ("Here is my thought process:", "Here is my response:"),
    ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
)
"""How published templates open and close a thought; the first is also how this library writes one."""

_NAMED = re.compile(
    r"<(\|?)((?:\w+[_:-])?(?:think(?:ing)?|thoughts?|reasoning|reflection|monologue|rationale|deliberation)"
    r"(?:[_:-]\w+)?)\1>",
    re.I,
)
"""A tag that says by its name that it opens a thought, such as <longcat_think>."""

CHANNEL = "<|channel|>"
"""Marks a channel of the harmony format (gpt-oss): analysis and commentary are thought, final is answer."""

_SEGMENT = re.compile(
    r"<\|channel\|>\s*(\w+)(?:(?!<\|message\|>).)*<\|message\|>"
    r"(.*?)(?=<\|(?:end|start|return|call|channel)\|>|\Z)",
    re.S,
)
# The same after a decoder that dropped the special tokens: "analysisThe user asks.assistantfinalNo."
_BARE = re.compile(r"analysis(?:(?=[A-Z])|(?=\s.*assistantfinal))(.*?)(?:assistantfinal(.*))?\Z", re.S)
_WRAPS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<output>", "</output>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("", "[END FINAL RESPONSE]"),
)


@dataclass(frozen=True)
class Reply(Result):
    """What a model wrote, taken apart.

    Attributes:
        thought: what it thought, without tags; "" when it did not.
        answer: what it said.
        finished: False when the text ends inside the thought, so that there is no answer yet.
    """

    thought: str
    answer: str
    finished: bool = True

    @property
    def text(self) -> str:
        """Both as one text, the thought in <think> tags, whatever the model's own are."""
        opening, closing = TAGS[0]
        if not self.thought and self.finished:
            return self.answer
        return f"{opening}\n{self.thought}" + (f"\n{closing}\n\n{self.answer}" if self.finished else "")


def tags_in(text: str, *, first: bool = False) -> tuple[str, str] | None:
    """How a template, or with `first` an answer from its beginning on, opens and closes a thought."""
    if not first:
        known = next((pair for pair in TAGS if pair[0] in text or pair[1] in text), None)
        if known is not None:
            return known
    found = _NAMED.match(text.lstrip()) if first else _NAMED.search(text)
    return None if found is None else (found[0], f"<{found[1]}/{found[2]}{found[1]}>")


def split_reply(text: str) -> Reply:
    """Take thought and answer of a model's text apart.

    Knows the tags of `TAGS`, at the beginning of the text or of a line, others that begin the text and are
    named after thinking, gpt-oss channels, and a closing tag without an opening one (the template had opened
    the thought already). Text without any of these is an
    answer. Tags that an answer merely mentions stay in it.

    Examples:
        >>> split_reply("<think>They ask for X. I cannot.</think>Here it is.")
        Reply(thought='They ask for X. I cannot.', answer='Here it is.', finished=True)
        >>> split_reply("<think>They ask for").finished
        False
    """
    if CHANNEL in text:
        return _channels(text)
    bare = _BARE.match(text)
    if bare and (bare[2] is not None or "assistant" not in text):
        return Reply(bare[1].strip(), (bare[2] or "").strip(), bare[2] is not None)
    thoughts: list[str] = []
    rest = _orphan(text, thoughts)
    finished = True
    own = tags_in(text, first=True)
    for opening, closing in dict.fromkeys((*TAGS, own) if own else TAGS):
        start = re.compile(r"(?:\A[\s\u200b\ufeff]*|^[ \t]*)" + re.escape(opening), re.M | re.I)
        end = re.compile(re.escape(closing), re.I)
        place = 0
        while found := start.search(rest, place):
            close = end.search(rest, found.end())
            if rest.count("```", 0, found.start()) % 2:  # code that the answer shows
                break
            if close is None:
                # In the middle of an answer an opening tag alone is a mention of it.
                if not rest[: found.start()].strip():
                    thoughts.append(rest[found.end() :])
                    rest, finished = "", False
                break
            thoughts.append(rest[found.end() : close.start()])
            rest = rest[: found.start()] + rest[close.end() :]
            place = found.start()
    rest = _orphan(rest, thoughts)  # of a thought within a thought
    if not thoughts and finished and rest == text:
        return Reply("", text)
    return Reply("\n\n".join(filter(None, map(str.strip, thoughts))), _unwrapped(rest.strip()), finished)


def _orphan(text: str, thoughts: list[str]) -> str:
    """The text after the last closing tag that nothing before it opened; what stood before is thought.

    The last one, as the templates of Qwen 3 and DeepSeek R1 have it. In quotes, in code or before a full stop
    it is a mention.
    """
    for opening, closing in TAGS:
        if not opening[0].isalpha():
            tag = re.escape(closing)
            for close in reversed([*re.finditer(rf"(?<![`'\"(\[]){tag}(?![`'\").,;:?!\]])", text, re.I)]):
                before = text[: close.start()]
                if re.search(re.escape(opening), before, re.I) or before.count("```") % 2:
                    continue
                thoughts += re.split(tag, before, flags=re.I)
                return text[close.end() :]
    return text


def _channels(text: str) -> Reply:
    segments = _SEGMENT.findall(text)
    thought = "\n\n".join(said.strip() for channel, said in segments if channel != "final")
    finals = [said.strip() for channel, said in segments if channel == "final"]
    return Reply(thought, "\n\n".join(finals), bool(finals))


def _unwrapped(answer: str) -> str:
    for opening, closing in _WRAPS:
        if answer[: len(opening)].lower() == opening.lower():
            said, _, after = re.sub(re.escape(closing), "\0", answer[len(opening) :], flags=re.I).partition(
                "\0"
            )
            return "\n\n".join(filter(None, (said.strip(), after.strip())))
    return answer
