"""The systems of `shared.spec` in JAX: Flax NNX modules, Optax, one jitted step, NHWC."""
