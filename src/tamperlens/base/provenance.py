"""Where a result came from: versions, platform, and how much memory a stage took."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "tamperlens",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "pandas",
)


def versions() -> dict[str, str]:
    """Version of Python and of every package that can change a number; "absent" where not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def machine() -> dict[str, Any]:
    """Operating system, processor, thread count and accelerators, without names of hosts or users."""
    import os

    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerators": gpus,
    }


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class PeakMemory:
    """Peak memory of this process between construction and `read`.

    On Linux the kernel's high-water mark is reset at the start, so the peak belongs to the stage alone. Where
    that is not possible the peak since the process began is reported and `scope` says so.
    """

    def __init__(self) -> None:
        self.scope = "stage" if _reset_high_water_mark() else "process"
        cuda = _cuda()
        if cuda is not None:
            for device in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(device)

    def read(self) -> dict[str, Any]:
        """`peak_rss_bytes`, `scope`, and `peak_cuda_bytes` (sum over devices) where CUDA is in use."""
        found: dict[str, Any] = {"peak_rss_bytes": _peak_rss(), "peak_rss_scope": self.scope}
        cuda = _cuda()
        if cuda is not None:
            found["peak_cuda_bytes"] = sum(cuda.max_memory_allocated(i) for i in range(cuda.device_count()))
        return found


def _cuda() -> Any | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda


def _reset_high_water_mark() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak_rss() -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows has no such module; accelerate brings psutil
        import psutil  # type: ignore[import-untyped, unused-ignore]

        return int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
