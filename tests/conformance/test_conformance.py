"""The cases of the conformance kit: the reference passes them, every trap fails one."""

import functools
import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from shared.conformance import cases
from shared.conformance.cases import Problem, cases_of, selected
from shared.conformance.problems import EPSILONS, MAGNITUDES, all_problems, start_points
from shared.conformance.serve import Server
from shared.conformance.verdicts import Result, counts, decide
from shared.explain.probes import kink_margin
from shared.fixtures.network import KINK_MARGIN, load_network_fixture
from shared.interface import Implementation
from shared.reference.adapter import ReferenceImplementation
from shared.reference.network import forward
from shared.spec import Conventions
from shared.spec.layers import Initializer, Parameter
from shared.spec.streams import stream
from shared.studies.trajectory import BOUNDS
from tests.implementations import test_adam, test_models, test_systems
from tests.reference.test_conventions import CASES as DEVIATIONS
from tests.tiers import EAGER_TENSORFLOW, one_in

DTYPES = ("float64", "float32")


@functools.cache
def in_float64() -> tuple[Problem, ...]:
    """Return the problems that the reference, which knows no float32, can be asked."""
    return tuple(selected(all_problems(), ["*/float64", "*/float64/*"]))


def results(conventions: Conventions) -> list[Result]:
    server = Server(ReferenceImplementation(conventions))
    with np.errstate(all="ignore"):  # a wrong convention may divide by 0
        return decide(in_float64(), server, {})


def counts_until(enough: int, conventions: Conventions) -> dict[str, int]:
    """Decide one problem after another, the cheapest systems first, until enough cases fail."""
    server, found = Server(ReferenceImplementation(conventions)), []
    with np.errstate(all="ignore"):
        for problem in reversed(in_float64()):
            found += decide([problem], server, {})
            if counts(found)["fail"] >= enough:
                break
    return counts(found)


def test_ids_are_unique_and_as_documented() -> None:
    identifiers = [case.id for case in cases_of(all_problems())]
    assert len(identifiers) == len(set(identifiers))
    kinds = Counter(identifier.split("/")[0] for identifier in identifiers)
    assert kinds == {"loss": 980, "adam": 216, "create": 266, "network": 235, "step": 697}
    for identifier in (
        "loss/bce/point/+inf/float32/discriminator",
        "adam/mid-training/epsilon-1e-08/float64/update-8/parameter",
        "adam/ten-updates/epsilon-0.001/float32/update-10/v",
        "create/conv28/float64/generator/dense_1/kernel",
        "network/dcgan64/generate/inference/float32",
        "network/mlp28/unmoved/float64",
        "network/dcgan64-lsgan/gradients/float64/discriminator/conv_1/kernel",
        "step/mlp28-algorithm-1/float64/generator_loss",
        "step/conv28/float32/generator_optimizer/step",
    ):
        assert identifier in identifiers, identifier


def test_the_reference_passes_everything() -> None:
    found = results(Conventions())
    wrong = [f"{r.case.id}: {r.verdict}: {r.message}" for r in found if r.verdict != "pass"]
    assert not wrong, "\n".join(wrong)
    assert len(found) == 1225


@EAGER_TENSORFLOW
@pytest.mark.slow
def test_every_implementation_here_conforms(implementation: Implementation) -> None:
    """On two of the systems, for the time that JAX compiles; docs/conformance.md has them all."""
    problems = selected(all_problems(), ["loss/*", "*/dcgan64/*", "*/mlp28/*"])
    found = decide(problems, Server(implementation), {})
    wrong = [(r.case.id, r.message) for r in found if r.verdict in ("fail", "errored")]
    assert not wrong, wrong[:5]
    count = counts(found)
    assert count["divergent as declared"] == (14 if implementation.name == "tf" else 0)
    assert count["pass"] + count["divergent as declared"] == len(found) > 1400


@pytest.mark.parametrize(("field", "value"), one_in(29, DEVIATIONS))
def test_every_trap_fails_a_case(field: str, value: object) -> None:
    """The kit sees every deviation of test_conventions.py; none is out of its sight."""
    # Batch statistics at inference: the two networks of the three systems with BN.
    enough = 6 if field == "batch_norm_passes" else 10
    clipped = (
        {"gradient_clipping": "norm"} if field == "gradient_clip" else {}
    )  # else it does nothing
    found = counts_until(enough, Conventions().replace(**clipped, **{field: value}))
    assert found["fail"] >= enough, found
    assert not found["errored"]


