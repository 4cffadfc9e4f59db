"""What explain says of public reports' mistakes and loops: `python -m tests.wild`, a line each."""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.wild import adapters, flax_loops, keras_loops, loops, recordings, tangles

PARTS = {
    "seen": (*adapters.SEEN, *recordings.SEEN),
    "held back": (*adapters.HELD_BACK, *recordings.HELD_BACK),
    "tangles": tangles.TANGLES,
    "loops": loops.LOOPS,
    "loops in their frameworks": (*keras_loops.LOOPS, *flax_loops.LOOPS),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.wild", description=__doc__)
    parser.add_argument("--part", choices=list(PARTS), help="(default: all)")
    part = parser.parse_args().part
    misnamed = 0
    for name in [part] if part else PARTS:
        counts: Counter[str] = Counter()
        for case in PARTS[name]:
            with tempfile.TemporaryDirectory() as folder:
                outcome, said = case.outcome(Path(folder))
            counts[outcome] += 1
            print(f"{case.report:<40} {outcome:<9} {case.mistake}: {said}", flush=True)
        print(f"{name}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}\n")
        misnamed += counts["misnamed"]
    return int(misnamed > 0)


if __name__ == "__main__":
    sys.exit(main())
