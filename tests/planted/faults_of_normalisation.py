"""Faults of batch normalisation."""

from __future__ import annotations

from tests.planted.fault import Edit, Edits, Fault


def _epsilon(value: str) -> Edits:
    return {
        "pytorch": (Edit("models.py", "eps=1e-5", f"eps={value}", 2),),
        "tf": (Edit("models.py", "epsilon=1e-5", f"epsilon={value}"),),
        "jax": (Edit("layers.py", "epsilon: float = 1e-5", f"epsilon: float = {value}"),),
    }


def _momentum(value: str) -> Edits:
    return {
        "pytorch": (Edit("models.py", "momentum=0.1", f"momentum={value}", 2),),
        "tf": (Edit("models.py", "momentum=0.1", f"momentum={value}"),),
        "jax": (Edit("layers.py", "momentum: float = 0.1", f"momentum: float = {value}"),),
    }


# A batch norm written by hand, whose author took the variance that normalises for the running one.
_BIASED_TORCH = """class _BatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [a for a in range(x.ndim) if a != 1]
        with torch.no_grad():
            self.running_mean.lerp_(x.mean(axes), self.momentum)
            self.running_var.lerp_(x.var(axes, unbiased=False), self.momentum)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


def _batch_norm(features: int)"""

_BIASED: Edits = {
    "pytorch": (
        Edit("models.py", "def _batch_norm(features: int)", _BIASED_TORCH),
        Edit("models.py", "return nn.BatchNorm2d(features", "return _BatchNorm(features"),
    ),
    "tf": (
        Edit("layers.py", "self._fused if has_fused else self._plain", "self._plain"),
        Edit("layers.py", "variance * (count / (count - 1))", "variance"),
    ),
    "jax": (Edit("layers.py", "variance * (count / (count - 1))", "variance"),),
}

_MERGED: Edits = {
    "pytorch": (Edit("train.py", "images, learns=True, batches=2)", "images, learns=True)"),),
    "tf": (
        Edit(
            "train.py",
            """\
        real_scores = discriminator(real_images, training=True)
        fake_scores = discriminator(fake_images, training=True)
""",
            """\
        images = tf.concat([real_images, fake_images], axis=0)
        real_scores, fake_scores = tf.split(discriminator(images, training=True), 2)
""",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            """\
        real_scores, statistics = apply(network, parameters, real_images, training=True)
        network = replace(network, statistics=statistics)
        fake_scores, statistics = apply(network, parameters, fake_images, training=True)
""",
            """\
        images = jnp.concatenate([real_images, fake_images])
        scores, statistics = apply(network, parameters, images, training=True)
        real_scores, fake_scores = jnp.split(scores, 2)
""",
        ),
    ),
}

_RUNNING: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "    latent_batches = latents.chunk(",
            "    state.generator.eval()\n    state.discriminator.eval()\n"
            "    latent_batches = latents.chunk(",
        ),
    ),
    "tf": (Edit("train.py", "training=True", "training=False", 4),),
    "jax": (Edit("train.py", "training=True", "training=False", 4),),
}

_FROZEN: Edits = {
    "pytorch": (
        Edit("train.py", ".requires_grad_(False)", ".requires_grad_(False).eval()"),
        Edit("train.py", ".requires_grad_(True)", ".requires_grad_(True).train()"),
    ),
    "tf": (
        Edit(
            "train.py",
            "state.discriminator(fake_images, training=True)",
            "state.discriminator(fake_images)",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            "network.parameters, images, training=True",
            "network.parameters, images, training=False",
        ),
    ),
}

# What DistributedDataParallel and MirroredStrategy do of themselves, here on one device.
_TWO_REPLICAS_TORCH = """class _BatchNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        outputs, means, variances = [], [], []
        for part in x.chunk(2):
            moved = self.running_mean.clone(), self.running_var.clone()
            settings = (*moved, self.weight, self.bias, True, self.momentum, self.eps)
            outputs.append(F.batch_norm(part, *settings))
            means.append(moved[0])
            variances.append(moved[1])
        self.running_mean.copy_(sum(means) / 2)
        self.running_var.copy_(sum(variances) / 2)
        return torch.cat(outputs)


def _batch_norm(features: int)"""

