"""`python -m shared.evaluate`: see `shared.studies.evaluate`."""

import sys

from shared.studies.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
