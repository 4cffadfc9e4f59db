"""Generators and discriminators; data is NHWC, scores are [batch]."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from shared.spec import SystemSpec
from tf_impl.layers import BatchNormalization, leaky_relu

__all__ = [
    "Conv28Discriminator",
    "Conv28Generator",
    "DCGAN64Discriminator",
    "DCGAN64Generator",
    "MLP28Discriminator",
    "MLP28Generator",
    "create_models",
]


def _conv(
    name: str, features: int, stride: int, padding: str, dtype: str, *, bias: bool = False
) -> keras.layers.Layer:
    return keras.layers.Conv2D(features, 4, stride, padding, use_bias=bias, dtype=dtype, name=name)


def _conv_transpose(
    name: str, features: int, stride: int, padding: str, dtype: str, *, bias: bool = False
) -> keras.layers.Layer:
    return keras.layers.Conv2DTranspose(
        features, 4, stride, padding, use_bias=bias, dtype=dtype, name=name
    )


def _dense(name: str, features: int, dtype: str) -> keras.layers.Layer:
    return keras.layers.Dense(features, dtype=dtype, name=name)


def _batch_norm(name: str, dtype: str) -> BatchNormalization:
    return BatchNormalization(epsilon=1e-5, momentum=0.1, dtype=dtype, name=name)


class DCGAN64Generator(keras.Model):
    """Latents [batch, latent_dim] → images of 64x64 in [-1, 1] (Radford et al. 2016, figure 1)."""

    def __init__(self, spec: SystemSpec, dtype: str) -> None:
        # Keras computes in float32 unless every layer is told otherwise.
        super().__init__(name="generator", dtype=dtype)
        width = spec.width
        self.conv_transpose_1 = _conv_transpose("conv_transpose_1", 8 * width, 1, "valid", dtype)
        self.batch_norm_1 = _batch_norm("batch_norm_1", dtype)
        self.conv_transpose_2 = _conv_transpose("conv_transpose_2", 4 * width, 2, "same", dtype)
        self.batch_norm_2 = _batch_norm("batch_norm_2", dtype)
        self.conv_transpose_3 = _conv_transpose("conv_transpose_3", 2 * width, 2, "same", dtype)
        self.batch_norm_3 = _batch_norm("batch_norm_3", dtype)
        self.conv_transpose_4 = _conv_transpose("conv_transpose_4", width, 2, "same", dtype)
        self.batch_norm_4 = _batch_norm("batch_norm_4", dtype)
        self.conv_transpose_5 = _conv_transpose("conv_transpose_5", spec.channels, 2, "same", dtype)

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return images."""
        x = latents[:, None, None, :]
        x = tf.nn.relu(self.batch_norm_1(self.conv_transpose_1(x), training=training))
        x = tf.nn.relu(self.batch_norm_2(self.conv_transpose_2(x), training=training))
        x = tf.nn.relu(self.batch_norm_3(self.conv_transpose_3(x), training=training))
        x = tf.nn.relu(self.batch_norm_4(self.conv_transpose_4(x), training=training))
        return tf.tanh(self.conv_transpose_5(x))


class DCGAN64Discriminator(keras.Model):
    """Images of 64x64 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, dtype: str) -> None:
        super().__init__(name="discriminator", dtype=dtype)
        width = spec.width
        self.conv_1 = _conv("conv_1", width, 2, "same", dtype)
        self.conv_2 = _conv("conv_2", 2 * width, 2, "same", dtype)
        self.batch_norm_2 = _batch_norm("batch_norm_2", dtype)
        self.conv_3 = _conv("conv_3", 4 * width, 2, "same", dtype)
        self.batch_norm_3 = _batch_norm("batch_norm_3", dtype)
        self.conv_4 = _conv("conv_4", 8 * width, 2, "same", dtype)
        self.batch_norm_4 = _batch_norm("batch_norm_4", dtype)
        self.has_conv_head = spec.discriminator_head == "conv"
        if self.has_conv_head:
            self.conv_5 = _conv("conv_5", 1, 1, "valid", dtype)
        else:
            self.dense_5 = _dense("dense_5", 1, dtype)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return scores."""
        x = leaky_relu(self.conv_1(images))
        x = leaky_relu(self.batch_norm_2(self.conv_2(x), training=training))
        x = leaky_relu(self.batch_norm_3(self.conv_3(x), training=training))
        x = leaky_relu(self.batch_norm_4(self.conv_4(x), training=training))
        features = math.prod(x.shape[1:])
        x = self.conv_5(x) if self.has_conv_head else self.dense_5(tf.reshape(x, [-1, features]))
        scores = tf.reshape(x, [-1])
        return tf.sigmoid(scores) if self.ends_in_sigmoid else scores


