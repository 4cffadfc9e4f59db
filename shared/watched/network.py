"""What is recorded of a watched network: the network is asked, nobody names a tensor.

A layer is called by its kind and its number among those of the network, in the order in which the
network holds them, and its arrays as everywhere here: generator/conv_transpose_1/kernel. So two
ports of a network have the same names. What has no weights is seen in the input of the layer
behind it. No framework is imported: who has a network of it has imported it.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from shared.files.recording import RecordingError

Store = Callable[[str, Any, str | None], None]
"""Takes a name, a tensor and its layout."""
OnCall = Callable[[Any, Any], None]
"""Takes the input and the output of a layer."""
Gradients = Iterable[tuple[Any, Any]]
"""Parameters and their gradients."""
End = Callable[[], Any]
KINDS = {
    "Conv2d": "conv",
    "Conv2D": "conv",
    "Conv": "conv",
    "ConvTranspose2d": "conv_transpose",
    "Conv2DTranspose": "conv_transpose",
    "ConvTranspose": "conv_transpose",
    "Linear": "dense",
    "Dense": "dense",
    "_BatchNorm": "batch_norm",
    "BatchNormalization": "batch_norm",
    "BatchNorm": "batch_norm",
}
"""A framework's class of a layer → what it is called here."""
NAMES = {
    "gamma": "scale",
    "beta": "bias",
    "running_mean": "mean",
    "moving_mean": "mean",
    "running_var": "var",
    "moving_variance": "var",
}
"""A framework's name of an array → ours."""


class WatchedNetwork(ABC):
    """A network whose passes and updates are recorded until `end`, and its state when asked.

    `kernels` are the layouts of kernels by the kind of the layer, `images` that of images.
    """

    kernels: Mapping[str, str]
    images: str

    def __init__(self, name: str, network: Any, optimizer: Any, store: Store) -> None:
        self.store, self.optimizer = store, optimizer
        self.arrays: dict[str, tuple[Any, str | None]] = {}
        self._ends: list[End] = []
        counts: Counter[str] = Counter()
        for layer in self.layers(network):
            if arrays := dict(self.arrays_of(layer)):
                kind = kind_of(layer)
                counts[kind] += 1
                place = f"{name}/{kind}_{counts[kind]}"
                self._add(place, kind, arrays)
                self._ends.append(self.on_call(layer, partial(self._record_pass, place)))
        if not self.arrays:
            raise RecordingError(
                f"{name!r}: a {type(network).__name__} without weights; expected a network whose "
                "layers exist: call it once before it is watched"
            )
        self._ends.append(self.on_call(network, partial(self._record_pass, name)))
        if optimizer is not None:
            self._ends.append(self.on_update(self._record_gradients))

    def record_state(self) -> None:
        """Record every parameter, statistic and moment."""
        for name, (array, layout) in self.arrays.items():
            self.store(name, array, layout)
            for moment, value in self.moments(array).items():
                self.store(f"{name}/{moment}", value, layout)

    def end(self) -> None:
        """Leave the network and its optimizer as they were."""
        for end in reversed(self._ends):
            end()

    def _add(self, place: str, kind: str, arrays: Mapping[str, Any]) -> None:
        weight = "scale" if kind == "batch_norm" else "kernel"
        for own, array in arrays.items():
            ours = weight if own == "weight" else NAMES.get(own, own)
            self.arrays[f"{place}/{ours}"] = (
                array,
                self.kernels.get(kind) if ours == "kernel" else None,
            )

    def _record_pass(self, place: str, given: Any, returned: Any) -> None:
        for part, value in (("input", given), ("output", returned)):
            if hasattr(value, "shape"):
                layout = {2: "NF", 4: self.images}.get(len(value.shape))
                self.defer(f"{place}/{part}", value, layout)

    def _record_gradients(self, gradients: Gradients) -> None:
        names = {id(array): (name, layout) for name, (array, layout) in self.arrays.items()}
        for parameter, gradient in gradients:
            if gradient is not None and id(parameter) in names:
                name, layout = names[id(parameter)]
                self.defer(f"{name}/gradient", gradient, layout)

    @abstractmethod
    def layers(self, network: Any) -> Iterable[Any]:
        """Return the network and all layers in it, in the order in which it holds them."""

    @abstractmethod
    def arrays_of(self, layer: Any) -> Iterable[tuple[str, Any]]:
        """Return the arrays that a layer itself holds, by the framework's names."""

    @abstractmethod
    def on_call(self, layer: Any, record: OnCall) -> End:
        """Hand on each input and output of a layer until the result is called."""

    @abstractmethod
    def on_update(self, record: Callable[[Gradients], None]) -> End:
        """Hand on what the optimizer is given until the result is called."""

    @abstractmethod
    def moments(self, array: Any) -> Mapping[str, Any]:
        """Return Adam's `m` and `v` of a parameter, nothing before its first update."""

    def defer(self, name: str, value: Any, layout: str | None) -> None:
        """Record a value when it is known: at once, or when what is compiled runs."""
        self.store(name, value, layout)


def kind_of(layer: Any) -> str:
    """Return what a layer is called; of a kind that is not known here, by its class."""
    names = [base.__name__ for base in type(layer).__mro__]
    own = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", names[0]).lower()
    return next((KINDS[name] for name in names if name in KINDS), own)
