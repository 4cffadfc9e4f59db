"""Faults of the losses and their labels."""

from tests.apparatus.planted.fault import Edit, Edits, Fault, everywhere

_LABEL_DEFAULTS = {
    "real_label": ("real_label: float = 1.0", 2),
    "fake_label": ("fake_label: float = 0.0", 3),
    "generator_label": ("generator_label: float = 1.0", 1),
}


def _labels(**labels: float) -> Edits:
    return everywhere(
        *(
            Edit("losses.py", old, f"{name}: float = {labels[name]}", count)
            for name, (old, count) in _LABEL_DEFAULTS.items()
            if name in labels
        )
    )


def _scale(scale: str) -> Edits:
    """Return edits that weight both halves of the discriminator's loss, wherever it is formed."""
    real, fake = "self._mean(real_scores, real_label)", "self._mean(fake_scores, fake_label)"
    torch_and_jax = (("return ", real, "."), ("return ", fake, "."), ("halves = ", real, " + "))
    tf = (
        ("return tf.cast(", real, ", "),
        ("return tf.cast(", fake, ", "),
        ("halves = ", real, " + "),
    )
    both = Edit("losses.py", f"+ {fake}", f"+ {scale} * {fake}")

    def weighted(places: tuple[tuple[str, str, str], ...]) -> tuple[Edit, ...]:
        halves = (
            Edit("losses.py", start + half + end, f"{start}({scale} * {half}){end}")
            for start, half, end in places
        )
        return (*halves, both)

    return {"pytorch": weighted(torch_and_jax), "tf": weighted(tf), "jax": weighted(torch_and_jax)}


def _lsgan_scale(scale: str) -> Edits:
    squares = {"pytorch": "torch.square", "tf": "tf.square", "jax": "jnp.square"}
    return {
        framework: (Edit("losses.py", f"return 0.5 * {square}", f"return {scale} * {square}"),)
        for framework, square in squares.items()
    }


_SUM: Edits = {
    "pytorch": (
        Edit("losses.py", "self.each(scores, label).mean()", "self.each(scores, label).sum()"),
    ),
    "tf": (Edit("losses.py", "tf.reduce_mean(", "tf.reduce_sum("),),
    "jax": (Edit("losses.py", "jnp.mean(", "jnp.sum("),),
}

_TORCH_CROSS_ENTROPY = """    return F.binary_cross_entropy(
        probabilities, torch.full_like(probabilities, label), reduction="none"
    )
"""


def _torch_cross_entropy(probabilities: str) -> tuple[Edit, ...]:
    return (
        Edit(
            "losses.py",
            _TORCH_CROSS_ENTROPY,
            f"    p = {probabilities}\n"
            "    return -label * torch.log(p) - (1.0 - label) * torch.log1p(-p)\n",
        ),
    )


def _clipped(clip: str) -> tuple[Edit, ...]:
    return (
        Edit(
            "losses.py",
            "AdversarialLoss(binary_cross_entropy),",
            "AdversarialLoss(\n        lambda p, label: "
            f"binary_cross_entropy({clip}(p, 1e-7, 1.0 - 1e-7), label)\n    ),",
        ),
    )


_CLIPPED: Edits = {
    "pytorch": _torch_cross_entropy("probabilities.clamp(1e-7, 1.0 - 1e-7)"),
    "tf": _clipped("tf.clip_by_value"),
    "jax": _clipped("jnp.clip"),
}

_UNCLIPPED: Edits = {
    "pytorch": _torch_cross_entropy("probabilities"),
    "tf": (
        Edit("losses.py", "tf.maximum(tf.math.log(p), floor)", "tf.math.log(p)"),
        Edit("losses.py", "tf.maximum(tf.math.log1p(-p), floor)", "tf.math.log1p(-p)"),
        Edit("losses.py", "tf.maximum(p * (one - p), denominator_floor)", "(p * (one - p))"),
    ),
    "jax": (
        Edit("losses.py", "jnp.maximum(jnp.log(probabilities), -100.0)", "jnp.log(probabilities)"),
        Edit("losses.py", "jnp.maximum(_log1m(probabilities), -100.0)", "_log1m(probabilities)"),
        Edit("losses.py", "jnp.maximum(p * (1.0 - p), _GRADIENT_FLOOR)", "(p * (1.0 - p))"),
    ),
}

_SATURATING = everywhere(
    Edit(
        "losses.py",
        '"bce": AdversarialLoss(binary_cross_entropy_with_logits),',
        '"bce": AdversarialLoss(binary_cross_entropy_with_logits, saturating=True),',
    )
)
_NON_SATURATING = everywhere(Edit("losses.py", ", saturating=True)", ")"))


def _of_labels(name: str, loss: str | None = None, **labels: float) -> Fault:
    return Fault(name, labels, _labels(**labels), loss=loss)


LOSSES = (
    Fault("loss_sum", {"loss_reduction": "sum"}, _SUM),
    Fault("discriminator_loss_halved", {"discriminator_loss_scale": 0.5}, _scale("0.5")),
    Fault("discriminator_loss_times_0.7", {"discriminator_loss_scale": 0.7}, _scale("0.7")),
    Fault("lsgan_without_half", {"lsgan_scale": 1.0}, _lsgan_scale("1.0"), loss="lsgan"),
    Fault("lsgan_times_0.3", {"lsgan_scale": 0.3}, _lsgan_scale("0.3"), loss="lsgan"),
    _of_labels("real_label_0.9", real_label=0.9),
    _of_labels("real_label_0.85", real_label=0.85),
    _of_labels("fake_label_0.1", fake_label=0.1),
    _of_labels("fake_label_0.15_minimax", "minimax", fake_label=0.15),
    _of_labels("generator_label_0.9", generator_label=0.9),
    _of_labels("labels_swapped", real_label=0.0, fake_label=1.0),
    _of_labels("labels_all_swapped", real_label=0.0, fake_label=1.0, generator_label=0.0),
    _of_labels("lsgan_labels_around_0", "lsgan", fake_label=-1.0, generator_label=0.0),
    Fault("clipped_like_keras", {"probability_clipping": "epsilon_1e-7"}, _CLIPPED, system="mlp28"),
    Fault("not_clipped", {"probability_clipping": "none"}, _UNCLIPPED, system="mlp28"),
    Fault("generator_saturates", {"generator_objective": "saturating"}, _SATURATING),
    Fault(
        "minimax_does_not_saturate",
        {"generator_objective": "non_saturating"},
        _NON_SATURATING,
        loss="minimax",
    ),
)
