"""The systems of `shared.spec` in JAX: Flax NNX modules, Optax, one jitted step, NHWC."""

from shared.interface import require_framework

require_framework("jax")
