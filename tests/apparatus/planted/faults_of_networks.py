"""Faults of activations, of the networks' last layers and of the order of features."""

from typing import Any

from tests.apparatus.planted.fault import Edit, Edits, Fault, everywhere


def _slope(value: str) -> Edits:
    return {
        "pytorch": (Edit("fast.py", "negative_slope=0.2", f"negative_slope={value}"),),
        "tf": (Edit("fast.py", "slope: float = 0.2", f"slope: float = {value}"),),
        "jax": (Edit("layers.py", "slope: float = 0.2", f"slope: float = {value}"),),
    }


_GRADIENT_AT_ZERO: Edits = {
    "pytorch": (
        Edit(
            "fast.py",
            "partial(F.leaky_relu, negative_slope=0.2, inplace=True)",
            "lambda x: torch.where(x >= 0, x, 0.2 * x)",
        ),
    ),
    "tf": (Edit("layers.py", "tf.where(x > 0, x", "tf.where(x >= 0, x"),),
    "jax": (Edit("layers.py", "jnp.where(x > 0, x", "jnp.where(x >= 0, x"),),
}

_LEAKY_GENERATOR = everywhere(
    Edit(
        "models.py",
        "self.relu = layers.relu\n        width",
        "self.relu = layers.leaky_relu\n        width",
        2,
    )
)

_PAINTS = 'getattr(self, f"conv_transpose_{self.last}")'
_OUTPUTS = {"none": "", "tanh": "tanh", "sigmoid": "sigmoid"}


def _generator_output(layer: str, named: str, made: str) -> Edits:
    return everywhere(
        Edit(
            "models.py",
            f"return {_OUTPUTS[named]}({layer}(x))",
            f"return {_OUTPUTS[made]}({layer}(x))",
        )
    )


def _discriminator_output(made: str) -> Edits:
    return everywhere(
        Edit(
            "models.py",
            "return sigmoid(scores) if self.ends_in_sigmoid else scores",
            f"return {_OUTPUTS[made]}(scores)",
            3,
        )
    )


_CHW: Edits = {
    "pytorch": (
        Edit(
            "checkpoint.py", "    pixels = flattened_pixels(state.spec)\n", "    pixels = {}\n", 3
        ),
    ),
    "tf": (
        Edit(
            "models.py",
            "head(_flat(x",
            "head(_flat(tf.transpose(x, [0, 3, 1, 2])",
        ),
    ),
    "jax": (
        Edit(
            "models.py",
            "head(x.reshape(",
            "head(x.transpose(0, 3, 1, 2).reshape(",
        ),
    ),
}


def _output(network: str, output: str, edits: Edits, **shows_in: Any) -> Fault:
    return Fault(f"{network}_output_{output}", {f"{network}_output": output}, edits, **shows_in)


NETWORKS = (
    Fault("leaky_slope_0.01", {"leaky_relu_slope": 0.01}, _slope("0.01")),
    Fault("leaky_slope_0.3", {"leaky_relu_slope": 0.3}, _slope("0.3")),
    Fault("leaky_slope_0.25", {"leaky_relu_slope": 0.25}, _slope("0.25")),
    Fault(
        "leaky_gradient_at_zero",
        {"leaky_relu_gradient_at_zero": "one"},
        _GRADIENT_AT_ZERO,
        start="zeroed_channel",
    ),
    Fault("generator_leaky_relu", {"generator_activation": "leaky_relu"}, _LEAKY_GENERATOR),
    _output("generator", "none", _generator_output(_PAINTS, "tanh", "none")),
    _output("generator", "sigmoid", _generator_output(_PAINTS, "tanh", "sigmoid")),
    _output(
        "generator",
        "tanh",
        _generator_output("self.conv_transpose_4", "sigmoid", "tanh"),
        system="conv28",
    ),
    _output("discriminator", "sigmoid", _discriminator_output("sigmoid")),
    _output(
        "discriminator",
        "none",
        _discriminator_output("none"),
        system="mlp28",
        start="scores_like_probabilities",
    ),
    Fault("flatten_chw", {"flatten_order": "chw"}, _CHW, system="dcgan64-lsgan"),
)
