"""Every number of an implementation in which a planted fault can show."""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from shared.fixtures.network import representative_state
from shared.interface import Implementation
from shared.reference.adapter import ReferenceImplementation
from shared.reference.comparison import Arrays, gradient_differences, relative_l2, state_differences
from shared.spec import SystemSpec
from shared.spec.streams import latents, stream
from tests.apparatus.planted.fault import Fault, Start

TRUTH_BOUND = 1e-10
"""What a fault's own conventions must reproduce, relative L2; measured: see the command."""
CANONICAL_BOUND = 1e-9
"""What the canonical conventions must miss by, in some number."""

# Probabilities at which each way of clipping has another loss or gradient: 1e-50 lies beyond
# e⁻¹⁰⁰ and beyond 1e-12, and both 1e-9 and 1 - 1e-9 beyond 1e-7.
_PROBABILITIES = (np.array([1e-50, 1e-9, 0.3, 1.0 - 1e-9]), np.array([1e-50, 0.2, 0.6, 1.0 - 1e-9]))
_SCORES = (np.array([-3.0, -0.4, 0.7, 5.0]), np.array([-6.0, 0.3, 1.1, 2.0]))


@dataclass(frozen=True)
class Numbers:
    """What an implementation makes of one starting point, by name."""

    initial: Arrays
    outputs: Arrays
    gradients: Arrays
    state: Arrays


def measure(implementation: Implementation, spec: SystemSpec, start: Start) -> Numbers:
    """Return an implementation's float64 numbers in one system from one state."""
    real, fake = _PROBABILITIES if spec.loss == "bce_probs" else _SCORES
    losses = dataclasses.asdict(implementation.loss(spec.loss, real, fake))
    state = implementation.create(spec, dtype="float64")
    initial = implementation.export_state(state)
    implementation.import_state(state, starting_state(spec, start))
    images, z = inputs(spec)
    gradients = implementation.gradients(state, images, z)
    outputs = {}
    for training, mode in ((False, ""), (True, " in training")):
        outputs[f"images{mode}"] = implementation.generate(state, z, training=training)
        outputs[f"scores{mode}"] = implementation.discriminate(state, images, training=training)
    metrics = implementation.train_step(state, images, z)
    outputs |= {f"loss() {name}": np.asarray(value) for name, value in losses.items()}
    outputs |= {name: np.asarray(value) for name, value in metrics.items()}
    return Numbers(initial, outputs, gradients, implementation.export_state(state))


@functools.cache
def canonical_numbers(spec: SystemSpec, start: Start) -> Numbers:
    """Return the canonical reference's numbers, computed once for all faults that show there."""
    return measure(ReferenceImplementation(), spec, start)


def truth_error(numbers: Numbers, fault: Fault) -> tuple[float, str]:
    """Return the largest error under the fault's own conventions, and of what."""
    reference = ReferenceImplementation(fault.conventions)
    return largest(fault.spec, numbers, measure(reference, fault.spec, fault.start))


def canonical_error(numbers: Numbers, fault: Fault) -> tuple[float, str]:
    """Return the largest error under the canonical conventions, and of what."""
    return largest(fault.spec, numbers, canonical_numbers(fault.spec, fault.start))


def largest(spec: SystemSpec, actual: Numbers, expected: Numbers) -> tuple[float, str]:
    """Return the largest relative L2 difference and what it is of; one that is nan comes first."""
    found = {
        **_each("initial ", actual.initial, expected.initial),
        **_each("", actual.outputs, expected.outputs),
        **{
            f"gradient {name}": error
            for name, error in gradient_differences(
                spec, actual.gradients, expected.gradients
            ).items()
        },
        **state_differences(spec, actual.state, expected.state),
    }
    worst = max(found, key=lambda name: np.inf if np.isnan(found[name]) else found[name])
    return found[worst], worst


def _each(prefix: str, actual: Arrays, expected: Arrays) -> dict[str, float]:
    return {f"{prefix}{n}": relative_l2(actual[n], array) for n, array in expected.items()}


def inputs(spec: SystemSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return real images and latents of one step, float64."""
    count = spec.batch_size * spec.discriminator_steps
    real = stream(0, "planted/real_images").uniform(*spec.image_range, (count, *spec.image_shape))
    return real, latents(spec, 0, 0, spec.batch_size * spec.latent_batches, purpose="planted")


def starting_state(spec: SystemSpec, start: Start) -> Arrays:
    """Return a whole state, float64.

    Its pre-activations are random numbers of order 1, of which none comes as near to a kink as
    float64 rounds; those of "zeroed_channel" lie on it exactly.
    """
    arrays = {name: np.array(a, np.float64) for name, a in representative_state(spec, 0).items()}
    kernels = [n for n in arrays if n.startswith("discriminator/") and n.endswith("/kernel")]
    last = kernels[-1]
    if start == "zeroed_channel":
        arrays[kernels[0]][..., 0] = 0.0
    elif start == "scores_like_probabilities":
        arrays[last] *= 0.1
        arrays[last.replace("/kernel", "/bias")][:] = 0.5
    elif start == "tiny_gradients":
        arrays[last] *= 1e-5
        for name in arrays:
            if "_optimizer/" in name:
                arrays[name] *= 0.0
    return arrays
