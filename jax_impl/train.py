"""Training: `python -m jax_impl.train --help`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jax_impl import cluster, parallel
from jax_impl.checkpoint import export_state, import_state
from jax_impl.layers import adam
from jax_impl.losses import LOSSES
from jax_impl.state import (
    NetworkState,
    TrainState,
    batches_to_devices,
    create_train_state,
    images_to_device,
    images_to_numpy,
    latents_to_device,
    select_device,
    synchronize,
)
from shared.run.command import run_training
from shared.run.console import leave_others
from shared.run.options import TrainingOptions
from shared.run.process import RunProcess
from shared.run.training import open_run
from shared.spec import NetworkName

__all__ = [
    "TrainState",
    "batches_to_devices",
    "create_train_state",
    "discriminate",
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

Gradients = dict[NetworkName, nnx.State]
# What a GPU does with float32 products, which is TF32 unless it is told otherwise.
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


@partial(jax.jit, donate_argnums=0)
def train_step(
    state: TrainState, real_images: jax.Array, latents: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` [steps · batch, …] and `latents` [batches · batch, latent_dim] come from
    `batches_to_devices`, or on one device from `images_to_device` and `latents_to_device`; steps
    and batches are `spec.discriminator_steps` and `spec.latent_batches`, both 1 in most systems.
    Returns the new state (the old one's memory is reused) and the losses of the last update of
    each network as scalars on the device. Source: Goodfellow et al. 2014, Algorithm 1.
    """
    with jax.default_matmul_precision(PRODUCTS[state.precision]):
        new_state, metrics, _ = compute_step(state, real_images, latents)
    if state.mesh is None:
        return new_state, metrics
    # Said, so that the compiler does not leave parts of the state on different devices.
    return jax.lax.with_sharding_constraint((new_state, metrics), parallel.replicated(state.mesh))


def compute_step(
    state: TrainState, real_images: jax.Array, latents: jax.Array
) -> tuple[TrainState, dict[str, jax.Array], Gradients]:
    """Make the step of `train_step`; returns its losses and both networks' gradients."""
    spec = state.spec
    spec.batch_size_of(real_images.shape[0], latents.shape[0])
    latent_batches = jnp.split(latents, spec.latent_batches)
    real_batches = jnp.split(real_images, spec.discriminator_steps)
    for real_batch, latent_batch in zip(real_batches, latent_batches, strict=False):
        state, fake_images, backward = forward_generator(state, latent_batch)
        discriminator, (loss_real, loss_fake), discriminator_gradients = update_discriminator(
            state, real_batch, fake_images
        )
        state = replace(state, discriminator=discriminator)
    if spec.generator_batch != "same_images":
        state, fake_images, backward = forward_generator(state, latent_batches[-1])
    state, generator_loss, generator_gradients = update_generator(state, fake_images, backward)
    metrics = {
        "discriminator_loss": loss_real + loss_fake,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": generator_loss,
    }
    gradients: Gradients = {
        "generator": generator_gradients,
        "discriminator": discriminator_gradients,
    }
    return state, metrics, gradients


def forward_generator(
    state: TrainState, latents: jax.Array
) -> tuple[TrainState, jax.Array, Callable[[jax.Array], tuple[nnx.State]]]:
    """Return the state after a pass of G, its images, and their way back to G's gradients."""
    fake_images, backward, statistics = jax.vjp(
        lambda parameters: apply(state.generator, parameters, latents, training=True),
        state.generator.parameters,
        has_aux=True,
    )
    generator = replace(state.generator, statistics=statistics)
    return replace(state, generator=generator), fake_images, backward


def update_discriminator(
    state: TrainState, real_images: jax.Array, fake_images: jax.Array
) -> tuple[NetworkState, tuple[jax.Array, jax.Array], nnx.State]:
    """Return D after its update, its losses on real and on fake images, and its gradients."""
    loss = LOSSES[state.spec.loss]

    def total(parameters: nnx.State) -> tuple[jax.Array, tuple]:
        # Two passes, so that each batch has its own BN statistics:
        # docs/porting.md#batch-norm-batches.
        network = state.discriminator
        real_scores, statistics = apply(network, parameters, real_images, training=True)
        network = replace(network, statistics=statistics)
        fake_scores, statistics = apply(network, parameters, fake_images, training=True)
        loss_real = loss.discriminator_real(real_scores)
        loss_fake = loss.discriminator_fake(fake_scores)
        return loss_real + loss_fake, (loss_real, loss_fake, statistics)

    gradients, (loss_real, loss_fake, statistics) = jax.grad(total, has_aux=True)(
        state.discriminator.parameters
    )
    discriminator = replace(state.discriminator, statistics=statistics)
    return apply_gradients(discriminator, gradients), (loss_real, loss_fake), gradients


