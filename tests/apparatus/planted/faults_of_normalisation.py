"""Faults of batch normalisation."""

from tests.apparatus.planted.fault import Edit, Edits, Fault, everywhere


def _epsilon(value: str) -> Edits:
    return everywhere(Edit("layers.py", "epsilon: float = 1e-5", f"epsilon: float = {value}"))


def _momentum(value: str) -> Edits:
    return everywhere(Edit("layers.py", "momentum: float = 0.1", f"momentum: float = {value}"))


# A batch norm written by hand, whose author took the variance that normalises for the running one.
_BIASED_TORCH = """    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [a for a in range(x.ndim) if a != 1]
        with torch.no_grad():
            self.running_mean.lerp_(x.mean(axes), self.momentum)
            self.running_var.lerp_(x.var(axes, unbiased=False), self.momentum)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)

    def _check_input_dim("""

_BIASED: Edits = {
    "pytorch": (Edit("layers.py", "    def _check_input_dim(", _BIASED_TORCH),),
    **dict.fromkeys(
        ("tf", "jax"), (Edit("layers.py", "variance * (count / (count - 1))", "variance"),)
    ),
}

_TWO_PASSES = "real_scores, fake_scores = scores(real_images), scores(fake_images)"
_MERGED: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "in_one_pass(network, scores, real_images, fake_images)",
            "scores(torch.cat([real_images, fake_images])).chunk(2)",
        ),
    ),
    "tf": (
        Edit(
            "train.py",
            _TWO_PASSES,
            "images = tf.concat([real_images, fake_images], axis=0)\n"
            "        real_scores, fake_scores = tf.split(scores(images), 2)",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            _TWO_PASSES,
            "images = jnp.concatenate([real_images, fake_images])\n"
            "        real_scores, fake_scores = jnp.split(scores(images), 2)",
        ),
    ),
}

_FAKE_FIRST: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "real_scores, fake_scores = in_one_pass(network, scores, real_images, fake_images)",
            "fake_scores, real_scores = in_one_pass(network, scores, fake_images, real_images)",
        ),
    ),
    **dict.fromkeys(
        ("tf", "jax"),
        (
            Edit(
                "train.py",
                _TWO_PASSES,
                "fake_scores, real_scores = scores(fake_images), scores(real_images)",
            ),
        ),
    ),
}

_EVALUATE = "    state.generator.eval()\n    state.discriminator.eval()\n"
_RUNNING: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "    latent_batches = latents.chunk(",
            f"{_EVALUATE}    latent_batches = latents.chunk(",
        ),
    ),
    "tf": (Edit("train.py", "training: bool = True) ->", "training: bool = False) ->"),),
    "jax": (
        Edit(
            "train.py",
            "    latent_batches = jnp.split(",
            f"{_EVALUATE}    latent_batches = jnp.split(",
        ),
    ),
}

_FROZEN: Edits = {
    "pytorch": (
        Edit("train.py", ".requires_grad_(False)", ".requires_grad_(False).eval()"),
        Edit("train.py", ".requires_grad_(True)", ".requires_grad_(True).train()"),
    ),
    "tf": (
        Edit(
            "train.py",
            "forward(state, state.discriminator, fake_images)",
            "forward(state, state.discriminator, fake_images, training=False)",
        ),
    ),
    "jax": (
        Edit(
            "train.py",
            "return LOSSES[state.spec.loss].generator(forward(state, discriminator, images))",
            "discriminator.eval()\n"
            "        scores = forward(state, discriminator, images)\n"
            "        discriminator.train()\n"
            "        return LOSSES[state.spec.loss].generator(scores)",
        ),
    ),
}

# G learns from images that are made anew, in training mode.
_MADE_ANEW = Edit("train.py", '    if spec.generator_batch != "same_images":\n', "    if True:\n")
_PREDICTED: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "        fake_images = forward_generator(state, latent_batch)\n",
            "        state.generator.eval()\n"
            "        fake_images = forward_generator(state, latent_batch)\n"
            "        state.generator.train()\n",
        ),
        _MADE_ANEW,
    ),
    "tf": (
        Edit(
            "train.py",
            "fake_images, tape = forward_generator(state, latent_batch)",
            "fake_images = forward(state, state.generator, latent_batch, training=False)",
        ),
        _MADE_ANEW,
    ),
    "jax": (
        Edit(
            "train.py",
            "        fake_images, backward = forward_generator(state, latent_batch)\n",
            "        state.generator.eval()\n"
            "        fake_images, _ = forward_generator(state, latent_batch)\n"
            "        state.generator.train()\n",
        ),
        _MADE_ANEW,
    ),
}

# What DistributedDataParallel and MirroredStrategy do of themselves, here on one device.
_TWO_REPLICAS_TORCH = """    def forward(self, x: Tensor) -> Tensor:
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

    def _check_input_dim("""

_TWO_REPLICAS: Edits = {
    "pytorch": (Edit("layers.py", "    def _check_input_dim(", _TWO_REPLICAS_TORCH),),
    "tf": (
        Edit(
            "layers.py",
            "            y, *statistics = self.by_batch(x)\n",
            "            parts = zip(*map(self.by_batch, tf.split(x, 2)), strict=True)\n"
            "            y, *statistics = [tf.stack(part) for part in parts]\n"
            "            y = tf.reshape(y, tf.shape(x))\n"
            "            statistics = [tf.reduce_mean(s, 0) for s in statistics]\n",
        ),
    ),
    "jax": (
        Edit("state.py", 'if compute.batch_norm == "per-replica":', "if True:"),
        Edit("state.py", "replicas=compute.devices", "replicas=2"),
    ),
}

# JAX' way to this fault is to forget where the new statistics have to go.
_NOT_IN_GENERATOR_STEP: Edits = {
    "pytorch": (
        Edit(
            "train.py",
            "    network.requires_grad_(False)\n",
            "    network.requires_grad_(False)\n"
            "    held = {name: b.clone() for name, b in network.named_buffers()}\n",
        ),
        Edit(
            "train.py",
            "        network.requires_grad_(True)\n",
            "        network.requires_grad_(True)\n"
            "        for name, buffer in network.named_buffers():\n"
            "            buffer.copy_(held[name])\n",
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
            "        fake_images, state.discriminator\n",
            "        fake_images, nnx.clone(state.discriminator)\n",
        ),
    ),
}

_FORGET_THE_GENERATORS = (
    Edit(
        "train.py",
        "pass_of_generator, state.generator,",
        "pass_of_generator, nnx.clone(state.generator),",
    ),
)

_NOT_OF_GENERATOR: Edits = {
    "pytorch": (
        Edit(
            "checkpoint.py",
            "    for network in networks:\n",
            '    for layer in networks[0].modules():\n        if hasattr(layer, "momentum"):\n'
            "            layer.momentum = 0.0\n    for network in networks:\n",
        ),
    ),
    "tf": (
        Edit(
            "checkpoint.py",
            "        state = TrainState(spec",
            '        for layer in networks[0].layers:\n            if hasattr(layer, "momentum"):\n'
            "                layer.momentum = 0.0\n        state = TrainState(spec",
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
            "train.py",
            "nnx.grad(total, has_aux=True)(state.discriminator)",
            "nnx.grad(total, has_aux=True)(nnx.clone(state.discriminator))",
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
    Fault("fakes_predicted", {"batch_norm_mode": "running_for_discriminator"}, _PREDICTED),
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
    Fault("fake_batch_first", {"discriminator_batches": "fake_first"}, _FAKE_FIRST),
)
