"""A training run with NumPy in the place of a framework.

The stand-in moves its weights by what it is fed, so a run that is resumed with the wrong weights,
images or latents ends elsewhere.
"""

import csv
import signal

import numpy as np

from shared.interface import METRIC_NAMES
from shared.run.options import TrainingOptions
from shared.run.training import TrainingRun
from shared.spec import SYSTEMS, streams

SPEC = SYSTEMS["dcgan64"].replace(width=1, latent_dim=3, batch_size=2)
KERNEL = "generator/conv_transpose_1/kernel"
GREY = SYSTEMS["conv28"].replace(width=1, latent_dim=3, batch_size=2)


def ten_pictures(folder):
    """Make ten small random pictures and return their path."""
    path = folder / "images.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images=pixels)
    return path


def stand_in_options(folder, pictures, /, **changes):
    """Return the options of a run of 25 steps in `folder`."""
    defaults = {
        "implementation": "pytorch",
        "spec": SPEC,
        "data": pictures,
        "steps": 25,
        "seed": 7,
        "out": folder / "run",
        "resume": False,
        "device": "cpu",
        "dtype": "float32",
        "checkpoint_every": 10,
        "sample_every": 20,
        "tensorboard": False,
    }
    return TrainingOptions(**{**defaults, **changes})


class FakeState:
    """The least that can be trained: one kernel follows the inputs."""

    def __init__(self, options, restored):
        self.spec = options.spec
        self.kernel = (
            KERNEL if options.spec.architecture == "dcgan64" else "generator/dense_1/kernel"
        )
        fresh = streams.initial_state(options.spec, options.seed)
        self.arrays = restored or {
            name: array.astype(options.dtype) if array.shape else array
            for name, array in fresh.items()
        }

    def step(self, real_images, latents):
        self.spec.batch_size_of(len(real_images), len(latents))
        moved = self.arrays[self.kernel] + real_images.mean() + latents.mean()
        self.arrays = {
            **self.arrays,
            self.kernel: moved.astype(real_images.dtype),
            "generator_optimizer/step": self.arrays["generator_optimizer/step"] + np.int64(1),
        }
        return {name: np.abs(moved).mean() / (i + 1) for i, name in enumerate(METRIC_NAMES)}

    def generate(self, latents):
        level = np.tanh(self.arrays[self.kernel].mean() + latents.mean(axis=1))
        pattern = np.random.default_rng(0).uniform(-1, 1, self.spec.image_shape)
        low, high = self.spec.image_range
        return (level[:, None, None, None] * pattern + 1) / 2 * (high - low) + low


def fit(options, during=lambda step, metrics: metrics):
    """The loop of an implementation; `during` may meddle with a step."""
    run = TrainingRun(options, device="cpu", versions={"fake": "1.0"})
    state = FakeState(options, run.initial_arrays)
    seen = []
    with run:
        if run.restored is None:
            run.save_samples(-1, state.generate(run.sample_latents))
        for step in run.remaining_steps():
            real_images, latents = run.inputs(step)
            seen.append((step, real_images, latents))
            run.record(step, during(step, state.step(real_images, latents)))
            if run.sample_due(step):
                run.save_samples(step, state.generate(run.sample_latents))
            if run.checkpoint_due(step):
                run.save_checkpoint(step, state.arrays)
    return seen


def loss_rows(out):
    """Return losses.csv without its last column, the seconds."""
    with open(out / "losses.csv", newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_at(step_to_stop):
    """Return a meddler that fails at one step, as a crash would."""

    def during(step, metrics):
        if step == step_to_stop:
            raise RuntimeError("crash")
        return metrics

    return during


def interrupt_at(step_to_stop):
    def during(step, metrics):
        if step == step_to_stop:
            signal.raise_signal(signal.SIGINT)
        return metrics

    return during
