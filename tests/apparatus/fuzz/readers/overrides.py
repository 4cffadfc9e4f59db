"""Override files of the conformance kit: `shared.conformance.cases.load_overrides`."""

import json
from pathlib import Path
from random import Random
from typing import Any

from shared.conformance.cases import load_overrides
from tests.apparatus.fuzz.json_mutators import mutated_document
from tests.apparatus.fuzz.places import Files
from tests.apparatus.fuzz.reader import Reader

_IDENTIFIERS = [f"loss/{loss}/float64/{i}" for loss in ("bce", "lsgan") for i in range(20)]
_DOCUMENT = {
    "loss/bce/float64/1": {"bound": 1e-9, "reason": "sums in another order"},
    "loss/lsgan/*": {"divergent": True, "reason": "no half in front"},
}
_TOML = b"""["loss/bce/float64/1"]
bound = 1e-9
reason = "sums in another order"
["loss/lsgan/*"]
divergent = true
reason = "no half in front"
"""


def mutated_json(draw: Random) -> bytes:
    document: Any = mutated_document(draw, _DOCUMENT)[1]
    return document


def odd_pattern(draw: Random) -> bytes:
    pattern = draw.choice(
        ("*a" * 3000, "[" * 3000, "*" * 100_000, "?" * 5000, "[!-]", "\x1b[31m\n")
    )
    return json.dumps({pattern: {"divergent": True, "reason": "x"}}).encode()


def odd_toml(draw: Random) -> bytes:
    value = draw.choice(
        (
            *(b"inf", b"nan", b"-1", b"1979-05-27", b"1" * 400, b"9" * 6000, b"0x" + b"f" * 6000),
            *(b"1e999", b'"""' + b"x" * 9000 + b'"""', b"[" * 9000, b"[" * 400 + b"]" * 400),
            *(b"{a=" * 3000, b"07:32:00", b"true", b'"\\u0000\\u001b"', b'"\\ud800"', b"1_000.0"),
        )
    )
    # tomllib takes 80 seconds and gigabytes for 20,000; a file of the user is not limited.
    dotted = b".".join([b"a"] * draw.choice((50, 1000)))
    line = draw.choice((b"bound = " + value, dotted + b" = 1", b"[" + dotted + b"]"))
    return b'["loss/bce/float64/1"]\nreason = "x"\n' + line + b"\n"


_FILES = Files(
    (".json", ".toml", ".toml", ".txt"),
    lambda: [json.dumps(_DOCUMENT).encode(), _TOML],
    (mutated_json, mutated_json, odd_toml, odd_toml, odd_pattern),
    share=0.7,
)


def read(path: Path) -> None:
    for override in load_overrides(path, _IDENTIFIERS).values():
        assert override.reason.strip()
        assert override.bound is None or 0 <= override.bound < float("inf")


READER = Reader("overrides", _FILES.make, read, (ValueError,), processor_seconds=5.0)
