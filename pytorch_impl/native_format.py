"""PyTorch's own file, `.pth`: state_dicts with the names of pytorch/examples' DCGAN.

A dict of "generator" and "discriminator" (state_dicts of the nn.Sequential called main, so
"main.0.weight" …), their "…_optimizer" (state_dicts of torch.optim.Adam), and the spec and the
progress as JSON text. One network alone is its bare state_dict, as the example's netG_epoch_0.pth.
Read with weights_only=True, so an untrusted file cannot run code.
"""

import contextlib
import dataclasses
import math
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pytorch_impl.checkpoint import to_canonical, to_native
from pytorch_impl.layers import plain_layers
from pytorch_impl.models import create_models
from shared.files.checkpoint import encode_description, spec_differences
from shared.files.documents import flattened
from shared.files.errors import InputError, refused_as, require_file
from shared.formats.file_kinds import is_safetensors
from shared.formats.native_contents import (
    DESCRIPTION_FIELDS,
    OPTIMIZERS,
    Contents,
    assemble,
    require_unpacked,
)
from shared.formats.state_dicts import COUNTER, order_of_layers, read_adam, recognised, shards_of
from shared.framework_adapter import IN_PYTORCH
from shared.interface import Array, Arrays
from shared.spec import (
    NETWORKS,
    AdamSpec,
    Layer,
    NetworkName,
    Pixels,
    SystemSpec,
    flattened_pixels,
    optimizer_name,
)

_DTYPES = (torch.float32, torch.float64, torch.int64)
_CANONICAL_AXES = {4: (2, 3, 1, 0), 2: (1, 0)}  # OIHW → HWIO, (out, in) → (in, out)
_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


def _main(spec: SystemSpec, network: NetworkName) -> list[tuple[str, Layer]]:
    """Return the layers with their names in an nn.Sequential called main, or the system's own."""
    # The example's latents have the shape [batch, latent_dim, 1, 1] from the start.
    layers = spec.layers(network)
    numbered = enumerate(layers[1:] if layers[0].kind == "reshape" else layers)
    return [(spec.name_in("torch", network, x, f"main.{i}"), x) for i, x in numbered]


def native_names(spec: SystemSpec) -> dict[str, str]:
    """Return each array's canonical name by PyTorch's, such as "generator/main.0.weight".

    "generator_optimizer/step" stands for the step that every parameter has in its Adam.
    """
    names = {}
    for network in NETWORKS:
        optimizer = f"{network}_optimizer"
        names[f"{optimizer}/step"] = f"{optimizer}/step"
        for own, layer in _main(spec, network):
            for parameter in layer.parameters:
                name = f"{network}/{layer.name}/{parameter.name}"
                names[f"{network}/{own}.{IN_PYTORCH[parameter.name]}"] = name
        trained = [n for n, p in spec.parameters(network).items() if p.trainable]
        for i, name in enumerate(trained):
            for moment, key in _MOMENTS.items():
                names[f"{optimizer}/state/{i}/{key}"] = optimizer_name(name, moment)
    return names


def _pixels_by_array(spec: SystemSpec) -> dict[str, Pixels]:
    # Of the parameters and of their moments.
    pixels = flattened_pixels(spec)
    return pixels | {optimizer_name(n, m): where for n, where in pixels.items() for m in _MOMENTS}


def write_native(path: Path, contents: Contents) -> None:
    """Write contents that fit: `FileKind.write`."""
    pixels = _pixels_by_array(contents.spec)
    tensors = {
        native: to_native(contents.arrays[name], pixels.get(name))
        for native, name in native_names(contents.spec).items()
        if name in contents.arrays
    }
    tensors |= {
        f"{network}/{own}.{COUNTER}": torch.tensor(0)
        for network in NETWORKS
        for own, layer in _main(contents.spec, network)
        if layer.kind == "batch_norm"
    }
    saved: dict[str, Any] = {}
    for part in contents.parts:
        own = {n: t for n, t in tensors.items() if n.startswith(f"{part}/")}
        saved[part] = {n.removeprefix(f"{part}/"): t for n, t in own.items()}
        if part in OPTIMIZERS:
            saved[part] = _adam_state_dict(getattr(contents.spec, part), saved[part])
    if contents.is_one_network:
        (saved,) = saved.values()
    else:
        saved |= encode_description(contents.spec, contents.progress)
    torch.save(saved, path)


def read_native(path: Path) -> Contents:
    """Read a file and check it: `FileKind.read`."""
    saved, notes = _read(path)
    found, settings = _flat(path, saved)
    counters = [found.pop(name) for name in list(found) if name.endswith(COUNTER)]
    contents = assemble(path, found, saved, native_names, axes=_CANONICAL_AXES)
    spec = contents.spec.replace(**settings)
    if contents.spec_is_stored and (differences := spec_differences(spec, contents.spec)):
        shown = "; ".join(differences)
        raise InputError(f"{path}: its optimizers and its spec disagree: {shown}")
    pixels = _pixels_by_array(spec)
    arrays = {
        name: to_canonical(torch.from_numpy(array), pixels.get(name))
        for name, array in contents.arrays.items()
    }
    if counted := sum(counter.any() for counter in counters):
        notes.append(f"{COUNTER} of {counted} layers, which a fixed momentum never reads")
    return dataclasses.replace(contents, arrays=arrays, spec=spec, notes=tuple(notes))


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return everything in a file that has a shape, by dotted names, and what the file holds."""
    with refused_as(path, "state_dicts"):  # a dict may be in itself
        saved = _load(path)
        return {n: v for n, v in flattened(saved).items() if isinstance(v, Tensor)}, saved


def _adam_state_dict(settings: AdamSpec, own: dict[str, Tensor]) -> dict[str, Any]:
    """Return the state_dict of a torch.optim.Adam over the network's parameters."""
    step = own.pop("step").to(torch.float32)  # each parameter has one, a float32 scalar
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in own.items():
        _, index, key = name.split("/")
        state.setdefault(int(index), {"step": step.clone()})[key] = tensor
    adam = torch.optim.Adam(
        [nn.Parameter(s["exp_avg"]) for s in state.values()],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
    )
    return {"state": state, "param_groups": adam.state_dict()["param_groups"]}


