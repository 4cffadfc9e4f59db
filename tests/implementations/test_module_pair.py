"""Anybody's modules in three frameworks: read off, asked for everything, with an own step."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tomli_w

from shared.conformance.problems import problems_of
from shared.conformance.serve import Server
from shared.conformance.verdicts import counts, decide
from shared.explain import explain
from shared.files.documents import read_document
from shared.files.system_file import read_system
from shared.fixtures.network import representative_inputs
from shared.interface import IMPLEMENTATIONS
from shared.module_pair import _between
from shared.spec import SYSTEMS, SystemSpec
from shared.spec.optimizers import SGDSpec
from tests.implementations import modules_of_others as others
from tests.tiers import SLOW_IN_TF_AND_JAX

# What the modules have; numbers that float32 holds, which Keras rounds its settings to.
ADAM = {"learning_rate": 2.0**-10, "beta1": 0.5, "beta2": 0.875, "epsilon": 2.0**-20}
NORM = {"kind": "batch_norm", "epsilon": 1e-3, "momentum": 0.25}
SAME = {"kind": "conv", "features": 8, "padding": "same"}
GENERATOR = [
    {"kind": "dense", "features": 128},
    {"kind": "reshape", "size": 4},
    NORM,
    {"kind": "relu"},
    {"kind": "conv_transpose", "features": 3, "size": 4, "stride": 2, "padding": "same"},
    {"kind": "tanh"},
]
DISCRIMINATOR = [
    SAME | {"size": 4, "stride": 2},
    {"kind": "leaky_relu", "slope": 0.25},
    SAME | {"size": 3, "stride": 1, "bias": False},
    NORM,
    {"kind": "flatten"},
    {"kind": "leaky_relu", "slope": 0.25},
    {"kind": "dense", "features": 1},
]
FRAMEWORKS = [pytest.param(name, marks=SLOW_IN_TF_AND_JAX) for name in IMPLEMENTATIONS]


def system(pair: Any, path: Path) -> SystemSpec:
    """Return the system that a pair says, with its optimizers."""
    (path / "read.toml").write_text(pair.system_file())
    document = read_document(path / "read.toml")
    for network in ("generator", "discriminator"):
        document[network].setdefault("optimizer", ADAM)
    (path / "mine.toml").write_text(tomli_w.dumps(document))
    return read_system(path / "mine.toml").replace(batch_size=3)


def verdicts(implementation: Any, spec: SystemSpec, fresh: bool = False) -> set[str]:
    """Return the verdicts of every case but, unless asked for, those of fresh weights."""
    found = counts(decide(problems_of(spec)[not fresh :], Server(implementation), {}))
    return {verdict for verdict, count in found.items() if count}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_pair_is_read_and_has_every_method(framework: str, tmp_path: Path) -> None:
    pair = others.pair(framework)
    spec = system(pair, tmp_path)
    document = read_document(tmp_path / "read.toml")
    padded = {"same": 1} if framework == "pytorch" else {}
    for network, expected in (("generator", GENERATOR), ("discriminator", DISCRIMINATOR)):
        wanted = [e | {n: padded.get(e[n], e[n]) for n in e if n == "padding"} for e in expected]
        assert document[network]["layers"] == wanted
        assert document[network]["optimizer"] == ADAM
    laws = {"pytorch": "normal", "tf": "glorot_uniform", "jax": "lecun_normal"}
    for network in ("generator", "discriminator"):
        assert document[network]["initializer"]["distribution"] == laws[framework]
    assert (spec.image_shape, spec.latent_dim, spec.loss) == ((8, 8, 3), 6, "bce")
    assert verdicts(pair, spec, fresh=True) == {"pass"}


POOLS = [
    {"kind": "conv", "features": 4, "size": 3, "stride": 1, "padding": 1},
    {"kind": "dropout", "rate": 0.5},
    {"kind": "average_pool", "size": 2, "stride": 2},
    {"kind": "leaky_relu", "slope": 0.25},
    {"kind": "max_pool", "size": 2, "stride": 1},
    {"kind": "global_average_pool"},
]
FUNCTIONS = [
    {"kind": "leaky_relu", "slope": 0.25},
    {"kind": "average_pool", "size": 2},
    SAME | {"features": 4, "size": 3, "stride": 1},
    {"kind": "max_pool", "size": 2},
    {"kind": "relu"},
    SAME | {"features": 4, "size": 3, "stride": 1},
    {"kind": "upsample_nearest", "size": 2},
    SAME | {"features": 4, "size": 3, "stride": 1},
    {"kind": "flatten"},
]
HEAD = {"kind": "dense", "features": 1}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_pools_and_dropout_are_read_and_nothing_is_dropped(framework: str, tmp_path: Path) -> None:
    pair = others.pair(framework)
    generator, _, adam, of_discriminator = pair.parts
    if framework != "tf":  # whose Adam is of no network yet
        of_discriminator = None
    parts = generator, others.pooling(framework), adam, of_discriminator
    pair = type(pair)(*parts, latent_shape=(6,))
    spec = system(pair, tmp_path)
    found = read_document(tmp_path / "read.toml")["discriminator"]["layers"]
    first = POOLS[0] | {"padding": 1 if framework == "pytorch" else "same"}
    expected = [first, POOLS[1], *(FUNCTIONS if framework == "jax" else POOLS[2:])]
    expected += [{"kind": "flatten"}] if framework == "pytorch" else []
    assert found == [*expected, HEAD]
    assert verdicts(pair, spec.replace(batch_size=2)) == {"pass"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_pair_without_optimizers_has_the_adam_of_its_file(framework: str, tmp_path: Path) -> None:
    given = others.pair(framework)
    pair = type(given)(*given.parts[:2], latent_shape=(6,))
    assert ("adam" in given.system_file()) == (framework == "tf")
    assert "adam" not in pair.system_file()
    assert verdicts(pair, system(pair, tmp_path)) == {"pass"}


SGD = {"kind": "sgd", "learning_rate": 0.125}
RMSPROP = {"kind": "rmsprop", "learning_rate": 0.001, "decay": 0.9, "epsilon": 1e-6}
AMSGRAD = ADAM | {"kind": "amsgrad", "learning_rate": 0.002, "beta2": 0.9}
OPTIMIZERS = {
    "sgd": SGD | {"momentum": 0.0, "nesterov": False},
    "momentum": SGD | {"momentum": 0.875, "nesterov": False},
    "nesterov": SGD | {"momentum": 0.875, "nesterov": True},
    "rmsprop": RMSPROP | {"centred": False},
    "centred": RMSPROP | {"centred": True},
    "amsgrad": AMSGRAD,
    "adamw": AMSGRAD | {"kind": "adamw", "decay": 0.03125},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_another_optimizer_is_read_and_agrees(framework: str, name: str, tmp_path: Path) -> None:
    given = others.pair(framework)
    networks = given.parts[:2]
    own = [others.optimizer(framework, name, network) for network in networks]
    pair = type(given)(*networks, *own, latent_shape=(6,))
    spec = system(pair, tmp_path)
    expected = dict(OPTIMIZERS[name])
    if expected["kind"] == "rmsprop":
        expected["epsilon_inside_root"] = framework == "tf"
    if expected["kind"] == "amsgrad":
        expected["corrected_maximum"] = framework == "jax"
    document = read_document(tmp_path / "read.toml")
    assert document["generator"]["optimizer"] == document["discriminator"]["optimizer"] == expected
    assert verdicts(pair, spec) == {"pass"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_optimizer_that_no_file_can_say_is_refused_in_a_line(framework: str) -> None:
    given = others.pair(framework)
    optimizer = others.optimizer(framework, "unknown", given.parts[1])
    with pytest.raises(ValueError, match=r"^received (adagrad|scale_by_rss); expected .*sgd|scale"):
        type(given)(*given.parts[:3], optimizer, latent_shape=(6,))


def test_a_schedule_of_keras_is_refused_in_a_line() -> None:
    keras = pytest.importorskip("keras")
    given = others.pair("tf")
    falling = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(1e-3, 9, 0.9))
    with pytest.raises(ValueError, match=r"^received exponentialdecay; expected .*None for the fi"):
        type(given)(*given.parts[:3], falling, latent_shape=(6,))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_step_of_their_own_on_their_networks(framework: str, tmp_path: Path) -> None:
    pair = others.pair(framework, step=others.STEPS[framework])
    assert verdicts(pair, system(pair, tmp_path)) == {"pass", "skipped"}  # its gradients


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_step_of_their_own_on_our_networks(framework: str) -> None:
    ours = others.implementation(framework)(step=others.STEPS[framework])
    spec = SYSTEMS["mlp28"].replace(width=4, latent_dim=5, batch_size=3, loss="bce")
    assert verdicts(ours, spec) == {"pass", "skipped"}


def leaking(step: Callable) -> Callable:
    """Return PyTorch's step with the images of D's update attached, and no gradient dropped."""
    return lambda *given: step(*given, attached=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epsilon": 1e-5}, "batch norm epsilon: 1e-05 instead of the spec's, in the discrim"),
        ({"beta1": 0.9}, "adam beta1: 0.9 instead of the spec's"),
        ({"step": leaking(others.torch_step)}, "detach fake: False instead of True"),
        ({}, ""),
        ({"step": others.torch_step}, ""),
    ],
)
def test_a_pairs_mistake_is_named(changes: dict, named: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spec = system(others.pair("pytorch"), tmp_path)
    found = explain(others.pair("pytorch", **changes), spec, steps=1)
    assert found.verdict == ("named" if named else "rounding")
    assert named in "; ".join(trap.title for trap in found.traps)


def test_another_rate_of_sgd_than_the_files_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    given = others.pair("pytorch")
    own = [others.optimizer("pytorch", "nesterov", network) for network in given.parts[:2]]
    pair = type(given)(*given.parts[:2], *own, latent_shape=(6,))
    spec = system(pair, tmp_path)
    wanted = dataclasses.replace(spec.discriminator_optimizer, learning_rate=0.5)
    found = explain(pair, spec.replace(discriminator_optimizer=wanted), steps=1)
    titles = [trap.title for trap in found.traps]
    assert (found.verdict, titles) == (
        "named",
        ["discriminator learning rate: 0.125 instead of the spec's"],
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            ("generator", 0),
            r"generator, dense_1: the system has dense \(bias 64, kernel 6x64\)",
        ),
        (
            ("discriminator", 2),
            r"conv_2: .* 3x3x8x4\), the module calls conv \(kernel 3x3x8x8",
        ),
    ],
)
def test_another_architecture_is_a_line(place: tuple, message: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pair = others.pair("pytorch")
    system(pair, tmp_path)
    document = read_document(tmp_path / "mine.toml")
    network, number = place
    document[network]["layers"][number]["features"] //= 2
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(document))
    with pytest.raises(ValueError, match=message):
        pair.create(read_system(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"momentum": 0.5, "dampening": 0.1},
            "# its dampening = 0.1: no field holds it",
        ),
        ({"weight_decay": 0.2}, "# its weight_decay = 0.2: no field holds it"),
    ],
)
def test_what_no_file_can_say_of_an_optimizer_is_a_comment(options: dict, line: str) -> None:
    torch = pytest.importorskip("torch")
    given = others.pair("pytorch")
    own = torch.optim.SGD(given.parts[0].parameters(), 0.1, **options)
    pair = type(given)(*given.parts[:2], own, latent_shape=(6,))
    assert pair.system_file().count(line) == 1


def test_clipping_by_an_optimizer_is_read() -> None:
    keras = pytest.importorskip("keras")
    given = others.pair("tf")
    names = {
        "clipnorm": "clip_norm_of_each",
        "global_clipnorm": "clip_norm",
        "clipvalue": "clip_value",
    }
    for name, field in names.items():
        adam = keras.optimizers.Adam(2e-4, **{name: 0.5})
        pair = type(given)(*given.parts[:2], adam, latent_shape=(6,))
        optimizer, _ = pair.optimizers["generator"]
        assert (getattr(optimizer, field), optimizer.learning_rate) == (0.5, 2e-4)
        assert optimizer.clip_epsilon == (1e-6 if name == "clipvalue" else 0.0)


def test_another_kind_of_optimizer_than_the_files_is_a_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pair = others.pair("pytorch")
    spec = system(pair, tmp_path).replace(discriminator_optimizer=SGDSpec(0.5))
    message = (
        r"^discriminator: the system has SGDSpec\(.*0\.5.*, the module AdamSpec\(.*; correct one$"
    )
    with pytest.raises(ValueError, match=message):
        pair.create(spec)


def test_what_is_no_layer_is_reported(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pair = others.pair("pytorch", last=lambda x: torch.sin(x).repeat_interleave(2, 1))
    text = pair.system_file()
    assert "# (2, 8, 8, 3) becomes (2, 8, 8, 6): write how" in text
    assert "write what" in others.pair("pytorch", last=torch.sin).system_file()
    other_pixels = others.pair("pytorch", last=lambda x: torch.pixel_unshuffle(x, 2))
    assert "# (2, 8, 8, 3) becomes (2, 4, 4, 12): write how" in other_pixels.system_file()


def windows(x: np.ndarray, size: int) -> np.ndarray:
    """Return pixels [n, h, w, c] by windows: the axes 2 and 4 are those of a window."""
    n, h, w, c = x.shape
    return x.reshape(n, h // size, size, w // size, size, c)


def bent(x: np.ndarray, slope: float) -> np.ndarray:
    return np.where(x > 0.0, x, slope * x)


PIXELS = np.random.default_rng(0).standard_normal((2, 8, 8, 3))
AVERAGE, LEAKY = {"kind": "average_pool", "size": 2}, {"kind": "leaky_relu", "slope": 0.3}
UNKNOWN = "# (2, 8, 8, 3) becomes (2, 4, 4, 3): write how"


@pytest.mark.parametrize(
    ("made", "layers"),
    [
        (bent(windows(PIXELS, 2), 0.3).mean((2, 4)), [LEAKY, AVERAGE]),
        (bent(windows(PIXELS, 2), np.float32(0.3)).mean((2, 4)), [LEAKY, AVERAGE]),
        (bent(windows(PIXELS, 2).mean((2, 4)), 0.3), [AVERAGE, LEAKY]),
        (bent(windows(PIXELS, 4), 0.0).mean((2, 4)), [{"kind": "relu"}, AVERAGE | {"size": 4}]),
        (bent(windows(PIXELS, 2).max((2, 4)), 0.3), [{"kind": "max_pool", "size": 2}, LEAKY]),
        (PIXELS.mean((1, 2)), [AVERAGE | {"size": 8}, {"kind": "flatten"}]),
        (PIXELS.repeat(3, 1).repeat(3, 2), [{"kind": "upsample_nearest", "size": 3}]),
        (np.tanh(windows(PIXELS, 2)).mean((2, 4)), [UNKNOWN]),
        (PIXELS[:, ::2, ::2], [UNKNOWN]),
        (PIXELS[:, :5, :5], [UNKNOWN.replace("4", "5")]),
        (PIXELS.repeat(2, 1), [UNKNOWN.replace("(2, 4, 4", "(2, 16, 8")]),
    ],
)
def test_pools_that_are_functions_are_read_by_what_they_make(
    made: np.ndarray, layers: list
) -> None:
    assert _between(PIXELS, made) == layers


LABELS = 0.9, 0.5
"""What is wrong in the steps below: the label of real images, a factor of D's gradients."""


