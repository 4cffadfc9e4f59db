"""What several studies share: a text table, and frameworks kept on the CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return rows as text; `alignment` holds < or > for each column, its last one for the rest."""
    columns = list(zip(*rows, strict=True))
    sides = alignment.ljust(len(columns), alignment[-1])
    formats = [f"{s}{max(map(len, column))}" for s, column in zip(sides, columns, strict=True)]
    return "\n".join("  ".join(map(format, row, formats)).rstrip() for row in rows)


def use_cpu() -> None:
    """Keep every framework on the CPU; only before the first of them is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    os.environ["JAX_PLATFORMS"] = "cpu"
