"""The assertion of every test of trajectories."""

from shared.reference.comparison import MismatchError
from shared.studies.trajectory import Bounds, Curves, first_divergence


def require_within(curves: Curves, bounds: Bounds) -> None:
    """Raise MismatchError if any pair is beyond the bounds after any step."""
    for pair, curve in curves.items():
        if found := first_divergence(curve, bounds):
            raise MismatchError(f"{' and '.join(pair)} diverged at {found}; {bounds}")
