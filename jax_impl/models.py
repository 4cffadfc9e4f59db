"""Generators and discriminators; data is NHWC, scores are [batch]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import jax
import jax.numpy as jnp
from flax import nnx

from jax_impl.layers import BatchNorm, Conv, ConvTranspose, leaky_relu
from shared.spec import SystemSpec

__all__ = [
    "Conv28Discriminator",
    "Conv28Generator",
    "DCGAN64Discriminator",
    "DCGAN64Generator",
    "MLP28Discriminator",
    "MLP28Generator",
    "create_models",
]


class Dtypes(TypedDict):
    """What every layer of Flax takes: of its arithmetic and of its parameters."""

    dtype: jnp.dtype
    param_dtype: jnp.dtype


def _dense(in_features: int, out_features: int, dtypes: Dtypes) -> nnx.Linear:
    return nnx.Linear(in_features, out_features, **dtypes, rngs=nnx.Rngs(0))


class DCGAN64Generator(nnx.Module):
    """Latents [batch, latent_dim] → images of 64x64 in [-1, 1] (Radford et al. 2016, figure 1)."""

    def __init__(self, spec: SystemSpec, dtypes: Dtypes) -> None:
        width = spec.width
        self.conv_transpose_1 = ConvTranspose(spec.latent_dim, 8 * width, 1, 0, **dtypes)
        self.batch_norm_1 = BatchNorm(8 * width, **dtypes)
        self.conv_transpose_2 = ConvTranspose(8 * width, 4 * width, 2, 1, **dtypes)
        self.batch_norm_2 = BatchNorm(4 * width, **dtypes)
        self.conv_transpose_3 = ConvTranspose(4 * width, 2 * width, 2, 1, **dtypes)
        self.batch_norm_3 = BatchNorm(2 * width, **dtypes)
        self.conv_transpose_4 = ConvTranspose(2 * width, width, 2, 1, **dtypes)
        self.batch_norm_4 = BatchNorm(width, **dtypes)
        self.conv_transpose_5 = ConvTranspose(width, spec.channels, 2, 1, **dtypes)

    def __call__(self, latents: jax.Array, *, training: bool) -> jax.Array:
        """Return images."""
        x = latents[:, None, None, :]
        x = jax.nn.relu(self.batch_norm_1(self.conv_transpose_1(x), training=training))
        x = jax.nn.relu(self.batch_norm_2(self.conv_transpose_2(x), training=training))
        x = jax.nn.relu(self.batch_norm_3(self.conv_transpose_3(x), training=training))
        x = jax.nn.relu(self.batch_norm_4(self.conv_transpose_4(x), training=training))
        return jnp.tanh(self.conv_transpose_5(x))


class DCGAN64Discriminator(nnx.Module):
    """Images of 64x64 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, dtypes: Dtypes) -> None:
        width = spec.width
        self.conv_1 = Conv(spec.channels, width, 2, 1, **dtypes)
        self.conv_2 = Conv(width, 2 * width, 2, 1, **dtypes)
        self.batch_norm_2 = BatchNorm(2 * width, **dtypes)
        self.conv_3 = Conv(2 * width, 4 * width, 2, 1, **dtypes)
        self.batch_norm_3 = BatchNorm(4 * width, **dtypes)
        self.conv_4 = Conv(4 * width, 8 * width, 2, 1, **dtypes)
        self.batch_norm_4 = BatchNorm(8 * width, **dtypes)
        self.has_conv_head = spec.discriminator_head == "conv"
        if self.has_conv_head:
            self.conv_5 = Conv(8 * width, 1, 1, 0, **dtypes)
        else:
            self.dense_5 = _dense(4 * 4 * 8 * width, 1, dtypes)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def __call__(self, images: jax.Array, *, training: bool) -> jax.Array:
        """Return scores."""
        x = leaky_relu(self.conv_1(images))
        x = leaky_relu(self.batch_norm_2(self.conv_2(x), training=training))
        x = leaky_relu(self.batch_norm_3(self.conv_3(x), training=training))
        x = leaky_relu(self.batch_norm_4(self.conv_4(x), training=training))
        x = self.conv_5(x) if self.has_conv_head else self.dense_5(x.reshape(x.shape[0], -1))
        scores = x.reshape(-1)
        return jax.nn.sigmoid(scores) if self.ends_in_sigmoid else scores


