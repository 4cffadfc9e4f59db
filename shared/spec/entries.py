"""A network as a list of layers, ours or anybody's: its shapes are found layer by layer.

`LayerEntry` is a layer as a system file has it (shared/files/system.schema.json); `network_layers`
makes each `Layer` of a list of them, for images and latents of any size.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from shared.spec.layers import (
    NORMAL_002,
    ONES,
    UNIFORM_FAN_IN,
    ZEROS,
    Initializer,
    Layer,
    LayerKind,
    Padding,
    Parameter,
    sides,
    sized,
)

Shape = tuple[int, ...]
ELEMENTWISE = ("relu", "leaky_relu", "tanh", "sigmoid", "dropout")
WEIGHTED = ("conv", "conv_transpose", "dense")
_INITIALIZERS = ("initializer", "bias_initializer")
MAXIMUM_NUMBERS = 2**31
"""Most numbers in one parameter or in one image's activations: more would fill the memory."""


@dataclass(frozen=True)
class LayerEntry:
    """One layer of a system file; a field that its kind does not have stays at its default.

    `size`: of a kernel or a pooling's window, the factor of an upsampling, the side of the image
    that a reshape makes. `padding` "same" gives ceil(pixels / stride) pixels, of a conv transpose
    pixels · stride, as TensorFlow and JAX do. A pooling's stride is its size unless it is given.
    """

    kind: LayerKind
    name: str = ""
    features: int = 0
    size: int = 0
    stride: int = 0
    padding: Padding | Literal["same"] = 0
    bias: bool = True
    scale: bool = True
    epsilon: float | None = None
    momentum: float | None = None
    slope: float | None = None
    rate: float = 0.0
    aligned_corners: bool = False
    initializer: Initializer | None = None
    bias_initializer: Initializer | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what is not at its default as plain JSON data."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: value for name, value in vars(self).items() if value != defaults[name]}
        given |= {n: dataclasses.asdict(given[n]) for n in _INITIALIZERS if n in given}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


def entries_from(data: Iterable[dict[str, Any]]) -> tuple[LayerEntry, ...]:
    """Return the layers of `LayerEntry.to_dict`, or of a system file that keeps to the schema."""
    entries = []
    for fields in data:
        given: dict[str, Any] = fields | {n: tuple(v) for n, v in fields.items() if type(v) is list}
        given |= {n: Initializer(**given[n]) for n in _INITIALIZERS if n in given}
        entries.append(LayerEntry(**given))
    return tuple(entries)


def narrowest(entries: Iterable[LayerEntry]) -> int:
    """Return the features of the narrowest hidden layer of a network; 1 where none is hidden."""
    features = [entry.features for entry in entries if entry.kind in WEIGHTED]
    return min(features[:-1], default=1)


def network_layers(
    entries: tuple[LayerEntry, ...],
    shape: Shape,
    expected: Shape,
    part: Fraction,
    most: float = MAXIMUM_NUMBERS,
) -> tuple[Layer, ...]:
    """Return the layers of a network from an input of a shape to an expected output.

    Hidden layers have `part` of the features given, no array more than `most` numbers. Raises
    ValueError that names the layer for shapes that do not fit, two layers of one name, and parts
    that are not whole.
    """
    last = max((i for i, e in enumerate(entries) if e.kind in WEIGHTED), default=-1)
    layers: list[Layer] = []
    block = 0
    for number, given in enumerate(entries):
        block += given.kind in WEIGHTED
        usual = f"{given.kind}_{block}"
        taken = sum(layer.name.startswith(usual) for layer in layers)
        name = given.name or (f"{usual}_{taken + 1}" if taken else usual)
        features = given.features * (1 if number == last else part)
        try:
            if name in (layer.name for layer in layers):
                raise ValueError("another layer has this name; expected each only once")
            if features != int(features):
                raise ValueError(f"{part} of its features is no whole number; take another width")
            layer = _layer(dataclasses.replace(given, name=name, features=int(features)), shape)
            sizes = [math.prod(p.shape) for p in layer.parameters]
            if max(math.prod(layer.output_shape), *sizes, 0) > most:
                raise ValueError(f"expected at most {most:,} numbers in an array")
        except ValueError as error:
            raise ValueError(f"layer {number + 1}, {name}: {error}") from error
        layers.append(layer)
        shape = layer.output_shape
    if shape != expected:
        raise ValueError(f"its last layer makes {_text(shape)}; expected {_text(expected)}")
    return tuple(layers)


def _layer(e: LayerEntry, shape: Shape) -> Layer:
    """Return a layer for inputs of a shape."""
    made = _shaped(e, shape)
    own = {name: getattr(e, name) for name in ("slope", "epsilon", "momentum", "rate")}
    kept = tuple(p for p in made.parameters if getattr(e, p.name, True))  # e.bias and e.scale
    return dataclasses.replace(made, parameters=kept, aligned_corners=e.aligned_corners, **own)


