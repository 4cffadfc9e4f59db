"""A system that anybody writes down: a TOML or JSON file of two networks, their loss and step.

system.schema.json says what it may hold, and docs/systems.md explains it.
"""

import json
from math import isfinite
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, validators

from shared.files.checkpoint import flattened
from shared.files.documents import check_document, read_document
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
_VALIDATOR = validators.extend(Draft202012Validator, type_checker=_TYPES)(_SCHEMA)


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
    document = read_document(path)
    try:
        check_document(document, _VALIDATOR)
        return _system(document)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error


def _system(document: dict[str, Any]) -> SystemSpec:
    networks = {network: document[network] for network in NETWORKS}
    layers = {f"{n}_layers": _with_initializer(networks[n]) for n in NETWORKS}
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


def _with_initializer(network: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a network's layers, each with weights with the network's initializer or its own."""
    default = {"initializer": network["initializer"]} if "initializer" in network else {}
    return [(default if layer["kind"] in WEIGHTED else {}) | layer for layer in network["layers"]]
