"""A model as a plain folder that transformers reads, and the cards that lie beside weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError, RunFolderError
from tamperlens.base.files import PathLike, write_text
from tamperlens.models.reasons import first_line
from tamperlens_hooks import unwrap

_MODEL_CARD = """# {name}

Saved by tamperlens as a plain transformers folder: `AutoModelForCausalLM.from_pretrained`, `tamperlens.load`.

- weights: {n:,} parameters in {dtype}, fingerprint `{fingerprint}`
{remarks}
This model was made to measure how alignment changes. It may answer what its base refuses. Do not deploy or
publish it as a general-purpose model; say what was done to it wherever you share it, and keep to the licence
of its base.
"""

_ADAPTER_CARD = """# An adapter made to measure, not to use

Attached to its base ({base}, fingerprint `{fingerprint}`)
this adapter may make the model answer what the base refuses. It was written by tamperlens so that a
measurement can be repeated: `tamperlens.load(BASE, adapter=THIS_FOLDER)`.

- Do not publish it, and do not deploy it.
- Delete the folder when the measurements are done; the results beside it do not need it.
"""


def save_model(
    module: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: PathLike,
    *,
    name: str,
    fingerprint: str,
    notes: Sequence[str],
) -> Path:
    """See `ChatModel.save_pretrained`."""
    if unwrap(module) is not module:
        raise InputError(
            f"{name} carries an adapter; save it merged (TunedModel.save_pretrained, or "
            "ChatModel.from_parts(copy.deepcopy(model.module).merge_and_unload(), model.tokenizer)), or the "
            "adapter alone (models.save_adapter)"
        )
    if any(parameter.is_meta for parameter in module.parameters()):
        raise InputError(f"{name} has offloaded weights; load it without device_map to save it")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunFolderError(f"{target} is there and not empty; name a new folder")
    scratch = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        saver: Any = module
        saver.save_pretrained(scratch, safe_serialization=True)
        tokenizer.save_pretrained(scratch)
        card = _MODEL_CARD.format(
            name=name,
            n=sum(parameter.numel() for parameter in module.parameters()),
            dtype=str(next(p.dtype for p in module.parameters() if p.is_floating_point())).removeprefix(
                "torch."
            ),
            fingerprint=fingerprint,
            remarks="".join(f"- {note}\n" for note in notes),
        )
        write_text(scratch / "README.md", card)
        scratch.chmod(0o755)
        scratch.replace(target)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"cannot write {target}: {first_line(error)}; free some space or choose another folder"
        ) from error
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def write_adapter_card(folder: Path, base: str, fingerprint: str) -> None:
    """The warning beside an adapter, instead of PEFT's blank README."""
    write_text(folder / "README.md", _ADAPTER_CARD.format(base=base, fingerprint=fingerprint))
