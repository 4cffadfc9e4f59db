"""Equinox behind this project's interface: both networks, with Equinox' own convolutions.

JAX_ENABLE_X64=1 python -m shared.conformance --impl docs.examples.equinox_networks
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from shared.spec.streams import initial_state


def _convolution(layer, weights):
    """Return a module with its weights in Equinox' layout, OIHW."""
    if layer.kind == "conv":
        build, kernel = eqx.nn.Conv2d, weights["kernel"].transpose(3, 2, 0, 1)
    else:  # HWOI, and flipped: Equinox slides the kernel over an input with gaps
        build, kernel = eqx.nn.ConvTranspose2d, weights["kernel"][::-1, ::-1].transpose(2, 3, 0, 1)
    out, into = kernel.shape[:2]
    bias = weights.get("bias", jnp.zeros(out, kernel.dtype))[:, None, None]
    module = build(into, out, 4, layer.stride, padding=layer.padding, key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.weight, m.bias), module, (kernel, bias))


def _forward(state, network, x, training):
    x = jnp.moveaxis(jnp.asarray(x, state["dtype"]), -1, 1)  # NCHW; latents stay as they are
    for layer in state["spec"].layers(network):
        p = {q.name: state["arrays"][f"{network}/{layer.name}/{q.name}"] for q in layer.parameters}
        if layer.kind in ("conv", "conv_transpose"):
            x = jax.vmap(_convolution(layer, p))(x)
        elif layer.kind == "dense":
            x = x @ p["kernel"] + p["bias"]
        elif layer.kind == "batch_norm":
            axes, shape = (0, 2, 3)[: x.ndim - 1], (-1, *[1] * (x.ndim - 2))
            mean, var = (x.mean(axes), x.var(axes)) if training else (p["mean"], p["var"])
            scale = p["scale"] / jnp.sqrt(var + 1e-5)
            x = (x - mean.reshape(shape)) * scale.reshape(shape) + p["bias"].reshape(shape)
        elif layer.kind == "leaky_relu":
            x = jnp.where(x > 0, x, x * 0.2)
        elif layer.kind == "flatten":  # in HWC order
            x = jnp.moveaxis(x, 1, -1).reshape(len(x), -1)
        elif layer.kind == "reshape":
            x = jnp.moveaxis(x.reshape(len(x), *layer.output_shape), -1, 1)
        else:  # relu, tanh, sigmoid
            x = getattr(jax.nn, layer.kind)(x)
    return np.array(jnp.moveaxis(x, 1, -1))


class Equinox:
    """Both networks; losses and a training step are left to the loop that is to be checked."""

    def create(self, spec, *, seed=0, dtype="float32"):
        """Return a state with the weights that `seed` stands for."""
        state = {"spec": spec, "dtype": dtype}
        self.import_state(state, initial_state(spec, seed))
        return state

    def import_state(self, state, arrays):
        """Replace every array."""
        state["arrays"] = {n: jnp.asarray(a, state["dtype"]) for n, a in arrays.items()}

    def generate(self, state, latents, *, training=False):
        """Return images NHWC."""
        return _forward(state, "generator", latents, training)

    def discriminate(self, state, images, *, training=False):
        """Return scores [batch]."""
        return _forward(state, "discriminator", images, training)[:, 0]


implementation = Equinox()
