"""PyTorch's state_dicts as others have saved them, whatever they named networks and layers.

A layer is recognised by its place: the arrays of a state_dict stand in the order of the layers,
and in these systems their kinds and shapes leave no second way to fill the places.
"""

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shared.files.checkpoint import OPTIMIZERS
from shared.files.documents import read_document
from shared.files.errors import InputError, refused_as
from shared.formats.native_contents import NamesOf, Shape, part_shapes, systems_of_every_size
from shared.spec import NETWORKS, AdamSpec, NetworkName, SystemSpec

COUNTER = "num_batches_tracked"
_WORDS = {
    "generator": {"g", "gen", "generator", "netg"},
    "discriminator": {"d", "dis", "disc", "discriminator", "critic", "netd"},
}
_OPTIMIZER_WORDS = {"opt", "optim", "optimizer"}
_ORDER = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}
_WRAPPERS = re.compile(r"^((module|_orig_mod|model|state_dict)\.)+")

Places = Sequence[tuple[str, Shape]]
"""Name and shape of every array of a network but BN's counters, in the order of the layers."""


def part_of(name: str) -> tuple[str | None, bool]:
    """Return which of PARTS an entry of a checkpoint is called, if any, and whether it is an EMA.

    >>> part_of("optimizerG"), part_of("g_ema"), part_of("epoch")
    (('generator_optimizer', False), ('generator', True), (None, False))
    """
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    for network, known in _WORDS.items():
        if words & known:
            is_optimizer = bool(words & _OPTIMIZER_WORDS)
            return f"{network}_optimizer" if is_optimizer else network, "ema" in words
    return None, False


