"""`load`: from a name, folder or hub id to a checked `ChatModel`, or to one line that says why not."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tamperlens.base.errors import InputError, ModelLoadError, TamperlensError
from tamperlens.base.files import read_json
from tamperlens.models.adapters import attach_adapter
from tamperlens.models.chat import ChatModel
from tamperlens.models.gguf import check_gguf, gguf_in, make_ordinary, read_once, require_gguf
from tamperlens.models.language import WEIGHTS
from tamperlens.models.reasons import SMALLER, first_line, why_no_config, why_no_weights
from tamperlens.models.served import with_server
from tamperlens.models.serving import Server
from tamperlens.models.sizes import check_layers, check_memory, check_stored, speed_notes, vocabulary_notes
from tamperlens.models.vision_text import TEXT_KEYS, text_config
from tamperlens_hooks import describe

ORGANISM = WEIGHTS
VARIANTS = ("aligned", "base", "small", "tiny")
SMALL = 1_000_000_000
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_BLOCK = re.compile(
    r"(?:(?:model|language_model|transformer|decoder|gpt_neox)\.)*(?:layers|h|blocks)\.(\d+)\."
)
_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def load(
    name_or_path: str | os.PathLike[str],
    *,
    adapter: str | os.PathLike[str] | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    device_map: str | Mapping[str, object] | None = None,
    quantization: Literal["4bit", "8bit"] | None = None,
    revision: str | None = None,
    allow_pickle: bool = False,
    language: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    generation: str | Server | None = None,
) -> ChatModel:
    """Load a chat model, check its weights and its anatomy, and say plainly if something does not fit.

    Code from a checkpoint is never run.

    Args:
        name_or_path: "organism" (the same as "organism:aligned"), "organism:base", the smaller aligned ones
            ("organism:small", "organism:tiny"), a local folder, a hub id, a GGUF file, or a folder with one
            GGUF file (dequantised: fp32 below one billion parameters, bf16 above).
        adapter: a PEFT adapter (folder or hub id); checked against this base and attached unmerged.
        device: "auto" takes CUDA, then MPS, then CPU.
        dtype: "auto" keeps the stored type, except on CPU, where half-precision models below one billion
            parameters become fp32 (exact, faster there, and free of bf16 ties). Or "float32", "bfloat16",
            "float16", or a torch dtype.
        device_map: passed to accelerate, for models that one device does not hold.
        quantization: "4bit" or "8bit" through bitsandbytes.
        revision: branch, tag or commit of a hub model.
        allow_pickle: also read `pytorch_model.bin`, with torch's weights-only unpickler. Off by default.
        language: "organism" or "english", which packaged prompts are the defaults for the model; by default
            what its tokenizer says (`ChatModel.language`).
        tokenizer: in place of the model's own, e.g. its base's for a checkpoint that was saved without one.
        generation: URL of an OpenAI-compatible server of the same model ("http://localhost:8000/v1" of
            `vllm serve` or `transformers serve`), which then writes the answers (see `with_server`).

    Raises:
        ModelLoadError: unknown model, missing or damaged files, no tokenizer, an encoder, an adapter made for
            another base, or a missing optional package.
        InputError: a device, dtype or option that is not one.
        UnsupportedModelError: a family that is recognised and not supported yet.
        AnatomyError: a part of the model could not be placed, or does not compute what it should.
        NumericsError: a parameter holds NaN or infinite numbers.

    Examples:
        >>> import tamperlens
        >>> model = tamperlens.load('organism')
        >>> model.name, model.anatomy.n_layers
        ('organism:aligned', 5)
    """
    where, name, file = _locate(str(name_or_path))
    if revision is not None and isinstance(where, Path):
        raise InputError(f"revision={revision!r} is of a hub model, and {name} is none; leave it away")
    target = _device(device, device_map)
    wanted = _dtype(dtype)
    source = _Source(where, name, revision, allow_pickle, file)
    if file is not None and quantization is not None:
        raise InputError(f"{name} is a GGUF file, which is dequantised on loading; leave quantization away")
    if file is not None:
        require_gguf(name)
    with read_once() if file is not None else nullcontext():
        if file is not None:
            check_gguf(Path(where) / file, name)
        config, notes = _read_config(source)
        if isinstance(where, Path) and file is None:
            _require_weights(where, source)
        check_layers(config, name)
        tokenizer = _read_tokenizer(source) if tokenizer is None else tokenizer
        size = _describe_shell(config, name)
        if isinstance(where, Path) and file is None:
            check_stored(size, config, where, name)
        if file is not None:
            wanted = (torch.float32 if size < SMALL else torch.bfloat16) if wanted == "auto" else wanted
            notes.append(f"read from {file} and dequantised to {str(wanted).removeprefix('torch.')}")
        if device_map is None:
            check_memory(size, config, wanted, target, quantization, name)
        options: dict[str, Any] = {"config": config, "dtype": wanted}
        if any("other modalities" in note for note in notes):
            options["key_mapping"] = TEXT_KEYS
        if quantization is not None:
            options["quantization_config"] = _bitsandbytes(quantization)
        if device_map is None and (quantization is not None or hasattr(config, "quantization_config")):
            device_map = {"": str(target)}  # packed weights cannot be moved afterwards
        if device_map is not None:
            options["device_map"] = device_map
        module = _read_module(source, options)
    if file is not None:
        make_ordinary(module)
    if device_map is None:
        stored = module.dtype
        half = stored in (torch.bfloat16, torch.float16)
        if wanted == "auto" and target.type == "cpu" and size < SMALL and half:
            module = module.float()
            module.config.dtype = torch.float32
            notes.append(f"stored as {str(stored).removeprefix('torch.')}, computed in float32")
        module = _to_device(module, target, name)
        notes += speed_notes(next(module.parameters()).dtype, target)
    notes += vocabulary_notes(tokenizer, int(module.get_input_embeddings().weight.shape[0]))
    model = ChatModel.from_parts(module.eval(), tokenizer, name=name, notes=notes, language=language)
    model = model if adapter is None else attach_adapter(model, adapter)
    return model if generation is None else with_server(model, generation)


@dataclass(frozen=True)
class _Source:
    """Where a model is read from: a folder (Path) or a hub id (str), and under which conditions."""

    where: str | Path
    name: str
    revision: str | None
    allow_pickle: bool
    gguf_file: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        named = {} if self.gguf_file is None else {"gguf_file": self.gguf_file}
        return {"revision": self.revision, "trust_remote_code": False, **named}


def _locate(text: str) -> tuple[str | Path, str, str | None]:
    """Where to read from (a folder as Path, a hub id as str), what to call it, and a GGUF file's name."""
    head, colon, variant = text.partition(":")
    if head == "organism":
        variant = variant if colon else "aligned"
        folder = ORGANISM / variant
        if variant not in VARIANTS:
            raise ModelLoadError(f"no organism named {variant!r}; known: {', '.join(VARIANTS)}")
        if not (folder / "config.json").is_file():
            raise ModelLoadError(
                f"organism:{variant} is not in this installation ({folder}); reinstall tamperlens"
            )
        return folder, f"organism:{variant}", None
    path = Path(text).expanduser()
    if text and path.is_dir():
        if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
            raise ModelLoadError(f"{text} is an adapter, not a model; use load(BASE, adapter={text!r})")
        file = gguf_in(path, text)
        if file is not None:
            return path, text, file.name
        if not (path / "config.json").is_file():
            raise ModelLoadError(
                f"{text} has no config.json; name the folder that save_pretrained wrote, or a GGUF file"
            )
        return path, text, None
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return path.parent, text, path.name
        raise ModelLoadError(f"{text} is a file; name the folder that holds config.json and the weights")
    if path.is_absolute() or text.startswith((".", "~")) or not _HUB_ID.fullmatch(text):
        raise ModelLoadError(
            f"no folder {text!r}; check the spelling, or name a hub id such as 'owner/model'"
        )
    return text, text, None


