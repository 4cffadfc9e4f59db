"""Networks, gradients and one step of all three implementations against the reference."""

import numpy as np
import pytest

from shared.explain.probes import kink_margin
from shared.fixtures.network import (
    KINK_MARGIN,
    NetworkFixture,
    load_network_fixture,
    representative_state,
)
from shared.interface import METRIC_NAMES, Implementation
from shared.reference.adapter import ReferenceImplementation
from shared.reference.comparison import relative_l2
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions, SystemSpec, state_shapes
from shared.spec.streams import initial_state, latents
from tests.comparison import MismatchError, require_close
from tests.tiers import EAGER_TENSORFLOW, SLOW_IN_TF_AND_JAX, one_in, quick_first

pytestmark = EAGER_TENSORFLOW

# Relative L2 bounds. float64: measured 2e-15 forward, 8e-15 gradients, 2e-14 whole state, in all
# three; the smallest planted fault, a leaky ReLU whose slope went through float32, shows at 1.5e-8
# (test_a_small_fault_is_caught). float32: measured 5e-7 forward, 2e-6 gradients, 2e-6 state;
# the reference under a wrong epsilon of BN (1e-3) is 5e-4 off. Metrics: absolute below 1, because a
# score near 0 is a sum of numbers of order 1 and has their rounding error, about 1e-6 in float32.
FORWARD = {"float64": 1e-12, "float32": 5e-6}
GRADIENTS = {"float64": 1e-12, "float32": 1e-5}
STATE = {"float64": 1e-11, "float32": 1e-5}
METRICS = {"float64": 1e-12, "float32": 5e-6}
DTYPES = ("float64", "float32")


@pytest.fixture(scope="module")
def fixture() -> NetworkFixture:
    return load_network_fixture()


def loaded(implementation: Implementation, spec: SystemSpec, arrays: dict, dtype: str) -> object:
    state = implementation.create(spec, dtype=dtype)
    implementation.import_state(state, arrays)
    return state


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(implementation: Implementation, fixture: NetworkFixture, dtype: str) -> None:
    state = loaded(implementation, fixture.spec, fixture.arrays, dtype)
    z, images = fixture.latents.astype(dtype), fixture.real_images.astype(dtype)
    reference = ReferenceImplementation()
    held = loaded(reference, fixture.spec, fixture.arrays, "float64")
    generated = implementation.generate(state, z, training=True)
    expected = fixture.generator_activations["tanh_5"]
    require_close("images", generated, expected, bound=FORWARD[dtype], dtype=dtype)
    scores = implementation.discriminate(state, images, training=True)
    expected = fixture.discriminator_activations["flatten_5"][:, 0]
    require_close("scores", scores, expected, bound=FORWARD[dtype], dtype=dtype)
    for name, actual, expected in (
        ("images", implementation.generate(state, z), reference.generate(held, z)),
        (
            "scores",
            implementation.discriminate(state, images),
            reference.discriminate(held, images),
        ),
    ):
        require_close(
            f"{name} by running statistics", actual, expected, bound=FORWARD[dtype], dtype=dtype
        )
    after = implementation.export_state(state)
    for name, array in fixture.arrays.items():
        assert np.array_equal(after[name], array.astype(after[name].dtype)), f"{name} moved"


@pytest.mark.parametrize("dtype", one_in(2, DTYPES))
def test_gradients(implementation: Implementation, fixture: NetworkFixture, dtype: str) -> None:
    state = loaded(implementation, fixture.spec, fixture.arrays, dtype)
    before = implementation.export_state(state)
    gradients = implementation.gradients(
        state, fixture.real_images.astype(dtype), fixture.latents.astype(dtype)
    )
    assert gradients.keys() == fixture.gradients.keys()
    for name, expected in fixture.gradients.items():
        require_close(name, gradients[name], expected, bound=GRADIENTS[dtype], dtype=dtype)
    after = implementation.export_state(state)
    for name, array in before.items():
        assert np.array_equal(after[name], array), f"{name} moved"


