"""Activations on disk, found again by the model's fingerprint and the hash of the prompts it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tamperlens.base.errors import InputError
from tamperlens.base.files import PathLike, read_tensors, sha256_bytes, write_tensors
from tamperlens.models import ChatModel


class ActivationCache:
    """A folder of safetensors files, one for each (model, prompts, places).

    A file is found by the sha256 over the model's fingerprint (weights, configuration, adapter), the token
    ids of every prompt in order (so the chat template and tokenizer count), and what was read. Writes are
    atomic; a file that is damaged or of something else is made anew.

    Args:
        folder: where the files lie; made when the first is written.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.hits = 0
        self.misses = 0

    def fetch(
        self,
        model: ChatModel,
        prompts: Sequence[str],
        what: str,
        make: Callable[[], Tensor],
        **places: Iterable[int] | None,
    ) -> Tensor:
        """What `make()` gives, from disk when it is there.

        Args:
            model: whose activations they are.
            prompts: of what.
            what: the kind of read, such as "means".
            make: reads them.
            places: layers, positions and whatever else tells reads apart.
        """
        ids = model.token_ids(list(prompts))
        label = {
            "what": what,
            "fingerprint": model.fingerprint,
            "prompts": sha256_bytes(*(",".join(map(str, row)).encode() for row in ids)),
            **{name: None if value is None else list(value) for name, value in sorted(places.items())},
        }
        path = self.folder / f"{what}-{sha256_bytes(repr(label).encode())[:32]}.safetensors"
        try:
            found, header = read_tensors(path)
            if header == label:
                self.hits += 1
                return found["activations"]
        except (InputError, KeyError, ValueError):
            pass  # not there, or not whole
        self.misses += 1
        made = make()
        write_tensors(path, {"activations": made}, label)
        return made

    def clear(self) -> int:
        """Delete every file of this cache; how many there were."""
        files = list(self.folder.glob("*.safetensors"))
        for path in files:
            path.unlink(missing_ok=True)
        return len(files)


def fetch(
    cache: ActivationCache | None,
    model: ChatModel,
    prompts: Sequence[str],
    what: str,
    make: Callable[[], Tensor],
    **places: Iterable[int] | None,
) -> Tensor:
    """`cache.fetch`, or `make()` without a cache; a result of the disk is on the CPU."""
    found = make() if cache is None else cache.fetch(model, prompts, what, make, **places)
    return found if found.device.type == "cpu" else found.to(torch.device("cpu"))
