"""Documents, TOML or JSON, from people and from files that may hold anything."""

import json
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from jsonschema.protocols import Validator

from shared.files.errors import require_file

MAXIMUM_BYTES = 2**24
_MOST_OF_A_MISTAKE = 600  # characters


def read_document(path: Path, most_bytes: int = MAXIMUM_BYTES) -> Any:
    """Return what a file of TOML, called *.toml, or of JSON holds; errors are for `refused_as`."""
    require_file(path, "a document in TOML or JSON")
    if (size := path.stat().st_size) > most_bytes:
        raise ValueError(f"{size:,} bytes, expected at most {most_bytes:,}")
    text = path.read_text("utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)
    return json.loads(text, parse_constant=_refuse_constant)


def check_document(document: Any, validator: Validator) -> None:
    """Raise ValueError, which says the place, for the first thing that a schema refuses."""
    # The first only: an untrusted file may have a million of them.
    if mistake := next(validator.iter_errors(document), None):
        place, message = mistake.json_path.removeprefix("$").lstrip("."), mistake.message
        if len(message) > _MOST_OF_A_MISTAKE:  # it quotes the value, and ends with what is wrong
            half = _MOST_OF_A_MISTAKE // 2
            message = f"{message[:half]} … {message[-half:]}"
        raise ValueError(f"{place or 'the file'}: {message}")


def flattened(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields under dotted names, such as "generator_optimizer.beta1"."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        nested = isinstance(value, dict)
        flat |= flattened(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which JSON does not have")
