"""The losses of all three implementations against 50-digit arithmetic."""

import functools

import numpy as np
import pytest

from shared.fixtures import LOSS_FIELDS, LossCase, load_loss_cases
from shared.fixtures.exact_losses import exact_losses
from shared.interface import Implementation
from shared.reference.adapter import implementation as reference
from shared.reference.comparison import ulp_error
from shared.spec import LOSS_NAMES
from shared.studies.accuracy import sweep_scores
from tests.tiers import SLOW_IN_TF_AND_JAX

CASES = load_loss_cases()
DTYPES = ("float32", "float64")


def numpy_dtype(name: str) -> np.dtype:
    """Return a dtype of NumPy, or bfloat16 where ml_dtypes (of JAX and TensorFlow) is there."""
    return np.dtype(
        pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name,
    )


def failures(implementation: Implementation, case: LossCase, dtype: str) -> list[str]:
    """Return what is wrong with an implementation's answer to one case."""
    scores = tuple(x.astype(numpy_dtype(dtype)) for x in (case.real_scores, case.fake_scores))
    received = implementation.loss(case.loss, *scores, **case.labels)
    wrong = []
    for field in LOSS_FIELDS:
        array = np.asarray(getattr(received, field))
        is_gradient = field.endswith("gradient")
        shape = scores[0].shape if is_gradient else ()
        if array.shape != shape or array.dtype != scores[0].dtype:
            wrong.append(f"{case.id} {field}: {array.dtype}{array.shape}, expected {dtype}{shape}")
            continue
        own = [d for d in case.divergences if d["implementation"] == implementation.name]
        if declared := [float(d["observed"]) for d in own if field in d["fields"]]:
            if not np.array_equal(array.astype(np.float64), *declared, equal_nan=True):
                wrong.append(f"{case.id} {field}: {array} no longer diverges as {declared}")
            continue
        bound = case.tolerance["gradient" if is_gradient else "value"]
        floor = case.tolerance["gradient_floor"] if is_gradient else 0.0
        for i, (actual, truth) in enumerate(
            zip(np.atleast_1d(array), case.expected[field], strict=True)
        ):
            error = ulp_error(actual, truth, dtype, floor=floor)
            if error > bound:
                wrong.append(f"{case.id} {field}[{i}]: {actual!r} is {error:.3g} ULP off {bound}")
    return wrong


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_every_case_of_the_fixture(implementation: Implementation, loss: str, dtype: str) -> None:
    cases = [case for case in CASES if case.loss == loss]
    assert len(cases) >= 16
    wrong = [line for case in cases for line in failures(implementation, case, dtype)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_every_case_that_bfloat16_can_hold(implementation: Implementation, loss: str) -> None:
    dtype = numpy_dtype("bfloat16")
    cases = [
        case
        for case in CASES
        if case.loss == loss
        and all(
            np.array_equal(x.astype(dtype).astype(np.float64), x, equal_nan=True)
            for x in (case.real_scores, case.fake_scores)
        )
    ]
    assert len(cases) >= 5
    wrong = [line for case in cases for line in failures(implementation, case, "bfloat16")]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_the_reference_passes_every_case(loss: str) -> None:
    wrong = [x for c in CASES if c.loss == loss for x in failures(reference, c, "float64")]
    assert not wrong, "\n".join(wrong)


@functools.cache
def truth(loss: str, x: float) -> dict:
    return exact_losses(loss, {}, [x], [-x])


# Measured over the whole sweep in batches of one: at most 1.87 ULP (test_accuracy.py has the
# rest). A formula that cancels is off by 10⁷ ULP and more.
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=SLOW_IN_TF_AND_JAX)])
@pytest.mark.parametrize("loss", ["bce", pytest.param("minimax", marks=SLOW_IN_TF_AND_JAX)])
def test_hard_targets_to_two_ulp(implementation: Implementation, loss: str, dtype: str) -> None:
    for x in sweep_scores()[::5]:
        scores = np.array([x], dtype)
        received = implementation.loss(loss, scores, -scores)
        for field, expected in truth(loss, float(x)).items():
            actual = np.atleast_1d(getattr(received, field))[0]
            assert ulp_error(actual, expected[0], dtype) <= 2.0, (field, x, actual)


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize(
    "shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (4, 1)), ((), (4,)), ((0,), (4,))], ids=str
)
def test_misshapen_scores_are_refused(
    implementation: Implementation, loss: str, shapes: tuple
) -> None:
    """(4, 1) against (4,) would broadcast to (4, 4), with a plausible number as its mean."""
    real, fake = (np.full(shape, 0.5, np.float32) for shape in shapes)
    bad = shapes[0] if len(shapes[0]) != 1 or not shapes[0][0] else shapes[1]
    with pytest.raises(ValueError, match=r"scores must have shape \[batch\]") as raised:
        implementation.loss(loss, real, fake)
    assert f"received {bad}" in str(raised.value)


def test_an_unknown_loss_or_label_is_named(implementation: Implementation) -> None:
    scores = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="unknown loss 'hinge'; expected one of bce"):
        implementation.loss("hinge", scores, scores)
    with pytest.raises(TypeError, match="unexpected keyword argument 'smooth'"):
        implementation.loss("bce", scores, scores, smooth=0.9)


class Wrong:
    """An implementation with one planted fault."""

    name = "wrong"

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def loss(self, loss: str, real: np.ndarray, fake: np.ndarray, **labels: float) -> object:
        if self.fault == "swapped labels":
            real, fake = fake, real
        values = reference.loss(loss, real, fake, **labels)
        fields = {name: getattr(values, name) for name in LOSS_FIELDS}
        if self.fault == "sum instead of mean":
            fields["generator"] = fields["generator"] * len(fake)
        if self.fault == "one element of the gradient":
            fields["generator_fake_gradient"] = fields["generator_fake_gradient"] * np.where(
                np.arange(len(fake)) == len(fake) - 1, 1 + 1e-6, 1.0
            )
        dtype = np.float64 if self.fault == "float64" else np.float32
        shape = (-1, 1) if self.fault == "shape" else (-1,)
        arrays = {
            n: np.asarray(v, dtype).reshape(shape if np.ndim(v) else ()) for n, v in fields.items()
        }
        return type("Values", (), arrays)


@pytest.mark.parametrize(
    "fault",
    [
        "swapped labels",
        "sum instead of mean",
        "one element of the gradient",
        "float64",
        "shape",
    ],
)
def test_the_comparison_catches_a_planted_fault(fault: str) -> None:
    case = next(c for c in CASES if c.id == "bce/random/7")
    assert failures(Wrong("none"), case, "float32") == []  # type: ignore[arg-type]
    assert failures(Wrong(fault), case, "float32")  # type: ignore[arg-type]


def test_a_declared_divergence_that_is_gone_is_noticed() -> None:
    case = next(c for c in CASES if c.id == "bce/point/+inf")

    class Mended(Wrong):
        name = "tf"

    wrong = failures(Mended("none"), case, "float32")  # type: ignore[arg-type]
    assert any("no longer diverges" in line for line in wrong)