def update_generator(
    state: TrainState, fake_images: jax.Array, backward: Callable[[jax.Array], tuple[nnx.State]]
) -> tuple[TrainState, jax.Array, nnx.State]:
    """Return the state after G's update through D as it is now, G's loss and gradients."""

    # A function of the images alone: no weight gradients of the discriminator are formed.
    def generator_loss(images: jax.Array) -> tuple[jax.Array, nnx.State]:
        network = state.discriminator
        scores, statistics = apply(network, network.parameters, images, training=True)
        return LOSSES[state.spec.loss].generator(scores), statistics

    (loss, statistics), image_gradient = jax.value_and_grad(generator_loss, has_aux=True)(
        fake_images
    )
    (gradients,) = backward(image_gradient)
    new_state = replace(
        state,
        generator=apply_gradients(state.generator, gradients),
        discriminator=replace(state.discriminator, statistics=statistics),
    )
    return new_state, loss, gradients


def apply(
    network: NetworkState, parameters: nnx.State, x: jax.Array, *, training: bool
) -> tuple[jax.Array, nnx.State]:
    """Run a network as a pure function of `parameters`; returns its output and BN statistics."""
    # copy=True: inside a transformation NNX refuses to update the caller's own BatchStat.
    module = nnx.merge(network.graph, parameters, network.statistics, copy=True)
    output = module(x, training=training)
    # In bfloat16 too, images and scores leave the network in the dtype of its parameters.
    dtype = jax.tree.leaves(parameters)[0].dtype
    return output.astype(dtype), nnx.state(module, nnx.BatchStat)


def apply_gradients(network: NetworkState, gradients: nnx.State) -> NetworkState:
    """Return the network after one Adam update."""
    updates, optimizer_state = adam(network.settings).update(
        gradients, network.optimizer_state, network.parameters
    )
    parameters = optax.apply_updates(network.parameters, updates)
    return replace(network, parameters=parameters, optimizer_state=optimizer_state)


@partial(jax.jit, static_argnames="training")
def generate(state: TrainState, latents: jax.Array, *, training: bool = False) -> jax.Array:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    return _forward(state, "generator", latents, training)


@partial(jax.jit, static_argnames="training")
def discriminate(state: TrainState, images: jax.Array, *, training: bool = False) -> jax.Array:
    """Return scores [batch] of images; the state does not change."""
    return _forward(state, "discriminator", images, training)


def _forward(state: TrainState, name: NetworkName, x: jax.Array, training: bool) -> jax.Array:
    network = state.network(name)
    with jax.default_matmul_precision(PRODUCTS[state.precision]):
        return apply(network, network.parameters, x, training=training)[0]


def fit(state: TrainState, run: RunProcess) -> TrainState:
    """Train to the run's last step, with samples and checkpoints when they are due."""
    for step in run.remaining_steps():
        state, metrics = train_step(state, *batches_to_devices(state, *run.inputs(step)))
        run.record(step, metrics)
        if run.sample_due(step):
            run.save_samples(step, _samples(state, run))
        if run.checkpoint_due(step):
            run.save_checkpoint(step, export_state(state))
    return state


def _samples(state: TrainState, run: RunProcess) -> np.ndarray:
    return images_to_numpy(generate(state, latents_to_device(state, run.sample_latents)))


def train(options: TrainingOptions) -> None:
    """Train as the command line says."""
    cluster.connect(options.wait_limit)
    parallel.prepare_devices(options.device, options.devices)
    with cluster.joined(), jax.enable_x64(options.dtype == "float64"):
        device = str(select_device(options.device))
        versions = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
        run = open_run(options, device, versions, cluster.processes())
        state = create_train_state(
            options.spec,
            seed=options.seed,
            dtype=options.dtype,
            device=options.device,
            devices=options.devices,
            batch_norm=options.batch_norm,
        )
        if run.restored is not None:
            state = import_state(state, run.restored)
        with run:
            if run.restored is None:
                run.save_initial_samples(_samples(state, run))
            fit(state, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    code = run_training("jax", train, arguments)
    return leave_others(code) if jax.process_count() > 1 else code


if __name__ == "__main__":
    sys.exit(main())
