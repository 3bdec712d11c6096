"""Settings in the words of transformers' Trainer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import TrainingArguments

from tamperlens.base.errors import InputError
from tamperlens.finetune import processes, sharding
from tamperlens.finetune.configs import LoraConfig
from tamperlens.finetune.fitting import Config
from tamperlens.models import ChatModel

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def steps_of(config: Config, n: int) -> int:
    """Optimizer steps of a run on n examples."""
    batches = math.ceil(n / (config.batch_size * processes.count()))
    per_epoch = math.ceil(batches / config.accumulation)
    return config.steps or max(1, math.ceil((config.epochs or 1) * per_epoch))


def training_arguments(
    base: ChatModel, config: Config, n: int, work: Path, keep: bool, report_to: Sequence[str]
) -> TrainingArguments:
    """Arguments of the Trainer.

    Args:
        base: the model.
        config: settings.
        n: number of examples.
        work: folder for checkpoints.
        keep: whether checkpoints are written.
        report_to: services to log to.
    """
    steps = steps_of(config, n)
    warmup = math.ceil(config.warmup * steps) if config.warmup < 1 else int(config.warmup)
    device = processes.trains_on(base)
    cpu = device.type == "cpu"
    precision = _autocast(base, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=str(work),
            max_steps=steps,
            per_device_train_batch_size=config.batch_size,
            gradient_accumulation_steps=config.accumulation,
            learning_rate=config.learning_rate,
            lr_scheduler_type=_SCHEDULES[config.schedule],
            warmup_steps=warmup,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            optim="adamw_torch",
            seed=config.seed,
            data_seed=config.seed,
            bf16=precision == "bfloat16",
            fp16=precision == "float16",
            logging_steps=config.log_every,
            logging_nan_inf_filter=False,
            save_strategy="steps" if keep else "no",
            save_steps=config.save_every or max(1, math.ceil(steps / 10)),
            report_to=list(report_to) or "none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=not cpu,
            use_cpu=cpu,
        )
        # A process, a device: several visible GPUs would otherwise be wrapped in DataParallel.
        arguments._n_gpu = min(arguments.n_gpu, 1)
    sharding.allow_cpu(device)
    return arguments


def _autocast(base: ChatModel, config: Config) -> str | None:
    """The type to run autocast in; None where the weights' own type is the one to compute in."""
    held = str(base.dtype).removeprefix("torch.")
    wanted = held if config.precision == "auto" else config.precision
    if wanted == "float32" or (wanted == held == "bfloat16" and isinstance(config, LoraConfig)):
        return None
    return wanted


@contextmanager
def services(names: Sequence[str]) -> Iterator[None]:
    """Say which service is missing, in words, where transformers fails to reach one that was asked for."""
    try:
        yield
    except (RuntimeError, ValueError, ImportError) as error:
        if not names:
            raise
        raise InputError(f"report_to={list(names)}: {str(error).splitlines()[0]}") from error
