"""Every comparison helper catches a planted fault, and says which, where and by how much."""

import math
from fractions import Fraction

import numpy as np
import pytest

from shared.reference.comparison import relative_l2, ulp_error, worst_element
from tests.comparison import MismatchError, require_close, require_same_kind


def test_relative_l2_by_hand() -> None:
    assert relative_l2(np.array([3.0, 4.0]), np.array([3.0, 4.0])) == 0.0
    assert relative_l2(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    assert relative_l2(np.zeros(2), np.zeros(2)) == 0.0
    assert relative_l2(np.ones(2), np.zeros(2)) == math.inf


def test_errors_of_opposite_sign_do_not_cancel() -> None:
    assert relative_l2(np.array([1.1, 0.9]), np.array([1.0, 1.0])) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_never_pass(bad: float) -> None:
    values = np.array([1.0, bad])
    assert math.isnan(relative_l2(values, np.ones(2)))
    for actual, expected in ((values, np.ones(2)), (np.ones(2), values), (values, values)):
        with pytest.raises(MismatchError, match=r"worst element \(1,\)"):
            require_close("x", actual, expected, bound=1e9, dtype="float64")


def test_shape_comes_before_dtype_before_values() -> None:
    expected = np.ones((4, 1))
    with pytest.raises(MismatchError, match=r"x: shape \(4,\), expected \(4, 1\)"):
        require_close("x", np.zeros(4, np.float32), expected, bound=1.0, dtype="float64")
    with pytest.raises(MismatchError, match="x: dtype float32, expected float64"):
        require_close("x", np.zeros((4, 1), np.float32), expected, bound=1.0, dtype="float64")
    with pytest.raises(MismatchError, match="dtype float64, expected int64"):
        require_same_kind("step", np.array(1.0), (), "int64")


def test_a_planted_fault_is_caught_with_its_place() -> None:
    expected = np.arange(1.0, 13.0).reshape(3, 4)
    actual = expected.copy()
    actual[1, 2] *= 1 + 1e-6
    assert require_close("x", actual, expected, bound=1e-6, dtype="float64") < 1e-6
    with pytest.raises(
        MismatchError, match=r"worst element \(1, 2\): received 7.00000[67]"
    ) as raised:
        require_close("x", actual, expected, bound=1e-8, dtype="float64")
    assert "bound 1e-08" in str(raised.value)
    assert worst_element(actual, expected).startswith("worst element (1, 2)")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [1.0, 1.5, 0.1, 3e-7, 1e20, -2.0])
def test_one_ulp_is_the_distance_to_the_next_number(value: float, dtype: str) -> None:
    number = np.array(value, dtype)[()]
    beyond = np.nextafter(number, number * 2)
    assert ulp_error(number, Fraction(float(number)), dtype) == 0.0
    assert ulp_error(beyond, Fraction(float(number)), dtype) == 1.0
    half = (Fraction(float(number)) + Fraction(float(beyond))) / 2
    assert ulp_error(number, half, dtype) == 0.5


def test_ulp_of_numbers_that_are_not_finite() -> None:
    inf, nan = math.inf, math.nan
    assert ulp_error(inf, inf, "float32") == 0.0
    assert ulp_error(nan, nan, "float32") == 0.0
    for actual, expected in ((-inf, inf), (nan, inf), (1.0, inf), (1.0, nan)):
        assert ulp_error(actual, expected, "float32") == inf
    for actual in (inf, nan):
        assert ulp_error(actual, Fraction(1), "float32") == inf


def test_only_near_the_smallest_normal_number_may_a_result_be_flushed() -> None:
    tiny = float(np.finfo(np.float32).tiny)
    assert ulp_error(0.0, Fraction(tiny), "float32") == 0.0
    assert ulp_error(tiny, Fraction(tiny) * 3, "float32") == 0.0
    assert ulp_error(0.0, Fraction(tiny) * 5 / 2, "float32") > 1e6
    assert ulp_error(0.0, Fraction(tiny) * 5, "float32") > 1e6
    assert ulp_error(0.0, Fraction(tiny), "float64") > 1e6


def test_a_floor_widens_the_unit() -> None:
    eps = np.finfo(np.float32).eps.item()
    assert ulp_error(eps, Fraction(0), "float32", floor=1.0) == 1.0
    assert ulp_error(1 + eps, Fraction(1), "float32", floor=1e-3) == 1.0
