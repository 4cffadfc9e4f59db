"""Faults of what reaches the optimizer and how often, and of passes that are not what they say."""

from tests.apparatus.planted.fault import Edit, Edits, Fault, everywhere

_TORCH_STEP = "    loss.backward()\n    optimizer.step()\n"
_TF_APPLY = "    state.optimizer(name).apply(gradients)\n"
_JAX_DISCRIMINATOR = "    state.discriminator_optimizer.update(state.discriminator, gradients)\n"
_JAX_GENERATOR = "    state.generator_optimizer.update(state.generator, gradients)\n"
_TWO_PASSES = "real_scores, fake_scores = scores(real_images), scores(fake_images)"
_REAL_PASS = "real_scores = scores(real_images)"

_TWICE: Edits = {
    "pytorch": (Edit("train.py", _TORCH_STEP, _TORCH_STEP + "    optimizer.step()\n"),),
    "tf": (Edit("train.py", _TF_APPLY, _TF_APPLY * 2),),
    "jax": tuple(Edit("train.py", x, x * 2) for x in (_JAX_DISCRIMINATOR, _JAX_GENERATOR)),
}

_REAL_THEN_FAKE: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "real_scores, fake_scores = in_one_pass(network, scores, real_images, fake_images)",
            _REAL_PASS,
        ),
        Edit("train.py", _TWO_PASSES, _REAL_PASS),
        Edit(
            "train.py",
            "    loss_fake = loss.discriminator_fake(fake_scores)\n"
            '    gradients = _update(state, "discriminator", loss_real + loss_fake)\n',
            '    _update(state, "discriminator", loss_real)\n'
            "    loss_fake = loss.discriminator_fake(scores(fake_images))\n"
            '    gradients = _update(state, "discriminator", loss_fake)\n',
        ),
    ),
    "tf": (
        Edit("train.py", _TWO_PASSES, _REAL_PASS),
        Edit(
            "train.py",
            "        loss_fake = loss.discriminator_fake(fake_scores)\n"
            "        total = loss_real + loss_fake\n",
            "    variables = state.discriminator.trainable_variables\n"
            '    _update(state, "discriminator", tape.gradient(loss_real, variables))\n'
            "    with tf.GradientTape() as tape:\n"
            "        total = loss_fake = loss.discriminator_fake(scores(fake_images))\n",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            "    gradients, (loss_real, loss_fake) = "
            "nnx.grad(total, has_aux=True)(state.discriminator)\n" + _JAX_DISCRIMINATOR,
            "    def half(discriminator: nnx.Module, of: str, images: Tensor):\n"
            "        return getattr(loss, of)(forward(state, discriminator, images))\n\n"
            "    both = ('discriminator_real', real_images), ('discriminator_fake', fake_images)\n"
            "    values = []\n"
            "    for of, images in both:\n"
            "        own = partial(half, of=of, images=images)\n"
            "        value, gradients = nnx.value_and_grad(own)(state.discriminator)\n"
            "        values.append(value)\n"
            f"    {_JAX_DISCRIMINATOR}"
            "    loss_real, loss_fake = values\n",
        ),
    ),
}


def _scaled(network: str, factor: str, jax: Edit) -> Edits:
    factors = f'({factor} if name == "{network}" else 1.0)'
    return {
        "pytorch": (
            Edit("train.py", "    loss.backward()\n", f"    (loss * {factors}).backward()\n"),
        ),
        "tf": (
            Edit(
                "train.py",
                _TF_APPLY,
                f"    gradients = [{factors} * g for g in gradients]\n{_TF_APPLY}",
            ),
        ),
        "jax": (jax,),
    }


def _times(factor: str) -> str:
    return f"    gradients = jax.tree.map(lambda g: {factor} * g, gradients)\n"


# What a step returns as its gradients are those before.
_CLIPPED: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            _TORCH_STEP,
            """    loss.backward()
    own = [p for p in state.network(name).parameters() if p.grad is not None]
    kept = [p.grad.clone() for p in own]
    torch.nn.utils.clip_grad_value_(own, 0.05)
    optimizer.step()
""",
        ),
        Edit(
            "train.py",
            "return [p.grad for p in state.network(name).parameters() if p.grad is not None]",
            "return kept",
        ),
    ),
    "tf": (
        Edit(
            "train.py",
            "apply(gradients)",
            "apply([tf.clip_by_value(g, -0.05, 0.05) for g in gradients])",
        ),
    ),
    "jax": tuple(
        Edit(
            "train.py",
            step,
            step.replace(
                ", gradients)", ", jax.tree.map(lambda g: jnp.clip(g, -0.05, 0.05), gradients))"
            ),
        )
        for step in (_JAX_DISCRIMINATOR, _JAX_GENERATOR)
    ),
}
_LOSS_SCALE = _scaled(
    "discriminator",
    "65536.0",
    Edit("train.py", _JAX_DISCRIMINATOR, _times("65536.0") + _JAX_DISCRIMINATOR),
)
_HALVED = _scaled(
    "generator", "0.5", Edit("train.py", _JAX_GENERATOR, _times("0.5") + _JAX_GENERATOR)
)