def _shaped(e: LayerEntry, shape: Shape) -> Layer:
    """Return a layer with every parameter that its kind may have."""
    if e.kind == "dense":
        _require(len(shape) == 1, "features; flatten them before", shape)
        return Layer(e.name, e.kind, (e.features,), _weights(e, (shape[0], e.features), shape[0]))
    if e.kind == "batch_norm":
        features = shape[-1:]
        scale = Parameter("scale", features, e.initializer or ONES, fan_in=1)
        bias = Parameter("bias", features, e.bias_initializer or ZEROS, fan_in=1)
        mean = Parameter("mean", features, ZEROS, fan_in=1, trainable=False)
        variance = Parameter("var", features, ONES, fan_in=1, trainable=False)
        return Layer(e.name, e.kind, shape, (scale, bias, mean, variance))
    if e.kind in ELEMENTWISE:
        return Layer(e.name, e.kind, shape)
    if e.kind == "flatten":
        return Layer(e.name, e.kind, (math.prod(shape),))
    if e.kind == "reshape":
        pixels, numbers = e.size**2, math.prod(shape)
        _require(numbers % pixels == 0, f"a multiple of {pixels} numbers", shape)
        return Layer(e.name, e.kind, (e.size, e.size, numbers // pixels))
    _require(len(shape) == 3, "an image; reshape them before", shape)
    if e.kind == "global_average_pool":
        return Layer(e.name, e.kind, shape[2:])
    size, channels = e.size or 1, shape[2]
    stride = e.stride or (size if e.kind in ("average_pool", "max_pool") else 1)
    pixels, padding = _resized(e, shape, stride)
    if e.kind in WEIGHTED:
        # HWIO for conv and HWOI for conv-transpose.
        last_two = (channels, e.features) if e.kind == "conv" else (e.features, channels)
        # PyTorch takes a conv transpose's OUT features for its fan-in, also in its default.
        inputs = last_two[0] if e.initializer == UNIFORM_FAN_IN else channels
        weights = _weights(e, (size, size, *last_two), size * size * inputs)
        return Layer(e.name, e.kind, (pixels, pixels, e.features), weights, stride, padding)
    return Layer(e.name, e.kind, (pixels, pixels, channels), (), stride, padding, size)


def _weights(e: LayerEntry, shape: Shape, fan_in: int) -> tuple[Parameter, Parameter]:
    """Return kernel and bias, which starts as a kernel of PyTorch's default does, else at 0."""
    initializer = e.initializer or NORMAL_002
    of_bias = initializer if initializer == UNIFORM_FAN_IN else ZEROS
    bias = Parameter("bias", (e.features,), e.bias_initializer or of_bias, fan_in)
    return Parameter("kernel", shape, sized(initializer, shape, fan_in), fan_in), bias


def _resized(e: LayerEntry, shape: Shape, stride: int) -> tuple[int, Padding]:
    """Return how many pixels a side of a layer's output has, and its padding in numbers."""
    pixels, window = shape[0], e.size or 1
    if e.kind.startswith("upsample"):
        return pixels * e.size, 0
    if e.kind == "conv_transpose":
        full = stride * (pixels - 1) + window
        padding = _halves(full - stride * pixels) if e.padding == "same" else e.padding
        size = full - sum(sides(padding))
    else:
        wanted = -(-pixels // stride)
        missing = max(stride * (wanted - 1) + window - pixels, 0)
        padding = _halves(missing) if e.padding == "same" else e.padding
        size = (pixels + sum(sides(padding)) - window) // stride + 1
        _require(min(sides(padding)) >= 0, "a padding of at least 0", sides(padding))
        if e.kind == "average_pool" and any(sides(padding)):
            raise ValueError("average pooling has no padding; expected sizes that fit")
    _require(size >= 1, f"an image of at least {window} pixels with its padding", shape)
    return size, padding


def _halves(missing: int) -> Padding:
    """Return padding before and after, as SAME has it: the odd one, or all that is added, after."""
    before = max(missing // 2, 0)
    after = missing - before
    return before if before == after else (before, after)


def ended_for(loss: str, entries: tuple[LayerEntry, ...]) -> tuple[LayerEntry, ...]:
    """Return a discriminator's layers with the sigmoid that its loss takes, or without one.

    bce_probs takes probabilities, bce and minimax logits; lsgan takes any scores.
    """
    ends_in_sigmoid = bool(entries) and entries[-1].kind == "sigmoid"
    if loss == "bce_probs" and not ends_in_sigmoid:
        return (*entries, LayerEntry("sigmoid"))
    return entries[:-1] if ends_in_sigmoid and loss in ("bce", "minimax") else entries


def _require(holds: bool, expected: str, received: Shape) -> None:
    if not holds:
        raise ValueError(f"expected {expected}, received {_text(received)}")


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))
