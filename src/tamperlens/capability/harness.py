"""Tasks of the lm-evaluation-harness on the model at hand: the same weights, adapters included."""

from __future__ import annotations

import copy
import functools
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike
from tamperlens.base.results import Result
from tamperlens.base.stats import Estimate
from tamperlens.models import ChatModel, ModelLike, as_chat_model, share_parameters_copy
from tamperlens.prompts import Prompt
from tamperlens_hooks import unwrap

INSTALL = 'pip install "tamperlens[lm-eval]"'


@dataclass(frozen=True)
class HarnessScores(Result):
    """What the lm-evaluation-harness found.

    Attributes:
        model: name of the model.
        fingerprint: of the model.
        rows: one row per task and metric: task, metric, filter, value, low, high, n, shots, version. The
            interval is value ± 1.96 of the harness's own standard error, in [0, 1] where the value is.
        version: of lm-eval.
        settings: limit, seed, chat template.
    """

    model: str
    fingerprint: str
    rows: pd.DataFrame
    version: str
    settings: dict[str, object]

    def summary(self) -> str:
        """Every task's first metric."""
        first = self.rows.drop_duplicates("task")
        listed = "; ".join(
            f"{row['task']} {row['metric']} {row['value']:.3f}" for row in first.to_dict("records")
        )
        return f"{self.model}, lm-eval {self.version}: {listed}."

    def estimate(self, task: str, metric: str = "acc") -> Estimate:
        """One value with its interval.

        Raises:
            InputError: no such task or metric.
        """
        found = self.rows[(self.rows["task"] == task) & (self.rows["metric"] == metric)]
        if found.empty:
            known = ", ".join(f"{t} {m}" for t, m in zip(self.rows["task"], self.rows["metric"], strict=True))
            raise InputError(f"no {metric!r} of task {task!r}; there are {known}")
        row = found.iloc[0]
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), "normal 95% (lm-eval stderr)")


def harness(
    model: ModelLike,
    tasks: str | Sequence[str],
    *,
    limit: int | None = None,
    shots: int | None = None,
    batch_size: int = 8,
    chat: bool = False,
    include: PathLike | None = None,
    seed: int = 0,
) -> HarnessScores:
    """Run tasks of the lm-evaluation-harness on a loaded model.

    The harness gets modules of its own around the same weights and a copy of the tokenizer, so the model
    stays as it was. Its tasks read their data from the Hugging Face hub unless they name local files.

    Args:
        model: the model, with or without an adapter.
        tasks: names of tasks, such as "arc_easy".
        limit: only the first so many items of each task.
        shots: examples in the prompt; each task's own number by default.
        batch_size: items at once.
        chat: write prompts as every other measure does (`ChatModel.render`): the same template, thinking as
            the model's format has it (off by default), the same date.
        include: a folder with task definitions (YAML) of your own.
        seed: of everything that the harness draws.

    Raises:
        InputError: lm-eval is not installed, does not know a task, or cannot get its data.
    """
    model = as_chat_model(model)
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(f"lm-eval is not installed, and harness tasks need it: {INSTALL}")
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=None if include is None else str(include))
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown or not names:
        raise InputError(
            f"lm-eval has no task {unknown[0]!r}; `lm-eval ls tasks` lists them, include= adds a folder of "
            "your own"
            if unknown
            else "no tasks; name at least one, such as 'arc_easy'"
        )
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.apply_chat_template = functools.partial(_written, model)
    runner = HFLM(
        pretrained=unwrap(share_parameters_copy(model).module),
        tokenizer=tokenizer,
        batch_size=batch_size,
        backend="causal",
    )
    try:
        found = lm_eval.simple_evaluate(
            model=runner, tasks=names, num_fewshot=shots, limit=limit, task_manager=manager,
            apply_chat_template=chat, log_samples=False, bootstrap_iters=1000, random_seed=seed,
            numpy_random_seed=seed, torch_random_seed=seed, fewshot_random_seed=seed,
        )  # fmt: skip
    except OSError as error:  # no connection, offline mode, nothing in the cache: all of this kind
        raise InputError(
            f"the data of {', '.join(names)} cannot be had ({type(error).__name__}: {error!s:.200}); run "
            "once with a connection, so that they are kept, or name a task on local files with include="
        ) from error
    return HarnessScores(
        model.name,
        model.fingerprint,
        pd.DataFrame(_rows(found)),
        str(getattr(lm_eval, "__version__", "unknown")),
        {
            "limit": limit,
            "shots": shots,
            "chat": chat,
            "seed": seed,
            **({"chat_format": model.chat_format.name, "date": model.chat_format.date} if chat else {}),
        },
    )


def _written(model: ChatModel, conversation: Sequence[dict[str, str]], **_: Any) -> str:
    """Stands for the tokenizer's `apply_chat_template`; a last message of the assistant is gone on with."""
    turns = [(message["role"], message["content"]) for message in conversation]
    prefill = turns.pop()[1] if turns[-1][0] == "assistant" else None
    return model.render(Prompt(turns[-1][1], turns[:-1]), prefill=prefill)


def _rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Tidy rows of the harness's results, whose keys read "acc,none" and "acc_stderr,none"."""
    rows = []
    for task, values in found["results"].items():
        for key, value in values.items():
            metric, _, kept = key.partition(",")
            if metric.endswith("_stderr") or isinstance(value, (str, bool)) or not kept:
                continue
            error = values.get(f"{metric}_stderr,{kept}")
            half = 1.96 * error if isinstance(error, (int, float)) else math.nan
            inside = 0 <= value <= 1 and "perplexity" not in metric
            low, high = value - half, value + half
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": kept,
                    "value": float(value),
                    "low": max(low, 0.0) if inside else low,
                    "high": min(high, 1.0) if inside else high,
                    "n": int(found.get("n-samples", {}).get(task, {}).get("effective", 0)),
                    "shots": int(found.get("n-shot", {}).get(task, 0) or 0),
                    "version": str(found.get("versions", {}).get(task, "")),
                }
            )
    return rows
