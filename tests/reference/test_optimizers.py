"""RMSProp and SGD against PyTorch, Keras' formula, and the way into a training step."""

import numpy as np
import pytest

from shared.fixtures.make_network import representative_inputs
from shared.reference.optimizers import optimizer_update
from shared.reference.step import train_step
from shared.spec import Conventions, OptimizerSpec, SystemSpec
from shared.spec.optimizers import RMSPropSpec, SGDSpec, optimizer_from_dict, optimizer_to_dict
from tests.reference.test_given_networks import given_system

GRADIENTS = np.random.default_rng(0).standard_normal((5, 7)) * np.geomspace(1e-6, 1.0, 7)


def updates(settings: OptimizerSpec, c: Conventions | None = None) -> np.ndarray:
    """Return the parameter after each of five updates from zero."""
    parameter, kept, found = np.linspace(-1.0, 1.0, 7), (np.zeros(7), np.zeros(7)), []
    for step, gradient in enumerate(GRADIENTS, start=1):
        parameter, *kept = optimizer_update(
            parameter, gradient, kept, step, settings, c or Conventions()
        )
        found.append(parameter)
    return np.array(found)


@pytest.mark.parametrize("centred", [False, True])
def test_rmsprop_is_pytorchs(centred: bool) -> None:
    settings = RMSPropSpec(0.01, 0.95, 1e-8, centred)
    options = {"lr": 0.01, "alpha": 0.95, "eps": 1e-8, "centered": centred}
    np.testing.assert_allclose(updates(settings), of_torch("RMSprop", **options), rtol=1e-13)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_pytorchs(momentum: float, nesterov: bool) -> None:
    settings = SGDSpec(0.1, momentum, nesterov)
    options = {"lr": 0.1, "momentum": momentum, "nesterov": nesterov}
    np.testing.assert_allclose(updates(settings), of_torch("SGD", **options), rtol=1e-13)


def test_a_decay_in_the_loss_is_pytorchs_of_every_optimizer() -> None:
    found = updates(SGDSpec(0.1, 0.9), Conventions(adam_weight_decay=0.03))
    expected = of_torch("SGD", lr=0.1, momentum=0.9, weight_decay=0.03)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def of_torch(name: str, **options: object) -> np.ndarray:
    torch = pytest.importorskip("torch")
    parameter = torch.tensor(np.linspace(-1.0, 1.0, 7), requires_grad=True)
    optimizer, found = getattr(torch.optim, name)([parameter], **options), []
    for gradient in GRADIENTS:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        found.append(parameter.detach().numpy().copy())
    return np.array(found)


def test_the_epsilon_inside_the_root() -> None:
    """Keras' and Optax' form: g / √(v + ε)."""
    settings = RMSPropSpec(0.1, 0.9, 1e-3, epsilon_inside_root=True)
    first = np.linspace(-1.0, 1.0, 7) - updates(settings)[0]
    g = GRADIENTS[0]
    np.testing.assert_allclose(first, 0.1 * g / np.sqrt(0.1 * g**2 + 1e-3), rtol=1e-9)


@pytest.mark.parametrize(
    "settings", [RMSPropSpec(centred=True, epsilon_inside_root=True), SGDSpec(0.1, 0.9, True)]
)
def test_a_step_takes_the_systems_own_optimizer(settings: OptimizerSpec) -> None:
    spec = given_system(generator_optimizer=settings)
    assert SystemSpec.from_dict(spec.to_dict()) == spec
    assert optimizer_from_dict(optimizer_to_dict(settings)) == settings
    arrays, real, z = representative_inputs(spec, 0, "own")
    step = train_step(spec, arrays, real, z)
    name = "generator/dense_1/kernel"
    m, v = (arrays[f"generator_optimizer/dense_1/kernel/{moment}"] for moment in "mv")
    own = optimizer_update(arrays[name], step.gradients[name], (m, v), 8, settings, Conventions())
    np.testing.assert_array_equal(step.arrays[name], own[0])
    plain = train_step(given_system(), arrays, real, z)
    assert not np.allclose(step.arrays[name], plain.arrays[name])
    other = "discriminator/conv_1/kernel"
    np.testing.assert_array_equal(step.arrays[other], plain.arrays[other])
