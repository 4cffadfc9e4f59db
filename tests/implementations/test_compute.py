"""What `Compute` asks of the three implementations, and what is in common between them."""

import dataclasses
import importlib
from types import ModuleType

import numpy as np
import pytest

from shared.interface import Implementation
from shared.reference.comparison import state_differences
from shared.spec import NETWORKS, SYSTEMS, AdamSpec
from shared.spec.compute import Compute, resolve
from shared.spec.streams import initial_state, stream
from tests.apparatus.planted.probe import inputs, starting_state
from tests.conftest import installed_implementations
from tests.tiers import SLOW_IN_TF_AND_JAX, one_in

SPEC = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5, batch_size=4)


def module(implementation: Implementation, name: str) -> ModuleType:
    return importlib.import_module(f"{implementation.name}_impl.{name}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "float16"},
        {"dtype": "float16", "device": "tpu"},
        {"precision": "float8"},
        {"precision": "bfloat16", "dtype": "float64"},
        {"precision": "tf32"},
        {"device": "tpu"},
        {"devices": 0},
        {"devices": 3},
        {"batch_norm": "none"},
    ],
    ids=str,
)
def test_a_wrong_argument_gives_the_same_message_everywhere(wrong: dict) -> None:
    messages = set()
    for implementation in installed_implementations(at_least=2):
        create = module(implementation, "train").create_train_state
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            create(SPEC, Compute(**wrong))
        messages.add(str(caught.value))
    assert len(messages) == 1, messages


def test_arrays_of_another_system_are_refused(implementation: Implementation) -> None:
    arrays = initial_state(SPEC.replace(width=3), 0)
    with pytest.raises(ValueError, match="the state does not fit the system: wrong shape"):
        module(implementation, "train").create_train_state(SPEC, arrays=arrays)


