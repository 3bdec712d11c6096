"""One registry per kind of plug-in, so that a user's own judge, attack or recorder is one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tamperlens.base.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to things of one kind.

    Args:
        kind: what the things are called in error messages, e.g. "judge".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator (or direct call) that files a thing under a name."""

        def file_it(thing: T) -> T:
            if name in self._things:
                raise InputError(f"a {self.kind} named {name!r} is registered already; pick another name")
            self._things[name] = thing
            return thing

        return file_it

    def get(self, name: str) -> T:
        """The thing of that name.

        Raises:
            InputError: no such name; the message lists those that exist.
        """
        if name not in self._things:
            known = ", ".join(sorted(self._things)) or "none"
            raise InputError(f"no {self.kind} named {name!r}; known: {known}")
        return self._things[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._things)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._things
