"""How far implementations are from the reference: `python -m shared.agreement`.

One row per implementation and dtype: the largest relative L2 error of the narrow fixture's images
and scores, of any gradient, and of any array of the state after one training step.
"""

import argparse
import itertools
from typing import NamedTuple

from shared.fixtures import load_network_fixture
from shared.interface import IMPLEMENTATIONS, Implementation, load_implementation
from shared.reference.comparison import relative_l2
from shared.reference.differences import gradient_differences, state_differences
from shared.reference.step import train_step
from shared.run.console import command, shown_progress, text_table

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


def _add_options(parser: argparse.ArgumentParser) -> None:
    named, default = "names or dotted paths", list(IMPLEMENTATIONS)
    parser.add_argument("implementations", nargs="*", default=default, help=named)


def _run(options: argparse.Namespace) -> None:
    rows = [["implementation", "dtype", "images", "scores", "gradients", "state", "worst array"]]
    cases = list(itertools.product(options.implementations, DTYPES))
    with shown_progress("implementations and dtypes", len(cases)) as advance:
        for name, dtype in cases:
            implementation = load_implementation(name)
            *errors, worst_array = measure(implementation, dtype)
            shown = [f"{error:.1e}" for error in errors]
            rows.append([implementation.name, dtype, *shown, worst_array])
            advance(1)
    print(text_table(rows, "<"))


main = command("python -m shared.agreement", __doc__, _add_options, _run)
