"""`python -m shared.trajectory`: see `shared.studies.trajectory`."""

from shared.studies.trajectory import main

if __name__ == "__main__":
    raise SystemExit(main())