def _decoupled(decay: str) -> Edits:
    moved = f"variable.assign_sub(tf.cast(learning_rate, m.dtype) * {decay} * variable)"
    return {
        "pytorch": (
            Edit("layers.py", "return torch.optim.Adam(", "return torch.optim.AdamW("),
            Edit(
                "layers.py", "eps=settings.epsilon,", f"eps=settings.epsilon, weight_decay={decay},"
            ),
        ),
        "tf": (Edit("layers.py", "        m.assign(", f"        {moved}\n        m.assign("),),
        "jax": (
            Edit("layers.py", "def step(m: Tensor, v: Tensor)", "def step(m, v, p)"),
            Edit(
                "layers.py",
                "-learning_rate * direction",
                f"-learning_rate * (direction + {decay} * p)",
            ),
            Edit("layers.py", "jax.tree.map(step, m, v)", "jax.tree.map(step, m, v, parameters)"),
        ),
    }


_EVAL_FORGOTTEN: Edits = {
    "pytorch": (Edit("train.py", "state.network(name).train(training)", "state.network(name)"),),
    "tf": (
        Edit(
            "train.py",
            "    output = forward(state, network, x, training)\n    if training:\n",
            "    output = forward(state, network, x, True)\n    if True:\n",
        ),
    ),
    "jax": (
        Edit("train.py", "    if not training:\n        network.eval()\n", ""),
        Edit("adapter.py", "        if not training:\n            module.eval()\n", ""),
    ),
}

# A batch norm written by hand, without the square root.
_VARIANCE_TORCH = """    def forward(self, x: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2)
        mean, variance = self.running_mean.clone(), self.running_var.clone()
        if self.training:
            super().forward(x)  # which moves the statistics
            axes = [a for a in range(x.ndim) if a != 1]
            mean, variance = x.mean(axes), x.var(axes, unbiased=False)
        x = (x - mean.view(shape)) / (variance.view(shape) + self.eps)
        return x * self.weight.view(shape) + self.bias.view(shape)

    def _check_input_dim("""
_BY_VARIANCE: Edits = {
    "pytorch": (Edit("layers.py", "    def _check_input_dim(", _VARIANCE_TORCH),),
    "tf": (
        Edit(
            "layers.py",
            "return tf.nn.batch_normalization(x, mean, variance, *affine, self.epsilon)",
            "return (x - mean) / (variance + self.epsilon) * affine[1] + affine[0]",
        ),
    ),
    "jax": (
        Edit(
            "layers.py",
            "self.scale[...] * jax.lax.rsqrt(variance + self.epsilon)",
            "self.scale[...] / (variance + self.epsilon)",
        ),
    ),
}

_PAINTS = 'return tanh(getattr(self, f"conv_transpose_{self.last}")(x))'
_BGR: Edits = {
    **everywhere(Edit("models.py", _PAINTS, f"{_PAINTS}[..., ::-1]")),
    "pytorch": (Edit("models.py", _PAINTS, f"{_PAINTS}.flip(1)"),),
}

UPDATES = (
    Fault(
        "every_update_twice",
        {"discriminator_updates": "twice", "generator_updates": "twice"},
        _TWICE,
    ),
    Fault("real_then_fake", {"discriminator_updates": "real_then_fake"}, _REAL_THEN_FAKE),
    Fault("loss_scale_left_in", {"discriminator_gradient_scale": 65536.0}, _LOSS_SCALE),
    Fault("generator_gradients_halved", {"generator_gradient_scale": 0.5}, _HALVED),
    Fault("gradients_clipped", {"gradient_clipping": "value", "gradient_clip": 0.05}, _CLIPPED),
    Fault("adamw_1e-4", {"adam_decoupled_decay": 1e-4}, _decoupled("1e-4")),
    Fault("eval_forgotten", {"batch_norm_passes": "always_batch"}, _EVAL_FORGOTTEN),
    Fault("divided_by_variance", {"batch_norm_divisor": "variance"}, _BY_VARIANCE),
    Fault("bgr_images", {"image_channels": "reversed_by_g"}, _BGR),
)
