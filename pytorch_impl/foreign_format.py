"""state_dicts that others have saved, by the names of `native_format`."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from shared.files.checkpoint import CheckpointError
from shared.formats.foreign_names import (
    COUNTER,
    difference,
    nearest,
    places_of,
    renamed,
    unwrapped,
)
from shared.formats.native_contents import OPTIMIZERS, NamesOf
from shared.spec import NETWORKS, AdamSpec, NetworkName, SystemSpec

_ORDER = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}


def order_of_layers(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts main.2.weight before main.10.bias, as PyTorch has them."""
    layer, _, last = name.rpartition(".")
    words = re.findall(r"\d+|\D+", layer)
    return [
        *((int(word), "") if word.isdigit() else (-1, word) for word in words),
        (_ORDER.get(last, len(_ORDER)), last),
    ]


def recognised(
    path: Path,
    saved: Mapping[str, Any],
    names_of: NamesOf,
    counters_of: Callable[[SystemSpec], Iterable[str]],
) -> tuple[dict[str, Any], list[str]]:
    """Return a file's entries by our names, and a line on what is left behind of the others.

    `names_of` and `counters_of` are those of `native_format`. Raises CheckpointError for layers
    that no system has.
    """
    parts, left = unwrapped(saved)

    def ours(arrays: Mapping[str, Any], networks: tuple[NetworkName, ...]) -> dict[str, Any]:
        places = places_of(arrays)
        best = nearest(places, names_of, networks)
        own = [n.partition("/") for n in counters_of(best.spec)]
        counters = [name for network, _, name in own if network == best.network]
        # With our names a slip is for the strict check, which names the array.
        is_ours = best.is_meant_by(places)
        found = dict(arrays) if is_ours else renamed(arrays, best, counters)
        if found is None:
            raise CheckpointError(
                f"{path}: {difference(places, best)}; `python -m shared.convert --inspect {path}` "
                "lists the layers"
            )
        return dict.fromkeys(counters, torch.tensor(0)) | found

    held: list[NetworkName] = [network for network in NETWORKS if network in parts]
    if not held:
        parts = ours(parts, NETWORKS)
    for network in held:
        parts[network] = ours(parts[network], (network,))
    for part in [name for name in OPTIMIZERS if name in parts]:
        if not _is_adam_of(parts.get(part.removesuffix("_optimizer"), {}), parts[part]):
            left.append(part)
            del parts[part]
    return parts, [f"{', '.join(left)}, for which there is no place"] if left else []


def _is_adam_of(network: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Whether somebody's optimizer is an Adam over the parameters of a network, or a fresh one."""
    buffers = ("running_mean", "running_var", COUNTER)
    trained = [name for name in network if not name.endswith(buffers)]
    try:
        _, states = read_adam(Path(), "", saved)
    except CheckpointError:
        return False
    return len(states) in (0, len(trained)) and all(
        {"exp_avg", "exp_avg_sq"} <= set(state) for state in states.values()
    )


def read_adam(path: Path, part: str, saved: Mapping[str, Any]) -> tuple[AdamSpec, dict[Any, Any]]:
    """Return the settings of a torch.optim.Adam and the state of each parameter."""
    try:
        (group,) = saved["param_groups"]
        beta1, beta2 = group["betas"]
        settings = AdamSpec(float(group["lr"]), float(beta1), float(beta2), float(group["eps"]))
        others = {name: group[name] for name in ("weight_decay", "amsgrad", "maximize")}
        states = dict(saved["state"])
        is_plain = not any(others.values()) and set(states) <= set(group["params"])
        if not all(isinstance(state, Mapping) and "step" in state for state in states.values()):
            raise TypeError("the state of a parameter is a mapping with a step")
    # AttributeError, RuntimeError: of what is no mapping, or a tensor where a number should be.
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: expected {part} as the state_dict of torch.optim.Adam with one group"
        ) from error
    if not is_plain:
        raise CheckpointError(f"{path}: expected plain Adam as {part}, found {others}")
    return settings, states
