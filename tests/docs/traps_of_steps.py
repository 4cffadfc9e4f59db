"""Traps that a port in any framework can fall into: one wrong convention in a training step."""

import dataclasses
import functools
import importlib

import numpy as np

from shared.explain.probes import kink_margin
from shared.fixtures.network import KINK_MARGIN, representative_state
from shared.interface import LossValues
from shared.reference.comparison import relative_l2
from shared.reference.losses import loss_values
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import NETWORKS, SYSTEMS, Conventions, SystemSpec, flattened_pixels, optimizer_name
from shared.spec.streams import initial_state, latents
from tests.apparatus.explain_accuracy import uncompiled
from tests.conftest import installed_implementations
from tests.docs.trap import Trap
from tests.implementations.third_party_networks import conv28_networks

# --- one wrong convention --------------------------------------------------------------------


@functools.cache
def starting_point(system: str, loss: str) -> tuple[SystemSpec, dict, np.ndarray, np.ndarray]:
    """Return a narrow system in the middle of training, clear of every kink."""
    spec = SYSTEMS[system].replace(width=4, latent_dim=10, batch_size=4, loss=loss)
    seed = 10 if system == "dcgan64" and loss != "lsgan" else 0
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, seed).items()}
    real = np.random.default_rng(seed).uniform(-1, 1, (4, *spec.image_shape))
    z = latents(spec, seed, 0, 4)
    assert kink_margin(spec, arrays, real, z) >= KINK_MARGIN
    return spec, arrays, real, z


def step_numbers(system: str, loss: str, **deviation: object) -> dict[str, np.ndarray]:
    """Return every gradient and the state after one step of the reference."""
    spec, arrays, real, z = starting_point(system, loss)
    step = train_step(spec, arrays, real, z, Conventions().replace(**deviation))
    return step.arrays | {f"gradient of {name}": g for name, g in step.gradients.items()}


@functools.cache
def right_error(system: str, loss: str) -> float:
    """Return the largest error of any tensor in the step of any installed implementation."""
    spec, arrays, real, z = starting_point(system, loss)
    expected = step_numbers(system, loss)
    worst = 0.0
    for implementation in installed_implementations():
        state = implementation.create(spec, dtype="float64")
        implementation.import_state(state, arrays)
        with uncompiled(implementation.name):
            gradients = implementation.gradients(state, real, z)
            implementation.train_step(state, real, z)
        received = implementation.export_state(state)
        received |= {f"gradient of {name}": g for name, g in gradients.items()}
        worst = max(worst, *(relative_l2(received[name], a) for name, a in expected.items()))
    return worst


def by_convention(
    name: str, *, system: str = "dcgan64", loss: str = "bce", **deviation: object
) -> Trap:
    """Return the trap of one wrong convention: its largest error of any tensor in one step."""

    def naive() -> float:
        ours, theirs = step_numbers(system, loss), step_numbers(system, loss, **deviation)
        return max(relative_l2(theirs[n], a) for n, a in ours.items())

    return Trap(name, naive, lambda: right_error(system, loss))


# --- steps that are no convention ------------------------------------------------------------


def reshape_order(forgotten: tuple[str, ...]) -> float:
    """Return the error of conv28's generator where PyTorch gets some layers in HWC order.

    Of what its last sigmoid is given: the images themselves are all near 1/2.
    """
    torch = importlib.import_module("torch")
    from pytorch_impl.checkpoint import to_native
    from pytorch_impl.native_format import native_names

    spec, arrays, _, z = starting_point("conv28", "bce")
    pixels = {n: w for n, w in flattened_pixels(spec).items() if n.split("/")[1] not in forgotten}
    generator, _ = conv28_networks(torch, spec.width, spec.latent_dim, spec.channels)
    network = generator.double().eval()
    held = {
        native.removeprefix("generator/"): to_native(arrays[name], pixels.get(name))
        for native, name in native_names(spec).items()
        if name.startswith("generator/")
    }
    network.load_state_dict(held, strict=False)  # BN's counters are missing
    with torch.no_grad():
        images = network.get_submodule("main")(torch.tensor(z)).permute(0, 2, 3, 1).numpy()
    expected = forward(spec, "generator", arrays, z, Conventions(), training=False)
    return relative_l2(np.log(images / (1 - images)), expected.activations["conv_transpose_4"])


