"""Explaining two recordings: the numbers of the report, its text, files that are none."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.explain.recordings import explain_recordings, format_report
from shared.explain.recordings.matching import BOUNDS
from shared.files.errors import InputError
from shared.record import Recorder
from shared.spec import Conventions
from tests import ROOT
from tests.explain.recorded_loops import explained, normal, pair_of, run, write


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
    assert report.first_difference is None


def test_the_bound_can_be_chosen(tmp_path: Path) -> None:
    pair_of(tmp_path, {"x": normal(9)}, {"x": normal(9) * (1 + 1e-7)})
    paths = tmp_path / "first", tmp_path / "second"
    assert explain_recordings(*paths).first_difference == 0
    assert explain_recordings(*paths, bound=1e-6).first_difference is None


def test_whole_numbers_must_be_equal(tmp_path: Path) -> None:
    report = pair_of(tmp_path, {"x": np.arange(9)}, {"x": np.arange(9) + (np.arange(9) == 8)})
    assert (report.first_difference, report.pairs[0].bound) == (0, 0.0)


def test_the_worst_element_is_in_the_firsts_axes(tmp_path: Path) -> None:
    second = normal(2, 3, 4, 5)
    first = second.transpose(0, 2, 3, 1).copy()
    first[1, 3, 0, 2] += 0.25
    report = pair_of(tmp_path, {"x": first}, {"x": second})
    pair = report.pairs[0]
    assert (pair.distance.element, pair.distance.largest) == ((1, 3, 0, 2), pytest.approx(0.25))
    assert pair.distance.relative == pytest.approx(0.25 / np.linalg.norm(first))
    step = np.spacing(abs(first[1, 3, 0, 2]))
    assert pair.distance.ulp == pytest.approx(0.25 / step)


def test_a_nan_on_one_side_diverges_and_the_report_is_json(tmp_path: Path) -> None:
    broken = normal(5)
    broken[3] = np.nan
    report = pair_of(tmp_path, {"x": normal(5)}, {"x": broken})
    assert report.first_difference == 0
    assert report.pairs[0].distance.element == (3,)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["pairs"][0]["relative"] == "nan"
    assert pair_of(tmp_path, {"x": broken}, {"x": broken}).first_difference is None


def test_a_bias_that_batch_norm_takes_away_is_measured_against_its_kernel(tmp_path: Path) -> None:
    first = {"d/kernel/gradient": normal(4, 4), "d/bias/gradient": 1e-17 * normal(4)}
    second = first | {"d/bias/gradient": 1e-17 * normal(4, seed=1)}
    report = pair_of(tmp_path, first, second)
    assert report.first_difference is None
    assert report.pairs[1].notes == ("rounding beside its kernel's",)
    assert pair_of(tmp_path, first, first | {"d/bias/gradient": normal(4)}).first_difference == 1


def test_the_text_names_the_divergence_and_the_trap(tmp_path: Path) -> None:
    wrong = run(Conventions(adam_beta1=0.9))
    text = format_report(explained(tmp_path, run(Conventions()), wrong, pytorch=True))
    assert "The first difference:" in text
    assert "named: adam beta1: first 0.5, second 0.9, docs/porting.md#adam-beta1" in text
    assert "NCHW as NHWC: real_images" in text


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
    with pytest.raises(InputError, match=r"a recording of shared\.record") as raised:
        explain_recordings(good, bad)
    assert "\n" not in str(raised.value)
    assert str(bad) in str(raised.value)


@pytest.mark.slow
def test_the_walk_through_prints_what_its_page_says(tmp_path: Path) -> None:
    """A real loop in PyTorch and two in JAX: one with a trap, one without."""
    for package in ("torch", "jax", "optax"):
        pytest.importorskip(package, reason=f"the walk-through needs {package}")
    page = (ROOT / "docs" / "recordings.md").read_text()
    blocks = re.findall(r"```(python|text)\n(.*?)```", page, re.DOTALL)
    loops = [text for kind, text in blocks if kind == "python" and "import numpy" in text]
    printed = next(text for kind, text in blocks if kind == "text")
    right = loops[1].replace("optax.adam(2e-4)", "optax.adam(2e-4, b1=0.5)")
    right = right.replace("ours.safetensors", "right.safetensors")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for code in (*loops, right):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    theirs, ours, other = (tmp_path / f"{n}.safetensors" for n in ("theirs", "ours", "right"))
    wrong, repaired = explain_recordings(theirs, ours), explain_recordings(theirs, other)
    named = [(t.field, t.first, t.second) for t in wrong.traps]
    assert named == [("adam_beta1", "0.5", "0.9")]
    assert repaired.first_difference is None
    assert repaired.traps == ()
    for line in format_report(wrong).splitlines()[2:]:
        if "worst element" not in line:  # its last digits are the machine's
            assert line in printed, line
