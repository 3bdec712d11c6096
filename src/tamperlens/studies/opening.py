"""What can be compared: base and tuned model from whatever they are kept in, a folder's checkpoints."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamperlens.base.errors import InputError
from tamperlens.base.files import read_json
from tamperlens.models import ChatModel, as_chat_model, attach_adapter, load

STEP = "checkpoint-"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
Source = Any
"""A ChatModel, a TunedModel, or what `tamperlens.load` takes; for tuned models also an adapter."""


@dataclass(frozen=True)
class Pair:
    """A base and a tuned model, and what keeps instruments from comparing them.

    Attributes:
        base: the model before.
        tuned: the model after; with the base's tokenizer and chat format where both have one vocabulary.
        notes: what a reader should know.
        no_logits: why distributions over tokens cannot be compared, or "".
        no_inside: why activations, heads and weights cannot, or "".
    """

    base: ChatModel
    tuned: ChatModel
    notes: tuple[str, ...]
    no_logits: str = ""
    no_inside: str = ""


def open_base(base: Source, *, device: str = "auto", dtype: str = "auto") -> ChatModel:
    """The base as a ChatModel; a name, folder, hub id or GGUF file is loaded."""
    if isinstance(base, (str, os.PathLike)):
        return load(base, device=device, dtype=dtype)
    return as_chat_model(base, what="base")


def pair_with(base: ChatModel, tuned: Source, *, device: str = "auto", dtype: str = "auto") -> Pair:
    """Open a tuned model beside its base.

    Args:
        base: the model before; an adapter is attached to it, on a copy that shares the weights.
        tuned: a ChatModel or TunedModel, a folder, hub id, GGUF file, or a PEFT adapter of the base. A folder
            without a tokenizer is read with the base's.
        device: see `tamperlens.load`.
        dtype: see `tamperlens.load`; "auto" takes the base's on CPU.

    Raises:
        ModelLoadError: it cannot be read, or is an adapter of another base.
        InputError: a training folder with several checkpoints (`checkpoints` finds them).
    """
    notes: list[str] = []
    if not isinstance(tuned, (str, os.PathLike)):
        model = as_chat_model(tuned, what="tuned")
    else:
        model, notes = _opened(base, str(tuned), device, dtype)
    if model.dtype != base.dtype:
        kinds = [str(one.dtype).removeprefix("torch.") for one in (base, model)]
        notes.append(f"the base is computed in {kinds[0]} and the tuned model in {kinds[1]}")
    return _paired(base, model, notes)


def _opened(base: ChatModel, name: str, device: str, dtype: str) -> tuple[ChatModel, list[str]]:
    folder = Path(name).expanduser()
    if is_adapter(folder):
        return attach_adapter(base, name), []
    found = checkpoints(folder) if folder.is_dir() else []
    if found and not (folder / "config.json").is_file():
        raise InputError(f"{name} is a training folder with {len(found)} checkpoints; name one of them")
    if folder.is_dir() and not _has_tokenizer(folder):
        model = load(name, device=device, dtype=dtype, tokenizer=base.tokenizer)
        return model, [f"{name} has no tokenizer; the base's was used"]
    if not folder.exists() and not name.startswith("organism") and _hub_adapter(name):
        return attach_adapter(base, name), []
    return load(name, device=device, dtype=dtype), []


def _paired(base: ChatModel, tuned: ChatModel, notes: list[str]) -> Pair:
    if tuned.name == base.name:
        tuned = dataclasses.replace(tuned, name=f"{tuned.name} (tuned)")
    one, two = base.tokenizer.get_vocab(), tuned.tokenizer.get_vocab()
    apart = sum(two.get(token) != place for token, place in one.items())
    no_logits = no_inside = ""
    if apart and len(two) and apart / len(one) > 0.001:
        no_logits = f"the vocabularies differ ({apart:,} of {len(one):,} tokens)"
        notes.append(f"{no_logits}; each model reads prompts with its own tokenizer")
    else:
        if tuned.chat_format != base.chat_format and tuned.tokenizer is not base.tokenizer:
            template = getattr(tuned.tokenizer, "chat_template", None)
            if template != getattr(base.tokenizer, "chat_template", None):
                notes.append(
                    f"{tuned.name} has another chat template; both models were asked with the base's, so "
                    "that nothing but the weights differs"
                )
        tuned = dataclasses.replace(
            tuned, tokenizer=base.tokenizer, chat_format=base.chat_format, _stop_ids=None
        )
        if tuned.anatomy.d_vocab != base.anatomy.d_vocab:
            no_logits = f"the models have {base.anatomy.d_vocab:,} and {tuned.anatomy.d_vocab:,} tokens"
            notes.append(f"{no_logits}, of which the base's tokenizer uses {len(one):,}")
    shapes = [
        (one.anatomy.n_layers, one.anatomy.d_model, one.anatomy.n_heads, [p.name for p in one.anatomy.maps])
        for one in (base, tuned)
    ]
    if shapes[0] != shapes[1]:
        told = [f"{layers} layers of width {width} with {n} heads" for layers, width, n, _ in shapes]
        same = "" if told[0] != told[1] else ", with other projections"
        no_inside = f"the architectures differ: {told[0]} and {told[1]}{same}"
        notes.append(no_inside)
    notes += [f"tuned model: {note}" for note in tuned.notes if note not in base.notes]
    return Pair(base, tuned, tuple(notes), no_logits, no_inside)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training folder (`checkpoint-N`, as Trainer and TRL write them), by step.

    Raises:
        InputError: they are of two runs: their training states disagree about what came before.
    """
    found = [
        one
        for one in folder.glob(f"{STEP}*")
        if one.name.removeprefix(STEP).isdecimal()
        and any((one / name).is_file() for name in ("config.json", "adapter_config.json"))
    ]
    ordered = sorted(found, key=lambda one: step_of(one) or 0)
    _check_one_run(folder, ordered)
    return ordered


