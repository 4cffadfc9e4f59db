"""Lines of Python by room, held to a budget: `python -m tests.apparatus.line_budget`.

Every line counts, blank ones and comments too. Simplicity is a feature of this project: whoever
adds looks first for what the addition replaces.
"""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests import ROOT

MOST_IN_ALL = 23_848
"""Without tests; the aim is 20,000. It falls with every cut."""
MOST_IN_KERNEL = 6_000
MOST_IN_A_FILE = 400
CORE = ("losses", "layers", "models", "fast", "state", "train", "checkpoint")
"""What people read side by side; with shared/spec and shared/reference it is the kernel."""


def count_lines(root: Path = ROOT) -> dict[str, int]:
    """Return the lines of every Python file that git tracks, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True
    )
    paths = [path for path in listed.stdout.splitlines() if (root / path).exists()]
    return {path: len((root / path).read_text("utf-8").splitlines()) for path in paths}


def room_of(path: str) -> str:
    """Return the folder whose name says what a file is for.

    >>> room_of("shared/spec/layers.py"), room_of("shared/interface.py"), room_of("tests/run/a.py")
    ('shared/spec', 'shared', 'tests')
    """
    *folders, _ = path.split("/")
    depth = 2 if folders and folders[0] in ("shared", "benchmarks") else 1
    return "/".join(folders[:depth]) or "."


def is_kernel(path: str) -> bool:
    """Whether a file is part of what people come for."""
    folder, _, rest = path.partition("/")
    if path.startswith(("shared/spec/", "shared/reference/")):
        return True
    return folder.endswith("_impl") and rest.removesuffix(".py") in CORE


def excesses(lines: dict[str, int]) -> list[str]:
    """Return what is over the budget, a line each."""
    code = {path: count for path, count in lines.items() if not path.startswith("tests/")}
    kernel = sum(count for path, count in code.items() if is_kernel(path))
    found = [
        f"{p}: {n} lines, at most {MOST_IN_A_FILE}" for p, n in code.items() if n > MOST_IN_A_FILE
    ]
    for name, count, most in (
        ("all without tests", sum(code.values()), MOST_IN_ALL),
        ("the kernel", kernel, MOST_IN_KERNEL),
    ):
        if count > most:
            found.append(f"{name}: {count:,} lines, at most {most:,}")
    return found


def main() -> int:
    """Print the lines of every room and what is over the budget; 1 if anything is."""
    lines = count_lines()
    rooms: Counter[str] = Counter()
    for path, count in lines.items():
        rooms[room_of(path)] += count
    for room, count in sorted(rooms.items()):
        print(f"{count:7,}  {room}")
    without_tests = sum(lines.values()) - rooms["tests"]
    kernel = sum(count for path, count in lines.items() if is_kernel(path))
    print(f"{without_tests:7,}  all without tests (at most {MOST_IN_ALL:,})")
    print(f"{kernel:7,}  the kernel (at most {MOST_IN_KERNEL:,})")
    problems = excesses(lines)
    for problem in problems:
        print(f"over the budget: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