_TWO_REPLICAS: Edits = {
    "pytorch": (
        Edit("models.py", "def _batch_norm(features: int)", _TWO_REPLICAS_TORCH),
        Edit("models.py", "return nn.BatchNorm2d(features", "return _BatchNorm(features"),
    ),
    "tf": (
        Edit(
            "layers.py",
            "        y, mean, unbiased_variance = normalise(x)\n",
            "        parts = zip(*map(normalise, tf.split(x, 2)), strict=True)\n"
            "        y, mean, unbiased_variance = [tf.stack(part) for part in parts]\n"
            "        y = tf.reshape(y, tf.shape(x))\n"
            "        mean, unbiased_variance = tf.reduce_mean([mean, unbiased_variance], 1)\n",
        ),
    ),
    "jax": (Edit("layers.py", "replicas: int = 1", "replicas: int = 2"),),
}

# JAX' way to this fault is to forget where the new statistics have to go.
_NOT_IN_GENERATOR_STEP: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "    state.discriminator.requires_grad_(False)\n",
            "    state.discriminator.requires_grad_(False)\n"
            "    held = {name: b.clone() for name, b in state.discriminator.named_buffers()}\n",
        ),
        Edit(
            "train.py",
            "    generator_loss.backward()\n",
            "    generator_loss.backward()\n"
            "    for name, buffer in state.discriminator.named_buffers():\n"
            "        buffer.copy_(held[name])\n",
        ),
    ),
    "tf": (
        Edit(
            "train.py",
            "    with tf.GradientTape(watch_accessed_variables=False) as tape:\n",
            "    running = state.discriminator.non_trainable_variables\n"
            "    held = [tf.identity(variable.value) for variable in running]\n"
            "    with tf.GradientTape(watch_accessed_variables=False) as tape:\n",
        ),
        Edit(
            "train.py",
            "    gradients = generator_tape.gradient(\n",
            "    for variable, value in zip(running, held, strict=True):\n"
            "        variable.assign(value)\n"
            "    gradients = generator_tape.gradient(\n",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            "        discriminator=replace(state.discriminator, statistics=statistics),\n",
            "",
        ),
    ),
}

_FORGET_THE_GENERATORS = (
    Edit(
        "train.py", "    return replace(state, generator=generator), fake", "    return state, fake"
    ),
)

_NOT_OF_GENERATOR: Edits = {
    "pytorch": (
        Edit(
            "state.py",
            "    for network in (generator, discriminator):\n",
            '    for layer in generator.modules():\n        if hasattr(layer, "momentum"):\n'
            "            layer.momentum = 0.0\n    for network in (generator, discriminator):\n",
        ),
    ),
    "tf": (
        Edit(
            "state.py",
            "        state = TrainState(\n",
            '        for layer in generator.layers:\n            if hasattr(layer, "momentum"):\n'
            "                layer.momentum = 0.0\n        state = TrainState(\n",
        ),
    ),
    "jax": _FORGET_THE_GENERATORS,
}

_NEVER: Edits = {
    **_momentum("0.0"),
    "jax": (
        *_FORGET_THE_GENERATORS,
        *_NOT_IN_GENERATOR_STEP["jax"],
        Edit(
            "train.py", "apply_gradients(discriminator, ", "apply_gradients(state.discriminator, "
        ),
    ),
}

NORMALISATION = (
    Fault("batch_norm_epsilon_1e-3", {"batch_norm_epsilon": 1e-3}, _epsilon("1e-3")),
    Fault("batch_norm_epsilon_3e-4", {"batch_norm_epsilon": 3e-4}, _epsilon("3e-4")),
    Fault("batch_norm_momentum_0.9", {"batch_norm_momentum": 0.9}, _momentum("0.9")),
    Fault("batch_norm_momentum_0.05", {"batch_norm_momentum": 0.05}, _momentum("0.05")),
    Fault("batch_norm_variance_biased", {"batch_norm_running_variance": "biased"}, _BIASED),
    Fault("batch_norm_running", {"batch_norm_mode": "running"}, _RUNNING),
    Fault("batch_norm_frozen", {"batch_norm_mode": "running_in_generator_step"}, _FROZEN),
    Fault(
        "statistics_not_in_generator_step",
        {"batch_norm_statistics": "not_in_generator_step"},
        _NOT_IN_GENERATOR_STEP,
    ),
    Fault(
        "statistics_not_of_generator",
        {"batch_norm_statistics": "not_of_generator"},
        _NOT_OF_GENERATOR,
    ),
    Fault("two_replicas", {"batch_norm_replicas": 2}, _TWO_REPLICAS),
    Fault("statistics_never_move", {"batch_norm_statistics": "never"}, _NEVER),
    Fault("batches_merged", {"discriminator_batches": "merged"}, _MERGED),
)
