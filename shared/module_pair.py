"""What the `ModulePair` of each framework shares: anybody's modules as the layers of a system."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from shared.framework_adapter import FrameworkAdapter, canonical_arrays, intercepted, kind_of
from shared.interface import Array, Arrays, State
from shared.spec import NETWORKS, AdamSpec, NetworkName, OptimizerSpec, SystemSpec
from shared.spec.entries import WEIGHTED, entries_from
from shared.spec.layers import NORMAL_002_AROUND_ONE
from shared.spec.optimizers import OPTIMIZERS, AdamWSpec, optimizer_from_dict, optimizer_to_dict
from shared.spec.state_arrays import flattened_pixels, state_shapes
from shared.watched import NETWORKS as WATCHED

Shape = tuple[int, ...]
_SETTINGS = {"lr": "learning_rate", "alpha": "decay", "rho": "decay", "eps": "epsilon"}
_SETTINGS |= {"b1": "beta1", "beta_1": "beta1", "b2": "beta2", "beta_2": "beta2"}
_SETTINGS |= {"centered": "centred", "eps_in_sqrt": "epsilon_inside_root"}
_SETTINGS |= {"clipvalue": "clip_value", "clipnorm": "clip_norm_of_each"}
_SETTINGS |= {"global_clipnorm": "clip_norm", "max_norm": "clip_norm", "max_delta": "clip_value"}
"""What the frameworks call a setting of an optimizer → what a system file calls it."""
_OTHERS = "weight_decay", "momentum", "nesterov", "dampening", "maximize", "amsgrad", "eps_root"
"""What an optimizer of a framework may have, and that of a file has not."""


@dataclass
class Call:
    """A layer that a network has called.

    `fields`: what a system file has of it beside its `arrays`, which are by their canonical names
    and in their layouts. Input and output are NHWC or [batch, features].
    """

    layer: Any
    fields: dict[str, Any]
    arrays: Arrays
    x: Array
    y: Array


class PairAdapter(FrameworkAdapter):
    """Two modules and, where given, an optimizer of each and a step (see `FrameworkAdapter`).

    `latent_shape` is that of the generator's input without the batch, such as (100, 1, 1). A
    framework has `copied`, which returns copies of all in a dtype with networks that are called as
    ours are; `run`, what such a network makes of an array, which leaves it as it is; `settings`, an
    optimizer's by the framework's names, its `kind` among them; `name_layers`, which gives the
    layers of a network the system's names; and `state_of` those copies.
    """

    copied: Callable[[str], Sequence[Any]]
    run: Callable[..., Any]
    settings: Callable[[Any], dict[str, Any]]
    name_layers: Callable[[Any, dict[str, Any]], None]
    package: str
    create_adam: Callable[..., Any]
    state_of: Callable[..., State]
    conventions: ClassVar[Mapping[str, str]] = {}
    usual_initializer: str

    def __init__(
        self,
        generator: Any,
        discriminator: Any,
        generator_optimizer: Any = None,
        discriminator_optimizer: Any = None,
        *,
        latent_shape: Shape,
        step: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(step=step)
        self.parts = generator, discriminator, generator_optimizer, discriminator_optimizer
        self.latent_shape = latent_shape
        given = zip(NETWORKS, self.parts[2:], strict=True)
        self.optimizers = {name: _optimizer(self.settings(own)) for name, own in given if own}
        if self.optimizers:
            vars(self)["adam"] = None  # which is ours

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        """Return a training state of copies of the modules with their own weights.

        Raises ValueError that names the first layer in which they are not the system's, or an
        optimizer of another kind.
        """
        for name, (own, _) in self.optimizers.items():
            wanted = getattr(spec, f"{name}_optimizer")
            if type(own) is not type(wanted) and {type(own), type(wanted)} != {AdamSpec, AdamWSpec}:
                raise ValueError(f"{name}: the system has {wanted}, the module {own}; correct one")
        with self.computing_in(dtype):
            parts, x = self.copied(dtype), np.zeros((2, spec.latent_dim), dtype)
            adams = []
            for name, network, own in zip(NETWORKS, parts, parts[2:], strict=False):
                for layer in WATCHED[self.package].layers(network):
                    if kind_of(type(layer)).startswith("dropout"):
                        layer.p = layer.rate = 0.0
                calls, x = self.calls(network, x)
                named = _named(spec, name, calls).items()
                self.name_layers(network, {layer: call.layer for layer, call in named})
                adams.append(own or self.create_adam(network, spec.adam(name)))
            return self.state_of(spec, dtype, *parts[:2], *adams)

    def export_state(self, state: State) -> Arrays:
        """Return the whole state; what an optimizer does not keep is as it was imported."""
        fresh = {n: np.zeros(s, state.compute.dtype) for n, s in state_shapes(state.spec).items()}
        return fresh | getattr(state, "unused", {}) | super().export_state(state)

    def import_state(self, state: State, arrays: Arrays) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
        super().import_state(state, arrays)
        state.unused = arrays

    def calls(self, network: Any, x: Array, training: bool = False) -> tuple[list[Call], Array]:
        """Return the layers that a network calls on latents or images, and its output."""
        found: list[Call] = []
        watching = WATCHED[self.package]

        def keep(layer: Any, own: dict, call: Callable, x: Any, *given: Any, **named: Any) -> Any:
            activation = getattr(layer, "activation", None)
            if activation:  # Keras', which is a layer of its own to us
                layer.activation = None
            y = call(x, *given, **named)
            weights = canonical_arrays(own["kind"], watching.arrays_of(layer))
            arrays = {name: self.canonical(array) for name, array in weights.items()}
            given_and_made = self.output_to_numpy(x), self.output_to_numpy(y)
            found.append(Call(layer, own, arrays, *given_and_made))
            if activation:
                layer.activation = activation
            return activation(y) if activation else y

        with ExitStack() as stack:
            for layer in {id(layer): layer for layer in watching.layers(network)}.values():
                if fields := self.fields_of(layer):
                    stack.enter_context(intercepted(layer, partial(keep, layer, fields)))
            output = self.run(network, x, training)
        return found, self.output_to_numpy(output)

    def fields_of(self, layer: Any) -> dict[str, Any]:
        """Return what a system file has of a layer beside its arrays, {} of an unknown one."""
        own = next(b for b in type(layer).__mro__ if b.__module__.split(".")[0] == self.package)
        kind = kind_of(own).removesuffix("2d").replace("pooling", "pool")
        kind = kind.replace("avg", "average").replace("adaptive", "global")  # PyTorch's names
        if kind.startswith("dropout"):
            return {"kind": "dropout", "rate": getattr(layer, "rate", getattr(layer, "p", 0.0))}
        if kind.startswith(("upsampl", "up_sampl")):
            mode = getattr(layer, "mode", getattr(layer, "interpolation", ""))
            size, *_ = np.ravel(getattr(layer, "scale_factor", layer.size))
            aligned = bool(getattr(layer, "align_corners", False))
            return {"kind": f"upsample_{mode}", "size": int(size), "aligned_corners": aligned}
        if kind == "batch_norm":
            if self.package == "torch":
                return {"kind": kind, "epsilon": layer.eps, "momentum": layer.momentum}
            weight = round(1 - layer.momentum, 12)
            return {"kind": kind, "epsilon": layer.epsilon, "momentum": weight}
        if kind not in (*WEIGHTED, "average_pool", "max_pool", "global_average_pool"):
            return {}
        names = ["kernel_size", "pool_size", "stride", "strides", "padding"]
        held = ((n.split("_")[-1].rstrip("s"), v) for n, v in vars(layer).items() if n in names)
        plain = {n: v[0] if isinstance(v, tuple | list) else v for n, v in held}
        plain |= {n: v.lower() for n, v in plain.items() if isinstance(v, str)}
        if self.package == "torch" and any(getattr(layer, "output_padding", ())):
            plain["padding"] = plain["padding"], plain["padding"] - layer.output_padding[0]
        return {"kind": kind} | {n: v for n, v in plain.items() if v not in (0, None, "valid")}

    def canonical(self, tensor: Any) -> Array:
        """Return a framework's tensor in the canonical layout."""
        return self.to_numpy(tensor)

    def activations(
        self, state: State, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer with weights makes of the inputs, but features of pixels."""
        with self.computing_in(state.compute.dtype):
            calls, _ = self.calls(getattr(self.modules(state), network), inputs, training)
        found, pixels = _named(state.spec, network, calls), flattened_pixels(state.spec)
        return {n: call.y for n, call in found.items() if f"{network}/{n}/bias" not in pixels}

    def system_file(self) -> str:
        """Return what can be read off the modules as a system file, to be corrected.

        Activations are known by what they make of numbers, whichever way they are written.
        """
        latent_dim = math.prod(self.latent_shape)
        x = np.random.default_rng(0).standard_normal((2, latent_dim))
        layers, images, laws, usual = {}, x, {}, {"distribution": self.usual_initializer}
        with self.computing_in("float64"):
            for name, network in zip(NETWORKS, self.copied("float64"), strict=False):
                calls, y = self.calls(network, x)
                layers[name], x = _entries(calls, x, y), y
                spreads = [np.std(c.arrays["kernel"]) for c in calls if "kernel" in c.arrays]
                is_dcgans = all(0.015 < spread < 0.025 for spread in spreads)
                laws[name] = {"distribution": "normal", "scale": 0.02} if is_dcgans else usual
                images = y if y.ndim == 4 else images
        squashed = {n: {"kind": "sigmoid"} in entries[-2:] for n, entries in layers.items()}
        has_adam = any(isinstance(own, AdamSpec) for own, _ in self.optimizers.values())
        kinds = str(layers)
        used = {"adam": has_adam, "batch": "batch_norm" in kinds, "leaky": "leaky_relu" in kinds}
        own = {n: x for n, x in self.conventions.items() if used[n.partition("_")[0]]}
        head = {
            "name": "mine",
            "image_size": images.shape[1],
            "channels": images.shape[3],
            "latent_dim": latent_dim,
            "image_range": [0 if squashed["generator"] else -1, 1],
            "loss": "bce_probs" if squashed["discriminator"] else "bce",
        } | ({"conventions": own} if own else {})
        lines = [
            "# Read off two modules: correct it. The step is not, and of initial weights",
            f"# whether they are DCGAN's or the usual {self.usual_initializer}.",
            *(f"{name} = {_in_toml(value)}" for name, value in head.items()),
        ]
        for name, entries in layers.items():
            shown = [e if isinstance(e, str) else f"{_in_toml(e)}," for e in entries]
            lines += ["", f"[{name}]", f"initializer = {_in_toml(laws[name])}"]
            if name in self.optimizers:
                optimizer, others = self.optimizers[name]
                lines += [f"optimizer = {_in_toml(optimizer_to_dict(optimizer))}"]
                lines += [f"# its {n} = {x}: no field holds it" for n, x in others.items()]
            lines += ["layers = [", *(f"  {line}" for line in shown), "]"]
        return "\n".join(lines) + "\n"


def _optimizer(given: dict[str, Any]) -> tuple[OptimizerSpec, dict[str, Any]]:
    """Return an optimizer as a system file has it, and what of it no file can hold.

    ValueError for an optimizer that a file has none of.
    """
    own = {_SETTINGS.get(name, name): value for name, value in given.items() if value is not None}
    if own["kind"] == "adam" and own.pop("amsgrad", False):
        own["kind"] = "amsgrad"
    if own["kind"] == "adamw":
        own["decay"] = own.pop("weight_decay")
    if own["kind"] not in OPTIMIZERS:
        kinds = ", ".join(OPTIMIZERS)
        raise ValueError(f"received {own['kind']}; expected {kinds}, or None for the file's")
    if {"clip_norm", "clip_norm_of_each"} & own.keys():
        own["clip_epsilon"] = 0.0  # in all but PyTorch, whose optimizers do not clip
    known = {field.name for field in dataclasses.fields(OPTIMIZERS[own["kind"]])} | {"kind"}
    others = {name: own[name] for name in _OTHERS if name not in known and own.get(name)}
    return optimizer_from_dict({name: own[name] for name in own.keys() & known}), others


def _named(spec: SystemSpec, network: NetworkName, calls: Sequence[Call]) -> dict[str, Call]:
    """Return the calls that have weights by the names of the system's layers."""
    layers = [layer for layer in spec.layers(network) if layer.parameters]
    own = [call for call in calls if call.arrays]
    wanted = [_text(x.kind, {p.name: p.shape for p in x.parameters}) for x in layers]
    received = [_text(x.fields["kind"], {n: a.shape for n, a in x.arrays.items()}) for x in own]
    for i in range(max(len(wanted), len(received))):
        both = [texts[i] if i < len(texts) else "nothing" for texts in (wanted, received)]
        if both[0] != both[1]:
            name = layers[i].name if i < len(layers) else "after the last layer"
            text = f"the system has {both[0]}, the module calls {both[1]}; correct one of the two"
            raise ValueError(f"{network}, {name}: {text}")
    return {layer.name: call for layer, call in zip(layers, own, strict=True)}


def _text(kind: str, shapes: Mapping[str, Shape]) -> str:
    sizes = (f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items()))
    return f"{kind} ({', '.join(sizes)})"


