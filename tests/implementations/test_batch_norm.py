"""Batch normalisation of each framework, as the implementation builds it, against the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from shared.interface import Implementation
from shared.reference.layers import batch_norm_forward, running_statistics
from shared.spec.compute import Compute
from tests.comparison import MismatchError, require_close

FEATURES, STEPS, EPSILON, MOMENTUM = 5, 10, 1e-5, 0.1
# Relative L2 of outputs and running statistics. Two numbers are the worst case: the output divides
# by their difference, whose relative rounding error is that of the numbers times |mean|/deviation.
# Measured in the three at most 5e-15 and 2e-6 (with 32 or 1,024 numbers 1.3e-15 and 8e-7). The
# smallest planted fault, the biased variance of 1,024 numbers, shows at 7.5e-4.
BOUNDS = {"float64": 5e-14, "float32": 2e-5}
# Mean 100 and deviation 0.1 in float32: the batch's mean is known to 6e-8 · 100 = 6e-6 and more,
# 1e-4 deviations. Measured 3.2e-4 and 4e-7; E[x²] - E[x]² is 4e-2 off (8e-2 in the variance).
LARGE_MEAN = {"mean": 100.0, "deviation": 0.1, "steps": 3}
LARGE_MEAN_BOUNDS = (2e-3, 2e-6)
# Images [batch, size, size, FEATURES]: 2, 32 and 1,024 numbers for a variance, whose
# n/(n - 1) are 2, 1.03 and 1.001.
SHAPES = ((2, 1), (2, 4), (64, 4))


@dataclass
class PyTorchLayer:
    module: Any

    @classmethod
    def create(cls, dtype: str) -> PyTorchLayer:
        import torch

        from pytorch_impl.fast import fast_layers

        return cls(fast_layers(getattr(torch, dtype)).batch_norm(FEATURES))

    def set_affine(self, scale: np.ndarray, bias: np.ndarray) -> None:
        import torch

        with torch.no_grad():
            self.module.weight.copy_(torch.from_numpy(scale))
            self.module.bias.copy_(torch.from_numpy(bias))

    def __call__(self, x: np.ndarray, training: bool) -> np.ndarray:
        import torch

        y = self.module.train(training)(torch.from_numpy(x).permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1).detach().numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return self.module.running_mean.numpy().copy(), self.module.running_var.numpy().copy()


@dataclass
class KerasLayer:
    layer: Any

    @classmethod
    def create(cls, dtype: str) -> KerasLayer:
        from tf_impl.fast import fast_layers

        return cls(fast_layers(dtype, Compute()).batch_norm(FEATURES))

    @classmethod
    def of(cls, layer: Any) -> KerasLayer:
        layer.build((None, None, None, FEATURES))
        return cls(layer)

    def set_affine(self, scale: np.ndarray, bias: np.ndarray) -> None:
        for variable, value in zip(self.layer.trainable_variables, (scale, bias), strict=True):
            variable.assign(value)

    def __call__(self, x: np.ndarray, training: bool) -> np.ndarray:
        import tensorflow as tf

        return self.layer(tf.constant(x), training=training).numpy()

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        mean, var = (v.numpy() for v in self.layer.non_trainable_variables)
        return mean, var


@dataclass
class FlaxLayer:
    module: Any

    @classmethod
    def create(cls, dtype: str) -> FlaxLayer:
        import jax.numpy as jnp

        from jax_impl.layers import BatchNorm

        return cls(BatchNorm(FEATURES, dtype=jnp.dtype(dtype)))

    def set_affine(self, scale: np.ndarray, bias: np.ndarray) -> None:
        import jax.numpy as jnp

        self.module.scale[...] = jnp.asarray(scale)
        self.module.bias[...] = jnp.asarray(bias)

    def __call__(self, x: np.ndarray, training: bool) -> np.ndarray:
        import jax.numpy as jnp

        self.module.use_running_average = not training
        return np.array(self.module(jnp.asarray(x)))

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.module.mean[...]), np.array(self.module.var[...])


class StockFlaxLayer(FlaxLayer):
    def __call__(self, x: np.ndarray, training: bool) -> np.ndarray:
        import jax.numpy as jnp

        return np.array(self.module(jnp.asarray(x), use_running_average=not training))


LAYERS = {"pytorch": PyTorchLayer, "tf": KerasLayer, "jax": FlaxLayer}


def batch(step: int, shape: tuple[int, int], dtype: str, mean: float, deviation: float) -> Any:
    """Return one step's input; every step and feature has its own mean and spread."""
    draw = np.random.default_rng(step)
    means = mean + deviation * draw.standard_normal(FEATURES)
    deviations = deviation * draw.uniform(0.5, 2.0, FEATURES)
    size = (shape[0], shape[1], shape[1], FEATURES)
    return (means + deviations * draw.standard_normal(size)).astype(dtype)


