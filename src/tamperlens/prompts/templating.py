"""Runs chat templates: the same text on every day, and never more of it than is sane.

transformers renders templates with today's date and without a bound. Here its own environment (tags, filters,
sandbox) is taken over, with a date that stands still and with counts of characters and loop steps.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from tamperlens.base.errors import InputError

DATE = "2024-07-26"
"""The day that templates are told it is: the one that Llama 3's template falls back on."""

MOST_CHARACTERS = 2**24
MOST_MADE = 2**28  # characters and list entries of all intermediate texts together
MOST_STEPS = 2 * 10**5
MOST_WIDTH = 10**6
MOST_BITS = 10**5
_STEP = "tamperlens_step"
_GATHERING = ("join", "do_join", "sync_do_join", "do_sum", "sync_do_sum")
_WIDTH = re.compile(r"(%|\{[^{}]{0,40}?:)[^%{}]{0,8}?[0-9]{7}")


class TemplateBound(Exception):
    """A template that writes or loops without end."""


def run_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    *,
    generation: bool,
    thinking: bool = False,
    date: str = DATE,
) -> str:
    """The text of a conversation by the tokenizer's own template, as transformers writes it on that date.

    `enable_thinking` and `thinking`, the names under which templates ask for it, are set to `thinking`.
    Whatever the template's code raises is passed on.

    Args:
        tokenizer: whose template and special tokens are used.
        messages: role and content of each turn.
        generation: write the generation prompt behind them.
        thinking: whether the model is to think before it answers.
        date: ISO date of `strftime_now`; another one than `DATE` is also given as `date_string`.

    Raises:
        TemplateBound: more than 2^24 characters or 200,000 loop steps.
    """
    settings: dict[str, Any] = {"enable_thinking": thinking, "thinking": thinking}
    if date != DATE:
        settings["date_string"] = datetime.date.fromisoformat(date).strftime("%d %b %Y")
    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generation, **settings
            )
        )
    template, count = _compiled(tokenizer.get_chat_template(), date)
    count.clear()
    pieces, length = [], 0
    for piece in template.generate(
        messages=[dict(message) for message in messages],
        tools=None,
        documents=None,
        add_generation_prompt=generation,
        **{**tokenizer.special_tokens_map, **settings},
    ):
        length += len(piece)
        _bound(length)
        pieces.append(piece)
    return "".join(pieces)


def _bound(length: int) -> None:
    if length > MOST_CHARACTERS:
        raise TemplateBound(f"it writes more than {MOST_CHARACTERS:,} characters")


