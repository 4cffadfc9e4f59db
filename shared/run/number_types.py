"""Numbers within limits, as `type` of an option."""

import argparse
import math
from collections.abc import Callable

from shared.spec.streams import MAXIMUM_SEED


def whole(least: int, most: float = math.inf, why: str = "") -> Callable[[str], int]:
    """Return what makes a whole number within limits of an option's text."""

    def parse_whole(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, received {value}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}{why}; received {value}")
        return value

    parse_whole.__name__ = "whole number"  # what argparse calls it where int() refuses the text
    return parse_whole


def positive(text: str) -> float:
    """Return the number of an option that has to be positive and finite."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, received {text}")
    return value


seed_number = whole(0, MAXIMUM_SEED)
