"""How untrusted input has to be refused, and what much of it is made of."""

import re
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.files.errors import MAXIMUM_MESSAGE
from shared.spec import SYSTEMS

SPEC = SYSTEMS["mlp28"].replace(width=1, latent_dim=2, batch_size=2)
DEEP = "[" * 100_000
DIGITS = "1" * 5000


@contextmanager
def refused(error: type[Exception], message: str) -> Iterator[None]:
    """The block raises one printable line that matches, in 5 seconds and with 100 MiB."""
    tracemalloc.start()
    began = time.process_time()  # the machine may be busy with others
    try:
        with pytest.raises(error) as raised:
            yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(raised.value)
    assert re.search(message, text), text
    assert text.isprintable()
    assert len(text) <= MAXIMUM_MESSAGE
    assert time.process_time() - began < 5
    assert peak < 100 * 2**20


def damaged(found: dict[str, Any], place: tuple, value: object) -> dict[str, Any]:
    holder: Any = found
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return found
