"""The layers of each architecture: `shared.spec.entries` finds their names, shapes and parameters.

Sources: dcgan64 is Radford et al. 2016, figure 1, and its mirror, with layers more or fewer in both
networks for other sizes than 64x64; conv28 is the network of the InfoGAN paper's MNIST experiment
(Chen et al. 2016, appendix C.1) as TensorFlow ports of it have it; mlp28 is the multilayer
perceptron that tutorials train on MNIST.
"""

from functools import partial

from shared.spec.entries import LayerEntry
from shared.spec.layers import NORMAL_002_AROUND_ONE, TRUNCATED_NORMAL_002, UNIFORM_FAN_IN

Entries = tuple[LayerEntry, ...]

IMAGE_SIZES = {"dcgan64": (32, 64, 128, 256), "conv28": (28,), "mlp28": (28,)}
"""Every architecture, and the sizes of the square images that it can make."""

DOWN = partial(LayerEntry, "conv", size=4, stride=2, padding=1)
UP = partial(LayerEntry, "conv_transpose", size=4, stride=2, padding=1)
DENSE = partial(LayerEntry, "dense")
RELU, LEAKY_RELU = LayerEntry("relu"), LayerEntry("leaky_relu")
TANH, SIGMOID = LayerEntry("tanh"), LayerEntry("sigmoid")
BATCH_NORM, FLATTEN = LayerEntry("batch_norm"), LayerEntry("flatten")


def dcgan_widths(width: int, image_size: int) -> list[int]:
    """Return the channels of DCGAN's hidden layers: `width`, doubled with every halving to 4x4."""
    halvings = range(image_size.bit_length() - 3)  # 64 = 2⁶ pixels: 4 layers
    return [width * 2**i for i in halvings]


def dcgan64(width: int, channels: int, image_size: int, head: str) -> tuple[Entries, Entries]:
    """Latents → 4x4 → 8x8 → … → the image; the image → … → 8x8 → 4x4 → one score."""
    widths = dcgan_widths(width, image_size)
    normalized = LayerEntry("batch_norm", initializer=NORMAL_002_AROUND_ONE)
    first = LayerEntry("conv_transpose", features=widths[-1], size=4, bias=False)
    generator = [LayerEntry("reshape", size=1), first, normalized, RELU]
    for features in widths[-2::-1]:
        generator += [UP(features=features, bias=False), normalized, RELU]
    generator += [UP(features=channels, bias=False), TANH]

    discriminator = [DOWN(features=width, bias=False), LEAKY_RELU]
    for features in widths[1:]:
        discriminator += [DOWN(features=features, bias=False), normalized, LEAKY_RELU]
    if head == "conv":
        discriminator += [LayerEntry("conv", features=1, size=4, bias=False), FLATTEN]
    else:
        discriminator += [FLATTEN, DENSE(features=1, initializer=UNIFORM_FAN_IN)]
    return tuple(generator), tuple(discriminator)


def conv28(width: int, channels: int) -> tuple[Entries, Entries]:
    """Latents → 16·width → 7x7 → 14x14 → 28x28; 28x28 → 14x14 → 7x7 → 16·width → one score."""
    generator = (
        *(DENSE(features=16 * width), BATCH_NORM, RELU),
        *(DENSE(features=7 * 7 * 2 * width), BATCH_NORM, RELU),
        LayerEntry("reshape", size=7),
        *(UP(features=width), BATCH_NORM, RELU),
        *(UP(features=channels), SIGMOID),
    )
    discriminator = (
        *(DOWN(features=width, initializer=TRUNCATED_NORMAL_002), LEAKY_RELU),
        *(DOWN(features=2 * width, initializer=TRUNCATED_NORMAL_002), BATCH_NORM, LEAKY_RELU),
        FLATTEN,
        *(DENSE(features=16 * width), BATCH_NORM, LEAKY_RELU),
        DENSE(features=1),
    )
    return generator, discriminator


def mlp28(width: int, channels: int) -> tuple[Entries, Entries]:
    """Latents → width → 2·width → 28x28; 28x28 → 2·width → width → one score."""
    dense = partial(DENSE, initializer=UNIFORM_FAN_IN)
    generator = (
        *(dense(features=width), RELU),
        *(dense(features=2 * width), RELU),
        *(dense(features=28 * 28 * channels), TANH, LayerEntry("reshape", size=28)),
    )
    discriminator = (
        FLATTEN,
        *(dense(features=2 * width), RELU),
        *(dense(features=width), RELU),
        dense(features=1),
    )
    return generator, discriminator
