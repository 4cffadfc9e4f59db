"""Generators and discriminators; data is NHWC, scores are [batch]."""

from collections.abc import Callable
from itertools import pairwise

from flax import nnx
from jax import Array as Tensor
from jax.nn import sigmoid, tanh

from shared.spec import SystemSpec
from shared.spec.architectures import dcgan_widths

from .layers import Layers


class DCGANGenerator(nnx.Module):
    """Latents [batch, latent_dim] → images in [-1, 1] (Radford et al. 2016, figure 1: 64x64)."""

    def __init__(self, spec: SystemSpec, layers: Layers) -> None:
        self.relu = layers.relu
        widths = dcgan_widths(spec.width, spec.image_size)[::-1]
        self.conv_transpose_1 = layers.conv_transpose(spec.latent_dim, widths[0], 1, 0)
        self.batch_norm_1 = layers.batch_norm(widths[0])
        for i, (wide, narrow) in enumerate(pairwise(widths), start=2):
            setattr(self, f"conv_transpose_{i}", layers.conv_transpose(wide, narrow, 2, 1))
            setattr(self, f"batch_norm_{i}", layers.batch_norm(narrow))
        self.last = len(widths) + 1
        image_layer = layers.conv_transpose(spec.width, spec.channels, 2, 1)
        setattr(self, f"conv_transpose_{self.last}", image_layer)

    def __call__(self, latents: Tensor) -> Tensor:
        """Return images."""
        x = latents[:, None, None, :]
        for i in range(1, self.last):
            x = getattr(self, f"conv_transpose_{i}")(x)
            x = self.relu(getattr(self, f"batch_norm_{i}")(x))
        return tanh(getattr(self, f"conv_transpose_{self.last}")(x))


class DCGANDiscriminator(nnx.Module):
    """Images of 2^k x 2^k → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, layers: Layers) -> None:
        self.leaky_relu = layers.leaky_relu
        widths = dcgan_widths(spec.width, spec.image_size)
        self.conv_1 = layers.conv(spec.channels, spec.width, 2, 1)
        for i, (narrow, wide) in enumerate(pairwise(widths), start=2):
            setattr(self, f"conv_{i}", layers.conv(narrow, wide, 2, 1))
            setattr(self, f"batch_norm_{i}", layers.batch_norm(wide))
        self.last = len(widths) + 1
        self.has_conv_head = spec.discriminator_head == "conv"
        self.head = f"{'conv' if self.has_conv_head else 'dense'}_{self.last}"
        if self.has_conv_head:
            setattr(self, self.head, layers.conv(widths[-1], 1, 1, 0))
        else:
            setattr(self, self.head, layers.dense(4 * 4 * widths[-1], 1))
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def __call__(self, images: Tensor) -> Tensor:
        """Return scores."""
        x = self.leaky_relu(self.conv_1(images))
        for i in range(2, self.last):
            x = getattr(self, f"conv_{i}")(x)
            x = self.leaky_relu(getattr(self, f"batch_norm_{i}")(x))
        head = getattr(self, self.head)
        x = head(x) if self.has_conv_head else head(x.reshape(len(x), -1))
        scores = x.reshape(-1)
        return sigmoid(scores) if self.ends_in_sigmoid else scores


class Conv28Generator(nnx.Module):
    """Latents [batch, latent_dim] → images of 28x28 in [0, 1] (Chen et al. 2016, appendix C.1)."""

    def __init__(self, spec: SystemSpec, layers: Layers) -> None:
        self.relu = layers.relu
        width = spec.width
        self.dense_1 = layers.dense(spec.latent_dim, 16 * width)
        self.batch_norm_1 = layers.batch_norm(16 * width)
        self.dense_2 = layers.dense(16 * width, 7 * 7 * 2 * width)
        self.batch_norm_2 = layers.batch_norm(7 * 7 * 2 * width)
        self.conv_transpose_3 = layers.conv_transpose(2 * width, width, 2, 1, bias=True)
        self.batch_norm_3 = layers.batch_norm(width)
        self.conv_transpose_4 = layers.conv_transpose(width, spec.channels, 2, 1, bias=True)

    def __call__(self, latents: Tensor) -> Tensor:
        """Return images."""
        x = self.relu(self.batch_norm_1(self.dense_1(latents)))
        x = self.relu(self.batch_norm_2(self.dense_2(x)))
        x = x.reshape(len(x), 7, 7, -1)
        x = self.relu(self.batch_norm_3(self.conv_transpose_3(x)))
        return sigmoid(self.conv_transpose_4(x))


class Conv28Discriminator(nnx.Module):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, layers: Layers) -> None:
        self.leaky_relu = layers.leaky_relu
        width = spec.width
        self.conv_1 = layers.conv(spec.channels, width, 2, 1, bias=True)
        self.conv_2 = layers.conv(width, 2 * width, 2, 1, bias=True)
        self.batch_norm_2 = layers.batch_norm(2 * width)
        self.dense_3 = layers.dense(7 * 7 * 2 * width, 16 * width)
        self.batch_norm_3 = layers.batch_norm(16 * width)
        self.dense_4 = layers.dense(16 * width, 1)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def __call__(self, images: Tensor) -> Tensor:
        """Return scores."""
        x = self.leaky_relu(self.conv_1(images))
        x = self.leaky_relu(self.batch_norm_2(self.conv_2(x)))
        x = self.dense_3(x.reshape(len(x), -1))
        x = self.leaky_relu(self.batch_norm_3(x))
        scores = self.dense_4(x).reshape(-1)
        return sigmoid(scores) if self.ends_in_sigmoid else scores


class MLP28Generator(nnx.Module):
    """Latents [batch, latent_dim] → images of 28x28 in [-1, 1] by three dense layers."""

    def __init__(self, spec: SystemSpec, layers: Layers) -> None:
        self.relu = layers.relu
        self.image_shape = spec.image_shape
        self.dense_1 = layers.dense(spec.latent_dim, spec.width)
        self.dense_2 = layers.dense(spec.width, 2 * spec.width)
        self.dense_3 = layers.dense(2 * spec.width, 28 * 28 * spec.channels)

    def __call__(self, latents: Tensor) -> Tensor:
        """Return images."""
        x = self.relu(self.dense_1(latents))
        x = self.relu(self.dense_2(x))
        return tanh(self.dense_3(x)).reshape(-1, *self.image_shape)


class MLP28Discriminator(nnx.Module):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, layers: Layers) -> None:
        self.relu = layers.relu
        self.dense_1 = layers.dense(28 * 28 * spec.channels, 2 * spec.width)
        self.dense_2 = layers.dense(2 * spec.width, spec.width)
        self.dense_3 = layers.dense(spec.width, 1)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def __call__(self, images: Tensor) -> Tensor:
        """Return scores."""
        x = self.relu(self.dense_1(images.reshape(len(images), -1)))
        x = self.relu(self.dense_2(x))
        scores = self.dense_3(x).reshape(-1)
        return sigmoid(scores) if self.ends_in_sigmoid else scores


_NETWORKS: dict[str, tuple[Callable[..., nnx.Module], Callable[..., nnx.Module]]] = {
    "dcgan64": (DCGANGenerator, DCGANDiscriminator),
    "conv28": (Conv28Generator, Conv28Discriminator),
    "mlp28": (MLP28Generator, MLP28Discriminator),
}


def create_models(spec: SystemSpec, layers: Layers) -> tuple[nnx.Module, nnx.Module]:
    """Return the system's generator and discriminator, with weights still to be loaded."""
    generator, discriminator = _NETWORKS[spec.architecture]
    return generator(spec, layers), discriminator(spec, layers)
