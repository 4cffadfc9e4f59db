"""PyTorch's own file, `.pth`: state_dicts with the names of pytorch/examples' DCGAN.

A dict of "generator" and "discriminator" (state_dicts of the nn.Sequential called main, so
"main.0.weight" …), their "…_optimizer" (state_dicts of torch.optim.Adam), and the spec and the
progress as JSON text. One network alone is its bare state_dict, as the example's netG_epoch_0.pth.
Read with weights_only=True, so a file from a stranger cannot run code.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_impl.checkpoint import to_canonical, to_native
from pytorch_impl.native_networks import batch_counters, native_names
from shared.convert.native_contents import (
    DESCRIPTION_FIELDS,
    OPTIMIZERS,
    PARTS,
    PROGRESS,
    NativeContents,
    check_contents,
    check_native_arrays,
    closest_network,
    infer_spec,
    part_shapes,
    parts_of,
    require_file,
    split_description,
)
from shared.files.atomic import write_file_atomically
from shared.files.checkpoint import (
    CheckpointError,
    encode_description,
    spec_differences,
)
from shared.spec import (
    NETWORKS,
    AdamSpec,
    NetworkName,
    Pixels,
    SystemSpec,
    flattened_pixels,
    optimizer_name,
)

__all__ = ["CARRIED", "read_native", "write_native"]

CARRIED = (*PARTS, PROGRESS)
"""What this format has a place for."""

_STEPS = tuple(f"{part}/step" for part in OPTIMIZERS)
_DTYPES = (torch.float32, torch.float64, torch.int64)


def write_native(path: str | os.PathLike[str], contents: NativeContents) -> None:
    """Write a file that this framework's users can load; it is complete or not there at all.

    Raises CheckpointError, before anything is written, for arrays that do not fit the spec and
    for parts that are not in CARRIED.
    """
    path = Path(path)
    check_contents(path, contents, CARRIED)
    saved: dict[str, Any] = {}
    for network in contents.networks:
        saved[network] = _state_dict(network, contents)
        if f"{network}_optimizer" in contents.parts:
            saved[f"{network}_optimizer"] = _optimizer_state_dict(network, contents)
    if contents.is_one_network:
        (saved,) = saved.values()
    else:
        saved |= encode_description(contents.spec, contents.progress)
    buffer = io.BytesIO()
    torch.save(saved, buffer)
    write_file_atomically(path, buffer.getvalue())


def read_native(path: str | os.PathLike[str]) -> NativeContents:
    """Read a file of this framework and check all of it but the values.

    A spec that is not stored is read off the names and shapes. Raises CheckpointError, naming the
    file, for a missing, damaged or foreign one and for every array too much, missing or misshapen.
    """
    path = Path(path)
    saved = _load(path)
    stored_spec, progress = split_description(path, saved)
    saved = {name: value for name, value in saved.items() if name not in DESCRIPTION_FIELDS}
    if not parts_of(saved):
        saved = {closest_network(_canonical_shapes(saved), native_names): saved}
    found, settings = _flat(path, saved)
    spec = stored_spec or infer_spec(_canonical_shapes(found), native_names)
    spec = _with_settings(path, spec, settings, is_stored=stored_spec is not None)
    arrays, notes = _canonical_arrays(path, found, spec)
    contents = NativeContents(arrays, spec, progress, stored_spec is not None, notes)
    check_contents(path, contents, CARRIED)
    return contents


# --- writing ---------------------------------------------------------------------------------


def _state_dict(network: NetworkName, contents: NativeContents) -> dict[str, Tensor]:
    prefix = f"{network}/"
    names = {n.removeprefix(prefix): c for n, c in native_names(contents.spec).items()}
    pixels = flattened_pixels(contents.spec)
    saved = {
        n: to_native(contents.arrays[c], pixels.get(c))
        for n, c in names.items()
        if c.startswith(prefix)
    }
    counters = batch_counters(contents.spec, network)
    return saved | {name: torch.tensor(0) for name in counters}


def _optimizer_state_dict(network: NetworkName, contents: NativeContents) -> dict[str, Any]:
    part = f"{network}_optimizer"
    state: dict[int, dict[str, Tensor]] = {}
    pixels = _pixels_by_array(contents.spec)
    for native, name in native_names(contents.spec).items():
        if native.startswith(f"{part}/"):
            *_, index, key = native.split("/")
            # Adam's own counter is a float32 scalar.
            array = contents.arrays[name]
            is_step = key == "step"
            value = torch.tensor(float(array)) if is_step else to_native(array, pixels.get(name))
            state.setdefault(int(index), {})[key] = value
    settings: AdamSpec = getattr(contents.spec, part)
    adam = torch.optim.Adam(
        [nn.Parameter(s["exp_avg"]) for s in state.values()],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
    )
    return {"state": state, "param_groups": adam.state_dict()["param_groups"]}


# --- reading ---------------------------------------------------------------------------------


def _load(path: Path) -> dict[str, Any]:
    require_file(path)
    try:
        _require_unpacked(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles that it refuses anyway
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it holds more than tensors and plain data, which could run "
            "code when it is unpickled, or is damaged; expected state_dicts"
        ) from error
    except CheckpointError:
        raise
    # torch's readers of archives and pickles raise AttributeError, AssertionError, MemoryError, ...
    except Exception as error:
        raise CheckpointError(f"{path}: expected a file of torch.save, found other data") from error
    if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f"{path}: expected a dict of names, found {type(saved).__name__}")
    return dict(saved)


def _require_unpacked(path: Path) -> None:
    """Raise CheckpointError for what torch.load would unpack, which torch.save has never packed.

    A megabyte of zeros becomes a gigabyte in memory, and the members of a tar, which torch wrote
    before 2017, go to the disk.
    """
    with contextlib.suppress(tarfile.TarError):
        tarfile.open(path, "r:").close()
        raise CheckpointError(f"{path}: expected a file of torch.save since 0.2, found a tar")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            declared = sum(part.file_size for part in archive.infolist())
        if declared > path.stat().st_size:
            raise CheckpointError(
                f"{path}: expected a file of torch.save, unpacked; found {declared:,} bytes "
                f"declared in a file of {path.stat().st_size:,}"
            )


def _flat(
    path: Path, saved: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, AdamSpec]]:
    """Return every array by the names of `native_names`, and both Adams' settings."""
    found: dict[str, Any] = {}
    settings = {}
    for part, values in saved.items():
        if not isinstance(values, Mapping):
            found[part] = values
        elif part in OPTIMIZERS:
            settings[part] = _adam_settings(path, part, values)
            for i, state in values["state"].items():
                found |= {f"{part}/state/{i}/{key}": value for key, value in state.items()}
        else:
            found |= {f"{part}/{name}": value for name, value in values.items()}
    return {name: _to_numpy(path, name, value) for name, value in found.items()}, settings


