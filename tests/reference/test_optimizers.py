"""Every optimizer but Adam, clipping and schedules against PyTorch, Optax and Keras."""

from collections.abc import Callable

import numpy as np
import pytest

from shared.fixtures.network import representative_inputs
from shared.reference.optimizers import clipped, optimizer_update
from shared.reference.step import settings_of, train_step
from shared.spec import SYSTEMS, AdamSpec, Conventions, OptimizerSpec, SystemSpec
from shared.spec.optimizers import (
    AdamWSpec,
    AMSGradSpec,
    RMSPropSpec,
    SGDSpec,
    optimizer_from_dict,
    optimizer_to_dict,
)
from tests.reference.test_given_networks import given_system

GRADIENTS = np.random.default_rng(0).standard_normal((5, 7)) * np.geomspace(1e-6, 1.0, 7)
GRADIENTS[3:] *= 0.1  # so that v falls, and its largest value is an earlier one


def updates(settings: OptimizerSpec, c: Conventions | None = None) -> np.ndarray:
    """Return the parameter after each of five updates from zero."""
    parameter, kept, found = np.linspace(-1.0, 1.0, 7), [np.zeros(7) for _ in settings.kept], []
    for step, gradient in enumerate(GRADIENTS, start=1):
        g = clipped({"all": gradient}, settings)["all"]
        parameter, *kept = optimizer_update(parameter, g, kept, step, settings, c or Conventions())
        found.append(parameter)
    return np.array(found)


def test_defaults_are_those_of_the_papers_and_of_keras() -> None:
    """DCGAN's Adam (Radford et al. 2016, section 4) with its own paper's epsilon; else Keras'."""
    adam = AdamSpec(learning_rate=2e-4, beta1=0.5, beta2=0.999, epsilon=1e-8)
    assert AdamSpec() == adam
    rmsprop = RMSPropSpec(1e-3, 0.9, 1e-7, centred=False, epsilon_inside_root=False)
    assert RMSPropSpec() == rmsprop
    assert SGDSpec() == SGDSpec(1e-2, 0.0, nesterov=False)
    assert (AdamWSpec().decay, AMSGradSpec().corrected_maximum) == (0.01, False)


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


def test_adamw_and_amsgrad_are_pytorchs() -> None:
    own = (0.1, 0.5, 0.9, 1e-6)
    options = {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-6}
    expected = of_torch("AdamW", **options, weight_decay=0.03)
    np.testing.assert_allclose(updates(AdamWSpec(*own, decay=0.03)), expected, rtol=1e-13)
    expected = of_torch("Adam", **options, amsgrad=True)
    np.testing.assert_allclose(updates(AMSGradSpec(*own)), expected, rtol=1e-13)
    assert not np.allclose(updates(AMSGradSpec(*own)), updates(AdamSpec(*own)))


def test_a_schedule_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    settings = AdamSpec(0.1, schedule=((1, 0.5), (3, 0.05)))

    def scheduled(parameter: torch.Tensor) -> tuple[object, object]:
        optimizer = torch.optim.Adam([parameter], 0.1, (0.5, 0.999))
        factors = {0: 1.0, 1: 0.5, 2: 0.5, 3: 0.05, 4: 0.05, 5: 0.05}
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors.__getitem__)
        return optimizer, scheduler.step

    np.testing.assert_allclose(updates(settings), run_torch(scheduled), rtol=1e-13)


def test_a_schedule_of_equal_factors_is_pytorchs_multi_step() -> None:
    torch = pytest.importorskip("torch")
    settings = SGDSpec(0.1, 0.9, schedule=((2, 0.1), (4, 0.01)))

    def scheduled(parameter: torch.Tensor) -> tuple[object, object]:
        optimizer = torch.optim.SGD([parameter], 0.1, 0.9)
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4], 0.1).step

    np.testing.assert_allclose(updates(settings), run_torch(scheduled), rtol=1e-13)


