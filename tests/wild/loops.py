"""Public training loops as ports of the nearest system: several conventions at once in each.

Each does in a few lines of our own what the loop of the named repository does otherwise than the
system: batch normalisation, losses, labels, the order of a step, its optimizer. Dropout and noise
are off. Networks are the system's, or the repository's where only layers or biases are more.
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.interface import Array
from shared.spec import SYSTEMS, NetworkName, SystemSpec
from shared.spec.architectures import BATCH_NORM, dcgan64
from tests.wild.adapters import EpsilonHat, RealThenFake, SumOverBatch, TensorFlowAdam
from tests.wild.case import AdapterCase
from tests.wild.port import State, TorchPort


class SameLatents(TorchPort):
    """Runs G on the latents of D's step once more, whatever the system says."""

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        state.spec = state.spec.replace(generator_batch="same_latents")
        return super().train_step(state, real_images, latents)


class Halved(TorchPort):
    """D's loss is the average of its halves."""

    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        losses = [x / 2 for x in self.discriminator_losses(state, real, fake.detach())]
        self.descend(state, "discriminator", losses[0] + losses[1])
        return losses


class Keras(TorchPort):
    """Keras' batch norm, whose running variance is biased, and its Adam."""

    epsilon, momentum, rate, beta1 = 1e-3, 0.01, 0.0, 0.5

    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return EpsilonHat(parameters, self.rate or rate, (self.beta1, 0.999), eps=1e-7)

    def batch_norm(self, x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
        before, axes = p["var"].clone(), [axis for axis in range(x.ndim) if axis != 1]
        y = super().batch_norm(x, p, training)
        if training:
            p["var"].data.copy_(before.lerp(x.detach().var(axes, correction=0), self.momentum))
        return y


class D2L(SameLatents, Halved, SumOverBatch):
    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, 0.005, (0.5, 0.999))


class D2LTensorFlow(Keras, D2L):
    """Networks are called without `training=True`: in inference mode."""

    rate = 0.005

    def run(self, state: State, network: NetworkName, x: Tensor, training: bool = False) -> Tensor:
        return super().run(state, network, x, training)


class WithoutHalf(TorchPort):
    def half(self, state: State, scores: Tensor, label: float) -> Tensor:
        return F.mse_loss(scores, torch.full_like(scores, label))


class LearnOpenCV(Keras, SameLatents):
    epsilon, momentum = 0.8, 0.9
    step_of_discriminator = RealThenFake.step_of_discriminator


class GeneratorFirst(WithoutHalf, Halved):
    epsilon = 0.8

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        real = self.images(state, real_images)
        fake = self.run(state, "generator", self.tensor(state, latents))
        loss = self.generator_loss(state, fake)
        self.descend(state, "generator", loss)
        losses = [*self.step_of_discriminator(state, real, fake), loss]
        of_real, of_fake, of_generator = (float(x.detach()) for x in losses)
        return {
            "discriminator_loss": of_real + of_fake,
            "discriminator_loss_real": of_real,
            "discriminator_loss_fake": of_fake,
            "generator_loss": of_generator,
        }


class KerasIO(Keras, SameLatents):
    """Fake and real images in one batch under one mean; 1 is the label of the fake ones."""

    rate, beta1 = 3e-4, 0.9

    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        scores = self.run(state, "discriminator", torch.cat([fake.detach(), real]))
        of_fake, of_real = scores.split(len(real))
        losses = [self.half(state, of_real, 0.0) / 2, self.half(state, of_fake, 1.0) / 2]
        self.descend(state, "discriminator", losses[0] + losses[1])
        return losses

    def generator_loss(self, state: State, fake: Tensor) -> Tensor:
        return self.half(state, self.run(state, "discriminator", fake), 0.0)


