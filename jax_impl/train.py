"""Training: `python -m jax_impl.train --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jax_impl.checkpoint import export_state, import_state
from jax_impl.layers import adam
from jax_impl.losses import LOSSES
from jax_impl.models import create_models
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

DTYPES = {"float32": jnp.float32, "float64": jnp.float64}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "statistics", "optimizer_state"],
    meta_fields=["graph", "settings"],
)
@dataclass(frozen=True)
class NetworkState:
    """One network: its graph (static), parameters, BN statistics and Adam's state."""

    graph: nnx.GraphDef
    settings: AdamSpec
    parameters: nnx.State
    statistics: nnx.State
    optimizer_state: optax.OptState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Both networks and both optimizers of one system on one device."""

    generator: NetworkState
    discriminator: NetworkState
    spec: SystemSpec = field(metadata={"static": True})

    def network(self, name: NetworkName) -> NetworkState:
        """Return a network by its name."""
        return self.generator if name == "generator" else self.discriminator

    @property
    def placement(self) -> tuple[jnp.dtype, jax.Device]:
        """The dtype of the parameters and the device that holds them."""
        leaf = jax.tree.leaves(self.generator.parameters)[0]
        return leaf.dtype, next(iter(leaf.devices()))


def select_device(name: str) -> jax.Device:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or gpu")
    if name == "auto":
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        raise ValueError(
            f"device {name} was asked for, but JAX sees none; use --device cpu"
        ) from error


def create_train_state(
    spec: SystemSpec, *, seed: int = 0, dtype: str = "float32", device: str = "cpu"
) -> TrainState:
    """Return a fresh state: the weights that `seed` stands for in every framework."""
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    if dtype == "float64" and not jax.config.jax_enable_x64:
        raise ValueError("float64 in JAX needs x64; enter `with jax.enable_x64(True):` first")
    with jax.default_device(select_device(device)):
        networks = create_models(spec, DTYPES[dtype])
        settings = (spec.generator_optimizer, spec.discriminator_optimizer)
        states = [_network_state(*pair) for pair in zip(networks, settings, strict=True)]
        return import_state(TrainState(*states, spec), initial_state(spec, seed))


def _network_state(network: nnx.Module, settings: AdamSpec) -> NetworkState:
    graph, parameters, statistics = nnx.split(network, nnx.Param, nnx.BatchStat)
    return NetworkState(graph, settings, parameters, statistics, adam(settings).init(parameters))


def apply(
    graph: nnx.GraphDef,
    parameters: nnx.State,
    statistics: nnx.State,
    x: jax.Array,
    training: bool,
) -> tuple[jax.Array, nnx.State]:
    """Run a network as a pure function; returns its output and its BN statistics after it."""
    network = nnx.merge(graph, parameters, statistics, copy=True)
    output = network(x, training=training)
    return output, nnx.state(network, nnx.BatchStat)


@partial(jax.jit, donate_argnums=0)
def train_step(
    state: TrainState, real_images: jax.Array, latents: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Update D on real and on detached fake images, then G through the updated D.

    `real_images` and `latents` [batch, latent_dim] come from `images_to_device` and
    `latents_to_device`. Returns the new state (the old one's memory is reused) and the losses as
    scalars on the device. Source: Goodfellow et al. 2014, Algorithm 1, with one fake batch for
    both updates.
    """
    state, metrics, _ = compute_step(state, real_images, latents)
    return state, metrics


