"""Generators and discriminators; data is NCHW inside, scores are [batch]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pytorch_impl.layers import conv_transpose_of_one_pixel, normalize
from shared.spec import SystemSpec

__all__ = [
    "Conv28Discriminator",
    "Conv28Generator",
    "DCGAN64Discriminator",
    "DCGAN64Generator",
    "MLP28Discriminator",
    "MLP28Generator",
    "create_models",
]


def _conv(
    in_features: int, out_features: int, stride: int, padding: int, *, bias: bool = False
) -> nn.Conv2d:
    return nn.Conv2d(in_features, out_features, 4, stride, padding, bias=bias)


def _conv_transpose(
    in_features: int, out_features: int, stride: int, padding: int, *, bias: bool = False
) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_features, out_features, 4, stride, padding, bias=bias)


def _batch_norm(features: int) -> nn.BatchNorm2d:
    # PyTorch's momentum is the weight of the new statistic; its running variance is unbiased.
    return nn.BatchNorm2d(features, eps=1e-5, momentum=0.1)


def _batch_norm_of_features(features: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(features, eps=1e-5, momentum=0.1)


class DCGAN64Generator(nn.Module):
    """Latents [batch, latent_dim] → images of 64x64 in [-1, 1] (Radford et al. 2016, figure 1)."""

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__()
        width = spec.width
        self.conv_transpose_1 = _conv_transpose(spec.latent_dim, 8 * width, 1, 0)
        self.batch_norm_1 = _batch_norm(8 * width)
        self.conv_transpose_2 = _conv_transpose(8 * width, 4 * width, 2, 1)
        self.batch_norm_2 = _batch_norm(4 * width)
        self.conv_transpose_3 = _conv_transpose(4 * width, 2 * width, 2, 1)
        self.batch_norm_3 = _batch_norm(2 * width)
        self.conv_transpose_4 = _conv_transpose(2 * width, width, 2, 1)
        self.batch_norm_4 = _batch_norm(width)
        self.conv_transpose_5 = _conv_transpose(width, spec.channels, 2, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images."""
        x = conv_transpose_of_one_pixel(self.conv_transpose_1, latents)
        x = F.relu(self.batch_norm_1(x), inplace=True)
        x = F.relu(self.batch_norm_2(self.conv_transpose_2(x)), inplace=True)
        x = F.relu(self.batch_norm_3(self.conv_transpose_3(x)), inplace=True)
        x = F.relu(self.batch_norm_4(self.conv_transpose_4(x)), inplace=True)
        return torch.tanh(self.conv_transpose_5(x))


class DCGAN64Discriminator(nn.Module):
    """Images of 64x64 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__()
        width = spec.width
        self.conv_1 = _conv(spec.channels, width, 2, 1)
        self.conv_2 = _conv(width, 2 * width, 2, 1)
        self.batch_norm_2 = _batch_norm(2 * width)
        self.conv_3 = _conv(2 * width, 4 * width, 2, 1)
        self.batch_norm_3 = _batch_norm(4 * width)
        self.conv_4 = _conv(4 * width, 8 * width, 2, 1)
        self.batch_norm_4 = _batch_norm(8 * width)
        self.has_conv_head = spec.discriminator_head == "conv"
        if self.has_conv_head:
            self.conv_5 = _conv(8 * width, 1, 1, 0)
        else:
            self.dense_5 = nn.Linear(4 * 4 * 8 * width, 1)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def forward(self, images: Tensor, batches: int = 1) -> Tensor:
        """Return scores of `batches` batches of images, each normalised by itself."""
        x = F.leaky_relu(self.conv_1(images), 0.2, inplace=True)
        x = F.leaky_relu(normalize(self.batch_norm_2, self.conv_2(x), batches), 0.2, inplace=True)
        x = F.leaky_relu(normalize(self.batch_norm_3, self.conv_3(x), batches), 0.2, inplace=True)
        x = F.leaky_relu(normalize(self.batch_norm_4, self.conv_4(x), batches), 0.2, inplace=True)
        # Flattening NCHW gives features in CHW order; checkpoint.py reorders the dense kernel.
        x = self.conv_5(x) if self.has_conv_head else self.dense_5(x.flatten(1))
        scores = x.reshape(-1)
        return torch.sigmoid(scores) if self.ends_in_sigmoid else scores


class Conv28Generator(nn.Module):
    """Latents [batch, latent_dim] → images of 28x28 in [0, 1] (Chen et al. 2016, appendix C.1)."""

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__()
        width = spec.width
        self.dense_1 = nn.Linear(spec.latent_dim, 16 * width)
        self.batch_norm_1 = _batch_norm_of_features(16 * width)
        self.dense_2 = nn.Linear(16 * width, 7 * 7 * 2 * width)
        self.batch_norm_2 = _batch_norm_of_features(7 * 7 * 2 * width)
        self.conv_transpose_3 = _conv_transpose(2 * width, width, 2, 1, bias=True)
        self.batch_norm_3 = _batch_norm(width)
        self.conv_transpose_4 = _conv_transpose(width, spec.channels, 2, 1, bias=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images."""
        x = F.relu(self.batch_norm_1(self.dense_1(latents)), inplace=True)
        x = F.relu(self.batch_norm_2(self.dense_2(x)), inplace=True)
        # Features become NCHW in CHW order; checkpoint.py reorders dense_2 and batch_norm_2.
        x = x.reshape(len(x), -1, 7, 7).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.batch_norm_3(self.conv_transpose_3(x)), inplace=True)
        return torch.sigmoid(self.conv_transpose_4(x))


