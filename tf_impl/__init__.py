"""The systems of `shared.spec` in TensorFlow 2: Keras 3 layers, GradientTape, tf.function, NHWC."""
