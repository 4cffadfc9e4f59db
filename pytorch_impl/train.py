"""Training: `python -m pytorch_impl.train --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_impl.checkpoint import export_state, import_state
from pytorch_impl.losses import LOSSES
from pytorch_impl.models import create_models
from shared.command_line import TrainingOptions, run_command
from shared.spec import AdamSpec, NetworkName, SystemSpec
from shared.streams import initial_state
from shared.training_run import TrainingRun

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

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class TrainState:
    """Both networks and both optimizers of one system on one device."""

    spec: SystemSpec
    device: torch.device
    dtype: torch.dtype
    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam

    def network(self, name: NetworkName) -> nn.Module:
        """Return a network by its name."""
        return self.generator if name == "generator" else self.discriminator

    def optimizer(self, name: NetworkName) -> torch.optim.Adam:
        """Return a network's optimizer."""
        return self.generator_optimizer if name == "generator" else self.discriminator_optimizer


def select_device(name: str) -> torch.device:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or gpu")
    if name == "gpu" and not torch.cuda.is_available():
        raise ValueError("device gpu was asked for, but PyTorch sees no GPU; use --device cpu")
    use_gpu = name == "gpu" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def create_train_state(
    spec: SystemSpec, *, seed: int = 0, dtype: str = "float32", device: str = "cpu"
) -> TrainState:
    """Return a fresh state: the weights that `seed` stands for in every framework."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    place = select_device(device)
    networks = [
        # channels_last is NHWC in memory, the layout that convolutions run fastest in.
        network.to(place, DTYPES[dtype], memory_format=torch.channels_last).train()
        for network in create_models(spec)
    ]
    optimizers = [
        _adam(networks[0], spec.generator_optimizer),
        _adam(networks[1], spec.discriminator_optimizer),
    ]
    state = TrainState(spec, place, DTYPES[dtype], *networks, *optimizers)
    import_state(state, initial_state(spec, seed))
    return state


def _adam(network: nn.Module, settings: AdamSpec) -> torch.optim.Adam:
    # torch.optim.Adam is Kingma & Ba's Algorithm 1: epsilon outside the bias-corrected root.
    return torch.optim.Adam(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def train_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` and `latents` [batch, latent_dim] come from `images_to_device` and
    `latents_to_device`. Returns the losses as scalars on the device. Source: Goodfellow et al.
    2014, Algorithm 1, with one fake batch for both updates.
    """
    loss = LOSSES[state.spec.loss]
    fake_images = state.generator(latents)

    # Two passes, so that each batch has its own BN statistics: porting.md, BN batches.
    loss_real = loss.discriminator_real(state.discriminator(real_images))
    loss_fake = loss.discriminator_fake(state.discriminator(fake_images.detach()))
    state.discriminator_optimizer.zero_grad(set_to_none=True)
    (loss_real + loss_fake).backward()
    state.discriminator_optimizer.step()

    generator_loss = loss.generator(state.discriminator(fake_images))
    state.generator_optimizer.zero_grad(set_to_none=True)
    # `inputs` spares the discriminator's weight gradients, which this update has no use for.
    generator_loss.backward(inputs=list(state.generator.parameters()))
    state.generator_optimizer.step()
    return {
        "discriminator_loss": (loss_real + loss_fake).detach(),
        "discriminator_loss_real": loss_real.detach(),
        "discriminator_loss_fake": loss_fake.detach(),
        "generator_loss": generator_loss.detach(),
    }


@torch.no_grad()
def generate(state: TrainState, latents: Tensor, *, training: bool = False) -> Tensor:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    return _forward(state.generator, latents, training)


@torch.no_grad()
def discriminate(state: TrainState, images: Tensor, *, training: bool = False) -> Tensor:
    """Return scores [batch] of images; the state does not change."""
    return _forward(state.discriminator, images, training)


def _forward(network: nn.Module, x: Tensor, training: bool) -> Tensor:
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    output = network.train(training)(x)
    network.train()
    for name, buffer in network.named_buffers():
        buffer.copy_(statistics[name])
    return output


def images_to_device(state: TrainState, images: np.ndarray) -> Tensor:
    """Return NumPy images NHWC as the tensor that `train_step` takes."""
    # A permuted view of NHWC memory is a channels_last NCHW tensor: nothing is moved.
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return values.to(state.device, state.dtype)


def latents_to_device(state: TrainState, latents: np.ndarray) -> Tensor:
    """Return NumPy latents [batch, latent_dim] as the tensor that `train_step` takes."""
    return torch.from_numpy(np.ascontiguousarray(latents)).to(state.device, state.dtype)


def images_to_numpy(images: Tensor) -> np.ndarray:
    """Return a tensor of images as NumPy NHWC."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    with torch.no_grad():
        total = sum(next(n.parameters()).sum() for n in (state.generator, state.discriminator))
    return float(total)


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
    device = str(select_device(options.device))
    run = TrainingRun.open(options, device=device, versions={"torch": torch.__version__})
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
    return run_command("pytorch", train, arguments)


if __name__ == "__main__":
    sys.exit(main())
