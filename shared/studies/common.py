"""What several studies need before they start."""

from __future__ import annotations

import os
from pathlib import Path


def use_cpu() -> None:
    """Keep every framework on the CPU; only before the first of them is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    os.environ["JAX_PLATFORMS"] = "cpu"


def check_picture(path: Path) -> None:
    """Raise ValueError unless a file can be written at `path`, before the work is done."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a PNG file in it")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it, or name another file")