@dataclass
class _Count:
    steps: int = 0
    made: int = 0

    def clear(self) -> None:
        self.steps = self.made = 0

    def __call__(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TemplateBound(f"its loops and calls take more than {MOST_STEPS:,} steps")

    def measured(self, made: Any) -> Any:
        """A text, list or number that a step made: no giant, and not too much of them all."""
        if isinstance(made, (str, bytes, list, tuple, dict)):
            _bound(len(made))
            self.made += len(made)
            if self.made > MOST_MADE:
                raise TemplateBound(f"its steps make more than {MOST_MADE:,} characters")
        elif isinstance(made, int) and made.bit_length() > MOST_BITS:
            raise TemplateBound(f"it makes numbers of more than {MOST_BITS:,} bits")
        return made


class _Concatenating(CodeGenerator):
    """Sends `a ~ b` where `a + b` goes."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Bounded(ImmutableSandboxedEnvironment):
    """A sandbox in which no single step makes a text or list beyond all measure."""

    code_generator_class = _Concatenating
    count: _Count
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if hasattr(many, "__len__") and isinstance(times, int):
                    _bound(len(many) * times)
        if operator == "**" and any(isinstance(side, int) and abs(side) > 1000 for side in (left, right)):
            raise TemplateBound("it raises numbers to powers beyond 1,000")
        if operator == "%" and isinstance(left, str):
            _formatted(left, right if isinstance(right, tuple) else [right])
        return self.count.measured(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        self.count()  # macros that call each other need no loop
        method = getattr(function, "__wrapped__", function)  # the sandbox wraps str.format
        _check_step(getattr(function, "__name__", ""), [getattr(method, "__self__", None), *args], kwargs)
        return self.count.measured(super().call(context, function, *args, **kwargs))

    def joined(self, parts: Iterable[Any]) -> str:
        """`a ~ b ~ c`, and what a block or macro wrote."""
        texts = [str(part) for part in parts]
        _bound(sum(map(len, texts)))
        made: str = self.count.measured("".join(texts))
        return made


def _check_step(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """No text method or filter is asked for a width, count or replacement beyond all measure."""
    _small([*args[1:], *kwargs.values()])
    texts = [text for text in args if isinstance(text, str)]
    if name in ("format", "format_map", "do_format") and texts:
        _formatted(texts[0], [*args[1:], *kwargs.values()])
    numbers = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, int)]
    if name in ("do_indent", "expandtabs", "tojson", "do_tojson") and args and numbers:
        places = str(args[0]).count("\t" if name == "expandtabs" else "\n") + 1
        _bound((_entries(args[0]) if "tojson" in name else places) * max(numbers))
    if name in _GATHERING and args:
        parts = args[1] if name == "join" and len(args) > 1 else args[0]
        if isinstance(parts, (list, tuple)):
            between = max([len(text) for text in texts], default=0)
            _bound(sum(len(part) if hasattr(part, "__len__") else 1 for part in parts) + between * len(parts))
    if name == "translate" and texts and isinstance(args[-1], Mapping):
        _bound(len(texts[0]) * max((len(str(value)) for value in args[-1].values()), default=0))
    if name in ("replace", "do_replace") and len(texts) >= 3:
        _bound(texts[-3].count(texts[-2]) * len(texts[-1]))


def _small(values: Sequence[Any]) -> None:
    if any(isinstance(value, int) and value > MOST_WIDTH for value in values):
        raise TemplateBound(f"it asks for a width or count above {MOST_WIDTH:,}")


def _entries(data: Any, deep: int = 20) -> int:
    """Values inside nested lists and mappings."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if not isinstance(data, (list, tuple)) or not deep:
        return 1
    return sum(_entries(one, deep - 1) for one in data) + 1


def _formatted(text: str, values: Sequence[Any]) -> None:
    """No field is wide beyond measure, and all fields together do not write too much."""
    _small(values)
    if _WIDTH.search(text):
        raise TemplateBound(f"it formats text to a width above {MOST_WIDTH:,}")
    widths = [int(one) for one in re.findall(r"\d{1,7}", text)] + [v for v in values if isinstance(v, int)]
    longest = max([len(v) for v in values if hasattr(v, "__len__")] + widths, default=0)
    _bound((text.count("%") + text.count("{")) * min(longest, MOST_CHARACTERS) + len(text))


def _measuring(filter_: Callable[..., Any], count: _Count) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def measured(*args: Any, **kwargs: Any) -> Any:
        at = int(hasattr(filter_, "jinja_pass_arg"))  # the context comes first then
        if filter_.__name__ in _GATHERING and len(args) > at and hasattr(args[at], "__next__"):
            args = (*args[:at], list(args[at]), *args[at + 1 :])
        _check_step(filter_.__name__, args[at:], kwargs)
        return count.measured(filter_(*args, **kwargs))

    return measured


@functools.lru_cache(maxsize=64)
def _compiled(source: str, date: str) -> tuple[Template, _Count]:
    theirs: Environment = _compile_jinja_template(
        ""
    ).environment  # not of the source: compiling folds constants
    ours = _Bounded(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        extensions=[type(one) for one in theirs.extensions.values()],
    )
    day, count = datetime.datetime.fromisoformat(date), _Count()
    ours.count = count
    ours.concat = ours.joined  # type: ignore[method-assign,assignment]  # of what blocks and macros collect
    # Not `random`: a prompt is the same every time.
    ours.filters = {name: _measuring(one, count) for name, one in theirs.filters.items() if name != "random"}
    ours.globals = {
        **{name: one for name, one in theirs.globals.items() if name != "lipsum"},
        "strftime_now": day.strftime,
        _STEP: count,
    }
    tree = ours.parse(source)
    for loop in tree.find_all(nodes.For):
        step = nodes.Call(nodes.Name(_STEP, "load"), [], [], None, None)
        loop.body.insert(0, nodes.ExprStmt(step))
    tree.set_environment(ours)
    code = ours.compile(tree)
    return ours.template_class.from_code(ours, code, ours.make_globals(None)), count


def refuse_bad_date(date: str) -> None:
    """Raise InputError unless the text is a date such as 2026-01-31."""
    try:
        datetime.date.fromisoformat(date)
    except (TypeError, ValueError) as error:
        raise InputError(f"date is {date!r}; it must be a day such as {DATE!r}") from error
