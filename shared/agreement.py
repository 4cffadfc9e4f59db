"""`python -m shared.agreement`: see `shared.studies.agreement`."""

import sys

from shared.studies.agreement import main

if __name__ == "__main__":
    sys.exit(main())
