"""A DCGAN generator as one writes it first in JAX, with the mistake of docs/explain.md.

JAX_ENABLE_X64=1 python -m shared.explain docs.examples.naive_jax
"""

import jax
import jax.numpy as jnp
import numpy as np

from shared.spec.streams import initial_state


def _conv_transpose(x, kernel, stride, padding):
    kernel = kernel.transpose(0, 1, 3, 2)  # HWOI → HWIO, which is what lax asks for
    return jax.lax.conv_transpose(x, kernel, (stride, stride), "SAME" if padding else "VALID")


def _batch_norm(x, p, training):
    axes = tuple(range(x.ndim - 1))
    mean, var = (x.mean(axes), x.var(axes)) if training else (p["mean"], p["var"])
    return (x - mean) / jnp.sqrt(var + 1e-5) * p["scale"] + p["bias"]


class NaiveGenerator:
    """The generator alone; the rest of the system is not ported yet."""

    name = "naive_jax"

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
        x = jnp.asarray(latents, state["dtype"])
        for layer in state["spec"].layers("generator"):
            prefix = f"generator/{layer.name}"
            p = {q.name: state["arrays"][f"{prefix}/{q.name}"] for q in layer.parameters}
            if layer.kind == "conv_transpose":
                x = _conv_transpose(x, p["kernel"], layer.stride, layer.padding)
            elif layer.kind == "batch_norm":
                x = _batch_norm(x, p, training)
            elif layer.kind == "reshape":
                x = x.reshape(len(x), *layer.output_shape)
            else:
                x = getattr(jnp if layer.kind == "tanh" else jax.nn, layer.kind)(x)
        return np.array(x)


implementation = NaiveGenerator()
