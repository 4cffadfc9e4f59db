"""Generic changes that no test on a CPU can fail on, each with why."""

_SAME = 'Keras pads by "same" or not at all: of 1 and 2 it is the same'

SURVIVORS: dict[tuple[str, str, str], str] = {
    (
        "pytorch_impl/layers.py",
        "fused=True,",
        "True -> False",
    ): "Adam's fused kernel is for speed, its numbers are those of the loop",
    (
        "pytorch_impl/checkpoint.py",
        "for name, network in zip(NETWORKS, networks, strict=True)",
        "True -> False",
    ): "both are two",
    (
        "tf_impl/train.py",
        'partial(function, state), autograph=False, jit_compile=state.compute.mode == "xla"',
        "False -> True",
    ): "autograph rewrites control flow that depends on tensors, of which a step has none",
    (
        "tf_impl/models.py",
        "self.conv_1 = layers.conv(spec.channels, spec.width, 2, 1)",
        "1 -> 2",
    ): _SAME,
    (
        "tf_impl/models.py",
        'setattr(self, f"conv_{i}", layers.conv(narrow, wide, 2, 1))',
        "1 -> 2",
    ): _SAME,
    (
        "tf_impl/models.py",
        "self.conv_transpose_4 = layers.conv_transpose(width, spec.channels, 2, 1, bias=True)",
        "1 -> 2",
    ): _SAME,
    (
        "tf_impl/models.py",
        "self.conv_2 = layers.conv(width, 2 * width, 2, 1, bias=True)",
        "1 -> 2",
    ): _SAME,
    (
        "jax_impl/losses.py",
        "if scores.dtype.itemsize < 4:",
        "4 -> 5",
    ): "the floats of four bytes are float32 already",
    (
        "jax_impl/layers.py",
        'own = dtypes | {"rngs": nnx.Rngs(0)}',
        "0 -> 1",
    ): "no weights are drawn from it: a state takes the shapes alone",
    (
        "shared/spec/compute.py",
        "parts = array.reshape(batches, devices, -1, *array.shape[1:])[:, replica]",
        "1 -> 2",
    ): "the rows that -1 stands for lie one after another, and are reshaped once more",
}
"""File, text of the line, change → why it changes nothing that can be seen."""
