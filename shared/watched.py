"""What `Recorder.watch` records of a network: the network is asked, nobody names a tensor.

A layer is called by its kind and its number among those of the network, in the order in which the
network holds them, and its arrays as everywhere here: generator/conv_transpose_1/kernel. So two
ports of a network have the same names. What has no weights is seen in the input of the layer
behind it. No framework is imported: who has a network of it has imported it.
"""

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from shared.files.errors import InputError
from shared.framework_adapter import KEPT, canonical_arrays, intercepted, kept_by_optax, kind_of

Store = Callable[[str, Any, str | None], None]
"""Takes a name, a tensor and its layout."""
Gradients = Iterable[tuple[Any, Any]]


class WatchedNetwork(ABC):
    """A network whose passes and updates are recorded, and its state when asked.

    When `interceptions` are closed, the network and its optimizer are as they were.

    `kernels` are the layouts of kernels by the kind of the layer, `images` that of images, `update`
    the method of an optimizer that is given the gradients.
    """

    kernels: Mapping[str, str]
    images: str
    update: str

    def __init__(self, name: str, network: Any, optimizer: Any, store: Store) -> None:
        self.store, self.optimizer = store, optimizer
        self.arrays: dict[str, tuple[Any, str | None]] = {}
        self.interceptions = ExitStack()
        counts: Counter[str] = Counter()
        for layer in {id(layer): layer for layer in self.layers(network)}.values():
            kind = kind_of(type(layer))
            if arrays := canonical_arrays(kind, self.arrays_of(layer)):
                counts[kind] += 1
                place = f"{name}/{kind}_{counts[kind]}"
                for own, array in arrays.items():
                    layout = self.kernels.get(kind) if own == "kernel" else None
                    self.arrays[f"{place}/{own}"] = array, layout
                self._watch_passes(layer, place)
        if not self.arrays:
            text = f"{name!r}: a {type(network).__name__} without weights"
            expected = "a network whose layers exist: call it once before it is watched"
            raise InputError(f"{text}; expected {expected}")
        self._watch_passes(network, name)
        if optimizer is not None:
            self.watch_updates()

    def record_state(self) -> None:
        """Record every parameter, statistic and moment."""
        for name, (array, layout) in self.arrays.items():
            self.store(name, array, layout)
            for moment, value in self.moments(array).items():
                self.store(f"{name}/{moment}", value, layout)

    def _watch_passes(self, layer: Any, place: str) -> None:
        def record(call: Callable, *given: Any, **named: Any) -> Any:
            returned = call(*given, **named)
            for part, value in (*zip(["input"], given, strict=False), ("output", returned)):
                if hasattr(value, "shape"):
                    layout = {2: "NF", 4: self.images}.get(len(value.shape))
                    self.defer(f"{place}/{part}", value, layout)
            return returned

        self.interceptions.enter_context(intercepted(layer, record))

    def watch_updates(self) -> None:
        """Record the gradients that the optimizer is given."""

        def record(update: Callable, *given: Any, **named: Any) -> Any:
            self.record_gradients(self.gradients(*given))
            return update(*given, **named)

        self.interceptions.enter_context(intercepted(self.optimizer, record, self.update))

    def record_gradients(self, gradients: Gradients) -> None:
        """Record the gradients of what is watched."""
        names = {id(array): (name, layout) for name, (array, layout) in self.arrays.items()}
        for parameter, gradient in gradients:
            if gradient is not None and id(parameter) in names:
                name, layout = names[id(parameter)]
                self.defer(f"{name}/gradient", gradient, layout)

    @staticmethod
    @abstractmethod
    def layers(network: Any) -> Iterable[Any]:
        """Return the network and all layers in it, in the order in which it holds them."""

    @staticmethod
    @abstractmethod
    def arrays_of(layer: Any) -> Iterable[tuple[str, Any]]:
        """Return the arrays that a layer itself holds, by the framework's names."""

    def gradients(self, *given: Any) -> Gradients:
        """Return the parameters and gradients of what `update` is given."""
        raise NotImplementedError

    @abstractmethod
    def moments(self, array: Any) -> Mapping[str, Any]:
        """Return Adam's `m` and `v` of a parameter, nothing before its first update."""

    def defer(self, name: str, value: Any, layout: str | None) -> None:
        """Record a value when it is known: at once, or when what is compiled runs."""
        self.store(name, value, layout)


class _PyTorchNetwork(WatchedNetwork):
    kernels = {"conv": "OIHW", "conv_transpose": "IOHW", "dense": "OI"}  # noqa: RUF012
    images = "NCHW"

    @staticmethod
    def layers(network: Any) -> Iterable[Any]:
        return network.modules()

    @staticmethod
    def arrays_of(layer: Any) -> Iterable[tuple[str, Any]]:
        yield from layer.named_parameters(recurse=False)
        buffers = layer.named_buffers(recurse=False)
        yield from ((name, held) for name, held in buffers if name != "num_batches_tracked")

    def watch_updates(self) -> None:
        # Its own hook: a schedule of the learning rate replaces `step` too.
        arrays, hook = self.arrays.values(), self.optimizer.register_step_pre_hook
        held = hook(lambda *_: self.record_gradients((a, a.grad) for a, _ in arrays))
        self.interceptions.callback(held.remove)

    def moments(self, array: Any) -> Mapping[str, Any]:
        state = {} if self.optimizer is None else self.optimizer.state.get(array, {})
        return {KEPT[own]: value for own, value in state.items() if own in KEPT}


