"""The traps of docs/porting.md: each can be run as the naive port falls into it, and as ours.

`python -m tests.apparatus.traps` prints the error of both; the guide's figures are these.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.fixtures.make_network import KINK_MARGIN, kink_margin, representative_state
from shared.interface import LossValues, load_implementation
from shared.reference.comparison import relative_l2
from shared.reference.losses import loss_values
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import NETWORKS, SYSTEMS, Conventions, SystemSpec, flattened_pixels, optimizer_name
from shared.spec.streams import initial_state, latents
from tests.conftest import installed_implementations

# What the ports that are held right must reach: float64 rounding through one step.
BOUND = 1e-11


@dataclass(frozen=True)
class Trap:
    """One row of the guide: `naive` and `right` return a relative error; inf is another shape.

    `framework` is the one that the naive port is written in; "" where any port can fall in.
    """

    name: str
    naive: Callable[[], float]
    right: Callable[[], float]
    bound: float = BOUND
    framework: str = ""


# --- traps that the reference can fall into: one wrong convention ------------------------------


@functools.cache
def starting_point(system: str, loss: str) -> tuple[SystemSpec, dict, np.ndarray, np.ndarray]:
    """Return a narrow system in the middle of training, clear of every kink."""
    spec = SYSTEMS[system].replace(width=4, latent_dim=10, batch_size=4, loss=loss)
    for seed in range(100):
        arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, seed).items()}
        real = np.random.default_rng(seed).uniform(-1, 1, (4, *spec.image_shape))
        z = latents(spec, seed, 0, 4)
        if kink_margin(spec, arrays, real, z) >= KINK_MARGIN:
            return spec, arrays, real, z
    raise AssertionError("no seed is clear of the kinks")


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


# --- traps of a step that are no convention -----------------------------------------------------


def reshape_order(forgotten: tuple[str, ...]) -> float:
    """Return the error of conv28's generator where PyTorch gets some layers in HWC order.

    Of what its last sigmoid is given: the images themselves are all near 1/2.
    """
    torch = importlib.import_module("torch")
    from pytorch_impl.checkpoint import to_native
    from pytorch_impl.native_format import create_native_network, native_names

    spec, arrays, _, z = starting_point("conv28", "bce")
    pixels = {n: w for n, w in flattened_pixels(spec).items() if n.split("/")[1] not in forgotten}
    network = create_native_network(spec, "generator").double().eval()
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
    by_convention("batch-norm-epsilon", batch_norm_epsilon=1e-3),
    by_convention("batch-norm-momentum", batch_norm_momentum=0.9),
    by_convention("batch-norm-variance", batch_norm_running_variance="biased"),
    by_convention("batch-norm-batches", discriminator_batches="merged"),
    by_convention("batch-norm-frozen", batch_norm_mode="running_in_generator_step"),
    by_convention("batch-norm-replicas", batch_norm_replicas=2),
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
    by_convention("adam-epsilon-placement", adam_epsilon_placement="before_correction"),
    by_convention("adam-epsilon-value", adam_epsilon=1e-7),
]


# --- traps of initial weights -------------------------------------------------------------------

DEVIATION_WITHIN_TWO = 0.87962566103423978  # of a standard normal number that is cut at 2


def truncated_normals() -> dict[str, Callable[[], np.ndarray]]:
    """Return each framework's draws of a truncated normal of 0.02, cut as its user asks for it."""
    shape = (4, 4, 64, 128)

    def pytorch(**cut: float) -> np.ndarray:
        torch = importlib.import_module("torch")
        drawn = torch.nn.init.trunc_normal_(
            torch.empty(shape), std=0.02, generator=torch.Generator().manual_seed(0), **cut
        )
        return drawn.numpy()

    def tf() -> np.ndarray:
        return tensorflow()[0].random.stateless_truncated_normal(shape, (0, 0), stddev=0.02).numpy()

    def keras() -> np.ndarray:
        return tensorflow()[1].initializers.TruncatedNormal(stddev=0.02, seed=0)(shape).numpy()

    def keras_scaled() -> np.ndarray:
        scaling = tensorflow()[1].initializers.VarianceScaling
        draw = scaling(0.02**2 * 1024, "fan_in", "truncated_normal", seed=0)
        return draw(shape).numpy()

    def jax(scaled: bool = False) -> np.ndarray:
        module = importlib.import_module("jax")
        draw = module.nn.initializers.truncated_normal(0.02)
        if scaled:
            scaling = module.nn.initializers.variance_scaling
            draw = scaling(0.02**2 * 1024, "fan_in", "truncated_normal")
        return np.asarray(draw(module.random.key(0), shape))

    return {
        "pytorch": pytorch,
        "pytorch cut": lambda: pytorch(a=-0.04, b=0.04),
        "tf": tf,
        "tf keras": keras,
        "tf keras scaled": keras_scaled,
        "jax": jax,
        "jax scaled": lambda: jax(scaled=True),
    }


