"""Explaining two recordings: right pairs are accused of nothing, planted traps are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.explain.recordings import (
    BOUNDS,
    RecordingReport,
    explain_recordings,
    format_report,
)
from shared.record import Recorder, RecordingError
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions, SystemSpec, optimizer_name
from shared.streams import initial_state, latents, stream

SPEC = SYSTEMS["dcgan64"].replace(width=2, latent_dim=6, batch_size=4)
STEPS = 2
Arrays = dict[str, np.ndarray]
Written = tuple[int, str, np.ndarray]


def run(conventions: Conventions, *, spec: SystemSpec = SPEC, seed: int = 0) -> list[Written]:
    """Return what a training loop of the reference would record, in the order of computation."""
    # Kernels larger than fresh ones, so that the statistics of a batch are of order 1.
    fresh = initial_state(spec, seed).items()
    arrays = {n: 10.0 * a if n.endswith("/kernel") else a for n, a in fresh}
    written = [(0, name, a) for name, a in state(spec, arrays).items()]
    for step in range(1, STEPS + 1):
        draw = stream(seed, "recorded images", step)
        real = draw.uniform(*spec.image_range, (spec.batch_size, *spec.image_shape))
        z = latents(spec, seed, step, spec.batch_size)
        passed = forward(spec, "generator", arrays, z, conventions, training=True)
        made = train_step(spec, arrays, real, z, conventions)
        arrays = made.arrays
        found = {"real_images": real, "latents": z} | layers(spec, passed.activations)
        found |= {name: np.array(value) for name, value in made.metrics.items()}
        found |= {f"{name}/gradient": g for name, g in made.gradients.items()}
        written += [(step, name, a) for name, a in (found | state(spec, arrays)).items()]
    return written


def layers(spec: SystemSpec, activations: Arrays) -> Arrays:
    """Return input and output of every layer with parameters of the generator."""
    found: Arrays = {}
    before = None
    for layer in spec.layers("generator"):
        if layer.parameters and before is not None:
            found[f"generator/{layer.name}/input"] = activations[before]
            found[f"generator/{layer.name}/output"] = activations[layer.name]
        before = layer.name
    return found


def state(spec: SystemSpec, arrays: Arrays) -> Arrays:
    """Return parameters and statistics, with Adam's moments under the parameters' names."""
    found = {n: a for n, a in arrays.items() if "_optimizer/" not in n}
    for network in ("generator", "discriminator"):
        for name, parameter in spec.parameters(network).items():
            if parameter.trainable:
                found |= {f"{name}/{x}": arrays[optimizer_name(name, x)] for x in ("m", "v")}
    return found


def as_pytorch_has_it(name: str, array: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Return an array in PyTorch's axes, and their layout."""
    if array.ndim != 4:
        return array, None
    if "kernel" in name:
        transposed = "conv_transpose" in name
        return array.transpose(3, 2, 0, 1), "IOHW" if transposed else "OIHW"
    return array.transpose(0, 3, 1, 2), "NCHW"


def own_layout(name: str, array: np.ndarray) -> str | None:
    if array.ndim != 4:
        return None
    if "kernel" in name:
        return "HWOI" if "conv_transpose" in name else "HWIO"
    return "NHWC"


def write(path: Path, written: list[Written], **how: object) -> Path:
    """Write a recording: in NHWC, or as PyTorch would, with or without layouts, in a dtype."""
    declared, pytorch = bool(how.get("declared")), bool(how.get("pytorch"))
    noise, rename = how.get("noise", 0.0), how.get("rename", lambda name: name)
    draw = np.random.default_rng(5)
    last = 0
    with Recorder(path, framework="pytorch" if pytorch else "jax") as record:
        for step, name, array in written:
            for _ in range(step - last):
                record.step()
            last = step
            layout = own_layout(name, array)
            if pytorch:
                array, layout = as_pytorch_has_it(name, array)
            array = array * (1.0 + noise * draw.standard_normal(array.shape))
            array = np.asarray(array, how.get("dtype", "float64"))
            record(rename(name), array, layout=layout if declared else None)
    return path


