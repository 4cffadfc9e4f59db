"""How far implementations are from the reference: `python -m shared.agreement`.

One row per implementation and dtype: the largest relative L2 error of the narrow fixture's images
and scores, of any gradient, and of any array of the state after one training step.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from shared.fixtures import load_network_fixture
from shared.interface import IMPLEMENTATIONS, Implementation, load_implementation
from shared.reference.comparison import relative_l2
from shared.reference.differences import gradient_differences, state_differences
from shared.reference.step import train_step
from shared.run.console import run_command

DTYPES = ("float64", "float32")


class Agreement(NamedTuple):
    """Relative L2 errors of one implementation in one dtype, and the worst array of its state."""

    images: float
    scores: float
    gradient: float
    state: float
    worst_array: str


def measure(implementation: Implementation, dtype: str) -> Agreement:
    """Return the errors of one implementation on the narrow fixture."""
    fixture = load_network_fixture()
    state = implementation.create(fixture.spec, dtype=dtype)
    implementation.import_state(state, fixture.arrays)
    real, z = fixture.real_images.astype(dtype), fixture.latents.astype(dtype)
    images = implementation.generate(state, z, training=True)
    scores = implementation.discriminate(state, real, training=True)
    gradients = implementation.gradients(state, real, z)
    implementation.train_step(state, real, z)
    received = implementation.export_state(state)
    expected = train_step(fixture.spec, fixture.arrays, fixture.real_images, fixture.latents)
    of_arrays = state_differences(fixture.spec, received, expected.arrays)
    worst_array = max(of_arrays, key=of_arrays.__getitem__)
    return Agreement(
        relative_l2(images, fixture.generator_activations["tanh_5"]),
        relative_l2(scores, fixture.discriminator_activations["flatten_5"][:, 0]),
        max(gradient_differences(fixture.spec, gradients, fixture.gradients).values()),
        of_arrays[worst_array],
        worst_array,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns 2 where a framework is missing."""
    parser = argparse.ArgumentParser(prog="python -m shared.agreement", description=__doc__)
    parser.add_argument(
        "implementations", nargs="*", default=list(IMPLEMENTATIONS), help="names or dotted paths"
    )
    options = parser.parse_args(arguments)

    def work() -> None:
        print("implementation  dtype    images   scores   gradients  state    worst array")
        for name in options.implementations:
            implementation = load_implementation(name)
            for dtype in DTYPES:
                a = measure(implementation, dtype)
                print(
                    f"{implementation.name:<15} {dtype:<8} {a.images:<8.1e} {a.scores:<8.1e} "
                    f"{a.gradient:<10.1e} {a.state:<8.1e} {a.worst_array}"
                )

    return run_command(parser.prog, work)