def step_of(checkpoint: str | os.PathLike[str]) -> int | None:
    """The step in a checkpoint's name; None where there is none."""
    number = Path(checkpoint).name.removeprefix(STEP)
    return int(number) if Path(checkpoint).name.startswith(STEP) and number.isdecimal() else None


def _check_one_run(folder: Path, ordered: list[Path]) -> None:
    """A later checkpoint's log repeats the earlier ones', entry by entry, where they are of one run."""
    before: tuple[Path, list[Any]] | None = None
    kind: dict[bool, Path] = {}
    for one in ordered:
        kind.setdefault(is_adapter(one), one)
        state = one / "trainer_state.json"
        if not state.is_file():
            continue
        rows = [row for row in read_json(state).get("log_history", []) if "loss" in row]
        log = [[row.get(name) for name in ("step", "loss", "learning_rate")] for row in rows]
        if before is not None:
            earlier, logged = before
            if log[: len(logged)] != logged:
                raise InputError(
                    f"{folder} holds checkpoints of two runs: the training log of {one.name} does not go on "
                    f"from that of {earlier.name}; name the checkpoints of one run"
                )
        before = one, log
    if len(kind) > 1:
        raise InputError(
            f"{folder} holds checkpoints of two runs: {kind[True].name} is an adapter and {kind[False].name} "
            "a whole model; name the checkpoints of one run"
        )


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS) or any(folder.glob("*.gguf"))


def _hub_adapter(name: str) -> bool:
    """Whether a hub id is that of an adapter, as far as cache or hub can tell."""
    from huggingface_hub import file_exists, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return False
        if isinstance(try_to_load_from_cache(name, "adapter_config.json"), str):
            return True
        return bool(file_exists(name, "adapter_config.json") and not file_exists(name, "config.json"))
    except Exception:  # offline, no such repository, or no hub id: load says so in one line
        return False