def explained(
    tmp_path: Path, first: list[Written], second: list[Written], **how: object
) -> RecordingReport:
    declared = how.setdefault("declared", True)
    own = {k: v for k, v in how.items() if k == "dtype"}
    a = write(tmp_path / "a.safetensors", first, declared=declared, **own)
    return explain_recordings(a, write(tmp_path / "b.safetensors", second, **how))


def fields(report: RecordingReport) -> set[str | None]:
    return {trap.field for trap in report.traps}


@pytest.mark.parametrize("declared", [True, False], ids=["layouts declared", "layouts found"])
@pytest.mark.parametrize("seed", range(20))
def test_a_right_pair_is_accused_of_nothing(tmp_path: Path, seed: int, declared: bool) -> None:
    written = run(Conventions(), seed=seed)
    dtype, noise = (("float64", 1e-15), ("float32", 1e-7))[seed % 2]
    report = explained(
        tmp_path, written, written, pytorch=True, declared=declared, dtype=dtype, noise=noise
    )
    assert len(report.pairs) == len(written)
    assert report.parting is None
    assert report.traps == ()
    assert report.unmatched == ()


# Every deviation of the reference that these recordings can show, and what must be named.
TRAPS = {
    "batch_norm_epsilon": 1e-3,
    "batch_norm_momentum": 0.9,
    "batch_norm_running_variance": "biased",
    "batch_norm_statistics": "never",
    "conv_transpose_kernel": "flipped",
    "padding_alignment": "before",
    "loss_reduction": "sum",
    "adam_beta1": 0.9,
    "adam_beta2": 0.99,
    "adam_epsilon_placement": "before_correction",
    "adam_bias_correction": False,
    "adam_epsilon": 1e-3,
    "generator_learning_rate": 1e-3,
}


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("field", TRAPS)
def test_a_planted_trap_is_named(tmp_path: Path, field: str, dtype: str, side: str) -> None:
    right, wrong = run(Conventions()), run(Conventions().replace(**{field: TRAPS[field]}))
    pair = (wrong, right) if side == "first" else (right, wrong)
    report = explained(tmp_path, *pair, pytorch=True, dtype=dtype)
    if field == "adam_epsilon_placement" and dtype == "float32":
        # The gradients are far above epsilon: float32's rounding may hide the place, not turn it.
        assert fields(report) <= {field}
        return
    named = [trap for trap in report.traps if trap.field == field]
    assert len(named) == 1, format_report(report)
    value = named[0].first if side == "first" else named[0].second
    assert value == str(TRAPS[field])
    assert fields(report) == {field}, format_report(report)


def pair_of(tmp_path: Path, a: Arrays, b: Arrays, /, **layouts: dict[str, str]) -> RecordingReport:
    """Explain two recordings of one step."""
    for name, arrays in (("first", a), ("second", b)):
        with Recorder(tmp_path / name, framework="numpy") as record:
            for key, array in arrays.items():
                record(key, array, layout=layouts.get(name, {}).get(key))
    return explain_recordings(tmp_path / "first", tmp_path / "second")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --- matching ----------------------------------------------------------------------------------


def test_names_are_matched_exactly_then_alike_then_by_value(tmp_path: Path) -> None:
    a, b, c = normal(3, 4), normal(5, 2, seed=1), normal(4, 3, seed=2)
    report = pair_of(
        tmp_path,
        {"d/kernel": a, "G/bias": b, "w": c, "ones": np.ones(3), "more": normal(2, seed=9)},
        {"kernel_7": c.T, "module.g.bias": b, "d/kernel": a, "n1": np.ones(3), "n2": np.ones(3)},
    )
    found = {(p.first, p.second, p.matched_by, p.arrangement) for p in report.pairs}
    assert found == {
        ("d/kernel", "d/kernel", "name", "as it is"),
        ("G/bias", "module.g.bias", "similar name", "as it is"),
        ("w", "kernel_7", "value", "axes (1, 0)"),
    }
    # Three ones are not told apart from three others, so nothing is guessed.
    assert len(report.unmatched) == 4
    assert any("'more' of step 0 is in the first recording only" in t for t in report.unmatched)


