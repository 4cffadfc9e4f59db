"""Generators and discriminators; data is NHWC, scores are [batch]."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from shared.spec import SystemSpec
from tf_impl.layers import BatchNormalization, leaky_relu

__all__ = ["DCGAN64Discriminator", "DCGAN64Generator", "create_models"]


def _conv(name: str, features: int, stride: int, padding: str, dtype: str) -> keras.layers.Layer:
    return keras.layers.Conv2D(features, 4, stride, padding, use_bias=False, dtype=dtype, name=name)


def _conv_transpose(
    name: str, features: int, stride: int, padding: str, dtype: str
) -> keras.layers.Layer:
    return keras.layers.Conv2DTranspose(
        features, 4, stride, padding, use_bias=False, dtype=dtype, name=name
    )


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
            self.dense_5 = keras.layers.Dense(1, dtype=dtype, name="dense_5")
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


def create_models(spec: SystemSpec, dtype: str) -> tuple[DCGAN64Generator, DCGAN64Discriminator]:
    """Return the system's generator and discriminator, with weights still to be loaded."""
    generator, discriminator = DCGAN64Generator(spec, dtype), DCGAN64Discriminator(spec, dtype)
    # Keras creates a layer's weights when it first sees data.
    discriminator(generator(tf.zeros([1, spec.latent_dim], dtype)))
    return generator, discriminator
