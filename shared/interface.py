"""The interface of every implementation: NumPy arrays in, NumPy arrays out.

Latents are [batch, latent_dim]; images NHWC in the system's range; scores [batch]; weights have
the canonical names and layouts of `shared.spec`. An implementation is any module with an object
called `implementation` that has these methods; a third party's counts as much as the three here.
"""

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from shared.spec import AdamSpec, NetworkName, SystemSpec
from shared.spec.state_arrays import Array, Arrays

IMPLEMENTATIONS = ("pytorch", "tf", "jax")

PACKAGES = {
    "pytorch": ("torch",),
    "tf": ("tensorflow", "keras"),
    "jax": ("jax", "jaxlib", "flax", "optax"),
    "tensorboard": ("tensorboard",),
    "fid": ("torch_fidelity",),
}
"""Implementation or option, and extra that installs it → the packages it needs."""

# What else an implementation may be called, wherever one is named.
_ALIASES = {"torch": "pytorch", "reference": "shared.reference.adapter"}

Shapes = Mapping[str, tuple[int, ...]]
State = Any  # an implementation's own training state; opaque to everybody else


@dataclass(frozen=True)
class LossValues:
    """Both losses of one batch and their gradients, in the dtype of the scores.

    `discriminator` and `generator` are scalars; the gradients have the shape of the scores that
    they are taken with respect to.
    """

    discriminator: Array
    generator: Array
    discriminator_real_gradient: Array
    discriminator_fake_gradient: Array
    generator_fake_gradient: Array


class MissingFrameworkError(ImportError):
    """A known implementation whose framework is not installed; the message says what to do."""


class Implementation(Protocol):
    """What a test, a fixture or the benchmark may ask of an implementation."""

    name: str

    def loss(
        self, loss: str, real_scores: Array, fake_scores: Array, **labels: float
    ) -> LossValues:
        """Return the loss called `loss` and its gradients, in the inputs' dtype.

        float32 and float64 are computed as they are; bfloat16 may be float32 inside, rounded once.

        `labels` may hold real_label, fake_label and generator_label, where the loss has them.
        """

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        """Return a fresh training state with the weights that `seed` stands for."""

    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        """Return images [batch, height, width, channels]; the state does not change.

        `training` normalises by the batch's statistics instead of the running ones.
        """

    def discriminate(self, state: State, images: Array, *, training: bool = False) -> Array:
        """Return scores [batch]; the state does not change."""

    def gradients(self, state: State, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        """Make one training step and return its losses; the state moves."""

    def export_state(self, state: State) -> Arrays:
        """Return weights, BN statistics, Adam moments and counters by canonical name."""

    def import_state(self, state: State, arrays: Arrays) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""

    def synchronize(self, state: State) -> None:
        """Return when all work on the state is done, on whatever device it runs."""

    # What it may offer besides, or alone: `shared.explain` asks for it.

    def activations(
        self, state: State, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer makes of the inputs, by its name; the state does not change.

        Layers are those of `SystemSpec.layers`, images NHWC; any of them may be left out.
        """

    def adam(
        self, parameter: Array, gradient: Array, m: Array, v: Array, step: int, settings: AdamSpec
    ) -> tuple[Array, Array, Array]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""


METRIC_NAMES = (
    "discriminator_loss",
    "discriminator_loss_real",
    "discriminator_loss_fake",
    "generator_loss",
)
"""The keys of what `train_step` returns."""


def canonical_name(name: str) -> str:
    """Return what `torch` and `reference` stand for; any other name is returned as it is."""
    return _ALIASES.get(name, name)


def use_cpu() -> None:
    """Keep every framework on the CPU; only before the first of them is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    os.environ["JAX_PLATFORMS"] = "cpu"


def require_framework(name: str) -> None:
    """Raise MissingFrameworkError unless the packages of one of PACKAGES are installed.

    Where Python is about to run one of its modules as a command, end as commands do: in one line.
    """
    missing = [p for p in PACKAGES[name] if importlib.util.find_spec(p) is None]
    if not missing:
        return
    what = f"the implementation {name!r}" if name in IMPLEMENTATIONS else f"--{name}"
    advice = f"install it with: pip install -c constraints.txt -e '.[{name}]'"
    message = f"{what} needs {', '.join(missing)}, which is not installed; {advice}"
    if sys.argv[0] == "-m":  # what it is until `python -m` has found its module
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2)
    raise MissingFrameworkError(message)


def load_implementation(name: str) -> Implementation:
    """Import an implementation by its name, or anybody's own by its dotted module path.

    "torch" is "pytorch", and "reference" the NumPy reference. Raises MissingFrameworkError if the
    framework of a known one is not installed, and ValueError for a name that is neither known nor
    a module with an object called `implementation`, and for a module that raises.
    """
    name = canonical_name(name)
    if name in IMPLEMENTATIONS:
        require_framework(name)
    module_path = f"{name}_impl.adapter" if name in IMPLEMENTATIONS else name
    try:
        found = importlib.util.find_spec(module_path) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        near = difflib.get_close_matches(name, IMPLEMENTATIONS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = f"{', '.join(IMPLEMENTATIONS)}, or the dotted path of a module that can be imported"
        raise ValueError(f"unknown implementation {name!r}; {hint}expected one of {known}")
    try:
        module = importlib.import_module(module_path)
    except (ValueError, MissingFrameworkError):
        raise
    except Exception as error:  # anybody's own module may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"importing {name} raised {reason}") from error
    if not hasattr(module, "implementation"):
        expected = "expected one with the methods of shared.interface.Implementation"
        text = f"the module {module_path!r} has no object called 'implementation'"
        raise ValueError(f"{text}; {expected}")
    return module.implementation


def check_arrays(arrays: Mapping[str, Array], expected: Shapes, what: str) -> None:
    """Raise ValueError unless `arrays` holds exactly the expected names and shapes."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    pairs = [(n, shapes[n], shape) for n, shape in expected.items() if n in shapes]
    found = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in expected],
        "wrong shape": [f"{n} {own} instead of {shape}" for n, own, shape in pairs if own != shape],
    }
    problems = [
        f"{label}: {', '.join(names[:5])} ({len(names)})" for label, names in found.items() if names
    ]
    if problems:
        raise ValueError(f"{what} does not fit the system: {'; '.join(problems)}")
