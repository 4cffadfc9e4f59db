"""Faults of the initial weights."""

from tests.apparatus.planted.fault import Edit, Fault, everywhere


def _initializer(value: str) -> Fault:
    """Return the fault of leaving the weights to a framework's layers.

    The draws are the shared stream's: those of a framework's own generator could not be compared.
    """
    return Fault(
        f"initializer_{value}",
        {"initializer": value},
        everywhere(
            Edit(
                "checkpoint.py",
                "from shared.spec.streams import initial_state\n",
                "from shared.spec import Conventions\n"
                "from shared.spec.streams import initial_state\n",
            ),
            Edit(
                "checkpoint.py",
                "initial_state(spec, seed)",
                f"initial_state(spec, seed, Conventions(initializer={value!r}))",
            ),
        ),
        system="conv28",  # has biases too, which PyTorch does not start at 0
    )


START = tuple(_initializer(value) for value in ("torch_default", "keras_default", "flax_default"))
