"""The process that reads: numbers of inputs in, one line of JSON out for each.

`python -m tests.apparatus.fuzz.child READER SEED FOLDER`. It may crash, hang or fill its
memory; the parent begins another one after the input that did it.
"""

import faulthandler
import json
import os
import sys
from pathlib import Path

from tests.apparatus.fuzz import memory
from tests.apparatus.fuzz.faulty import FAULTY
from tests.apparatus.fuzz.judge import judge
from tests.apparatus.fuzz.readers import READERS
from tests.apparatus.fuzz.watch import Watch

HARD_LIMIT = 4  # times a reader's bound: where allocations begin to fail


def main(name: str, seed: int, folder: Path) -> None:
    """Answer until the parent hangs up."""
    # Libraries print; the answers go to what was stdout.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    faulthandler.enable()
    reader = FAULTY if name == FAULTY.name else READERS[name]
    watch = Watch(folder)
    reader.prepare()
    memory.limit_growth(HARD_LIMIT * reader.memory)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        outcome = judge(reader, seed, int(line), folder, watch)
        print(json.dumps(outcome.to_dict()), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
