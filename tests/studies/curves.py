"""What tests of trajectories share: the assertion, and steps that are worth compiling well."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.interface import MissingFrameworkError, load_implementation
from shared.studies.trajectory import Bounds, Curves, first_divergence
from tests.comparison import MismatchError


def require_within(curves: Curves, bounds: Bounds) -> None:
    """Raise MismatchError if any pair is beyond the bounds after any step."""
    for pair, curve in curves.items():
        if found := first_divergence(curve, bounds):
            raise MismatchError(f"{' and '.join(pair)} diverged at {found}; {bounds}")


@contextmanager
def optimized_steps() -> Iterator[None]:
    """Let JAX's compiler optimise what is stepped many times, as `tests/conftest.py` does not.

    Four more seconds of compiling; a float64 step then takes a tenth of the time.
    """
    try:
        load_implementation("jax")
    except MissingFrameworkError:
        yield
        return
    import jax

    train = importlib.import_module("jax_impl.train")
    optimized = jax.jit(
        train._compiled_step.__wrapped__,
        static_argnums=0,
        donate_argnums=1,
        compiler_options={"xla_backend_optimization_level": 1},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_compiled_step", optimized)
        yield