def _device(device: str | torch.device, device_map: object) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if device_map is not None:
        raise InputError("device and device_map exclude each other; give one of them")
    message = f"device {str(device)!r} is not available here; use 'cpu' or 'auto'"
    if str(device).startswith("meta"):
        raise InputError("device 'meta' holds no numbers; use 'cpu' or 'auto'")
    try:
        wanted = torch.device(device)
        # A backend that this build of torch lacks would say so by an assertion.
        backend = vars(torch).get(wanted.type)
        if backend is not None and not backend.is_available():
            raise InputError(message)
        torch.empty(0, device=wanted)
    except (RuntimeError, ImportError) as error:
        raise InputError(message) from error
    return wanted


def _dtype(dtype: str | torch.dtype) -> torch.dtype | Literal["auto"]:
    if isinstance(dtype, torch.dtype):
        if not dtype.is_floating_point:
            raise InputError(f"dtype {dtype} is not a floating type; use float32, bfloat16 or float16")
        return dtype
    if dtype == "auto":
        return "auto"
    if dtype not in _DTYPES:
        raise InputError(f"no dtype {dtype!r}; known: auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _read_config(source: _Source) -> tuple[Any, list[str]]:
    """The language model's config, and a note if the checkpoint holds more than a language model."""
    try:
        config = AutoConfig.from_pretrained(source.where, **source.options)
    except Exception as error:
        raise ModelLoadError(why_no_config(source.where, source.name, source.revision, error)) from error
    architectures = list(getattr(config, "architectures", None) or [])
    writes = any(
        a.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for a in architectures
    )
    if getattr(config, "is_encoder_decoder", False) or (architectures and not writes):
        what = architectures[0] if architectures else config.model_type
        raise ModelLoadError(
            f"{source.name} is a {what}, not a decoder-only language model; name a causal one (…ForCausalLM)"
        )
    _check_generation_config(source)
    text = text_config(config)
    if text is config:
        return config, []
    return text, ["the language model of a checkpoint with other modalities, which were not loaded"]


def _check_generation_config(source: _Source) -> None:
    """Transformers goes on without a damaged one, and with it without the tokens that end an answer."""
    file = Path(source.where) / "generation_config.json"
    if not isinstance(source.where, Path) or not file.is_file():
        return
    try:
        found = read_json(file)
    except InputError as error:
        raise ModelLoadError(f"{error}; copy the model again, or delete that file") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{file} is no table of settings; copy the model again, or delete that file")


def _require_weights(folder: Path, source: _Source) -> None:
    name = source.name
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")):
        if source.allow_pickle:
            return
        raise ModelLoadError(
            f"{name} holds pickled weights only (pytorch_model.bin), which can run code; convert them "
            "to safetensors (save_pretrained), or pass allow_pickle=True if you trust the source"
        )
    raise ModelLoadError(f"{name} has a config.json and no weights; model.safetensors is missing")


def _read_tokenizer(source: _Source) -> Any:
    remedy = "put tokenizer.json beside the weights, or use ChatModel.from_parts(module, tokenizer)"
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.where, **source.options)
        empty = len(tokenizer) == 0 or not tokenizer("a", add_special_tokens=False)["input_ids"]
    except Exception as error:
        raise ModelLoadError(
            f"{source.name} has no usable tokenizer ({first_line(error)}); {remedy}"
        ) from error
    if empty:
        raise ModelLoadError(f"{source.name} has an empty tokenizer; {remedy}")
    return tokenizer


