"""Faults of the kernels of convolutions and of their padding."""

from tests.apparatus.planted.fault import Edit, Edits, Fault


def _conv_kernel(torch: str, tf: str, jax: str) -> Edits:
    """Return edits that use a convolution's kernel otherwise; each takes a kernel's expression."""
    return {
        "pytorch": _torch_layer(
            "Conv2d",
            f"kernel = {torch.format('self.weight')}",
            "return F.conv2d(x, kernel, self.bias, self.stride, self.padding)",
        ),
        "tf": _keras_conv(f"return super().convolution_op(inputs, {tf.format('kernel')})"),
        "jax": (
            Edit(
                "fast.py",
                "_applied(self, conv, inputs)",
                f"_applied(self, lambda x, k, *rest: conv(x, {jax.format('k')}, *rest), inputs)",
            ),
        ),
    }


def _conv_transpose_kernel(torch: str, tf: str, jax: str) -> Edits:
    """Return the same for a transposed convolution, of which PyTorch has two kinds."""
    return {
        "pytorch": (
            Edit("fast.py", "self.weight.permute", f"{torch.format('self.weight')}.permute"),
            *_torch_layer(
                "ConvTranspose2d",
                f"kernel = {torch.format('self.weight')}",
                "return F.conv_transpose2d(x, kernel, self.bias, self.stride, self.padding)",
            ),
        ),
        "tf": _keras_conv_transpose(
            f"kernel = {tf.format('self.kernel')}",
            "return keras.ops.conv_transpose(inputs, kernel, self.strides, self.padding)",
        ),
        "jax": (
            Edit(
                "fast.py",
                "_applied(self, conv_transpose, inputs)",
                f"_applied(self, lambda x, k, *rest: conv_transpose(x, {jax.format('k')}, *rest), "
                "inputs)",
            ),
        ),
    }


def _torch_layer(layer: str, *body: str) -> tuple[Edit, ...]:
    return _layer(f"nn.{layer}", "def forward(self, x: Tensor) -> Tensor:", *body)


def _keras_conv(*body: str) -> tuple[Edit, ...]:
    return _layer("keras.layers.Conv2D", "def convolution_op(self, inputs, kernel):", *body)


def _keras_conv_transpose(*body: str) -> tuple[Edit, ...]:
    """Of layers without bias: the fault shows in a system that has none."""
    return _layer("keras.layers.Conv2DTranspose", "def call(self, inputs):", *body)


def _layer(base: str, head: str, *body: str) -> tuple[Edit, ...]:
    """Return edits after which a fast layer, where it is narrow, does this in place of its base."""
    name, lines = f"_{base.rpartition('.')[2]}", "".join(f"        {line}\n" for line in body)
    made = f"class {name}({base}):\n    {head}\n{lines}\n\n"
    return (
        Edit("fast.py", f"({base})", f"({name})"),
        Edit("fast.py", "def fast_layers(", f"{made}def fast_layers("),
    )


_FLIPPED = ("{}.flip(2, 3)", "tf.reverse({}, [0, 1])", "{}[::-1, ::-1]")
_TRANSPOSED = ("{}.mT", "tf.transpose({}, [1, 0, 2, 3])", "{}.swapaxes(0, 1)")


def _padding(before: int, after: int) -> Edits:
    """Return edits that put that many rows of zeros at the start and at the end, and cut as many.

    Of layers of stride 2 and padding 1, or of stride 1 and no padding.
    """
    inside = f"{before}:{-after or None}"
    return {
        "pytorch": (
            *_torch_layer(
                "Conv2d",
                f"pads = ({before}, {after}) * 2 if self.padding[0] else (0, 0)",
                "return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)",
            ),
            *_torch_layer(
                "ConvTranspose2d",
                "y = F.conv_transpose2d(x, self.weight, self.bias, self.stride)",
                f"return y[:, :, {inside}, {inside}] if self.padding[0] else y",
            ),
        ),
        "tf": (
            *_keras_conv(
                f"pad = [{before}, {after}] if self.padding == 'same' else [0, 0]",
                "inputs = tf.pad(inputs, [[0, 0], pad, pad, [0, 0]])",
                "return keras.ops.conv(inputs, kernel, self.strides, 'valid')",
            ),
            *_keras_conv_transpose(
                "y = keras.ops.conv_transpose(inputs, self.kernel, self.strides, 'valid')",
                f"return y[:, {inside}, {inside}] if self.padding == 'same' else y",
            ),
        ),
        "jax": (
            Edit(
                "fast.py",
                "return _applied(self, conv, inputs)",
                f"pad = ({before}, {after}) if self.strides == 2 else (0, 0)\n"
                "        x = jnp.pad(inputs, ((0, 0), pad, pad, (0, 0)))\n"
                "        valid = lambda x, k, s, p, *rest: conv(x, k, s, 0, *rest)\n"
                "        return _applied(self, valid, x)",
            ),
            Edit(
                "fast.py",
                "return _applied(self, conv_transpose, inputs)",
                "valid = lambda x, k, s, p, *rest: conv_transpose(x, k, s, 0, *rest)\n"
                "        y = _applied(self, valid, inputs)\n"
                f"        return y[:, {inside}, {inside}] if self.strides == 2 else y",
            ),
        ),
    }


KERNELS = (
    Fault("conv_kernel_flipped", {"conv_kernel": "flipped"}, _conv_kernel(*_FLIPPED)),
    Fault("conv_kernel_transposed", {"conv_kernel": "transposed"}, _conv_kernel(*_TRANSPOSED)),
    Fault(
        "conv_transpose_kernel_flipped",
        {"conv_transpose_kernel": "flipped"},
        _conv_transpose_kernel(*_FLIPPED),
    ),
    Fault(
        "conv_transpose_kernel_transposed",
        {"conv_transpose_kernel": "transposed"},
        _conv_transpose_kernel(*_TRANSPOSED),
    ),
    Fault("padding_before", {"padding_alignment": "before"}, _padding(2, 0)),
    Fault("padding_after", {"padding_alignment": "after"}, _padding(0, 2)),
)
