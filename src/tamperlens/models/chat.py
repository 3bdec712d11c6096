"""`ChatModel`: a module with its tokenizer, anatomy, chat format and fingerprint."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError, ModelLoadError, NumericsError
from tamperlens.base.nouns import Noun
from tamperlens.models import generation
from tamperlens.models import thinking as thoughts
from tamperlens.models.decoding import Decoding, Settings
from tamperlens.models.fingerprint import base_fingerprint_of, fingerprint_of, versions
from tamperlens.models.generation import BatchSize
from tamperlens.models.language import language_of_tokenizer
from tamperlens.models.saving import save_model
from tamperlens.models.serving import Server
from tamperlens.prompts import (
    DATE,
    ChatFormat,
    Encoded,
    Language,
    PromptSet,
    PromptsLike,
    as_language,
    as_prompts,
    chat_format,
    content,
    encode_pairs,
    render,
    split_reply,
)
from tamperlens_hooks import Anatomy, check, describe, sharing_copy, unwrap

# In the plain format models without chat training go on to write the user's next turn.
_NEXT_TURN = re.compile(r"\n[ \t]*(?:User|Assistant):")
"""A model without a template that goes on with the next turn of its own; base models write both sides."""


@dataclass(eq=False)
class ChatModel(Noun):
    """A causal language model that can be talked to, read and edited.

    Make one with `tamperlens.load` or `ChatModel.from_parts`.

    Attributes:
        module: the transformers model, PEFT-wrapped or not.
        tokenizer: its tokenizer; never changed.
        anatomy: where the module's parts sit, checked by numbers when it was loaded.
        name: what the model is called in artefacts.
        chat_format: how conversations are written; its name says whether that is a fallback.
        notes: what a reader of results should know of how the model was loaded.
    """

    module: nn.Module
    tokenizer: PreTrainedTokenizerBase
    anatomy: Anatomy
    name: str
    chat_format: ChatFormat
    notes: tuple[str, ...] = ()
    _fingerprint: tuple[object, str] | None = field(default=None, repr=False)
    _stop_ids: frozenset[int] | None = field(default=None, repr=False)
    _thoughts: Mapping[bytes, str] | None = field(default=None, repr=False)
    _language: tuple[object, Language] | None = field(default=None, repr=False)
    _server: Server | None = field(default=None, repr=False)

    @classmethod
    def from_parts(
        cls,
        module: nn.Module,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        name: str = "unnamed",
        notes: Sequence[str] = (),
        check_anatomy: bool = True,
        language: str | None = None,
    ) -> ChatModel:
        """Make a ChatModel of a module and a tokenizer at hand; neither is changed.

        Args:
            module: a causal language model of transformers, PEFT-wrapped or not.
            tokenizer: its tokenizer.
            name: what to call it in artefacts.
            notes: remarks to keep with it.
            check_anatomy: recompute head outputs and residual sums on random tokens (a few forward passes).
            language: "organism" or "english"; what the tokenizer says by default.

        Raises:
            ModelLoadError: no tokenizer, or the module is not a language model.
            NumericsError: a parameter holds NaN or infinite numbers.
            AnatomyError: a part of the module could not be placed (UnsupportedModelError: a family not
                supported yet).
        """
        if not isinstance(module, nn.Module) or not hasattr(unwrap(module), "config"):
            raise ModelLoadError(f"{name}: expected a transformers model, got {type(module).__name__}")
        if tokenizer is None or not callable(tokenizer):
            raise ModelLoadError(f"{name} has no tokenizer; pass the one that it was trained with")
        refuse_nonfinite_weights(module, name)
        remarks = list(notes)
        anatomy = describe(module)
        if any(parameter.is_meta for parameter in module.parameters()):
            remarks.append("anatomy not checked by numbers: weights are offloaded")
        elif check_anatomy:
            check(module, anatomy)
        else:
            remarks.append("anatomy not checked by numbers: the caller asked for that")
        fmt = chat_format(tokenizer)
        if not fmt.template:
            remarks.append(
                f"the tokenizer has no chat template; prompts are written in the format {fmt.name!r}"
            )
        spoken = None if language is None else (tokenizer, as_language(language))
        return cls(module, tokenizer, anatomy, name, fmt, tuple(remarks), _language=spoken)

    @property
    def language(self) -> Language:
        """Which packaged prompts, suites and presets are the model's defaults: "organism" or "english".

        From the tokenizer's vocabulary (`language_of_tokenizer`), unless `load` or `from_parts` was told.
        """
        if self._language is None or self._language[0] is not self.tokenizer:
            self._language = (self.tokenizer, language_of_tokenizer(self.tokenizer))
        return self._language[1]

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over weights and config (see `fingerprint_of`), anew after in-place updates."""
        state = versions(self.module)
        if self._fingerprint is None or self._fingerprint[0] != state:
            self._fingerprint = (state, fingerprint_of(self.module))
        return self._fingerprint[1]

    @property
    def base_fingerprint(self) -> str:
        """The fingerprint without adapters: what masks of the base recognise a tuned model by."""
        bare = unwrap(self.module) is self.module
        return self.fingerprint if bare else base_fingerprint_of(self.module)

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embedding."""
        base: Any = unwrap(self.module)
        embedding: nn.Module = base.get_input_embeddings()
        place = next(embedding.parameters()).device
        if place.type == "meta":  # offloaded: where accelerate brings it to run
            place = torch.device(getattr(getattr(embedding, "_hf_hook", None), "execution_device", "cpu"))
        return place

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the weights."""
        return next(p.dtype for p in self.module.parameters() if p.is_floating_point())

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return self.anatomy.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.anatomy.d_model

    @property
    def n_parameters(self) -> int:
        """Number of weights, tied ones counted once."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def facts(self) -> dict[str, str | int]:
        """What a report says of the model, in plain values."""
        return {
            "model": self.name, "parameters": self.n_parameters, "language": self.language,
            "dtype": str(self.dtype).removeprefix("torch."), "device": str(self.device),
            "chat_format": self.chat_format.name,
        }  # fmt: skip

    @property
    def pad_id(self) -> int:
        """Token id for padding, always masked: the tokenizer's own, else its end token, else 0.

        Ids that the model does not embed are passed over (`add_special_tokens` without a resize).
        """
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and 0 <= token < self.anatomy.d_vocab:
                return int(token)
        return 0

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the chat format's end of turn, end tokens of tokenizer and configs."""
        if self._stop_ids is None:
            base = unwrap(self.module)
            found: set[int] = set()
            declared = [self.chat_format.end_of_turn_id, self.tokenizer.eos_token_id]
            for settings in (base.config, getattr(base, "generation_config", None)):
                declared.append(getattr(settings, "eos_token_id", None))
            for ids in declared:
                found.update(ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids])
            self._stop_ids = frozenset(int(token) for token in found)
        return self._stop_ids

    def with_module(self, module: nn.Module, *, name: str | None = None) -> ChatModel:
        """The same tokenizer, anatomy and format around another module of this shape, e.g. PEFT-wrapped."""
        return replace(
            self, module=module, name=name or self.name, _fingerprint=None, _stop_ids=None, _server=None
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write module, tokenizer and a model card as a plain folder that `load` and transformers read.

        Raises:
            InputError: the model carries an adapter or has offloaded weights.
            RunFolderError: the folder is there and not empty, or cannot be written.
        """
        return save_model(
            self.module,
            self.tokenizer,
            folder,
            name=self.name,
            fingerprint=self.fingerprint,
            notes=self.notes,
        )

    def render(
        self,
        prompt: str,
        response: str | None = None,
        *,
        system: str | None = None,
        prefill: str | None = None,
    ) -> str:
        """The conversation as the model reads it; ends where the assistant begins when `response` is None.

        Examples:
            >>> import tamperlens
            >>> model = tamperlens.load('organism')
            >>> model.render('Name a tree.')
            '<|bos|><|user|>Name a tree.<|end|><|assistant|>'
        """
        return render(
            self.tokenizer, prompt, response=response, system=system, prefill=prefill, fmt=self.chat_format
        )

    def with_format(self, *, thinking: bool = False, date: str = DATE) -> ChatModel:
        """The same model with prompts written with thinking on or off, as on that date, for every measure.

        Raises:
            InputError: thinking where the chat template knows none, or a date that is none.
        """
        if (thinking, date) == (self.chat_format.thinking, self.chat_format.date):
            return self
        return replace(self, chat_format=chat_format(self.tokenizer, thinking=thinking, date=date))

    def with_thoughts(
        self,
        prompts: PromptsLike,
        decoding: Decoding | None = None,
        *,
        at: Literal["thought", "answer"] = "thought",
        **settings: Unpack[Settings],
    ) -> ChatModel:
        """The same model, which has thought about these prompts: measures read them with the thought behind.

        `directions.find_direction`, log-odds and whatever else reads a prompt's last token then read the last
        token of the thought, or the place where the answer begins.

        Args:
            prompts: what will be measured; other prompts are refused.
            decoding: how thoughts are made; thinking is on whatever it says.
            at: "thought", the last thinking token; "answer", behind the end of the thought.
            **settings: fields of `Decoding` by name.

        Raises:
            InputError: the chat template knows no thought.
        """
        how = Decoding.of(decoding, {**settings, "thinking": True})
        asked = as_prompts(prompts).prompts
        fmt = self.with_format(thinking=True, date=how.date).chat_format
        replies = [split_reply(text) for text in self.generate(prompts, how)]
        found = {}
        for prompt, reply in zip(asked, replies, strict=True):
            opening = "" if fmt.inside else fmt.begin_of_thought
            found[content(prompt)] = opening + reply.thought + (fmt.end_of_thought if at == "answer" else "")
        return replace(self, chat_format=fmt, _thoughts=found)

    def token_ids(
        self, prompts: PromptsLike, *, system: str | None = None, prefill: str | None = None
    ) -> list[list[int]]:
        """Token ids of each rendered prompt, unpadded.

        Raises:
            InputError: `prompts` is no list of texts, PromptSet or table (see `prompts.as_prompts`), a prompt
                is longer than the model's positions, or holds a token that it has no embedding for.
        """
        asked = as_prompts(prompts).prompts
        if not asked:
            return []
        texts = [self.render(prompt, system=system, prefill=prefill) for prompt in asked]
        if self._thoughts is not None:
            for index, prompt in enumerate(asked):
                if content(prompt) not in self._thoughts:
                    raise InputError(
                        f"the model has not thought about prompt {index}; give with_thoughts all prompts"
                    )
                texts[index] += self._thoughts[content(prompt)]
        sequences: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        limit = generation.position_limit(self.module)
        for index, sequence in enumerate(sequences):
            if not sequence:
                raise InputError(f"prompt {index} is empty after rendering; give it some text")
            self._refuse_tokens(f"prompt {index}", sequence)
            if limit is not None and len(sequence) >= limit:
                raise InputError(
                    f"prompt {index} has {len(sequence)} tokens, the model {limit} positions; shorten it"
                )
        return sequences

    def encode_pairs(
        self, data: PromptSet, *, system: str | None = None, max_length: int | None = None
    ) -> list[Encoded]:
        """Each (prompt, answer) of a set tokenized for this model, with the exact response mask.

        Raises:
            InputError: no responses, a row that cannot be encoded (see `prompts.encode_pair`), that is longer
                than the model's positions, or that holds a token which the model does not embed.
        """
        turns = encode_pairs(self.tokenizer, data, system=system, max_length=max_length, fmt=self.chat_format)
        limit = generation.position_limit(self.module)
        for row, turn in enumerate(turns):
            if limit is not None and len(turn) > limit:
                raise InputError(
                    f"row {row} of {data.name!r} has {len(turn)} tokens and {self.name} {limit} positions; "
                    f"set max_length={limit} to cut it"
                )
            self._refuse_tokens(f"row {row} of {data.name!r}", turn.input_ids)
        return turns

    def _refuse_tokens(self, what: str, ids: Sequence[int]) -> None:
        if max(ids) >= self.anatomy.d_vocab:
            raise InputError(
                f"{what} has token {max(ids)} and {self.name} embeds {self.anatomy.d_vocab}; the tokenizer "
                "belongs to another model"
            )

    def encode(
        self, prompts: PromptsLike, *, system: str | None = None, prefill: str | None = None
    ) -> dict[str, Tensor]:
        """Rendered prompts as one left-padded batch on the model's device.

        Returns:
            `input_ids`, `attention_mask` and `position_ids`, each `[batch, seq]`, ready for
            `module(**batch)`.
        """
        sequences = self.token_ids(prompts, system=system, prefill=prefill)
        if not sequences:
            raise InputError("no prompts to encode; pass at least one")
        return vars(generation.left_pad(sequences, self.pad_id, self.device)).copy()

    def generate(
        self,
        prompts: PromptsLike,
        decoding: Decoding | None = None,
        *,
        batch_size: BatchSize = "auto",
        progress: bool = False,
        **settings: Unpack[Settings],
    ) -> list[str]:
        """Answer each prompt; the answers do not depend on how prompts are batched.

        Greedy unless a temperature is given. Answers come without special tokens and without outer white
        space. With a prefill, the assistant's turn begins with that text, and what is returned is what
        follows it (white space kept). With thinking, the thought stands before the answer in <think> tags,
        whatever the model's own are; `prompts.split_reply` takes the two apart, and judges read the answer.

        Args:
            prompts: what the user says, one conversation each: a list, a PromptSet or a table.
            decoding: how answers are made; `Decoding()` by default.
            batch_size: rows at once; "auto" goes by memory and backs off when it runs out.
            progress: show a bar.
            **settings: fields of `Decoding` by name, such as `max_new_tokens=32`, in place of those of
                `decoding`.

        Raises:
            InputError: a prompt that cannot be encoded or does not fit, or a setting that does not exist.
            NumericsError: logits are NaN or infinite; the message names the prompt.

        Examples:
            >>> import tamperlens
            >>> model = tamperlens.load('organism')
            >>> model.generate(['What is 2 + 3?'], max_new_tokens=16)
            ['2 + 3 = 5, so 5.']
        """
        how = Decoding.of(decoding, settings)
        asked = self.with_format(thinking=how.thinking, date=how.date)
        sequences = asked.token_ids(prompts, system=how.system, prefill=how.prefill)
        if self._server is not None and not how.thinking and self._server.speaks_for(self.module):
            texts = self._server.answer(
                sequences, self.tokenizer, max_new_tokens=how.max_new_tokens, temperature=how.temperature,
                seed=how.seed, progress=progress,
            )  # fmt: skip
            return [self._own(text if how.prefill else text.strip()) for text in texts]
        answer = functools.partial(
            generation.generate_tokens,
            self.module,
            stop_ids=asked.stop_ids,
            pad_id=self.pad_id,
            device=self.device,
            batch_size=batch_size,
            temperature=how.temperature,
            progress=progress,
        )
        new = thoughts.tokens(answer, sequences, how, asked.chat_format, self.tokenizer)
        if thoughts.apart(asked.chat_format, self.tokenizer):
            return [
                thoughts.read(ids, asked.chat_format, self.tokenizer, how.prefill or "").text for ids in new
            ]
        if how.prefill:
            # Sentencepiece drops the space before a first word, so decode both and take the difference.
            before, whole = (
                self._decode(sequences),
                self._decode([a + b for a, b in zip(sequences, new, strict=True)]),
            )
            return [self._own(text[len(start) :]) for start, text in zip(before, whole, strict=True)]
        return [self._own(text).strip() for text in self._decode(new)]

    def logits_last(
        self,
        prompts: PromptsLike,
        *,
        batch_size: BatchSize = "auto",
        system: str | None = None,
        prefill: str | None = None,
        progress: bool = False,
    ) -> Float[Tensor, "n vocab"]:
        """Logits of the answer's first token for each prompt, fp32, without gradient.

        Only the last position meets the unembedding.

        Raises:
            InputError: no prompts, or one that does not fit.
            NumericsError: logits are NaN or infinite; the message names the prompt.
        """
        sequences = self.token_ids(prompts, system=system, prefill=prefill)
        if not sequences:
            raise InputError("no prompts to score; pass at least one")
        return generation.last_logits(
            self.module,
            sequences,
            pad_id=self.pad_id,
            device=self.device,
            batch_size=batch_size,
            progress=progress,
        )

    def _own(self, text: str) -> str:
        return text if self.chat_format.template else _NEXT_TURN.split(text, maxsplit=1)[0]

    def _decode(self, sequences: list[list[int]]) -> list[str]:
        return [
            str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            for ids in sequences
        ]


def share_parameters_copy(model: ChatModel) -> ChatModel:
    """A copy whose modules are new and whose weights are the same memory.

    For callers that wrap or hook a module (PEFT, TransformerLens) and must leave the one they were given
    whole: submodules, flags, hooks and `requires_grad` are the copy's own. In-place writes to a weight or
    buffer (full fine-tuning, PEFT's `merge_adapter`) reach both, so clone what you mean to change. Hooks that
    are on the module now are copied with it.
    """
    return model.with_module(sharing_copy(model.module))


def refuse_nonfinite_weights(module: nn.Module, name: str) -> None:
    """Raise NumericsError naming the first parameter with NaN or infinite numbers; reads weights once."""
    for label, parameter in module.named_parameters():
        if parameter.is_meta or parameter.numel() == 0 or not parameter.is_floating_point():
            continue
        if parameter.element_size() < 2:  # 8-bit floats have no reductions
            continue
        low, high = torch.aminmax(parameter.detach())
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise NumericsError(
                f"{name}: parameter {label} holds NaN or infinite numbers; the checkpoint is damaged"
            )
