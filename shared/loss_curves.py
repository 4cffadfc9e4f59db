"""`python -m shared.loss_curves`: see `shared.studies.loss_curves`."""

from shared.studies.loss_curves import main

if __name__ == "__main__":
    raise SystemExit(main())
