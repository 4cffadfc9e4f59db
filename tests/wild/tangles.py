"""Ports with several mistakes at once, or one that has no name: what is right has to be said of it.

No public report is behind these. `fields` are the mistakes that have a name; what has none is in
the port's docstring and has to be located beside them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from shared.interface import Array, Arrays
from shared.spec import NETWORKS, SYSTEMS, NetworkName, SystemSpec
from tests.wild.case import AdapterCase
from tests.wild.loops import KERAS, Keras, SameLatents
from tests.wild.port import State, TorchPort


class ReturnsGradients(TorchPort):
    """Returns the gradients that a step leaves behind, as its optimizer has used them."""

    def gradients(self, state: State, real_images: Array, latents: Array) -> Arrays:
        copy = self.create(state.spec, dtype=str(self.tensor(state, latents).dtype).split(".")[1])
        self.import_state(copy, self.export_state(state))
        left: Arrays = {}
        update = self.update

        def kept(own: State, network: NetworkName) -> None:
            update(own, network)
            left.update({n: p.grad.numpy().copy() for n, p in own.parameters(network).items()})

        self.update = kept  # type: ignore[method-assign]
        try:
            self.train_step(copy, real_images, latents)
        finally:
            del self.update
        return left


class Weighted(ReturnsGradients):
    """D learns from a weighted sum of its halves, which are reported with their weights or not."""

    weights, is_reported = (0.5, 1.0), True

    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        halves = self.discriminator_losses(state, real, fake.detach())
        weighted = [w * half for w, half in zip(self.weights, halves, strict=True)]
        self.descend(state, "discriminator", weighted[0] + weighted[1])
        return weighted if self.is_reported else list(halves)


class WeightedAmongFour(Weighted):
    """The weights are not reported; four mistakes beside them."""

    is_reported, slope, epsilon, fake_label = False, 0.1, 0.8, 0.1

    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, rate, (0.9, 0.999))


class ReportsHalves(Weighted):
    """Half of each loss is reported; what is learnt from is right."""

    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        return [x / 2 for x in TorchPort.step_of_discriminator(self, state, real, fake)]


class KerasIOFirst(Keras, SameLatents):
    """keras.io's loop with 0.05 on every label, and D's loss reported as two equal halves."""

    rate, beta1 = 3e-4, 0.9

    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        scores = self.run(state, "discriminator", torch.cat([fake.detach(), real]))
        labels = torch.cat([torch.ones(len(fake)), torch.zeros(len(real))]).to(scores.dtype)
        loss = F.binary_cross_entropy_with_logits(scores, labels + 0.05)
        self.descend(state, "discriminator", loss)
        return [loss / 2, loss / 2]

    def generator_loss(self, state: State, fake: Tensor) -> Tensor:
        return self.half(state, self.run(state, "discriminator", fake), 0.0)


class ClipsAmongThree(ReturnsGradients):
    slope, real_label = 0.01, 0.9

    def update(self, state: State, network: NetworkName) -> None:
        torch.nn.utils.clip_grad_norm_(state.parameters(network).values(), 1e-2)
        super().update(state, network)


class DecaysGenerator(TorchPort):
    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        decay = 0.01 if rate == 1e-3 else 0.0  # conv28's G
        return torch.optim.Adam(parameters, rate, (0.5, 0.999), weight_decay=decay)


class InferenceForDiscriminator(Keras):
    """D's fake images are made in inference mode."""

    slope, beta1 = 0.3, 0.9

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        self.is_for_discriminator = True
        return super().train_step(state, real_images, latents)

    def run(self, state: State, network: NetworkName, x: Tensor, training: bool = True) -> Tensor:
        is_first = network == "generator" and getattr(self, "is_for_discriminator", False)
        self.is_for_discriminator = False
        return super().run(state, network, x, training and not is_first)


class AMSGrad(TorchPort):
    """Divides by the root of the largest second moment so far, which it does not export."""

    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, rate, (0.5, 0.999), amsgrad=True)

    def import_state(self, state: State, arrays: Arrays) -> None:
        super().import_state(state, arrays)
        for network in NETWORKS:
            held = state.optimizers[network].state
            for tensor in state.parameters(network).values():
                held[tensor]["max_exp_avg_sq"] = torch.zeros_like(tensor)


class HalvesItsRate(TorchPort):
    """A schedule halves the learning rate after every step."""

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        losses = super().train_step(state, real_images, latents)
        for optimizer in state.optimizers.values():
            optimizer.param_groups[0]["lr"] /= 2
        return losses


class ScalesStartAtOne(TorchPort):
    """Its own random weights; BN's scales are 1, not spread around it."""

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        state = super().create(spec, seed=seed + 1000, dtype=dtype)
        with torch.no_grad():
            for name, tensor in state.tensors.items():
                if name.endswith("/scale"):
                    tensor.fill_(1.0)
        return state


_FOUR = {
    "leaky_relu_slope": 0.1,
    "batch_norm_epsilon": 0.8,
    "fake_label": 0.1,
    "adam_beta1": 0.9,
}
_KERAS_IO = KERAS | {
    "discriminator_batches": "merged",
    "generator_label": 0.0,
    "generator_batch": "same_latents",
    "generator_learning_rate": 3e-4,
    "discriminator_learning_rate": 3e-4,
    "adam_beta1": 0.9,
}
_CLIPPED = {"gradient_clipping": "norm_and_epsilon", "gradient_clip": 1e-2}
_INFERENCE = {
    "batch_norm_mode": "running_for_discriminator",
    "batch_norm_epsilon": 1e-3,
    "adam_epsilon": 1e-7,
    "adam_epsilon_placement": "before_correction",
    "leaky_relu_slope": 0.3,
    "adam_beta1": 0.9,
}


DCGAN = SYSTEMS["dcgan64"].replace(image_size=32)  # explained in half the time of 64


def _unnamed(port: type[TorchPort], system: str | SystemSpec, **fields: object) -> AdapterCase:
    return AdapterCase(port.__name__, port.__doc__ or "", port, fields, system, is_known=False)


TANGLES = (
    _unnamed(Weighted, "dcgan64-lsgan"),
    _unnamed(WeightedAmongFour, DCGAN, **_FOUR),
    _unnamed(ReportsHalves, "conv28"),
    _unnamed(KerasIOFirst, DCGAN, **_KERAS_IO),
    _unnamed(AMSGrad, "conv28"),
    _unnamed(HalvesItsRate, "conv28"),
    _unnamed(ScalesStartAtOne, "dcgan64"),
    AdapterCase(
        "ClipsAmongThree",
        "clipped gradients are returned; two mistakes beside them",
        ClipsAmongThree,
        {"leaky_relu_slope": 0.01, "real_label": 0.9} | _CLIPPED,
        DCGAN,
    ),
    AdapterCase(
        "InferenceForDiscriminator",
        "D's fake images are made in inference mode, with Keras' numbers",
        InferenceForDiscriminator,
        _INFERENCE | {"batch_norm_momentum": 0.01, "batch_norm_running_variance": "biased"},
    ),
    AdapterCase("DecaysGenerator", "G alone decays", DecaysGenerator, {"adam_weight_decay": 0.01}),
)
