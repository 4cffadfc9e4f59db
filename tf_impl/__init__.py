"""The systems of `shared.spec` in TensorFlow 2: Keras 3 layers, GradientTape, tf.function, NHWC."""

import os

# Keras reads it when it is first imported; another backend has no GradientTape.
os.environ["KERAS_BACKEND"] = "tensorflow"
