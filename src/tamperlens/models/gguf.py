"""GGUF files (llama.cpp's format): read by transformers, and made an ordinary module afterwards.

The weights are dequantised once, so what is loaded computes in fp32 or bf16 like any other model, trains, is
fingerprinted and saves like any other. Its numbers are those of the quantised file, not of the original.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tamperlens.base.errors import ModelLoadError
from tamperlens.models.reasons import first_line

_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_MAGIC = b"GGUF"


def gguf_in(folder: Path, name: str) -> Path | None:
    """The one GGUF file of a folder that holds no other weights, or None.

    Raises:
        ModelLoadError: several files; the message lists them.
    """
    files = sorted(path for path in folder.glob("*.gguf") if not path.name.startswith("mmproj"))
    if not files or any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return None
    if len(files) > 1 and not all(_PART.search(path.name) for path in files):
        some = ", ".join(path.name for path in files[:6]) + (", …" if len(files) > 6 else "")
        raise ModelLoadError(
            f"{name} holds {len(files)} GGUF files ({some}); name one of them: load({str(files[0])!r})"
        )
    return files[0]


def require_gguf(name: str) -> None:
    """Raise ModelLoadError where the package that reads GGUF is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelLoadError(f"{name} is a GGUF file and needs gguf; pip install 'tamperlens[gguf]'")


def check_gguf(file: Path, name: str) -> None:
    """Whether transformers can read a file, from its first pages.

    Raises:
        ModelLoadError: no GGUF file, a damaged one, a part of a split one, or a
            quantisation or architecture that cannot be read.
    """
    with file.open("rb") as stream:
        magic = stream.read(4)
    if magic != _MAGIC:
        raise ModelLoadError(f"{name} is not a GGUF file (it does not begin with GGUF); copy it again")
    if _PART.search(file.name):
        raise ModelLoadError(
            f"{name} is one part of a split model, which transformers cannot read; join the parts first "
            "(llama-gguf-split --merge)"
        )
    import gguf
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    try:
        reader = gguf.GGUFReader(file)
        field = reader.fields["general.architecture"]
        architecture = str(field.contents())
        size = file.stat().st_size
        whole = all(t.data_offset + t.n_bytes <= size for t in reader.tensors)
    except Exception as error:
        raise ModelLoadError(
            f"{name} cannot be read as GGUF ({first_line(error)}); it is damaged, or of a newer kind than "
            "the installed gguf knows"
        ) from error
    known = {*GGUF_SUPPORTED_ARCHITECTURES, "gpt-oss", "qwen2moe", "qwen3moe", "minimax-m2"}
    if architecture not in known:
        raise ModelLoadError(
            f"{name} is a GGUF file of architecture {architecture!r}, which transformers cannot read; "
            "use the model's own folder or hub id"
        )
    plain = {"F32", "F16", "F64", "I8", "I16", "I32", "I64"}
    readable = plain | {kind.name for kind in gguf.quants._type_traits}
    for tensor in reader.tensors:
        if tensor.tensor_type.name not in readable:
            raise ModelLoadError(
                f"{name} stores {tensor.name} as {tensor.tensor_type.name}, which cannot be dequantised "
                "here; take a file of another quantisation, such as Q8_0 or Q4_K_M"
            )
    if not whole:
        raise ModelLoadError(f"{name} is cut short; copy it again")


@contextmanager
def read_once() -> Iterator[None]:
    """transformers opens a file four times, each a loop over the whole vocabulary: read it once."""
    package: Any = importlib.import_module("gguf")
    reader = package.GGUFReader
    package.GGUFReader = functools.cache(reader)
    try:
        yield
    finally:
        package.GGUFReader = reader


def make_ordinary(module: Any) -> None:
    """Take off what marks a module as quantised, and tie the unembedding where the file repeats it."""
    config = module.config
    for owner, mark in (
        (config, "quantization_config"),
        (module, "hf_quantizer"),
        (module, "quantization_method"),
        (module, "is_quantized"),
    ):
        if mark in vars(owner):
            delattr(owner, mark)
    config.architectures = [type(module).__name__]
    embedding, head = module.get_input_embeddings().weight, module.get_output_embeddings().weight
    if head is not embedding and head.shape == embedding.shape and torch.equal(head, embedding):
        config.tie_word_embeddings = True
        module.tie_weights()
