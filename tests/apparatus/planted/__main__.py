"""Plant every fault in every framework and compare with the reference, under both conventions.

Two relative L2 errors a cell, each the largest of any number: under the fault's own conventions,
which is rounding, and under the canonical ones, which the fault must miss.
"""

import argparse
import sys
from collections.abc import Sequence

from shared.interface import (
    IMPLEMENTATIONS,
    MissingFrameworkError,
    canonical_name,
    load_implementation,
)
from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults import FAULTS, get_fault
from tests.apparatus.planted.mutate import mutated
from tests.apparatus.planted.probe import (
    CANONICAL_BOUND,
    TRUTH_BOUND,
    canonical_error,
    measure,
    truth_error,
)

PROGRAM = "python -m tests.apparatus.planted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 1 where a fault is not what it is said to be, 2 for bad input."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    names = {"type": canonical_name, "choices": IMPLEMENTATIONS, "default": IMPLEMENTATIONS}
    parser.add_argument("--framework", nargs="*", **names)
    parser.add_argument("--fault", nargs="*", metavar="NAME", help="only these faults")
    options = parser.parse_args(arguments)
    try:
        faults = FAULTS if options.fault is None else [get_fault(name) for name in options.fault]
        for framework in options.framework:
            load_implementation(framework)
    except (MissingFrameworkError, ValueError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return _print_table(options.framework, faults)


def _print_table(frameworks: Sequence[str], faults: Sequence[Fault]) -> int:
    print(f"{'fault':<34}" + "".join(f"{framework:<20}" for framework in frameworks))
    wrong = 0
    for fault in faults:
        print(f"{fault.name:<34}", end="")
        for framework in frameworks:
            cell, is_right = _cell(framework, fault)
            wrong += not is_right
            print(f"{cell:<20}", end="", flush=True)
        print()
    print(f"{len(faults)} faults, {wrong} cells that are not what they are said to be (!)")
    return 1 if wrong else 0


def _cell(framework: str, fault: Fault) -> tuple[str, bool]:
    if framework in fault.absent:
        return "absent", True
    with mutated(framework, [fault]) as implementation:
        numbers = measure(implementation, fault.spec, fault.start)
    truth, canonical = truth_error(numbers, fault)[0], canonical_error(numbers, fault)[0]
    is_right = truth <= TRUTH_BOUND and not canonical <= CANONICAL_BOUND
    return f"{truth:<8.1e} {canonical:.1e}{'' if is_right else ' !'}", is_right


if __name__ == "__main__":
    sys.exit(main())