def of_torch(name: str, **options: object) -> np.ndarray:
    torch = pytest.importorskip("torch")
    return run_torch(lambda p: (getattr(torch.optim, name)([p], **options), lambda: None))


def run_torch(created: Callable) -> np.ndarray:
    torch = pytest.importorskip("torch")
    parameter = torch.tensor(np.linspace(-1.0, 1.0, 7), requires_grad=True)
    (optimizer, then), found = created(parameter), []
    for gradient in GRADIENTS:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        then()
        found.append(parameter.detach().numpy().copy())
    return np.array(found)


def uneven_gradients() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {"kernel": 3.0 * draw.standard_normal((2, 3)), "bias": 0.2 * draw.standard_normal(3)}


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_is_pytorchs(most: float) -> None:
    torch = pytest.importorskip("torch")
    by_norm, by_value, gradients = AdamSpec(clip_norm=most), AdamSpec(clip_value=most), []
    for clip in (torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_):
        held = {n: torch.tensor(g, requires_grad=True) for n, g in uneven_gradients().items()}
        for tensor in held.values():
            tensor.grad = tensor.detach().clone()
        clip(held.values(), most)
        gradients.append({name: tensor.grad.numpy() for name, tensor in held.items()})
    for settings, expected in zip((by_norm, by_value), gradients, strict=True):
        found = clipped(uneven_gradients(), settings)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-13)


@pytest.mark.parametrize("first", [2e-3, 1e-3 - 5e-7, 9e-4])  # above, within epsilon of, below
def test_clipping_with_an_epsilon_is_pytorchs_for_every_system(first: float) -> None:
    torch = pytest.importorskip("torch")
    convention = Conventions(gradient_clipping="norm_and_epsilon", gradient_clip=1e-3)
    settings = settings_of(SYSTEMS["dcgan64"], "generator", convention)
    gradient = np.array([first, 0.0])
    held = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)
    held.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_([held], 1e-3)
    found = clipped({"all": gradient}, settings)["all"]
    np.testing.assert_allclose(found, held.grad.numpy(), rtol=1e-13)


@pytest.mark.slow
def test_optaxs_clipping_schedule_adamw_and_amsgrad() -> None:
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    own, betas, rates = (0.1, 0.5, 0.9, 1e-6), (0.5, 0.9, 1e-6), {1: 0.5, 3: 0.1}
    rate = optax.piecewise_constant_schedule(0.1, rates)
    clip = {"clip_norm": 0.5, "clip_epsilon": 0.0, "schedule": ((1, 0.5), (3, 0.05))}
    transformations = {
        AdamWSpec(*own, decay=0.03, **clip): optax.adamw(rate, *betas, weight_decay=0.03),
        AMSGradSpec(*own, corrected_maximum=True, **clip): optax.amsgrad(rate, *betas),
    }
    with jax.enable_x64(True):
        for settings, after in transformations.items():
            both = optax.chain(optax.clip_by_global_norm(0.5), after)
            parameter, found = jax.numpy.linspace(-1.0, 1.0, 7), []
            state = both.init(parameter)
            for gradient in GRADIENTS:
                update, state = both.update(jax.numpy.asarray(gradient), state, parameter)
                parameter = optax.apply_updates(parameter, update)
                found.append(np.asarray(parameter))
            np.testing.assert_allclose(updates(settings), found, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "clip"),
    [
        ({"clipnorm": 0.5}, {"clip_norm_of_each": 0.5, "clip_epsilon": 0.0}),
        ({"global_clipnorm": 0.5}, {"clip_norm": 0.5, "clip_epsilon": 0.0}),
        ({"clipvalue": 0.125}, {"clip_value": 0.125}),
    ],
)
def test_kerass_clipping(options: dict[str, float], clip: dict[str, float]) -> None:
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")
    gradients = uneven_gradients()
    variables = [keras.Variable(np.zeros(g.shape), dtype="float64") for g in gradients.values()]
    optimizer = keras.optimizers.SGD(1.0, **options)
    optimizer.apply([tf.constant(g) for g in gradients.values()], variables)
    for variable, array in zip(
        variables, clipped(gradients, AdamSpec(**clip)).values(), strict=True
    ):
        # Keras holds numbers in float32: these and the rate of 1 exactly.
        np.testing.assert_allclose(-variable.numpy(), array, rtol=1e-12)


