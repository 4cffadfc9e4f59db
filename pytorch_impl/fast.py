"""What makes a step faster and changes no number; a reader can skip it.

Drop-in for what `layers` and `train` have in its plain form.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import layers, parallel


def fast_layers(dtype: torch.dtype) -> layers.Layers:
    """Return the layers with weights of `dtype`."""
    plain = layers.plain_layers(dtype)
    return plain._replace(
        conv=partial(plain.conv, kind=Conv),
        conv_transpose=partial(plain.conv_transpose, kind=ConvTranspose),
        batch_norm=partial(BatchNorm, dtype=dtype),
        relu=partial(F.relu, inplace=True),
        leaky_relu=partial(F.leaky_relu, negative_slope=0.2, inplace=True),
    )


class Conv(nn.Conv2d):
    """As the plain one; a deep one in bfloat16 on a CPU by matrix products."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [batch, out, height / stride, width / stride], or 1x1 from 4x4."""
        if _by_products(self, x):
            return ByProducts.apply(x, self.weight, False)
        return super().forward(x)


class ConvTranspose(nn.ConvTranspose2d):
    """As the plain one; of images of one pixel in one matrix product, and deep ones as in `Conv`.

    oneDNN runs the weight gradient of images of one pixel at a twentieth of the speed.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return [batch, out, stride · height, stride · width], or 4x4 from 1x1."""
        if _by_products(self, x):
            return ByProducts.apply(x, self.weight, True)
        if self.padding != (0, 0) or self.bias is not None:  # of images of more than one pixel
            return super().forward(x)
        kernel = self.weight.permute(0, 2, 3, 1)  # channels_last: nothing is moved
        features, height, width, channels = kernel.shape
        y = x.flatten(1) @ kernel.reshape(features, -1)
        return y.view(-1, height, width, channels).permute(0, 3, 1, 2)


MIN_FEATURES = 256
"""Of fewer, oneDNN's convolutions in bfloat16 are as fast as its matrix products."""


def _by_products(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    wide = layer.weight.shape[1] >= MIN_FEATURES and layer.stride == (2, 2) and layer.bias is None
    return wide and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class ByProducts(torch.autograd.Function):
    """A convolution of stride 2 and padding 1, or its transpose, whose sums are matrix products.

    With AVX512-BF16, oneDNN multiplies 256 → 512 channels 1.4 (output) to 1.9 times (kernel's
    gradient) as fast as it convolves them; what it spreads is as fast as a product.
    """

    @staticmethod
    @partial(torch.amp.custom_fwd, device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx: Any, x: Tensor, kernel: Tensor, transposed: bool) -> Tensor:
        """Return the output for x [batch, in, height, width] and a kernel OIHW or IOHW."""
        ctx.save_for_backward(x, kernel)
        ctx.transposed = transposed
        return (_spread if transposed else _convolve)(x, kernel)

    @staticmethod
    @partial(torch.amp.custom_bwd, device_type="cpu")
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor | None, None]:
        """Return the gradients of x and of the kernel."""
        x, kernel = ctx.saved_tensors
        small, large = (x, dy) if ctx.transposed else (dy, x)
        dx = (_convolve if ctx.transposed else _spread)(dy, kernel)
        return dx, _kernel_gradient(large, small) if ctx.needs_input_grad[1] else None, None


def _spread(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    y = _patches(x) @ kernel.permute(2, 3, 1, 0).flatten(0, 2)
    return y.view(batch, height // 2, width // 2, -1).permute(0, 3, 1, 2)


def _kernel_gradient(x: Tensor, dy: Tensor) -> Tensor:
    rows = dy.permute(0, 2, 3, 1).flatten(0, 2)
    return (rows.T @ _patches(x)).view(-1, 4, 4, x.shape[1]).permute(0, 3, 1, 2)


def _patches(x: Tensor) -> Tensor:
    """Return what the kernel sees, a row for each position: [positions, 4 · 4 · in]."""
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    patches = padded.unfold(1, 4, 2).unfold(2, 4, 2)  # [batch, rows, columns, in, 4, 4]
    return patches.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)


class ByBatch(nn.Module):
    """Of a BN layer: normalises `batches` batches that lie one after another, each by itself.

    The running statistics move once for each of them, in their order.
    """

    batches = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, [batches · batch, features, ...]."""
        if self.batches == 1:
            return super().forward(x)
        normalize = super().forward
        return torch.cat([normalize(batch) for batch in x.chunk(self.batches)])


class BatchNorm(ByBatch, layers.BatchNorm):
    """As the plain one."""


class GlobalBatchNorm(ByBatch, parallel.GlobalBatchNorm):
    """As that of several CPU devices."""


class SyncBatchNorm(ByBatch, nn.SyncBatchNorm):
    """As that of several GPUs."""


def in_one_pass(
    network: nn.Module, function: Callable[[Tensor], Tensor], *inputs: Tensor
) -> tuple[Tensor, ...]:
    """Return `function` of each input, by one pass through the network instead of several."""
    normalizing = [layer for layer in network.modules() if isinstance(layer, ByBatch)]
    try:
        for layer in normalizing:
            layer.batches = len(inputs)
        return function(torch.cat(inputs)).chunk(len(inputs))
    finally:
        for layer in normalizing:
            layer.batches = 1


Step = Callable[[Tensor, Tensor], dict[str, Tensor]]
WARM_UP_STEPS = 3  # so that no library allocates or chooses an algorithm while it is recorded


class CapturedStep:
    """A whole training step as one CUDA graph: a launch per step instead of hundreds.

    Below a batch of some 512 images a large GPU waits for Python to launch kernels. The step is
    recorded once and replayed on inputs of the same shapes: PyTorch's notes on CUDA semantics,
    "CUDA Graphs".

    `restore` puts the training state back to where it was before the warm-up, in place: the graph
    holds the addresses of its tensors.
    """

    def __init__(
        self, step: Step, real_images: Tensor, latents: Tensor, restore: Callable[[], None]
    ) -> None:
        self._real_images, self._latents = real_images.clone(), latents.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                step(self._real_images, self._latents)
        torch.cuda.current_stream().wait_stream(stream)
        restore()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._metrics = step(self._real_images, self._latents)

    def __call__(self, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Make the step; raises ValueError for inputs of other shapes."""
        if (real_images.shape, latents.shape) != (self._real_images.shape, self._latents.shape):
            raise ValueError(
                "mode cudagraph takes the shapes of its first step, "
                f"{tuple(self._real_images.shape)} and {tuple(self._latents.shape)}; received "
                f"{tuple(real_images.shape)} and {tuple(latents.shape)}"
            )
        self._real_images.copy_(real_images)
        self._latents.copy_(latents)
        self._graph.replay()
        return {name: value.clone() for name, value in self._metrics.items()}
