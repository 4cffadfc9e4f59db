"""The reference obeys every field of Conventions: each deviation gives other numbers."""

import dataclasses

import numpy as np
import pytest

from shared.fixtures.network import representative_state
from shared.reference.adapter import ReferenceImplementation
from shared.reference.comparison import relative_l2
from shared.reference.losses import loss_values
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions
from shared.spec.streams import initial_state, latents

# Every other value that each field is known to take in ports, and a system that shows it.
DEVIATIONS: dict[str, list] = {
    "batch_norm_epsilon": [1e-3],
    "batch_norm_momentum": [0.01, 0.9],
    "batch_norm_running_variance": ["biased"],
    "batch_norm_mode": ["running", "running_in_generator_step", "running_for_discriminator"],
    "batch_norm_passes": ["always_batch", "always_running"],
    "batch_norm_divisor": ["variance"],
    "batch_norm_statistics": ["not_in_generator_step", "not_of_generator", "never"],
    "batch_norm_replicas": [2],
    "discriminator_batches": ["merged", "fake_first"],
    "leaky_relu_slope": [0.01, 0.3],
    "leaky_relu_gradient_at_zero": ["one"],
    "generator_activation": ["leaky_relu"],
    "generator_output": ["none", "sigmoid"],
    "discriminator_output": ["sigmoid"],
    "conv_kernel": ["flipped", "transposed"],
    "conv_transpose_kernel": ["flipped", "transposed"],
    "flatten_order": ["chw"],
    "image_channels": ["reversed", "reversed_by_g", "reversed_by_d"],
    "padding_alignment": ["before", "after"],
    "loss_reduction": ["sum"],
    "discriminator_loss_scale": [0.5],
    "lsgan_scale": [1.0],
    "real_label": [0.9],
    "fake_label": [0.1],
    "generator_label": [0.9],
    "probability_clipping": ["epsilon_1e-7", "none"],
    "generator_objective": ["saturating"],
    "batch_part": ["first_half", "second_half"],
    "discriminator_halves": ["real_only", "fake_only"],
    "discriminator_step_offset": [1],
    "generator_batch": ["same_latents"],
    "detach_fake": [False],
    "update_order": ["simultaneous", "generator_first"],
    "discriminator_updates": ["twice", "never", "real_then_fake", "fake_then_real"],
    "generator_updates": ["twice", "never", "two_passes"],
    "discriminator_gradient_scale": [65536.0],
    "generator_gradient_scale": [0.5],
    "gradient_clipping": ["value", "norm", "norm_and_epsilon", "norm_of_each"],
    "gradient_clip": [0.1],
    "generator_learning_rate": [1e-3],
    "discriminator_learning_rate": [1e-3],
    "adam_beta1": [0.9],
    "adam_beta2": [0.99],
    "adam_epsilon": [1e-7],
    "adam_epsilon_placement": ["before_correction", "inside_root"],
    "adam_bias_correction": [False],
    "adam_correction": ["float32"],
    "adam_step_offset": [-1, 1],
    "adam_weight_decay": [1e-2],
    "adam_decoupled_decay": [1e-4],
    "initializer": ["torch_default", "keras_default", "flax_default"],
}
CASES = [(field, value) for field, values in DEVIATIONS.items() for value in values]


def everything(conventions: Conventions, **changes: object) -> dict[str, np.ndarray]:
    """Return all numbers of one step of the linear-headed system under some conventions."""
    spec = SYSTEMS["dcgan64-lsgan"].replace(width=2, latent_dim=5, batch_size=4, **changes)
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 0).items()}
    # Zero weights of one channel: pre-activations of exactly 0.
    arrays["discriminator/conv_1/kernel"][..., 0] = 0.0
    real = np.random.default_rng(0).uniform(-1, 1, (4, *spec.image_shape))
    step = train_step(spec, arrays, real, latents(spec, 0, 0, 4), conventions)
    metrics = {name: np.array(value) for name, value in step.metrics.items()}
    z = latents(spec, 0, 0, 4)
    sampled = forward(spec, "generator", arrays, z, conventions, training=False)
    metrics["images by the running statistics"] = sampled.output
    return step.arrays | {f"gradient {n}": g for n, g in step.gradients.items()} | metrics


def test_every_field_has_a_deviation() -> None:
    assert set(DEVIATIONS) == {field.name for field in dataclasses.fields(Conventions)}


@pytest.mark.parametrize(("field", "value"), CASES)
def test_a_deviation_gives_other_numbers(field: str, value: object) -> None:
    deviating = Conventions().replace(**{field: value})
    if field == "gradient_clip":
        deviating = deviating.replace(gradient_clipping="norm")
    if field == "initializer":
        spec = SYSTEMS["dcgan64"].replace(width=2)
        ours, theirs = initial_state(spec, 0), initial_state(spec, 0, deviating)
    elif field == "probability_clipping":
        scores = np.array([0.0, 0.3, 1.0])
        ours, theirs = (
            dataclasses.asdict(loss_values("bce_probs", scores, scores, c))
            for c in (Conventions(), deviating)
        )
    else:
        loss = "bce" if field == "generator_objective" else "lsgan"
        ours, theirs = (everything(c, loss=loss) for c in (Conventions(), deviating))
    differences = [relative_l2(theirs[name], ours[name]) for name in ours]
    # Far above the 1e-12 to which an implementation agrees in float64.
    assert any(not d <= 1e-9 for d in differences)


def test_the_reference_adapter_takes_conventions() -> None:
    ours = ReferenceImplementation()
    theirs = ReferenceImplementation(Conventions(leaky_relu_slope=0.3))
    spec = SYSTEMS["dcgan64"].replace(width=2)
    images = np.random.default_rng(0).uniform(-1, 1, (4, *spec.image_shape))
    scores = [i.discriminate(i.create(spec), images) for i in (ours, theirs)]
    assert relative_l2(scores[1], scores[0]) > 1e-3