def unwrapped(saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a checkpoint's entries by PARTS, or one bare state_dict; and what is left behind."""
    saved = {str(name): value for name, value in saved.items()}
    if not any(isinstance(value, Mapping) for value in saved.values()):
        return _split(saved), []
    parts: dict[str, Any] = {}
    left = []
    # A network itself before its moving average, which stands in only where it is alone.
    for name in sorted(saved, key=lambda name: part_of(name)[1]):
        part, _ = part_of(name)
        value = saved[name]
        if part and part not in parts and isinstance(value, Mapping):
            parts[part] = {str(n): a for n, a in value.items()} if part in NETWORKS else value
        else:
            left.append(name)
    inner = [n for n in left if isinstance(saved[n], Mapping) and saved[n]]
    if inner and not set(parts) & set(NETWORKS):
        largest = max(inner, key=lambda name: len(saved[name]))
        parts, more = unwrapped(saved[largest])
        left = [*(name for name in saved if name != largest), *more]
    return parts, left


def _split(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return "netG.main.0.weight" … as state_dicts of the networks, or the one as it is."""
    parts: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        first, _, rest = _WRAPPERS.sub("", name).partition(".")
        part, is_average = part_of(first)
        # d1.weight, d2.weight … are layers of one network.
        if part not in NETWORKS or not rest or rest in parts.get(part, {}) or first[-1].isdigit():
            return dict(arrays)
        if not is_average:
            parts.setdefault(part, {})[rest] = array
    return dict(parts)


class Nearest(NamedTuple):
    """A network that a file may hold; by its names `is_meant` but for a slip in one or two.

    The nearest of them is the largest tuple of the first four.
    """

    is_meant: bool
    is_as_deep: bool
    likeness: float
    shared: int
    spec: SystemSpec
    network: NetworkName
    places: Places


def nearest(
    given: Places, names_of: NamesOf, networks: Sequence[NetworkName] = NETWORKS
) -> Nearest:
    """Return the network that a bare state_dict is most like, in its arrays' kinds and order."""

    def compared(spec: SystemSpec, network: NetworkName) -> Nearest:
        shapes = part_shapes(spec, (network,))
        names = {native: name for native, name in names_of(spec).items() if name in shapes}
        places = [(n.partition("/")[2], shapes[name]) for n, name in names.items()]
        matcher = difflib.SequenceMatcher(None, _kinds(given), _kinds(places), autojunk=False)
        is_meant = len(dict(given).keys() ^ dict(places)) <= 2
        is_as_deep = len(_kernels(given)) == len(_kernels(places)) > 0
        shared = len(dict(given).keys() & dict(places))
        for (_, shape), (_, own) in zip(given, places, strict=False):
            shared += (Counter(shape) & Counter(own)).total()
        return Nearest(is_meant, is_as_deep, matcher.ratio(), shared, spec, network, places)

    found = (compared(spec, network) for spec in systems_of_every_size() for network in networks)
    return max(found, key=lambda one: one[:4])


def _kinds(places: Places) -> list[tuple[str, int]]:
    return [(name.rpartition(".")[2], len(shape)) for name, shape in places]


def _kernels(places: Places) -> list[str]:
    return [name for name, shape in places if len(shape) == 4]


def difference(given: Places, best: Nearest) -> str:
    """Return in words in what a state_dict is not the network that it is nearest to."""
    whose = f"the {best.network} of {best.spec.name}"
    names = [name for name, _ in given]
    spectral = re.compile(r"weight_(orig|u|v)$|\bparametrizations\.")
    if found := next(filter(spectral.search, names), None):
        is_new = "parametrizations" in found
        remove = "parametrize.remove_parametrizations" if is_new else "remove_spectral_norm"
        advice = f"fold it in with torch.nn.utils.{remove} and save the state_dict again"
        return f"spectral norm ({found}), which {whose} has not; {advice}"
    kernels, expected = _kernels(given), _kernels(best.places)
    if len(kernels) != len(expected):
        images = f"images of {best.spec.image_size}x{best.spec.image_size}"
        return f"{len(kernels)} convolutions, where {whose} has {len(expected)} ({images})"
    biases = [n for n in names if n.endswith("bias") and f"{n[:-4]}weight" in kernels]
    if biases and not any(f"{n[:-6]}bias" in dict(best.places) for n in expected):
        return f"biases of convolutions ({biases[0]} …), which {whose} has not"
    for (name, shape), (own, own_shape) in zip(given, best.places, strict=False):
        if _kinds([(name, shape)]) != _kinds([(own, own_shape)]):
            return f"{name} {shape}, where {whose} has {own} with {len(own_shape)} axes"
    return f"{len(given)} arrays, where {whose} has {len(best.places)}"


def order_of_layers(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts main.2.weight before main.10.bias, as PyTorch has them."""
    layer, _, last = name.rpartition(".")
    words = re.findall(r"\d+|\D+", layer)
    return [
        *((int(word), "") if word.isdigit() else (-1, word) for word in words),
        (_ORDER.get(last, len(_ORDER)), last),
    ]


def shards_of(path: Path) -> list[Path]:
    """Return the files that an index of Hugging Face's lists, which lie beside it; [] for none."""
    if not path.is_file():
        return []
    with open(path, "rb") as file:
        if not file.read(64).lstrip().startswith(b"{"):
            return []
    with refused_as(path, "a JSON index with a weight_map of file names"):
        names = set(read_document(path)["weight_map"].values())
        if not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in names):
            raise ValueError("names of other folders")
        if missing := [name for name in names if not path.with_name(name).is_file()]:
            raise ValueError(f"{missing[0]}, which is not beside it")
        return [path.with_name(name) for name in sorted(names)]


def recognised(
    path: Path, saved: Mapping[str, Any], names_of: NamesOf
) -> tuple[dict[str, Any], list[str]]:
    """Return entries by our names, and a line on what is left behind; InputError for none."""
    parts, left = unwrapped(saved)

    def ours(arrays: Mapping[str, Any], networks: tuple[NetworkName, ...]) -> dict[str, Any]:
        shapes = ((name, tuple(getattr(a, "shape", ()))) for name, a in arrays.items())
        places = [(name, shape) for name, shape in shapes if not name.endswith(COUNTER)]
        best = nearest(places, names_of, networks)
        if best.is_meant:  # a slip is for the strict check, which names the array
            return dict(arrays)
        if best.likeness < 1.0:
            advice = f"`python -m shared.convert --inspect {path}` lists the layers"
            raise InputError(f"{path}: {difference(places, best)}; {advice}")
        counters = {name: array for name, array in arrays.items() if name.endswith(COUNTER)}
        pairs = zip(places, best.places, strict=True)
        return counters | {own: arrays[name] for (name, _), (own, _) in pairs}

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
    except InputError:
        return False
    have_moments = all({"exp_avg", "exp_avg_sq"} <= set(state) for state in states.values())
    return have_moments and len(states) in (0, len(trained))


def read_adam(path: Path, part: str, saved: Mapping[str, Any]) -> tuple[AdamSpec, dict[Any, Any]]:
    """Return the settings of a torch.optim.Adam and the state of each parameter."""
    expected = f"{part} as the state_dict of torch.optim.Adam with one group"
    with refused_as(path, expected):
        (group,) = saved["param_groups"]
        beta1, beta2 = group["betas"]
        settings = AdamSpec(float(group["lr"]), float(beta1), float(beta2), float(group["eps"]))
        others = {name: group[name] for name in ("weight_decay", "amsgrad", "maximize")}
        states = dict(saved["state"])
        # A list, because each row of a tensor would become an object.
        is_list = isinstance(group["params"], list)
        is_plain = not any(others.values()) and is_list and set(states) <= set(group["params"])
        if not all(isinstance(state, Mapping) and "step" in state for state in states.values()):
            raise TypeError("the state of a parameter is a mapping with a step")
    if not is_plain:
        raise InputError(f"{path}: expected plain Adam as {part}, found {others}")
    return settings, states
