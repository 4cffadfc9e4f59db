"""Two recordings: which tensors are taken for one another, and how their axes are arranged."""

from pathlib import Path

import numpy as np
import pytest

from shared.explain.recordings import explain_recordings, format_report
from shared.record import Recorder
from tests.explain.recorded_loops import fields, normal, pair_of

# --- matching ----------------------------------------------------------------------------------


def test_names_are_matched_exactly_then_alike_then_by_value(tmp_path: Path) -> None:
    a, b, c = normal(3, 4), normal(5, 2, seed=1), normal(4, 3, seed=2)
    report = pair_of(
        tmp_path,
        {"d/kernel": a, "G/bias": b, "w": c, "ones": np.ones(3), "more": normal(2, seed=9)},
        {"kernel_7": c.T, "module.g.bias": b, "d/kernel": a, "n1": np.ones(3), "n2": np.ones(3)},
    )
    found = {(p.one.name, p.two.name, p.matched_by, p.arrangement) for p in report.pairs}
    assert found == {
        ("d/kernel", "d/kernel", "name", "as it is"),
        ("G/bias", "module.g.bias", "similar name", "as it is"),
        ("w", "kernel_7", "value", "axes (1, 0)"),
    }
    # Three ones cannot be distinguished from three others, so nothing is guessed.
    assert report.findings == (
        "2 tensors of step 0 are in the first recording only: 'ones', 'more'",
        "2 tensors of step 0 are in the second recording only: 'n1', 'n2'",
    )


def test_two_candidates_by_value_are_not_guessed_at(tmp_path: Path) -> None:
    a = normal(6)
    report = pair_of(tmp_path, {"x": a}, {"y": a[::-1], "z": a})
    assert report.pairs == ()
    assert report.findings == (
        "one tensor of step 0 is in the first recording only: 'x'",
        "2 tensors of step 0 are in the second recording only: 'y', 'z'",
    )
    assert pair_of(tmp_path, {"x": a, "u": a}, {"y": a, "z": a}).pairs == ()
    assert "Nothing could be compared." in format_report(report)


def test_the_first_divergence_follows_the_recorded_order(tmp_path: Path) -> None:
    first = {name: normal(9, seed=i) for i, name in enumerate("zxya")}
    second = dict(reversed(first.items())) | {"y": first["y"] + 1, "a": first["a"] + 1}
    report = pair_of(tmp_path, first, second)
    assert [p.one.name for p in report.pairs] == ["z", "x", "y", "a"]
    assert report.first_difference == 2
    assert report.pairs[2].distance.largest == pytest.approx(1.0)


# --- arranging ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 3, 4, 4), (2, 3, 1, 0)), ((2, 3, 4, 5, 6), (4, 1, 0, 3, 2)), ((4, 4, 4), (2, 0, 1))],
)
def test_an_order_of_axes_is_found_by_value(tmp_path: Path, shape: tuple, axes: tuple) -> None:
    second = normal(*shape)
    report = pair_of(tmp_path, {"w": second.transpose(axes)}, {"w": second})
    assert report.first_difference is None
    assert report.pairs[0].arrangement == f"axes {axes}"
    assert report.pairs[0].notes == ()


def test_orders_that_fit_equally_are_reported(tmp_path: Path) -> None:
    half = normal(4, 4)
    report = pair_of(tmp_path, {"w": half + half.T}, {"w": half + half.T})
    assert report.first_difference is None
    assert "2 orders of the axes fit equally: as it is; axes (1, 0)" in report.pairs[0].notes


def test_axes_of_one_number_are_not_several_orders(tmp_path: Path) -> None:
    kernel = normal(1, 1, 6, 5)
    report = pair_of(tmp_path, {"w": kernel}, {"w": kernel.transpose(3, 2, 0, 1)})
    assert (report.first_difference, report.pairs[0].notes) == (None, ())


def test_steps_of_one_size_show_no_order(tmp_path: Path) -> None:
    """As a bias after Adam's first update from 0; refolding 2 x 2 would make them the same."""
    first = 2e-4 * np.array([1.0, 1.0, -1.0, 1.0])
    report = pair_of(tmp_path, {"b": first}, {"b": first[[0, 2, 1, 3]]})
    assert (report.first_difference, report.pairs[0].arrangement) == (0, "as it is")


def test_an_order_of_axes_is_found_for_other_numbers_too(tmp_path: Path) -> None:
    second = normal(6, 5, 4, 4)
    report = pair_of(tmp_path, {"w": 3.0 * second.transpose(2, 3, 1, 0) + 0.5}, {"w": second})
    assert report.pairs[0].arrangement == "axes (2, 3, 1, 0)"
    assert report.first_difference == 0


def test_unrelated_numbers_are_compared_as_they_are_and_that_is_reported(tmp_path: Path) -> None:
    report = pair_of(tmp_path, {"w": normal(4, 4)}, {"w": normal(4, 4, seed=1)})
    assert report.pairs[0].arrangement == "as it is"
    assert "2 orders of the axes fit the shapes, none the values" in report.pairs[0].notes[0]


def test_a_kernel_turned_round_is_found_and_no_trap_where_the_outputs_agree(tmp_path: Path) -> None:
    kernel, output = normal(4, 4, 2, 3), normal(7)
    turned = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
    report = pair_of(tmp_path, {"w/kernel": kernel, "y": output}, {"w/kernel": turned, "y": output})
    assert report.pairs[0].arrangement == "axes (2, 3, 1, 0), axes (0, 1) flipped"
    assert report.traps == ()
    wrong = {"w/kernel": turned, "y": output + 1}
    assert fields(pair_of(tmp_path, {"w/kernel": kernel, "y": output}, wrong)) == {"conv_kernel"}


