"""The memory of this process on Linux: its peak during a read, and a hard limit above it."""

import resource
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak() -> int:
    """Begin a new peak of the resident memory; returns the memory of now, in bytes."""
    _CLEAR.write_text("5")
    return _field("VmRSS")


def peak() -> int:
    """Return the largest resident memory since `reset_peak`, in bytes."""
    return _field("VmHWM")


def limit_growth(extra: int) -> None:
    """Let allocations fail, rather than the machine, that add more than `extra` bytes to now."""
    limit = _field("VmSize") + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{_STATUS} has no {name}; expected that of Linux")
