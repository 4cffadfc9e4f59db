"""Our losses beside JAX' and Optax' own, called as documented: the tables of docs/losses.md."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_impl.losses import LOSSES
from shared.interface import Array
from shared.studies.accuracy import Results
from tests.studies.stock_losses import WRITTEN_OUT, Formula, make_formulas

Function = Callable[[jax.Array, float], jax.Array]  # scores, target → loss of each score

FUNCTIONS: dict[tuple[str, str], Function] = {
    ("bce", "jax.nn.softplus(±x)"): lambda x, y: jax.nn.softplus(-x if y else x),
    ("bce", WRITTEN_OUT): (
        lambda x, y: jax.nn.relu(-x if y else x) + jnp.log1p(jnp.exp(-jnp.abs(x)))
    ),
    ("bce", "optax sigmoid_binary_cross_entropy"): (
        lambda x, y: optax.losses.sigmoid_binary_cross_entropy(x, jnp.full_like(x, y))
    ),
    ("bce", "-log(sigmoid(x)), -log(1 - sigmoid(x))"): (
        lambda x, y: -jnp.log(jax.nn.sigmoid(x) if y else 1 - jax.nn.sigmoid(x))
    ),
    ("bce_probs", "-log(p), -log(1 - p)"): lambda p, y: -jnp.log(p if y else 1 - p),
    ("lsgan", "optax l2_loss"): lambda x, y: optax.losses.l2_loss(x, jnp.full_like(x, y)),
}


def _run(compiled: bool, function: Function, x: Array, target: float, dtype: str) -> Results:
    def both(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, backward = jax.vjp(lambda s: function(s, target).astype(s.dtype), scores)
        return values, backward(jnp.ones_like(values))[0]

    with jax.enable_x64(dtype == "float64"):
        results = (jax.jit(both) if compiled else both)(jnp.asarray(x, dtype))
        values, gradients = (np.asarray(result).astype(np.float64) for result in results)
    return values, gradients


def loss_formulas() -> list[Formula]:
    """Return every formula under every way of running it, in the order of the tables."""
    runs = {"eager": functools.partial(_run, False), "jax.jit": functools.partial(_run, True)}
    return make_formulas("jax", LOSSES, FUNCTIONS, runs)
