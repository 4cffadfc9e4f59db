"""The layers of each architecture, as functions of a system's sizes.

Sources: dcgan64 is Radford et al. 2016, figure 1, and its mirror, with layers more or fewer in both
networks for other sizes than 64x64; conv28 is the network of the InfoGAN paper's MNIST experiment
(Chen et al. 2016, appendix C.1) as TensorFlow ports of it have it; mlp28 is the multilayer
perceptron that tutorials train on MNIST.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

from shared.spec.layers import (
    NORMAL_002,
    NORMAL_002_AROUND_ONE,
    ONES,
    TRUNCATED_NORMAL_002,
    UNIFORM_FAN_IN,
    Layer,
    NetworkName,
    batch_norm,
    convolution,
    dense,
)

Layers = tuple[Layer, ...]


class Sizes(Protocol):
    """What the layers depend on: some of the fields of `shared.spec.SystemSpec`."""

    @property
    def width(self) -> int:
        """Channels or features of the narrowest hidden layer."""

    @property
    def channels(self) -> int:
        """Of an image."""

    @property
    def latent_dim(self) -> int:
        """Numbers of one latent."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""

    @property
    def discriminator_head(self) -> str:
        """ "conv" or "linear"."""

    @property
    def loss(self) -> str:
        """Its name."""


def dcgan_widths(spec: Sizes) -> list[int]:
    """Return the channels of DCGAN's hidden layers: `width`, doubled with every halving to 4x4."""
    halvings = range(spec.image_shape[0].bit_length() - 3)  # 64 = 2⁶ pixels: 4 layers
    return [spec.width * 2**i for i in halvings]


def dcgan64_generator(spec: Sizes) -> Layers:
    """Latents → 4x4 → 8x8 → … → the image."""
    features = [spec.latent_dim, *reversed(dcgan_widths(spec)), spec.channels]
    last = len(features) - 1
    layers = [Layer("reshape_0", "reshape", (1, 1, spec.latent_dim))]
    for i, pair in enumerate(pairwise(features), start=1):
        stride, padding = (1, 0) if i == 1 else (2, 1)
        name, size = f"conv_transpose_{i}", 2 ** (i + 1)
        up = convolution(name, "conv_transpose", pair, size, stride=stride, padding=padding)
        layers.append(up)
        if i < last:
            layers.append(batch_norm(f"batch_norm_{i}", up.output_shape, NORMAL_002_AROUND_ONE))
            layers.append(Layer(f"relu_{i}", "relu", up.output_shape))
    layers.append(Layer(f"tanh_{last}", "tanh", spec.image_shape))
    return tuple(layers)


