"""A reader with every fault, one for each number: the fuzzer itself is tested with it."""

import os
import time
import warnings
from pathlib import Path
from random import Random

import numpy as np

from tests.apparatus.fuzz.reader import MEBIBYTE, Case, Reader

FAULTS = ("none", "traceback", "no name", "two lines", "long", "wrong", "memory", "code", "payload")
FAULTS += ("warning", "crash", "hang")


def make(draw: Random, folder: Path) -> Case:
    """The folder is called as its number; the file in it as its fault."""
    path = folder / FAULTS[int(folder.name) % len(FAULTS)]
    path.write_bytes(draw.randbytes(4))
    return Case(path, path.name, (path.name,))


def read(path: Path) -> None:
    """Have the fault that the name says."""
    fault = path.name
    messages = {"no name": "bad", "two lines": "two lines\nin one", "long": "long" * 1000}
    if fault in messages:
        raise ValueError(messages[fault])
    if fault == "traceback":
        raise KeyError(fault)
    if fault == "warning":
        warnings.warn("odd numbers", RuntimeWarning, stacklevel=1)
    if fault == "memory":
        np.ones(8 * MEBIBYTE)  # 64 MiB
    if fault == "code":
        os.system("true")
    if fault == "payload":
        Path(os.environ["GAN_FUZZ_CANARY"]).touch()
    if fault == "crash":
        os.abort()
    if fault == "hang":
        time.sleep(60)
    assert fault != "wrong"


FAULTY = Reader("faulty", make, read, memory=32 * MEBIBYTE, seconds=1.0)
