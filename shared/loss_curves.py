"""`python -m shared.loss_curves`: see `shared.studies.loss_curves`."""

import sys

from shared.studies.loss_curves import main

if __name__ == "__main__":
    sys.exit(main())