def _entries(calls: Sequence[Call], x: Array, y: Array) -> list[dict[str, Any] | str]:
    """Return the layers of a network from its calls, its input and its output."""
    found: list[dict[str, Any] | str] = []
    for call in calls:
        found += _between(x, call.x)
        fields = dict(call.fields)
        if "kernel" in call.arrays:
            axis = -2 if fields["kind"] == "conv_transpose" else -1
            features = call.arrays["kernel"].shape[axis]
            fields |= {"features": features, "bias": "bias" in call.arrays}
        elif fields["kind"] == "batch_norm":
            fields |= {name: name in call.arrays for name in ("scale", "bias")}
            if np.any(call.arrays.get("scale", 1.0) != 1.0):
                fields["initializer"] = dataclasses.asdict(NORMAL_002_AROUND_ONE)
        (entry,) = entries_from([fields])
        found.append(entry.to_dict())
        x = call.y
    return found + _between(x, y)


def _between(y: Array, x: Array) -> list[dict[str, Any] | str]:
    """Return the layers without weights that make `x` of `y`, a line of TOML where unknown."""
    shape: list[Any] = [{"kind": "flatten"}] if y.ndim == 4 and x.ndim < 4 else []
    if y.ndim == 2 and x.ndim == 4:
        shape = [{"kind": "reshape", "size": x.shape[1]}]
    # Activations keep the order of numbers, so that of pixels in a flattened image is no matter.
    before, after = np.sort(y, axis=None), np.sort(x, axis=None)
    if y.size != x.size or (y.ndim == x.ndim and y.shape != x.shape):
        return _resized(y, x)
    if np.allclose(before, after, rtol=1e-9, atol=0):
        return shape
    slope = float(after[0] / before[0])
    candidates = {
        "relu": np.maximum(before, 0),
        "tanh": np.tanh(before),
        "sigmoid": 1 / (1 + np.exp(-before)),
        "leaky_relu": np.where(before > 0, before, slope * before),
    }
    for kind, expected in candidates.items():
        if np.allclose(after, expected, 1e-6, 1e-12):
            own = {"slope": round(slope, 6)} if kind == "leaky_relu" else {}
            return [*shape, {"kind": kind, **own}]
    return [*shape, "# here the module computes something: write what"]


