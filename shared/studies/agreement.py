"""How far implementations are from the reference: `python -m shared.agreement`.

One row per implementation and dtype: the largest relative L2 error of a narrow system's images
and scores, of any gradient, and of any array of the state after one training step.
"""

import argparse
import itertools

from shared.fixtures.network import SEED, SPEC, representative_inputs
from shared.interface import Implementation, load_implementation
from shared.reference.adapter import implementation as reference
from shared.reference.comparison import gradient_differences, relative_l2, state_differences
from shared.run.console import add_implementations, command, text_table, tracked

DTYPES = ("float64", "float32")
COLUMNS = ("images", "scores", "gradients", "state")


def measure(implementation: Implementation, dtype: str) -> tuple[dict[str, float], str]:
    """Return an implementation's errors by COLUMNS, and the worst array of its state."""
    own, expected = _computed(implementation, dtype), _computed(reference, "float64")
    of_arrays = state_differences(SPEC, own[3], expected[3])
    of_gradients = gradient_differences(SPEC, own[2], expected[2]).values()
    outputs = map(relative_l2, own[:2], expected[:2])
    errors = [*outputs, max(of_gradients), max(of_arrays.values())]
    return dict(zip(COLUMNS, errors, strict=True)), max(of_arrays, key=of_arrays.__getitem__)


def _computed(implementation: Implementation, dtype: str) -> tuple:
    """Return images, scores, both networks' gradients and the state after a step."""
    arrays, *inputs = representative_inputs(SPEC, SEED, "representative")
    real, z = (array.astype(dtype) for array in inputs)
    state = implementation.create(SPEC, dtype=dtype)
    implementation.import_state(state, arrays)
    images = implementation.generate(state, z, training=True)
    scores = implementation.discriminate(state, real, training=True)
    gradients = implementation.gradients(state, real, z)
    implementation.train_step(state, real, z)
    return images, scores, gradients, implementation.export_state(state)


def _run(options: argparse.Namespace) -> None:
    rows = [["implementation", "dtype", *COLUMNS, "worst array"]]
    cases = list(itertools.product(options.implementations, DTYPES))
    for name, dtype in tracked("implementations and dtypes", cases):
        implementation = load_implementation(name)
        errors, worst_array = measure(implementation, dtype)
        shown = [f"{error:.1e}" for error in errors.values()]
        rows.append([implementation.name, dtype, *shown, worst_array])
    print(text_table(rows, "<"))


main = command("python -m shared.agreement", __doc__, add_implementations, _run)
