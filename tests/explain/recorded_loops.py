"""Recordings for the tests: what a training loop of the reference would record, and how."""

from pathlib import Path

import numpy as np

from shared.explain.recordings import RecordingReport, explain_recordings
from shared.record import Recorder
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions, SystemSpec, optimizer_name
from shared.spec.streams import initial_state, latents, stream

SPEC = SYSTEMS["dcgan64"].replace(image_size=32, width=2, latent_dim=6, batch_size=4)
STEPS = 2
Arrays = dict[str, np.ndarray]
Written = tuple[int, str, np.ndarray]


def run(conventions: Conventions, *, spec: SystemSpec = SPEC, seed: int = 0) -> list[Written]:
    """Return what a training loop of the reference would record, in the order of computation."""
    # Kernels larger than fresh ones, so that the statistics of a batch are of order 1.
    fresh = initial_state(spec, seed).items()
    arrays = {n: 10.0 * a if n.endswith("/kernel") else a for n, a in fresh}
    written = [(0, name, a) for name, a in state(spec, arrays).items()]
    for step in range(1, STEPS + 1):
        draw = stream(seed, "recorded images", step)
        real = draw.uniform(*spec.image_range, (spec.batch_size, *spec.image_shape))
        z = latents(spec, seed, step, spec.batch_size)
        passed = forward(spec, "generator", arrays, z, conventions, training=True)
        made = train_step(spec, arrays, real, z, conventions)
        arrays = made.arrays
        found = {"real_images": real, "latents": z} | layers(spec, passed.activations)
        found |= {name: np.array(value) for name, value in made.metrics.items()}
        found |= {f"{name}/gradient": g for name, g in made.gradients.items()}
        written += [(step, name, a) for name, a in (found | state(spec, arrays)).items()]
    return written


def layers(spec: SystemSpec, activations: Arrays) -> Arrays:
    """Return input and output of every layer with parameters of the generator."""
    found: Arrays = {}
    before = None
    for layer in spec.layers("generator"):
        if layer.parameters and before in activations:
            found[f"generator/{layer.name}/input"] = activations[before]
            found[f"generator/{layer.name}/output"] = activations[layer.name]
        before = layer.name
    return found


def state(spec: SystemSpec, arrays: Arrays) -> Arrays:
    """Return parameters and statistics, with Adam's moments under the parameters' names."""
    found = {n: a for n, a in arrays.items() if "_optimizer/" not in n}
    for network in ("generator", "discriminator"):
        for name, parameter in spec.parameters(network).items():
            if parameter.trainable:
                found |= {f"{name}/{x}": arrays[optimizer_name(name, x)] for x in ("m", "v")}
    return found


def as_pytorch_has_it(name: str, array: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Return an array in PyTorch's axes, and their layout."""
    if array.ndim != 4:
        return array, None
    if "kernel" in name:
        transposed = "conv_transpose" in name
        return array.transpose(3, 2, 0, 1), "IOHW" if transposed else "OIHW"
    return array.transpose(0, 3, 1, 2), "NCHW"


def own_layout(name: str, array: np.ndarray) -> str | None:
    if array.ndim != 4:
        return None
    if "kernel" in name:
        return "HWOI" if "conv_transpose" in name else "HWIO"
    return "NHWC"


def write(path: Path, written: list[Written], **how: object) -> Path:
    """Write a recording: in NHWC, or as PyTorch would, with or without layouts, in a dtype."""
    declared, pytorch = bool(how.get("declared")), bool(how.get("pytorch"))
    noise, rename = how.get("noise", 0.0), how.get("rename", lambda name: name)
    draw = np.random.default_rng(5)
    last = 0
    with Recorder(path, framework="pytorch" if pytorch else "jax") as record:
        for step, name, array in written:
            for _ in range(step - last):
                record.step()
            last = step
            layout = own_layout(name, array)
            if pytorch:
                array, layout = as_pytorch_has_it(name, array)
            array = array * (1.0 + noise * draw.standard_normal(array.shape))
            array = np.asarray(array, how.get("dtype", "float64"))
            record(rename(name), array, layout=layout if declared else None)
    return path


def explained(
    tmp_path: Path, first: list[Written], second: list[Written], **how: object
) -> RecordingReport:
    declared = how.setdefault("declared", True)
    own = {k: v for k, v in how.items() if k == "dtype"}
    a = write(tmp_path / "a.safetensors", first, declared=declared, **own)
    return explain_recordings(a, write(tmp_path / "b.safetensors", second, **how))


def fields(report: RecordingReport) -> set[str | None]:
    return {trap.field for trap in report.traps}


def pair_of(tmp_path: Path, a: Arrays, b: Arrays, /, **layouts: dict[str, str]) -> RecordingReport:
    """Explain two recordings of one step."""
    for name, arrays in (("first", a), ("second", b)):
        with Recorder(tmp_path / name, framework="numpy") as record:
            for key, array in arrays.items():
                record(key, array, layout=layouts.get(name, {}).get(key))
    return explain_recordings(tmp_path / "first", tmp_path / "second")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)
