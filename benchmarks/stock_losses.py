"""Our losses beside the ones that each framework brings along, for `python -m shared.accuracy`.

Every formula takes scores and a target, 0 or 1, and gives the loss of each score and its
derivative. The stock ones are called as their documentation calls them, with no reduction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.studies.accuracy_sweep import OURS, Formula, Results

# What softplus is, without a derivative of its own.
WRITTEN_OUT = "relu(±x) + log1p(exp(-abs(x)))"

Function = Callable[[Any, float], Any]  # scores of the framework, target → loss of each score
Functions = dict[tuple[str, str], Function]  # (loss, name of the formula) → function


def formulas(framework: str) -> list[Formula]:
    """Return every formula of "pytorch", "tf" or "jax", in the order of the tables."""
    return {"pytorch": _pytorch, "tf": _tf, "jax": _jax}[framework]()


def _pytorch() -> list[Formula]:
    import torch

    def evaluate(function: Function, x: np.ndarray, target: float, dtype: str) -> Results:
        scores = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
        values = function(scores, target).to(scores.dtype)
        (gradients,) = torch.autograd.grad(values, scores, torch.ones_like(values))
        return values.detach().double().numpy(), gradients.double().numpy()

    return _formulas("pytorch", _pytorch_functions(), {"eager": evaluate})


def _pytorch_functions() -> Functions:
    import torch
    import torch.nn.functional as F
    from torch import nn

    from pytorch_impl.losses import LOSSES

    def module(kind: Any) -> Function:
        return lambda x, y: kind(reduction="none")(x, torch.full_like(x, y))

    return {
        ("bce", OURS): LOSSES["bce"].each,
        ("bce", "F.softplus(±x)"): lambda x, y: F.softplus(-x if y else x),
        ("bce", WRITTEN_OUT): (
            lambda x, y: F.relu(-x if y else x) + torch.log1p(torch.exp(-torch.abs(x)))
        ),
        ("bce", "BCEWithLogitsLoss"): module(nn.BCEWithLogitsLoss),
        ("bce", "BCELoss(sigmoid(x))"): lambda x, y: module(nn.BCELoss)(torch.sigmoid(x), y),
        ("bce_probs", OURS): LOSSES["bce_probs"].each,
        ("bce_probs", "-log(p), -log(1 - p)"): lambda p, y: -torch.log(p if y else 1 - p),
        ("lsgan", OURS): LOSSES["lsgan"].each,
        ("lsgan", "0.5 * MSELoss"): lambda x, y: 0.5 * module(nn.MSELoss)(x, y),
    }


def _tf() -> list[Formula]:
    import tensorflow as tf

    def evaluate(
        run: Callable[..., Any], function: Function, x: np.ndarray, target: float, dtype: str
    ) -> Results:
        def both(scores: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                tape.watch(scores)
                values = tf.cast(function(scores, target), scores.dtype)
            return values, tape.gradient(values, scores)

        scores = tf.cast(tf.constant(x), dtype)
        results = run(both, scores)
        values, gradients = (result.numpy().astype(np.float64) for result in results)
        return values, gradients

    def compiled(both: Callable[[Any], Any], scores: Any) -> Any:
        # Without autograph, which looks for the source code of a lambda.
        return tf.function(both, autograph=False).get_concrete_function(scores)(scores)

    return _formulas(
        "tf",
        _tf_functions(),
        {
            "eager": lambda *arguments: evaluate(lambda f, x: f(x), *arguments),
            "tf.function": lambda *arguments: evaluate(compiled, *arguments),
        },
    )


def _tf_functions() -> Functions:
    import keras
    import tensorflow as tf

    from tf_impl.losses import LOSSES

    def keras_loss(name: str, **options: bool) -> Function:
        # The mean is taken over the last axis.
        loss = getattr(keras.losses, name)(reduction=None, **options)
        return lambda x, y: loss(tf.fill([x.shape[0], 1], _like(y, x)), x[:, None])

    cross_entropy = keras_loss("BinaryCrossentropy")
    from_logits = keras_loss("BinaryCrossentropy", from_logits=True)
    squared = keras_loss("MeanSquaredError")
    return {
        ("bce", OURS): LOSSES["bce"].each,
        ("bce", "tf.nn.sigmoid_cross_entropy_with_logits"): (
            lambda x, y: tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(x.shape, _like(y, x)), x)
        ),
        ("bce", "tf.nn.softplus(±x)"): lambda x, y: tf.nn.softplus(-x if y else x),
        ("bce", WRITTEN_OUT): (
            lambda x, y: tf.nn.relu(-x if y else x) + tf.math.log1p(tf.exp(-tf.abs(x)))
        ),
        ("bce", "BinaryCrossentropy(from_logits=True)"): from_logits,
        ("bce", "BinaryCrossentropy()(sigmoid(x))"): lambda x, y: cross_entropy(tf.sigmoid(x), y),
        ("bce_probs", OURS): LOSSES["bce_probs"].each,
        ("bce_probs", "BinaryCrossentropy()"): cross_entropy,
        ("lsgan", OURS): LOSSES["lsgan"].each,
        ("lsgan", "0.5 * MeanSquaredError()"): lambda x, y: 0.5 * squared(x, y),
    }


def _like(number: float, tensor: Any) -> Any:
    import tensorflow as tf

    return tf.constant(number, tensor.dtype)


def _jax() -> list[Formula]:
    import jax
    import jax.numpy as jnp

    def evaluate(
        wrap: Callable[[Any], Any], function: Function, x: np.ndarray, target: float, dtype: str
    ) -> Results:
        def both(scores: Any) -> tuple[Any, Any]:
            values, backward = jax.vjp(lambda s: function(s, target).astype(s.dtype), scores)
            return values, backward(jnp.ones_like(values))[0]

        with jax.enable_x64(dtype == "float64"):
            results = wrap(both)(jnp.asarray(x, dtype))
            values, gradients = (np.asarray(result).astype(np.float64) for result in results)
        return values, gradients

    runs = {
        "eager": lambda *arguments: evaluate(lambda f: f, *arguments),
        "jax.jit": lambda *arguments: evaluate(jax.jit, *arguments),
    }
    return _formulas("jax", _jax_functions(), runs)


def _jax_functions() -> Functions:
    import jax
    import jax.numpy as jnp
    import optax

    from jax_impl.losses import LOSSES

    return {
        ("bce", OURS): LOSSES["bce"].each,
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
        ("bce_probs", OURS): LOSSES["bce_probs"].each,
        ("bce_probs", "-log(p), -log(1 - p)"): lambda p, y: -jnp.log(p if y else 1 - p),
        ("lsgan", OURS): LOSSES["lsgan"].each,
        ("lsgan", "optax l2_loss"): lambda x, y: optax.losses.l2_loss(x, jnp.full_like(x, y)),
    }


def _formulas(
    framework: str, functions: Functions, runs: dict[str, Callable[..., Results]]
) -> list[Formula]:
    """Return every function under every way of running it."""

    def bind(evaluate: Callable[..., Results], function: Function) -> Callable[..., Results]:
        return lambda x, target, dtype: evaluate(function, x, target, dtype)

    return [
        Formula(framework, loss, name, run, bind(evaluate, function))
        for (loss, name), function in functions.items()
        for run, evaluate in runs.items()
    ]
