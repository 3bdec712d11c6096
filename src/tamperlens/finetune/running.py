"""`run`: fine-tune a model, and leave it as it was."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers.trainer_callback import PrinterCallback

from tamperlens.base.errors import RunFolderError
from tamperlens.base.files import PathLike
from tamperlens.base.masks import WeightMask
from tamperlens.base.protocols import Recorder
from tamperlens.base.runs import RunFolder
from tamperlens.finetune import processes, sharding
from tamperlens.finetune.adapters import add_adapter
from tamperlens.finetune.arguments import services, training_arguments
from tamperlens.finetune.attacks import Attack
from tamperlens.finetune.callbacks import Follow, Recording, check_recorders
from tamperlens.finetune.checkpoints import checkpoints, step_of
from tamperlens.finetune.compute import Compute, FlopModel, Meter, flop_model
from tamperlens.finetune.configs import LoraConfig
from tamperlens.finetune.data import Collator, Turns, encode
from tamperlens.finetune.defending import Defence, Training, check_defence, is_on, join
from tamperlens.finetune.fitting import Config, check_fit, settle
from tamperlens.finetune.freezing import apply_freeze, check_freeze
from tamperlens.finetune.training import DivergenceError, Guard, ResponseLoss, ResponseTrainer
from tamperlens.finetune.tuned import LOG_COLUMNS, TunedModel, full_copy
from tamperlens.models import ChatModel, ModelLike, as_chat_model
from tamperlens.prompts import PromptSet, PromptsLike
from tamperlens_hooks import unwrap
from tamperlens_hooks.shards import own_tensors
from tamperlens_hooks.state import preserved_randomness


def run(
    model: ModelLike,
    data: PromptsLike | Attack,
    config: Config | None = None,
    *,
    freeze: WeightMask | None = None,
    defence: Defence | None = None,
    recorders: Sequence[Recorder] = (),
    out: PathLike | None = None,
    resume: bool = True,
    progress: bool = True,
    seed: int | None = None,
    report_to: str | Sequence[str] = (),
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
        defence: what stands against the attack, from `finetune.defences`. One that changes the start makes
            `TunedModel.base` the changed model. A defended run keeps no checkpoints: interrupted, it starts
            over. The bill does not count what a defence computes besides.
        recorders: called with the model at step 0, every `recorder.every` steps (1 by default) and at
            the end.
        out: a folder for checkpoints, adapter, log and bill; without it nothing is written to disk.
        resume: go on from the checkpoints in `out`, or read the finished run there, if it is the same run.
        progress: show a bar with the loss.
        seed: overrides the config's.
        report_to: services of transformers to log to, such as "tensorboard" or "wandb"; none unless asked.

    A model that one device does not hold is spread by `load(..., device_map="auto")`, which the run leaves as
    it is. Under `torchrun` or `accelerate launch` the processes train data parallel, each with the whole
    model on its own device; `batch_size` is then per process. Without dropout, n processes give what one with
    n times the batch size gives, to rounding, where that divides the data (else an epoch's last batch is
    filled up with examples from its start). The first process alone writes `out` (which all must reach),
    calls the recorders and has their rows; weights, log and counts are the same in all. With `accelerate
    launch --use_fsdp --fsdp_version 2` each process keeps a slice of the weights in training (load the model
    on the CPU: the slices go to the GPUs), and the first one a whole copy beside the base for recorders.
    DeepSpeed and FSDP's first version are refused.

    Raises:
        InputError: empty or unusable data, settings that do not fit the model, a model with an adapter,
            sharded weights, or processes that were given different things.
        DivergenceError: (a NumericsError) the loss or a gradient became NaN, infinite, or exploded. It names
            the step, and its `.tuned` is the model with the last good weights.
        RunFolderError: `out` cannot be written, or holds another run.

    Examples:
        >>> import tamperlens
        >>> from tamperlens import finetune
        >>> model = tamperlens.load('organism')
        >>> attack = finetune.attacks.harmful_compliance(15)
        >>> config = finetune.LoraConfig(rank=4, alpha=8, steps=2, batch_size=4)
        >>> tuned = finetune.run(model, attack, config, progress=False)
        >>> len(tuned.log)
        2
    """
    model = as_chat_model(model)
    prompts, config = settle(model, data, config, seed)
    check_recorders(recorders)
    trackers = (report_to,) if isinstance(report_to, str) else tuple(report_to)
    if is_on(defence):
        assert defence is not None
        check_defence(defence, model, config)
        model, prompts = defence.start(model), defence.data(prompts, model)
        if defence.freeze is not None:
            freeze = defence.freeze if freeze is None else freeze | defence.freeze
    else:
        defence = None
    check_freeze(model, freeze, config)
    check_fit(model, config)
    sharding.check()
    processes.join(model)
    if processes.count() > 1:
        frozen = None if freeze is None else freeze.sha256
        processes.check_same(
            model=model.fingerprint, data=prompts.sha256, config=config, freeze=frozen, out=str(out)
        )
    turns = encode(model, prompts, config.max_length)
    with ExitStack() as stack:
        folder: RunFolder | None = None
        if out is not None:
            folder = processes.by_first(lambda: _open(out, model, prompts, config, resume, freeze, defence))
            if folder is not None:
                stack.enter_context(folder)
            work = Path(out) / "checkpoints"
            if processes.everyone(folder is not None and folder.finished)[0]:
                if recorders:
                    raise RunFolderError(
                        f"{out} holds this run, finished, so recorders cannot watch it; choose another folder"
                    )
                return TunedModel.load(Path(out) / "tuned", model)
            work.mkdir(exist_ok=True)
        else:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tamperlens-")))
        stack.enter_context(preserved_randomness())
        if not processes.first():
            recorders, progress = (), False
        session = _Session(
            model,
            prompts,
            config,
            turns,
            recorders,
            work,
            out is not None,
            trackers,
            progress,
            freeze,
            defence,
        )
        if folder is None:
            tuned = session.train()
            if out is not None:
                processes.by_first(lambda: None)  # hears whether the first one could save
            processes.everyone("done")
            return tuned
        with folder.stage("train"):
            try:
                tuned = session.train()
            except DivergenceError as error:
                if error.tuned is not None:
                    error.tuned.save(folder.path / "last-good")
                raise
            processes.by_first(lambda: tuned.save(folder.path / "tuned"))
        bill = tuned.accounting
        folder.note_training(tokens=bill.tokens, flops=bill.flops, formula=bill.formula)
        folder.finish()
        processes.everyone("done")
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
        defence: Defence | None,
    ) -> None:
        self.base, self.prompts, self.config, self.work = base, prompts, config, work
        self.freeze, self.defence = freeze, defence
        self.meter = Meter()
        torch.manual_seed(config.seed)
        self.model, self.flops = _prepare(base, config)
        holding = [] if freeze is None else apply_freeze(self.model, base, config, freeze)
        self.whole = self._whole_copy() if sharding.wanted() else self.model
        sharded = self.whole is not self.model
        self.mirror = sharding.Mirror(self.whole, self.model.module) if sharded else None
        self.use_cache = getattr(unwrap(self.model.module).config, "use_cache", None)
        guard = Guard(self.model.module, base.anatomy.d_vocab)
        keep = keep and defence is None  # a defence's own state is in no checkpoint
        arguments = training_arguments(base, config, len(turns), work, keep, report_to)
        with warnings.catch_warnings(), services(report_to):
            warnings.simplefilter("ignore")
            self.trainer = ResponseTrainer(
                meter=self.meter,
                model=self.model.module,
                args=arguments,
                train_dataset=turns,
                data_collator=Collator(base.pad_id),
                compute_loss_func=ResponseLoss(guard),
            )
        if self.mirror is not None:  # every process has the weights, none needs to be sent them
            self.trainer.accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False
        self.recording = Recording(recorders, base, self.whole, self.trainer.rows, self.meter, self.mirror)
        self.follow = Follow(self.meter, progress)
        self.trainer.remove_callback(PrinterCallback)
        for callback in (*holding, guard, self.recording, self.follow):
            self.trainer.add_callback(callback)
        if defence is not None:
            join(self.trainer, defence, Training(self.model, base, config.seed))
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
        tuned = self.tuned()
        return tuned if self.defence is None else self.defence.finish(tuned)

    def tuned(self) -> TunedModel:
        """The model as it is now."""
        meter = self.meter
        if self.mirror is not None:
            self.mirror.refresh()
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
            device=_device_name(processes.trains_on(self.base)),
        )
        return TunedModel(
            model=self.whole,
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

    def _whole_copy(self) -> ChatModel:
        """A whole copy beside the one that will be sharded, prepared alike."""
        own_tensors(self.model.module)
        with preserved_randomness():
            copy, _ = _prepare(self.base, dataclasses.replace(self.config, gradient_checkpointing=False))
        if self.freeze is not None and isinstance(self.config, LoraConfig):
            apply_freeze(copy, self.base, self.config, self.freeze)
        copy.module.eval()
        return copy

    def _tidy(self, module: Any) -> None:
        """Evaluation mode, no gradients, no autocast or checkpointing, the base's device and cache flag."""
        if self.mirror is not None:  # which was never trained in
            return
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


def _open(
    out: PathLike,
    model: ChatModel,
    prompts: PromptSet,
    config: Config,
    resume: bool,
    freeze: WeightMask | None,
    defence: Defence | None,
) -> RunFolder:
    folder = RunFolder.open(
        out,
        kind="finetune",
        config={
            "base": model.fingerprint,
            "data": prompts.sha256,
            "training": {k: v for k, v in config.describe().items() if k not in ("log_every", "save_every")},
            **({} if freeze is None else {"freeze": freeze.sha256}),
            **({} if defence is None else {"defence": defence.describe()}),
            **({} if processes.count() == 1 else {"processes": processes.count()}),
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
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if processes.count() == 1 else f"{processes.count()} × {name}"