def truncated_normal(name: str) -> float:
    """Return the error of the standard deviation against a cut at twice 0.02."""
    drawn = truncated_normals()[name]()
    return abs(float(drawn.std(dtype=np.float64)) / (0.02 * DEVIATION_WITHIN_TWO) - 1.0)


def fresh_dense_layers() -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    """Return kernel and bias of a fresh dense layer, 784 to 256, of each framework's own."""

    def pytorch() -> tuple[np.ndarray, np.ndarray]:
        torch = importlib.import_module("torch")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = torch.nn.Linear(784, 256)
        return layer.weight.detach().numpy().T, layer.bias.detach().numpy()

    def tf() -> tuple[np.ndarray, np.ndarray]:
        _, keras = tensorflow()
        layer = keras.layers.Dense(256, kernel_initializer=keras.initializers.GlorotUniform(0))
        assert type(keras.layers.Dense(256).kernel_initializer) is keras.initializers.GlorotUniform
        layer.build((None, 784))
        return layer.kernel.numpy(), layer.bias.numpy()

    def jax() -> tuple[np.ndarray, np.ndarray]:
        nnx = importlib.import_module("flax.nnx")
        layer = nnx.Linear(784, 256, rngs=nnx.Rngs(0))
        return np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])

    return {"pytorch": pytorch, "tf": tf, "jax": jax}


def dense_default_init(framework: str) -> float:
    """Return the error of the kernel's standard deviation against `torch.nn.Linear`'s."""
    return deviation_error(fresh_dense_layers()[framework]()[0])


def mlp28_init(framework: str) -> float:
    """Return the same of our own mlp28, whose discriminator begins with such a layer."""
    implementation = load_implementation(framework)
    state = implementation.create(SYSTEMS["mlp28"], dtype="float32")
    return deviation_error(implementation.export_state(state)["discriminator/dense_1/kernel"])


def deviation_error(kernel: np.ndarray) -> float:
    truth = (3 * kernel.shape[0]) ** -0.5
    return abs(float(kernel.std(dtype=np.float64)) / truth - 1.0)


INITIALIZER_TRAPS = [
    # Of 131,072 and of 200,704 numbers, whose standard deviation is known to 0.2 %.
    Trap(
        "truncated-normal",
        lambda: truncated_normal("pytorch"),
        lambda: truncated_normal("pytorch cut"),
        bound=0.01,
        framework="pytorch",
    ),
    Trap(
        "dense-default-init",
        lambda: dense_default_init("tf"),
        lambda: mlp28_init("tf"),
        bound=0.01,
        framework="tf",
    ),
    Trap(
        "nnx-dense-default-init",
        lambda: dense_default_init("jax"),
        lambda: mlp28_init("jax"),
        bound=0.01,
        framework="jax",
    ),
]


# --- traps of one framework's own layers --------------------------------------------------------


def tensorflow() -> tuple:
    return importlib.import_module("tensorflow"), importlib.import_module("keras")


def same_padding_on_odd_sizes() -> float:
    """PyTorch's k4s2p1 makes 4x4 of 9x9, `same` 5x5: another shape."""
    torch = importlib.import_module("torch")
    tf, _ = tensorflow()
    kernel = np.ones((4, 4, 1, 1))
    theirs = tf.nn.conv2d(np.ones((1, 9, 9, 1)), kernel, 2, "SAME").shape[1:3]
    ours = torch.nn.functional.conv2d(
        torch.ones(1, 1, 9, 9), torch.ones(1, 1, 4, 4), stride=2, padding=1
    ).shape[2:]
    return 0.0 if tuple(theirs) == tuple(ours) else np.inf


def same_padding_on_even_sizes() -> float:
    torch = importlib.import_module("torch")
    tf, _ = tensorflow()
    x, kernel = random(2, 8, 8, 3), random(4, 4, 3, 5)
    theirs = tf.nn.conv2d(x, kernel, 2, "SAME").numpy()
    ours = torch.nn.functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2)),
        torch.tensor(kernel.transpose(3, 2, 0, 1)),
        stride=2,
        padding=1,
    )
    return relative_l2(theirs.transpose(0, 3, 1, 2), ours.numpy())