class _KerasNetwork(WatchedNetwork):
    kernels = {"conv": "HWIO", "conv_transpose": "HWOI", "dense": "IO"}  # noqa: RUF012
    images, update = "NHWC", "apply"

    @staticmethod
    def layers(network: Any) -> Iterable[Any]:
        return network._flatten_layers()

    @staticmethod
    def arrays_of(layer: Any) -> Iterable[tuple[str, Any]]:
        inner = layer._flatten_layers(include_self=False)
        others = {id(array) for other in inner for array in other.weights}
        return ((array.name, array) for array in layer.weights if id(array) not in others)

    def gradients(self, *given: Any) -> Gradients:
        gradients, *variables = given
        return zip(*(variables or [self.optimizer._trainable_variables]), gradients, strict=True)

    def moments(self, array: Any) -> Mapping[str, Any]:
        if self.optimizer is None or self.optimizer.iterations == 0:
            return {}
        held = {variable.path: variable for variable in self.optimizer.variables}
        path = f"{self.optimizer.name}/{array.path.replace('/', '_')}"
        names = {"m": f"{path}_momentum", "v": f"{path}_velocity"}
        return {ours: held[own] for ours, own in names.items() if own in held}

    def defer(self, name: str, value: Any, layout: str | None) -> None:
        # While a model is built there are shapes alone.
        if not sys.modules["keras"].utils.is_keras_tensor(value):
            run = sys.modules["tensorflow"].py_function
            run(lambda known: self.store(name, known.numpy(), layout), [value], [])


class _FlaxNetwork(WatchedNetwork):
    kernels = {"conv": "HWIO", "conv_transpose": "HWIO", "dense": "IO"}  # noqa: RUF012
    images, update = "NHWC", "update"

    def __init__(self, name: str, network: Any, optimizer: Any, store: Store) -> None:
        self._jax, self._nnx = sys.modules["jax"], sys.modules["flax.nnx"]
        # A gradient and a moment are found by the path of their parameter.
        self._held = dict(self._nnx.iter_graph(network))
        super().__init__(name, network, optimizer, store)

    @staticmethod
    def layers(network: Any) -> Iterable[Any]:
        yield network
        for value in vars(network).values():
            if isinstance(value, sys.modules["flax.nnx"].Module):
                yield from _FlaxNetwork.layers(value)

    @staticmethod
    def arrays_of(layer: Any) -> Iterable[tuple[str, Any]]:
        kind = sys.modules["flax.nnx"].Variable
        held = ((name, value) for name, value in vars(layer).items() if isinstance(value, kind))
        return ((name, array) for name, array in held if array.get_value() is not None)

    def gradients(self, *given: Any) -> Gradients:
        return self._by_parameter(given[1])

    def _by_parameter(self, state: Any) -> Gradients:
        flat = self._nnx.to_flat_state(state)
        return ((self._held.get(path), value.get_value()) for path, value in flat)

    def moments(self, array: Any) -> Mapping[str, Any]:
        if self.optimizer is None or not int(self.optimizer.step[...]):
            return {}
        kept = kept_by_optax(self.optimizer.opt_state).items()
        pairs = {name: self._by_parameter(tree) for name, tree in kept if name != "step"}
        return {n: value for n, all_ in pairs.items() for p, value in all_ if p is array}

    def record_state(self) -> None:
        self._jax.effects_barrier()
        super().record_state()

    def defer(self, name: str, value: Any, layout: str | None) -> None:
        record = self._jax.debug.callback
        record(lambda known: self.store(name, known, layout), value, ordered=True)


NETWORKS: dict[str, type[WatchedNetwork]] = {
    "torch": _PyTorchNetwork,
    "keras": _KerasNetwork,
    "flax": _FlaxNetwork,
}
"""A framework's package → who watches its networks."""


def watched(name: str, network: Any, optimizer: Any, store: Store) -> WatchedNetwork:
    """Watch a network of PyTorch, Keras or Flax NNX; anything else is a InputError."""
    for framework, kind in NETWORKS.items():
        if _is_a(network, framework, "Module", "Layer"):
            if optimizer is None or _is_a(optimizer, framework, "Optimizer"):
                return kind(name, network, optimizer, store)
            text = f"{name!r}: received a {type(optimizer).__name__} as the optimizer"
            expected = f"an Optimizer of {framework}; leave it out and record its state by name"
            raise InputError(f"{text}; expected {expected}")
    raise InputError(
        f"{name!r}: received a {type(network).__name__}; expected a torch.nn.Module, a keras.Layer "
        "or an nnx.Module of Flax; record the tensors of anything else by name"
    )


def _is_a(value: Any, package: str, *names: str) -> bool:
    bases = type(value).__mro__
    return any(b.__module__.split(".")[0] == package and b.__name__ in names for b in bases)