def compute_step(
    state: TrainState, real_images: jax.Array, latents: jax.Array
) -> tuple[TrainState, dict[str, jax.Array], dict[NetworkName, nnx.State]]:
    """Make the step of `train_step`; returns its losses and both networks' gradients too."""
    loss = LOSSES[state.spec.loss]
    generator, discriminator = state.generator, state.discriminator

    def generator_forward(parameters: nnx.State) -> tuple[jax.Array, nnx.State]:
        return apply(generator.graph, parameters, generator.statistics, latents, True)

    fake_images, generator_backward, generator_statistics = jax.vjp(
        generator_forward, generator.parameters, has_aux=True
    )

    # Two passes, so that each batch has its own BN statistics: porting.md, BN batches.
    def discriminator_loss(parameters: nnx.State) -> tuple[jax.Array, tuple]:
        graph, statistics = discriminator.graph, discriminator.statistics
        real_scores, statistics = apply(graph, parameters, statistics, real_images, True)
        fake_scores, statistics = apply(graph, parameters, statistics, fake_images, True)
        loss_real = loss.discriminator_real(real_scores)
        loss_fake = loss.discriminator_fake(fake_scores)
        return loss_real + loss_fake, (loss_real, loss_fake, statistics)

    (total, (loss_real, loss_fake, statistics)), discriminator_gradients = jax.value_and_grad(
        discriminator_loss, has_aux=True
    )(discriminator.parameters)
    discriminator = _update(discriminator, discriminator_gradients, statistics)

    # Differentiating by the images alone spares the discriminator's weight gradients.
    def generator_loss(images: jax.Array) -> tuple[jax.Array, nnx.State]:
        graph, parameters = discriminator.graph, discriminator.parameters
        scores, statistics = apply(graph, parameters, discriminator.statistics, images, True)
        return loss.generator(scores), statistics

    (loss_generator, statistics), image_gradient = jax.value_and_grad(generator_loss, has_aux=True)(
        fake_images
    )
    (generator_gradients,) = generator_backward(image_gradient)
    new_state = replace(
        state,
        generator=_update(generator, generator_gradients, generator_statistics),
        discriminator=replace(discriminator, statistics=statistics),
    )
    metrics = {
        "discriminator_loss": total,
        "discriminator_loss_real": loss_real,
        "discriminator_loss_fake": loss_fake,
        "generator_loss": loss_generator,
    }
    gradients = {"generator": generator_gradients, "discriminator": discriminator_gradients}
    return new_state, metrics, gradients


def _update(network: NetworkState, gradients: nnx.State, statistics: nnx.State) -> NetworkState:
    """Return the network after one Adam update and with new BN statistics."""
    updates, optimizer_state = adam(network.settings).update(
        gradients, network.optimizer_state, network.parameters
    )
    return replace(
        network,
        parameters=optax.apply_updates(network.parameters, updates),
        statistics=statistics,
        optimizer_state=optimizer_state,
    )


@partial(jax.jit, static_argnames="training")
def generate(state: TrainState, latents: jax.Array, *, training: bool = False) -> jax.Array:
    """Return images for latents; the state does not change.

    `training` normalises by the batch's statistics instead of the running ones.
    """
    return _forward(state.generator, latents, training)


@partial(jax.jit, static_argnames="training")
def discriminate(state: TrainState, images: jax.Array, *, training: bool = False) -> jax.Array:
    """Return scores [batch] of images; the state does not change."""
    return _forward(state.discriminator, images, training)


def _forward(network: NetworkState, x: jax.Array, training: bool) -> jax.Array:
    return apply(network.graph, network.parameters, network.statistics, x, training)[0]


def images_to_device(state: TrainState, images: np.ndarray) -> jax.Array:
    """Return NumPy images NHWC as the array that `train_step` takes."""
    return _to_device(state, images)


def latents_to_device(state: TrainState, latents: np.ndarray) -> jax.Array:
    """Return NumPy latents [batch, latent_dim] as the array that `train_step` takes."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: np.ndarray) -> jax.Array:
    dtype, device = state.placement
    return jax.device_put(array.astype(dtype, copy=False), device)


def images_to_numpy(images: jax.Array) -> np.ndarray:
    """Return an array of images as NumPy NHWC."""
    return np.array(images)


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    networks = (state.generator, state.discriminator)
    return float(sum(jnp.sum(jax.tree.leaves(n.parameters)[0]) for n in networks))


def fit(state: TrainState, run: TrainingRun) -> TrainState:
    """Train to the run's last step, with samples and checkpoints when they are due."""
    for step in run.remaining_steps():
        real_images, latents = run.inputs(step)
        state, metrics = train_step(
            state, images_to_device(state, real_images), latents_to_device(state, latents)
        )
        run.record(step, metrics)
        if run.sample_due(step):
            run.save_samples(step, _samples(state, run))
        if run.checkpoint_due(step):
            run.save_checkpoint(step, export_state(state))
    return state


def _samples(state: TrainState, run: TrainingRun) -> np.ndarray:
    return images_to_numpy(generate(state, latents_to_device(state, run.sample_latents)))


def train(options: TrainingOptions) -> None:
    """Train as the command line says."""
    device = str(select_device(options.device))
    versions = {"jax": jax.__version__, "flax": flax.__version__, "optax": optax.__version__}
    run = TrainingRun.open(options, device=device, versions=versions)
    with jax.enable_x64(options.dtype == "float64"):
        state = create_train_state(
            options.spec, seed=options.seed, dtype=options.dtype, device=options.device
        )
        if run.restored is not None:
            state = import_state(state, run.restored)
        with run:
            if run.restored is None:
                run.save_initial_samples(_samples(state, run))
            fit(state, run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command("jax", train, arguments)


if __name__ == "__main__":
    sys.exit(main())
