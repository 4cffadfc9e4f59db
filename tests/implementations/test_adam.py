"""Adam of each framework, as the implementation builds it, against Kingma & Ba's Algorithm 1."""

from collections.abc import Callable

import numpy as np
import pytest

from shared.interface import Implementation
from shared.reference.optimizers import adam_update
from shared.spec import AdamSpec, Conventions
from tests.comparison import MismatchError, require_close, require_same_kind
from tests.tiers import SLOW_IN_TF_AND_JAX

STEPS = 1000
EPSILONS = (1e-8, 1e-7, 1e-3)
QUICK_AND_SLOW_EPSILONS = [
    EPSILONS[0],
    *(pytest.param(epsilon, marks=SLOW_IN_TF_AND_JAX) for epsilon in EPSILONS[1:]),
]
# Each element's gradients keep one magnitude, so that every size is compared with every epsilon.
MAGNITUDES = np.geomspace(1e-9, 10.0, 21)
# Relative L2 of the parameter, m and v. float64: measured at most 3.6e-15 (PyTorch's bias
# corrections go through β ** t) and 1.5e-15. float32: β₂ = 0.999 is rounded by 1.3e-8, which moves
# v by 5.4e-6 after 1,000 updates whoever computes it; measured 5.7e-6, parameters 1.5e-6.
BOUNDS = {"float64": 1e-14, "float32": 1e-5}
# At the first ten updates β₂'s rounding has not yet told: measured at most 2.0e-7. Stock optax is
# 6e-6 off at update 1, stock Keras 4.2e-1.
FIRST, FIRST_BOUND = 10, 1e-6

Update = Callable[[np.ndarray], None]
Export = Callable[[], dict[str, np.ndarray]]
Optimizer = tuple[Update, Export]


def pytorch_adam(settings: AdamSpec, start: np.ndarray) -> Optimizer:
    import torch

    from pytorch_impl.layers import create_adam

    network = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(start.copy()))])
    optimizer = create_adam(network, settings)
    (parameter,) = network

    def update(gradient: np.ndarray) -> None:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()

    def export() -> dict[str, np.ndarray]:
        held = optimizer.state[parameter]
        tensors = {"parameter": parameter, "m": held["exp_avg"], "v": held["exp_avg_sq"]}
        return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}

    return update, export


def tf_adam(settings: AdamSpec, start: np.ndarray) -> Optimizer:
    import keras
    import tensorflow as tf

    from tf_impl.fast import Adam
    from tf_impl.layers import create_adam

    layer = keras.layers.Layer(dtype=str(start.dtype))
    parameter = layer.add_weight(shape=start.shape)
    parameter.assign(start)
    optimizer = create_adam(layer, settings, Adam)
    apply = tf.function(lambda gradient: optimizer.apply([gradient]))

    def export() -> dict[str, np.ndarray]:
        (m,), (v,) = optimizer.first_moments, optimizer.second_moments
        return {"parameter": parameter.numpy(), "m": m.numpy(), "v": v.numpy()}

    return lambda gradient: apply(tf.constant(gradient)), export


def jax_adam(settings: AdamSpec, start: np.ndarray) -> Optimizer:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jax_impl.layers import create_adam

    network = nnx.Dict(parameter=nnx.Param(jnp.asarray(start)))
    optimizer = create_adam(network, settings)

    @nnx.jit
    def step(network: nnx.Dict, optimizer: nnx.Optimizer, gradient: jax.Array) -> None:
        optimizer.update(network, nnx.State({"parameter": nnx.Param(gradient)}))

    def export() -> dict[str, np.ndarray]:
        m, v = (moments["parameter"] for moments in optimizer.opt_state[1:])
        variables = {"parameter": network["parameter"], "m": m, "v": v}
        return {name: np.array(variable[...]) for name, variable in variables.items()}

    return lambda gradient: step(network, optimizer, jnp.asarray(gradient)), export


def optax_optimizer(transformation: object, start: np.ndarray) -> Optimizer:
    import jax
    import jax.numpy as jnp
    import optax

    @jax.jit
    def step(gradient: jax.Array, parameter: jax.Array, state: tuple) -> tuple:
        updates, state = transformation.update(gradient, state, parameter)
        return optax.apply_updates(parameter, updates), state

    held = {"parameter": jnp.asarray(start)}
    held["state"] = transformation.init(held["parameter"])

    def update(gradient: np.ndarray) -> None:
        arrays = step(jnp.asarray(gradient), held["parameter"], held["state"])
        held["parameter"], held["state"] = arrays

    def export() -> dict[str, np.ndarray]:
        moments = held["state"][0]
        arrays = {"parameter": held["parameter"], "m": moments.mu, "v": moments.nu}
        return {name: np.array(array) for name, array in arrays.items()}

    return update, export


OPTIMIZERS = {"pytorch": pytorch_adam, "tf": tf_adam, "jax": jax_adam}


def gradients(step: int, dtype: str) -> np.ndarray:
    """Return gradients of both signs around each magnitude."""
    draw = np.random.default_rng(step)
    signs = draw.choice([-1.0, 1.0], MAGNITUDES.shape)
    return (MAGNITUDES * signs * draw.uniform(0.5, 1.0, MAGNITUDES.shape)).astype(dtype)


