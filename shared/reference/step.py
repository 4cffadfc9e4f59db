"""One training step of a GAN, with every gradient kept (Goodfellow et al. 2014, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from shared.reference.adam import adam_update
from shared.reference.layers import Array
from shared.reference.losses import discriminator_half, generator_loss
from shared.reference.network import Arrays, Pass, add, backward, forward
from shared.spec import AdamSpec, Conventions, NetworkName, SystemSpec, optimizer_name

_HALVES = ("real", "fake")


@dataclass(frozen=True)
class StepResult:
    """What one step computed: `arrays` is the whole state after it, under canonical names."""

    arrays: Arrays
    metrics: dict[str, float]
    gradients: Arrays


@dataclass(frozen=True)
class _DiscriminatorHalves:
    value_real: float
    value_fake: float
    gradients: Arrays
    fake_image_gradient: Array


def train_step(
    spec: SystemSpec,
    arrays: Arrays,
    real_images: Array,
    latents: Array,
    conventions: Conventions | None = None,
) -> StepResult:
    """Make one step from `arrays` (which stay as they are).

    As many updates of D as the spec says, each on real images and on detached fake ones as two
    batches; then G's loss through the updated D on what `spec.generator_batch` says, and one
    update of G. Losses and gradients of D are those of its last update.
    """
    c = conventions or Conventions()
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    batch_size = spec.batch_size_of(len(real_images), len(latents))
    part = _part(batch_size, c.batch_part)
    real_batches = [b[part] for b in np.split(real_images, spec.discriminator_steps)]
    latent_batches = [b[part] for b in np.split(latents, spec.latent_batches)]
    spec = _as_made(spec, c)
    real_batches, latent_batches = _steps_made(spec, real_batches, latent_batches, c)
    if c.update_order == "generator_first":
        return _generator_first(spec, arrays, real_batches, latent_batches, c)
    leaks: list[Arrays] = []
    for real, z in zip(real_batches, latent_batches, strict=False):
        generated, arrays = _generate(spec, arrays, z, c)
        arrays, halves = _discriminator_gradients(spec, arrays, real, generated.output, c)
        before = _discriminator_weights(arrays)
        arrays = _update(spec, "discriminator", arrays, halves.gradients, c)
        if not c.detach_fake:
            leaks.append(backward("generator", generated, halves.fake_image_gradient)[1])
    if spec.generator_batch != "same_images":
        generated, arrays = _generate(spec, arrays, latent_batches[-1], c)
    seen = arrays | before if c.update_order == "simultaneous" else arrays
    value, seen, gradients = _generator_gradients(spec, seen, generated, c)
    arrays = arrays | {n: a for n, a in seen.items() if n.endswith(("/mean", "/var"))}
    for leaked in leaks:
        gradients = add(gradients, leaked)
    arrays = _update(spec, "generator", arrays, gradients, c)
    return StepResult(arrays, _metrics(halves, value), halves.gradients | gradients)


def _part(batch_size: int, part: str) -> slice:
    half = batch_size // 2
    return {"first_half": slice(half), "second_half": slice(half, None)}.get(part, slice(None))


def _as_made(spec: SystemSpec, c: Conventions) -> SystemSpec:
    """Return the spec of the step that the conventions make of it."""
    steps = spec.discriminator_steps + c.discriminator_step_offset
    named = c.generator_batch == "as_named"
    generator_batch = spec.generator_batch if named else c.generator_batch
    return spec.replace(discriminator_steps=steps, generator_batch=generator_batch)


def _steps_made(
    spec: SystemSpec, real: list[Array], latents: list[Array], c: Conventions
) -> tuple[list[Array], list[Array]]:
    """Return the batches of the step that is made, of those that it is given."""
    own = latents[len(real) :] if spec.generator_batch == "new_latents" else []
    numbers = [min(i, len(real) - 1) for i in range(spec.discriminator_steps)]
    return [real[i] for i in numbers], [latents[i] for i in numbers] + own


def _generator_first(
    spec: SystemSpec,
    arrays: Arrays,
    real_batches: list[Array],
    latent_batches: list[Array],
    c: Conventions,
) -> StepResult:
    """The step with G's update before D's; what leaks into G's gradients then comes too late."""
    seen_before, arrays = _generate(spec, arrays, latent_batches[-1], c)
    value, arrays, gradients = _generator_gradients(spec, arrays, seen_before, c)
    arrays = _update(spec, "generator", arrays, gradients, c)
    for i, (real, z) in enumerate(zip(real_batches, latent_batches, strict=False)):
        is_last = i == spec.discriminator_steps - 1
        if is_last and spec.generator_batch == "same_images":
            generated = seen_before
        else:
            generated, arrays = _generate(spec, arrays, z, c)
        arrays, halves = _discriminator_gradients(spec, arrays, real, generated.output, c)
        arrays = _update(spec, "discriminator", arrays, halves.gradients, c)
    return StepResult(arrays, _metrics(halves, value), halves.gradients | gradients)


