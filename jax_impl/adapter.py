"""JAX behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_impl import checkpoint, train
from jax_impl.activations import activations
from jax_impl.layers import adam
from jax_impl.losses import LOSSES
from jax_impl.train import TrainState
from shared.interface import METRIC_NAMES, LossValues, split_labels
from shared.spec import AdamSpec, NetworkName, SystemSpec, check_loss

__all__ = ["JaxImplementation", "implementation"]

_compute_step = jax.jit(train.compute_step)


@dataclass
class HeldState:
    """The current one of a run's immutable states."""

    current: TrainState
    dtype: str


def _precision(dtype: str | np.dtype) -> AbstractContextManager:
    """Enter x64 where float64 is computed; an array that left it would lose its dtype."""
    return jax.enable_x64(np.dtype(dtype) == np.float64)


class JaxImplementation:
    """The NumPy-in, NumPy-out face of this package; `device` is "cpu", "gpu" or "auto".

    `devices`, `batch_norm`: see `shared.spec.replicas`. Batches are those of all devices together.
    """

    name = "jax"

    def __init__(
        self, device: str = "cpu", *, devices: int = 1, batch_norm: str = "global"
    ) -> None:
        self.device = device
        self.devices = devices
        self.batch_norm = batch_norm

    def loss(
        self, loss: str, real_scores: np.ndarray, fake_scores: np.ndarray, **labels: float
    ) -> LossValues:
        """Return the loss called `loss` and its gradients, in the inputs' dtype."""
        functions = LOSSES[check_loss(loss)]
        discriminator_labels, generator_labels = split_labels(labels)
        with _precision(real_scores.dtype):
            real, fake = jnp.asarray(real_scores), jnp.asarray(fake_scores)
            discriminator, (real_gradient, fake_gradient) = jax.value_and_grad(
                lambda r, f: functions.discriminator(r, f, **discriminator_labels), argnums=(0, 1)
            )(real, fake)
            generator, generator_gradient = jax.value_and_grad(
                lambda f: functions.generator(f, **generator_labels)
            )(fake)
            values = (discriminator, generator, real_gradient, fake_gradient, generator_gradient)
            return LossValues(*(np.array(v) for v in values))

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> HeldState:
        """Return a fresh training state with the weights that `seed` stands for."""
        with _precision(dtype):
            state = train.create_train_state(
                spec,
                seed=seed,
                dtype=dtype,
                device=self.device,
                devices=self.devices,
                batch_norm=self.batch_norm,
            )
            return HeldState(state, dtype)

    def generate(
        self, state: HeldState, latents: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        """Return images [batch, height, width, channels]; the state does not change."""
        with _precision(state.dtype):
            values = train.latents_to_device(state.current, latents)
            return train.images_to_numpy(train.generate(state.current, values, training=training))

    def discriminate(
        self, state: HeldState, images: np.ndarray, *, training: bool = False
    ) -> np.ndarray:
        """Return scores [batch]; the state does not change."""
        with _precision(state.dtype):
            values = train.images_to_device(state.current, images)
            return np.array(train.discriminate(state.current, values, training=training))

    def activations(
        self, state: HeldState, network: NetworkName, inputs: np.ndarray, *, training: bool = False
    ) -> dict[str, np.ndarray]:
        """Return what each layer makes of the inputs, by its name; the state does not change."""
        to_device = train.latents_to_device if network == "generator" else train.images_to_device
        with _precision(state.dtype):
            values = to_device(state.current, inputs)
            found = activations(state.current, network, values, training=training)
            return {name: np.array(x) for name, x in found.items()}

    def gradients(
        self, state: HeldState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        with _precision(state.dtype):
            batches = train.batches_to_devices(state.current, real_images, latents)
            _, _, gradients = _compute_step(state.current, *batches)
            return checkpoint.export_gradients(gradients)

    def train_step(
        self, state: HeldState, real_images: np.ndarray, latents: np.ndarray
    ) -> dict[str, float]:
        """Make one training step and return its losses; the state moves."""
        with _precision(state.dtype):
            batches = train.batches_to_devices(state.current, real_images, latents)
            state.current, metrics = train.train_step(state.current, *batches)
            # A jitted function returns a dict in alphabetical order.
            return {name: float(metrics[name]) for name in METRIC_NAMES}

    def adam(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,
        m: np.ndarray,
        v: np.ndarray,
        step: int,
        settings: AdamSpec,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""
        with _precision(str(parameter.dtype)):
            transformation = adam(settings)
            moments, *rest = transformation.init(jnp.asarray(parameter))
            moments = moments._replace(
                count=jnp.asarray(step - 1, jnp.int32), mu=jnp.asarray(m), nu=jnp.asarray(v)
            )
            updates, (moments, *_) = transformation.update(
                jnp.asarray(gradient), (moments, *rest), jnp.asarray(parameter)
            )
            after = optax.apply_updates(jnp.asarray(parameter), updates)
            return np.array(after), np.array(moments.mu), np.array(moments.nu)

    def export_state(self, state: HeldState) -> dict[str, np.ndarray]:
        """Return weights, BN statistics, Adam moments and counters by canonical name."""
        with _precision(state.dtype):
            return checkpoint.export_state(state.current)

    def import_state(self, state: HeldState, arrays: dict[str, np.ndarray]) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
        with _precision(state.dtype):
            state.current = checkpoint.import_state(state.current, arrays)

    def synchronize(self, state: HeldState) -> None:
        """Return when all work on the state is done."""
        with _precision(state.dtype):
            train.synchronize(state.current)


implementation = JaxImplementation()
