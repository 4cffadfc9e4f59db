"""Training: `python -m jax_impl.train --help`."""

import sys
from collections.abc import Callable, Sequence
from functools import partial

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array as Tensor

from shared.interface import Array
from shared.run.command import run_training
from shared.run.console import leave_others
from shared.run.options import TrainingOptions
from shared.run.training import TrainingRun
from shared.spec import NetworkName

from . import cluster, parallel
from .checkpoint import create_train_state, export_state
from .losses import LOSSES
from .state import (
    Leaves,
    Modules,
    Settings,
    TrainState,
    batches_to_devices,
    images_to_numpy,
    latents_to_device,
    select_device,
)

Gradients = dict[NetworkName, nnx.State]
# What a GPU does with float32 products, which is TF32 unless JAX is given another precision.
PRODUCTS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


def train_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` [steps · batch, …] and `latents` [batches · batch, latent_dim] come from
    `batches_to_devices`, or on one device from `images_to_device` and `latents_to_device`; steps
    and batches are `spec.discriminator_steps` and `spec.latent_batches`, both 1 in most systems.
    Returns the losses of the last update of each network as scalars on the device. Source:
    Goodfellow et al. 2014, Algorithm 1.
    """
    # The memory of the old arrays is reused.
    state.arrays, metrics = _compiled_step(state.settings, state.arrays, real_images, latents)
    return metrics


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _compiled_step(
    settings: Settings, arrays: Leaves, real_images: Tensor, latents: Tensor
) -> tuple[Leaves, dict[str, Tensor]]:
    modules = settings.merge(arrays)
    with jax.default_matmul_precision(PRODUCTS[settings.compute.precision]):
        metrics, _ = compute_step(modules, real_images, latents)
    results = (modules.arrays(), metrics)
    if settings.mesh is None:
        return results
    # Explicit, so that the compiler does not leave parts of the state on different devices.
    return jax.lax.with_sharding_constraint(results, parallel.replicated(settings.mesh))


def compute_step(
    state: Modules, real_images: Tensor, latents: Tensor
) -> tuple[dict[str, Tensor], Gradients]:
    """Make the step of `train_step`; returns its losses and both networks' gradients."""
    spec = state.spec
    spec.batch_size_of(real_images.shape[0], latents.shape[0])
    latent_batches = jnp.split(latents, spec.latent_batches)
    real_batches = jnp.split(real_images, spec.discriminator_steps)
    for real_batch, latent_batch in zip(real_batches, latent_batches, strict=False):
        fake_images, backward = forward_generator(state, latent_batch)
        loss_real, loss_fake, discriminator_gradients = update_discriminator(
            state, real_batch, jax.lax.stop_gradient(fake_images)
        )
    if spec.generator_batch != "same_images":
        fake_images, backward = forward_generator(state, latent_batches[-1])
    generator_loss, generator_gradients = update_generator(state, fake_images, backward)
    metrics = {
        "discriminator_loss": loss_real + loss_fake,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": generator_loss,
    }
    return metrics, {"generator": generator_gradients, "discriminator": discriminator_gradients}


def forward_generator(
    state: Modules, latents: Tensor
) -> tuple[Tensor, Callable[[Tensor], nnx.State]]:
    """Return the images of a pass of G, and the function that leads back to G's gradients."""
    pass_of_generator = partial(forward, state, x=latents)
    # The graph of a network is not what changes here, and `nnx.vjp` knows no other way.
    fake_images, backward = nnx.vjp(  # type: ignore[misc]
        pass_of_generator, state.generator, graph=False
    )
    return fake_images, lambda image_gradient: nnx.state(backward(image_gradient)[0], nnx.Param)


def update_discriminator(
    state: Modules, real_images: Tensor, fake_images: Tensor
) -> tuple[Tensor, Tensor, nnx.State]:
    """Update D; returns its losses on real and on fake images, and its gradients."""
    loss = LOSSES[state.spec.loss]

    def total(discriminator: nnx.Module) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        scores = partial(forward, state, discriminator)
        # Two passes, so that each batch has its own BN statistics:
        # docs/porting.md#batch-norm-batches.
        real_scores, fake_scores = scores(real_images), scores(fake_images)
        loss_real = loss.discriminator_real(real_scores)
        loss_fake = loss.discriminator_fake(fake_scores)
        return loss_real + loss_fake, (loss_real, loss_fake)

    gradients, (loss_real, loss_fake) = nnx.grad(total, has_aux=True)(state.discriminator)
    state.discriminator_optimizer.update(state.discriminator, gradients)
    return loss_real, loss_fake, gradients


def update_generator(
    state: Modules, fake_images: Tensor, backward: Callable[[Tensor], nnx.State]
) -> tuple[Tensor, nnx.State]:
    """Update G through D as it is now; returns G's loss and gradients."""

    # Differentiated by the images alone: no weight gradients of the discriminator are formed.
    def loss_of_images(images: Tensor, discriminator: nnx.Module) -> Tensor:
        return LOSSES[state.spec.loss].generator(forward(state, discriminator, images))

    generator_loss, image_gradient = nnx.value_and_grad(loss_of_images)(
        fake_images, state.discriminator
    )
    gradients = backward(image_gradient)
    state.generator_optimizer.update(state.generator, gradients)
    return generator_loss, gradients


def forward(state: Modules, network: nnx.Module, x: Tensor) -> Tensor:
    """Return a network's images or scores in the dtype of its weights."""
    return network(x).astype(state.dtype)


def generate(state: TrainState, latents: Tensor, *, training: bool = False) -> Tensor:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    return _forward(state.settings, state.arrays, "generator", latents, training)


def discriminate(state: TrainState, images: Tensor, *, training: bool = False) -> Tensor:
    """Return scores [batch] of images; the state does not change."""
    return _forward(state.settings, state.arrays, "discriminator", images, training)


@partial(jax.jit, static_argnums=(0, 2, 4))
def _forward(
    settings: Settings, arrays: Leaves, name: NetworkName, x: Tensor, training: bool
) -> Tensor:
    modules = settings.merge(arrays)
    network = modules.network(name)
    if not training:
        network.eval()
    with jax.default_matmul_precision(PRODUCTS[settings.compute.precision]):
        return forward(modules, network, x)


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
    cluster.connect(options.wait_limit)
    parallel.prepare_devices(options.device, options.devices)
    with cluster.joined(), jax.enable_x64(options.dtype == "float64"):
        device = str(select_device(options.device))
        versions = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
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
    code = run_training("jax", train, arguments)
    return leave_others(code) if jax.process_count() > 1 else code


if __name__ == "__main__":
    sys.exit(main())
