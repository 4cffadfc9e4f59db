"""Faults of activations, of the networks' last layers and of the order of features."""

from __future__ import annotations

from typing import Any

from tests.planted.fault import Edit, Edits, Fault


def _slope(value: str) -> Edits:
    return {
        "pytorch": (Edit("models.py", "0.2, inplace=True", f"{value}, inplace=True", 7),),
        "tf": (Edit("layers.py", "slope: float = 0.2", f"slope: float = {value}"),),
        "jax": (Edit("layers.py", "slope: float = 0.2", f"slope: float = {value}"),),
    }


_GRADIENT_AT_ZERO: Edits = {
    "pytorch": (
        Edit("models.py", "F.leaky_relu(", "_leaky_relu(", 7),
        Edit(
            "models.py",
            "def _conv(\n",
            "def _leaky_relu(x: Tensor, slope: float, inplace: bool) -> Tensor:\n"
            "    return torch.where(x >= 0, x, slope * x)\n\n\ndef _conv(\n",
        ),
    ),
    "tf": (
        Edit("layers.py", "if x.dtype != tf.float64:", "if x.dtype is None:"),
        Edit("layers.py", "tf.where(x > 0, x", "tf.where(x >= 0, x"),
    ),
    "jax": (Edit("layers.py", "jnp.where(x > 0, x", "jnp.where(x >= 0, x"),),
}

_LEAKY_GENERATOR: Edits = {
    "pytorch": (
        Edit(
            "models.py",
            "F.relu(self.batch_norm_",
            "F.leaky_relu(negative_slope=0.2, input=self.batch_norm_",
            7,
        ),
    ),
    "tf": (Edit("models.py", "tf.nn.relu(self.batch_norm_", "leaky_relu(self.batch_norm_", 7),),
    "jax": (Edit("models.py", "jax.nn.relu(self.batch_norm_", "leaky_relu(self.batch_norm_", 7),),
}

_OUTPUTS = {
    "pytorch": {"none": "", "tanh": "torch.tanh", "sigmoid": "torch.sigmoid"},
    "tf": {"none": "", "tanh": "tf.tanh", "sigmoid": "tf.sigmoid"},
    "jax": {"none": "", "tanh": "jnp.tanh", "sigmoid": "jax.nn.sigmoid"},
}


def _generator_output(layer: str, named: str, made: str) -> Edits:
    return {
        framework: (
            Edit(
                "models.py",
                f"return {functions[named]}(self.{layer}(x))",
                f"return {functions[made]}(self.{layer}(x))",
            ),
        )
        for framework, functions in _OUTPUTS.items()
    }


def _discriminator_output(made: str) -> Edits:
    return {
        framework: (
            Edit(
                "models.py",
                f"return {functions['sigmoid']}(scores) if self.ends_in_sigmoid else scores",
                f"return {functions[made]}(scores)",
                3,
            ),
        )
        for framework, functions in _OUTPUTS.items()
    }


_CHW: Edits = {
    "pytorch": (
        Edit(
            "checkpoint.py", "    pixels = flattened_pixels(state.spec)\n", "    pixels = {}\n", 3
        ),
    ),
    "tf": (
        Edit(
            "models.py",
            "tf.reshape(x, [-1, features])",
            "tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, features])",
        ),
    ),
    "jax": (
        Edit(
            "models.py", "self.dense_5(x.reshape(", "self.dense_5(x.transpose(0, 3, 1, 2).reshape("
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
    _output("generator", "none", _generator_output("conv_transpose_5", "tanh", "none")),
    _output("generator", "sigmoid", _generator_output("conv_transpose_5", "tanh", "sigmoid")),
    _output(
        "generator",
        "tanh",
        _generator_output("conv_transpose_4", "sigmoid", "tanh"),
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
