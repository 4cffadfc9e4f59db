"""Every choice on which ports of a GAN are known to differ, as a named field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Conventions:
    """Every numeric choice on which ports of a GAN are known to differ.

    The defaults are canonical: the three implementations follow them. The NumPy reference obeys
    every field, so the numbers of a wrong port can be produced and the mistake can be named.
    `None` means "as in the system's spec".
    """

    # Batch normalisation
    batch_norm_epsilon: float = 1e-5
    batch_norm_divisor: Literal["deviation", "variance"] = "deviation"
    batch_norm_momentum: float = 0.1
    """Weight of the NEW statistic (PyTorch's meaning; Keras and Flax state 1 - momentum)."""
    batch_norm_running_variance: Literal["unbiased", "biased"] = "unbiased"
    batch_norm_mode: Literal[
        "batch", "running", "running_in_generator_step", "running_for_discriminator"
    ] = "batch"
    """Which statistics normalise while training; "running_in_generator_step" is what freezing the
    discriminator with Keras' `trainable = False` does, "running_for_discriminator" what `predict`
    does: D's fake images are made so, and those that G learns from anew."""
    batch_norm_passes: Literal["as_asked", "always_batch", "always_running"] = "as_asked"
    """Which statistics normalise in any pass; "always_batch" is `eval()` forgotten."""
    batch_norm_statistics: Literal[
        "every_pass", "not_in_generator_step", "not_of_generator", "never"
    ] = "every_pass"
    """Which passes move the running statistics: all; not D's in G's step; D's alone; none."""
    batch_norm_replicas: int = 1
    """How many parts of a batch are normalised by their own statistics, as on so many devices; the
    running statistics then move by the mean of the parts'."""
    discriminator_batches: Literal["separate", "fake_first", "merged"] = "separate"
    """Real and then fake images as two batches (two sets of BN statistics), fake ones first, or
    both as one."""

    # Activations, kernels, layout
    leaky_relu_slope: float = 0.2
    leaky_relu_gradient_at_zero: Literal["slope", "one"] = "slope"
    generator_activation: Literal["relu", "leaky_relu"] = "relu"
    generator_output: Literal["as_named", "none", "tanh", "sigmoid"] = "as_named"
    """What makes images of the last layer's values; "as_named" is the spec's."""
    discriminator_output: Literal["as_named", "none", "sigmoid"] = "as_named"
    """"sigmoid" in front of a loss on logits squashes twice; "none" leaves bce_probs logits."""
    conv_kernel: Literal["as_stored", "flipped", "transposed"] = "as_stored"
    """flipped: rotated by 180 degrees; transposed: rows and columns exchanged."""
    conv_transpose_kernel: Literal["as_stored", "flipped", "transposed"] = "as_stored"
    flatten_order: Literal["hwc", "chw"] = "hwc"
    image_channels: Literal["as_stored", "reversed", "reversed_by_g", "reversed_by_d"] = "as_stored"
    """reversed: BGR for RGB in G's images and D's inputs; or in those of one network alone."""
    padding_alignment: Literal["centred", "before", "after"] = "centred"
    """Where the 2 * padding rows and columns of zeros go; "before" puts one more at the start."""

    # Losses
    loss_reduction: Literal["mean", "sum"] = "mean"
    discriminator_loss_scale: float = 1.0
    """0.5 is the average of the real and the fake half instead of their sum."""
    lsgan_scale: float = 0.5
    real_label: float = 1.0
    """Target of the discriminator on real images; a of LSGAN; 0.9 is one-sided smoothing."""
    fake_label: float = 0.0
    """Target of the discriminator on fake images; b of LSGAN."""
    generator_label: float = 1.0
    """Target of the generator's loss (bce, bce_probs); c of LSGAN."""
    probability_clipping: Literal["log_at_minus_100", "epsilon_1e-7", "none"] = "log_at_minus_100"
    generator_objective: Literal["as_named", "saturating", "non_saturating"] = "as_named"

    # The step
    batch_part: Literal["all", "first_half", "second_half"] = "all"
    """Which of a batch's real images and latents the step uses."""
    discriminator_halves: Literal["both", "real_only", "fake_only"] = "both"
    """Which halves of its loss the discriminator learns from; both are still computed."""
    discriminator_step_offset: Literal[0, -1, 1] = 0
    """-1 leaves out the last of several updates of D, 1 makes one more on the last batch."""
    generator_batch: Literal["as_named", "same_images", "same_latents"] = "as_named"
    """What G learns from, of what D has seen last; "as_named" is `SystemSpec.generator_batch`."""
    detach_fake: bool = True
    """False: the discriminator's loss adds its gradient to the generator's."""
    update_order: Literal["discriminator_first", "simultaneous", "generator_first"] = (
        "discriminator_first"
    )
    discriminator_updates: Literal["once", "twice", "never", "real_then_fake", "fake_then_real"] = (
        "once"
    )
    """twice: from one gradient; real_then_fake: on each half of its loss, one after the other."""
    generator_updates: Literal["once", "twice", "never", "two_passes"] = "once"
    """two_passes: on the same latents a second time, through G and D as they are by then."""
    discriminator_gradient_scale: float = 1.0
    """Of the gradients alone, not of the loss: a loss scale that is not divided out."""
    generator_gradient_scale: float = 1.0
    gradient_clipping: Literal["none", "value", "norm", "norm_and_epsilon", "norm_of_each"] = "none"
    """By the optimizer: `shared.spec.optimizers`; to a norm PyTorch adds an epsilon of 1e-6."""
    gradient_clip: float = 1.0
    """The largest value or norm of a clipped gradient."""

    # Adam
    generator_learning_rate: float | None = None
    discriminator_learning_rate: float | None = None
    adam_beta1: float | None = None
    adam_beta2: float | None = None
    adam_epsilon: float | None = None
    adam_epsilon_placement: Literal["outside", "before_correction", "inside_root"] = "outside"
    """outside: m̂/(√v̂ + ε), Kingma & Ba Algorithm 1. before_correction: their ε-hat form,
    stock Keras. inside_root: m̂/√(v̂ + ε)."""
    adam_bias_correction: bool = True
    adam_correction: Literal["exact", "float32"] = "exact"
    """float32: the bias correction takes β₁ᵗ and β₂ᵗ of betas rounded to float32, in a float64 run
    too, as Keras does; the moments do not."""
    adam_step_offset: int = 0
    """Added to the number of the update, from 1 on, in the bias correction."""
    adam_weight_decay: float = 0.0
    """Times the parameter, added to its gradient (L2 in the loss, `torch.optim.Adam`'s)."""
    adam_decoupled_decay: float = 0.0
    """Times the learning rate and the parameter, taken from the parameter: AdamW."""

    # Initial weights
    initializer: Literal["spec", "torch_default", "keras_default", "flax_default"] = "spec"

    def or_own(self, field: str, own: Any) -> Any:
        """Return a field, or in place of a canonical choice what a system or layer has, if any."""
        value = getattr(self, field)
        return value if own is None or value != getattr(Conventions, field) else own

    def replace(self, **changes: Any) -> Conventions:
        """Return a copy with some fields changed; an unknown field raises TypeError."""
        return dataclasses.replace(self, **changes)