def dcgan64_discriminator(spec: Sizes) -> Layers:
    """The image → … → 8x8 → 4x4 → one score."""
    features = [spec.channels, *dcgan_widths(spec)]
    last, size = len(features), spec.image_shape[0]
    layers: list[Layer] = []
    for i, pair in enumerate(pairwise(features), start=1):
        down = convolution(f"conv_{i}", "conv", pair, size // 2**i)
        layers.append(down)
        if i > 1:
            layers.append(batch_norm(f"batch_norm_{i}", down.output_shape, NORMAL_002_AROUND_ONE))
        layers.append(Layer(f"leaky_relu_{i}", "leaky_relu", down.output_shape))
    if spec.discriminator_head == "conv":
        layers.append(convolution(f"conv_{last}", "conv", (pair[1], 1), 1, stride=1, padding=0))
        layers.append(Layer(f"flatten_{last}", "flatten", (1,)))
    else:
        layers.append(Layer(f"flatten_{last - 1}", "flatten", (16 * pair[1],)))
        layers.append(dense(f"dense_{last}", 16 * pair[1], 1, UNIFORM_FAN_IN))
    return (*layers, *_sigmoid(spec, last))


def conv28_generator(spec: Sizes) -> Layers:
    """Latents → 16·width → 7x7 → 14x14 → 28x28."""
    width = spec.width
    hidden, small = 16 * width, (7, 7, 2 * width)
    up_3 = convolution("conv_transpose_3", "conv_transpose", (2 * width, width), 14, has_bias=True)
    up_4 = convolution(
        "conv_transpose_4", "conv_transpose", (width, spec.channels), 28, has_bias=True
    )
    return (
        dense("dense_1", spec.latent_dim, hidden, NORMAL_002),
        batch_norm("batch_norm_1", (hidden,), ONES),
        Layer("relu_1", "relu", (hidden,)),
        dense("dense_2", hidden, 49 * small[2], NORMAL_002),
        batch_norm("batch_norm_2", (49 * small[2],), ONES),
        Layer("relu_2", "relu", (49 * small[2],)),
        Layer("reshape_2", "reshape", small),
        up_3,
        batch_norm("batch_norm_3", up_3.output_shape, ONES),
        Layer("relu_3", "relu", up_3.output_shape),
        up_4,
        Layer("sigmoid_4", "sigmoid", spec.image_shape),
    )


def conv28_discriminator(spec: Sizes) -> Layers:
    """28x28 → 14x14 → 7x7 → 16·width → one score."""
    width = spec.width
    down_1, down_2 = (
        convolution(
            f"conv_{i}", "conv", pair, size, initializer=TRUNCATED_NORMAL_002, has_bias=True
        )
        for i, pair, size in ((1, (spec.channels, width), 14), (2, (width, 2 * width), 7))
    )
    features, hidden = 49 * 2 * width, 16 * width
    return (
        down_1,
        Layer("leaky_relu_1", "leaky_relu", down_1.output_shape),
        down_2,
        batch_norm("batch_norm_2", down_2.output_shape, ONES),
        Layer("leaky_relu_2", "leaky_relu", down_2.output_shape),
        Layer("flatten_2", "flatten", (features,)),
        dense("dense_3", features, hidden, NORMAL_002),
        batch_norm("batch_norm_3", (hidden,), ONES),
        Layer("leaky_relu_3", "leaky_relu", (hidden,)),
        dense("dense_4", hidden, 1, NORMAL_002),
        *_sigmoid(spec, 4),
    )


def mlp28_generator(spec: Sizes) -> Layers:
    """Latents → width → 2·width → 28x28."""
    pixels = 28 * 28 * spec.channels
    return (
        dense("dense_1", spec.latent_dim, spec.width, UNIFORM_FAN_IN),
        Layer("relu_1", "relu", (spec.width,)),
        dense("dense_2", spec.width, 2 * spec.width, UNIFORM_FAN_IN),
        Layer("relu_2", "relu", (2 * spec.width,)),
        dense("dense_3", 2 * spec.width, pixels, UNIFORM_FAN_IN),
        Layer("tanh_3", "tanh", (pixels,)),
        Layer("reshape_3", "reshape", spec.image_shape),
    )


def mlp28_discriminator(spec: Sizes) -> Layers:
    """28x28 → 2·width → width → one score."""
    pixels = 28 * 28 * spec.channels
    return (
        Layer("flatten_0", "flatten", (pixels,)),
        dense("dense_1", pixels, 2 * spec.width, UNIFORM_FAN_IN),
        Layer("relu_1", "relu", (2 * spec.width,)),
        dense("dense_2", 2 * spec.width, spec.width, UNIFORM_FAN_IN),
        Layer("relu_2", "relu", (spec.width,)),
        dense("dense_3", spec.width, 1, UNIFORM_FAN_IN),
        *_sigmoid(spec, 3),
    )


def _sigmoid(spec: Sizes, number: int) -> Layers:
    """End a discriminator in a probability where the loss takes one."""
    ends_in_sigmoid = spec.loss == "bce_probs"
    return (Layer(f"sigmoid_{number}", "sigmoid", (1,)),) if ends_in_sigmoid else ()


IMAGE_SIZES = {"dcgan64": (32, 64, 128, 256), "conv28": (28,), "mlp28": (28,)}
"""Every architecture, and the sizes of the square images that it can make."""

BUILDERS: dict[tuple[str, NetworkName], Callable[[Sizes], Layers]] = {
    ("dcgan64", "generator"): dcgan64_generator,
    ("dcgan64", "discriminator"): dcgan64_discriminator,
    ("conv28", "generator"): conv28_generator,
    ("conv28", "discriminator"): conv28_discriminator,
    ("mlp28", "generator"): mlp28_generator,
    ("mlp28", "discriminator"): mlp28_discriminator,
}