def wrong_step(g: Any, d: Any, g_own: Any, d_own: Any, real: Any, z: Any) -> tuple[float, ...]:
    """One step in PyTorch with mistakes of D's, and targets in float32, and so losses too."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    fake, ones = g(z), torch.ones(len(real), 1)
    halves = bce(d(real), LABELS[0] * ones), bce(d(fake.detach()), 0.0 * ones)
    d_own.zero_grad()
    (LABELS[1] * sum(halves)).backward()
    d_own.step()
    loss = bce(d(fake), ones)
    g_own.zero_grad()
    loss.backward()
    g_own.step()
    return halves[0].item(), halves[1].item(), loss.item()


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop"])
def test_gradients_are_judged_where_no_first_moments_hold_them(name: str, tmp_path: Path) -> None:
    """Nor does a step of one's own show them: second moments and parameters do."""
    pytest.importorskip("torch")
    given = others.pair("pytorch")
    own = [others.optimizer("pytorch", name, network) for network in given.parts[:2]]
    pair = type(given)(*given.parts[:2], *own, latent_shape=(6,), step=wrong_step)
    found = explain(pair, system(pair, tmp_path).replace(batch_size=4), steps=1)
    assert found.named == [
        "real label: 0.9 instead of 1",
        "discriminator gradient scale: 0.5 instead of 1",
        "it computes its losses in float32",
    ]
    assert (found.verdict, found.located) == ("named", [])
    # Of float32 what the others leave: one rounding of a number near 1, not the labels' difference.
    assert found.traps[-1].cost < 1e-6


