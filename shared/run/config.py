"""Options in a TOML file: read with the checks of the command line, and written for a run.

The keys are the names of the options, with dashes or with underscores.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.files.errors import one_line, printable
from shared.run.parser import checkpoints_to_keep

_NOT_IN_A_FILE = ("config", "help")
_TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
}


class ConfigError(ValueError):
    """A configuration file that cannot be read or says what no option takes: one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def read_config(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return a file's options by their names in the parser's namespace.

    Raises ConfigError for a file that cannot be read or is no TOML, for an unknown key, which is
    answered with the nearest known one, and for a value of another type or choice.
    """
    actions = {
        action.dest: action for action in parser._actions if action.dest not in _NOT_IN_A_FILE
    }
    values: dict[str, Any] = {}
    for key, value in _read_toml(path).items():
        name = key.replace("-", "_")
        if name not in actions:
            raise ConfigError(
                f"{printable(path)}: unknown option {key!r}; {_nearest(name, actions)}"
            )
        if name in values:
            raise ConfigError(f"{printable(path)}: {_flag(name)} is given twice, with - and with _")
        try:
            values[name] = _checked(actions[name], value)
        except ValueError as error:
            raise ConfigError(f"{printable(path)}: {key} must be {error}") from error
    return values


def config_text(implementation: str, values: Mapping[str, Any]) -> str:
    """Return a file that starts the same run; a value of None is left out.

    >>> print(config_text("jax", {"batch_size": 16}).splitlines()[-1])
    batch-size = 16
    """
    lines = [
        "# The options of this run. Start it again:",
        f"# python -m {implementation}_impl.train --config THIS_FILE --out ANOTHER_FOLDER",
        *(
            f"{name.replace('_', '-')} = {_toml(value)}"
            for name, value in values.items()
            if value is not None
        ),
    ]
    return "\n".join(lines) + "\n"


def _read_toml(path: Path) -> dict[str, Any]:
    shown = printable(path)
    try:
        # Paths may hold bytes that are no UTF-8; they come back as Python has them in a path.
        return tomllib.loads(path.read_bytes().decode("utf-8-sig", "surrogateescape"))
    except OSError as error:
        raise ConfigError(f"--config {shown} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f'{shown} is no TOML: {error}; expected lines such as batch-size = 16 or loss = "bce"'
        ) from error


def _nearest(name: str, actions: Mapping[str, argparse.Action]) -> str:
    if near := difflib.get_close_matches(name, actions, n=1):
        return f"did you mean {_flag(near[0])}?"
    return f"known are {', '.join(map(_flag, actions))}"


def _checked(action: argparse.Action, value: Any) -> Any:
    """Return the value as the option holds it; ValueError says what it must be."""
    expected = _expected(action)
    if action.type is checkpoints_to_keep and value == "all":
        return checkpoints_to_keep(value)
    if type(value).__name__ not in (("int", "float") if expected == "float" else (expected,)):
        choices = ", or all" if action.type is checkpoints_to_keep else ""
        raise ValueError(f"{_TYPES[expected]}{choices}, received {json.dumps(value, default=str)}")
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"one of {', '.join(action.choices)}, received {json.dumps(value)}")
    if action.type is Path:
        return Path(os.fsdecode(value.encode("utf-8", "surrogateescape")))
    return float(value) if action.type is float else value


def _expected(action: argparse.Action) -> str:
    """Return the name of the TOML type of an option."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return "bool"
    if action.type in (int, checkpoints_to_keep):
        return "int"
    return "float" if action.type is float else "str"


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _toml(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        return repr(value).lower()
    # A JSON string is one of TOML's, but for the character DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
