"""The reference as an implementation, under any conventions: `shared.reference.adapter`."""

from dataclasses import dataclass

import numpy as np

from shared.interface import Array, LossValues, check_arrays
from shared.reference.losses import loss_values
from shared.reference.network import Arrays, Pass, forward
from shared.reference.optimizers import adam_update
from shared.reference.step import train_step
from shared.spec import AdamSpec, Conventions, NetworkName, SystemSpec, state_shapes
from shared.spec.streams import initial_state


@dataclass
class ReferenceState:
    """A system and every array of its training state, float64."""

    spec: SystemSpec
    arrays: Arrays


class ReferenceImplementation:
    """The NumPy truth behind `shared.interface.Implementation`."""

    name = "reference"

    def __init__(self, conventions: Conventions | None = None) -> None:
        self.conventions = conventions or Conventions()

    def loss(
        self, loss: str, real_scores: Array, fake_scores: Array, **labels: float
    ) -> LossValues:
        """Return losses and gradients, always in float64."""
        return loss_values(loss, real_scores, fake_scores, self.conventions.replace(**labels))

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float64") -> ReferenceState:
        """Return a fresh state; only float64 exists here."""
        if dtype != "float64":
            raise ValueError(f"the reference computes in float64 only, received {dtype!r}")
        return ReferenceState(spec, initial_state(spec, seed, self.conventions))

    def generate(self, state: ReferenceState, latents: Array, *, training: bool = False) -> Array:
        """Return images NHWC."""
        return self._run(state, "generator", latents, training).output

    def discriminate(
        self, state: ReferenceState, images: Array, *, training: bool = False
    ) -> Array:
        """Return scores [batch]."""
        return self._run(state, "discriminator", images, training).output

    def gradients(self, state: ReferenceState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients."""
        step = train_step(state.spec, state.arrays, real_images, latents, self.conventions)
        return step.gradients

    def train_step(
        self, state: ReferenceState, real_images: Array, latents: Array
    ) -> dict[str, float]:
        """Make one step and return its losses."""
        step = train_step(state.spec, state.arrays, real_images, latents, self.conventions)
        state.arrays = step.arrays
        return step.metrics

    def adam(
        self, parameter: Array, gradient: Array, m: Array, v: Array, step: int, settings: AdamSpec
    ) -> tuple[Array, Array, Array]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""
        return adam_update(parameter, gradient, (m, v), step, settings, self.conventions)

    def activations(
        self, state: ReferenceState, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer makes of the inputs, by its name."""
        return self._run(state, network, inputs, training).activations

    def export_state(self, state: ReferenceState) -> Arrays:
        """Return a copy of every array."""
        return {name: array.copy() for name, array in state.arrays.items()}

    def import_state(self, state: ReferenceState, arrays: Arrays) -> None:
        """Replace every array."""
        check_arrays(arrays, state_shapes(state.spec), "the state")
        state.arrays = {
            name: np.array(array, np.int64 if name.endswith("/step") else np.float64)
            for name, array in arrays.items()
        }

    def synchronize(self, state: ReferenceState) -> None:
        """Do nothing: NumPy never runs ahead."""

    def _run(self, state: ReferenceState, network: NetworkName, x: Array, training: bool) -> Pass:
        x = np.asarray(x, np.float64)
        return forward(state.spec, network, state.arrays, x, self.conventions, training=training)


implementation = ReferenceImplementation()