@pytest.mark.parametrize("dtype", ["float64"])
def test_gradients_at_pre_activations_of_exactly_zero(
    implementation: Implementation, fixture: NetworkFixture, dtype: str
) -> None:
    """A leaky ReLU's gradient at 0 is its slope, as it is below; no random number shows it."""
    kernel = np.array(fixture.arrays["discriminator/conv_1/kernel"])
    kernel[..., 0] = 0.0
    arrays = {**fixture.arrays, "discriminator/conv_1/kernel": kernel}
    found = [
        each.gradients(
            loaded(each, fixture.spec, arrays, dtype), fixture.real_images, fixture.latents
        )
        for each in (implementation, ReferenceImplementation())
    ]
    for name, expected in found[1].items():
        require_close(name, found[0][name], expected, bound=GRADIENTS[dtype], dtype=dtype)


# Every pair of system, loss and dtype, not every combination.
QUICK_STEPS = [("dcgan64", "bce", "float64")]
MORE_STEPS = [
    ("dcgan64-lsgan", "bce", "float32"),
    ("dcgan64", "bce_probs", "float32"),
    ("dcgan64-lsgan", "bce_probs", "float64"),
    ("dcgan64", "minimax", "float64"),
    ("dcgan64-lsgan", "minimax", "float32"),
    ("dcgan64", "lsgan", "float32"),
    ("dcgan64-lsgan", "lsgan", "float64"),
]


@pytest.mark.parametrize(("system", "loss", "dtype"), quick_first(QUICK_STEPS, MORE_STEPS))
def test_one_step_moves_every_tensor_as_the_reference(
    implementation: Implementation, system: str, loss: str, dtype: str
) -> None:
    spec = SYSTEMS[system].replace(width=4, latent_dim=10, batch_size=3, loss=loss)
    arrays, real, z = clear_of_kinks(spec)
    expected = train_step(spec, arrays, real, z)
    state = loaded(implementation, spec, arrays, dtype)
    metrics = implementation.train_step(state, real.astype(dtype), z.astype(dtype))
    assert tuple(metrics) == METRIC_NAMES
    for name, value in expected.metrics.items():
        bound = METRICS[dtype] * max(1.0, abs(value))
        assert abs(metrics[name] - value) <= bound, name
    after = implementation.export_state(state)
    assert list(after) == list(state_shapes(spec))
    for name, array in expected.arrays.items():
        counter = name.endswith("_optimizer/step")
        require_close(
            name,
            after[name],
            array,
            # v holds squares: twice the gradient's relative error. Measured: 1.1e-5.
            bound=0.0 if counter else STATE[dtype] * (2.0 if name.endswith("/v") else 1.0),
            dtype="int64" if counter else dtype,
        )


