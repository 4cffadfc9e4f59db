"""Traps of one framework's Adam, of losses and of saving: all that is not a layer."""

import importlib
from collections.abc import Callable

import numpy as np

from shared.reference.comparison import relative_l2
from shared.reference.optimizers import adam_update
from shared.spec import AdamSpec, Conventions
from tests.docs.trap import Trap, random, tensorflow

_BETA2_09 = AdamSpec(2e-4, 0.5, 0.9, 1e-8)


def adam_error(update: Callable[[np.ndarray, np.ndarray], np.ndarray], dtype: str) -> float:
    """Return the error of the first update of a parameter at 0, gradients from 1e-9 to 1."""
    gradient = np.geomspace(1e-9, 1.0, 50).astype(dtype)
    wide = gradient.astype(np.float64)
    expected = -2e-4 * wide / (np.abs(wide) + 1e-8)
    received = update(np.zeros(50, dtype), gradient)
    return float(np.max(np.abs(received / expected - 1.0)))


def keras_adam(stock: bool, dtype: str = "float64") -> float:
    tf, keras = tensorflow()
    from tf_impl.layers import Adam

    def update(parameter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        variable = keras.Variable(parameter, dtype=dtype)
        if stock:
            optimizer = keras.optimizers.Adam(2e-4, beta_1=0.5, epsilon=1e-8)
            optimizer.apply_gradients([(tf.constant(gradient), variable)])
        else:
            settings = AdamSpec()
            optimizer = Adam(settings.learning_rate, settings.beta1, settings.beta2)
            optimizer.apply([tf.constant(gradient)], [variable])
        return variable.numpy()

    return adam_error(update, dtype)


def torch_adam(amsgrad: bool) -> float:
    """Return the error of the fourth move of a parameter whose gradients become smaller."""
    torch = importlib.import_module("torch")
    parameter = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], 2e-4, (0.5, 0.9), amsgrad=amsgrad)
    expected, m, v = np.zeros(50), np.zeros(50), np.zeros(50)
    for number in range(1, 5):
        gradient = random(50) / 4.0**number
        before = parameter.detach().numpy().copy()
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        update = adam_update(before, gradient, (m, v), number, _BETA2_09, Conventions())
        expected, m, v = update
    return relative_l2(parameter.detach().numpy() - before, expected - before)


def optax_adam(stock: bool, dtype: str) -> float:
    jax = importlib.import_module("jax")
    optax = importlib.import_module("optax")
    from jax_impl.layers import scale_by_adam

    optimizer = optax.adam(2e-4, b1=0.5) if stock else scale_by_adam(0.5, 0.999, 1e-8)
    rate = {} if stock else {"learning_rate": 2e-4}

    def update(parameter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        with jax.enable_x64(dtype == "float64"):
            held = jax.numpy.asarray(parameter)
            state = optimizer.init(held)
            updates, _ = optimizer.update(jax.numpy.asarray(gradient), state, held, **rate)
            return np.array(updates)

    return adam_error(update, dtype)


def broadcast_loss(shape: tuple[int, ...]) -> float:
    """Least squares of scores [batch] against labels of some shape, by broadcasting."""
    scores = random(8)
    expected = 0.5 * np.mean(np.square(scores - np.arange(8)))
    labels = np.arange(8.0).reshape(shape)
    return float(abs(0.5 * np.mean(np.square(scores - labels)) / expected - 1.0))


def torch_softplus_threshold(stock: bool) -> float:
    torch = importlib.import_module("torch")
    from pytorch_impl.losses import binary_cross_entropy_with_logits

    x = torch.tensor([20.5], dtype=torch.float64)
    loss = torch.nn.functional.softplus(x) if stock else binary_cross_entropy_with_logits(x, 0.0)
    truth = np.log1p(np.exp(-20.5))  # the part that is lost beside x
    return float(abs((loss - x)[0].item() / truth - 1.0))


def sigmoid_then_bce(stock: bool) -> float:
    """Return the error of the loss on a fake score of 17 in float32: -log(1 - σ(17)) = 17."""
    torch = importlib.import_module("torch")
    from pytorch_impl.losses import LOSSES

    score = torch.tensor([17.0])
    probability = torch.sigmoid(score)
    loss = (
        LOSSES["bce_probs"].discriminator_fake(probability)
        if stock
        else LOSSES["bce"].discriminator_fake(score)
    )
    return abs(float(loss) / (17.0 + np.log1p(np.exp(-17.0))) - 1.0)


def tf_function_gradient(stock: bool) -> float:
    """Return the error of the gradient of -log σ(x) at x = 20, float32, inside a tf.function."""
    tf, _ = tensorflow()
    from tf_impl.losses import binary_cross_entropy_with_logits

    @tf.function
    def gradient(x: object) -> object:
        with tf.GradientTape() as tape:
            tape.watch(x)
            if stock:
                labels = tf.ones_like(x)
                y = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=x)
            else:
                y = binary_cross_entropy_with_logits(x, 1.0)
        return tape.gradient(y, x)

    truth = -1.0 / (1.0 + np.exp(20.0))
    return abs(float(gradient(tf.constant([20.0]))[0]) / truth - 1.0)


def safetensors_of_a_view(stock: bool) -> float:
    """Save a transposed view; safetensors.numpy writes its memory, not its values."""
    from safetensors.numpy import load, save

    array = random(4, 6).T
    content = save({"array": array if stock else np.ascontiguousarray(array)})
    return relative_l2(load(content)["array"], array)


LOSS_AND_UPDATE_TRAPS = [
    Trap("adam-amsgrad", lambda: torch_adam(True), lambda: torch_adam(False), framework="pytorch"),
    Trap("keras-adam", lambda: keras_adam(True), lambda: keras_adam(False), framework="tf"),
    Trap(
        "optax-adam-float32",
        lambda: optax_adam(True, "float32"),
        lambda: optax_adam(False, "float32"),
        bound=1e-6,  # eight float32 roundings
        framework="jax",
    ),
    Trap("broadcast-labels", lambda: broadcast_loss((8, 1)), lambda: broadcast_loss((8,))),
    Trap(
        "torch-softplus-threshold",
        lambda: torch_softplus_threshold(True),
        lambda: torch_softplus_threshold(False),
        bound=1e-5,  # 20.5 holds the small part of the loss to 3.6e-15 of 1.2e-9
        framework="pytorch",
    ),
    Trap(
        "sigmoid-then-bce",
        lambda: sigmoid_then_bce(True),
        lambda: sigmoid_then_bce(False),
        bound=1e-6,
        framework="pytorch",
    ),
    Trap(
        "tf-function-gradient",
        lambda: tf_function_gradient(True),
        lambda: tf_function_gradient(False),
        bound=1e-6,
        framework="tf",
    ),
    Trap(
        "safetensors-view",
        lambda: safetensors_of_a_view(True),
        lambda: safetensors_of_a_view(False),
    ),
]
