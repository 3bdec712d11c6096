"""Griffe extension: docstrings are written to be read as they are; Markdown wants a little more."""

from __future__ import annotations

import re
from typing import Any

import griffe

_LIST = re.compile(r"(?m)^(?P<indent>\s*)(?![-|*] |\s)(?P<line>\S.*)\n(?P=indent)(?=- )")


class Tidy(griffe.Extension):
    """Puts the blank line before a list that Markdown needs, and keeps bars of norms out of tables."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Every docstring, once."""
        if obj.docstring is not None:
            obj.docstring.value = _LIST.sub(r"\g<indent>\g<line>\n\n\g<indent>", obj.docstring.value)
