"""Training: `python -m pytorch_impl.train --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pytorch_impl import cluster, parallel
from pytorch_impl.checkpoint import export_state, import_state
from pytorch_impl.losses import LOSSES
from pytorch_impl.state import (
    CapturedStep,
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


def train_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` [steps · batch, …] and `latents` [batches · batch, latent_dim] come from
    `batches_to_devices`, or on one device from `images_to_device` and `latents_to_device`; steps
    and batches are `spec.discriminator_steps` and `spec.latent_batches`, both 1 in most systems.
    Returns the losses of the last update of each network as scalars on the device. Source:
    Goodfellow et al. 2014, Algorithm 1.
    """
    state.spec.batch_size_of(real_images.shape[0], latents.shape[0])
    if state.devices > 1:
        return parallel.average(compute_step(state, real_images, latents))
    if state.mode != "cudagraph":
        return compute_step(state, real_images, latents)
    if state.captured is None:
        before = export_state(state)
        state.captured = CapturedStep(
            partial(compute_step, state),
            real_images,
            latents,
            lambda: import_state(state, before),
        )
    return state.captured(real_images, latents)


def compute_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """Make the step of `train_step`; returns its losses, leaves the gradients on the parameters."""
    spec = state.spec
    latent_batches = latents.chunk(spec.latent_batches)
    real_batches = real_images.chunk(spec.discriminator_steps)
    for real_batch, latent_batch in zip(real_batches, latent_batches, strict=False):
        learns = spec.generator_batch == "same_images" and real_batch is real_batches[-1]
        fake_images = forward(state, "generator", latent_batch, learns=learns)
        loss_real, loss_fake = update_discriminator(state, real_batch, fake_images.detach())
    if spec.generator_batch != "same_images":
        fake_images = forward(state, "generator", latent_batches[-1], learns=True)
    generator_loss = update_generator(state, fake_images)
    return {
        "discriminator_loss": loss_real + loss_fake,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": generator_loss,
    }


def forward(
    state: TrainState, name: NetworkName, x: Tensor, *, learns: bool = False, **options: int
) -> Tensor:
    """Return images or scores, in the state's precision; the scores in its dtype.

    `learns`: a backward pass to the network's weights follows.
    """
    network = state.learner(name) if learns else state.network(name)
    # Without its cache, because a recorded step must not keep weights that were cast once.
    autocast = torch.autocast(
        state.device.type,
        torch.bfloat16,
        enabled=state.precision == "bfloat16",
        cache_enabled=state.mode != "cudagraph",
    )
    with autocast:
        y = network(x, **options)
    return y if name == "generator" else y.to(state.dtype)


def update_discriminator(
    state: TrainState, real_images: Tensor, fake_images: Tensor
) -> tuple[Tensor, Tensor]:
    """Update D; returns its losses on real and on fake images."""
    loss = LOSSES[state.spec.loss]
    # One pass, which is faster than two, but each batch has its own BN statistics:
    # docs/porting.md#batch-norm-batches.
    images = torch.cat([real_images, fake_images])
    scores = forward(state, "discriminator", images, learns=True, batches=2)
    real_scores, fake_scores = scores.chunk(2)
    loss_real = loss.discriminator_real(real_scores)
    loss_fake = loss.discriminator_fake(fake_scores)
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    (loss_real + loss_fake).backward()
    state.discriminator_optimizer.step()
    return loss_real.detach(), loss_fake.detach()


def update_generator(state: TrainState, fake_images: Tensor) -> Tensor:
    """Update G through D as it is now; returns G's loss."""
    # Spares the discriminator's weight gradients, which this update has no use for.
    state.discriminator.requires_grad_(False)
    generator_loss = LOSSES[state.spec.loss].generator(forward(state, "discriminator", fake_images))
    state.generator_optimizer.zero_grad(set_to_none=True)
    generator_loss.backward()
    state.generator_optimizer.step()
    state.discriminator.requires_grad_(True)
    return generator_loss.detach()


@torch.no_grad()
def generate(state: TrainState, latents: Tensor, *, training: bool = False) -> Tensor:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    return _forward(state, "generator", latents, training)


@torch.no_grad()
def discriminate(state: TrainState, images: Tensor, *, training: bool = False) -> Tensor:
    """Return scores [batch] of images; the state does not change."""
    return _forward(state, "discriminator", images, training)


def _forward(state: TrainState, name: NetworkName, x: Tensor, training: bool) -> Tensor:
    parallel.average_statistics(state)
    network = state.network(name).train(training)
    statistics = {key: buffer.clone() for key, buffer in network.named_buffers()}
    output = forward(state, name, x).to(state.dtype)
    network.train()
    for key, buffer in network.named_buffers():
        buffer.copy_(statistics[key])
    return output


def fit(state: TrainState, run: RunProcess) -> None:
    """Train to the run's last step, with samples and checkpoints when they are due."""
    for step in run.remaining_steps():
        metrics = train_step(state, *batches_to_devices(state, *run.inputs(step)))
        run.record(step, metrics)
        if run.sample_due(step):
            run.save_samples(step, _samples(state, run))
        if run.checkpoint_due(step):
            run.save_checkpoint(step, export_state(state))


def _samples(state: TrainState, run: RunProcess) -> np.ndarray:
    return images_to_numpy(generate(state, latents_to_device(state, run.sample_latents)))


def train(options: TrainingOptions) -> None:
    """Train as the command line says, in this process; it is one of several or the only one."""
    parallel.prepare_devices(options.device, options.devices)
    with cluster.joined(options.device, options.wait_limit):
        device = str(select_device(options.device))
        versions = {"torch": torch.__version__}
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
            import_state(state, run.restored)
        with run:
            if run.restored is None:
                run.save_initial_samples(_samples(state, run))
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

    return run_training("pytorch", start, given)


if __name__ == "__main__":
    sys.exit(main())
