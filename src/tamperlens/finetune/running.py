"""`run`: fine-tune a model, and leave it as it was."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike
from tamperlens.base.masks import WeightMask
from tamperlens.base.protocols import Recorder
from tamperlens.base.runs import RunFolder
from tamperlens.finetune.adapters import add_adapter
from tamperlens.finetune.attacks import Attack
from tamperlens.finetune.callbacks import Follow, Recording, check_recorders
from tamperlens.finetune.checkpoints import checkpoints, step_of
from tamperlens.finetune.compute import Compute, FlopModel, Meter, flop_model
from tamperlens.finetune.configs import FullConfig, LoraConfig
from tamperlens.finetune.data import Collator, Turns, encode
from tamperlens.finetune.freezing import apply_freeze, check_freeze, hash_of
from tamperlens.finetune.rng import preserved_randomness
from tamperlens.finetune.training import DivergenceError, Guard, ResponseLoss, ResponseTrainer
from tamperlens.finetune.tuned import LOG_COLUMNS, TunedModel, full_copy
from tamperlens.models import ChatModel
from tamperlens.prompts import PromptSet
from tamperlens_hooks import unwrap

Config = LoraConfig | FullConfig
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def run(
    model: ChatModel,
    data: PromptSet | Attack,
    config: Config | None = None,
    *,
    freeze: WeightMask | None = None,
    recorders: Sequence[Recorder] = (),
    out: PathLike | None = None,
    resume: bool = True,
    progress: bool = True,
    seed: int | None = None,
    report_to: Sequence[str] = (),
) -> TunedModel:
    """Fine-tune a model on prompts with responses, by transformers' Trainer and PEFT.

    The loss is the mean negative log-likelihood of the answers' tokens (and of the end-of-turn token that
    closes them), over all batches of an optimizer step together. LoRA trains a copy that shares the weights,
    full fine-tuning an fp32 copy; the model that was handed in stays bit for bit what it was, and so do the
    global random states of Python, numpy and torch. Initialisation, data order and dropout follow from the
    seed.

    Args:
        model: the base; it must carry no adapter.
        data: prompts with responses, or an `Attack`, which brings its own settings.
        config: `LoraConfig` or `FullConfig`; may be left out for an `Attack` (`Attack.config_for`).
        freeze: weights that must not move: the merged weight holds the base's bits there, in every step and
            after saving and loading. LoRA computes with the update switched off at these entries
            (`tamperlens_hooks.freeze`); full fine-tuning restores them after every optimizer step. Weights
            outside the mask, and matrices outside `config.targets`, are as without it.
        recorders: called with the model at step 0, every `recorder.every` steps (1 by default) and at
            the end.
        out: a folder for checkpoints, adapter, log and bill; without it nothing is written to disk.
        resume: go on from the checkpoints in `out`, or read the finished run there, if it is the same run.
        progress: show a bar with the loss.
        seed: overrides the config's.
        report_to: services of transformers to log to, such as "tensorboard"; none unless asked for.

    Raises:
        InputError: empty or unusable data, settings that do not fit the model, a model with an adapter.
        DivergenceError: (a NumericsError) the loss or a gradient became NaN, infinite, or exploded. It names
            the step, and its `.tuned` is the model with the last good weights.
        RunFolderError: `out` cannot be written, or holds another run.
    """
    prompts, config = _settle(model, data, config, seed)
    check_recorders(recorders)
    check_freeze(model, freeze, config)
    _check_fit(model, config)
    turns = encode(model, prompts, config.max_length)
    with ExitStack() as stack:
        folder: RunFolder | None = None
        if out is not None:
            folder = stack.enter_context(_open(out, model, prompts, config, resume, freeze))
            if folder.finished:
                if recorders:
                    raise RunFolderError(
                        f"{folder.path} holds this run, finished, so recorders cannot watch it; choose "
                        "another folder"
                    )
                return TunedModel.load(folder.path / "tuned", model)
            work = folder.file("checkpoints", "x").parent
        else:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tamperlens-")))
        stack.enter_context(preserved_randomness())
        session = _Session(
            model, prompts, config, turns, recorders, work, folder is not None, report_to, progress, freeze
        )
        if folder is None:
            return session.train()
        with folder.stage("train"):
            try:
                tuned = session.train()
            except DivergenceError as error:
                if error.tuned is not None:
                    error.tuned.save(folder.path / "last-good")
                raise
            tuned.save(folder.path / "tuned")
        bill = tuned.accounting
        folder.note_training(tokens=bill.tokens, flops=bill.flops, formula=bill.formula)
        folder.finish()
        return tuned


class _Session:
    """One run from the fresh copy to the tuned model."""

    def __init__(
        self,
        base: ChatModel,
        prompts: PromptSet,
        config: Config,
        turns: Turns,
        recorders: Sequence[Recorder],
        work: Path,
        keep: bool,
        report_to: Sequence[str],
        progress: bool,
        freeze: WeightMask | None,
    ) -> None:
        self.base, self.prompts, self.config, self.work = base, prompts, config, work
        self.freeze = freeze
        self.meter = Meter()
        torch.manual_seed(config.seed)
        self.model, self.flops = _prepare(base, config)
        holding = [] if freeze is None else apply_freeze(self.model, base, config, freeze)
        self.use_cache = getattr(unwrap(self.model.module).config, "use_cache", None)
        guard = Guard(self.model.module, base.anatomy.d_vocab)
        arguments = _arguments(base, config, len(turns), work, keep, report_to)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer = ResponseTrainer(
                meter=self.meter,
                model=self.model.module,
                args=arguments,
                train_dataset=turns,
                data_collator=Collator(base.pad_id),
                compute_loss_func=ResponseLoss(guard),
            )
        self.recording = Recording(recorders, base, self.model, self.trainer.rows, self.meter)
        self.follow = Follow(self.meter, progress)
        self.trainer.remove_callback(PrinterCallback)
        for callback in (*holding, guard, self.recording, self.follow):
            self.trainer.add_callback(callback)
        self.recordings: tuple[Any, ...] = ()

    def train(self) -> TunedModel:
        """Train to the end, from the newest checkpoint if there is one."""
        found = checkpoints(self.work)
        module = self.model.module
        self.recording.start()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                if found and step_of(found[-1]) >= self.trainer.args.max_steps:
                    self.trainer.take_over(found[-1])
                else:
                    self.trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
        except DivergenceError as error:
            self._tidy(module)
            error.tuned = self.tuned() if error.good_step is not None else None
            raise
        finally:
            self.follow.close()
        self._tidy(module)
        self.recordings = self.recording.finish()
        return self.tuned()

    def tuned(self) -> TunedModel:
        """The model as it is now."""
        meter = self.meter
        trained = [p.numel() for p in self.model.module.parameters() if p.requires_grad]
        bill = Compute(
            steps=meter.steps,
            sequences=meter.sequences,
            tokens=meter.tokens,
            label_tokens=meter.label_tokens,
            positions=meter.positions,
            flops=self.flops.flops(meter.positions, meter.squares),
            formula=self.flops.formula(),
            trained_parameters=sum(trained),
            wall_seconds=meter.wall_seconds,
            recorder_seconds=meter.recorder_seconds,
            device=_device_name(self.model.device),
        )
        return TunedModel(
            model=self.model,
            base=self.base,
            config=self.config,
            data=self.prompts.name,
            data_sha256=self.prompts.sha256,
            log=_log(self.trainer.state.log_history),
            accounting=bill,
            rows=pd.DataFrame(self.trainer.rows),
            recordings=self.recordings,
            frozen=self.freeze,
        )

    def _tidy(self, module: Any) -> None:
        """Evaluation mode, no gradients, no autocast or checkpointing, the base's device and cache flag."""
        self.trainer.accelerator.unwrap_model(module, keep_fp32_wrapper=False)
        vars(module).pop("forward", None)  # what unwrapping leaves hides the class's own
        if self.config.gradient_checkpointing:
            _recompute(module, False)
        if self.use_cache is not None:
            unwrap(module).config.use_cache = self.use_cache  # type: ignore[union-attr]
        module.zero_grad(set_to_none=True)
        module.eval()
        if getattr(unwrap(module), "hf_device_map", None) is None:
            module.to(self.base.device)


