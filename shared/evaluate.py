"""`python -m shared.evaluate`: see `shared.studies.evaluate`."""

from shared.studies.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