def run_native(path: Path, contents: Contents, inputs: Arrays) -> Arrays:
    """Load each layer of a file as PyTorch's users do, and run the networks: `FileKind.run`."""
    saved, _ = _read(path)
    results: Arrays = {}
    models = create_models(contents.spec, plain_layers(getattr(torch, contents.dtype)))
    for network in contents.networks:
        module, tensors = models[NETWORKS.index(network)], saved.get(network, saved)
        for name, layer in _main(contents.spec, network):
            if layer.parameters:
                own = {n: t for n, t in tensors.items() if n.startswith(f"{name}.")}
                own = {n.removeprefix(f"{name}."): t for n, t in own.items()}
                module.get_submodule(layer.name).load_state_dict(own)
        x = torch.from_numpy(inputs[network])
        with torch.no_grad():
            y = module.eval()(x.movedim(-1, 1).contiguous() if x.ndim == 4 else x)
        results[network] = (y.movedim(1, -1) if y.ndim == 4 else y).numpy()
    return results


# --- reading ---------------------------------------------------------------------------------


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return a file's entries by our names, and a line on what others have put beside them."""
    saved = _load(path)
    if any(field in saved for field in DESCRIPTION_FIELDS):
        return saved, []
    with refused_as(path, "state_dicts"):  # a dict may be in itself
        return recognised(path, saved, native_names)


def _load(path: Path) -> dict[str, Any]:
    """Return what a file holds, or all the files of an index."""
    files = shards_of(path) or [path]
    tensors = {name: tensor for file in files for name, tensor in _load_file(file).items()}
    if files == [path] and not is_safetensors(path):
        return tensors
    # These have lost the order of the layers; that of the numbers in their names is left.
    return {name: tensors[name] for name in sorted(tensors, key=order_of_layers)}


def _load_file(path: Path) -> dict[str, Any]:
    require_file(path, "a file")
    with refused_as(path, "a file of torch.save"):
        with contextlib.suppress(tarfile.TarError):
            tarfile.open(path, "r:").close()
            raise InputError(f"{path}: expected a file of torch.save since 0.2, found a tar")
        if zipfile.is_zipfile(path):  # which may be packed
            with zipfile.ZipFile(path) as archive:
                require_unpacked(path, sum(part.file_size for part in archive.infolist()))
        if is_safetensors(path):
            return load_file(path)
        # Of pickles that it refuses anyway.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            try:
                saved = torch.load(path, map_location="cpu", weights_only=True)
            except pickle.UnpicklingError as error:
                raise InputError(
                    f"{path}: refused, because it holds more than tensors and plain data, which "
                    "could run code when it is unpickled, or is damaged; expected state_dicts: "
                    "where you trust the file, load it and save model.state_dict()"
                ) from error
    if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
        raise InputError(f"{path}: expected a dict of names, found {type(saved).__name__}")
    return dict(saved)


def _flat(path: Path, saved: Mapping[str, Any]) -> tuple[Arrays, dict[str, AdamSpec]]:
    """Return every array by the names of `native_names`, and both Adams' settings."""
    found: dict[str, Any] = {}
    settings = {}
    for part, values in saved.items():
        if not isinstance(values, Mapping):
            found |= {} if part in DESCRIPTION_FIELDS else {part: values}
        elif part not in OPTIMIZERS:
            found |= {f"{part}/{name}": value for name, value in values.items()}
        else:
            settings[part], states = read_adam(path, part, values)
            if states:
                found[f"{part}/step"] = _common_step(path, f"{part}/step", states.values())
            for i, state in states.items():
                found |= {f"{part}/state/{i}/{k}": v for k, v in state.items() if k != "step"}
    return {name: _to_numpy(path, name, value) for name, value in found.items()}, settings


def _common_step(path: Path, name: str, states: Iterable[Mapping[str, Any]]) -> int:
    """Return the one counter that every parameter has a copy of."""
    copies = [_to_numpy(path, name, state["step"]) for state in states]
    step, *others = {float(copy) if copy.shape == () else math.nan for copy in copies}
    if others or not step.is_integer() or abs(step) >= 2**63:
        shown = ", ".join(map(str, [step, *others]))
        raise InputError(f"{path}: expected one whole number as {name}, found {shown}")
    return int(step)


def _to_numpy(path: Path, name: str, value: Any) -> Array:
    """Return a tensor that is memory with a number in each place, as a state_dict's is."""
    if isinstance(value, int) and abs(value) < 2**63:
        value = torch.tensor(value)  # Adam's step in old files
    # A meta tensor has no memory, a negated view another sign than its memory, and an expanded
    # one shows a few bytes as gigabytes.
    if (
        isinstance(value, Tensor)
        and value.dtype in _DTYPES
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_neg()
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    ):
        return value.detach().numpy()
    found = f"{value.dtype}" if isinstance(value, Tensor) else type(value).__name__
    expected = f"{name} as {', '.join(map(str, _DTYPES))} of plain values"
    raise InputError(f"{path}: expected {expected}, found {found}")
