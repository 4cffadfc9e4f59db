"""`python -m shared.accuracy`: see `shared.studies.accuracy`."""

import sys

from shared.studies.accuracy import main

if __name__ == "__main__":
    sys.exit(main())
