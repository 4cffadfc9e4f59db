"""One loop written in three frameworks, watched: the same weights, images and latents.

`rightly` False: with the defaults that a port of the loop in PyTorch forgets to change.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shared.interface import Array
from shared.record import Recorder
from shared.spec.streams import stream

BATCH, STEPS = 6, 3
SHAPES = {  # as Keras has them
    "generator": ((4, 4, 8, 5), (8,), (8,), (4, 4, 3, 8), (3,)),
    "discriminator": ((4, 4, 3, 8), (8,), (3, 3, 8, 8), (8,), (8,), (4, 4, 8, 1), (1,)),
}


def weights(network: str) -> Iterator[Array]:
    """Yield the arrays of a network: kernels around 0, all else around 1."""
    draws = stream(1, network)
    for shape in SHAPES[network]:
        yield (0.1 * draws.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)


def batches() -> Iterator[tuple[Array, Array]]:
    """Yield images NHWC and latents [batch, 1, 1, 5] of each step."""
    draws = stream(2, "batches")
    for _ in range(STEPS):
        images = draws.uniform(-1, 1, (BATCH, 8, 8, 3)).astype(np.float32)
        yield images, draws.standard_normal((BATCH, 1, 1, 5)).astype(np.float32)


def in_pytorch(path: Path) -> tuple[Any, Any]:
    """Record the loop in PyTorch; returns the discriminator and its optimizer."""
    import torch
    from torch import nn

    generator = nn.Sequential(
        nn.ConvTranspose2d(5, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(8, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 4, 1, 0),
    )
    adams = []
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        for parameter, array in zip(network.parameters(), weights(name), strict=True):
            order = (3, 2, 0, 1) if array.ndim == 4 else (0,)
            parameter.data.copy_(torch.from_numpy(array).permute(*order))
        adams.append(torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999)))
    generator_adam, adam = adams
    bce, one, zero = nn.BCEWithLogitsLoss(), torch.ones(BATCH), torch.zeros(BATCH)
    with Recorder(path, framework="pytorch") as record:
        record.watch("generator", generator, generator_adam)
        record.watch("discriminator", discriminator, adam)
        for images, latents in batches():
            record.step()
            fake = generator(torch.from_numpy(latents).permute(0, 3, 1, 2))
            real = torch.from_numpy(images).permute(0, 3, 1, 2)
            scores = discriminator(real).flatten(), discriminator(fake.detach()).flatten()
            loss = bce(scores[0], one) + bce(scores[1], zero)
            adam.zero_grad()
            loss.backward()
            adam.step()
            record("loss", loss)
            generator_adam.zero_grad()
            bce(discriminator(fake).flatten(), one).backward()
            generator_adam.step()
    return discriminator, adam


def in_keras(path: Path, rightly: bool) -> tuple[Any, Any]:
    """Record the loop in Keras, its step a `tf.function`; returns as `in_pytorch`."""
    import keras
    import tensorflow as tf
    from keras import layers

    def batch_norm() -> Any:
        settings = {"momentum": 0.9, "epsilon": 1e-5} if rightly else {}
        return layers.BatchNormalization(**settings)

    generator = keras.Sequential(
        [
            keras.Input((1, 1, 5)),
            layers.Conv2DTranspose(8, 4, 1, "valid", use_bias=False),
            batch_norm(),
            layers.ReLU(),
            layers.Conv2DTranspose(3, 4, 2, "same"),
            layers.Activation("tanh"),
        ]
    )
    discriminator = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 4, 2, "same"),
            layers.LeakyReLU(0.2),
            layers.Conv2D(8, 3, 1, "same", use_bias=False),
            batch_norm(),
            layers.LeakyReLU(0.2),
            layers.Conv2D(1, 4, 1, "valid"),
        ]
    )
    adams = [keras.optimizers.Adam(2e-4, 0.5, 0.999, 1e-8) for _ in range(2)]
    generator_adam, adam = adams
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        for variable, array in zip(network.trainable_variables, weights(name), strict=True):
            variable.assign(array)
    bce = keras.losses.BinaryCrossentropy(from_logits=True)
    one, zero = tf.ones((BATCH, 1, 1, 1)), tf.zeros((BATCH, 1, 1, 1))

    @tf.function
    def step(images: Any, latents: Any) -> Any:
        with tf.GradientTape() as tape:
            fake = generator(latents, training=True)
            with tf.GradientTape() as own:
                scores = [discriminator(x, training=True) for x in (images, fake)]
                loss = bce(one, scores[0]) + bce(zero, scores[1])
            variables = discriminator.trainable_variables
            adam.apply_gradients(zip(own.gradient(loss, variables), variables, strict=True))
            generator_loss = bce(one, discriminator(fake, training=True))
        variables = generator.trainable_variables
        gradients = tape.gradient(generator_loss, variables)
        generator_adam.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    with Recorder(path, framework="keras") as record:
        record.watch("generator", generator, generator_adam)
        record.watch("discriminator", discriminator, adam)
        for images, latents in batches():
            record.step()
            record("loss", step(tf.constant(images), tf.constant(latents)))
    return discriminator, adam


def in_flax(path: Path, rightly: bool) -> tuple[Any, Any]:
    """Record the loop in Flax NNX, its step under `nnx.jit`; returns as `in_pytorch`."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    rngs = nnx.Rngs(0)

    def batch_norm() -> nnx.BatchNorm:
        return nnx.BatchNorm(8, momentum=0.9 if rightly else 0.99, rngs=rngs)

    class Generator(nnx.Module):
        def __init__(self) -> None:
            own = {"use_bias": False, "rngs": rngs}
            self.project = nnx.ConvTranspose(5, 8, (4, 4), padding="VALID", **own)
            self.norm = batch_norm()
            self.out = nnx.ConvTranspose(8, 3, (4, 4), strides=(2, 2), rngs=rngs)

        def __call__(self, latents: Any) -> Any:
            return jnp.tanh(self.out(nnx.relu(self.norm(self.project(latents)))))

    class Discriminator(nnx.Module):
        def __init__(self) -> None:
            self.z = nnx.Conv(3, 8, (4, 4), strides=(2, 2), rngs=rngs)
            self.inner = nnx.Conv(8, 8, (3, 3), use_bias=False, rngs=rngs)
            self.norm = batch_norm()
            self.a = nnx.List([nnx.Conv(8, 1, (4, 4), padding="VALID", rngs=rngs)])

        def __call__(self, images: Any) -> Any:
            x = nnx.leaky_relu(self.z(images), 0.2)
            return self.a[0](nnx.leaky_relu(self.norm(self.inner(x)), 0.2))

    generator, discriminator = Generator(), Discriminator()
    g, d = generator, discriminator
    held = {
        "generator": [g.project.kernel, g.norm.scale, g.norm.bias, g.out.kernel, g.out.bias],
        "discriminator": [
            *(d.z.kernel, d.z.bias, d.inner.kernel, d.norm.scale, d.norm.bias),
            *(d.a[0].kernel, d.a[0].bias),
        ],
    }
    for name, variables in held.items():
        for variable, array in zip(variables, weights(name), strict=True):
            # Without transpose_kernel Flax turns a transposed convolution's kernel round.
            turned = name == "generator" and array.ndim == 4
            array = array[::-1, ::-1].swapaxes(2, 3) if turned else array
            variable.set_value(jnp.asarray(array))
    adams = [nnx.Optimizer(n, optax.adam(2e-4, 0.5), wrt=nnx.Param) for n in (g, d)]
    generator_adam, adam = adams

    def bce(scores: Any, label: float) -> Any:
        return optax.sigmoid_binary_cross_entropy(scores, jnp.full_like(scores, label)).mean()

    def loss_of(d: Any, images: Any, fake: Any) -> Any:
        return bce(d(images), 1.0) + bce(d(fake), 0.0)

    @nnx.jit
    def step(g: Any, d: Any, generator_adam: Any, adam: Any, images: Any, latents: Any) -> Any:
        fake, backward = nnx.vjp(lambda g: g(latents), g, graph=False)
        loss, gradients = nnx.value_and_grad(loss_of)(d, images, fake)
        adam.update(d, gradients)
        upstream = nnx.grad(lambda fake, d: bce(d(fake), 1.0))(fake, d)
        generator_adam.update(g, nnx.state(backward(upstream)[0], nnx.Param))
        return loss

    with Recorder(path, framework="jax") as record:
        record.watch("generator", generator, generator_adam)
        record.watch("discriminator", discriminator, adam)
        for images, latents in batches():
            record.step()
            arrays = (jnp.asarray(x) for x in (images, latents))
            record("loss", step(g, d, *adams, *arrays))
    jax.effects_barrier()
    return discriminator, adam
