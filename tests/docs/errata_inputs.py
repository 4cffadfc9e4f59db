"""What the tests of the errata feed the networks and losses, and how near is right."""

from typing import Any

import numpy as np

from shared.interface import Implementation
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.streams import latents

EXACT = 1e-12  # float64 values of at most 100: measured 2e-15
MLP = SYSTEMS["mlp28"].replace(width=4, latent_dim=10, batch_size=4)
NEEDS_TORCH = "this erratum is about what PyTorch does"
NEEDS_TF = "this erratum is about what TensorFlow does"


def logit(p: float | np.ndarray) -> Any:
    return np.log(p) - np.log1p(-np.asarray(p))


def images(spec: SystemSpec, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    """Return one batch of real images and of latents."""
    draw = np.random.default_rng(0)
    real = draw.uniform(-1.0, 1.0, (spec.batch_size, *spec.image_shape))
    return real.astype(dtype), latents(spec, 0, 0, spec.batch_size).astype(dtype)


def started(implementation: Implementation, spec: SystemSpec, dtype: str) -> Any:
    """Return a state with the seed's weights."""
    return implementation.create(spec, seed=0, dtype=dtype)
