"""Training: `python -m tf_impl.train --help`."""

import sys
from collections.abc import Callable, Sequence
from functools import partial

import keras
import tensorflow as tf
from tensorflow import Tensor

from shared.interface import Array
from shared.run.command import run_training
from shared.run.console import leave_others
from shared.run.options import TrainingOptions
from shared.run.training import TrainingRun
from shared.spec import NetworkName

from . import cluster, parallel
from .checkpoint import create_train_state, export_state
from .losses import LOSSES
from .state import TrainState, batches_to_devices, images_to_numpy, latents_to_device, select_device

Gradients = dict[NetworkName, list[Tensor]]


def train_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` [steps · batch, …] and `latents` [batches · batch, latent_dim] come from
    `batches_to_devices`, or on one device from `images_to_device` and `latents_to_device`; steps
    and batches are `spec.discriminator_steps` and `spec.latent_batches`, both 1 in most systems.
    Returns the losses of the last update of each network as scalars on the device. Source:
    Goodfellow et al. 2014, Algorithm 1.
    """
    with tf.device(state.device):
        return _compiled(state, _losses_of_step)(real_images, latents)


def _compiled(state: TrainState, function: Callable) -> Callable:
    """Return a state's own tf.function of `function(state, ...)`, made at its first use."""
    name = function.__name__
    if name not in state.functions:
        # No branch here hangs on a tensor's value: without AutoGraph the first step is made sooner.
        state.functions[name] = tf.function(
            partial(function, state), autograph=False, jit_compile=state.compute.mode == "xla"
        )
    return state.functions[name]


def _losses_of_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    step = partial(compute_step, state)
    return parallel.run_on_replicas(state.strategy, step, real_images, latents)[0]


def compute_step(
    state: TrainState, real_images: Tensor, latents: Tensor
) -> tuple[dict[str, Tensor], Gradients]:
    """Make the step of `train_step`; returns its losses and both networks' gradients.

    Each of several replicas makes it on its own rows, and returns those of the whole batch.
    """
    spec = state.spec
    spec.batch_size_of(real_images.shape[0], latents.shape[0])
    latent_batches = tf.split(latents, spec.latent_batches)
    real_batches = tf.split(real_images, spec.discriminator_steps)
    for real_batch, latent_batch in zip(real_batches, latent_batches, strict=False):
        fake_images, tape = forward_generator(state, latent_batch)
        loss_real, loss_fake, discriminator_gradients = update_discriminator(
            state, real_batch, tf.stop_gradient(fake_images)
        )
    if spec.generator_batch != "same_images":
        fake_images, tape = forward_generator(state, latent_batches[-1])
    generator_loss, generator_gradients = update_generator(state, fake_images, tape)
    losses = parallel.mean_over_replicas([loss_real, loss_fake, generator_loss])
    loss_real, loss_fake, generator_loss = losses
    metrics = {
        "discriminator_loss": loss_real + loss_fake,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": generator_loss,
    }
    return metrics, {"generator": generator_gradients, "discriminator": discriminator_gradients}


def forward_generator(state: TrainState, latents: Tensor) -> tuple[Tensor, tf.GradientTape]:
    """Return the images of a pass of G, and the tape that leads back to G's gradients."""
    with tf.GradientTape() as tape:
        return forward(state, state.generator, latents), tape


def update_discriminator(
    state: TrainState, real_images: Tensor, fake_images: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Update D; returns its losses on real and on fake images, and its gradients."""
    loss = LOSSES[state.spec.loss]
    with tf.GradientTape() as tape:
        scores = partial(forward, state, state.discriminator)
        # Two passes, so that each batch has its own BN statistics:
        # docs/porting.md#batch-norm-batches.
        real_scores, fake_scores = scores(real_images), scores(fake_images)
        loss_real = loss.discriminator_real(real_scores)
        loss_fake = loss.discriminator_fake(fake_scores)
        total = loss_real + loss_fake
    gradients = tape.gradient(total, state.discriminator.trainable_variables)
    gradients = _update(state, "discriminator", gradients)
    return loss_real, loss_fake, gradients


def update_generator(
    state: TrainState, fake_images: Tensor, generator_tape: tf.GradientTape
) -> tuple[Tensor, list[Tensor]]:
    """Update G through D as it is now; returns G's loss and gradients."""
    # Watching nothing but the images spares the discriminator's weight gradients. Never
    # `discriminator.trainable = False`: Keras would switch its BN to inference mode.
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(fake_images)
        scores = forward(state, state.discriminator, fake_images)
        generator_loss = LOSSES[state.spec.loss].generator(scores)
    gradients = generator_tape.gradient(
        fake_images,
        state.generator.trainable_variables,
        output_gradients=tape.gradient(generator_loss, fake_images),
    )
    gradients = _update(state, "generator", gradients)
    return generator_loss, gradients


def _update(state: TrainState, name: NetworkName, gradients: list[Tensor]) -> list[Tensor]:
    gradients = parallel.mean_over_replicas(gradients)
    state.optimizer(name).apply(gradients)
    return gradients


def forward(state: TrainState, network: keras.Model, x: Tensor, training: bool = True) -> Tensor:
    """Return a network's images or scores in the dtype of its weights."""
    return tf.cast(network(x, training=training), state.dtype)


def generate(state: TrainState, latents: Tensor, *, training: bool = False) -> Tensor:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    with tf.device(state.device):
        return _compiled(state, _forward)("generator", latents, training)


def discriminate(state: TrainState, images: Tensor, *, training: bool = False) -> Tensor:
    """Return scores [batch] of images; the state does not change."""
    with tf.device(state.device):
        return _compiled(state, _forward)("discriminator", images, training)


def _forward(state: TrainState, name: NetworkName, x: Tensor, training: bool) -> Tensor:
    network = state.network(name)
    statistics = [tf.identity(variable.value) for variable in network.non_trainable_variables]
    output = forward(state, network, x, training)
    if training:
        for variable, value in zip(network.non_trainable_variables, statistics, strict=True):
            variable.assign(value)
    return output


def fit(state: TrainState, run: TrainingRun) -> None:
    """Train to the run's last step, with samples and checkpoints when they are due."""
    for step in run.remaining_steps():
        metrics = train_step(state, *batches_to_devices(state, *run.inputs(step)))
        run.record(step, metrics)
        if run.sample_due(step):
            run.save_samples(step, _samples(state, run))
        if run.checkpoint_due(step):
            run.save_checkpoint(step, export_state(state))


def _samples(state: TrainState, run: TrainingRun) -> Array:
    return images_to_numpy(generate(state, latents_to_device(state, run.sample_latents)))


def train(options: TrainingOptions) -> None:
    """Train by the options of a command, in this process; it is one of several or the only one."""
    with cluster.joined():
        cluster.connect(options.device, options.devices, options.wait_limit)
        parallel.prepare_devices(options.device, options.devices)
        device = select_device(options.device)
        versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
        run = TrainingRun(options, device, versions, cluster.processes())
        state = create_train_state(
            options.spec, options.compute, seed=options.seed, arrays=run.initial_arrays
        )
        with run:
            if run.restored is None:
                run.save_samples(-1, _samples(state, run))
            fit(state, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    code = run_training("tf", train, arguments)
    return leave_others(code) if cluster.is_connected() else code


if __name__ == "__main__":
    sys.exit(main())