def _generate(
    spec: SystemSpec, arrays: Arrays, latents: Array, c: Conventions
) -> tuple[Pass, Arrays]:
    """Return a pass of G and the state with G's BN statistics moved."""
    training = c.batch_norm_mode != "running"
    generated = forward(spec, "generator", arrays, latents, c, training=training)
    moves = c.batch_norm_statistics != "not_of_generator"
    return generated, _moved(arrays, generated, c) if moves else arrays


def _discriminator_weights(arrays: Arrays) -> Arrays:
    statistics = ("/mean", "/var")
    return {
        n: a
        for n, a in arrays.items()
        if n.startswith("discriminator/") and not n.endswith(statistics)
    }


def _metrics(halves: _DiscriminatorHalves, generator_loss: float) -> dict[str, float]:
    return {
        "discriminator_loss": halves.value_real + halves.value_fake,
        "discriminator_loss_real": halves.value_real,
        "discriminator_loss_fake": halves.value_fake,
        "generator_loss": generator_loss,
    }


def _discriminator_gradients(
    spec: SystemSpec, arrays: Arrays, real: Array, fake: Array, c: Conventions
) -> tuple[Arrays, _DiscriminatorHalves]:
    """Return the state with moved BN statistics, and losses and gradients of both halves."""
    if c.discriminator_batches == "merged":
        return _merged_discriminator_gradients(spec, arrays, real, fake, c)
    scale, normalise = c.discriminator_loss_scale, c.batch_norm_mode != "running"
    values, gradients, image_gradient = [], [], fake
    for images, label in ((real, c.real_label), (fake, c.fake_label)):
        run = forward(spec, "discriminator", arrays, images, c, training=normalise)
        arrays = _moved(arrays, run, c)
        value, score_gradient = discriminator_half(spec.loss, run.output, label, c)
        values.append(scale * value)
        image_gradient, parameter_gradients = backward("discriminator", run, scale * score_gradient)
        gradients.append(parameter_gradients)
    if c.discriminator_halves == "both":
        total = add(*gradients)
    else:
        total = gradients[c.discriminator_halves == "fake_only"]
    return arrays, _DiscriminatorHalves(values[0], values[1], total, image_gradient)


def _merged_discriminator_gradients(
    spec: SystemSpec, arrays: Arrays, real: Array, fake: Array, c: Conventions
) -> tuple[Arrays, _DiscriminatorHalves]:
    """The same with real and fake in one batch, which share their BN statistics."""
    scale, normalise = c.discriminator_loss_scale, c.batch_norm_mode != "running"
    both = np.concatenate([real, fake])
    run = forward(spec, "discriminator", arrays, both, c, training=normalise)
    halves = run.output[: len(real)], run.output[len(real) :]
    value_real, gradient_real = discriminator_half(spec.loss, halves[0], c.real_label, c)
    value_fake, gradient_fake = discriminator_half(spec.loss, halves[1], c.fake_label, c)
    learns_real, learns_fake = (c.discriminator_halves in ("both", f"{x}_only") for x in _HALVES)
    halves_gradient = [gradient_real * learns_real, gradient_fake * learns_fake]
    score_gradient = scale * np.concatenate(halves_gradient)
    image_gradient, gradients = backward("discriminator", run, score_gradient)
    fake_gradient = image_gradient[len(real) :]
    return _moved(arrays, run, c), _DiscriminatorHalves(
        scale * value_real, scale * value_fake, gradients, fake_gradient
    )


def _generator_gradients(
    spec: SystemSpec, arrays: Arrays, generated: Pass, c: Conventions
) -> tuple[float, Arrays, Arrays]:
    """Return G's loss, the state with D's BN statistics moved, and G's gradients."""
    run = forward(
        spec, "discriminator", arrays, generated.output, c, training=c.batch_norm_mode == "batch"
    )
    value, score_gradient = generator_loss(spec.loss, run.output, c)
    image_gradient, _ = backward("discriminator", run, score_gradient)
    gradients = backward("generator", generated, image_gradient)[1]
    moves = c.batch_norm_statistics in ("every_pass", "not_of_generator")
    return value, _moved(arrays, run, c) if moves else arrays, gradients


def _moved(arrays: Arrays, run: Pass, c: Conventions) -> Arrays:
    return arrays if c.batch_norm_statistics == "never" else arrays | run.statistics


def _update(
    spec: SystemSpec, network: NetworkName, arrays: Arrays, gradients: Arrays, c: Conventions
) -> Arrays:
    """Return the state after one Adam update of one network."""
    settings: AdamSpec = getattr(spec, f"{network}_optimizer")
    rate = getattr(c, f"{network}_learning_rate")
    if rate is not None:
        settings = dataclasses.replace(settings, learning_rate=rate)
    counter = f"{network}_optimizer/step"
    step = int(arrays[counter]) + 1
    after = dict(arrays) | {counter: np.array(step, np.int64)}
    for name, gradient in gradients.items():
        names = (name, optimizer_name(name, "m"), optimizer_name(name, "v"))
        moments = (arrays[names[1]], arrays[names[2]])
        updated = adam_update(arrays[name], gradient, moments, step, settings, c)
        after.update(zip(names, updated, strict=True))
    return after
