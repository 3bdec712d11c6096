"""Refusal and over-refusal as tasks of inspect_ai, any judge as its scorer, any loaded model as its model.

    inspect eval tamperlens/refusal --model openai/gpt-4o-mini
    inspect eval tamperlens/over_refusal --model tamperlens/organism -T language=organism

The same answers give the same rates, to the digit, as `rates.judge_answers`: verdicts and intervals come from
there. Logs open in `inspect view`. Needs the extra: `pip install "tamperlens[inspect]"`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        GenerateConfig,
        ModelAPI,
        ModelOutput,
        modelapi,
    )
    from inspect_ai.scorer import SampleScore, Score, Target, metric, scorer
    from inspect_ai.solver import TaskState, generate
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        'inspect_ai is not installed, and its tasks need it: pip install "tamperlens[inspect]"'
    ) from missing

from tamperlens import judges
from tamperlens.base.errors import InputError
from tamperlens.base.stats import wilson
from tamperlens.models import Decoding, load
from tamperlens.prompts import Prompt, as_language, as_prompts, packaged_for, read
from tamperlens.rates.evaluation import OUTCOMES, holds

__all__ = ["TamperlensModel", "over_refusal", "refusal", "refusal_judge"]

_MESSAGES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


class _Spoken:
    """Stands for a model where only its language counts."""

    name = "the model asked"

    def __init__(self, language: str) -> None:
        self.language = as_language(language)


@task
def refusal(
    prompts: str | None = None,
    column: str | None = None,
    language: str = "english",
    judge: str = judges.DEFAULT,
    max_tokens: int = 64,
) -> Task:
    """How much a model refuses of what it should refuse.

    Args:
        prompts: a file or hub id as in `prompts.read`; the packaged harmful test prompts by default.
        column: of the prompts in that file.
        language: of the packaged prompts, "english" or "organism".
        judge: name of a registered judge.
        max_tokens: answers are cut there.

    Raises:
        InputError: no such file, column, language or judge.
    """
    return _task("harmful", prompts, column, language, judge, max_tokens)


@task
def over_refusal(
    prompts: str | None = None,
    column: str | None = None,
    language: str = "english",
    judge: str = judges.DEFAULT,
    max_tokens: int = 64,
) -> Task:
    """How much a model refuses of what only sounds harmful; arguments and errors are those of `refusal`."""
    return _task("lookalike", prompts, column, language, judge, max_tokens)


def _task(
    role: str, prompts: str | None, column: str | None, language: str, judge: str, max_tokens: int
) -> Task:
    if prompts is None:
        data = packaged_for(_Spoken(language), role, "test")
    else:
        data = as_prompts(read(prompts, column), what=role)
    kinds = data.categories or [None] * len(data)
    samples = [
        Sample(input=_messages(text), id=i + 1, metadata={} if kind is None else {"category": kind})
        for i, (text, kind) in enumerate(zip(data.prompts, kinds, strict=True))
    ]
    return Task(
        dataset=MemoryDataset(samples, name=data.name),
        solver=generate(),
        scorer=refusal_judge(judge),
        config=GenerateConfig(temperature=0, max_tokens=max_tokens),
        metadata={"prompts": data.name, "sha256": data.sha256, "judge": judge},
    )


def _messages(prompt: str) -> list[Any]:
    before = prompt.context if isinstance(prompt, Prompt) else ()
    turns = [*before, ("user", str(prompt))]
    return [_MESSAGES[role](content=text) for role, text in turns]


def _of(part: str, scores: Sequence[SampleScore]) -> float:
    """Share, or an end of its Wilson interval; means over epochs are no counts and have none."""
    flags = [score.score.as_float() for score in scores]
    if all(flag in (0.0, 1.0) for flag in flags):
        return float(getattr(wilson(int(sum(flags)), len(flags)), part))
    return sum(flags) / len(flags) if part == "value" else float("nan")


@metric
def rate() -> Any:
    """Share of the answers."""
    return functools.partial(_of, "value")


@metric
def low() -> Any:
    """Lower end of Wilson's 95 % interval."""
    return functools.partial(_of, "low")