def jax_conv_transpose_padding(padding: int) -> float:
    """Return the error of a conv-transpose k4s2p1 with some explicit padding."""
    jax = importlib.import_module("jax")
    from shared.reference.layers import conv_transpose_forward

    x, kernel = random(2, 4, 4, 3), random(4, 4, 5, 3)
    expected = conv_transpose_forward(x, kernel, 2, 1)[0]
    with jax.enable_x64(True):
        received = np.array(
            jax.lax.conv_transpose(
                x,
                kernel,
                (2, 2),
                ((padding, padding), (padding, padding)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                transpose_kernel=True,
            )
        )
    return relative_l2(received, expected) if received.shape == expected.shape else np.inf


def tf_leaky_relu(stock: bool) -> float:
    tf, _ = tensorflow()
    from tf_impl.layers import leaky_relu

    x = random(1000)
    function = (lambda v: tf.nn.leaky_relu(v, 0.2)) if stock else leaky_relu
    return relative_l2(function(tf.constant(x)).numpy(), np.where(x > 0, x, 0.2 * x))


def jax_leaky_relu_gradient_at_zero(stock: bool) -> float:
    jax = importlib.import_module("jax")
    from jax_impl.layers import leaky_relu

    function = (lambda v: jax.nn.leaky_relu(v, 0.2)) if stock else leaky_relu
    with jax.enable_x64(True):
        return abs(float(jax.grad(function)(0.0)) / 0.2 - 1.0)


def batch_norm_variance(layer: Callable[[np.ndarray], np.ndarray], dtype: str) -> float:
    """Return the error of a fresh layer's running variance after one batch of 64 numbers."""
    x = random(64, 3).astype(dtype)
    expected = 0.9 + 0.1 * np.var(x.astype(np.float64), axis=0, ddof=1)
    return relative_l2(layer(x), expected)


def keras_running_variance(stock: bool) -> float:
    tf, keras = tensorflow()
    from tf_impl.layers import BatchNorm

    if stock:
        layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float64")
    else:
        layer = BatchNorm(3, dtype="float64")

    def variance(x: np.ndarray) -> np.ndarray:
        layer(tf.constant(x), training=True)
        return (layer.moving_variance if stock else layer.var).numpy()

    return batch_norm_variance(variance, "float64")


def nnx_batch_norm(stock: str) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function of a batch that gives the output and the running variance."""
    jax = importlib.import_module("jax")
    nnx = importlib.import_module("flax.nnx")
    from jax_impl.layers import BatchNorm

    def run(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(x.dtype == np.float64):
            if stock == "ours":
                layer = BatchNorm(x.shape[-1], dtype=x.dtype)
                y = layer(jax.numpy.asarray(x))
            else:
                layer = nnx.BatchNorm(
                    x.shape[-1],
                    momentum=0.9,
                    epsilon=1e-5,
                    use_running_average=False,
                    use_fast_variance=stock == "fast",
                    dtype=x.dtype,
                    param_dtype=x.dtype,
                    rngs=nnx.Rngs(0),
                )
                with warnings.catch_warnings():
                    # JAX warns of the cast to NNX' float32 buffers: a trap of its own below.
                    warnings.simplefilter("ignore", FutureWarning)
                    y = layer(jax.numpy.asarray(x))
            return np.array(y), np.array(layer.var[...])

    return run


def nnx_fast_variance(stock: str) -> float:
    """Return the error of the normalised batch in float32, mean 100 and deviation 0.1."""
    x = (100 + 0.1 * random(4096, 1)).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    return relative_l2(nnx_batch_norm(stock)(x)[0], expected)


def keras_layer_dtype(stock: bool) -> float:
    """A Keras layer without a dtype computes float64 data in float32."""
    tf, keras = tensorflow()
    x, kernel = random(2, 8, 8, 3), random(4, 4, 3, 5)
    layer = keras.layers.Conv2D(5, 4, 2, "same", use_bias=False, dtype=None if stock else "float64")
    layer.build(x.shape)
    layer.set_weights([kernel])
    return relative_l2(layer(tf.constant(x)).numpy(), tf.nn.conv2d(x, kernel, 2, "SAME").numpy())


def tf_cast_of_a_python_number(stock: bool) -> float:
    tf, _ = tensorflow()
    number = tf.cast(0.999, tf.float64) if stock else tf.constant(0.999, tf.float64)
    return abs(float(number) / 0.999 - 1.0)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape)


def adam_error(update: Callable[[np.ndarray, np.ndarray], np.ndarray], dtype: str) -> float:
    """Return the error of the first update of a parameter at 0, gradients from 1e-9 to 1."""
    gradient = np.geomspace(1e-9, 1.0, 50).astype(dtype)
    wide = gradient.astype(np.float64)
    expected = -2e-4 * wide / (np.abs(wide) + 1e-8)
    received = update(np.zeros(50, dtype), gradient)
    return float(np.max(np.abs(received / expected - 1.0)))


def keras_adam(stock: bool, dtype: str = "float64") -> float:
    tf, keras = tensorflow()
    from shared.spec import AdamSpec
    from tf_impl.layers import Adam

    def update(parameter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        variable = keras.Variable(parameter, dtype=dtype)
        if stock:
            optimizer = keras.optimizers.Adam(2e-4, beta_1=0.5, epsilon=1e-8)
            optimizer.apply_gradients([(tf.constant(gradient), variable)])
        else:
            settings = AdamSpec()
            optimizer = Adam(settings.learning_rate, settings.beta1, settings.beta2)
            optimizer.apply([tf.constant(gradient)], [variable])
        return variable.numpy()

    return adam_error(update, dtype)


def optax_adam(stock: bool, dtype: str) -> float:
    jax = importlib.import_module("jax")
    optax = importlib.import_module("optax")
    from jax_impl.layers import scale_by_adam

    optimizer = optax.adam(2e-4, b1=0.5) if stock else scale_by_adam(0.5, 0.999, 1e-8)
    rate = {} if stock else {"learning_rate": 2e-4}

    def update(parameter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        with jax.enable_x64(dtype == "float64"):
            held = jax.numpy.asarray(parameter)
            state = optimizer.init(held)
            updates, _ = optimizer.update(jax.numpy.asarray(gradient), state, held, **rate)
            return np.array(updates)

    return adam_error(update, dtype)


def nnx_buffer_dtype(stock: str) -> float:
    """Return the error of the running MEAN after a float64 batch: a float32 buffer rounds it."""
    jax = importlib.import_module("jax")
    nnx = importlib.import_module("flax.nnx")
    from jax_impl.layers import BatchNorm

    x = random(64, 3)
    with jax.enable_x64(True):
        if stock == "ours":
            layer = BatchNorm(3, dtype=np.float64)
            layer(jax.numpy.asarray(x))
        else:
            layer = nnx.BatchNorm(
                3, momentum=0.9, use_running_average=False, dtype=np.float64, rngs=nnx.Rngs(0)
            )
            with warnings.catch_warnings():
                # JAX warns of the cast to the float32 buffer, which is the trap.
                warnings.simplefilter("ignore", FutureWarning)
                layer(jax.numpy.asarray(x))
        mean = np.array(layer.mean[...])
    return relative_l2(mean, 0.1 * x.mean(0))


def broadcast_loss(shape: tuple[int, ...]) -> float:
    """Least squares of scores [batch] against labels of some shape, by broadcasting."""
    scores = random(8)
    expected = 0.5 * np.mean(np.square(scores - np.arange(8)))
    labels = np.arange(8.0).reshape(shape)
    return float(abs(0.5 * np.mean(np.square(scores - labels)) / expected - 1.0))


def torch_softplus_threshold(stock: bool) -> float:
    torch = importlib.import_module("torch")
    from pytorch_impl.losses import binary_cross_entropy_with_logits

    x = torch.tensor([20.5], dtype=torch.float64)
    loss = torch.nn.functional.softplus(x) if stock else binary_cross_entropy_with_logits(x, 0.0)
    truth = np.log1p(np.exp(-20.5))  # the part that is lost beside x
    return float(abs((loss - x)[0].item() / truth - 1.0))


def sigmoid_then_bce(stock: bool) -> float:
    """Return the error of the loss on a fake score of 17 in float32: -log(1 - σ(17)) = 17."""
    torch = importlib.import_module("torch")
    from pytorch_impl.losses import LOSSES

    score = torch.tensor([17.0])
    probability = torch.sigmoid(score)
    loss = (
        LOSSES["bce_probs"].discriminator_fake(probability)
        if stock
        else LOSSES["bce"].discriminator_fake(score)
    )
    return abs(float(loss) / (17.0 + np.log1p(np.exp(-17.0))) - 1.0)


def tf_function_gradient(stock: bool) -> float:
    """Return the error of the gradient of -log σ(x) at x = 20, float32, inside a tf.function."""
    tf, _ = tensorflow()
    from tf_impl.losses import binary_cross_entropy_with_logits

    @tf.function
    def gradient(x: object) -> object:
        with tf.GradientTape() as tape:
            tape.watch(x)
            if stock:
                labels = tf.ones_like(x)
                y = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=x)
            else:
                y = binary_cross_entropy_with_logits(x, 1.0)
        return tape.gradient(y, x)

    truth = -1.0 / (1.0 + np.exp(20.0))
    return abs(float(gradient(tf.constant([20.0]))[0]) / truth - 1.0)


def safetensors_of_a_view(stock: bool) -> float:
    """Save a transposed view; safetensors.numpy writes its memory, not its values."""
    from safetensors.numpy import load, save

    array = random(4, 6).T
    content = save({"array": array if stock else np.ascontiguousarray(array)})
    return relative_l2(load(content)["array"], array)


FRAMEWORK_TRAPS = [
    Trap("same-padding", same_padding_on_odd_sizes, same_padding_on_even_sizes, framework="tf"),
    Trap(
        "conv-transpose-padding",
        lambda: jax_conv_transpose_padding(1),
        lambda: jax_conv_transpose_padding(2),
        framework="jax",
    ),
    Trap(
        "leaky-relu-float32-slope",
        lambda: tf_leaky_relu(True),
        lambda: tf_leaky_relu(False),
        framework="tf",
    ),
    Trap(
        "leaky-relu-gradient-at-zero",
        lambda: jax_leaky_relu_gradient_at_zero(True),
        lambda: jax_leaky_relu_gradient_at_zero(False),
        framework="jax",
    ),
    Trap(
        "keras-running-variance",
        lambda: keras_running_variance(True),
        lambda: keras_running_variance(False),
        framework="tf",
    ),
    Trap(
        "nnx-running-variance",
        lambda: batch_norm_variance(lambda x: nnx_batch_norm("centred")(x)[1], "float64"),
        lambda: batch_norm_variance(lambda x: nnx_batch_norm("ours")(x)[1], "float64"),
        framework="jax",
    ),
    Trap(
        "nnx-fast-variance",
        lambda: nnx_fast_variance("fast"),
        lambda: nnx_fast_variance("ours"),
        bound=1e-4,  # float32: the mean of 100 is known to 4e-6, the deviation is 0.1
        framework="jax",
    ),
    Trap(
        "nnx-buffer-dtype",
        lambda: nnx_buffer_dtype("stock"),
        lambda: nnx_buffer_dtype("ours"),
        framework="jax",
    ),
    Trap(
        "keras-layer-dtype",
        lambda: keras_layer_dtype(True),
        lambda: keras_layer_dtype(False),
        framework="tf",
    ),
    Trap(
        "tf-cast",
        lambda: tf_cast_of_a_python_number(True),
        lambda: tf_cast_of_a_python_number(False),
        framework="tf",
    ),
    Trap("keras-adam", lambda: keras_adam(True), lambda: keras_adam(False), framework="tf"),
    Trap(
        "optax-adam-float32",
        lambda: optax_adam(True, "float32"),
        lambda: optax_adam(False, "float32"),
        bound=1e-6,  # eight float32 roundings
        framework="jax",
    ),
    Trap("broadcast-labels", lambda: broadcast_loss((8, 1)), lambda: broadcast_loss((8,))),
    Trap(
        "torch-softplus-threshold",
        lambda: torch_softplus_threshold(True),
        lambda: torch_softplus_threshold(False),
        bound=1e-5,  # 20.5 holds the small part of the loss to 3.6e-15 of 1.2e-9
        framework="pytorch",
    ),
    Trap(
        "sigmoid-then-bce",
        lambda: sigmoid_then_bce(True),
        lambda: sigmoid_then_bce(False),
        bound=1e-6,
        framework="pytorch",
    ),
    Trap(
        "tf-function-gradient",
        lambda: tf_function_gradient(True),
        lambda: tf_function_gradient(False),
        bound=1e-6,
        framework="tf",
    ),
    Trap(
        "safetensors-view",
        lambda: safetensors_of_a_view(True),
        lambda: safetensors_of_a_view(False),
    ),
]

TRAPS = CONVENTION_TRAPS + INITIALIZER_TRAPS + FRAMEWORK_TRAPS


if __name__ == "__main__":
    for trap in TRAPS:
        print(f"{trap.name:<30}naive {trap.naive():<10.2g} right {trap.right():.2g}")