def test_two_candidates_by_value_are_not_guessed_at(tmp_path: Path) -> None:
    a = normal(6)
    report = pair_of(tmp_path, {"x": a}, {"y": a[::-1], "z": a})
    assert report.pairs == ()
    assert "it could be any of: 'y', 'z'" in report.unmatched[0]
    assert "Nothing could be compared." in format_report(report)


def test_the_first_point_of_parting_follows_the_recorded_order(tmp_path: Path) -> None:
    first = {name: normal(9, seed=i) for i, name in enumerate("zxya")}
    second = dict(reversed(first.items())) | {"y": first["y"] + 1, "a": first["a"] + 1}
    report = pair_of(tmp_path, first, second)
    assert [p.first for p in report.pairs] == ["z", "x", "y", "a"]
    assert report.parting == 2
    assert report.pairs[2].max_abs == pytest.approx(1.0)


# --- arranging ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 3, 4, 4), (2, 3, 1, 0)), ((2, 3, 4, 5, 6), (4, 1, 0, 3, 2)), ((4, 4, 4), (2, 0, 1))],
)
def test_an_order_of_axes_is_found_by_value(tmp_path: Path, shape: tuple, axes: tuple) -> None:
    second = normal(*shape)
    report = pair_of(tmp_path, {"w": second.transpose(axes)}, {"w": second})
    assert report.parting is None
    assert report.pairs[0].arrangement == f"axes {axes}"
    assert report.pairs[0].notes == ()


def test_orders_that_fit_equally_are_said_to(tmp_path: Path) -> None:
    half = normal(4, 4)
    report = pair_of(tmp_path, {"w": half + half.T}, {"w": half + half.T})
    assert report.parting is None
    assert "2 orders of the axes fit equally: as it is; axes (1, 0)" in report.pairs[0].notes


def test_axes_of_one_number_are_not_several_orders(tmp_path: Path) -> None:
    kernel = normal(1, 1, 6, 5)
    report = pair_of(tmp_path, {"w": kernel}, {"w": kernel.transpose(3, 2, 0, 1)})
    assert (report.parting, report.pairs[0].notes) == (None, ())


def test_steps_of_one_size_show_no_order(tmp_path: Path) -> None:
    """As a bias after Adam's first update from 0; refolding 2 x 2 would make them the same."""
    first = 2e-4 * np.array([1.0, 1.0, -1.0, 1.0])
    report = pair_of(tmp_path, {"b": first}, {"b": first[[0, 2, 1, 3]]})
    assert (report.parting, report.pairs[0].arrangement) == (0, "as it is")


def test_an_order_of_axes_is_found_for_other_numbers_too(tmp_path: Path) -> None:
    second = normal(6, 5, 4, 4)
    report = pair_of(tmp_path, {"w": 3.0 * second.transpose(2, 3, 1, 0) + 0.5}, {"w": second})
    assert report.pairs[0].arrangement == "axes (2, 3, 1, 0)"
    assert report.parting == 0


def test_unrelated_numbers_are_compared_as_they_are_and_that_is_said(tmp_path: Path) -> None:
    report = pair_of(tmp_path, {"w": normal(4, 4)}, {"w": normal(4, 4, seed=1)})
    assert report.pairs[0].arrangement == "as it is"
    assert "2 orders of the axes fit the shapes, none the values" in report.pairs[0].notes[0]


def test_a_kernel_turned_round_is_found_and_no_trap_where_the_outputs_agree(tmp_path: Path) -> None:
    kernel, output = normal(4, 4, 2, 3), normal(7)
    turned = kernel[::-1, ::-1].transpose(3, 2, 0, 1)
    report = pair_of(tmp_path, {"w/kernel": kernel, "y": output}, {"w/kernel": turned, "y": output})
    assert report.pairs[0].arrangement == "axes (2, 3, 1, 0), axes (0, 1) turned round"
    assert report.traps == ()
    wrong = {"w/kernel": turned, "y": output + 1}
    assert fields(pair_of(tmp_path, {"w/kernel": kernel, "y": output}, wrong)) == {"conv_kernel"}


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
        assert report.parting is None
        assert report.pairs[0].arrangement.startswith("axes (0, 3, 1, 2)")


