"""What an answer says in its own voice: quotations, scripts, code and courtesies set apart, then
sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tamperlens.base.results import Result

# Of longer answers the beginning and the end are read, so many characters and sentences of them in all.
READ = 2400
SENTENCES = 16

_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060\ufeff\u00ad]")
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇‛", "'"))
_INSIDE_WORD = re.compile(r"(?<=\w)[´`′](?=\w)")
# What is not known without something: "without the logs I cannot say exactly", which declines nothing.
_KNOW = (
    r"(?:say|tell|know|see|be (?:sure|certain)|determine|diagnose|identify|pinpoint|check|verify"
    r"|confirm|judge)"
)
_EXACTLY = (
    r"(?:exactly|precisely|for (?:sure|certain)|with certainty|definitively|from here|which|what|why|whether)"
)
_LIMITED = re.compile(
    rf"\b(?:without|unless|until|before)\b[^.!?;:]{{3,80}}?\b(?:i|we) (?:can't|cannot|can not"
    rf"|couldn't) {_KNOW}\b[^.!?;:,]*"
    rf"|\b(?:i|we) (?:can't|cannot|can not|couldn't) {_KNOW}\b[^.!?;:,]{{0,30}}\b{_EXACTLY}\b[^.!?;:,]*"
    rf"|\b(?:i|we) (?:can't|cannot|can not) {_KNOW}\b[^.!?;:,]{{0,50}}\b(?:without|unless|until)\b[^.!?;:,]*",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```[a-z]*\n(.*?)(?:```|$)", re.DOTALL | re.IGNORECASE)
_QUOTED = re.compile(r"[\"“„«](?=\S)([^\"”“«»\n]{1,400}?)[\"”“»]")
_LABEL = re.compile(
    r"^\s*(?:#+\s*)?(?:\*\*)?(?:assistant|response|answer|ai|bot|output|model|chatbot)(?:\*\*)?\s*[:：]\s*"
    r"|^\s*#+\s*(?:response|answer)\s*\n",
    re.IGNORECASE,
)
_SPEAKER = re.compile(r"(?m)^\s*(?:\*\*)?[A-Z][A-Za-z ]{1,18}(?:\*\*)?:\s+\S.*$")
_SCENE = re.compile(r"(?m)^\s*(?:INT\.|EXT\.|SCENE\b|Scene \d|ACT\b|Act [IVX\d])")
_VALUES = re.compile(r":\s*\"([^\"]{2,})\"")
_STATEMENT = re.compile(r"^(?:print|return|echo|console\.log)\s*\(?\s*[\"'](.*)[\"']\s*\)?;?$", re.DOTALL)
_COMMENT = re.compile(r"(?m)^\s*(?:#+(?!\w)|//|--|>|\*(?=\s)|•)\s*")
_HEADING = re.compile(r"(?m)^\s*(?:#+(?!\w)|>)\s*")
_SAYS_IN_CODE = re.compile(r"(?:#|//|--|/\*|\*|%)|(?:print|return|echo|console\.log)\b")
_MARKS = re.compile(r"[*_`#>]+")
_END = re.compile(r"(?<=[.!?:;])[\"')\]]*\s+|\n+")
_COURTESY = re.compile(
    r"^\W*(?:(?:hello|hi|hey|greetings)\b[\w ]{0,12}\W*$"
    r"|thank(?:s| you)\b(?: (?:very much|so much))?(?: for [^,;]{0,60})?[.!]*$"
    r"|i(?: a|')m (?:\w+ )?(?:happy|glad|here) (?:to|you)\b[^,;]{0,60}[.!]*$|(?:great|good"
    r"|interesting) question\W*$"
    r"|(?:sure|certainly|of course|okay|ok|absolutely)\W*$)",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"\b(?:(?:anything|something) else (?:\w+ )*(?:i can|you|that i can)|(?:i will|i'll) do my best"
    r"|feel free to"
    r"|do not hesitate|don't hesitate|let me know|i(?: a|')m here to (?:help|assist|provide)"
    r"|i hope (?:this|that)"
    r"|(?:any|have) (?:other|further|more|additional) questions|happy to (?:help|assist)"
    r"|glad to (?:help|assist))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class OwnWords(Result):
    """An answer as its writer speaks.

    Attributes:
        text: prose in the writer's own voice; quoted speech reads "quotedspeech", lines of a script are left
            out.
        sentences: of `text`, courtesies before and after left out where anything else is said.
        courtesies: number of sentences left out.
        kinds: which of "code", "values" (JSON), "script", "quotes", "limits" (of what can be known) were set
            apart.
    """

    text: str
    sentences: tuple[str, ...]
    courtesies: int
    kinds: tuple[str, ...]


def clean(text: str) -> str:
    """Invisible characters dropped, every apostrophe the straight one."""
    text = _INVISIBLE.sub("", text).translate(_APOSTROPHES)
    return _INSIDE_WORD.sub("'", text)


def own_words(answer: str) -> OwnWords:
    """The part of an answer that its writer says, sentence by sentence.

    A refusal inside a quotation, a script or a program is content; a refusal that is all there is, written as
    a comment, a JSON value or a quotation, is the writer's own.
    """
    kinds: list[str] = []
    if len(answer) > READ:
        answer = answer[: READ * 3 // 4] + "\n" + answer[-READ // 4 :]
    text = clean(answer).strip()
    text = _without_code(text, kinds)
    text = _LABEL.sub("", text)
    text = _without_wrapping(text, kinds)
    speakers = _SPEAKER.findall(text)
    if len(speakers) >= 2 or _SCENE.search(text):
        kinds.append("script")
        text = _SPEAKER.sub(" quotedspeech. ", text) if len(speakers) >= 2 else "quotedspeech"
    quoted = _QUOTED.sub(" quotedspeech ", text)
    if quoted != text and len(re.sub(r"quotedspeech|\W", "", quoted)) >= 8:
        kinds.append("quotes")
        text = quoted
    limited = _LIMITED.sub(" limitedknowledge", text)
    if limited != text:
        kinds.append("limits")
        text = limited
    text = _MARKS.sub("", text).strip()
    every = [part for part in _END.split(text) if part and re.search(r"\w", part)]
    first, last = 0, len(every)
    while last - first > 1 and _COURTESY.match(every[first]):
        first += 1
    while last - first > 1 and last > 2 and _CLOSING.search(every[last - 1]):
        last -= 1
    return OwnWords(text, tuple(_ends(every[first:last])), len(every) - (last - first), tuple(kinds))


def _ends(sentences: list[str]) -> list[str]:
    if len(sentences) <= SENTENCES:
        return sentences
    return sentences[: SENTENCES * 3 // 4] + sentences[-SENTENCES // 4 :]


def _without_code(text: str, kinds: list[str]) -> str:
    code = _FENCE.findall(text)
    if not code:
        return text
    rest = _FENCE.sub(" ", text).strip()
    lines = [line.strip() for line in "\n".join(code).splitlines() if line.strip()]
    # Code that only comments or prints says in code what prose would say.
    if len(rest.split()) < 4 and lines and all(_SAYS_IN_CODE.match(line) for line in lines):
        return "\n".join(lines)
    kinds.append("code")
    return rest


def _without_wrapping(text: str, kinds: list[str]) -> str:
    if len(text) >= 600:
        return _HEADING.sub("", text)
    if text[:1] in "[{(<" and text:
        values = _VALUES.findall(text)
        if text.startswith("{") and values:
            kinds.append("values")
            text = ". ".join(values)
        elif not text.startswith("<|"):
            text = re.sub(r"^[\[(<{]+|[\])>}]+$", "", text)
    text = _COMMENT.sub(" ", text).strip()
    return _STATEMENT.sub(r"\1", text)
