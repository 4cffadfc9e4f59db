"""A small right port of every system of one update a step, which the wild cases get wrong.

Written as a loop of PyTorch's is: a method for each kind of layer, stock optimizers. Tensors have
the canonical names and layouts; kernels are permuted where they are used.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shared.interface import Array, Arrays
from shared.spec import NETWORKS, Layer, NetworkName, SystemSpec, optimizer_name
from shared.spec.streams import initial_state

_STOCK = (3, 2, 0, 1)  # of both kinds of kernels: HWIO → OIHW, HWOI → IOHW
_MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


@dataclasses.dataclass
class State:
    spec: SystemSpec
    tensors: dict[str, Tensor]
    optimizers: dict[str, torch.optim.Optimizer]

    def parameters(self, network: NetworkName) -> dict[str, Tensor]:
        of_network = self.spec.parameters(network).items()
        return {name: self.tensors[name] for name, p in of_network if p.trainable}


class TorchPort:
    name = "a port in PyTorch"

    epsilon, momentum, slope = 1e-5, 0.1, 0.2
    real_label, fake_label = 1.0, 0.0

    def optimizer(self, parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, rate, (0.5, 0.999))

    # --- layers ---------------------------------------------------------------------------------

    def conv(self, x: Tensor, p: dict[str, Tensor], layer: Layer) -> Tensor:
        kernel = p["kernel"].permute(_STOCK).contiguous()
        return F.conv2d(x, kernel, p.get("bias"), layer.stride, layer.padding)

    def conv_transpose(self, x: Tensor, p: dict[str, Tensor], layer: Layer) -> Tensor:
        kernel = p["kernel"].permute(_STOCK).contiguous()
        return F.conv_transpose2d(x, kernel, p.get("bias"), layer.stride, layer.padding)

    def dense(self, x: Tensor, p: dict[str, Tensor], layer: Layer) -> Tensor:
        return F.linear(x, p["kernel"].T, p["bias"])

    def batch_norm(self, x: Tensor, p: dict[str, Tensor], training: bool) -> Tensor:
        own = p["mean"], p["var"], p["scale"], p["bias"]
        return F.batch_norm(x, *own, training, self.momentum, self.epsilon)

    def leaky_relu(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)

    def flatten(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.reshape(-1, *shape).permute(0, 3, 1, 2)

    def scores(self, x: Tensor) -> Tensor:
        return x

    def run(self, state: State, network: NetworkName, x: Tensor, training: bool = True) -> Tensor:
        for layer in state.spec.layers(network):
            own = {
                p.name: state.tensors[f"{network}/{layer.name}/{p.name}"] for p in layer.parameters
            }
            match layer.kind:
                case "conv" | "conv_transpose" | "dense":
                    x = getattr(self, layer.kind)(x, own, layer)
                case "batch_norm":
                    x = self.batch_norm(x, own, training)
                case "relu" | "tanh" | "sigmoid":
                    x = getattr(torch, layer.kind)(x)
                case "reshape":
                    x = self.reshape(x, layer.output_shape)
                case _:
                    x = getattr(self, layer.kind)(x)
        return x if network == "generator" else self.scores(x.flatten())

    # --- the step -------------------------------------------------------------------------------

    def half(self, state: State, scores: Tensor, label: float) -> Tensor:
        """The loss of one batch of scores against a label."""
        target = torch.full_like(scores, label)
        match state.spec.loss:
            case "bce_probs":
                return F.binary_cross_entropy(scores, target)
            case "lsgan":
                return 0.5 * F.mse_loss(scores, target)
        return F.binary_cross_entropy_with_logits(scores, target)

    def generator_loss(self, state: State, fake: Tensor) -> Tensor:
        return self.half(state, self.run(state, "discriminator", fake), 1.0)

    def discriminator_losses(
        self, state: State, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, Tensor]:
        real_scores = self.run(state, "discriminator", real)
        fake_scores = self.run(state, "discriminator", fake)
        return (
            self.half(state, real_scores, self.real_label),
            self.half(state, fake_scores, self.fake_label),
        )

    def descend(self, state: State, network: NetworkName, loss: Tensor) -> None:
        state.optimizers[network].zero_grad()
        loss.backward()
        self.update(state, network)

    def update(self, state: State, network: NetworkName) -> None:
        state.optimizers[network].step()

    def step_of_discriminator(self, state: State, real: Tensor, fake: Tensor) -> list[Tensor]:
        losses = self.discriminator_losses(state, real, fake.detach())
        self.descend(state, "discriminator", losses[0] + losses[1])
        return list(losses)

    def train_step(self, state: State, real_images: Array, latents: Array) -> dict[str, float]:
        real, z = self.images(state, real_images), self.tensor(state, latents)
        fake = self.run(state, "generator", z)
        of_real, of_fake = self.step_of_discriminator(state, real, fake)
        if state.spec.generator_batch == "same_latents":
            fake = self.run(state, "generator", z)
        loss = self.generator_loss(state, fake)
        self.descend(state, "generator", loss)
        values = [float(x.detach()) for x in (of_real, of_fake, loss)]
        return {
            "discriminator_loss": values[0] + values[1],
            "discriminator_loss_real": values[0],
            "discriminator_loss_fake": values[1],
            "generator_loss": values[2],
        }

    # --- the interface --------------------------------------------------------------------------

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> State:
        drawn = initial_state(spec, seed)
        tensors = {
            n: torch.tensor(a, dtype=getattr(torch, dtype))
            for n, a in drawn.items()
            if "_optimizer/" not in n
        }
        state = State(spec, tensors, {})
        for network in NETWORKS:
            own = [p.requires_grad_() for p in state.parameters(network).values()]
            rate = getattr(spec, f"{network}_optimizer").learning_rate
            state.optimizers[network] = self.optimizer(own, rate)
        self.import_state(state, drawn)
        return state

    def import_state(self, state: State, arrays: Arrays) -> None:
        with torch.no_grad():
            for name, tensor in state.tensors.items():
                tensor.copy_(torch.tensor(arrays[name]))
        for network in NETWORKS:
            step = torch.tensor(float(arrays[f"{network}_optimizer/step"]))
            for name, tensor in state.parameters(network).items():
                held = {
                    key: torch.tensor(arrays[optimizer_name(name, moment)]).to(tensor.dtype)
                    for moment, key in _MOMENTS.items()
                }
                state.optimizers[network].state[tensor] = {"step": step.clone()} | held

    def export_state(self, state: State) -> Arrays:
        found = {name: tensor.detach().numpy().copy() for name, tensor in state.tensors.items()}
        for network in NETWORKS:
            for name, tensor in state.parameters(network).items():
                held = state.optimizers[network].state[tensor]
                for moment, key in _MOMENTS.items():
                    found[optimizer_name(name, moment)] = held[key].numpy().copy()
                found[f"{network}_optimizer/step"] = np.array(int(held["step"]))
        return found

    def generate(self, state: State, latents: Array, *, training: bool = False) -> Array:
        images = self.without_traces(state, "generator", self.tensor(state, latents), training)
        return images.permute(0, 2, 3, 1).numpy().copy() if images.ndim == 4 else images.numpy()

    def discriminate(self, state: State, images: Array, *, training: bool = False) -> Array:
        x = self.images(state, images)
        return self.without_traces(state, "discriminator", x, training).numpy().copy()

    def without_traces(
        self, state: State, network: NetworkName, x: Tensor, training: bool
    ) -> Tensor:
        copies = {name: tensor.clone() for name, tensor in state.tensors.items()}
        with torch.no_grad():
            return self.run(dataclasses.replace(state, tensors=copies), network, x, training)

    def tensor(self, state: State, array: Array) -> Tensor:
        return torch.tensor(array).to(next(iter(state.tensors.values())).dtype)

    def images(self, state: State, images: Array) -> Tensor:
        return self.tensor(state, images).permute(0, 3, 1, 2)

    def synchronize(self, state: State) -> None:
        pass