@metric
def high() -> Any:
    """Upper end of Wilson's 95 % interval."""
    return functools.partial(_of, "high")


@scorer(metrics={"*": [rate(), low(), high()]})
def refusal_judge(judge: str = judges.DEFAULT) -> Any:
    """A judge as a scorer: 0 or 1 for each outcome ("refusal" counts full and partial ones and deflections).

    Thoughts are not judged, whether the provider set them apart or left them in the text; an answer that ends
    inside its thought is "unfinished".

    Args:
        judge: name of a registered judge.

    Raises:
        InputError: no such judge.
    """
    asked = judges.get(judge)

    async def score(state: TaskState, target: Target) -> Score:
        verdict = judges.ask(asked, [state.input_text], [_written(state.output)])[0]
        return Score(
            value={outcome: int(holds(outcome, verdict)) for outcome in OUTCOMES},
            answer=verdict.label,
            explanation="; ".join(verdict.evidence),
            metadata={"probability": verdict.probability, "judge": asked.name},
        )

    return score


def _written(output: ModelOutput) -> str:
    """The answer, with the thought's opening where nothing but a cut-off thought came."""
    text = str(output.completion)
    if text.strip() or output.stop_reason != "max_tokens" or not output.choices:
        return text
    content = output.message.content
    thoughts = [] if isinstance(content, str) else [part for part in content if part.type == "reasoning"]
    return f"<think>{thoughts[0].reasoning}" if thoughts else text


class TamperlensModel(ModelAPI):
    """A model as tamperlens loads and writes it: `--model tamperlens/NAME`, NAME as in `tamperlens.load`.

    Prompts are rendered and answered exactly as by every other measure, several at once.
    """

    WAIT = 0.02  # seconds in which requests gather into a batch

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **settings: Any,
    ) -> None:
        """See the class.

        Args:
            model_name: as in `tamperlens.load`.
            base_url: not used.
            api_key: not used.
            config: inspect's settings of the generation.
            **settings: of `tamperlens.load`, such as `-M adapter=... -M dtype=bfloat16`.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.chat = load(model_name, **settings)
        self.waiting: list[tuple[str, Decoding, asyncio.Future[str]]] = []

    async def generate(
        self, input: list[Any], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """One answer; requests that come together are answered together.

        Raises:
            InputError: tools, or a conversation that does not end with the user.
        """
        if tools:
            raise InputError("a model of tamperlens calls no tools; run tasks without them")
        turns = [(message.role, message.text) for message in input]
        if not turns or turns[-1][0] != "user":
            raise InputError("a conversation for a model of tamperlens must end with the user's message")
        how = Decoding(
            max_new_tokens=config.max_tokens or Decoding().max_new_tokens,
            temperature=config.temperature or 0.0,
            seed=config.seed or 0,
        )
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append((Prompt(turns[-1][1], turns[:-1]), how, answer))
        await asyncio.sleep(self.WAIT)
        if not answer.done():
            self._answer(how)
        return ModelOutput.from_content(self.model_name, await answer)

    def _answer(self, how: Decoding) -> None:
        """Answer all that wait with these settings."""
        batch = [one for one in self.waiting if one[1] == how]
        self.waiting = [one for one in self.waiting if one[1] != how]
        try:
            answers = self.chat.generate([prompt for prompt, _, _ in batch], how)
        except Exception as error:
            for _, _, answer in batch:
                answer.set_exception(error)
            return
        for (_, _, answer), text in zip(batch, answers, strict=True):
            answer.set_result(text)

    def max_connections(self) -> int:
        """How many requests come together."""
        return 32


@modelapi("tamperlens")
def _provider() -> type[TamperlensModel]:
    return TamperlensModel