class Conv28Discriminator(nn.Module):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__()
        width = spec.width
        self.conv_1 = _conv(spec.channels, width, 2, 1, bias=True)
        self.conv_2 = _conv(width, 2 * width, 2, 1, bias=True)
        self.batch_norm_2 = _batch_norm(2 * width)
        self.dense_3 = nn.Linear(7 * 7 * 2 * width, 16 * width)
        self.batch_norm_3 = _batch_norm_of_features(16 * width)
        self.dense_4 = nn.Linear(16 * width, 1)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def forward(self, images: Tensor, batches: int = 1) -> Tensor:
        """Return scores of `batches` batches of images, each normalised by itself."""
        x = F.leaky_relu(self.conv_1(images), 0.2, inplace=True)
        x = F.leaky_relu(normalize(self.batch_norm_2, self.conv_2(x), batches), 0.2, inplace=True)
        # Flattening NCHW gives features in CHW order; checkpoint.py reorders the dense kernel.
        x = self.dense_3(x.flatten(1))
        x = F.leaky_relu(normalize(self.batch_norm_3, x, batches), 0.2, inplace=True)
        scores = self.dense_4(x).reshape(-1)
        return torch.sigmoid(scores) if self.ends_in_sigmoid else scores


class MLP28Generator(nn.Module):
    """Latents [batch, latent_dim] → images of 28x28 in [-1, 1] by three dense layers."""

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__()
        self.image_shape = (spec.channels, 28, 28)
        self.dense_1 = nn.Linear(spec.latent_dim, spec.width)
        self.dense_2 = nn.Linear(spec.width, 2 * spec.width)
        self.dense_3 = nn.Linear(2 * spec.width, 28 * 28 * spec.channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Return images."""
        x = F.relu(self.dense_1(latents), inplace=True)
        x = F.relu(self.dense_2(x), inplace=True)
        # Features become NCHW in CHW order; checkpoint.py reorders dense_3.
        return torch.tanh(self.dense_3(x)).reshape(-1, *self.image_shape)


class MLP28Discriminator(nn.Module):
    """Images of 28x28 → one score each, [batch]; probabilities where the loss is bce_probs."""

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(28 * 28 * spec.channels, 2 * spec.width)
        self.dense_2 = nn.Linear(2 * spec.width, spec.width)
        self.dense_3 = nn.Linear(spec.width, 1)
        self.ends_in_sigmoid = spec.loss == "bce_probs"

    def forward(self, images: Tensor, batches: int = 1) -> Tensor:
        """Return scores of `batches` batches of images, each normalised by itself."""
        # Flattening NCHW gives features in CHW order; checkpoint.py reorders the dense kernel.
        x = F.relu(self.dense_1(images.flatten(1)), inplace=True)
        x = F.relu(self.dense_2(x), inplace=True)
        scores = self.dense_3(x).reshape(-1)
        return torch.sigmoid(scores) if self.ends_in_sigmoid else scores


_NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "dcgan64": (DCGAN64Generator, DCGAN64Discriminator),
    "conv28": (Conv28Generator, Conv28Discriminator),
    "mlp28": (MLP28Generator, MLP28Discriminator),
}


def create_models(spec: SystemSpec) -> tuple[nn.Module, nn.Module]:
    """Return the system's generator and discriminator, with weights still to be loaded."""
    generator, discriminator = _NETWORKS[spec.architecture]
    return generator(spec), discriminator(spec)
