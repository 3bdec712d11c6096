"""The one family of errors a user is meant to read: each names the thing and the remedy."""

from __future__ import annotations


class TamperlensError(Exception):
    """Base of every error that tamperlens raises on purpose.

    The message is one line that names what was wrong (file, row, module or key) and what to do.
    The command line prints it without a traceback and exits with status 2.
    """


class AnatomyError(TamperlensError):
    """A decoder's part could not be placed, or did not compute what its place promises."""


class UnsupportedModelError(AnatomyError):
    """A model family that is recognised and not supported yet."""


class HookError(TamperlensError, ValueError):
    """A read or edit was asked for that the module cannot give."""