PARTS_OF_A_STATE = (
    "generator",
    "discriminator",
    "generator_optimizer",
    "discriminator_optimizer",
)


@pytest.mark.parametrize("returned", [(1.0, 2.0), 1.0])
def test_a_step_that_returns_no_three_losses_is_a_line(returned: Any) -> None:
    pair = others.pair("pytorch", step=lambda *given: returned)
    expected = rf"^step\(\) returned {re.escape(repr(returned))}; expected three losses: of the"
    with pytest.raises(ValueError, match=expected):
        pair.own_step(SimpleNamespace(**dict.fromkeys(PARTS_OF_A_STATE)), None, None)


def test_a_state_is_of_copies_with_the_modules_own_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pair = others.pair("pytorch")
    spec, kernel = system(pair, tmp_path), "discriminator/conv_1/kernel"
    own = pair.parts[1][0].weight.detach().numpy().transpose(2, 3, 1, 0).copy()
    state = pair.create(spec, seed=5)
    np.testing.assert_array_equal(pair.export_state(state)[kernel], own)
    _, real, z = representative_inputs(spec, 0, "own")
    pair.train_step(state, real, z)
    assert not np.array_equal(pair.export_state(state)[kernel], own)
    np.testing.assert_array_equal(pair.export_state(pair.create(spec))[kernel], own)


def test_keras_in_float64_is_refused_where_it_would_round() -> None:
    keras = pytest.importorskip("keras")
    from tf_impl.module_pair import ModulePair

    image, layers = keras.Input((4, 4, 1)), keras.layers
    bilinear = keras.Sequential([image, layers.UpSampling2D(interpolation="bilinear")])
    plain = keras.Sequential([image, layers.LeakyReLU(0.3)])
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    for network, optimizer, what in (
        (plain, sgd, r"holds 0\.9"),
        (bilinear, None, "resizes images"),
    ):
        pair = ModulePair(network, plain, optimizer, latent_shape=(4, 4, 1))
        with pytest.raises(ValueError, match=rf"Keras {what}.* in float32; expected dtype float32"):
            pair.create(SYSTEMS["mlp28"], dtype="float64")
    # A slope is exact there, though Keras holds it in float32 too.
    x = np.full((1, 4, 4, 1), -1.0)
    with pair.computing_in("float64"):
        assert np.all(pair.run(pair.copied("float64")[1], x, False).numpy() == -0.3)
    # What a pair does in float64 leaves the user's own layers alone.
    pair.copied("float64")
    assert keras.layers.Dense(1).dtype == keras.config.floatx() == "float32"