def test_scores_with_an_axis_of_one_are_compared(tmp_path: Path) -> None:
    scores = normal(8)
    report = pair_of(tmp_path, {"x": scores}, {"x": scores[:, None] * 1.5})
    assert report.pairs[0].relative_l2 == pytest.approx(0.5)


def test_shapes_that_do_not_fit_are_said_to(tmp_path: Path) -> None:
    report = pair_of(tmp_path, {"x": normal(8)}, {"x": normal(9)})
    assert report.parting == 0
    assert "shapes (8,) and (9,) do not fit" in report.pairs[0].notes
    assert "cannot be compared" in format_report(report)


def test_an_arrangement_once_found_is_kept_where_the_numbers_part(tmp_path: Path) -> None:
    hwc = normal(128, 3)
    chw = hwc.reshape(4, 4, 8, 3).transpose(2, 0, 1, 3).reshape(128, 3)
    layouts = {"first": {"w": "IO", "w/m": "IO"}, "second": {"w": "OI", "w/m": "OI"}}
    arrays = {"w": hwc, "w/m": hwc}, {"w": chw.T, "w/m": 1.5 * chw.T}
    pair = pair_of(tmp_path, *arrays, **layouts).pairs[1]
    assert pair.relative_l2 == pytest.approx(0.5)
    assert pair.arrangement == "OI as IO, axis 0 runs over 8 x 16 there (CHW), 16 x 8 here (HWC)"


# --- layout traps ------------------------------------------------------------------------------


def test_a_kernel_reshaped_instead_of_transposed_is_named(tmp_path: Path) -> None:
    oihw = normal(5, 3, 4, 4)
    report = pair_of(tmp_path, {"w/kernel": oihw.reshape(4, 4, 3, 5)}, {"w/kernel": oihw})
    assert [t.second for t in report.traps] == ["reshaped instead of transposed"]


def test_rows_and_columns_exchanged_are_named(tmp_path: Path) -> None:
    oihw = normal(5, 3, 4, 4)
    layouts = {"first": {"w/kernel": "HWIO"}, "second": {"w/kernel": "OIHW"}}
    wrong = pair_of(
        tmp_path, {"w/kernel": oihw.transpose(3, 2, 1, 0)}, {"w/kernel": oihw}, **layouts
    )
    assert [(t.field, t.second) for t in wrong.traps] == [("conv_kernel", "transposed")]
    right = pair_of(
        tmp_path, {"w/kernel": oihw.transpose(2, 3, 1, 0)}, {"w/kernel": oihw}, **layouts
    )
    assert right.traps == ()
    assert right.parting is None


def test_features_in_another_order_before_the_same_kernel_are_named(tmp_path: Path) -> None:
    hwc, kernel = normal(3, 4, 4, 8), normal(128, 5, seed=1)
    features, chw = hwc.reshape(3, 128), hwc.transpose(0, 3, 1, 2).reshape(3, 128)
    first = {"d/input": features, "d/kernel": kernel, "d/output": features @ kernel}
    wrong = {"d/input": chw, "d/kernel": kernel, "d/output": chw @ kernel}
    report = pair_of(tmp_path, first, wrong)
    named = [(t.field, t.anchor, t.first, t.second) for t in report.traps]
    assert named == [("flatten_order", "flatten-order", "hwc", "chw")]
    rows = kernel.reshape(4, 4, 8, 5).transpose(2, 0, 1, 3).reshape(128, 5)
    right = {"d/input": chw, "d/kernel": rows, "d/output": chw @ rows}
    assert pair_of(tmp_path, first, right).traps == ()


def test_an_image_reshaped_from_the_wrong_order_is_named(tmp_path: Path) -> None:
    flat = normal(2, 60)
    layouts = {"first": {"x": "NHWC"}, "second": {"x": "NCHW"}}
    images = {"x": flat.reshape(2, 3, 4, 5)}, {"x": flat.reshape(2, 5, 3, 4)}
    report = pair_of(tmp_path, *images, **layouts)
    named = [(t.field, t.anchor, t.first, t.second) for t in report.traps]
    assert named == [("flatten_order", "reshape-order", "hwc", "chw")]


