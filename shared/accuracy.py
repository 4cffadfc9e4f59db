"""`python -m shared.accuracy`: see `shared.studies.accuracy`."""

from shared.studies.accuracy import main

if __name__ == "__main__":
    raise SystemExit(main())