def require_the_spec(
    layer: Any,
    shape: tuple[int, int],
    dtype: str,
    bounds: tuple[float, float],
    *,
    mean: float = 0.5,
    deviation: float = 1.0,
    steps: int = STEPS,
) -> None:
    """Train `steps` steps, then infer; `bounds` are of the outputs and of the statistics."""
    draw = np.random.default_rng(99)
    scale = draw.uniform(0.5, 1.5, FEATURES).astype(dtype)
    bias = draw.standard_normal(FEATURES).astype(dtype)
    layer.set_affine(scale, bias)
    affine = (scale.astype(np.float64), bias.astype(np.float64))
    running = (np.zeros(FEATURES), np.ones(FEATURES))
    for step in range(1, steps + 1):
        x = batch(step, shape, dtype, mean, deviation)
        wide = x.astype(np.float64)
        expected, _, *moments = batch_norm_forward(wide, *affine, EPSILON)
        count = x.size // FEATURES
        running = running_statistics(running, tuple(moments), count, MOMENTUM, "unbiased")
        require_close(
            f"output after step {step}", layer(x, True), expected, bound=bounds[0], dtype=dtype
        )
        for name, actual, truth in zip(
            ("running mean", "running variance"), layer.statistics(), running, strict=True
        ):
            what = f"{name} after step {step}"
            require_close(what, actual, truth, bound=bounds[1], dtype=dtype)
    # From the layer's own statistics: what is held here is the inference, not their rounding.
    own = tuple(a.astype(np.float64) for a in layer.statistics())
    expected, *_ = batch_norm_forward(wide, *affine, EPSILON, running=own)
    what = "output by running statistics"
    require_close(what, layer(x, False), expected, bound=BOUNDS[dtype], dtype=dtype)
    for before, after in zip(own, layer.statistics(), strict=True):
        assert np.array_equal(before, after), "inference moved the running statistics"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_modes_follow_the_spec(
    implementation: Implementation, dtype: str, shape: tuple[int, int]
) -> None:
    layer = LAYERS[implementation.name].create(dtype)
    require_the_spec(layer, shape, dtype, (BOUNDS[dtype], BOUNDS[dtype]))


def test_a_large_mean_leaves_the_variance_right(implementation: Implementation) -> None:
    layer = LAYERS[implementation.name].create("float32")
    require_the_spec(layer, (64, 4), "float32", LARGE_MEAN_BOUNDS, **LARGE_MEAN)


@pytest.mark.parametrize(("kind", "parts"), [("global", 1), ("per-replica", 2)])
def test_flax_normalises_each_replicas_rows_where_it_is_told_to(kind: str, parts: int) -> None:
    """On one device: which rows share a statistic is the layer's own affair."""
    jax = pytest.importorskip("jax")
    from jax_impl.state import choose_layers

    compute = Compute(device="cpu", dtype="float64", devices=2, batch_norm=kind)
    x = batch(0, (6, 2), "float64", 0.5, 1.0)
    rows = np.split(x, parts)
    made = [batch_norm_forward(own, 1.0, 0.0, EPSILON) for own in rows]
    start, count = (np.zeros(FEATURES), np.ones(FEATURES)), rows[0].size // FEATURES
    moved = [running_statistics(start, m, count, MOMENTUM, "unbiased") for _, _, *m in made]
    with jax.enable_x64(True):
        layer = FlaxLayer(choose_layers(compute).batch_norm(FEATURES))
        y, statistics = layer(x, True), layer.statistics()
    bounds = {"bound": BOUNDS["float64"], "dtype": "float64"}
    require_close("output", y, np.concatenate([own[0] for own in made]), **bounds)
    require_close("running", np.stack(statistics), np.mean(moved, axis=0), **bounds)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stock_keras_is_caught(shape: tuple[int, int]) -> None:
    """With the spec's momentum and epsilon its running variance is still the biased one."""
    keras = pytest.importorskip("keras")
    stock = keras.layers.BatchNormalization(momentum=0.9, epsilon=EPSILON, dtype="float32")
    bounds = (BOUNDS["float32"], BOUNDS["float32"])
    with pytest.raises(MismatchError, match="running variance after step 1: relative L2"):
        require_the_spec(KerasLayer.of(stock), shape, "float32", bounds)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "running mean"),  # its momentum is 0.99
        ({"momentum": 0.9}, "running variance"),  # biased
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stock_flax_is_caught(shape: tuple[int, int], options: dict, found: str) -> None:
    nnx = pytest.importorskip("flax.nnx")
    stock = StockFlaxLayer(nnx.BatchNorm(FEATURES, rngs=nnx.Rngs(0), **options))
    bounds = (BOUNDS["float32"], BOUNDS["float32"])
    with pytest.raises(MismatchError, match=f"{found} after step 1: relative L2"):
        require_the_spec(stock, shape, "float32", bounds)


def test_the_fast_variance_of_flax_is_caught() -> None:
    """E[x²] - E[x]², Flax' default, cancels where the mean is large."""
    nnx = pytest.importorskip("flax.nnx")
    stock = StockFlaxLayer(nnx.BatchNorm(FEATURES, momentum=0.9, rngs=nnx.Rngs(0)))
    with pytest.raises(MismatchError, match="output after step 1: relative L2"):
        require_the_spec(stock, (64, 4), "float32", LARGE_MEAN_BOUNDS, **LARGE_MEAN)
