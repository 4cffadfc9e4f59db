"""Training: `python -m tf_impl.train --help`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shared.command_line import TrainingOptions, run_command
from shared.spec import NetworkName, SystemSpec
from shared.streams import initial_state
from shared.training_run import TrainingRun
from tf_impl.checkpoint import export_state, import_state
from tf_impl.layers import Adam
from tf_impl.losses import LOSSES
from tf_impl.models import create_models

__all__ = [
    "TrainState",
    "create_train_state",
    "fit",
    "generate",
    "images_to_device",
    "images_to_numpy",
    "latents_to_device",
    "main",
    "select_device",
    "synchronize",
    "train_step",
]

DTYPES = {"float32": tf.float32, "float64": tf.float64}


@dataclass
class TrainState:
    """Both networks and both optimizers of one system on one device."""

    spec: SystemSpec
    device: str
    dtype: tf.DType
    generator: keras.Model
    discriminator: keras.Model
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    compiled_step: Callable[..., dict[str, tf.Tensor]] = field(init=False)
    compiled_forward: Callable[..., tf.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        # A tf.function belongs to the variables that it was traced with, so to this state.
        self.compiled_step = tf.function(lambda *inputs: compute_step(self, *inputs)[0])
        self.compiled_forward = tf.function(partial(_forward, self))

    def network(self, name: NetworkName | str) -> keras.Model:
        """Return a network by its name."""
        return self.generator if name == "generator" else self.discriminator

    def optimizer(self, name: NetworkName) -> Adam:
        """Return a network's optimizer."""
        return self.generator_optimizer if name == "generator" else self.discriminator_optimizer


def select_device(name: str) -> str:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or gpu")
    available = bool(tf.config.list_physical_devices("GPU"))
    if name == "gpu" and not available:
        raise ValueError("device gpu was asked for, but TensorFlow sees no GPU; use --device cpu")
    return "/GPU:0" if name == "gpu" or (name == "auto" and available) else "/CPU:0"


def create_train_state(
    spec: SystemSpec, *, seed: int = 0, dtype: str = "float32", device: str = "cpu"
) -> TrainState:
    """Return a fresh state: the weights that `seed` stands for in every framework."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    place = select_device(device)
    with tf.device(place):
        networks = create_models(spec, dtype)
        optimizers = [
            Adam(spec.generator_optimizer, networks[0].trainable_variables),
            Adam(spec.discriminator_optimizer, networks[1].trainable_variables),
        ]
        state = TrainState(spec, place, DTYPES[dtype], *networks, *optimizers)
    import_state(state, initial_state(spec, seed))
    return state


def train_step(
    state: TrainState, real_images: tf.Tensor, latents: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` and `latents` [batch, latent_dim] come from `images_to_device` and
    `latents_to_device`. Returns the losses as scalars on the device. Source: Goodfellow et al.
    2014, Algorithm 1, with one fake batch for both updates.
    """
    with tf.device(state.device):
        return state.compiled_step(real_images, latents)


def compute_step(
    state: TrainState, real_images: tf.Tensor, latents: tf.Tensor
) -> tuple[dict[str, tf.Tensor], dict[NetworkName, list[tf.Tensor]]]:
    """Make the step of `train_step`; returns its losses and both networks' gradients."""
    loss = LOSSES[state.spec.loss]
    generator, discriminator = state.generator, state.discriminator
    with tf.GradientTape() as generator_tape:
        fake_images = generator(latents, training=True)

    # Two passes, so that each batch has its own BN statistics: porting.md, BN batches.
    with tf.GradientTape() as discriminator_tape:
        loss_real = loss.discriminator_real(discriminator(real_images, training=True))
        detached = tf.stop_gradient(fake_images)
        loss_fake = loss.discriminator_fake(discriminator(detached, training=True))
        discriminator_loss = loss_real + loss_fake
    discriminator_gradients = discriminator_tape.gradient(
        discriminator_loss, discriminator.trainable_variables
    )
    state.discriminator_optimizer.apply(discriminator_gradients)

    # Watching nothing but the images spares the discriminator's weight gradients. Never
    # `discriminator.trainable = False`: Keras would switch its BN to inference mode.
    with tf.GradientTape(watch_accessed_variables=False) as image_tape:
        image_tape.watch(fake_images)
        generator_loss = loss.generator(discriminator(fake_images, training=True))
    generator_gradients = generator_tape.gradient(
        fake_images,
        generator.trainable_variables,
        output_gradients=image_tape.gradient(generator_loss, fake_images),
    )
    state.generator_optimizer.apply(generator_gradients)
    metrics = {
        "discriminator_loss": discriminator_loss,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": generator_loss,
    }
    return metrics, {"generator": generator_gradients, "discriminator": discriminator_gradients}


def generate(state: TrainState, latents: tf.Tensor, *, training: bool = False) -> tf.Tensor:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    with tf.device(state.device):
        return state.compiled_forward("generator", latents, training)


def discriminate(state: TrainState, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
    """Return scores [batch] of images; the state does not change."""
    with tf.device(state.device):
        return state.compiled_forward("discriminator", images, training)


def _forward(state: TrainState, name: NetworkName, x: tf.Tensor, training: bool) -> tf.Tensor:
    network = state.network(name)
    statistics = [tf.identity(variable.value) for variable in network.non_trainable_variables]
    output = network(x, training=training)
    if training:
        for variable, value in zip(network.non_trainable_variables, statistics, strict=True):
            variable.assign(value)
    return output


def images_to_device(state: TrainState, images: np.ndarray) -> tf.Tensor:
    """Return NumPy images NHWC as the tensor that `train_step` takes."""
    return _to_device(state, images)


def latents_to_device(state: TrainState, latents: np.ndarray) -> tf.Tensor:
    """Return NumPy latents [batch, latent_dim] as the tensor that `train_step` takes."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: np.ndarray) -> tf.Tensor:
    with tf.device(state.device):
        return tf.constant(array.astype(state.dtype.as_numpy_dtype, copy=False))


def images_to_numpy(images: tf.Tensor) -> np.ndarray:
    """Return a tensor of images as NumPy NHWC."""
    return images.numpy()


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    networks = (state.generator, state.discriminator)
    return float(sum(tf.reduce_sum(n.trainable_variables[0].value) for n in networks))


def fit(state: TrainState, run: TrainingRun) -> None:
    """Train to the run's last step, with samples and checkpoints when they are due."""
    for step in run.remaining_steps():
        real_images, latents = run.inputs(step)
        metrics = train_step(
            state, images_to_device(state, real_images), latents_to_device(state, latents)
        )
        run.record(step, metrics)
        if run.sample_due(step):
            run.save_samples(step, _samples(state, run))
        if run.checkpoint_due(step):
            run.save_checkpoint(step, export_state(state))


def _samples(state: TrainState, run: TrainingRun) -> np.ndarray:
    return images_to_numpy(generate(state, latents_to_device(state, run.sample_latents)))


def train(options: TrainingOptions) -> None:
    """Train as the command line says."""
    device = select_device(options.device)
    versions: dict[str, Any] = {"tensorflow": tf.__version__, "keras": keras.__version__}
    run = TrainingRun.open(options, device=device, versions=versions)
    state = create_train_state(
        options.spec, seed=options.seed, dtype=options.dtype, device=options.device
    )
    if run.restored is not None:
        import_state(state, run.restored)
    with run:
        if run.restored is None:
            run.save_initial_samples(_samples(state, run))
        fit(state, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command("tf", train, arguments)


if __name__ == "__main__":
    sys.exit(main())
