"""The systems of `shared.spec` in TensorFlow 2: Keras 3 layers, GradientTape, tf.function, NHWC."""

import os
import sys

from shared.interface import require_framework
from shared.run.console import hidden_stderr

require_framework("tf")

# Keras reads it when it is first imported; another backend has no GradientTape.
os.environ["KERAS_BACKEND"] = "tensorflow"

# TensorFlow reads it when it is first imported, also in every child: no notes on CUDA and XLA,
# unless they are asked for.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if "--debug" in sys.argv else "3")
if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3":
    with hidden_stderr():  # what is said during the import knows no level
        import tensorflow  # noqa: F401
