"""The calling form of the hook layer: a module and its anatomy, or one object that carries both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

from torch import Tensor, nn

from tamperlens_hooks._modules import unwrap
from tamperlens_hooks.anatomy import Anatomy, describe
from tamperlens_hooks.errors import HookError

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@runtime_checkable
class HasModule(Protocol):
    """Anything that carries a module and, where it has one, its anatomy: `ChatModel`, `TunedModel`."""

    module: Any


@runtime_checkable
class HasVector(Protocol):
    """Anything that carries a vector [d_model], such as a `Direction`."""

    @property
    def vector(self) -> Tensor:
        """[d_model]."""
        ...


if TYPE_CHECKING:
    ModelLike = nn.Module | HasModule
    VectorLike = Tensor | HasVector
else:  # what does not fit is refused by name below, in one clear line
    ModelLike = VectorLike = Any


@runtime_checkable
class OnModel(Protocol[P, R_co]):
    """A function that takes a module and its anatomy, or one object that carries both."""

    @overload
    def __call__(self, model: nn.Module, anatomy: Anatomy, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def __call__(self, model: nn.Module | HasModule, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def on_model(function: Callable[Concatenate[nn.Module, Anatomy, P], R]) -> OnModel[P, R]:
    """Let `function(module, anatomy, ...)` also be called as `function(chat_model, ...)`.

    A bare module without an anatomy is described on the spot.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> R:
        if args:
            model, args = args[0], args[1:]
        else:
            model = kwargs.pop("model", None)
        if args and isinstance(args[0], Anatomy):
            anatomy, args = args[0], args[1:]
        else:
            anatomy = kwargs.pop("anatomy", None)
        module, anatomy = module_and_anatomy(model, anatomy)
        return function(module, anatomy, *args, **kwargs)

    return cast("OnModel[P, R]", call)


def module_and_anatomy(model: ModelLike, anatomy: Anatomy | None = None) -> tuple[nn.Module, Anatomy]:
    """The module to hook (wrappers taken off) and its anatomy, from either calling form.

    Args:
        model: a module, wrapped or not, or an object with `.module` and, where it has one, `.anatomy`.
        anatomy: of the module; taken from the object, or described anew, when None.

    Raises:
        HookError: `model` is neither.
    """
    bare = isinstance(model, nn.Module)
    module = model if bare else getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        raise HookError(
            f"cannot hook a {type(model).__name__}: pass a torch module, a loaded model (tamperlens.load) or "
            "an object with a torch module as .module"
        )
    if anatomy is None and not bare:
        anatomy = getattr(model, "anatomy", None)
    module = unwrap(module)
    return module, describe(module) if anatomy is None else anatomy


def vector_of(direction: VectorLike) -> Tensor:
    """The tensor itself, or the `.vector` of an object that carries one.

    Raises:
        HookError: it is neither.
    """
    found = direction if isinstance(direction, Tensor) else getattr(direction, "vector", None)
    if not isinstance(found, Tensor):
        raise HookError(
            f"the direction is a {type(direction).__name__}; pass a tensor [d_model], or a Direction "
            "(anything with one as .vector)"
        )
    return found