def _to_numpy(path: Path, name: str, value: Any) -> np.ndarray:
    if isinstance(value, int) and abs(value) < 2**63:
        value = torch.tensor(value)  # Adam's step in old files
    if not isinstance(value, Tensor) or value.dtype not in _DTYPES or not _is_plain(value):
        found = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        expected = ", ".join(str(dtype) for dtype in _DTYPES)
        raise CheckpointError(
            f"{path}: expected {name} as {expected} of plain values, found {found}"
        )
    return value.detach().numpy()


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is memory with a number in each place, as a state_dict's is.

    A meta tensor has no memory, a negated view another sign than its memory, and an expanded one
    shows a few bytes as gigabytes.
    """
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_neg()
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    )


def _adam_settings(path: Path, part: str, saved: Mapping[str, Any]) -> AdamSpec:
    try:
        (group,) = saved["param_groups"]
        beta1, beta2 = group["betas"]
        settings = AdamSpec(float(group["lr"]), float(beta1), float(beta2), float(group["eps"]))
        others = {name: group[name] for name in ("weight_decay", "amsgrad", "maximize")}
        is_plain = not any(others.values())
        indices = set(saved["state"]) - set(group["params"])
        if not all(isinstance(state, Mapping) for state in saved["state"].values()):
            raise TypeError("the state of a parameter is a mapping")
    # AttributeError, RuntimeError: of what is no mapping, or a tensor where a number should be.
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: expected {part} as the state_dict of torch.optim.Adam with one group"
        ) from error
    if not is_plain or indices:
        raise CheckpointError(f"{path}: expected plain Adam as {part}, found {others}")
    return settings


def _with_settings(
    path: Path, spec: SystemSpec, settings: dict[str, AdamSpec], *, is_stored: bool
) -> SystemSpec:
    """Return the spec with both Adams' settings; those of a stored spec must be the same."""
    read = spec.replace(**settings)
    if is_stored and read != spec:
        differences = "; ".join(spec_differences(read, spec))
        raise CheckpointError(f"{path}: its optimizers and its spec disagree: {differences}")
    return read


def _canonical_shapes(found: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes in the canonical layout; () for what is no array."""
    order = {4: (2, 3, 1, 0), 2: (1, 0)}
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in found.items()}
    return {n: tuple(s[i] for i in order.get(len(s), range(len(s)))) for n, s in shapes.items()}


def _canonical_arrays(
    path: Path, found: dict[str, np.ndarray], spec: SystemSpec
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Check a file's arrays; return them by canonical name, and a note on what is left out."""
    parts = parts_of(found)
    shapes = part_shapes(spec, parts)
    names = {native: name for native, name in native_names(spec).items() if name in shapes}
    counters = [f"{w}/{n}" for w in NETWORKS if w in parts for n in batch_counters(spec, w)]
    pixels = _pixels_by_array(spec)
    # Shapes alone: what a stored spec says may be larger than the memory.
    expected = {n: _native_shape(shapes[c]) for n, c in names.items()}
    check_native_arrays(path, found, expected | dict.fromkeys(counters, ()))
    values = {name: [found[n] for n, c in names.items() if c == name] for name in shapes}
    arrays = {
        name: _steps(path, name, held)
        if name in _STEPS
        else to_canonical(torch.from_numpy(held[0]), pixels.get(name))
        for name, held in values.items()
    }
    counted = sum(bool(found[name]) for name in counters)
    note = f"num_batches_tracked of {counted} layers, which a fixed momentum never reads"
    return arrays, (note,) if counted else ()


def _native_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of `to_native`'s tensor for an array of this shape."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(len(shape), range(len(shape)))
    return tuple(shape[i] for i in order)


def _pixels_by_array(spec: SystemSpec) -> dict[str, Pixels]:
    """Return `flattened_pixels` of the parameters and of their moments."""
    pixels = flattened_pixels(spec)
    trainable = {n: p.trainable for w in NETWORKS for n, p in spec.parameters(w).items()}
    moments = {
        optimizer_name(n, moment): where
        for n, where in pixels.items()
        for moment in ("m", "v")
        if trainable[n]
    }
    return pixels | moments


def _steps(path: Path, name: str, values: list[np.ndarray]) -> np.ndarray:
    """Return the one counter that every parameter has a copy of."""
    (step, *others) = {float(value) for value in values}
    if others or not step.is_integer() or abs(step) >= 2**63:
        found = ", ".join(map(str, [step, *others]))
        raise CheckpointError(f"{path}: expected one whole number as {name}, found {found}")
    return np.array(int(step), np.int64)
