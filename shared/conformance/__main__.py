"""`python -m shared.conformance`: see `shared.conformance.command`."""

import os
import sys

if __name__ == "__main__":
    # Before NumPy is imported. Threads that spin beside each other make small matrices slower: on
    # two busy cores the reference's cases took 68 s with OpenBLAS' own number, and 5 s with one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from shared.conformance.command import main

    sys.exit(main())