class Conv28Generator(keras.Model):
    """Latents [batch, latent_dim] → images of 28x28 in [0, 1] (Chen et al. 2016, appendix C.1)."""

    def __init__(self, spec: SystemSpec, dtype: str) -> None:
        super().__init__(name="generator", dtype=dtype)
        width = spec.width
        self.dense_1 = _dense("dense_1", 16 * width, dtype)
        self.batch_norm_1 = _batch_norm("batch_norm_1", dtype)
        self.dense_2 = _dense("dense_2", 7 * 7 * 2 * width, dtype)
        self.batch_norm_2 = _batch_norm("batch_norm_2", dtype)
        self.conv_transpose_3 = _conv_transpose(
            "conv_transpose_3", width, 2, "same", dtype, bias=True
        )
        self.batch_norm_3 = _batch_norm("batch_norm_3", dtype)
        self.conv_transpose_4 = _conv_transpose(
            "conv_transpose_4", spec.channels, 2, "same", dtype, bias=True
        )

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return images."""
        x = tf.nn.relu(self.batch_norm_1(self.dense_1(latents), training=training))
        x = tf.nn.relu(self.batch_norm_2(self.dense_2(x), training=training))
        x = tf.reshape(x, [-1, 7, 7, x.shape[1] // 49])
        x = tf.nn.relu(self.batch_norm_3(self.conv_transpose_3(x), training=training))
        return tf.sigmoid(self.conv_transpose_4(x))


class Conv28Discriminator(keras.Model):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, dtype: str) -> None:
        super().__init__(name="discriminator", dtype=dtype)
        width = spec.width
        self.conv_1 = _conv("conv_1", width, 2, "same", dtype, bias=True)
        self.conv_2 = _conv("conv_2", 2 * width, 2, "same", dtype, bias=True)
        self.batch_norm_2 = _batch_norm("batch_norm_2", dtype)
        self.dense_3 = _dense("dense_3", 16 * width, dtype)
        self.batch_norm_3 = _batch_norm("batch_norm_3", dtype)
        self.dense_4 = _dense("dense_4", 1, dtype)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return scores."""
        x = leaky_relu(self.conv_1(images))
        x = leaky_relu(self.batch_norm_2(self.conv_2(x), training=training))
        x = self.dense_3(tf.reshape(x, [-1, math.prod(x.shape[1:])]))
        x = leaky_relu(self.batch_norm_3(x, training=training))
        scores = tf.reshape(self.dense_4(x), [-1])
        return tf.sigmoid(scores) if self.ends_in_sigmoid else scores


class MLP28Generator(keras.Model):
    """Latents [batch, latent_dim] → images of 28x28 in [-1, 1] by three dense layers."""

    def __init__(self, spec: SystemSpec, dtype: str) -> None:
        super().__init__(name="generator", dtype=dtype)
        self.image_shape = spec.image_shape
        self.dense_1 = _dense("dense_1", spec.width, dtype)
        self.dense_2 = _dense("dense_2", 2 * spec.width, dtype)
        self.dense_3 = _dense("dense_3", 28 * 28 * spec.channels, dtype)

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return images; `training` changes nothing here."""
        x = tf.nn.relu(self.dense_1(latents))
        x = tf.nn.relu(self.dense_2(x))
        return tf.reshape(tf.tanh(self.dense_3(x)), [-1, *self.image_shape])


class MLP28Discriminator(keras.Model):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec, dtype: str) -> None:
        super().__init__(name="discriminator", dtype=dtype)
        self.dense_1 = _dense("dense_1", 2 * spec.width, dtype)
        self.dense_2 = _dense("dense_2", spec.width, dtype)
        self.dense_3 = _dense("dense_3", 1, dtype)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return scores; `training` changes nothing here."""
        x = tf.nn.relu(self.dense_1(tf.reshape(images, [-1, math.prod(images.shape[1:])])))
        x = tf.nn.relu(self.dense_2(x))
        scores = tf.reshape(self.dense_3(x), [-1])
        return tf.sigmoid(scores) if self.ends_in_sigmoid else scores


_NETWORKS: dict[str, tuple[Callable[..., keras.Model], Callable[..., keras.Model]]] = {
    "dcgan64": (DCGAN64Generator, DCGAN64Discriminator),
    "conv28": (Conv28Generator, Conv28Discriminator),
    "mlp28": (MLP28Generator, MLP28Discriminator),
}


def create_models(spec: SystemSpec, dtype: str) -> tuple[keras.Model, keras.Model]:
    """Return the system's generator and discriminator, with weights still to be loaded."""
    build_generator, build_discriminator = _NETWORKS[spec.architecture]
    generator, discriminator = build_generator(spec, dtype), build_discriminator(spec, dtype)
    # Keras creates a layer's weights when it first sees data.
    discriminator(generator(tf.zeros([1, spec.latent_dim], generator.compute_dtype)))
    return generator, discriminator
