"""Who watches a network of which framework.

None is imported: who has a network of one has imported it. PyTorch has hooks. In Keras `call` of
each layer and `apply` of the optimizer are replaced, of these objects alone. In Flax they get
classes of their own, because within `nnx.jit` they are other objects of the same class.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from shared.files.recording import RecordingError
from shared.watched.network import End, Gradients, OnCall, Store, WatchedNetwork


class _PyTorchNetwork(WatchedNetwork):
    kernels = {"conv": "OIHW", "conv_transpose": "IOHW", "dense": "OI"}  # noqa: RUF012
    images = "NCHW"

    def layers(self, network: Any) -> Iterable[Any]:
        return network.modules()

    def arrays_of(self, layer: Any) -> Iterable[tuple[str, Any]]:
        yield from layer.named_parameters(recurse=False)
        buffers = layer.named_buffers(recurse=False)
        yield from ((name, held) for name, held in buffers if name != "num_batches_tracked")

    def on_call(self, layer: Any, record: OnCall) -> End:
        def hook(_: Any, given: tuple[Any, ...], returned: Any) -> None:
            record(given[0] if given else None, returned)

        return layer.register_forward_hook(hook).remove

    def on_update(self, record: Callable[[Gradients], None]) -> End:
        def hook(optimizer: Any, *_: Any) -> None:
            record((p, p.grad) for group in optimizer.param_groups for p in group["params"])

        return self.optimizer.register_step_pre_hook(hook).remove

    def moments(self, array: Any) -> Mapping[str, Any]:
        state = {} if self.optimizer is None else self.optimizer.state.get(array, {})
        names = {"m": "exp_avg", "v": "exp_avg_sq"}
        return {ours: state[own] for ours, own in names.items() if own in state}


class _KerasNetwork(WatchedNetwork):
    kernels = {"conv": "HWIO", "conv_transpose": "HWOI", "dense": "IO"}  # noqa: RUF012
    images = "NHWC"

    def layers(self, network: Any) -> Iterable[Any]:
        return network._flatten_layers()

    def arrays_of(self, layer: Any) -> Iterable[tuple[str, Any]]:
        inner = layer._flatten_layers(include_self=False)
        others = {id(array) for other in inner for array in other.weights}
        return ((array.name, array) for array in layer.weights if id(array) not in others)

    def on_call(self, layer: Any, record: OnCall) -> End:
        call = layer.call

        def recorded(given: Any, *rest: Any, **named: Any) -> Any:
            returned = call(given, *rest, **named)
            record(given, returned)
            return returned

        layer.call = recorded
        return partial(delattr, layer, "call")

    def on_update(self, record: Callable[[Gradients], None]) -> End:
        apply = self.optimizer.apply

        def recorded(gradients: Any, variables: Any = None) -> Any:
            gradients = list(gradients)
            known = variables or self.optimizer._trainable_variables
            record(zip(known, gradients, strict=True))
            return apply(gradients, variables)

        self.optimizer.apply = recorded
        return partial(delattr, self.optimizer, "apply")

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
    images = "NHWC"

    def layers(self, network: Any) -> Iterable[Any]:
        self._jax, self._nnx = sys.modules["jax"], sys.modules["flax.nnx"]
        # A gradient and a moment are found by the path of their parameter.
        self._held = dict(self._nnx.iter_graph(network))
        return self._layers(network)

    def _layers(self, network: Any) -> Iterator[Any]:
        yield network
        for value in list(vars(network).values()):
            if isinstance(value, self._nnx.Module):
                yield from self._layers(value)

    def arrays_of(self, layer: Any) -> Iterable[tuple[str, Any]]:
        held = ((name, v) for name, v in vars(layer).items() if isinstance(v, self._nnx.Variable))
        return ((name, array) for name, array in held if array.get_value() is not None)

    def on_call(self, layer: Any, record: OnCall) -> End:
        kind = type(layer)

        def recorded(self: Any, given: Any, *rest: Any, **named: Any) -> Any:
            returned = kind.__call__(self, given, *rest, **named)
            record(given, returned)
            return returned

        return _with_method(layer, "__call__", recorded)

    def on_update(self, record: Callable[[Gradients], None]) -> End:
        kind, by_parameter = type(self.optimizer), self._by_parameter

        def recorded(self: Any, network: Any, gradients: Any, **named: Any) -> Any:
            record(by_parameter(gradients))
            return kind.update(self, network, gradients, **named)

        return _with_method(self.optimizer, "update", recorded)

    def _by_parameter(self, state: Any) -> Gradients:
        flat = self._nnx.to_flat_state(state)
        return ((self._held[path], value.get_value()) for path, value in flat)

    def moments(self, array: Any) -> Mapping[str, Any]:
        leaves, state = self._jax.tree.leaves, getattr(self.optimizer, "opt_state", ())
        for adam in leaves(state, is_leaf=lambda held: hasattr(held, "mu")):
            if hasattr(adam, "mu") and any(leaves(adam.count)):
                pairs = {"m": self._by_parameter(adam.mu), "v": self._by_parameter(adam.nu)}
                return {n: value for n, all_ in pairs.items() for p, value in all_ if p is array}
        return {}

    def record_state(self) -> None:
        self._jax.effects_barrier()
        super().record_state()

    def defer(self, name: str, value: Any, layout: str | None) -> None:
        record = self._jax.debug.callback
        record(lambda known: self.store(name, known, layout), value, ordered=True)


def _with_method(held: Any, name: str, method: Callable) -> End:
    """Give an object a class of its own: within `nnx.jit` it is another object of that class."""
    kind = type(held)
    held.__class__ = type(kind.__name__, (kind,), {name: method})
    return partial(setattr, held, "__class__", kind)


NETWORKS: dict[str, tuple[str, type[WatchedNetwork]]] = {
    "torch": ("Module", _PyTorchNetwork),
    "keras": ("Layer", _KerasNetwork),
    "flax": ("Module", _FlaxNetwork),
}
"""A framework's package → its class of all networks, and who watches them."""


def watched(name: str, network: Any, optimizer: Any, store: Store) -> WatchedNetwork:
    """Watch a network of PyTorch, Keras or Flax NNX; anything else is a RecordingError."""
    for framework, (base, kind) in NETWORKS.items():
        if _is_a(network, framework, base):
            if optimizer is None or _is_a(optimizer, framework, "Optimizer"):
                return kind(name, network, optimizer, store)
            raise RecordingError(
                f"{name!r}: received a {type(optimizer).__name__} as the optimizer; expected an "
                f"Optimizer of {framework}; leave it out and record its state by name"
            )
    raise RecordingError(
        f"{name!r}: received a {type(network).__name__}; expected a torch.nn.Module, a keras.Layer "
        "or an nnx.Module of Flax; record the tensors of anything else by name"
    )


def _is_a(value: Any, package: str, name: str) -> bool:
    bases = type(value).__mro__
    return any((b.__module__.split(".")[0], b.__name__) == (package, name) for b in bases)
