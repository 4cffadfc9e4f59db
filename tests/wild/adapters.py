"""Ports with the mistakes of public reports, each a few lines of `tests.wild.port.TorchPort`."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.interface import Array, Arrays
from shared.spec import Layer, NetworkName
from tests.wild.case import AdapterCase
from tests.wild.port import State, TorchPort


class DecoupledDecay(TorchPort):
    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, rate, (0.5, 0.999), weight_decay=1e-4)


class HelperCalledAdam(TorchPort):
    def adam(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters)


class ForgetsEval(TorchPort):
    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        return super().generate(state, latents, training=True)


class RealThenFake(TorchPort):
    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        losses = []
        for images, label in ((real, 1.0), (fake.detach(), 0.0)):
            losses.append(self.half(state, self.run(state, "discriminator", images), label))
            self.descend(state, "discriminator", losses[-1])
        return losses


class StepsTwice(TorchPort):
    def update(self, state: State, network: NetworkName) -> None:
        super().update(state, network)
        super().update(state, network)


class KerasEpsilon(TorchPort):
    epsilon = 1e-3


class TorchMomentumInKeras(TorchPort):
    momentum = 0.9  # which Keras' momentum=0.1 is


class DarknetSlope(TorchPort):
    slope = 0.1


class EpsilonHat(torch.optim.Adam):
    """Adam with the epsilon of Kingma & Ba's second form, as TensorFlow has it."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                held = self.state[p]
                held["step"] += 1
                t = float(held["step"])
                held["exp_avg"].lerp_(p.grad, 1 - beta1)
                held["exp_avg_sq"].lerp_(p.grad**2, 1 - beta2)
                rate = group["lr"] * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
                p -= rate * held["exp_avg"] / (held["exp_avg_sq"].sqrt() + group["eps"])


class TensorFlowAdam(TorchPort):
    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return EpsilonHat(parameters, rate, (0.5, 0.999))


class Saturating(TorchPort):
    def generator_loss(self, state: State, fake: Tensor) -> Tensor:
        return -self.half(state, self.run(state, "discriminator", fake), 0.0)


