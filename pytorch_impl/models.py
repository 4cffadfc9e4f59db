"""Generators and discriminators; data is NCHW inside, scores are [batch]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.spec import SystemSpec

__all__ = ["DCGAN64Discriminator", "DCGAN64Generator", "create_models"]


def _conv(in_features: int, out_features: int, stride: int, padding: int) -> nn.Conv2d:
    return nn.Conv2d(in_features, out_features, 4, stride, padding, bias=False)


def _conv_transpose(
    in_features: int, out_features: int, stride: int, padding: int
) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_features, out_features, 4, stride, padding, bias=False)


def _batch_norm(features: int) -> nn.BatchNorm2d:
    # PyTorch's momentum is the weight of the new statistic; its running variance is unbiased.
    return nn.BatchNorm2d(features, eps=1e-5, momentum=0.1)


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
        x = latents[:, :, None, None]
        x = F.relu(self.batch_norm_1(self.conv_transpose_1(x)))
        x = F.relu(self.batch_norm_2(self.conv_transpose_2(x)))
        x = F.relu(self.batch_norm_3(self.conv_transpose_3(x)))
        x = F.relu(self.batch_norm_4(self.conv_transpose_4(x)))
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

    def forward(self, images: Tensor) -> Tensor:
        """Return scores."""
        x = F.leaky_relu(self.conv_1(images), 0.2)
        x = F.leaky_relu(self.batch_norm_2(self.conv_2(x)), 0.2)
        x = F.leaky_relu(self.batch_norm_3(self.conv_3(x)), 0.2)
        x = F.leaky_relu(self.batch_norm_4(self.conv_4(x)), 0.2)
        # Flattening NCHW gives features in CHW order; checkpoint.py reorders the dense kernel.
        x = self.conv_5(x) if self.has_conv_head else self.dense_5(x.flatten(1))
        scores = x.reshape(-1)
        return torch.sigmoid(scores) if self.ends_in_sigmoid else scores


def create_models(spec: SystemSpec) -> tuple[DCGAN64Generator, DCGAN64Discriminator]:
    """Return the system's generator and discriminator, with weights still to be loaded."""
    return DCGAN64Generator(spec), DCGAN64Discriminator(spec)