def clear_of_kinks(spec: SystemSpec) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return a state and inputs at which no pre-activation is so near 0 that rounding turns it."""
    for seed in range(100):
        arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, seed).items()}
        draw = np.random.default_rng(seed)
        real = draw.uniform(-1, 1, (spec.batch_size, *spec.image_shape)).astype(np.float32)
        z = latents(spec, seed, 0, spec.batch_size).astype(np.float32)
        inputs = (arrays, real.astype(np.float64), z.astype(np.float64))
        if kink_margin(spec, *inputs) >= KINK_MARGIN:
            return inputs
    raise AssertionError("no seed is clear of the kinks")


def test_a_small_fault_is_caught(fixture: NetworkFixture) -> None:
    """The bounds stand below the smallest deviation that ports are known to have."""
    slope = ReferenceImplementation(Conventions(leaky_relu_slope=float(np.float32(0.2))))
    state = loaded(slope, fixture.spec, fixture.arrays, "float64")
    gradients = slope.gradients(state, fixture.real_images, fixture.latents)
    name = "discriminator/conv_1/kernel"
    difference = relative_l2(gradients[name], fixture.gradients[name])
    assert 1e-9 < difference < 1e-6
    with pytest.raises(MismatchError, match="relative L2 difference"):
        require_close(
            name,
            gradients[name],
            fixture.gradients[name],
            bound=GRADIENTS["float64"],
            dtype="float64",
        )


@pytest.mark.parametrize(
    "deviation",
    [
        {"batch_norm_epsilon": 1e-3},
        {"conv_transpose_kernel": "flipped"},
        {"discriminator_batches": "merged"},
        {"leaky_relu_slope": 0.01},
        {"detach_fake": False},
        {"update_order": "simultaneous"},
    ],
    ids=str,
)
def test_the_float32_bound_catches_a_wrong_convention(
    fixture: NetworkFixture, deviation: dict
) -> None:
    wrong = ReferenceImplementation(Conventions(**deviation))
    state = loaded(wrong, fixture.spec, fixture.arrays, "float64")
    gradients = wrong.gradients(state, fixture.real_images, fixture.latents)
    differences = [relative_l2(gradients[n], g) for n, g in fixture.gradients.items()]
    assert max(differences) > 10 * GRADIENTS["float32"]


def test_full_width_has_exactly_the_parameters_of_the_spec(
    implementation: Implementation,
) -> None:
    spec = SYSTEMS["dcgan64"]
    arrays = implementation.export_state(implementation.create(spec, seed=3))
    assert {n: a.shape for n, a in arrays.items()} == state_shapes(spec)
    for network, count in (("generator", 3_576_704), ("discriminator", 2_765_568)):
        trainable = [n for n, p in spec.parameters(network).items() if p.trainable]
        assert sum(arrays[name].size for name in trainable) == count
    # The same seed gives the same weights in every framework: those of the shared stream.
    for name, array in initial_state(spec, 3).items():
        assert np.array_equal(arrays[name], array.astype(arrays[name].dtype)), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_export_and_import_are_exact(implementation: Implementation, dtype: str) -> None:
    spec = SYSTEMS["dcgan64-lsgan"].replace(width=2, latent_dim=5)
    arrays = {
        n: a if n.endswith("/step") else a.astype(dtype)
        for n, a in representative_state(spec, 0).items()
    }
    state = loaded(implementation, spec, arrays, dtype)
    for name, array in implementation.export_state(state).items():
        assert array.dtype == (np.int64 if name.endswith("/step") else dtype), name
        assert array.flags["C_CONTIGUOUS"], name
        assert np.array_equal(array, arrays[name]), name


def test_import_and_export_keep_each_networks_counter(implementation: Implementation) -> None:
    spec = SYSTEMS["dcgan64"].replace(width=1, latent_dim=3)
    state = implementation.create(spec)
    counters = {"generator_optimizer/step": 3, "discriminator_optimizer/step": 7}
    arrays = implementation.export_state(state)
    implementation.import_state(state, arrays | {n: np.int64(v) for n, v in counters.items()})
    exported = implementation.export_state(state)
    assert {name: int(exported[name]) for name in counters} == counters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("generator/batch_norm_1/mean"), "missing: generator/batch_norm_1/mean"),
        (lambda a: a.update(extra=np.zeros(1)), "unexpected: extra"),
        (
            lambda a: a.update({"discriminator/conv_1/kernel": np.zeros((4, 4, 2, 3))}),
            r"wrong shape: discriminator/conv_1/kernel \(4, 4, 2, 3\) instead of \(4, 4, 3, 2\)",
        ),
    ],
    ids=["missing", "unexpected", "wrong shape"],
)
def test_import_is_strict(implementation: Implementation, change: object, message: str) -> None:
    spec = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5)
    state = implementation.create(spec)
    before = implementation.export_state(state)
    arrays = dict(before)
    change(arrays)
    with pytest.raises(ValueError, match=message):
        implementation.import_state(state, arrays)
    for name, array in implementation.export_state(state).items():
        assert np.array_equal(array, before[name]), name


def test_an_unknown_dtype_is_refused(implementation: Implementation) -> None:
    spec = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5)
    with pytest.raises(ValueError, match=r"unknown dtype 'float16'; expected one of float32"):
        implementation.create(spec, dtype="float16")


@SLOW_IN_TF_AND_JAX
def test_synchronize_returns(implementation: Implementation) -> None:
    spec = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5, batch_size=2)
    state = implementation.create(spec)
    implementation.synchronize(state)
