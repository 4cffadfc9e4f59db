"""`python -m shared.trajectory`: see `shared.studies.trajectory`."""

import sys

from shared.studies.trajectory import main

if __name__ == "__main__":
    sys.exit(main())
