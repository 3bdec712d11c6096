"""Run the upper part of a model again with other heads, without paying for the layers below them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tamperlens_hooks._calling import module_and_anatomy
from tamperlens_hooks._modules import attach, first_tensor, hooks_attached, output_tensor
from tamperlens_hooks.anatomy import Anatomy
from tamperlens_hooks.errors import HookError
from tamperlens_hooks.state import evaluating

__all__ = ["Prefix"]


class Prefix:
    """One forward pass, kept so that any block can be resumed with other z in its attention.

    Ablating the heads of layer l changes nothing below l, and nothing of layer l in front of the output
    projection. So the pass is run once, the input of every block and every head's z are stored, and a
    resumed pass runs from the output projection of layer l upwards only. Blocks below hand their input on,
    and so do blocks from `until` upwards when only the residual stream there is asked for.

    ```python
    prefix = Prefix(model)
    with prefix.recording():
        model.module(**batch)
    with prefix.resumed(3, z):       # z [k · batch, seq, head, d_head], k variants one after the other
        logits = model.module(**repeated_batch).logits
    ```

    Memory: n_layers · batch · seq · (d_model + n_heads · d_head) numbers. The numbers are those of a whole
    pass with `patch_heads`, up to rounding: the anatomy's check holds that attention output is the output
    projection of z, whatever the family.
    """

    def __init__(self, model: Any, anatomy: Anatomy | None = None) -> None:
        """Args:
        model: a module, or an object with `.module` and `.anatomy`; never changed outside `with` blocks.
        anatomy: of the module.
        """
        self.model, self.anatomy = module_and_anatomy(model, anatomy)
        self._inputs: dict[int, Tensor] = {}
        self._z: dict[int, Tensor] = {}
        self._tuples: dict[str, int] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Store what the forward pass inside computes. No gradients and no dropout inside."""
        handles: list[Any] = []
        with hooks_attached(handles), evaluating(self.model):
            for layer in range(self.anatomy.n_layers):
                block, attention = self.anatomy.blocks[layer], self.anatomy.attention[layer]
                for store, path in (
                    (self._inputs, block),
                    (self._z, self.anatomy.output_projection(layer)),
                ):
                    module = self.model.get_submodule(path)
                    handles.append(attach(module, True, partial(_keep, store, layer)))
                for path in (block, attention):
                    module = self.model.get_submodule(path)
                    handles.append(module.register_forward_hook(partial(_note, self._tuples, path)))
            yield

    def z(self, layer: int) -> Float[Tensor, "batch seq head d_head"]:
        """The heads' z of one layer in the recorded pass; do not change it in place.

        Raises:
            HookError: nothing was recorded.
        """
        if layer not in self._z:
            raise HookError("nothing was recorded: run the model inside `with prefix.recording()`")
        return rearrange(self._z[layer], "... (head d) -> ... head d", head=self.anatomy.n_heads)

    @contextmanager
    def resumed(
        self,
        layer: int,
        z: Float[Tensor, "rows seq head d_head"] | None = None,
        until: int | None = None,
        *,
        last_only: bool = False,
    ) -> Iterator[None]:
        """Inside, a forward pass on the same tokens begins at `layer` with `z` in its attention.

        Args:
            layer: the block whose heads are replaced.
            z: the new values; rows are a whole number of copies of the recorded batch, and the model is
                called with its inputs repeated as often (`ids.repeat(k, 1)`). None runs the attention too,
                so that an edit of queries or patterns there takes effect.
            until: first block that is not needed.
            last_only: carry on with the last position alone; possible in the last block that runs, where no
                attention follows.

        Raises:
            HookError: nothing was recorded, z does not fit it, or attention follows where it must not.
        """
        old = self.z(self.anatomy.layer_index(layer))
        copies, rest = divmod((old if z is None else z).shape[0], old.shape[0])
        if z is not None and (rest or not copies or z.shape[1:] != old.shape[1:]):
            raise HookError(
                f"z is {list(z.shape)}; the recorded pass has {list(old.shape)}, or a multiple of its rows"
            )
        until = self.anatomy.n_layers if until is None else until
        if last_only and (z is None or layer != until - 1):
            raise HookError(
                "last_only needs z, and no block behind it: the attention there reads every token"
            )
        stubs: dict[str, Callable[..., Any]] = {}
        for index, path in enumerate(self.anatomy.blocks):
            if index < layer or index >= until:
                stubs[path] = partial(_pass_on, self._tuples[path])
        if z is not None:
            z = z[:, -1:] if last_only else z
            attention = self.anatomy.attention[layer]
            projection = self.model.get_submodule(self.anatomy.output_projection(layer))
            stubs[attention] = partial(
                _project, projection, rearrange(z, "... head d -> ... (head d)"), self._tuples[attention]
            )
        start = self._inputs[layer][:, -1:] if last_only else self._inputs[layer]
        start = start.repeat(copies, 1, 1)
        handles: list[Any] = []
        with (
            hooks_attached(handles),
            evaluating(self.model),
            _forwards(self.model, stubs),
        ):
            block = self.model.get_submodule(self.anatomy.blocks[layer])
            handles.append(attach(block, True, partial(_replace, start)))
            if last_only:  # GPT-2 checks the shape of what its blocks return
                handles.append(attach(block, False, partial(_widen, old.shape[1])))
            yield


def _keep(store: dict[int, Tensor], layer: int, x: Tensor) -> None:
    store[layer] = x.detach()


def _replace(value: Tensor, x: Tensor) -> Tensor:
    return value


def _widen(seq: int, x: Tensor) -> Tensor:
    return x.expand(-1, seq, -1)


def _note(sizes: dict[str, int], path: str, module: nn.Module, args: Any, output: Any) -> None:
    output_tensor(output)
    sizes[path] = len(output) if isinstance(output, (tuple, list)) else 0


def _shaped(value: Tensor, size: int) -> Any:
    """What the module would have returned: the tensor, or a tuple that begins with it."""
    return (value, *[None] * (size - 1)) if size else value


def _pass_on(size: int, *args: Any, **kwargs: Any) -> Any:
    return _shaped(first_tensor(args, kwargs), size)


def _project(projection: nn.Module, z: Tensor, size: int, *args: Any, **kwargs: Any) -> Any:
    return _shaped(output_tensor(projection(z)), size)


@contextmanager
def _forwards(model: nn.Module, stubs: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Other `forward`s for some modules inside; their own (accelerate puts one there) come back."""
    found = [(model.get_submodule(path), stub) for path, stub in stubs.items()]
    own = [module.__dict__.get("forward") for module, _ in found]
    try:
        for module, stub in found:
            module.__dict__["forward"] = stub
        yield
    finally:
        for (module, _), before in zip(found, own, strict=True):
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before