@pytest.mark.slow
def test_kerass_amsgrad_and_adamw() -> None:
    tf, keras = pytest.importorskip("tensorflow"), pytest.importorskip("keras")
    own = (0.125, 0.5, 0.875, 2.0**-20)  # float32 numbers, as Keras holds them
    options = dict(zip(("learning_rate", "beta_1", "beta_2", "epsilon"), own, strict=True))
    c = Conventions(adam_epsilon_placement="before_correction")
    optimizers = {
        AMSGradSpec(*own): keras.optimizers.Adam(**options, amsgrad=True),
        AdamWSpec(*own, decay=0.03125): keras.optimizers.AdamW(**options, weight_decay=0.03125),
    }
    for settings, optimizer in optimizers.items():
        variable, found = keras.Variable(np.linspace(-1.0, 1.0, 7), dtype="float64"), []
        for gradient in GRADIENTS:
            optimizer.apply([tf.constant(gradient)], [variable])
            found.append(variable.numpy())
        np.testing.assert_allclose(updates(settings, c), found, rtol=1e-12)


def test_the_order_of_clipping() -> None:
    """Values first, then the norm of each gradient, then that of all."""
    g = {"a": np.array([3.0, -8.0]), "b": np.array([0.6])}
    exact = {"clip_epsilon": 0.0}
    found = clipped(g, AdamSpec(clip_value=4.0, clip_norm_of_each=2.5, clip_norm=0.5, **exact))
    norm = np.hypot(2.5, 0.6)
    np.testing.assert_allclose(found["a"], np.array([1.5, -2.0]) * 0.5 / norm, rtol=1e-15)
    np.testing.assert_allclose(found["b"], 0.6 * 0.5 / norm, rtol=1e-15)


def test_the_epsilon_inside_the_root() -> None:
    """Keras' and Optax' form: g / √(v + ε)."""
    settings = RMSPropSpec(0.1, 0.9, 1e-3, epsilon_inside_root=True)
    first = np.linspace(-1.0, 1.0, 7) - updates(settings)[0]
    g = GRADIENTS[0]
    np.testing.assert_allclose(first, 0.1 * g / np.sqrt(0.1 * g**2 + 1e-3), rtol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        RMSPropSpec(centred=True, epsilon_inside_root=True),
        SGDSpec(0.1, 0.9, True),
        AdamWSpec(clip_norm=1e-3, schedule=((5, 0.5), (9, 0.0))),
        AMSGradSpec(corrected_maximum=True, clip_value=1e-3),
    ],
)
def test_a_step_takes_the_systems_own_optimizer(settings: OptimizerSpec) -> None:
    spec = given_system(generator_optimizer=settings)
    assert SystemSpec.from_dict(spec.to_dict()) == spec
    assert optimizer_from_dict(optimizer_to_dict(settings)) == settings
    arrays, real, z = representative_inputs(spec, 0, "own")
    step = train_step(spec, arrays, real, z)
    name = "generator/dense_1/kernel"
    kept = [arrays[f"generator_optimizer/dense_1/kernel/{kept}"] for kept in settings.kept]
    of_generator = {n: g for n, g in step.gradients.items() if n.startswith("generator/")}
    g = clipped(of_generator, settings)[name]
    assert np.array_equal(g, step.gradients[name]) == isinstance(settings, RMSPropSpec | SGDSpec)
    own = optimizer_update(arrays[name], g, kept, 8, settings, Conventions())
    np.testing.assert_array_equal(step.arrays[name], own[0])
    plain = train_step(given_system(), arrays, real, z)
    assert not np.allclose(step.arrays[name], plain.arrays[name])
    other = "discriminator/conv_1/kernel"
    np.testing.assert_array_equal(step.arrays[other], plain.arrays[other])
