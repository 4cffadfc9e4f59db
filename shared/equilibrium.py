"""`python -m shared.equilibrium`: see `shared.studies.equilibrium`."""

import sys

from shared.studies.equilibrium import main

if __name__ == "__main__":
    sys.exit(main())
