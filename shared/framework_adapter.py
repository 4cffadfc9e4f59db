"""What the three frameworks share: what networks are made of, layers as they are met, adapters.

No framework is imported: who has a layer of it has imported it. Adapters are NumPy in, NumPy out.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from shared.interface import METRIC_NAMES, Array, Arrays, LossValues, State
from shared.spec import LOSS_NAMES, NETWORKS, NetworkName, Pixels, SystemSpec, flattened_pixels
from shared.spec.compute import Compute
from shared.spec.systems import check_choice

WORDS = {
    "weight": ("kernel", "w", "weights", "matrix", "gamma", "scale"),
    "bias": ("bias", "b", "biases", "beta"),
    "running_mean": ("moving_mean", "running_mean", "mean"),
    # Keras 1 calls it running_std and keeps the variance there.
    "running_var": ("moving_variance", "running_std", "running_var", "var"),
}
"""PyTorch's name of an array of a layer → what it is called elsewhere."""
IN_PYTORCH = {word: name for name, words in WORDS.items() for word in words}
"""The other way round; our own names are among the words."""
KEPT = {"exp_avg": "m", "grad_avg": "m", "momentum_buffer": "m", "mu": "m", "trace": "m"}
KEPT |= {"exp_avg_sq": "v", "square_avg": "v", "nu": "v", "max_exp_avg_sq": "v_max"}
KEPT |= {"nu_max": "v_max", "count": "step", "_momentums": "m", "_average_gradients": "m"}
KEPT |= {"_velocities": "v", "_velocity_hats": "v_max"}
"""What an optimizer of PyTorch, Optax or Keras keeps → what `shared.spec.optimizers` calls it."""


def kept_by_optax(state: Any) -> dict[str, Any]:
    """Return what an optimizer of Optax keeps, and its count where it has one, by our names."""
    found: dict[str, Any] = {}
    parts = [state]
    while parts:
        part = parts.pop()
        own = getattr(part, "_fields", ())
        found |= {KEPT[name]: getattr(part, name) for name in own if name in KEPT}
        parts += part if isinstance(part, tuple) else ()
    return found