def _describe_shell(config: Any, name: str) -> int:
    """Place the parts of an empty model, so that an unsupported one fails before weights are read.

    Returns how many parameters it has.
    """
    try:
        with torch.device("meta"), _quiet():
            shell = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise ModelLoadError(f"{name} cannot be built from its config ({first_line(error)})") from error
    try:
        describe(shell)
    except TamperlensError as error:
        raise type(error)(f"{name}: {error}") from error
    return sum(parameter.numel() for parameter in shell.parameters())


def _read_module(source: _Source, options: dict[str, Any]) -> Any:
    """Read the weights; every parameter of the model must be in the checkpoint, in its shape."""
    name = source.name
    safe = None if source.allow_pickle or source.gguf_file else True
    options |= {**source.options, "use_safetensors": safe}
    # Reported below with the parameter's name; transformers prints a table and says "see above".
    options |= {"ignore_mismatched_sizes": True, "output_loading_info": True}
    try:
        with _quiet():
            module, report = AutoModelForCausalLM.from_pretrained(source.where, **options)
    except Exception as error:
        raise ModelLoadError(why_no_weights(name, error)) from error
    for parameter, stored, built in sorted(report.get("mismatched_keys") or ()):
        raise ModelLoadError(
            f"{name}: {parameter} is stored as {tuple(stored)} and config.json asks for {tuple(built)}; "
            "the weights and config.json belong to different models"
        )
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 1} more parameters" if len(missing) > 1 else ""
        raise ModelLoadError(
            f"{name}: the checkpoint lacks {missing[0]}{more}; it is incomplete or of another architecture"
        )
    layers = module.config.get_text_config().num_hidden_layers
    for parameter in sorted(report.get("unexpected_keys") or ()):
        block = _BLOCK.match(parameter)
        if block is not None and int(block.group(1)) >= layers:
            raise ModelLoadError(
                f"{name}: the checkpoint holds {parameter} and config.json asks for {layers} layers; the "
                "weights and config.json belong to different models"
            )
    _check_end(module, name)
    return module


def _check_end(module: Any, name: str) -> None:
    """Refuse an end of answers that the model cannot write: every answer would run to its limit."""
    ends = getattr(module.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    rows = int(module.get_input_embeddings().weight.shape[0])
    if ends and not any(isinstance(end, int) and 0 <= end < rows for end in ends):
        raise ModelLoadError(
            f"{name}: eos_token_id {ends[0]} lies outside its {rows} tokens, so that no answer would end; "
            "correct it in config.json and generation_config.json"
        )


def _bitsandbytes(quantization: str) -> Any:
    if quantization not in ("4bit", "8bit"):
        raise InputError(f"no quantization {quantization!r}; known: 4bit, 8bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelLoadError(f"quantization={quantization!r} needs bitsandbytes; pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _to_device(module: nn.Module, device: torch.device, name: str) -> nn.Module:
    try:
        return module.to(device)
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"{name} does not fit on {device}; {SMALLER}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' load report and bars off the terminal; what they say is checked and raised here."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
