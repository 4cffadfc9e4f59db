"""The layers and the optimizer as the spec has them; PyTorch's own follow it."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.framework_adapter import Layers
from shared.spec import AdamSpec


def plain_layers(dtype: torch.dtype) -> Layers:
    """Return the layers with weights of `dtype`, as the framework's own documentation has them."""
    return Layers(
        conv=partial(conv, dtype=dtype),
        conv_transpose=partial(conv_transpose, dtype=dtype),
        dense=partial(nn.Linear, dtype=dtype),
        batch_norm=partial(BatchNorm, dtype=dtype),
        relu=F.relu,
        leaky_relu=leaky_relu,
    )


def conv(
    in_features: int,
    out_features: int,
    stride: int,
    padding: int,
    *,
    bias: bool = False,
    kind: type[nn.Conv2d] = nn.Conv2d,
    dtype: torch.dtype,
) -> nn.Conv2d:
    """Return a convolution; its kernel is OIHW: docs/porting.md#kernels-and-layouts."""
    return kind(in_features, out_features, 4, stride, padding, bias=bias, dtype=dtype)


def conv_transpose(
    in_features: int,
    out_features: int,
    stride: int,
    padding: int,
    *,
    bias: bool = False,
    kind: type[nn.ConvTranspose2d] = nn.ConvTranspose2d,
    dtype: torch.dtype,
) -> nn.ConvTranspose2d:
    """Return a transposed convolution; its kernel is IOHW: docs/porting.md#kernels-and-layouts."""
    return kind(in_features, out_features, 4, stride, padding, bias=bias, dtype=dtype)


def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """Return x where x > 0, else slope · x (Maas et al. 2013); its gradient at 0 is the slope."""
    return F.leaky_relu(x, slope)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of [batch, features, ...] (Ioffe & Szegedy 2015, Algorithm 1).

    The running variance is unbiased, n/(n - 1); `momentum` is the weight of the new statistic.
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(features, epsilon, momentum, dtype=dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        """Take [batch, features] too: nn.BatchNorm1d differs in this check alone."""


def create_adam(
    network: nn.Module, settings: AdamSpec, *, capturable: bool = False
) -> torch.optim.Adam:
    """Return Adam of a network's parameters, in the form of Kingma & Ba 2015, Algorithm 1."""
    return torch.optim.Adam(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
        capturable=capturable,
    )
