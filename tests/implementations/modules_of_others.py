"""The same small GAN as strangers write it: `nn.Module`s, Keras models, `nnx.Module`s, loops."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

BETAS = (0.5, 0.875)
RATE, EPSILON = 2.0**-10, 2.0**-20


def implementation(framework: str) -> type:
    """Return the class of one of our implementations."""
    names = {"pytorch": "PyTorch", "tf": "TensorFlow", "jax": "Jax"}
    pytest.importorskip({"pytorch": "torch", "tf": "tensorflow", "jax": "flax"}[framework])
    adapter = import_module(f"{framework}_impl.adapter")
    return getattr(adapter, f"{names[framework]}Implementation")


def pair(framework: str, **changes: Any) -> Any:
    """Return a `ModulePair` of a framework, with some of its numbers changed."""
    implementation(framework)
    kind = import_module(f"{framework}_impl.module_pair").ModulePair
    step = changes.pop("step", None)
    return kind(*PARTS[framework](**changes), latent_shape=(6,), step=step)


def torch_parts(
    epsilon: float = 1e-3, beta1: float = 0.5, last: Callable | None = None
) -> tuple[Any, ...]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(5)  # of seven networks one has no score above 1e-3

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Not in the order in which they are called.
            self.up = nn.Sequential(nn.ConvTranspose2d(8, 3, 4, 2, 1))
            self.norm = nn.BatchNorm2d(8, 1e-3, 0.25)
            self.project = nn.Linear(6, 128)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.norm(self.project(z).view(-1, 8, 4, 4)))
            return (last or torch.tanh)(self.up(x))

    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(len(x), -1)

    discriminator = nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1),
        nn.LeakyReLU(0.25, inplace=True),
        nn.Conv2d(8, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8, epsilon, 0.25),
        nn.LeakyReLU(0.25, inplace=True),
        Flat(),
        nn.Linear(128, 1),
    )
    if last:
        discriminator = nn.Sequential(nn.LazyConv2d(8, 4, 2, 1), Flat(), nn.LazyLinear(1))
    generator, options = Generator(), {"lr": RATE, "betas": (beta1, 0.875), "eps": EPSILON}
    discriminator(generator(torch.ones(2, 6)))  # which makes what is lazy
    networks = generator, discriminator
    for norm in (m for n in networks for m in n.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
    for name, own in (*generator.named_parameters(), *discriminator.named_parameters()):
        if "norm" not in name and not name.startswith("3."):
            nn.init.normal_(own, 0.0, 0.02) if own.ndim > 1 else nn.init.zeros_(own)
    return *networks, *(torch.optim.Adam(n.parameters(), **options) for n in networks)


def tf_parts() -> tuple[Any, ...]:
    import keras
    from keras import layers as L

    z = keras.Input((6,))
    x = L.Reshape((4, 4, 8))(L.Dense(128)(z))
    x = L.ReLU()(L.BatchNormalization(epsilon=1e-3, momentum=0.75)(x))
    generator = keras.Model(z, L.Conv2DTranspose(3, 4, 2, "same", activation="tanh")(x))
    discriminator = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(8, 4, 2, "same"),
            L.LeakyReLU(negative_slope=0.25),
            L.Conv2D(8, 3, 1, "same", use_bias=False),
            L.BatchNormalization(epsilon=1e-3, momentum=0.75),
            L.LeakyReLU(negative_slope=0.25),
            L.Flatten(),
            L.Dense(1),
        ]
    )
    adams = (keras.optimizers.Adam(RATE, *BETAS, EPSILON) for _ in range(2))
    return generator, discriminator, *adams


def jax_parts() -> tuple[Any, ...]:
    import jax.numpy as jnp
    import optax
    from flax import nnx

    norm = {"epsilon": 1e-3, "momentum": 0.75}

    class Generator(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.project = nnx.Linear(6, 128, rngs=rngs)
            self.norm = nnx.BatchNorm(8, **norm, rngs=rngs)
            self.up = nnx.ConvTranspose(8, 3, (4, 4), strides=2, rngs=rngs)

        def __call__(self, z: Any) -> Any:
            x = nnx.relu(self.norm(self.project(z).reshape(-1, 4, 4, 8)))
            return jnp.tanh(self.up(x))

    class Discriminator(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            options = {"use_bias": False, "rngs": rngs}
            self.blocks = nnx.List(
                [
                    nnx.Conv(3, 8, (4, 4), strides=2, rngs=rngs),
                    nnx.Sequential(
                        nnx.Conv(8, 8, (3, 3), **options), nnx.BatchNorm(8, **norm, rngs=rngs)
                    ),
                ]
            )
            self.score = nnx.Linear(128, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            for block in self.blocks:
                x = nnx.leaky_relu(block(x), 0.25)
            return self.score(x.reshape(len(x), -1))

    networks = Generator(nnx.Rngs(0)), Discriminator(nnx.Rngs(1))
    adam = optax.adam(RATE, *BETAS, EPSILON)
    return *networks, *(nnx.Optimizer(n, adam, wrt=nnx.Param) for n in networks)


def pooling(framework: str) -> Any:
    """Return a discriminator with dropout and pools, in JAX functions beside activations."""
    if framework == "pytorch":
        from torch import nn

        conv = nn.Conv2d(3, 4, 3, 1, 1)
        nn.init.zeros_(conv.bias)  # which may make every number positive
        return nn.Sequential(
            conv,
            nn.Dropout2d(),
            nn.AvgPool2d(2),
            nn.LeakyReLU(0.25),
            nn.MaxPool2d(2, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 1),
        )
    if framework == "tf":
        import keras
        from keras import layers as L

        return keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                L.Conv2D(4, 3, 1, "same"),
                L.Dropout(0.5),
                L.AveragePooling2D(2),
                L.LeakyReLU(negative_slope=0.25),
                L.MaxPooling2D(2, 1),
                L.GlobalAveragePooling2D(),
                L.Dense(1),
            ]
        )
    import jax
    from flax import nnx

    class Discriminator(nnx.Module):
        def __init__(self) -> None:
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))
            self.second = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(2))
            self.third = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(3))
            self.fourth = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(4))
            self.head = nnx.Linear(64, 1, rngs=nnx.Rngs(5))

        def __call__(self, x: Any) -> Any:
            x = nnx.leaky_relu(self.dropout(self.conv(x)), 0.25)
            x = self.second(nnx.avg_pool(x, (2, 2), (2, 2)))
            x = self.third(nnx.max_pool(nnx.relu(x), (2, 2), (2, 2)))
            x = self.fourth(jax.image.resize(x, (len(x), 4, 4, 4), "nearest"))
            return self.head(x.reshape(len(x), -1))

    return Discriminator()


def optimizer(framework: str, name: str, network: Any) -> Any:
    """Return an optimizer of a network by what `test_module_pair` calls it."""
    betas = (0.5, 0.9)
    if framework == "pytorch":
        from torch import optim

        own = list(network.parameters())
        adam = {"lr": 2e-3, "betas": betas, "eps": EPSILON}
        return {
            "sgd": lambda: optim.SGD(own, 0.125),
            "momentum": lambda: optim.SGD(own, 0.125, 0.875),
            "nesterov": lambda: optim.SGD(own, 0.125, 0.875, nesterov=True),
            "rmsprop": lambda: optim.RMSprop(own, 1e-3, 0.9, 1e-6),
            "centred": lambda: optim.RMSprop(own, 1e-3, 0.9, 1e-6, centered=True),
            "amsgrad": lambda: optim.Adam(own, **adam, amsgrad=True),
            "adamw": lambda: optim.AdamW(own, **adam, weight_decay=0.03125),
            "unknown": lambda: optim.Adagrad(own),
        }[name]()
    if framework == "tf":
        from keras import optimizers as K

        return {
            "sgd": lambda: K.SGD(0.125),
            "momentum": lambda: K.SGD(0.125, 0.875),
            "nesterov": lambda: K.SGD(0.125, 0.875, nesterov=True),
            "rmsprop": lambda: K.RMSprop(1e-3, 0.9, epsilon=1e-6),
            "centred": lambda: K.RMSprop(1e-3, 0.9, epsilon=1e-6, centered=True),
            "amsgrad": lambda: K.Adam(2e-3, *betas, EPSILON, amsgrad=True),
            "adamw": lambda: K.AdamW(2e-3, 0.03125, *betas, EPSILON),
            "unknown": K.Adagrad,
        }[name]()
    import optax
    from flax import nnx

    rms = {"decay": 0.9, "eps": 1e-6, "eps_in_sqrt": False}
    transformation = {
        "sgd": lambda: optax.sgd(0.125),
        "momentum": lambda: optax.sgd(0.125, 0.875),
        "nesterov": lambda: optax.sgd(0.125, 0.875, nesterov=True),
        "rmsprop": lambda: optax.rmsprop(1e-3, **rms),
        "centred": lambda: optax.rmsprop(1e-3, **rms, centered=True),
        "amsgrad": lambda: optax.amsgrad(2e-3, *betas, EPSILON),
        "adamw": lambda: optax.adamw(2e-3, *betas, EPSILON, weight_decay=0.03125),
        "unknown": lambda: optax.adagrad(1e-3),
    }[name]()
    return nnx.Optimizer(network, transformation, wrt=nnx.Param)


PARTS = {"pytorch": torch_parts, "tf": tf_parts, "jax": jax_parts}


def torch_step(
    g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any, attached: bool = False
) -> Any:
    """One step as pytorch/examples orders it."""
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    if not attached:
        g_adam.zero_grad()
    d_adam.zero_grad()
    fake = g(z)
    scores = d(real), d(fake if attached else fake.detach())
    loss_real = bce(scores[0], scores[0].detach() * 0 + 1)
    loss_fake = bce(scores[1], scores[1].detach() * 0)
    g_adam.zero_grad()
    (loss_real + loss_fake).backward(retain_graph=attached)
    d_adam.step()
    scores = d(fake)
    loss = bce(scores, scores.detach() * 0 + 1)
    loss.backward()
    g_adam.step()
    return loss_real.item(), loss_fake.item(), loss.item()


def tf_step(g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any) -> Any:
    """One step with a tape for each network."""
    import tensorflow as tf

    def bce(scores: Any, label: float) -> Any:
        wanted = tf.fill(scores.shape, tf.constant(label, scores.dtype))
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(wanted, scores))

    with tf.GradientTape() as tape:
        fake = g(z, training=True)
    with tf.GradientTape() as d_tape:
        losses = bce(d(real, training=True), 1.0), bce(d(fake, training=True), 0.0)
        total = losses[0] + losses[1]
    variables = d.trainable_variables
    d_adam.apply(d_tape.gradient(total, variables), variables)
    with tf.GradientTape(watch_accessed_variables=False) as g_tape:
        g_tape.watch(fake)
        loss = bce(d(fake, training=True), 1.0)
    variables = g.trainable_variables
    image_gradient = g_tape.gradient(loss, fake)
    g_adam.apply(tape.gradient(fake, variables, output_gradients=image_gradient), variables)
    return *losses, loss


def jax_step(g: Any, d: Any, g_adam: Any, d_adam: Any, real: Any, z: Any) -> Any:
    """One step of NNX's transformations."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    def bce(scores: Any, label: float) -> Any:
        return optax.sigmoid_binary_cross_entropy(scores, jnp.full_like(scores, label)).mean()

    def of_discriminator(d: Any) -> Any:
        losses = bce(d(real), 1.0), bce(d(fake), 0.0)
        return losses[0] + losses[1], losses

    def of_generator(g: Any, d: Any) -> Any:
        return bce(d(g(z)), 1.0)

    statistics = jax.tree.map(jnp.copy, nnx.state(g, nnx.BatchStat))
    fake = g(z)
    (_, losses), gradients = nnx.value_and_grad(of_discriminator, has_aux=True)(d)
    d_adam.update(d, gradients)
    nnx.update(g, statistics)  # it makes the same images again: its statistics move once
    loss, gradients = nnx.value_and_grad(of_generator)(g, d)
    g_adam.update(g, gradients)
    return *losses, loss


STEPS = {"pytorch": torch_step, "tf": tf_step, "jax": jax_step}