def _settle(
    model: ChatModel, data: PromptSet | Attack, config: Config | None, seed: int | None
) -> tuple[PromptSet, Config]:
    """The prompts and the settings, whatever way they were given."""
    if isinstance(data, Attack):
        config = data.config_for(model) if config is None else config
        data = data.data
    if not isinstance(data, PromptSet):
        raise InputError(f"data is a {type(data).__name__}; give a PromptSet with responses, or an Attack")
    if config is None:
        raise InputError(
            "no config given; pass finetune.LoraConfig(...), finetune.FullConfig(...) or an Attack"
        )
    if not isinstance(config, (LoraConfig, FullConfig)):
        raise InputError(f"config is a {type(config).__name__}; give a LoraConfig or a FullConfig")
    return data, config if seed is None else dataclasses.replace(config, seed=seed)


def _check_fit(model: ChatModel, config: Config) -> None:
    if unwrap(model.module) is not model.module or any(
        hasattr(part, "lora_A") for part in model.module.modules()
    ):
        raise InputError(
            f"{model.name} carries an adapter; fine-tune its base, or go on from TunedModel.merged_model()"
        )
    if config.precision == "float16" and model.device.type != "cuda":
        raise InputError(
            f"precision='float16' needs a CUDA device, {model.name} is on {model.device}; use bfloat16"
        )
    half = model.dtype in (torch.float16, torch.bfloat16)
    if isinstance(config, LoraConfig) and config.precision == "float32" and half:
        raise InputError(
            f"precision='float32' on {model.name}, which is held in "
            f"{str(model.dtype).removeprefix('torch.')}; load it with dtype='float32'"
        )
    if model.dtype == torch.float16 and model.device.type != "cuda":
        raise InputError(f"{model.name} is held in float16 on {model.device}; load it in float32 or bfloat16")
    if isinstance(config, FullConfig) and any(
        not p.is_floating_point() or hasattr(p, "quant_state") for p in model.module.parameters()
    ):
        raise InputError(f"{model.name} is quantised; load it without quantization, or use LoraConfig")


