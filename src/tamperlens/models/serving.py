"""Answers from a server with an OpenAI-compatible completions route, in place of the module's own.

vLLM, SGLang, llama.cpp and `transformers serve` answer thousands of prompts faster than a module in this
process can. Prompts are rendered here and sent to `/v1/completions` as token ids, or as text where a server
takes no ids; how many tokens it says it read must be how many were meant, so that no chat template is applied
twice and no BOS doubled. Activations, gradients and edits stay with the module.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from tamperlens.base.errors import InputError, ModelLoadError
from tamperlens.base.progress import progress_bar
from tamperlens.models.fingerprint import versions

TIMEOUT = 600.0
# A server's own defaults, often the checkpoint's generation_config.json, would penalise repetition or leave
# tokens out, also in greedy answers; the module does neither. The first are OpenAI's (`transformers serve`
# makes its repetition penalty of the second), the others are known to vLLM, SGLang and llama.cpp alone.
PLAIN = {"top_p": 1.0, "frequency_penalty": 0.0}
PLAINER = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
# How a request is written, (token ids or text, with PLAINER or without): the first that the server takes.
FORMS = ((True, True), (True, False), (False, True), (False, False))


@dataclass
class Server:
    """One model of a running server.

    Attributes:
        url: as the server prints it; `/v1` is added where it is missing.
        model: what the server calls the model; the only one it lists by default.
        workers: requests under way at once; a server batches those itself.
    """

    url: str
    model: str | None = None
    workers: int = 32
    _form: int = field(default=0, repr=False)
    _module: tuple[object, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not str(self.url).startswith(("http://", "https://")):
            raise InputError(
                f"generation={self.url!r} is no server's address; write its URL, such as "
                "'http://localhost:8000/v1' (vllm serve NAME, transformers serve NAME)"
            )
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}; it must be at least 1")
        base = str(self.url).rstrip("/")
        self.url = base if base.endswith("/v1") else f"{base}/v1"

    def attach(self, module: nn.Module) -> None:
        """Find the server's model, and remember the module as it is now.

        Raises:
            ModelLoadError: no server answers, or it lists several models and none was named.
        """
        if self.model is None:
            reply = self._ask("models")
            try:
                listed = [str(one["id"]) for one in reply["data"]]
            except (LookupError, TypeError) as error:
                raise self._other("models") from error
            if len(listed) != 1:
                raise ModelLoadError(
                    f"{self.url} offers {len(listed)} models ({', '.join(listed[:5])}); name one: "
                    f"generation=models.Server({self.url!r}, model=NAME)"
                )
            self.model = listed[0]
        self._module = _state(module)

    def speaks_for(self, module: nn.Module) -> bool:
        """Whether the module is what it was when the server was attached: same weights, no edit at work."""
        return self._module == _state(module)

    def answer(
        self,
        sequences: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        progress: bool = False,
    ) -> list[str]:
        """The text that follows each token sequence, up to the server's own end tokens.

        Raises:
            ModelLoadError: the server is gone, refuses a request, or read another number of tokens than sent.
        """
        settings = {"model": self.model, "max_tokens": max_new_tokens, "temperature": temperature, **PLAIN}

        def one(row: int) -> str:
            drawn = {} if temperature == 0 else {"seed": (seed * 1_000_003 + row) % 2**31}
            return self._complete(list(sequences[row]), tokenizer, {**settings, **drawn})

        answers = []
        with (
            ThreadPoolExecutor(min(self.workers, max(len(sequences), 1))) as pool,
            progress_bar(len(sequences), "answers", progress) as done,
        ):
            for text in pool.map(one, range(len(sequences))):
                answers.append(text)
                done(1)
        return answers

    def _complete(
        self, ids: list[int], tokenizer: PreTrainedTokenizerBase, settings: dict[str, Any], form: int = 0
    ) -> str:
        form = max(form, self._form)
        as_ids, plainer = FORMS[form]
        prompt = ids if as_ids else _as_text(ids, tokenizer)
        try:
            reply = self._ask("completions", {**settings, **(PLAINER if plainer else {}), "prompt": prompt})
        except _Refused as error:
            if error.code not in (400, 422) or form + 1 == len(FORMS):
                raise
            return self._complete(ids, tokenizer, settings, form + 1)
        self._form = max(form, self._form)
        return self._text(reply, len(ids))

    def _text(self, reply: dict[str, Any], sent: int) -> str:
        try:
            read = (reply.get("usage") or {}).get("prompt_tokens")
            answer = reply["choices"][0]["text"]
        except (AttributeError, LookupError, TypeError) as error:
            raise self._other("completions") from error
        if not isinstance(answer, str):
            raise self._other("completions")
        if isinstance(read, int) and read != sent:
            raise ModelLoadError(
                f"{self.url} read {read} tokens of a prompt of {sent}; its tokenizer is another, or it "
                "adds tokens of its own: answers would not be the model's"
            )
        return answer

    def _other(self, route: str) -> ModelLoadError:
        return ModelLoadError(f"{self.url}/{route} answers otherwise than an OpenAI-compatible server does")

    def _ask(self, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            request = urllib.request.Request(
                f"{self.url}/{route}",
                data=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            with opener.open(request, timeout=TIMEOUT) as reply:
                found = json.load(reply)
        except urllib.error.HTTPError as error:
            words = error.read(500).decode("utf-8", "replace").replace("\n", " ")
            raise _Refused(
                error.code, f"{self.url}/{route} refused a request ({error.code}): {words}"
            ) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ModelLoadError(
                f"no OpenAI-compatible server answers at {self.url}/{route} ({reason}); start one (vllm "
                "serve NAME, transformers serve NAME, llama-server -m FILE), or leave generation= away"
            ) from error
        if not isinstance(found, dict):
            raise self._other(route)
        return found


class _Refused(ModelLoadError):
    """A server that answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _as_text(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt for a server that puts the BOS before a text as its tokenizer does."""
    text = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    start = tokenizer.bos_token
    if start and text.startswith(start) and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        text = text.removeprefix(start)
    return text


def _state(module: nn.Module) -> tuple[object, ...]:
    """Changes with a weight, an adapter's settings, or a hook that is attached or removed."""
    hooks = [
        (id(part), len(part._forward_hooks), len(part._forward_pre_hooks))
        for part in module.modules()
        if part._forward_hooks or part._forward_pre_hooks
    ]
    return (versions(module), tuple(hooks))
