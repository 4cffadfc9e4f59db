"""A system that anybody writes down: a TOML or JSON file of two networks, their loss and step.

`shared/spec/system.schema.json` says what it may hold; docs/systems.md explains it.
"""

import dataclasses
from pathlib import Path
from typing import Any

from shared.files.documents import read_document
from shared.files.errors import InputError
from shared.spec import NETWORKS, SYSTEMS, AdamSpec, SystemSpec, get_system
from shared.spec.custom import WEIGHTED, check_against_schema, defaults, entries_from, narrowest


def find_system(name: str) -> SystemSpec:
    """Return a system by its name, or that of a .toml or .json file.

    Raises ValueError for an unknown name, and InputError for a file that is no system.
    """
    if name in SYSTEMS or not name.endswith((".toml", ".json")):
        return get_system(name)
    return read_system(Path(name))


def read_system(path: Path) -> SystemSpec:
    """Return the system of a file; InputError, which names the file and the place, for another."""
    document = read_document(path)
    try:
        check_against_schema(document, "system")
        return _system(document)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from error


def _system(document: dict[str, Any]) -> SystemSpec:
    networks = {network: document[network] for network in NETWORKS}
    layers = {f"{n}_layers": _with_initializer(networks[n]) for n in NETWORKS}
    adam = dataclasses.asdict(AdamSpec())
    adams = {f"{n}_optimizer": adam | networks[n].get("optimizer", {}) for n in NETWORKS}
    width = min(narrowest(entries_from(own)) for own in layers.values())
    data = defaults() | {name: value for name, value in document.items() if name not in NETWORKS}
    data |= {"architecture": "custom", "width": width, "discriminator_head": "linear"}
    return SystemSpec.from_dict(data | adams | layers)


def _with_initializer(network: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a network's layers, each with weights with the network's initializer or its own."""
    default = {"initializer": network["initializer"]} if "initializer" in network else {}
    return [(default if layer["kind"] in WEIGHTED else {}) | layer for layer in network["layers"]]
