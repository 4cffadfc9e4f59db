"""Settings that every test shares; they must stand before a framework is imported."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if os.environ.get("GAN_TEST_DEVICE", "cpu") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["JAX_PLATFORMS"] = "cpu"

import pytest

from shared.interface import IMPLEMENTATIONS, Implementation, MissingFrameworkError
from shared.interface import load_implementation as load

# Threads that spin beside each other make small tensors several times slower.
THREADS = 1


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Each of the three implementations whose framework is installed; others are skipped."""
    try:
        loaded = load(request.param)
    except MissingFrameworkError as error:
        pytest.skip(str(error))
    limit_threads(request.param)
    return loaded


def limit_threads(name: str) -> None:
    if name == "pytorch":
        import torch

        torch.set_num_threads(THREADS)
    if name == "tf":
        import tensorflow as tf

        if tf.config.threading.get_intra_op_parallelism_threads() != THREADS:
            tf.config.threading.set_intra_op_parallelism_threads(THREADS)
            tf.config.threading.set_inter_op_parallelism_threads(THREADS)
