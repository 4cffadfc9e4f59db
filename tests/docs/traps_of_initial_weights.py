"""Traps of initial weights: a truncated normal's cut, and what a dense layer draws by itself."""

import importlib
from collections.abc import Callable

import numpy as np

from shared.interface import load_implementation
from shared.spec import SYSTEMS
from tests.docs.trap import Trap, tensorflow

DEVIATION_WITHIN_TWO = 0.87962566103423978  # of a standard normal number that is cut at 2


def truncated_normals() -> dict[str, Callable[[], np.ndarray]]:
    """Return each framework's draws of a truncated normal of 0.02, cut as its user asks for it."""
    shape = (4, 4, 64, 128)

    def pytorch(**cut: float) -> np.ndarray:
        torch = importlib.import_module("torch")
        drawn = torch.nn.init.trunc_normal_(
            torch.empty(shape), std=0.02, generator=torch.Generator().manual_seed(0), **cut
        )
        return drawn.numpy()

    def tf() -> np.ndarray:
        return tensorflow()[0].random.stateless_truncated_normal(shape, (0, 0), stddev=0.02).numpy()

    def keras() -> np.ndarray:
        return tensorflow()[1].initializers.TruncatedNormal(stddev=0.02, seed=0)(shape).numpy()

    def keras_scaled() -> np.ndarray:
        scaling = tensorflow()[1].initializers.VarianceScaling
        draw = scaling(0.02**2 * 1024, "fan_in", "truncated_normal", seed=0)
        return draw(shape).numpy()

    def jax(scaled: bool = False) -> np.ndarray:
        module = importlib.import_module("jax")
        draw = module.nn.initializers.truncated_normal(0.02)
        if scaled:
            scaling = module.nn.initializers.variance_scaling
            draw = scaling(0.02**2 * 1024, "fan_in", "truncated_normal")
        return np.asarray(draw(module.random.key(0), shape))

    return {
        "pytorch": pytorch,
        "pytorch cut": lambda: pytorch(a=-0.04, b=0.04),
        "tf": tf,
        "tf keras": keras,
        "tf keras scaled": keras_scaled,
        "jax": jax,
        "jax scaled": lambda: jax(scaled=True),
    }


def truncated_normal(name: str) -> float:
    """Return the error of the standard deviation against a cut at twice 0.02."""
    drawn = truncated_normals()[name]()
    return abs(float(drawn.std(dtype=np.float64)) / (0.02 * DEVIATION_WITHIN_TWO) - 1.0)


def fresh_dense_layers() -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """Return kernel and bias of a fresh dense layer, 784 to 256, of each framework's own."""

    def pytorch() -> tuple[np.ndarray, np.ndarray]:
        torch = importlib.import_module("torch")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = torch.nn.Linear(784, 256)
        return layer.weight.detach().numpy().T, layer.bias.detach().numpy()

    def tf() -> tuple[np.ndarray, np.ndarray]:
        _, keras = tensorflow()
        layer = keras.layers.Dense(256, kernel_initializer=keras.initializers.GlorotUniform(0))
        assert type(keras.layers.Dense(256).kernel_initializer) is keras.initializers.GlorotUniform
        layer.build((None, 784))
        return layer.kernel.numpy(), layer.bias.numpy()

    def jax() -> tuple[np.ndarray, np.ndarray]:
        nnx = importlib.import_module("flax.nnx")
        layer = nnx.Linear(784, 256, rngs=nnx.Rngs(0))
        return np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])

    return {"pytorch": pytorch, "tf": tf, "jax": jax}


def dense_default_init(framework: str) -> float:
    """Return the error of the kernel's standard deviation against `torch.nn.Linear`'s."""
    return deviation_error(fresh_dense_layers()[framework]()[0])


def mlp28_init(framework: str) -> float:
    """Return the same of our own mlp28, whose discriminator begins with such a layer."""
    implementation = load_implementation(framework)
    state = implementation.create(SYSTEMS["mlp28"], dtype="float32")
    return deviation_error(implementation.export_state(state)["discriminator/dense_1/kernel"])


def deviation_error(kernel: np.ndarray) -> float:
    truth = (3 * kernel.shape[0]) ** -0.5
    return abs(float(kernel.std(dtype=np.float64)) / truth - 1.0)


INITIALIZER_TRAPS = [
    # Of 131,072 and of 200,704 numbers, whose standard deviation is known to 0.2 %.
    Trap(
        "truncated-normal",
        lambda: truncated_normal("pytorch"),
        lambda: truncated_normal("pytorch cut"),
        bound=0.01,
        framework="pytorch",
    ),
    Trap(
        "dense-default-init",
        lambda: dense_default_init("tf"),
        lambda: mlp28_init("tf"),
        bound=0.01,
        framework="tf",
    ),
    Trap(
        "nnx-dense-default-init",
        lambda: dense_default_init("jax"),
        lambda: mlp28_init("jax"),
        bound=0.01,
        framework="jax",
    ),
]
