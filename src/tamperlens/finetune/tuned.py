"""`TunedModel`: what a run gives back, and its folder."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tamperlens.base.boundary import known_names
from tamperlens.base.errors import InputError, ModelLoadError
from tamperlens.base.files import (
    PathLike,
    read_csv,
    read_tensors,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)
from tamperlens.base.masks import WeightMask
from tamperlens.base.nouns import Noun
from tamperlens.base.schemas import REMADE, Schema, read_document, read_table
from tamperlens.finetune.adapters import Factors, base_parameters, factors_of, merged_weights
from tamperlens.finetune.compute import Compute
from tamperlens.finetune.configs import FullConfig, LoraConfig, TrainingConfig
from tamperlens.models import (
    FROZEN,
    ChatModel,
    ModelLike,
    as_chat_model,
    attach_adapter,
    base_fingerprint_of,
    save_adapter,
)
from tamperlens_hooks import unwrap

LOG_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm")
_RECORD, _WEIGHTS = "training.json", "weights.safetensors"
_NOTE = """{n} weights of the base were frozen: {name} says which.

tamperlens.load(base, adapter=this folder) and finetune.TunedModel.load put the mask back, and the merged weight is
then the base's, bit for bit, at these places. WARNING: plain PEFT loads A and B without the mask. The frozen
weights then move by s·B·A like all others, and the result is another model than the one that was trained. To use
it elsewhere, export merged_state_dict() in fp32.
"""  # noqa: E501


@dataclass(frozen=True, eq=False)
class TunedModel(Noun):
    """A fine-tuned model beside its base.

    Attributes:
        model: the tuned model; after LoRA with PEFT's adapter attached and unmerged, after full fine-tuning
            an fp32 copy. In evaluation mode.
        base: the model that was handed in, untouched.
        config: the settings.
        data: name of the prompt set.
        data_sha256: its hash.
        log: one row per logged step: step, epoch, loss (mean per answer token), learning_rate, grad_norm
            (before clipping).
        accounting: tokens, FLOPs and time.
        rows: what the recorders returned: recorder, step and their own columns.
        recordings: the recorders' results, in order; empty when loaded from disk.
        frozen: weights that were held at the base's values, or put back to them, if any.
    """

    model: ChatModel
    base: ChatModel
    config: LoraConfig | FullConfig
    data: str
    data_sha256: str
    log: pd.DataFrame
    accounting: Compute
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    recordings: tuple[object, ...] = ()
    frozen: WeightMask | None = None

    @classmethod
    def wrap(cls, model: ModelLike, base: ModelLike) -> TunedModel:
        """A model that was trained elsewhere beside its base, without a log or a bill.

        Args:
            model: the tuned model: PEFT's adapter on the base, or full weights of the same shape.
            base: the model before.
        """
        model, base = as_chat_model(model), as_chat_model(base, what="base")
        nothing = Compute(0, 0, 0, 0, 0, 0.0, "", 0, 0.0, 0.0, "")
        plain = unwrap(model.module) is model.module
        tuners = getattr(model.module, "peft_config", {}).values()
        dora = any(getattr(one, "use_dora", False) for one in tuners)
        config = FullConfig() if plain else LoraConfig(dora=dora)
        return cls(model, base, config, "", "", pd.DataFrame(columns=list(LOG_COLUMNS)), nothing)

    def with_weights(self, weights: Mapping[str, Tensor], name: str) -> TunedModel:
        """The same run with other weights, as after full fine-tuning; neither model is changed.

        Args:
            weights: by their names in `merged_state_dict()`, all of them.
            name: what the model is called then.
        """
        made = full_copy(self.base)
        with torch.no_grad():
            for label, parameter in made.module.named_parameters():
                parameter.copy_(weights[label])
        made.module.eval()
        config = self.config
        if not isinstance(config, FullConfig):
            shared = {field.name for field in dataclasses.fields(TrainingConfig)}
            config = FullConfig(**{k: v for k, v in vars(config).items() if k in shared})
        model = made.with_module(made.module, name=name)
        return dataclasses.replace(self, model=model, config=config, frozen=None, recordings=())

    def factors(self) -> list[Factors]:
        """The update of every adapted weight as factors s·B·A; empty after full fine-tuning."""
        return factors_of(self.model.module)

    def merged_state_dict(self) -> dict[str, Tensor]:
        """Every weight by its name in the base, in fp32: W0 + s·B·A, or the trained weight.

        New tensors on the weights' devices; neither model is changed. Tied weights appear once, under the
        name that `named_parameters()` gives them.

        Raises:
            InputError: the base is quantised.
        """
        return merged_weights(self.model.module)

    def merged_model(self) -> ChatModel:
        """A model of its own with the update merged into its weights, in the base's type, to train further.

        Rounding to bf16 or fp16 loses small updates; measure drift on `factors()` or `merged_state_dict()`.
        """
        merged = self.merged_state_dict()
        module = copy.deepcopy(self.base.module)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(merged[name])
        return self.base.with_module(module, name=f"{self.model.name}, merged")

    def save_pretrained(self, folder: PathLike) -> Path:
        """Write the merged model, its tokenizer and a model card as a plain folder, in the base's type.

        `tamperlens.load(folder)` and transformers read it without the base. See `ChatModel.save_pretrained`.
        """
        return self.merged_model().save_pretrained(folder)

    def save(self, folder: PathLike) -> Path:
        """Write the adapter in PEFT's own format (or the trained weights), the log and the bill.

        After LoRA the folder is one that `tamperlens.load(base, adapter=folder)` and plain PEFT read. No
        merged model is written. A mask of frozen weights is written beside the adapter; tamperlens puts it
        back on loading, plain PEFT does not know of it (a note in the folder says what that loses).

        Raises:
            RunFolderError: the folder cannot be written.
        """
        target = Path(folder)
        if self.frozen is not None:
            self.frozen.save(target / FROZEN)
            write_text(target / "FROZEN.txt", _NOTE.format(n=self.frozen.count, name=FROZEN))
        if isinstance(self.config, LoraConfig):
            save_adapter(self.model.with_module(self.model.module, name=self.base.name), target)
        else:
            weights = {name: p.detach() for name, p in base_parameters(self.model.module).items()}
            write_tensors(
                target / _WEIGHTS, weights, {"base_fingerprint": base_fingerprint_of(self.base.module)}
            )
        write_csv(target / "log.csv", self.log)
        if len(self.rows):
            write_csv(target / "rows.csv", self.rows)
        write_json(
            target / _RECORD,
            {
                "base": self.base.name,
                "base_fingerprint": self.base.fingerprint,
                "config": self.config.describe(),
                "data": self.data,
                "data_sha256": self.data_sha256,
                "accounting": dataclasses.asdict(self.accounting),
            },
        )
        return target

    @classmethod
    def load(cls, folder: PathLike, base: ModelLike) -> TunedModel:
        """Read what `save` wrote, onto its base.

        Raises:
            InputError: the folder was not written by `save`.
            ModelLoadError: it was made for another base.
        """
        base = as_chat_model(base, what="base")
        source = Path(folder)
        if not (source / _RECORD).is_file():
            raise InputError(f"{source} has no {_RECORD}; name a folder that TunedModel.save wrote")
        record = read_document(source / _RECORD, _Training)
        settings = dict(record["config"])
        kind = settings.pop("kind", None)
        known_names(FullConfig if kind == "full" else LoraConfig, settings, str(source / _RECORD))
        config: LoraConfig | FullConfig
        if kind != "full":
            config = LoraConfig(**settings)
            loaded = base.with_module(attach_adapter(base, source).module, name=f"{base.name} + LoRA")
        else:
            config = FullConfig(**settings)
            loaded = _with_weights(base, source)
        rows = source / "rows.csv"
        return cls(
            model=loaded,
            base=base,
            config=config,
            data=record["data"],
            data_sha256=record["data_sha256"],
            log=read_table(source / "log.csv", ("step", "loss")),
            accounting=_bill(record["accounting"], source / _RECORD),
            rows=read_csv(rows) if rows.is_file() else pd.DataFrame(),
            frozen=WeightMask.load(source / FROZEN) if (source / FROZEN).is_file() else None,
        )


class _Training(Schema):
    """What training.json holds."""

    base: str
    base_fingerprint: str
    config: dict[str, Any]
    data: str
    data_sha256: str
    accounting: dict[str, str | int | float]


def _bill(values: dict[str, Any], path: Path) -> Compute:
    try:
        return Compute(**values)
    except TypeError as error:
        raise InputError(f"{path} has another shape: accounting: {error}; {REMADE}") from error


def full_copy(model: ChatModel) -> ChatModel:
    """A copy of its own in fp32, without gradients."""
    module = copy.deepcopy(model.module).float()
    module.zero_grad(set_to_none=True)
    return model.with_module(module, name=f"{model.name} + full fine-tuning")


def _with_weights(base: ChatModel, source: Path) -> ChatModel:
    weights, header = read_tensors(source / _WEIGHTS)
    if header.get("base_fingerprint") != base_fingerprint_of(base.module):
        raise ModelLoadError(f"{source} was made for another base than {base.name}; load that base")
    made = full_copy(base)
    with torch.no_grad():
        for name, parameter in unwrap(made.module).named_parameters():
            if name not in weights or weights[name].shape != parameter.shape:
                raise ModelLoadError(
                    f"{source / _WEIGHTS} does not hold {name} of {base.name}; it is damaged"
                )
            parameter.copy_(weights[name])
    made.module.eval()
    return made