def custom(norm_everywhere: bool = False, biases: bool = False, **changes: str) -> SystemSpec:
    """DCGAN of pytorch/examples with a batch norm more, or with biases at both ends."""
    generator, discriminator = dcgan64(2, 3, 32, "conv")  # explained in half the time of 64
    if norm_everywhere:
        discriminator = (discriminator[0], BATCH_NORM, *discriminator[1:])
    if biases:
        ends = [
            dataclasses.replace(entry, bias=True) for entry in (generator[-2], discriminator[0])
        ]
        generator = (*generator[:-2], ends[0], generator[-1])
        discriminator = (ends[1], *discriminator[1:])
    layers = {"generator_layers": generator, "discriminator_layers": discriminator}
    return SYSTEMS["dcgan64"].replace(architecture="custom", image_size=32, **layers, **changes)


KERAS_ADAM = {"adam_epsilon": 1e-7, "adam_epsilon_placement": "before_correction"}
KERAS = KERAS_ADAM | {
    "batch_norm_epsilon": 1e-3,
    "batch_norm_momentum": 0.01,
    "batch_norm_running_variance": "biased",
}
HALF_A_SUM = {
    "loss_reduction": "sum",
    "discriminator_loss_scale": 0.5,
    "generator_learning_rate": 0.005,
    "discriminator_learning_rate": 0.005,
}
LEARNOPENCV = KERAS | {
    "batch_norm_epsilon": 0.8,
    "batch_norm_momentum": 0.9,
    "generator_batch": "same_latents",
    "discriminator_updates": "real_then_fake",
}
KERAS_IO = KERAS | {
    "discriminator_batches": "merged",
    "discriminator_loss_scale": 0.5,
    "real_label": 0.0,
    "fake_label": 1.0,
    "generator_label": 0.0,
    "generator_batch": "same_latents",
    "generator_learning_rate": 3e-4,
    "discriminator_learning_rate": 3e-4,
    "adam_beta1": 0.9,
}

LOOPS = (
    AdapterCase(
        "TwistedW/tensorflow-GANs, GAN.py",
        "TF1's Adam",
        TensorFlowAdam,
        {"adam_epsilon_placement": "before_correction"},
    ),
    AdapterCase(
        "LynnHo/DCGAN-LSGAN-WGAN-GP-DRAGAN-Pytorch",
        "lsgan without its half, biases at both ends",
        WithoutHalf,
        {"lsgan_scale": 1.0},
        system=custom(biases=True, loss="lsgan"),
    ),
    AdapterCase(
        "LynnHo/DCGAN-LSGAN-WGAN-GP-DRAGAN-Tensorflow-2",
        "Keras' batch norm and Adam",
        Keras,
        KERAS,
        system=custom(biases=True),
    ),
    AdapterCase(
        "eriklindernoren/PyTorch-GAN, lsgan.py",
        "G first, no half of lsgan, D's average, epsilon 0.8",
        GeneratorFirst,
        {
            "batch_norm_epsilon": 0.8,
            "update_order": "generator_first",
            "lsgan_scale": 1.0,
            "discriminator_loss_scale": 0.5,
        },
        system="dcgan64-lsgan",
    ),
    AdapterCase(
        "d2l-ai/d2l-en, dcgan.md, PyTorch",
        "sums, D's average, G run again, both rates",
        D2L,
        HALF_A_SUM | {"generator_batch": "same_latents"},
        system=custom(norm_everywhere=True),
    ),
    AdapterCase(
        "d2l-ai/d2l-en, dcgan.md, TensorFlow",
        "the same in inference mode, with Keras' Adam",
        D2LTensorFlow,
        HALF_A_SUM | KERAS_ADAM | {"batch_norm_epsilon": 1e-3, "batch_norm_mode": "running"},
        system=custom(norm_everywhere=True),
    ),
    AdapterCase(
        "spmallick/learnopencv, TensorFlow",
        "D on real, then on fake, epsilon 0.8, momentum 0.1, Keras' Adam",
        LearnOpenCV,
        LEARNOPENCV,
        system=SYSTEMS["dcgan64"].replace(loss="bce_probs", image_size=32),
    ),
    AdapterCase(
        "keras-team/keras-io, dcgan_overriding_train_step.py",
        "one batch under one mean, labels exchanged, Keras' batch norm and Adam",
        KerasIO,
        KERAS_IO,
        system=SYSTEMS["dcgan64"].replace(image_size=32),  # 64 take twice as long
    ),
)
