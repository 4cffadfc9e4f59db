"""`python -m shared.agreement`: see `shared.studies.agreement`."""

from shared.studies.agreement import main

if __name__ == "__main__":
    raise SystemExit(main())
