"""`python -m shared.equilibrium`: see `shared.studies.equilibrium`."""

from shared.studies.equilibrium import main

if __name__ == "__main__":
    raise SystemExit(main())
