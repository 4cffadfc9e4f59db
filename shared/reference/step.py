"""One training step of a GAN, with every gradient kept (Goodfellow et al. 2014, Algorithm 1)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.interface import METRIC_NAMES
from shared.reference.layers import Array
from shared.reference.losses import discriminator_half, generator_loss
from shared.reference.network import Arrays, Pass, add, backward, forward
from shared.reference.optimizers import clipped, optimizer_update
from shared.spec import Conventions, NetworkName, OptimizerSpec, SystemSpec, optimizer_name

_STATISTICS = ("/mean", "/var")
_PASSES = {
    "separate": (("real",), ("fake",)),
    "fake_first": (("fake",), ("real",)),
    "merged": (("real", "fake"),),
}
"""`Conventions.discriminator_batches` → which images are in each pass of D, one after another."""


@dataclass(frozen=True)
class StepResult:
    """What one step computed: `arrays` is the whole state after it, under canonical names."""

    arrays: Arrays
    metrics: dict[str, float]
    gradients: Arrays


def train_step(
    spec: SystemSpec,
    arrays: Arrays,
    real_images: Array,
    latents: Array,
    conventions: Conventions | None = None,
) -> StepResult:
    """Make one step from `arrays` (which stay as they are).

    As many updates of D as the spec has, each on real images and on detached fake ones as two
    batches; then G's loss through the updated D on what `spec.generator_batch` names, and one
    update of G. Losses and gradients of D are those of its last update.
    """
    return Step(spec, conventions or Conventions()).run(arrays, real_images, latents)


class Step:
    """A step under conventions; a subclass may know passes or updates that it need not compute."""

    def __init__(
        self, spec: SystemSpec, conventions: Conventions, of_generator: Conventions | None = None
    ) -> None:
        c = self.conventions = spec.own_conventions(conventions)
        self.of = {"discriminator": c, "generator": spec.own_conventions(of_generator or c)}
        steps = spec.discriminator_steps + c.discriminator_step_offset
        named = c.generator_batch == "as_named"
        generator_batch = spec.generator_batch if named else c.generator_batch
        if c.batch_norm_mode == "running_for_discriminator" and generator_batch == "same_images":
            generator_batch = "same_latents"  # which are made anew
        self.given = spec
        self.spec = spec.replace(discriminator_steps=steps, generator_batch=generator_batch)

    def run(self, arrays: Arrays, real_images: Array, latents: Array) -> StepResult:
        """Make the step: see `train_step`."""
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        real_batches, latent_batches = self._batches(real_images, latents)
        if self.conventions.update_order == "generator_first":
            return self._generator_first(arrays, real_batches, latent_batches)
        leaks: list[Arrays] = []
        for i, (real, z) in enumerate(zip(real_batches, latent_batches, strict=False)):
            generated, arrays = self._generate(arrays, z, "running_for_discriminator")
            before = {n: a for n, a in arrays.items() if n.startswith("discriminator/")}
            arrays, losses, own, fake_gradient = self._update_discriminator(
                arrays, real, generated.output, i
            )
            if not self.conventions.detach_fake:
                leaks.append(self.backward("generator", generated, fake_gradient)[1])
        if self.spec.generator_batch != "same_images":
            generated, arrays = self._generate(arrays, latent_batches[-1])
        seen = arrays
        if self.conventions.update_order == "simultaneous":
            seen = arrays | {n: a for n, a in before.items() if not n.endswith(_STATISTICS)}
        value, seen, gradients = self._generator_gradients(seen, generated)
        arrays = arrays | {n: a for n, a in seen.items() if n.endswith(_STATISTICS)}
        for leaked in leaks:
            gradients = add(gradients, leaked)
        second = self.of["generator"].generator_updates == "two_passes"
        arrays, gradients = self._updated("generator", arrays, gradients, is_last=not second)
        if second:
            generated, arrays = self._generate(arrays, latent_batches[-1])
            value, arrays, gradients = self._generator_gradients(arrays, generated)
            arrays, gradients = self._updated("generator", arrays, gradients)
        return StepResult(arrays, _metrics(losses, value), own | gradients)

    def forward(self, network: NetworkName, arrays: Arrays, x: Array, training: bool) -> Pass:
        """Run a network: `shared.reference.network.forward`."""
        return forward(self.spec, network, arrays, x, self.of[network], training=training)

    def backward(self, network: NetworkName, run: Pass, gradient: Array) -> tuple[Array, Arrays]:
        """Differentiate a pass: `shared.reference.network.backward`."""
        return backward(network, run, gradient)

    def update(
        self, network: NetworkName, arrays: Arrays, gradients: Arrays, is_last: bool
    ) -> Arrays:
        """Return the state after an update of one network; `is_last` of this step's updates."""
        return updated(self.spec, network, arrays, gradients, self.of[network])

    def _batches(self, real_images: Array, latents: Array) -> tuple[list[Array], list[Array]]:
        """Return the batches of the step that is made, of those that it is given."""
        given, spec = self.given, self.spec
        batch_size = given.batch_size_of(len(real_images), len(latents))
        parts = {"first_half": slice(batch_size // 2), "second_half": slice(batch_size // 2, None)}
        part = parts.get(self.conventions.batch_part, slice(None))
        real = [b[part] for b in np.split(real_images, given.discriminator_steps)]
        z = [b[part] for b in np.split(latents, given.latent_batches)]
        own = z[len(real) :] if spec.generator_batch == "new_latents" else []
        numbers = [min(i, len(real) - 1) for i in range(spec.discriminator_steps)]
        return [real[i] for i in numbers], [z[i] for i in numbers] + own

    def _generator_first(
        self, arrays: Arrays, real_batches: list[Array], latent_batches: list[Array]
    ) -> StepResult:
        """The step with G's update before D's; what leaks into G's gradients then is too late."""
        seen_before, arrays = self._generate(arrays, latent_batches[-1])
        value, arrays, gradients = self._generator_gradients(arrays, seen_before)
        arrays, gradients = self._updated("generator", arrays, gradients)
        for i, (real, z) in enumerate(zip(real_batches, latent_batches, strict=False)):
            is_last = i == self.spec.discriminator_steps - 1
            if is_last and self.spec.generator_batch == "same_images":
                generated = seen_before
            else:
                generated, arrays = self._generate(arrays, z, "running_for_discriminator")
            arrays, losses, own, _ = self._update_discriminator(arrays, real, generated.output, i)
        return StepResult(arrays, _metrics(losses, value), own | gradients)

    def _generate(self, arrays: Arrays, latents: Array, mode: str = "") -> tuple[Pass, Arrays]:
        """Return a pass of G, by running statistics in a `mode`, and the state with G's moved."""
        training = self.conventions.batch_norm_mode not in ("running", mode)
        generated = self.forward("generator", arrays, latents, training)
        moves = self.conventions.batch_norm_statistics != "not_of_generator"
        return generated, self._moved(arrays, generated) if moves else arrays

    def _update_discriminator(
        self, arrays: Arrays, real: Array, fake: Array, number: int
    ) -> tuple[Arrays, dict[str, float], Arrays, Array]:
        """Return the state after update `number` of D, from 0 on, its losses on real and on fake
        images, its gradients and that of its loss by the fake images.
        """
        c, images = self.conventions, {"real": real, "fake": fake}
        is_last = number == self.spec.discriminator_steps - 1
        first, _, second = c.discriminator_updates.partition("_then_")
        passes = _PASSES[c.discriminator_batches]
        updates = [((first,),), ((second,),)] if second else [passes]
        losses: dict[str, float] = {}
        for i, passes in enumerate(updates, 1):
            total: Arrays = {}
            for halves in passes:
                arrays, own, gradients, dx = self._discriminator_pass(arrays, halves, images)
                losses |= own
                total = add(total, gradients) if total else gradients
                if "fake" in halves:
                    fake_gradient = dx[-len(fake) :]
            last = is_last and i == len(updates)
            arrays, total = self._updated("discriminator", arrays, total, last)
        return arrays, losses, total, fake_gradient

    def _discriminator_pass(
        self, arrays: Arrays, halves: Sequence[str], images: dict[str, Array]
    ) -> tuple[Arrays, dict[str, float], Arrays, Array]:
        """Return the state with moved BN statistics, and of halves of D's loss, of which each
        normalises by the batch of them all, the losses, gradients and gradient by the images.
        """
        c, batches = self.conventions, [images[half] for half in halves]
        x = np.concatenate(batches) if len(batches) > 1 else batches[0]
        run = self.forward("discriminator", arrays, x, c.batch_norm_mode != "running")
        losses, gradients = {}, []
        for half, scores in zip(halves, np.split(run.output, len(halves)), strict=True):
            label = c.real_label if half == "real" else c.fake_label
            value, gradient = discriminator_half(self.spec.loss, scores, label, c)
            losses[half] = c.discriminator_loss_scale * value
            learns = c.discriminator_halves in ("both", f"{half}_only")
            gradients.append(c.discriminator_loss_scale * gradient * learns)
        dx, found = self.backward("discriminator", run, np.concatenate(gradients))
        return self._moved(arrays, run), losses, found, dx

    def _generator_gradients(self, arrays: Arrays, generated: Pass) -> tuple[float, Arrays, Arrays]:
        """Return G's loss, the state with D's BN statistics moved, and G's gradients."""
        c = self.conventions
        normalise = c.batch_norm_mode in ("batch", "running_for_discriminator")
        run = self.forward("discriminator", arrays, generated.output, normalise)
        value, score_gradient = generator_loss(self.spec.loss, run.output, self.of["generator"])
        image_gradient, _ = self.backward("discriminator", run, score_gradient)
        gradients = self.backward("generator", generated, image_gradient)[1]
        moves = c.batch_norm_statistics in ("every_pass", "not_of_generator")
        return value, self._moved(arrays, run) if moves else arrays, gradients

    def _moved(self, arrays: Arrays, run: Pass) -> Arrays:
        never = self.conventions.batch_norm_statistics == "never"
        return arrays if never else arrays | run.statistics

    def _updated(
        self, network: NetworkName, arrays: Arrays, gradients: Arrays, is_last: bool = True
    ) -> tuple[Arrays, Arrays]:
        """Return the state after an update, and the gradients as the optimizer received them."""
        scale = getattr(self.of[network], f"{network}_gradient_scale")
        scaled = {name: scale * g for name, g in gradients.items()} if scale != 1.0 else gradients
        return self.update(network, arrays, scaled, is_last), scaled


def updated(
    spec: SystemSpec, network: NetworkName, arrays: Arrays, gradients: Arrays, c: Conventions
) -> Arrays:
    """Return the state after an update of one network, or after as many as `c` has."""
    settings = settings_of(spec, network, c)
    times = {"never": 0, "twice": 2}.get(getattr(c, f"{network}_updates"), 1)
    counter = f"{network}_optimizer/step"
    gradients = clipped(gradients, settings)
    for _ in range(times):
        step = int(arrays[counter]) + 1
        after = dict(arrays) | {counter: np.array(step, np.int64)}
        for name, gradient in gradients.items():
            names = [optimizer_name(name, kept) for kept in settings.kept]
            kept = tuple(arrays[n] for n in names)
            found = optimizer_update(arrays[name], gradient, kept, step, settings, c)
            after.update(zip((name, *names), found, strict=True))
        arrays = after
    return arrays


def settings_of(spec: SystemSpec, network: NetworkName, c: Conventions) -> OptimizerSpec:
    """Return the spec's settings of one network's optimizer with the learning rate of `c`."""
    settings: OptimizerSpec = getattr(spec, f"{network}_optimizer")
    rate = getattr(c, f"{network}_learning_rate")
    changed = {} if rate is None else {"learning_rate": rate}
    if c.gradient_clipping != "none":
        bound, _, epsilon = c.gradient_clipping.partition("_and_")
        changed |= {f"clip_{bound}": c.gradient_clip, "clip_epsilon": 1e-6 if epsilon else 0.0}
    return dataclasses.replace(settings, **changed)


def _metrics(losses: dict[str, float], generator_loss: float) -> dict[str, float]:
    real, fake = losses["real"], losses["fake"]
    return dict(zip(METRIC_NAMES, (real + fake, real, fake, generator_loss), strict=True))