def test_a_state_of_given_arrays_draws_no_weights(
    implementation: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(*arguments: object) -> None:
        raise AssertionError("weights were drawn to be thrown away")

    arrays = {name: a.astype("float32") for name, a in starting_state(SPEC, "middle").items()}
    monkeypatch.setattr(module(implementation, "checkpoint"), "initial_state", drawn)
    state = module(implementation, "train").create_train_state(SPEC, arrays=arrays)
    for name, array in implementation.export_state(state).items():
        assert np.array_equal(array, arrays[name]), name


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("system", ["dcgan64", "conv28"])
def test_plain_code_and_fast_code_are_the_same_step(
    implementation: Implementation, system: str
) -> None:
    spec = SYSTEMS[system].replace(width=2, latent_dim=5, batch_size=4)
    start, batches, states = starting_state(spec, "middle"), inputs(spec), []
    for fast in (False, True):
        made = type(implementation)(fast=fast)
        state = made.create(spec, dtype="float64")
        made.import_state(state, start)
        made.train_step(state, *batches)
        states.append(made.export_state(state))
    # Measured 2e-14; both are held against the reference elsewhere.
    assert max(state_differences(spec, *states).values()) <= 1e-11


@pytest.mark.parametrize("system", one_in(2, ["conv28", "dcgan64-lsgan", "dcgan64", "mlp28"]))
def test_activations_are_those_of_every_layer_with_parameters(
    implementation: Implementation, system: str
) -> None:
    spec = SYSTEMS[system].replace(width=2, latent_dim=5, batch_size=2)
    state = implementation.create(spec)
    z = stream(0, "latents").normal(size=(2, 5)).astype(np.float32)
    images = stream(0, "images").uniform(size=(2, *spec.image_shape)).astype(np.float32)
    makes = {"generator": implementation.generate, "discriminator": implementation.discriminate}
    for network, values in (("generator", z), ("discriminator", images)):
        found = implementation.activations(state, network, values)
        layers = [layer for layer in spec.layers(network) if layer.parameters]
        assert {name: x.shape[1:] for name, x in found.items()} == {
            layer.name: layer.output_shape for layer in layers
        }
        # What the network makes of the last one by running statistics, held to the reference.
        last, output = found[layers[-1].name], makes[network](state, values)
        ends = {layer.kind for layer in spec.layers(network)[-2:]}
        if "tanh" in ends:
            last = np.tanh(last)
        elif "sigmoid" in ends:
            last = 1.0 / (1.0 + np.exp(-last))
        np.testing.assert_allclose(last.reshape(output.shape), output, rtol=0, atol=1e-6)


def test_a_network_uses_running_statistics_unless_it_is_told_otherwise(
    implementation: Implementation,
) -> None:
    spec = SYSTEMS["conv28"].replace(width=2, latent_dim=5, batch_size=2)
    state, train = implementation.create(spec), module(implementation, "train")
    z = stream(0, "latents").normal(size=(2, 5)).astype(np.float32)
    images = stream(0, "images").uniform(size=(2, *spec.image_shape)).astype(np.float32)
    place = module(implementation, "state")
    given = {"generate": place.latents_to_device(state, z)}
    given["discriminate"] = place.images_to_device(state, images)
    for name, values in given.items():
        function = getattr(train, name)
        usual, running, batch = (
            np.asarray(function(state, values, **told))
            for told in ({}, {"training": False}, {"training": True})
        )
        assert np.array_equal(usual, running)
        assert np.abs(usual - batch).max() > 1e-3


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("system", SYSTEMS)
def test_flax_networks_have_the_specs_shapes_before_they_have_weights(
    system: str, fast: bool
) -> None:
    nnx = pytest.importorskip("flax.nnx")
    from jax_impl import checkpoint, models, state

    spec = SYSTEMS[system].replace(width=3, latent_dim=5)

    def create() -> tuple:
        return models.create_models(spec, state.choose_layers(Compute(fast=fast)))

    for network, made in zip(NETWORKS, nnx.eval_shape(create), strict=True):
        for name, parameter in spec.parameters(network).items():
            assert checkpoint._variable(made, name, made).shape == parameter.shape, name


def test_xla_is_for_one_device_of_tensorflow() -> None:
    pytest.importorskip("tensorflow")
    from tf_impl import state

    for mode, devices in (("function", 1), ("function", 2), ("xla", 1)):
        assert state.check_compute(SPEC, Compute(mode=mode, devices=devices)).mode == mode
    with pytest.raises(ValueError, match="mode xla compiles for one device"):
        state.check_compute(SPEC, Compute(mode="xla", devices=2))


def test_tensorflow_compiles_with_xla_in_the_mode_of_that_name_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tf = pytest.importorskip("tensorflow")
    from tf_impl import train

    for mode in ("function", "xla"):
        state, asked = train.create_train_state(SPEC, Compute(device="cpu", mode=mode)), []
        with monkeypatch.context() as changed:
            changed.setattr(tf, "function", lambda made, asked=asked, **o: asked.append(o) or made)
            train._compiled(state, train._losses_of_step)
        assert [options["jit_compile"] for options in asked] == [mode == "xla"]


def test_adams_counter_is_where_torch_keeps_it() -> None:
    torch = pytest.importorskip("torch")
    from pytorch_impl.checkpoint import _counter

    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    plain = torch.optim.Adam([parameter])
    capturable = torch.optim.Adam([parameter], capturable=True)
    assert _counter(plain, parameter).device.type == "cpu"
    assert _counter(capturable, parameter).device.type == "meta"


def test_what_a_recorded_step_holds_of_adam_stays_where_it_is() -> None:
    """A CUDA graph holds addresses, and needs the counter on its GPU, which a CPU does not."""
    pytest.importorskip("torch")
    from pytorch_impl import train

    state = train.create_train_state(SPEC)
    for name in NETWORKS:
        optimizer = state.optimizer(name)
        assert optimizer.defaults["capturable"] is False
        held = {id(p): optimizer.state[p]["exp_avg"].data_ptr() for p in optimizer.state}
        train.import_state(state, train.export_state(state))
        after = {id(p): optimizer.state[p]["exp_avg"].data_ptr() for p in optimizer.state}
        assert after == held


def test_two_devices_of_pytorch_normalise_by_the_whole_batch() -> None:
    pytest.importorskip("torch")
    from pytorch_impl import fast
    from pytorch_impl.state import choose_layers

    for compute, kind in (
        (Compute(devices=1), fast.BatchNorm),
        (Compute(devices=2), fast.GlobalBatchNorm),
        (Compute(devices=2, device="gpu"), fast.SyncBatchNorm),
        (Compute(devices=2, batch_norm="per-replica"), fast.BatchNorm),
    ):
        assert type(choose_layers(compute).batch_norm(3)) is kind


def test_weights_of_the_discriminator_learn_after_a_failed_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    from pytorch_impl import train

    state = train.create_train_state(SPEC)
    images, _ = train.batches_to_devices(state, *inputs(SPEC))
    monkeypatch.setattr(train, "_update", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.update_generator(state, images)
    assert all(p.requires_grad for p in state.discriminator.parameters())


def test_keras_makes_the_same_layer_and_optimizer_again() -> None:
    keras = pytest.importorskip("keras")
    from tf_impl import fast, layers

    for held in (layers.BatchNorm(3, momentum=0.2), fast.BatchNorm(3, epsilon=1e-3)):
        made = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(held))
        assert type(made) is type(held)
        assert made.get_config() == held.get_config()
        assert made.momentum == held.momentum
    adam = layers.Adam(2e-4, beta1=0.5)
    made = layers.Adam.from_config(adam.get_config())
    assert isinstance(made, keras.optimizers.Optimizer)
    assert (made.get_config(), float(made.learning_rate)) == (adam.get_config(), 2e-4)
    # Its defaults are those of Kingma & Ba 2015, section 2.
    usual = layers.Adam(2e-4)
    assert (usual.beta1, usual.beta2, usual.epsilon) == (0.9, 0.999, 1e-8)


@pytest.mark.slow
def test_another_learning_rate_compiles_nothing_anew() -> None:
    pytest.importorskip("jax")
    from jax_impl import train

    compiled = []
    for rate in (1e-4, 3e-4):
        spec = SPEC.replace(generator_optimizer=AdamSpec(learning_rate=rate))
        state = train.create_train_state(spec)
        before = np.array(train.export_state(state)["generator/conv_transpose_5/kernel"])
        train.train_step(state, *train.batches_to_devices(state, *inputs(spec)))
        after = train.export_state(state)["generator/conv_transpose_5/kernel"]
        # Adam's first update is the learning rate.
        assert np.median(np.abs(after - before)) == pytest.approx(rate, rel=1e-2)
        compiled.append(train._compiled_step._cache_size())
    assert compiled[0] == compiled[1]


def test_one_gpu_records_the_step_of_pytorch_unless_it_is_eager() -> None:
    pytest.importorskip("torch")
    from pytorch_impl import train

    state = train.create_train_state(SPEC)
    for compute, recorded in (
        (Compute(device="gpu", mode="cudagraph"), True),
        (Compute(device="gpu", mode="compile"), True),
        (Compute(device="gpu", mode="eager"), False),
        (Compute(device="gpu", mode="compile", devices=2), False),
        (Compute(device="cpu", mode="compile"), False),
    ):
        assert dataclasses.replace(state, compute=compute).is_recorded == recorded


def test_a_gpu_has_a_usual_mode_of_its_own() -> None:
    modes = {"modes": ("eager", "cudagraph"), "has_gpu": True, "gpu_mode": "cudagraph"}
    assert resolve(Compute(device="gpu"), SPEC, **modes).mode == "cudagraph"
    assert resolve(Compute(device="gpu", mode="eager"), SPEC, **modes).mode == "eager"
    assert resolve(Compute(device="gpu", devices=2), SPEC, **modes).mode == "eager"
    assert resolve(Compute(device="cpu"), SPEC, **modes).mode == "eager"