@pytest.mark.parametrize(
    "fault",
    [
        {"leaky_relu_slope": float(np.float32(0.2))},
        {"adam_beta2": float(np.float32(0.999))},
        {"discriminator_step_offset": -1},
    ],
    ids=str,
)
def test_smaller_faults_fail_a_case(fault: dict) -> None:
    """What went through float32, and an update of several that is left out."""
    problems = in_float64()
    if "discriminator_step_offset" in fault:  # needs a system that makes two
        problems = selected(problems, ["*/mlp28-algorithm-1/*"])
    found = counts(decide(problems, Server(ReferenceImplementation(Conventions(**fault))), {}))
    assert found["fail"] >= 10, found


class Careless(ReferenceImplementation):
    """One mistake that no convention describes."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake

    def generate(self, state: Any, latents: np.ndarray, *, training: bool = False) -> np.ndarray:
        if self.mistake == "forward passes move statistics" and training:
            state.arrays["generator/batch_norm_1/mean"] += 1e-3
        return super().generate(state, latents, training=training)

    def gradients(self, state: Any, real: np.ndarray, latents: np.ndarray) -> dict:
        found = super().gradients(state, real, latents)
        if self.mistake == "a gradient too many":
            found["generator/batch_norm_1/mean"] = np.zeros(3)
        if self.mistake == "a gradient too few":
            del found["generator/conv_transpose_1/kernel"]
        return found

    def create(self, spec: Any, *, seed: int = 0, dtype: str = "float64") -> Any:
        state = super().create(spec, seed=seed, dtype=dtype)
        if self.mistake == "moments that are not fresh":
            state.arrays["generator_optimizer/conv_transpose_1/kernel/m"] += 1e-3
        return state

    def export_state(self, state: Any) -> dict:
        found = super().export_state(state)
        if self.mistake == "counters as float64":
            found["generator_optimizer/step"] = found["generator_optimizer/step"].astype(float)
        return found


@pytest.mark.parametrize(
    ("mistake", "identifier"),
    [
        ("forward passes move statistics", "network/dcgan64/unmoved/float64"),
        ("a gradient too many", "network/dcgan64/gradients/float64/unexpected-arrays"),
        (
            "a gradient too few",
            "network/dcgan64/gradients/float64/generator/conv_transpose_1/kernel",
        ),
        ("moments that are not fresh", "create/dcgan64/float64/used-moments"),
        ("counters as float64", "step/dcgan64/float64/generator_optimizer/step"),
    ],
)
def test_other_mistakes_fail_the_case_that_looks_for_them(mistake: str, identifier: str) -> None:
    problems = selected(in_float64(), ["*/dcgan64/*"])
    found = decide(problems, Server(Careless(mistake)), {})
    assert [r.case.id for r in found if r.verdict == "fail"] == [identifier]


def test_the_bounds_are_those_of_this_repositorys_own_tests() -> None:
    for dtype in DTYPES:
        assert cases.bound_of("forward", dtype).limit == test_models.FORWARD[dtype]
        assert cases.bound_of("metrics", dtype).limit == test_models.METRICS[dtype]
        assert cases.bound_of("drift", dtype).limit == BOUNDS[dtype].drift
        for architecture, found in test_systems.GRADIENT_BOUNDS.items():
            assert cases.bound_of("gradients", dtype, architecture).limit == found[dtype]
        for architecture, found in test_systems.STATE_BOUNDS.items():
            assert cases.bound_of("state", dtype, architecture).limit == found[dtype]
    assert cases.bound_of("adam", "float64").limit == test_adam.BOUNDS["float64"]
    assert cases.bound_of("adam", "float32").limit == test_adam.FIRST_BOUND
    assert EPSILONS == test_adam.EPSILONS
    assert (MAGNITUDES[0], MAGNITUDES[-1]) == (1e-9, 1.0)


def test_every_case_has_a_bound_with_a_derivation() -> None:
    for case in cases_of(all_problems()):
        assert case.bound.limit >= 0.0
        assert len(case.bound.derivation) > 20, case.id


# --- where the network cases start ------------------------------------------------------------


def test_every_start_point_of_float32_is_clear_of_kinks() -> None:
    margins = {
        name: kink_margin(point.spec, point.arrays, point.real_images, point.latents)
        for name, point in start_points().items()
        if "float32" in point.dtypes
    }
    assert set(margins) == {"dcgan64", "dcgan64-lsgan", "conv28", "mlp28"}
    assert min(margins.values()) >= KINK_MARGIN, margins
    for name, point in start_points().items():
        for array in (point.real_images, point.latents):
            assert np.array_equal(array.astype(np.float32), array), name


def test_dcgan64_starts_from_the_fixture() -> None:
    fixture, point = load_network_fixture(), start_points()["dcgan64"]
    assert point.spec == fixture.spec
    for name, truth in fixture.gradients.items():
        np.testing.assert_allclose(point.step.gradients[name], truth, rtol=1e-9, atol=1e-12)
    run = forward(
        point.spec, "generator", point.arrays, point.latents, Conventions(), training=True
    )
    np.testing.assert_allclose(run.output, fixture.generator_activations["tanh_5"], rtol=1e-10)


def test_one_channel_of_dcgan64_lsgan_is_exactly_at_the_kink() -> None:
    point = start_points()["dcgan64-lsgan"]
    c = Conventions()
    run = forward(point.spec, "discriminator", point.arrays, point.real_images, c, training=True)
    assert not run.activations["conv_1"][..., 0].any()


# --- measures ---------------------------------------------------------------------------------

DISTRIBUTIONS = {
    "normal": lambda draw, n: draw.normal(0.0, 0.02, n),
    "uniform": lambda draw, n: draw.uniform(-0.02, 0.02, n),
    "truncated_normal": lambda draw, n: np.array(
        [x for x in draw.normal(0.0, 0.02, 2 * n) if abs(x) <= 0.04][:n]
    ),
}


@pytest.mark.parametrize("drawn", DISTRIBUTIONS)
@pytest.mark.parametrize("expected", DISTRIBUTIONS)
def test_kolmogorov_tells_distributions_apart(drawn: str, expected: str) -> None:
    numbers = DISTRIBUTIONS[drawn](stream(1, "test"), 20_000)
    parameter = Parameter("kernel", numbers.shape, Initializer(expected, 0.0, 0.02), 1)
    error = cases.kolmogorov(numbers.astype(np.float32), parameter)
    assert (error <= cases.KOLMOGOROV.limit) == (drawn == expected), error


@pytest.mark.parametrize(("distribution", "support"), [("truncated_normal", 2.0), ("uniform", 1.0)])
def test_one_number_outside_the_support_fails(distribution: str, support: float) -> None:
    """As where a normal distribution was not cut, among too few numbers to tell otherwise."""
    parameter = Parameter("kernel", (3,), Initializer(distribution, 0.0, 0.02), 1)
    measure = functools.partial(cases.kolmogorov, truth=parameter)
    edge = np.float32(support * 0.02)
    assert measure(np.array([-edge, 0.0, edge])) < cases.KOLMOGOROV.limit
    assert measure(np.array([-edge, 0.0, 1.01 * edge])) == np.inf


def test_kolmogorov_by_its_definition() -> None:
    """The largest distance of the sample's steps from Φ, by the error function."""
    numbers = stream(2, "test").normal(1.0, 0.02, 500)
    parameter = Parameter("scale", (500,), Initializer("normal", 1.0, 0.02), 1)
    law = [0.5 * math.erfc((1.0 - x) / (0.02 * math.sqrt(2.0))) for x in np.sort(numbers)]
    above = max((i + 1) / 500 - phi for i, phi in enumerate(law))
    below = max(phi - i / 500 for i, phi in enumerate(law))
    expected = max(above, below) * 500**0.5
    assert cases.kolmogorov(numbers, parameter) == pytest.approx(expected, rel=1e-12)


def test_the_worst_number_of_an_array_counts() -> None:
    actual, truth = np.array([1.0, 1.0 + 3 * 2.0**-52, 1.0]), np.array([Fraction(1)] * 3)
    assert cases.ulp(actual, truth, dtype="float64") == 3.0


def test_an_error_beyond_every_float_is_infinite() -> None:
    truth = np.array([Fraction(1, 10**300)])
    assert cases.ulp(np.array([1e300]), truth, dtype="float64") == np.inf