class Conv28Generator(nnx.Module):
    """Latents [batch, latent_dim] → images of 28x28 in [0, 1] (Chen et al. 2016, appendix C.1)."""

    def __init__(self, spec: SystemSpec, dtypes: Dtypes) -> None:
        width = spec.width
        self.dense_1 = _dense(spec.latent_dim, 16 * width, dtypes)
        self.batch_norm_1 = BatchNorm(16 * width, **dtypes)
        self.dense_2 = _dense(16 * width, 7 * 7 * 2 * width, dtypes)
        self.batch_norm_2 = BatchNorm(7 * 7 * 2 * width, **dtypes)
        self.conv_transpose_3 = ConvTranspose(2 * width, width, 2, 1, **dtypes, bias=True)
        self.batch_norm_3 = BatchNorm(width, **dtypes)
        self.conv_transpose_4 = ConvTranspose(width, spec.channels, 2, 1, **dtypes, bias=True)

    def __call__(self, latents: jax.Array, *, training: bool) -> jax.Array:
        """Return images."""
        x = jax.nn.relu(self.batch_norm_1(self.dense_1(latents), training=training))
        x = jax.nn.relu(self.batch_norm_2(self.dense_2(x), training=training))
        x = x.reshape(x.shape[0], 7, 7, -1)
        x = jax.nn.relu(self.batch_norm_3(self.conv_transpose_3(x), training=training))
        return jax.nn.sigmoid(self.conv_transpose_4(x))


class Conv28Discriminator(nnx.Module):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, dtypes: Dtypes) -> None:
        width = spec.width
        self.conv_1 = Conv(spec.channels, width, 2, 1, **dtypes, bias=True)
        self.conv_2 = Conv(width, 2 * width, 2, 1, **dtypes, bias=True)
        self.batch_norm_2 = BatchNorm(2 * width, **dtypes)
        self.dense_3 = _dense(7 * 7 * 2 * width, 16 * width, dtypes)
        self.batch_norm_3 = BatchNorm(16 * width, **dtypes)
        self.dense_4 = _dense(16 * width, 1, dtypes)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def __call__(self, images: jax.Array, *, training: bool) -> jax.Array:
        """Return scores."""
        x = leaky_relu(self.conv_1(images))
        x = leaky_relu(self.batch_norm_2(self.conv_2(x), training=training))
        x = self.dense_3(x.reshape(x.shape[0], -1))
        x = leaky_relu(self.batch_norm_3(x, training=training))
        scores = self.dense_4(x).reshape(-1)
        return jax.nn.sigmoid(scores) if self.ends_in_sigmoid else scores


class MLP28Generator(nnx.Module):
    """Latents [batch, latent_dim] → images of 28x28 in [-1, 1] by three dense layers."""

    def __init__(self, spec: SystemSpec, dtypes: Dtypes) -> None:
        self.image_shape = spec.image_shape
        self.dense_1 = _dense(spec.latent_dim, spec.width, dtypes)
        self.dense_2 = _dense(spec.width, 2 * spec.width, dtypes)
        self.dense_3 = _dense(2 * spec.width, 28 * 28 * spec.channels, dtypes)

    def __call__(self, latents: jax.Array, *, training: bool) -> jax.Array:
        """Return images; `training` changes nothing here."""
        x = jax.nn.relu(self.dense_1(latents))
        x = jax.nn.relu(self.dense_2(x))
        return jnp.tanh(self.dense_3(x)).reshape(-1, *self.image_shape)


class MLP28Discriminator(nnx.Module):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, dtypes: Dtypes) -> None:
        self.dense_1 = _dense(28 * 28 * spec.channels, 2 * spec.width, dtypes)
        self.dense_2 = _dense(2 * spec.width, spec.width, dtypes)
        self.dense_3 = _dense(spec.width, 1, dtypes)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def __call__(self, images: jax.Array, *, training: bool) -> jax.Array:
        """Return scores; `training` changes nothing here."""
        x = jax.nn.relu(self.dense_1(images.reshape(images.shape[0], -1)))
        x = jax.nn.relu(self.dense_2(x))
        scores = self.dense_3(x).reshape(-1)
        return jax.nn.sigmoid(scores) if self.ends_in_sigmoid else scores


_NETWORKS: dict[str, tuple[Callable[..., nnx.Module], Callable[..., nnx.Module]]] = {
    "dcgan64": (DCGAN64Generator, DCGAN64Discriminator),
    "conv28": (Conv28Generator, Conv28Discriminator),
    "mlp28": (MLP28Generator, MLP28Discriminator),
}


def create_models(
    spec: SystemSpec, dtype: jnp.dtype, compute_dtype: jnp.dtype | None = None
) -> tuple[nnx.Module, nnx.Module]:
    """Return the system's generator and discriminator, with weights still to be loaded.

    The parameters have `dtype`; activations and products have `compute_dtype`, if it is another.
    """
    dtypes = Dtypes(dtype=compute_dtype or dtype, param_dtype=dtype)
    generator, discriminator = _NETWORKS[spec.architecture]
    return generator(spec, dtypes), discriminator(spec, dtypes)
