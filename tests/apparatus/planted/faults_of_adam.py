"""Faults of the optimizer."""

from tests.apparatus.planted.fault import Edit, Edits, Fault, everywhere


def _setting(name: str, value: str) -> Edits:
    """Return edits that take a number instead of one of Adam's settings."""
    return everywhere(Edit("layers.py", f"settings.{name}", value))


def _rate(network: str, value: str) -> Edits:
    settings = "spec.adam(name)"
    changed = f'{settings} if name != "{network}" else type({settings})(learning_rate={value})'
    created = (Edit("checkpoint.py", settings, changed),)
    own = "np.array(settings.learning_rate)"
    imported = f'{own} if network != "{network}" else np.array({value})'
    return {"pytorch": created, "tf": created, "jax": (Edit("checkpoint.py", own, imported),)}


# What somebody writes who does without torch.optim's own step.
_TORCH_ADAM = """class _Adam(torch.optim.Adam):
    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            (beta1, beta2), epsilon = group["betas"], group["eps"]
            for parameter in group["params"]:
                held = self.state[parameter]
                held["step"] += 1
                m, v, step = held["exp_avg"], held["exp_avg_sq"], int(held["step"])
                m.lerp_(parameter.grad, 1 - beta1)
                v.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                correction1, correction2 = {corrections}
                parameter.sub_(group["lr"] * ({update}))


def create_adam("""


def torch_adam(
    corrections: str = "1 - beta1**step, 1 - beta2**step",
    update: str = "m / correction1 / ((v / correction2).sqrt() + epsilon)",
) -> tuple[Edit, ...]:
    source = _TORCH_ADAM.replace("{corrections}", corrections).replace("{update}", update)
    return (
        Edit("layers.py", "return torch.optim.Adam(", "return _Adam("),
        Edit("layers.py", "def create_adam(", source),
    )


def _placement(torch: str, tf: str, jax: str) -> Edits:
    return {
        "pytorch": torch_adam(update=torch),
        "tf": (Edit("layers.py", "(tf.sqrt(v) / root + self.epsilon)", tf),),
        "jax": (
            Edit("layers.py", "(m / correction1) / (jnp.sqrt(v / correction2) + epsilon)", jax),
        ),
    }


_BEFORE_CORRECTION = _placement(
    "m * correction2**0.5 / correction1 / (v.sqrt() + epsilon)",
    "((tf.sqrt(v) + self.epsilon) / root)",
    "m * jnp.sqrt(correction2) / correction1 / (jnp.sqrt(v) + epsilon)",
)
_INSIDE_ROOT = _placement(
    "m / correction1 / (v / correction2 + epsilon).sqrt()",
    "tf.sqrt(v / tf.square(root) + self.epsilon)",
    "(m / correction1) / jnp.sqrt(v / correction2 + epsilon)",
)

_NO_CORRECTION: Edits = {
    "pytorch": torch_adam(corrections="1.0, 1.0"),
    "tf": tuple(
        Edit(
            "layers.py",
            f"-tf.math.expm1(step * tf.constant(math.log(self.beta{i}), tf.float64))",
            "tf.constant(1.0, tf.float64)",
        )
        for i in (1, 2)
    ),
    "jax": (
        Edit(
            "layers.py",
            """(
                -jnp.expm1(count.astype(m.dtype) * math.log(beta)) for beta in (beta1, beta2)
            )
""",
            "1.0, 1.0\n",
        ),
    ),
}

_FLOAT32_CORRECTION: Edits = {
    "pytorch": torch_adam(
        corrections="[1 - torch.tensor(beta).item() ** step for beta in (beta1, beta2)]"
    ),
    "tf": tuple(
        Edit(
            "layers.py",
            f"tf.constant(math.log(self.beta{i}), tf.float64)",
            f"tf.math.log(tf.cast(self.beta{i}, tf.float64))",
        )
        for i in (1, 2)
    ),
    "jax": (Edit("layers.py", "math.log(beta)", "jnp.log(jnp.float32(beta).astype(m.dtype))"),),
}


def _step_offset(offset: str) -> Edits:
    count = "count.astype(m.dtype)"
    corrections = f"1 - beta1 ** (step {offset}), 1 - beta2 ** (step {offset})"
    return {
        "pytorch": torch_adam(corrections=corrections),
        "tf": (
            Edit(
                "layers.py",
                "self.iterations.value + 1",
                f"self.iterations.value + 1 {offset}",
            ),
        ),
        "jax": (Edit("layers.py", count, f"(count {offset}).astype(m.dtype)"),),
    }


def _weight_decay(decay: str) -> Edits:
    return {
        "pytorch": (
            Edit(
                "layers.py", "eps=settings.epsilon,", f"eps=settings.epsilon, weight_decay={decay},"
            ),
        ),
        "tf": (
            Edit(
                "layers.py",
                "        m.assign(",
                f"        gradient = gradient + {decay} * variable\n        m.assign(",
            ),
        ),
        "jax": (
            Edit(
                "layers.py",
                "        count = state.count + 1\n",
                "        count = state.count + 1\n"
                f"        pairs = (lambda g, p: g + {decay} * p), gradients, parameters\n"
                "        gradients = jax.tree.map(*pairs)\n",
            ),
        ),
    }


ADAM = (
    Fault("generator_rate_1e-3", {"generator_learning_rate": 1e-3}, _rate("generator", "1e-3")),
    Fault(
        "discriminator_rate_4e-4",
        {"discriminator_learning_rate": 4e-4},
        _rate("discriminator", "4e-4"),
    ),
    Fault(
        "discriminator_rate_1.3e-4",
        {"discriminator_learning_rate": 1.3e-4},
        _rate("discriminator", "1.3e-4"),
    ),
    Fault("beta1_0.9", {"adam_beta1": 0.9}, _setting("beta1", "0.9")),
    Fault("beta1_0.6", {"adam_beta1": 0.6}, _setting("beta1", "0.6")),
    Fault("beta2_0.99", {"adam_beta2": 0.99}, _setting("beta2", "0.99")),
    Fault("beta2_0.98", {"adam_beta2": 0.98}, _setting("beta2", "0.98")),
    Fault(
        "adam_epsilon_1e-7",
        {"adam_epsilon": 1e-7},
        _setting("epsilon", "1e-7"),
        start="tiny_gradients",
    ),
    Fault(
        "adam_epsilon_3e-4",
        {"adam_epsilon": 3e-4},
        _setting("epsilon", "3e-4"),
        start="tiny_gradients",
    ),
    Fault(
        "adam_epsilon_before_correction",
        {"adam_epsilon_placement": "before_correction"},
        _BEFORE_CORRECTION,
        start="tiny_gradients",
    ),
    Fault(
        "adam_epsilon_inside_root",
        {"adam_epsilon_placement": "inside_root"},
        _INSIDE_ROOT,
        start="tiny_gradients",
    ),
    Fault("adam_without_correction", {"adam_bias_correction": False}, _NO_CORRECTION),
    Fault("adam_correction_float32", {"adam_correction": "float32"}, _FLOAT32_CORRECTION),
    Fault("adam_step_behind", {"adam_step_offset": -1}, _step_offset("- 1")),
    Fault("adam_step_ahead", {"adam_step_offset": 1}, _step_offset("+ 1")),
    Fault("weight_decay_1e-2", {"adam_weight_decay": 1e-2}, _weight_decay("1e-2")),
    Fault("weight_decay_3e-3", {"adam_weight_decay": 3e-3}, _weight_decay("3e-3")),
)