def canonical_arrays(kind: str, held: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a layer's arrays by our names, given by its framework's; others keep theirs."""
    weight = "scale" if kind == "batch_norm" else "kernel"
    known = ((IN_PYTORCH.get(name, name), array) for name, array in held)
    return {weight if n == "weight" else n.removeprefix("running_"): array for n, array in known}


def kind_of(layer: type) -> str:
    """Return what a layer is called: "conv" of torch's Conv2d, Keras' Conv2D and Flax' Conv."""
    for name in (base.__name__ for base in layer.__mro__):
        if name in ("Linear", "Dense") or "BatchNorm" in name:
            return "batch_norm" if "BatchNorm" in name else "dense"
        if re.fullmatch("Conv(2[dD])?|Conv(2D)?Transpose(2d)?", name):
            return "conv_transpose" if "Transpose" in name else "conv"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", layer.__name__).lower()


@contextmanager
def intercepted(held: Any, record: Callable[..., Any], method: str = "__call__") -> Iterator[None]:
    """In this context `record(call, *given, **named)` replaces an object's method, which is `call`.

    The object gets a class of its own: within `nnx.jit` it is another object of the same class.
    """
    kind = type(held)

    def recorded(held: Any, *given: Any, **named: Any) -> Any:
        return record(partial(getattr(kind, method), held), *given, **named)

    own = type(kind.__name__, (kind,), {method: recorded})
    held.__class__ = own
    try:
        yield
    finally:
        held.__class__ = kind
        delattr(own, method)  # JAX keeps every class, and it would keep what was recorded


class Layers(NamedTuple):
    """What the networks are made of; `fast` and `parallel` replace some of it.

    Convolutions have kernels of 4x4, and paddings in PyTorch's meaning.
    """

    conv: Callable[..., Any]
    conv_transpose: Callable[..., Any]
    dense: Callable[..., Any]
    batch_norm: Callable[..., Any]
    relu: Callable[[Any], Any]
    leaky_relu: Callable[[Any], Any]


class ByNetwork:
    """A training state as it is asked for its parts by the name of a network."""

    def network(self, name: NetworkName) -> Any:
        """Return the network."""
        return getattr(self, name)

    def optimizer(self, name: NetworkName) -> Any:
        """Return the network's optimizer."""
        return getattr(self, f"{name}_optimizer")


class FrameworkAdapter:
    """`shared.interface.Implementation` less what each framework does in its own way.

    `checkpoint`, `losses`, `train` and `places` (where arrays lie: state.py) are modules of its
    package. `forward` runs a network where nothing is compiled; the state does not change. The
    keywords are those of `Compute`; batches are those of all devices together.

    Anybody's own `step` is called with the generator, the discriminator, their optimizers, real
    images and latents, as its framework has them. It makes one training step of them, and returns
    the losses of the discriminator on real and on fake images and that of the generator.
    """

    checkpoint: ModuleType
    losses: ModuleType
    value_and_gradients: Callable[..., tuple[Any, ...]]
    forward: Callable[..., Any]
    train: ModuleType
    places: ModuleType

    def __init__(
        self, device: str = "cpu", *, step: Callable[..., Any] | None = None, **compute: Any
    ) -> None:
        self.compute, self.step = Compute(device=device, **compute), step
        if step:  # whose gradients nobody sees
            vars(self)["gradients"] = None

    def computing_in(self, dtype: str | np.dtype) -> AbstractContextManager:
        """Enter what a framework needs to compute in a dtype."""
        return nullcontext()

    def to_numpy(self, tensor: Any) -> Array:
        """Return a framework's tensor as an array."""
        return np.array(tensor)

    def loss(
        self, loss: str, real_scores: Array, fake_scores: Array, **labels: float
    ) -> LossValues:
        """Return the loss called `loss` and its gradients, in the inputs' dtype."""
        functions = self.losses.LOSSES[check_choice("loss", loss, LOSS_NAMES)]
        # What neither takes is a TypeError that names it.
        own = {n: x for n, x in labels.items() if n != "generator_label"}
        discriminator = partial(functions.discriminator, **own)
        own = {n: x for n, x in labels.items() if n != "real_label"}
        generator = partial(functions.generator, **own)
        with self.computing_in(real_scores.dtype):
            d_loss, *d_gradients = self.value_and_gradients(discriminator, real_scores, fake_scores)
            g_loss, g_gradient = self.value_and_gradients(generator, fake_scores)
            values = (d_loss, g_loss, *d_gradients, g_gradient)
            return LossValues(*map(self.to_numpy, values))

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        """Return a fresh training state with the weights that `seed` stands for."""
        compute = replace(self.compute, dtype=dtype)
        with self.computing_in(dtype):
            return self.checkpoint.create_train_state(spec, compute, seed=seed)

    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        """Return images [batch, height, width, channels]; the state does not change."""
        with self.computing_in(state.compute.dtype):
            values = self.places.latents_to_device(state, latents)
            images = self.train.generate(state, values, training=training)
            return self.places.images_to_numpy(images)

    def discriminate(self, state: State, images: Array, *, training: bool = False) -> Array:
        """Return scores [batch]; the state does not change."""
        with self.computing_in(state.compute.dtype):
            values = self.places.images_to_device(state, images)
            return self.to_numpy(self.train.discriminate(state, values, training=training))

    def activations(
        self, state: State, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer makes of the inputs, by its name; the state does not change."""
        kind = "latents" if network == "generator" else "images"
        found, pixels = {}, flattened_pixels(state.spec)

        def keep(name: str, call: Callable[..., Any], *given: Any, **options: Any) -> Any:
            y = call(*given, **options)
            found[name] = self.output_to_numpy(y, pixels.get(f"{network}/{name}/bias"))
            return y

        with self.computing_in(state.compute.dtype), ExitStack() as stack:
            values = getattr(self.places, f"{kind}_to_device")(state, inputs)
            modules = self.modules(state)
            for layer in (x for x in state.spec.layers(network) if x.parameters):
                held = getattr(modules.network(network), layer.name)
                stack.enter_context(intercepted(held, partial(keep, layer.name)))
            self.forward(modules, network, values, training)
        return found

    def output_to_numpy(self, output: Any, pixels: Pixels | None = None) -> Array:
        """Return a copy of what a layer made as NHWC, or as features in HWC order."""
        return self.to_numpy(output)

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        """Make one training step and return its losses; the state moves."""
        with self.computing_in(state.compute.dtype):
            batches = self.places.batches_to_devices(state, real_images, latents)
            step = self.own_step if self.step else self.train.train_step
            metrics = step(state, *batches)
            # In this order: what a jitted function returns is in alphabetical order.
            return {name: float(metrics[name]) for name in METRIC_NAMES}

    def modules(self, state: State) -> Any:
        """Return what holds both networks and their optimizers."""
        return state

    def own_step(self, modules: Any, real_images: Any, latents: Any) -> dict[str, Any]:
        """Make the step that was given, of our networks or of those that `ModulePair` was given."""
        networks = [getattr(modules, name) for name in NETWORKS]
        optimizers = [getattr(modules, f"{name}_optimizer") for name in NETWORKS]
        if hasattr(networks[0], "given"):
            latents, real_images = networks[0].given(latents), networks[1].given(real_images)
            networks = [network.network for network in networks]
        assert self.step
        losses = self.step(*networks, *optimizers, real_images, latents)
        if not isinstance(losses, tuple | list) or len(losses) != 3:
            text = "three losses: of the discriminator on real and on fake images, of the generator"
            raise ValueError(f"step() returned {losses!r:.40}; expected {text}")
        return dict(zip(METRIC_NAMES, (losses[0] + losses[1], *losses), strict=True))

    def export_state(self, state: State) -> Arrays:
        """Return weights, BN statistics, Adam moments and counters by canonical name."""
        with self.computing_in(state.compute.dtype):
            return self.checkpoint.export_state(state)

    def import_state(self, state: State, arrays: Arrays) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
        with self.computing_in(state.compute.dtype):
            self.checkpoint.import_state(state, arrays)

    def synchronize(self, state: State) -> None:
        """Return when all work on the state is done."""
        with self.computing_in(state.compute.dtype):
            self.places.synchronize(state)
