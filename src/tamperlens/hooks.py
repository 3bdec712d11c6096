"""The hook layer under its public name: `from tamperlens.hooks import capture, ablate_direction, ...`."""

import tamperlens_hooks
from tamperlens_hooks import *  # noqa: F403

__all__ = tamperlens_hooks.__all__


def __dir__() -> list[str]:
    return __all__