def _prepare(base: ChatModel, config: Config) -> tuple[ChatModel, FlopModel]:
    """The copy to train, with the right weights trainable, and what a step on it costs."""
    checkpointing = config.gradient_checkpointing
    if isinstance(config, LoraConfig):
        model, paths = add_adapter(base, config)
        flops = flop_model(base.anatomy, adapted=paths, rank=config.rank, checkpointing=checkpointing)
        if config.dora:
            flops = dataclasses.replace(flops, name=f"{flops.name}, DoRA (its norms not counted)")
    else:
        model = full_copy(base)
        model.module.requires_grad_(True)
        if not config.train_embeddings:
            for path in (base.anatomy.embedding, base.anatomy.unembedding):
                model.module.get_submodule(path).requires_grad_(False)
        flops = flop_model(
            base.anatomy, checkpointing=checkpointing, unembedding_trained=config.train_embeddings
        )
    if checkpointing:
        _recompute(model.module, True)
    return model, flops


def _recompute(module: Any, on: bool) -> None:
    """Gradient checkpointing on or off; transformers 5.2x renamed it to activation checkpointing."""
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        switch = getattr(module, f"{name}_{'enable' if on else 'disable'}", None)
        if switch is not None:
            switch(**({f"{name}_kwargs": {"use_reentrant": False}} if on else {}))
            return


def _arguments(
    base: ChatModel, config: Config, n: int, work: Path, keep: bool, report_to: Sequence[str]
) -> TrainingArguments:
    batches = math.ceil(n / config.batch_size)
    per_epoch = math.ceil(batches / config.accumulation)
    steps = config.steps or max(1, math.ceil((config.epochs or 1) * per_epoch))
    warmup = math.ceil(config.warmup * steps) if config.warmup < 1 else int(config.warmup)
    cpu = base.device.type == "cpu"
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
        # One process, one device: several visible GPUs would otherwise be wrapped in DataParallel.
        arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _autocast(base: ChatModel, config: Config) -> str | None:
    """The type to run autocast in; None where the weights' own type is the one to compute in."""
    held = str(base.dtype).removeprefix("torch.")
    wanted = held if config.precision == "auto" else config.precision
    if wanted == "float32" or (wanted == held == "bfloat16" and isinstance(config, LoraConfig)):
        return None
    return wanted


def _open(
    out: PathLike,
    model: ChatModel,
    prompts: PromptSet,
    config: Config,
    resume: bool,
    freeze: WeightMask | None,
) -> RunFolder:
    folder = RunFolder.open(
        out,
        kind="finetune",
        config={
            "base": model.fingerprint,
            "data": prompts.sha256,
            "training": {k: v for k, v in config.describe().items() if k not in ("log_every", "save_every")},
            **({} if freeze is None else {"freeze": hash_of(freeze)}),
        },
        artefacts=("tuned", "checkpoints", "last-good"),
        resume=resume,
        seeds={"training": config.seed},
    )
    if not folder.done("start"):
        with folder.stage("start"):
            folder.note(model=model.name, data=prompts.name)
    return folder


def _log(history: Sequence[dict[str, Any]]) -> pd.DataFrame:
    rows = [{name: row.get(name) for name in LOG_COLUMNS} for row in history if "loss" in row]
    return pd.DataFrame(rows, columns=list(LOG_COLUMNS))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
