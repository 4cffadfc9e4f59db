"""Arrays as Keras 1 to 3 and TensorFlow name them, in files of other people's models.

They become a state_dict: "layer.weight", "layer.bias", "layer.running_mean" … Layouts are the
canonical ones already: HWIO, HWOI and (in, out). Such files order the layers of one kind, but not
always those of different kinds; so both sides are compared kind by kind.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from shared.files.errors import InputError
from shared.formats.native_contents import Contents, Shape, assemble
from shared.formats.state_dicts import recognised
from shared.framework_adapter import IN_PYTORCH, WORDS
from shared.interface import Array
from shared.spec import NETWORKS, SystemSpec

# Keras 3 numbers a layer's variables in the order of WORDS.
_PARAMETER = re.compile(rf"[/_](?:({'|'.join(IN_PYTORCH)})(?::0)?|vars/([0-3]))$", re.IGNORECASE)
_WRAPPERS = re.compile(r"^((model_weights|layers|_functional|_operations|model|root)/)+")
_OF_NO_LAYER = re.compile("optimizer|seed_generator|^opt/|adam", re.IGNORECASE)
_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def read_foreign(path: Path, found: Mapping[str, Array]) -> Contents:
    """Return what arrays of somebody's model are, by the order and the shapes of its layers.

    `found`: by the file's names, in its order. Raises InputError, with the first difference
    from the nearest system, for networks of none.
    """
    arrays, others = _state_dict(found)
    if not arrays:
        raise InputError(
            f"{path}: expected arrays with the names of a layer's (kernel, gamma …), found "
            f"{', '.join(others[:3]) or 'none'}; load the model where it was saved, and save its "
            "weights with model.save_weights('….weights.h5')"
        )
    parts, notes = recognised(path, arrays, _native_names)
    if any(network in parts for network in NETWORKS):
        parts = {f"{part}/{n}": a for part, own in parts.items() for n, a in own.items()}
    contents = assemble(path, parts, {}, _native_names)
    if others:
        notes.append(f"{len(others)} arrays of no layer ({', '.join(others[:3])} …)")
    if contents.spec.architecture != "custom" and any(n.endswith("/var") for n in contents.arrays):
        notes.append("the epsilon of its BN (here 1e-05, 0.001 by default in Keras)")
    return replace(contents, notes=tuple(notes))


def _state_dict(found: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Return the arrays of layers, kind by kind, and the names of all others."""
    layers: dict[str, dict[str, Array]] = {}
    others = []
    for name, array in found.items():
        own = name.removesuffix(_SUFFIX)
        match = None if _OF_NO_LAYER.search(own) else _PARAMETER.search(f"/{own}")
        if match is None:
            others.append(name)
            continue
        parameter = IN_PYTORCH[match[1].lower()] if match[1] else [*WORDS][int(match[2])]
        layers.setdefault(_layer_name(own[: max(match.start() - 1, 0)]), {})[parameter] = array
    shaped = {layer: _kind((n, a.shape) for n, a in own.items()) for layer, own in layers.items()}
    ordered = sorted(layers, key=shaped.__getitem__)
    return {f"{n}.{p}": layers[n][p] for n in ordered for p in WORDS if p in layers[n]}, others


def _native_names(spec: SystemSpec) -> dict[str, str]:
    """Return each array's canonical name by ours of a state_dict, kind by kind."""
    layers = [(n, layer) for n in NETWORKS for layer in spec.layers(n) if layer.parameters]
    layers.sort(key=lambda item: _kind((IN_PYTORCH[p.name], p.shape) for p in item[1].parameters))
    return {
        f"{network}/{_layer_name(own)}.{IN_PYTORCH[p.name]}": f"{network}/{layer.name}/{p.name}"
        for network, layer in layers
        for own in [spec.name_in("keras", network, layer, layer.name)]
        for p in layer.parameters
    }


def _layer_name(path: str) -> str:
    """Return the name of the layer whose arrays have a path in a file."""
    return _WRAPPERS.sub("", f"{path}/").strip("/").replace("/", ".")


def _kind(parameters: Iterable[tuple[str, Shape]]) -> list[tuple[str, int]]:
    """Return the names of a layer's arrays and how many axes they have."""
    return sorted((name, len(shape)) for name, shape in parameters)