def require_algorithm_1(
    optimizer: Optimizer, settings: AdamSpec, dtype: str, steps: int, bound: float
) -> dict[str, float]:
    """Compare after every update; return the largest differences of parameter, m and v.

    The parameter starts at 0 and the learning rate is 1: what is compared is Adam's own
    arithmetic, not the rounding of a small update into a large weight. Every number is divided by
    the size that its gradient's magnitude gives it, so that the largest do not hide the others.
    """
    update, export = optimizer
    sizes = (MAGNITUDES / (MAGNITUDES + settings.epsilon), MAGNITUDES, np.square(MAGNITUDES))
    zeros = np.zeros(MAGNITUDES.shape)
    expected, worst = (zeros, zeros, zeros), dict.fromkeys(("parameter", "m", "v"), 0.0)
    for step in range(1, steps + 1):
        g = gradients(step, dtype)
        update(g)
        g = g.astype(np.float64)
        expected = adam_update(expected[0], g, expected[1:], step, settings, Conventions())
        exported = export()
        for name, truth, size in zip(worst, expected, sizes, strict=True):
            what = f"{name} after update {step}"
            require_same_kind(what, exported[name], truth.shape, dtype)
            actual = exported[name] / size  # float64, as size is
            found = require_close(what, actual, truth / size, bound=bound, dtype="float64")
            worst[name] = max(worst[name], found)
    return worst


def zeros(dtype: str) -> np.ndarray:
    return np.zeros(MAGNITUDES.shape, dtype)


@pytest.mark.parametrize("epsilon", QUICK_AND_SLOW_EPSILONS)
def test_a_thousand_updates_follow_algorithm_1(
    implementation: Implementation, dtype: str, epsilon: float
) -> None:
    settings = AdamSpec(learning_rate=1.0, epsilon=epsilon)
    optimizer = OPTIMIZERS[implementation.name](settings, zeros(dtype))
    require_algorithm_1(optimizer, settings, dtype, STEPS, BOUNDS[dtype])


@pytest.mark.parametrize("epsilon", QUICK_AND_SLOW_EPSILONS)
def test_the_first_updates_are_right_in_float32(
    implementation: Implementation, epsilon: float
) -> None:
    """1 - β₂ᵗ formed in float32 would be off by 1e-5 here, and by less at every later update."""
    settings = AdamSpec(learning_rate=1.0, epsilon=epsilon)
    optimizer = OPTIMIZERS[implementation.name](settings, zeros("float32"))
    require_algorithm_1(optimizer, settings, "float32", FIRST, FIRST_BOUND)


def test_no_gradient_moves_nothing(implementation: Implementation, dtype: str) -> None:
    update, export = OPTIMIZERS[implementation.name](AdamSpec(), zeros(dtype))
    update(zeros(dtype))
    for name, array in export().items():
        assert np.array_equal(array, zeros(dtype)), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stock_keras_is_caught(dtype: str) -> None:
    """It adds epsilon before the bias correction: no constant epsilon is Algorithm 1's."""
    keras = pytest.importorskip("keras")
    import tensorflow as tf

    settings = AdamSpec(learning_rate=1.0)
    parameter = keras.Variable(zeros(dtype), dtype=dtype)
    stock = keras.optimizers.Adam(1.0, settings.beta1, settings.beta2, settings.epsilon)
    stock.build([parameter])

    def export() -> dict[str, np.ndarray]:
        (m,), (v,) = stock._momentums, stock._velocities
        return {"parameter": parameter.numpy(), "m": m.numpy(), "v": v.numpy()}

    optimizer = (lambda g: stock.apply([tf.constant(g)]), export)
    # Measured 4.2e-1: at the smallest gradients ε is larger than √v, 30 times more than meant.
    with pytest.raises(MismatchError, match="parameter after update 1: relative L2"):
        require_algorithm_1(optimizer, settings, dtype, 1, FIRST_BOUND)


def test_stock_optax_is_caught_in_float32() -> None:
    """It forms 1 - βᵗ in the parameters' dtype."""
    optax = pytest.importorskip("optax")
    settings = AdamSpec(learning_rate=1.0)
    stock = optax.adam(1.0, settings.beta1, settings.beta2, settings.epsilon)
    with pytest.raises(MismatchError, match="parameter after update 1: relative L2"):
        require_algorithm_1(
            optax_optimizer(stock, zeros("float32")), settings, "float32", 1, FIRST_BOUND
        )


@pytest.mark.parametrize(
    "deviation",
    [
        {"adam_epsilon_placement": "before_correction"},
        {"adam_epsilon_placement": "inside_root"},
        {"adam_epsilon": 1e-7},
        {"adam_beta2": float(np.float32(0.999))},
        {"adam_bias_correction": False},
    ],
    ids=str,
)
def test_another_form_of_adam_is_caught(deviation: dict) -> None:
    settings = AdamSpec(learning_rate=1.0)
    held = [zeros("float64")] * 3
    step = 0

    def update(gradient: np.ndarray) -> None:
        nonlocal step
        step += 1
        conventions = Conventions(**deviation)
        held[:] = adam_update(held[0], gradient, tuple(held[1:]), step, settings, conventions)

    optimizer = (update, lambda: dict(zip(("parameter", "m", "v"), held, strict=True)))
    with pytest.raises(MismatchError, match="after update 1: relative L2"):
        require_algorithm_1(optimizer, settings, "float64", 1, BOUNDS["float64"])