def _resized(y: Array, x: Array) -> list[dict[str, Any] | str]:
    """Return what makes `x` of pixels `y`: windows of a pool side by side, or each repeated."""
    ways: list[tuple[list[dict[str, Any] | str], Array]] = []
    if y.ndim == x.ndim == 4 and y.size < x.size:
        size = x.shape[1] // y.shape[1]
        ways = [([{"kind": "upsample_nearest", "size": size}], y.repeat(size, 1).repeat(size, 2))]
    elif y.ndim == 4 and (size := math.isqrt(y.size // x.size)) > 1 and not y.shape[1] % size:
        windows = y.reshape(len(y), y.shape[1] // size, size, y.shape[2] // size, size, -1)
        above, below = (f(windows, 0.0).mean((2, 4)) for f in (np.maximum, np.minimum))
        slope = (x.sum() - above.sum()) / (below.sum() or 1.0)  # of an activation before
        leaky = {"kind": "leaky_relu", "slope": round(float(slope), 6)}
        bent = leaky if leaky["slope"] else {"kind": "relu"}
        average: dict[str, Any] = {"kind": "average_pool", "size": size}
        ways = [([{"kind": "max_pool", "size": size}], windows.max((2, 4)))]
        ways += [([average], above + below), ([bent, average], above + slope * below)]
    for layers, made in ways:
        after = _between(made, x) if made.size == x.size else [""]
        if str not in map(type, after):
            return layers + after
    return [f"# {y.shape} becomes {x.shape}: write how"]


def _in_toml(value: Any) -> str:
    """Return a value in one line of TOML, which has all but tables as JSON has them."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return f"{{ {', '.join(f'{name} = {_in_toml(x)}' for name, x in value.items())} }}"