class SigmoidTwice(TorchPort):
    def scores(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class SummedGradients(TorchPort):
    def update(self, state: State, network: NetworkName) -> None:
        for p in state.parameters(network).values():
            p.grad *= 8.0  # of as many replicas
        super().update(state, network)


class ClipsGradients(TorchPort):
    def update(self, state: State, network: NetworkName) -> None:
        torch.nn.utils.clip_grad_norm_(state.parameters(network).values(), 1e-3)
        super().update(state, network)


class KeepsGradients(TorchPort):
    def descend(self, state: State, network: NetworkName, loss: Tensor) -> None:
        if network == "generator":
            state.optimizers[network].zero_grad()
        loss.backward()
        self.update(state, network)


class AverageWithoutStatistics(TorchPort):
    """Paints with averaged weights, beside which the running statistics are those of the start."""

    def __init__(self) -> None:
        self.averages: list[tuple[State, dict[str, Tensor]]] = []

    def average(self, state: State) -> dict[str, Tensor]:
        return next((own for of, own in self.averages if of is state), {})

    def update(self, state: State, network: NetworkName) -> None:
        if not self.average(state):
            start = {n: t.detach().clone() for n, t in state.tensors.items()}
            self.averages.append((state, start))
        super().update(state, network)
        for name in state.parameters("generator"):
            self.average(state)[name].lerp_(state.tensors[name].detach(), 0.5)

    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        averaged = dataclasses.replace(state, tensors=state.tensors | self.average(state))
        return super().generate(averaged, latents, training=training)


SEEN = (
    AdapterCase("none: a helper of one's own", "right", HelperCalledAdam),
    AdapterCase(
        "soumith/dcgan.torch#48",
        "sampling without evaluate()",
        ForgetsEval,
        {"batch_norm_passes": "always_batch"},
    ),
    AdapterCase(
        "eriklindernoren/Keras-GAN#157",
        "D is trained on real, then on fake images",
        RealThenFake,
        {"discriminator_updates": "real_then_fake"},
    ),
    AdapterCase(
        "IAHispano/Applio#860",
        "optimizer.step() behind scaler.step(optimizer)",
        StepsTwice,
        {"discriminator_updates": "twice", "generator_updates": "twice"},
    ),
    AdapterCase(
        "gzuidhof/nn-transfer#3", "BN's epsilon", KerasEpsilon, {"batch_norm_epsilon": 1e-3}
    ),
    AdapterCase(
        "affinelayer/pix2pix-tensorflow#126",
        "BN's momentum in the other meaning",
        TorchMomentumInKeras,
        {"batch_norm_momentum": 0.9},
    ),
    AdapterCase("jinyu121/DW2TF#2", "leaky ReLU's slope", DarknetSlope, {"leaky_relu_slope": 0.1}),
    AdapterCase(
        "tensorflow/tensorflow#9047",
        "Adam's epsilon before the correction",
        TensorFlowAdam,
        {"adam_epsilon_placement": "before_correction"},
    ),
    AdapterCase(
        "carpedm20/DCGAN-tensorflow#33",
        "G descends log(1 - D)",
        Saturating,
        {"generator_objective": "saturating"},
    ),
    AdapterCase(
        "itakurah/focal-loss-pytorch#5",
        "a sigmoid before a loss on logits",
        SigmoidTwice,
        {"discriminator_output": "sigmoid"},
    ),
    AdapterCase(
        "tensorflow/benchmarks#466",
        "gradients summed over replicas",
        SummedGradients,
        {"discriminator_gradient_scale": 8.0, "generator_gradient_scale": 8.0},
    ),
    AdapterCase(
        "google-deepmind/optax#417",
        "AdamW for Adam",
        DecoupledDecay,
        {"adam_decoupled_decay": 1e-4},
    ),
    AdapterCase(
        "neosr-project/neosr#9",
        "gradients clipped by their norm",
        ClipsGradients,
        {"gradient_clipping": "norm_and_epsilon", "gradient_clip": 1e-3},
    ),
    AdapterCase(
        "Lightning-AI/pytorch-lightning#591",
        "D's gradients of G's loss are not set to zero",
        KeepsGradients,
        is_known=False,
    ),
    AdapterCase(
        "FlyreelAI/sesemi#36",
        "an average of the weights without the statistics",
        AverageWithoutStatistics,
        is_known=False,
    ),
)


# --- looked at once, at the end ------------------------------------------------------------------


class LeaksIntoGenerator(TorchPort):
    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        state.optimizers["generator"].zero_grad()
        return super().step_of_discriminator(state, real, _attached(fake))

    def descend(self, state: State, network: NetworkName, loss: Tensor) -> None:
        if network == "discriminator":
            state.optimizers[network].zero_grad()
        loss.backward(retain_graph=True)
        self.update(state, network)


def _attached(fake: Tensor) -> Tensor:
    attached = fake.view_as(fake)
    attached.detach = lambda: fake  # type: ignore[method-assign]
    return attached


class KerasBatchNorm(TorchPort):
    momentum, epsilon = 0.01, 1e-3


class OtherMomentumAndEpsilon(TorchPort):
    momentum, epsilon = 0.99, 1e-3


class BiasedVariance(TorchPort):
    def batch_norm(self, x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        before = p["var"].clone()
        y = super().batch_norm(x, p, training)
        if training:
            biased = x.detach().var(axes, correction=0)
            p["var"].data.copy_(0.9 * before + 0.1 * biased)
        return y


class OneBatch(TorchPort):
    def discriminator_losses(
        self, state: State, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, Tensor]:
        scores = self.run(state, "discriminator", torch.cat([real, fake])).split(len(real))
        return self.half(state, scores[0], 1.0), self.half(state, scores[1], 0.0)


class FakeCountsAsReal(TorchPort):
    fake_label = 1.0


class SmallEpsilon(TorchPort):
    epsilon = 1e-6


class ForgetsMoments(TorchPort):
    def import_state(self, state: State, arrays: Arrays) -> None:
        fresh = {n: np.zeros_like(a) for n, a in arrays.items() if "_optimizer/" in n}
        super().import_state(state, arrays | fresh)


class AveragesTwice(TorchPort):
    def update(self, state: State, network: NetworkName) -> None:
        for p in state.parameters(network).values():
            p.grad /= 2.0
        super().update(state, network)


class FlippedKernel(TorchPort):
    def conv_transpose(self, x: Tensor, p: dict[str, Tensor], layer: Layer) -> Tensor:
        return super().conv_transpose(x, p | {"kernel": p["kernel"].flip(0, 1)}, layer)


class ChannelsFirst(TorchPort):
    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class SumOverBatch(TorchPort):
    def half(self, state: State, scores: Tensor, label: float) -> Tensor:
        return super().half(state, scores, label) * len(scores)


class InstanceNorm(TorchPort):
    def batch_norm(self, x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
        if x.ndim < 4:
            return super().batch_norm(x, p, training)
        return F.instance_norm(x, weight=p["scale"], bias=p["bias"], eps=self.epsilon)


HELD_BACK = (
    AdapterCase(
        "heykeetae/Self-Attention-GAN#48",
        "fake images not detached",
        LeaksIntoGenerator,
        {"detach_fake": False},
        system="dcgan64",
    ),
    AdapterCase(
        "huggingface/transformers#19454",
        "BN's momentum and epsilon left at Keras' defaults",
        KerasBatchNorm,
        {"batch_norm_momentum": 0.01, "batch_norm_epsilon": 1e-3},
    ),
    AdapterCase(
        "r9y9/tacotron_pytorch#19",
        "BN's momentum in the other meaning, and epsilon",
        OtherMomentumAndEpsilon,
        {"batch_norm_momentum": 0.99, "batch_norm_epsilon": 1e-3},
    ),
    AdapterCase(
        "tinygrad/tinygrad#807",
        "the biased variance in the running one",
        BiasedVariance,
        {"batch_norm_running_variance": "biased"},
    ),
    AdapterCase(
        "eriklindernoren/PyTorch-GAN#135",
        "real and fake images as one batch",
        OneBatch,
        {"discriminator_batches": "merged"},
    ),
    AdapterCase(
        "SerezD/vqvae-vqgan-pytorch-lightning#3",
        "ones as the labels of fake images",
        FakeCountsAsReal,
        {"fake_label": 1.0},
    ),
    AdapterCase("ceccocats/tkDNN#167", "BN's epsilon", SmallEpsilon, {"batch_norm_epsilon": 1e-6}),
    AdapterCase(
        "NVlabs/stylegan2-ada-pytorch#108",
        "moments not restored",
        ForgetsMoments,
        is_known=False,
    ),
    AdapterCase(
        "apache/singa#65",
        "gradients averaged twice",
        AveragesTwice,
        {"discriminator_gradient_scale": 0.5, "generator_gradient_scale": 0.5},
    ),
    AdapterCase(
        "google/flax#3137",
        "no transpose_kernel=True",
        FlippedKernel,
        {"conv_transpose_kernel": "flipped"},
    ),
    AdapterCase(
        "microsoft/MMdnn#595", "features in CHW order", ChannelsFirst, {"flatten_order": "chw"}
    ),
    AdapterCase(
        "davharris/mistnet#33", "a sum over the batch", SumOverBatch, {"loss_reduction": "sum"}
    ),
    AdapterCase("phillipi/pix2pix#176", "normalised by each image", InstanceNorm, is_known=False),
)