def other_generator_batch(generator_batch: str) -> float:
    """Return the largest error of any tensor if G learns on other images than D has just seen."""
    spec, arrays, real, z = starting_point("dcgan64", "bce")
    other = spec.replace(generator_batch=generator_batch)
    drawn = np.concatenate([z, latents(spec, 0, 1, len(z))])[: other.latent_batches * len(z)]
    step = train_step(other, arrays, real, drawn)
    theirs = step.arrays | {f"gradient of {name}": g for name, g in step.gradients.items()}
    return max(relative_l2(theirs[n], a) for n, a in step_numbers("dcgan64", "bce").items())


def inference(passes: str) -> np.ndarray:
    """Return images by the running statistics, or by the batch's where a port forgets them."""
    spec, arrays, _, z = starting_point("dcgan64", "bce")
    c = Conventions().replace(batch_norm_passes=passes)
    return forward(spec, "generator", arrays, z, c, training=False).output


def eval_forgotten() -> float:
    """Return the error of images that are sampled in training mode."""
    return relative_l2(inference("always_batch"), inference("as_asked"))


def right_inference() -> float:
    """Return the error of every installed implementation's images by the running statistics."""
    spec, arrays, _, z = starting_point("dcgan64", "bce")
    worst = 0.0
    for implementation in installed_implementations():
        state = implementation.create(spec, dtype="float64")
        implementation.import_state(state, arrays)
        worst = max(worst, relative_l2(implementation.generate(state, z), inference("as_asked")))
    return worst


# Probabilities of which one is beyond Keras' clip at 1e-7.
PROBABILITIES = (np.array([0.25, 0.75, 1e-9]), np.array([0.25, 0.75, 0.5]))


def clipped_probabilities() -> float:
    """Return the error of bce_probs' values and gradients with Keras' clip at 1e-7."""
    return probability_error(
        loss_values("bce_probs", *PROBABILITIES, Conventions(probability_clipping="epsilon_1e-7"))
    )


def right_probabilities() -> float:
    """Return the same error of every installed implementation."""
    return max(
        probability_error(implementation.loss("bce_probs", *PROBABILITIES))
        for implementation in installed_implementations()
    )


def probability_error(received: LossValues) -> float:
    expected = dataclasses.asdict(loss_values("bce_probs", *PROBABILITIES))
    found = dataclasses.asdict(received)
    return max(relative_l2(found[name], expected[name]) for name in expected)


CANCELLED = (
    "generator/dense_1/bias",
    "generator/dense_2/bias",
    "generator/conv_transpose_3/bias",
    "discriminator/conv_2/bias",
    "discriminator/dense_3/bias",
)
"""The biases of conv28 that stand before a batch norm, which takes them away again."""


@functools.cache
def first_steps(dtype: str) -> tuple[SystemSpec, dict, list[tuple[dict, dict]]]:
    """Make the first step of a narrow conv28 in float64 NumPy and in every installed framework.

    Returns the spec, the state after NumPy's step and, for each framework, its state and the
    errors of what its networks then make by the batch's statistics.
    """
    spec = SYSTEMS["conv28"].replace(width=4, latent_dim=10, batch_size=8)
    arrays = initial_state(spec, 0)
    inputs = {
        "generator": latents(spec, 0, 0, 8),
        "discriminator": np.random.default_rng(0).uniform(0, 1, (8, *spec.image_shape)),
    }
    z, real = inputs.values()
    assert kink_margin(spec, arrays, real, z) >= KINK_MARGIN
    expected = train_step(spec, arrays, real, z).arrays
    made = []
    for implementation in installed_implementations():
        state = implementation.create(spec, dtype=dtype)
        implementation.import_state(state, arrays)
        z, real = (x.astype(dtype) for x in inputs.values())
        implementation.train_step(state, real, z)
        outputs = {
            "generator": implementation.generate(state, z, training=True),
            "discriminator": implementation.discriminate(state, real, training=True),
        }
        errors = {
            network: relative_l2(
                outputs[network],
                forward(spec, network, expected, x, Conventions(), training=True).output,
            )
            for network, x in inputs.items()
        }
        made.append((implementation.export_state(state), errors))
    return spec, expected, made


def bias_before_batch_norm(dtype: str = "float32") -> float:
    """Return the largest error of a cancelled bias after one step: RMS, in learning rates."""
    spec, expected, made = first_steps(dtype)
    rates = {
        "generator": spec.generator_optimizer.learning_rate,
        "discriminator": spec.discriminator_optimizer.learning_rate,
    }
    return max(
        float(np.sqrt(np.mean(np.square(after[name] - expected[name])))) / rates[network]
        for after, _ in made
        for network in NETWORKS
        for name in CANCELLED
        if name.startswith(network)
    )


