"""Training: `python -m pytorch_impl.train --help`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from shared.interface import Array
from shared.run.command import run_training
from shared.run.options import TrainingOptions
from shared.run.training import TrainingRun
from shared.spec import NetworkName

from . import cluster, parallel
from .checkpoint import create_train_state, export_state, import_state
from .fast import CapturedStep, in_one_pass
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
    step = partial(_losses_of_step, state)
    if state.compute.devices > 1:
        return parallel.average(step(real_images, latents))
    if not state.is_recorded:
        return step(real_images, latents)
    if state.captured is None:
        restore = partial(import_state, state, export_state(state))
        state.captured = CapturedStep(step, real_images, latents, restore)
    return state.captured(real_images, latents)


def _losses_of_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    return compute_step(state, real_images, latents)[0]


def compute_step(
    state: TrainState, real_images: Tensor, latents: Tensor
) -> tuple[dict[str, Tensor], Gradients]:
    """Make the step of `train_step`; returns its losses and both networks' gradients."""
    spec = state.spec
    spec.batch_size_of(real_images.shape[0], latents.shape[0])
    latent_batches = latents.chunk(spec.latent_batches)
    real_batches = real_images.chunk(spec.discriminator_steps)
    for real_batch, latent_batch in zip(real_batches, latent_batches, strict=False):
        fake_images = forward_generator(state, latent_batch)
        loss_real, loss_fake, discriminator_gradients = update_discriminator(
            state, real_batch, fake_images.detach()
        )
    if spec.generator_batch != "same_images":
        fake_images = forward_generator(state, latent_batches[-1])
    generator_loss, generator_gradients = update_generator(state, fake_images)
    metrics = {
        "discriminator_loss": loss_real + loss_fake,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": generator_loss,
    }
    return metrics, {"generator": generator_gradients, "discriminator": discriminator_gradients}


def forward_generator(state: TrainState, latents: Tensor) -> Tensor:
    """Return the images of a pass of G, which lead back to G's gradients."""
    return forward(state, state.replicated.get("generator", state.generator), latents)


def update_discriminator(
    state: TrainState, real_images: Tensor, fake_images: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Update D; returns its losses on real and on fake images, and its gradients."""
    loss = LOSSES[state.spec.loss]
    network = state.replicated.get("discriminator", state.discriminator)
    scores = partial(forward, state, network)
    if state.compute.fast:
        real_scores, fake_scores = in_one_pass(network, scores, real_images, fake_images)
    else:
        # Two passes, so that each batch has its own BN statistics:
        # docs/porting.md#batch-norm-batches.
        real_scores, fake_scores = scores(real_images), scores(fake_images)
    loss_real = loss.discriminator_real(real_scores)
    loss_fake = loss.discriminator_fake(fake_scores)
    gradients = _update(state, "discriminator", loss_real + loss_fake)
    return loss_real.detach(), loss_fake.detach(), gradients


def update_generator(state: TrainState, fake_images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Update G through D as it is now; returns G's loss and gradients."""
    # Spares the discriminator's weight gradients, which this update has no use for.
    with _without_gradients(state.discriminator):
        scores = forward(state, state.discriminator, fake_images)
        generator_loss = LOSSES[state.spec.loss].generator(scores)
        gradients = _update(state, "generator", generator_loss)
    return generator_loss.detach(), gradients


def _update(state: TrainState, name: NetworkName, loss: Tensor) -> list[Tensor]:
    optimizer = state.optimizer(name)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return [p.grad for p in state.network(name).parameters() if p.grad is not None]


@contextmanager
def _without_gradients(network: nn.Module) -> Iterator[None]:
    """Form no gradients of a network's weights in this block."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def forward(state: TrainState, network: nn.Module, x: Tensor) -> Tensor:
    """Return a network's images or scores in the dtype of its weights."""
    # Without its cache, because a recorded step must not keep weights that were cast once.
    autocast = torch.autocast(
        state.device.type,
        torch.bfloat16,
        enabled=state.compute.precision == "bfloat16",
        cache_enabled=not state.is_recorded,
    )
    with autocast:
        return network(x).to(state.dtype)


def generate(state: TrainState, latents: Tensor, *, training: bool = False) -> Tensor:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    return _forward(state, "generator", latents, training)


def discriminate(state: TrainState, images: Tensor, *, training: bool = False) -> Tensor:
    """Return scores [batch] of images; the state does not change."""
    return _forward(state, "discriminator", images, training)


@torch.no_grad()
def _forward(state: TrainState, name: NetworkName, x: Tensor, training: bool) -> Tensor:
    network = state.network(name).train(training)
    if state.compute.batch_norm == "per-replica" and state.compute.devices > 1:
        parallel.average_statistics(network)
    statistics = {key: buffer.clone() for key, buffer in network.named_buffers()}
    output = forward(state, network, x)
    network.train()
    for key, buffer in network.named_buffers():
        buffer.copy_(statistics[key])
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
    parallel.prepare_devices(options.device, options.devices)
    with cluster.joined(options.device, options.wait_limit):
        device = str(select_device(options.device))
        versions = {"torch": torch.__version__}
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
    given = sys.argv[1:] if arguments is None else list(arguments)

    def start(options: TrainingOptions) -> None:
        if options.devices == 1 or cluster.is_process_of_several():
            train(options)
        else:
            parallel.prepare_devices(options.device, options.devices)
            cluster.launch([*given, "--out", str(options.out)], options.devices)

    return cluster.leave_others(run_training("pytorch", start, given))


if __name__ == "__main__":
    sys.exit(main())
