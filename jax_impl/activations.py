"""What each layer makes of a network's inputs, for finding the first one that differs."""

from collections.abc import Callable
from functools import partial

from flax import nnx
from jax import Array as Tensor

from shared.spec import NetworkName

from .state import TrainState


def activations(
    state: TrainState, network: NetworkName, inputs: Tensor, *, training: bool = False
) -> dict[str, Tensor]:
    """Return the output of each layer with parameters by name: NHWC, or [batch, features].

    `inputs` are latents or images as `generate` and `discriminate` take them. The state does not
    change.
    """
    found: dict[str, Tensor] = {}
    module = state.settings.merge(state.arrays).network(network)
    if not training:
        module.eval()
    for name, layer in list(vars(module).items()):
        if isinstance(layer, nnx.Module):
            setattr(module, name, partial(_keep, found, name, layer))
    module(inputs)
    return found


def _keep(found: dict[str, Tensor], name: str, layer: Callable[..., Tensor], x: Tensor) -> Tensor:
    found[name] = layer(x)
    return found[name]