def what_batch_norm_leaves() -> float:
    """Return the largest error of what is determined.

    That is what the networks make by the batch's statistics, and a cancelled bias' gradient, which
    is 0, in units of its kernel's: their first moments, after one step, are in the same ratio.
    """
    worst = 0.0
    for after, errors in first_steps("float32")[2]:
        sizes = {
            name: np.linalg.norm(after[optimizer_name(name, "m")])
            for bias in CANCELLED
            for name in (bias, bias.replace("/bias", "/kernel"))
        }
        shares = [sizes[name] / sizes[name.replace("/bias", "/kernel")] for name in CANCELLED]
        worst = max(worst, *errors.values(), *map(float, shares))
    return worst


CONVENTION_TRAPS = [
    by_convention("conv-transpose-flip", conv_transpose_kernel="flipped"),
    by_convention("conv-kernel", conv_kernel="flipped"),
    by_convention("flatten-order", system="dcgan64-lsgan", loss="lsgan", flatten_order="chw"),
    Trap(
        "reshape-order",
        lambda: reshape_order(("dense_2", "batch_norm_2")),
        lambda: reshape_order(()),
        framework="pytorch",
    ),
    Trap(
        "reshape-order-batch-norm",
        lambda: reshape_order(("batch_norm_2",)),
        lambda: reshape_order(()),
        framework="pytorch",
    ),
    by_convention("channel-order", image_channels="reversed"),
    by_convention("batch-norm-epsilon", batch_norm_epsilon=1e-3),
    by_convention("batch-norm-momentum", batch_norm_momentum=0.9),
    by_convention("batch-norm-variance", batch_norm_running_variance="biased"),
    by_convention("batch-norm-batches", discriminator_batches="merged"),
    by_convention("batch-norm-order", discriminator_batches="fake_first"),
    by_convention("batch-norm-frozen", batch_norm_mode="running_in_generator_step"),
    by_convention("batch-norm-replicas", batch_norm_replicas=2),
    Trap("batch-norm-eval", eval_forgotten, right_inference),
    by_convention("batch-norm-divisor", batch_norm_divisor="variance"),
    by_convention("batch-norm-not-threaded", batch_norm_statistics="not_in_generator_step"),
    Trap(
        "bias-before-batch-norm",
        bias_before_batch_norm,
        what_batch_norm_leaves,
        bound=1e-3,  # float32; measured 7e-5, in a gradient whose real and fake halves cancel
    ),
    by_convention("leaky-relu-slope", leaky_relu_slope=0.01),
    by_convention("generator-activation", generator_activation="leaky_relu"),
    by_convention("generator-output", generator_output="none"),
    by_convention("discriminator-output", discriminator_output="sigmoid"),
    by_convention("detach", detach_fake=False),
    by_convention("update-order", update_order="simultaneous"),
    Trap(
        "generator-batch",
        lambda: other_generator_batch("new_latents"),
        lambda: right_error("dcgan64", "bce"),
    ),
    Trap(
        "generator-batch-forward",
        lambda: other_generator_batch("same_latents"),
        lambda: right_error("dcgan64", "bce"),
    ),
    by_convention("discriminator-step-count", discriminator_step_offset=1),
    by_convention("optimizer-steps", discriminator_updates="real_then_fake"),
    by_convention("gradient-scale", discriminator_gradient_scale=65536.0),
    by_convention("gradient-clipping", gradient_clipping="norm"),
    by_convention("batch-part", batch_part="first_half"),
    by_convention("discriminator-halves", discriminator_halves="real_only"),
    by_convention("discriminator-labels", real_label=0.0, fake_label=1.0),
    by_convention("discriminator-loss-half", discriminator_loss_scale=0.5),
    by_convention("loss-reduction", loss_reduction="sum"),
    by_convention("lsgan-half", loss="lsgan", lsgan_scale=1.0),
    by_convention("generator-objective", generator_objective="saturating"),
    Trap("probability-clipping", clipped_probabilities, right_probabilities),
    by_convention("learning-rates", generator_learning_rate=1e-3),
    by_convention("adam-beta1", adam_beta1=0.9),
    by_convention("adam-beta2", adam_beta2=0.99),
    by_convention("adam-bias-correction", adam_bias_correction=False),
    by_convention("adam-step", adam_step_offset=-1),
    by_convention("adam-weight-decay", adam_weight_decay=1e-2),
    by_convention("adam-decoupled-decay", adam_decoupled_decay=1e-4),
    by_convention("adam-epsilon-placement", adam_epsilon_placement="before_correction"),
    by_convention("adam-epsilon-value", adam_epsilon=1e-7),
]
