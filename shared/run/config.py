"""Options in a TOML file: read for --config, and written into the folder of every run."""

from __future__ import annotations

import argparse
import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from shared.files.errors import InputError, printable
from shared.run.options import OPTIONS, build_parser


class ConfigError(InputError):
    """A configuration file that cannot be read or holds what no option takes: one line."""


def read_config(path: Path, implementation: str) -> argparse.Namespace:
    """Return a file's options as the command line would set them; keys may have dashes or _.

    Raises ConfigError for a file that cannot be read or is no TOML, for an unknown key, which is
    answered with the nearest known one, and for a value that the option does not take.
    """
    known = {option.name: option for group in OPTIONS.values() for option in group}
    del known["config"]
    arguments = []
    for key, value in _read_toml(path).items():
        name = key.replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{printable(path)}: unknown option {key!r}; {hint}")
        if known[name].type is not bool:
            # A path as the command line has it, which is in the bytes of the locale.
            text = os.fsdecode(str(value).encode("utf-8", "surrogateescape"))
            arguments.append(f"--{name}={text}")
        elif isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        else:
            raise ConfigError(f"{printable(path)}: {key} must be true or false, received {value!r}")
    try:
        return build_parser(implementation, exit_on_error=False).parse_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(f"{printable(path)}: {error}") from error


def config_bytes(implementation: str, config: Mapping[str, Any]) -> bytes:
    """Return a file that starts the same run; paths may hold bytes that are no UTF-8."""
    heading = (
        "# The options of this run. Start it again:\n"
        f"# python -m {implementation}_impl.train --config THIS_FILE --out ANOTHER_FOLDER\n"
    )
    return (heading + tomli_w.dumps(config)).encode("utf-8", "surrogateescape")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig", "surrogateescape"))
    except OSError as error:
        raise ConfigError(f"--config {printable(path)} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{printable(path)} is no TOML: {error}; "
            'expected lines such as batch-size = 16 or loss = "bce"'
        ) from error
