"""Train a few steps on several devices and keep the states: one process of such a run.

`python -m tests.implementations.parallel_steps --framework jax --devices 2 4 --out F`; of PyTorch
each number of devices is a run of its own, under torchrun.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from shared.data.dataset import to_image_range
from shared.fixtures.network import representative_state
from shared.interface import Implementation
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.streams import latents

CLASSES = {
    "pytorch": ("pytorch_impl", "PyTorchImplementation"),
    "tf": ("tf_impl", "TensorFlowImplementation"),
    "jax": ("jax_impl", "JaxImplementation"),
}
STEPS = (1, 4)  # after which the states are compared


@dataclass(frozen=True)
class Case:
    """A system, how its batch norm works on several devices, on how many, and for how long."""

    name: str
    spec: SystemSpec
    batch_norm: str = "global"
    dtype: str = "float64"
    last: int = STEPS[-1]
    seed: int = 0
    devices: tuple[int, ...] = (2,)

    def in_float64(self) -> Case:
        """Return the case as the reference computes it."""
        return dataclasses.replace(self, dtype="float64")

    def for_one_step(self) -> Case:
        """Return the case with its first step alone."""
        return dataclasses.replace(self, last=1)

    def start(self) -> dict[str, np.ndarray]:
        """Return the state that every framework starts from: no array of it is trivial."""
        arrays = representative_state(self.spec, 3)
        floats = {n: a for n, a in arrays.items() if not n.endswith("_optimizer/step")}
        return arrays | {name: array.astype(self.dtype) for name, array in floats.items()}

    def inputs(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the global batches of a step."""
        spec = self.spec
        draw = np.random.default_rng(1000 * self.seed + step)
        shape = (spec.batch_size * spec.discriminator_steps, *spec.image_shape)
        pixels = draw.integers(0, 256, shape, dtype=np.uint8)
        z = latents(spec, self.seed, step, spec.batch_size * spec.latent_batches)
        return to_image_range(pixels, spec, self.dtype), z.astype(self.dtype)


def _narrow(name: str, width: int, **changes: Any) -> SystemSpec:
    return SYSTEMS[name].replace(width=width, latent_dim=6, batch_size=8, **changes)


DCGAN = _narrow("dcgan64", 4, image_size=32)
CASES = (
    Case("dcgan64", DCGAN, devices=(2, 4)),
    Case(
        "lsgan, two updates",
        _narrow("dcgan64-lsgan", 3, discriminator_steps=2, generator_batch="same_images"),
        last=1,
    ),
    Case(
        "conv28, new latents",
        _narrow("conv28", 4, discriminator_steps=2, generator_batch="new_latents"),
    ),
    Case("mlp28", _narrow("mlp28", 8)),
    # Of images with which no pre-activation of the discriminator is within rounding of a kink.
    Case("float32", DCGAN, dtype="float32", last=1, seed=1),
    Case("per-replica", DCGAN, batch_norm="per-replica", devices=(2, 4)),
)
# Every replica is traced anew, which takes longest. Two show a wrong trace: of each batch norm and
# of several updates; the others run eagerly.
TRACED = ("conv28, new latents", "mlp28", "per-replica")


def implementation(framework: str, devices: int, batch_norm: str) -> Implementation:
    """Return a framework's implementation on so many CPU devices."""
    package, name = CLASSES[framework]
    made = getattr(importlib.import_module(f"{package}.adapter"), name)
    return made("cpu", devices=devices, batch_norm=batch_norm)


def states(case: Case, chosen: Implementation) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Train and yield the number of steps and the whole state after each of STEPS."""
    state = chosen.create(case.spec, seed=0, dtype=case.dtype)
    chosen.import_state(state, case.start())
    for step in range(case.last):
        metrics = chosen.train_step(state, *case.inputs(step))
        if step + 1 in STEPS:
            losses = {f"metrics/{name}": np.array(value) for name, value in metrics.items()}
            yield step + 1, chosen.export_state(state) | losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=CLASSES, required=True)
    parser.add_argument("--devices", type=int, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    parallel = importlib.import_module(f"{CLASSES[options.framework][0]}.parallel")
    parallel.prepare_devices("cpu", max(options.devices))
    if options.framework == "pytorch":
        cluster = importlib.import_module("pytorch_impl.cluster")
        with cluster.joined("cpu", wait_limit=60.0):
            _run(options, cluster.process_number() == 0)
        cluster.leave_others(0)
    else:
        _run(options, writes=True)


def _run(options: argparse.Namespace, writes: bool) -> None:
    for case in CASES:
        for devices in (count for count in options.devices if count in case.devices):
            if options.framework == "tf":
                tensorflow = importlib.import_module("tensorflow")
                tensorflow.config.run_functions_eagerly(devices > 2 or case.name not in TRACED)
            chosen = implementation(options.framework, devices, case.batch_norm)
            for step, arrays in states(case, chosen):
                if writes:
                    name = f"{options.framework}-{case.name}-{devices}-{step}.safetensors"
                    save_file(dict(arrays), options.out / name)


if __name__ == "__main__":
    main()
