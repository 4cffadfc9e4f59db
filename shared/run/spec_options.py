"""Options of the commands that take any system: one of the four, or that of a file."""

import argparse
from collections.abc import Callable

from shared.files.system_file import find_system
from shared.run.number_types import positive
from shared.run.options import GENERATOR_BATCHES, respecified
from shared.spec import LOSS_NAMES, SYSTEMS, SystemSpec


def add_spec_options(parser: argparse.ArgumentParser, system: str | None, batch_size: int) -> None:
    """Add --system, with its default, and an option for each field that may be another one."""
    add = parser.add_argument
    text = f"{', '.join(SYSTEMS)}, or a file: docs/systems.md (default: {system or 'all four'})"
    add("--system", default=system, metavar="SYSTEM|FILE", help=text)
    add("--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)")
    numbers = {
        "--image-size P": "pixels of a side (default: the system's)",
        "--channels C": "of an image (default: the system's)",
        "--width W": "size of the narrowest layer (default: narrow, of a file its own)",
        "--latent-dim N": "(default: few, of a file its own)",
        "--d-steps K": "updates of the discriminator a step (default: the system's)",
    }
    for words, text in numbers.items():
        flag, metavar = words.split()
        add(flag, type=int, metavar=metavar, help=text)
    add("--batch-size", type=int, default=batch_size, metavar="N", help="(default: %(default)s)")
    text = "what the generator learns from (default: the system's)"
    add("--generator-batch", choices=tuple(GENERATOR_BATCHES), help=text)
    text = "of both networks (default: the system's)"
    add("--learning-rate", type=positive, metavar="LR", help=text)


def chosen_spec(options: argparse.Namespace, narrow: Callable[[str], dict[str, int]]) -> SystemSpec:
    """Return the system of the options, or ValueError; `narrow` has sizes of each architecture."""
    system = find_system(options.system)
    own = {} if system.architecture == "custom" else narrow(system.architecture)
    given = {name: value for name, value in vars(options).items() if value is not None}
    return respecified(system, own | given)