# --- factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factor", "expected"),
    [
        ("discriminator/w/gradient", 16.0, {("loss_reduction", "mean", "sum", True)}),
        ("discriminator/w/gradient", 1 / 16, {("loss_reduction", "sum", "mean", True)}),
        ("generator/w/gradient", 2.0, {("lsgan_scale", "0.5", "1.0", True)}),
        (
            "discriminator_loss",
            0.5,
            {
                ("lsgan_scale", "1.0", "0.5", False),
                ("discriminator_loss_scale", "1.0", "0.5", False),
            },
        ),
        ("generator_loss", -1.0, {(None, "the sign", "turned", True)}),
        ("generator/w/gradient", 1.7, set()),
        ("generator/w/gradient", 12.0, set()),  # not the batch's size
        ("b/var", 16 / 15, {("batch_norm_running_variance", "biased", "unbiased", True)}),
        ("b/var", 15 / 16, {("batch_norm_running_variance", "unbiased", "biased", True)}),
    ],
)
def test_a_constant_factor_is_named(
    tmp_path: Path, name: str, factor: float, expected: set
) -> None:
    numbers = np.abs(normal(3, 5)) if name != "generator_loss" else np.array(0.7)
    x, layouts = normal(16, 5), {"first": {"b/input": "NF"}, "second": {"b/input": "NF"}}
    first, second = {"b/input": x, name: numbers}, {"b/input": x, name: factor * numbers}
    report = pair_of(tmp_path, first, second, **layouts)
    assert {(t.field, t.first, t.second, t.certain) for t in report.traps} == expected
    assert report.parting == 1


# --- the report --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_is_that_of_the_coarser_dtype(tmp_path: Path, dtype: str) -> None:
    x = normal(50)
    for size, agrees in ((0.5, True), (2.0, False)):
        near = x * (1.0 + size * BOUNDS[dtype])
        write_pair = {"x": x.astype(np.float64)}, {"x": near.astype(dtype)}
        if dtype == "float32":
            near32 = (x.astype(np.float32) * np.float32(1.0 + size * BOUNDS[dtype])).astype(dtype)
            write_pair = {"x": x.astype(np.float32).astype(np.float64)}, {"x": near32}
        report = pair_of(tmp_path, *write_pair)
        assert report.pairs[0].bound == BOUNDS[dtype]
        assert report.pairs[0].agrees is agrees


def test_a_python_number_has_the_precision_of_its_recording(tmp_path: Path) -> None:
    for path, value in (("a", 0.1), ("b", float(np.float32(0.1)))):
        with Recorder(tmp_path / path) as record:
            record("images", np.ones(3, np.float32))
            record("loss", value)
    report = explain_recordings(tmp_path / "a", tmp_path / "b")
    assert report.pairs[1].bound == BOUNDS["float32"]
    assert report.parting is None


def test_the_bound_can_be_chosen(tmp_path: Path) -> None:
    pair_of(tmp_path, {"x": normal(9)}, {"x": normal(9) * (1 + 1e-7)})
    paths = tmp_path / "first", tmp_path / "second"
    assert explain_recordings(*paths).parting == 0
    assert explain_recordings(*paths, bound=1e-6).parting is None


def test_whole_numbers_must_be_equal(tmp_path: Path) -> None:
    report = pair_of(tmp_path, {"x": np.arange(9)}, {"x": np.arange(9) + (np.arange(9) == 8)})
    assert (report.parting, report.pairs[0].bound) == (0, 0.0)


def test_the_worst_element_is_in_the_firsts_axes(tmp_path: Path) -> None:
    second = normal(2, 3, 4, 5)
    first = second.transpose(0, 2, 3, 1).copy()
    first[1, 3, 0, 2] += 0.25
    report = pair_of(tmp_path, {"x": first}, {"x": second})
    pair = report.pairs[0]
    assert (pair.worst, pair.max_abs) == ((1, 3, 0, 2), pytest.approx(0.25))
    assert pair.relative_l2 == pytest.approx(0.25 / np.linalg.norm(first))
    step = np.spacing(abs(first[1, 3, 0, 2]))
    assert pair.ulp == pytest.approx(0.25 / step)