def test_a_kernel_turned_round_whose_layer_has_agreed_once_is_right(tmp_path: Path) -> None:
    """What differs later, in most steps, has another reason: an update before it."""
    kernel, output = normal(4, 4, 2, 3), normal(7)

    def recorded(path: Path, turned: bool, drifts: float) -> Path:
        with Recorder(path) as record:
            for step in range(4):
                own = kernel + drifts * step
                own = own[::-1, ::-1].transpose(3, 2, 0, 1) if turned else own
                record("w/kernel", own)
                record.step()
                record("w/output", output + drifts * step)
        return path

    first = recorded(tmp_path / "a.safetensors", False, 0.0)
    assert explain_recordings(first, recorded(tmp_path / "b.safetensors", True, 1.0)).traps == ()


def test_gradient_and_moments_lie_as_their_kernel_does(tmp_path: Path) -> None:
    """Flax stores the kernel of a transposed convolution flipped, with all that is its own."""
    names = ("w/kernel", "w/kernel/gradient", "w/kernel/m", "w/kernel/v")
    first = {name: normal(4, 4, 3, 2, seed=seed) for seed, name in enumerate(names)}
    second = {name: array[::-1, ::-1].transpose(3, 2, 0, 1) for name, array in first.items()}
    layouts = {"first": dict.fromkeys(names, "HWIO"), "second": dict.fromkeys(names, "OIHW")}
    report = pair_of(tmp_path, first, second, **layouts)
    assert all(pair.agrees for pair in report.pairs)
    assert report.traps == ()


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_in_chw_order_are_found_in_a_dense_kernel(tmp_path: Path, axis: int) -> None:
    hwc = normal(4, 4, 8, 3)
    chw = hwc.transpose(2, 0, 1, 3).reshape(128, 3)
    first, second = hwc.reshape(128, 3), chw
    if axis == 1:
        first, second = first.T, second.T
    report = pair_of(tmp_path, {"w": first}, {"w": second})
    text = f"axis {axis} runs over 8 x 16 there (CHW), 16 x 8 here (HWC)"
    assert report.pairs[0].arrangement == text
    assert report.traps == ()
    # PyTorch's dense kernel is (out, in) as well.
    report = pair_of(tmp_path, {"w": first}, {"w": second.T})
    assert report.pairs[0].arrangement == f"axes (1, 0), {text}"


def test_a_flattened_image_is_matched_to_the_image(tmp_path: Path) -> None:
    images = normal(2, 3, 4, 5)
    flat = images.transpose(0, 3, 1, 2).reshape(2, 60)
    for first, second in ((images, flat), (flat, images)):
        report = pair_of(tmp_path, {"x": first}, {"x": second})
        assert report.first_difference is None
        assert report.pairs[0].arrangement.startswith("axes (0, 3, 1, 2)")


def test_scores_with_an_axis_of_one_are_compared(tmp_path: Path) -> None:
    scores = normal(8)
    report = pair_of(tmp_path, {"x": scores}, {"x": scores[:, None] * 1.5})
    assert report.pairs[0].distance.relative == pytest.approx(0.5)


def test_shapes_that_do_not_fit_are_reported(tmp_path: Path) -> None:
    report = pair_of(tmp_path, {"x": normal(8)}, {"x": normal(9)})
    assert report.first_difference == 0
    assert "shapes (8,) and (9,) do not fit" in report.pairs[0].notes
    assert "cannot be compared" in format_report(report)


def test_an_arrangement_once_found_is_kept_where_the_numbers_diverge(tmp_path: Path) -> None:
    hwc = normal(128, 3)
    chw = hwc.reshape(4, 4, 8, 3).transpose(2, 0, 1, 3).reshape(128, 3)
    layouts = {"first": {"w": "IO", "w/m": "IO"}, "second": {"w": "OI", "w/m": "OI"}}
    arrays = {"w": hwc, "w/m": hwc}, {"w": chw.T, "w/m": 1.5 * chw.T}
    pair = pair_of(tmp_path, *arrays, **layouts).pairs[1]
    assert pair.distance.relative == pytest.approx(0.5)
    assert pair.arrangement == "OI as IO, axis 0 runs over 8 x 16 there (CHW), 16 x 8 here (HWC)"


def test_a_later_pass_is_arranged_as_the_first(tmp_path: Path) -> None:
    hwc = normal(3, 128)
    chw = hwc.reshape(3, 4, 4, 8).transpose(0, 3, 1, 2).reshape(3, 128)
    names = "d/dense/input", "d/dense/input/3"
    first, second = dict.fromkeys(names, hwc), dict(zip(names, (chw, 1.5 * chw), strict=True))
    pair = pair_of(tmp_path, first, second).pairs[1]
    assert pair.distance.relative == pytest.approx(0.5)


def test_an_arrangement_is_kept_for_the_same_shapes_alone(tmp_path: Path) -> None:
    kernel, flat = normal(3, 4), normal(12, seed=1)
    report = pair_of(tmp_path, {"w": kernel, "w/m": flat}, {"w": kernel.T, "w/m": 1.5 * flat})
    assert [p.arrangement for p in report.pairs] == ["axes (1, 0)", "as it is"]
    assert report.pairs[1].distance.relative == pytest.approx(0.5)
