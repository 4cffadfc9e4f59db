"""`python -m shared.convert`: see `shared.convert.command`."""

import sys

from shared.convert.command import main

if __name__ == "__main__":
    sys.exit(main())
