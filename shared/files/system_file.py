"""A system that anybody writes down: a TOML or JSON file of two networks, their loss and step.

system.schema.json says what it may hold, and docs/systems.md explains it.
"""

import json
from math import isfinite
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators

from shared.files.documents import check_document, flattened, read_document
from shared.files.errors import InputError
from shared.spec import NETWORKS, SYSTEMS, SystemSpec
from shared.spec.entries import WEIGHTED, entries_from, narrowest
from shared.spec.optimizers import optimizer_from_dict, optimizer_to_dict

# JSON's 1.0 is an integer and TOML's nan within every limit, to the library.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {
        "integer": lambda _, value: type(value) is int,
        "number": lambda _, value: type(value) is int or (type(value) is float and isfinite(value)),
    }
)
_SCHEMA = json.loads(Path(__file__).with_name("system.schema.json").read_text("utf-8"))
_Validator = validators.extend(Draft202012Validator, type_checker=_TYPES)
_OF_A_FILE = _Validator(_SCHEMA)
# `SystemSpec.to_dict` has the same fields, but for those of the networks.
_OTHER = ("name", "names", *NETWORKS)
_STORED = {name: field for name, field in _SCHEMA["properties"].items() if name not in _OTHER}
_STORED |= {f"{n}_optimizer": {"$ref": "#/$defs/optimizer"} for n in NETWORKS}
_STORED |= {f"{n}_layers": {"$ref": "#/$defs/layers"} for n in NETWORKS}
_STORED |= {"name": {"type": "string"}, "width": {"$ref": "#/$defs/count"}}
_STORED |= {"names": {"type": "object", "additionalProperties": {"type": "string"}}}
_STORED |= {"architecture": {}, "discriminator_head": {}}  # which the spec itself checks
_REQUIRED = {"required": [*SYSTEMS["dcgan64"].to_dict()], "additionalProperties": False}
_OF_A_SPEC = _Validator(_SCHEMA | {"properties": _STORED} | _REQUIRED)


def find_system(name: str) -> SystemSpec:
    """Return a system by its name, or that of a .toml or .json file; ValueError for none."""
    if name.endswith((".toml", ".json")):
        return read_system(Path(name))
    if name not in SYSTEMS:
        expected = ", ".join(SYSTEMS)
        raise ValueError(f"unknown system {name!r}; expected {expected}, or a .toml or .json file")
    return SYSTEMS[name]


def read_system(path: Path) -> SystemSpec:
    """Return the system of a file; InputError, which names the file and the place, for another."""
    try:
        document = read_document(path)
        check_document(document, _OF_A_FILE)
        return _system(document)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error


def stored_system(data: Any) -> SystemSpec:
    """Return the system that an untrusted file has as `SystemSpec.to_dict`; else ValueError."""
    check_document(data, _OF_A_SPEC)
    spec = SystemSpec.from_dict(data)
    # Some fields have defaults, which a file does not rely on.
    expected, received = flattened(spec.to_dict()).keys(), flattened(data).keys()
    if expected != received or not spec.name.isprintable():
        raise ValueError(f"expected a printable name and {[*expected]}, received {[*received]}")
    return spec


def _system(document: dict[str, Any]) -> SystemSpec:
    networks = {network: document[network] for network in NETWORKS}
    layers = {}
    for network, given in networks.items():  # each layer with weights has an initializer
        own = {name: given[name] for name in ("initializer",) if name in given}
        weighted = ((own if x["kind"] in WEIGHTED else {}) | x for x in given["layers"])
        layers[f"{network}_layers"] = list(weighted)
    given = {n: optimizer_from_dict(networks[n].get("optimizer", {})) for n in NETWORKS}
    optimizers = {f"{n}_optimizer": optimizer_to_dict(given[n]) for n in NETWORKS}
    width = min(narrowest(entries_from(own)) for own in layers.values())
    fields = _SCHEMA["properties"].items()
    data = {name: field["default"] for name, field in fields if "default" in field}
    data |= {name: value for name, value in document.items() if name not in NETWORKS}
    data |= {"architecture": "custom", "width": width, "discriminator_head": "linear"}
    data["names"] = flattened(document.get("names", {}))
    spec = SystemSpec.from_dict(data | optimizers | layers)
    known = {f"{n}.{layer.name}" for n in NETWORKS for layer in spec.layers(n) if layer.parameters}
    if unknown := [name for name in data["names"] if name.partition(".")[2] not in known]:
        raise ValueError(f"names.{unknown[0]} is no layer with weights; expected {sorted(known)}")
    return spec