def test_a_nan_on_one_side_parts_and_the_report_is_json(tmp_path: Path) -> None:
    broken = normal(5)
    broken[3] = np.nan
    report = pair_of(tmp_path, {"x": normal(5)}, {"x": broken})
    assert report.parting == 0
    assert report.pairs[0].worst == (3,)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["pairs"][0]["relative_l2"] == "nan"
    assert pair_of(tmp_path, {"x": broken}, {"x": broken}).parting is None


def test_a_bias_that_batch_norm_takes_away_is_measured_against_its_kernel(tmp_path: Path) -> None:
    first = {"d/kernel/gradient": normal(4, 4), "d/bias/gradient": 1e-17 * normal(4)}
    second = first | {"d/bias/gradient": 1e-17 * normal(4, seed=1)}
    report = pair_of(tmp_path, first, second)
    assert report.parting is None
    assert report.pairs[1].notes == ("rounding beside its kernel's",)
    assert pair_of(tmp_path, first, first | {"d/bias/gradient": normal(4)}).parting == 1


def test_the_text_names_the_parting_and_the_trap(tmp_path: Path) -> None:
    wrong = run(Conventions(adam_beta1=0.9))
    text = format_report(explained(tmp_path, run(Conventions()), wrong, pytorch=True))
    assert "The first point of parting:" in text
    assert "adam_beta1: first 0.5, second 0.9, docs/porting.md#adam-beta1" in text
    assert "NCHW as NHWC: real_images" in text


def test_every_anchor_is_a_row_of_the_porting_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
    source = (Path(__file__).parents[1] / "shared/explain/recordings.py").read_text()
    block = source.split("_ANCHORS: dict[str, str] = {")[1].split("}")[0]
    anchors = [line.split('"')[3] for line in block.splitlines() if ":" in line]
    assert len(anchors) > 10
    for anchor in [*anchors, "generator-objective", "reshape-order"]:
        assert f'id="{anchor}"' in page, anchor


@pytest.mark.parametrize("what", ["missing", "folder", "text", "foreign", "cut"])
def test_a_file_that_is_no_recording_is_one_line(tmp_path: Path, what: str) -> None:
    from safetensors.numpy import save_file

    good = write(tmp_path / "good", [(0, "x", normal(3))])
    bad = tmp_path / "bad"
    if what == "folder":
        bad.mkdir()
    elif what == "text":
        bad.write_text("no tensors here")
    elif what == "foreign":
        save_file({"x": normal(3)}, bad)
    elif what == "cut":
        bad.write_bytes(good.read_bytes()[:-5])
    with pytest.raises(RecordingError, match="expected a recording") as raised:
        explain_recordings(good, bad)
    assert "\n" not in str(raised.value)
    assert str(bad) in str(raised.value)


@pytest.mark.slow
def test_the_walk_through_prints_what_its_page_says(tmp_path: Path) -> None:
    """A real loop in PyTorch and two in JAX: one with a trap, one without."""
    for package in ("torch", "jax", "optax"):
        pytest.importorskip(package, reason=f"the walk-through needs {package}")
    page = (Path(__file__).parents[1] / "docs" / "recordings.md").read_text()
    blocks = re.findall(r"```(python|text)\n(.*?)```", page, re.DOTALL)
    loops = [text for kind, text in blocks if kind == "python" and "import numpy" in text]
    printed = next(text for kind, text in blocks if kind == "text")
    right = loops[1].replace("optax.adam(2e-4)", "optax.adam(2e-4, b1=0.5)")
    right = right.replace("ours.safetensors", "right.safetensors")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for code in (*loops, right):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    theirs, ours, other = (tmp_path / f"{n}.safetensors" for n in ("theirs", "ours", "right"))
    wrong, repaired = explain_recordings(theirs, ours), explain_recordings(theirs, other)
    named = [(t.field, t.first, t.second) for t in wrong.traps]
    assert named == [("adam_beta1", "0.5", "0.9")]
    assert repaired.parting is None
    assert repaired.traps == ()
    for line in format_report(wrong).splitlines()[2:]:
        if "worst element" not in line:  # its last digits are the machine's
            assert line in printed, line
