"""Keras 3 on PyTorch, behind this project's interface: losses on logits and both networks.

KERAS_BACKEND=torch python -m shared.conformance --impl docs.examples.keras_torch
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

from keras import ops

from shared.interface import LossValues
from shared.spec.streams import initial_state


def _forward(state, network, x, training):
    x = ops.convert_to_tensor(x, state["dtype"])
    for layer in state["spec"].layers(network):
        p = {q.name: state["arrays"][f"{network}/{layer.name}/{q.name}"] for q in layer.parameters}
        if layer.kind in ("conv", "conv_transpose"):
            padding = "same" if layer.padding else "valid"
            x = getattr(ops, layer.kind)(x, p["kernel"], layer.stride, padding) + p.get("bias", 0.0)
        elif layer.kind == "dense":
            x = x @ p["kernel"] + p["bias"]  # ops.matmul would compute float64 in float32
        elif layer.kind == "batch_norm":
            mean, var = ops.moments(x, [*range(x.ndim - 1)]) if training else (p["mean"], p["var"])
            x = (x - mean) / ops.sqrt(var + 1e-5) * p["scale"] + p["bias"]
        elif layer.kind == "leaky_relu":
            x = ops.where(x > 0, x, x * 0.2)
        elif layer.kind in ("flatten", "reshape"):
            x = ops.reshape(x, (len(x), *layer.output_shape))
        else:  # relu, tanh, sigmoid
            x = getattr(ops, layer.kind)(x)
    return ops.convert_to_numpy(x)


def _half(loss, scores, label):
    """Return the mean loss of scores against one label, and its gradient."""
    s = ops.convert_to_tensor(scores)
    if loss == "lsgan":
        values, gradient = 0.5 * (s - label) ** 2, s - label
    elif loss in ("bce", "minimax"):  # not softplus, which loses its small part beyond 20
        values = -sum(w * ops.log_sigmoid(t) for w, t in ((label, s), (1.0 - label, -s)) if w)
        gradient = (1.0 - label) * ops.sigmoid(s) - label * ops.sigmoid(-s)
    else:
        raise NotImplementedError(f"no loss {loss!r} here; expected bce, minimax or lsgan")
    return ops.convert_to_numpy(values.mean()), ops.convert_to_numpy(gradient / len(scores))


class Keras:
    """Losses and networks; a training step would be the loop that is to be checked."""

    def loss(self, loss, real, fake, real_label=1.0, fake_label=0.0, generator_label=1.0):
        """Return both losses and their gradients."""
        on_real, on_fake = _half(loss, real, real_label), _half(loss, fake, fake_label)
        own = [-v for v in on_fake] if loss == "minimax" else _half(loss, fake, generator_label)
        return LossValues(on_real[0] + on_fake[0], own[0], on_real[1], on_fake[1], own[1])

    def create(self, spec, *, seed=0, dtype="float32"):
        """Return a state with the weights that `seed` stands for."""
        state = {"spec": spec, "dtype": dtype}
        self.import_state(state, initial_state(spec, seed))
        return state

    def import_state(self, state, arrays):
        """Replace every array: the canonical layouts are Keras' own."""
        state["arrays"] = {n: ops.convert_to_tensor(a, state["dtype"]) for n, a in arrays.items()}

    def generate(self, state, latents, *, training=False):
        """Return images NHWC."""
        return _forward(state, "generator", latents, training)

    def discriminate(self, state, images, *, training=False):
        """Return scores [batch]."""
        return _forward(state, "discriminator", images, training)[:, 0]


implementation = Keras()
