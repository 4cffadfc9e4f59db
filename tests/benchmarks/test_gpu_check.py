"""`benchmarks/gpu_check.py`: many points of one framework in one process."""

import json

import pytest

from benchmarks import gpu_check
from benchmarks.show import tables
from benchmarks.worker import gate
from tests.benchmarks.documents import validate
from tests.benchmarks.stand_ins import QUICKEST

POINTS = ["--framework", QUICKEST, "--device", "cpu", "--threads", "1", "--width", "1"]
POINTS += ["--batch-size", "2", "3"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(gpu_check, "BUDGET", 0.1)
    monkeypatch.setattr(gpu_check, "WINDOW_MS", 10.0)


def test_every_point_has_its_figures_and_each_way_of_computing_one_gate(tmp_path, capsys):
    path = tmp_path / "points.json"
    assert gpu_check.main([*POINTS, "--json", str(path)]) == 0
    document = json.loads(path.read_text())
    validate(document)
    first, second = document["rows"]
    assert first["checks"]["equivalence"]["passed"]
    # The same implementation, precision and mode: neither the gate nor the rates once more.
    assert {n: second["checks"][n] for n in ("equivalence", "precision")} == {
        n: first["checks"][n] for n in ("equivalence", "precision")
    }
    assert second["phases_ms"]["check"] < first["phases_ms"]["check"] / 10
    assert "peak" in first["phases_ms"]
    assert "peak" not in second["phases_ms"]
    assert document["command"].startswith("python benchmarks/gpu_check.py --framework")
    captured = capsys.readouterr()
    for summary in document["summary"]:
        assert tables.figures(summary)["median"] in captured.out


def test_a_step_that_the_gate_refuses_has_no_time(monkeypatch, capsys):
    monkeypatch.setattr(gate, "LOSS_BOUND", 1e-12)
    assert gpu_check.main(POINTS) == 1
    printed = capsys.readouterr().out
    assert "one step does not agree with the NumPy reference" in printed
    assert "No verdict" in printed


def test_a_file_that_cannot_be_written_is_reported_before_the_first_point(tmp_path, capsys):
    assert gpu_check.main([*POINTS, "--json", str(tmp_path / "no" / "x.json")]) == 2
    captured = capsys.readouterr()
    assert "there is no folder" in captured.err
    assert captured.out == ""


def test_several_frameworks_are_refused(capsys):
    assert gpu_check.main([*POINTS, "--framework", "jax", "pytorch"]) == 2
    assert "--framework takes one here, received jax pytorch" in capsys.readouterr().err


def test_what_it_does_not_do_is_refused_under_its_own_name(capsys):
    assert gpu_check.main([*POINTS, "--batch-size", "4", "--devices", "2"]) == 2
    assert "--devices is for benchmarks/run.py" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gpu_check.main(["--help"])
    help_of_it = " ".join(capsys.readouterr().out.split())
    assert "gpu_check.py times each of one framework once" in help_of_it
    assert "none of its ratios is certain" in help_of_it
    with pytest.raises(SystemExit):
        gpu_check.main(["--bach-size", "2"])
    assert "benchmarks/gpu_check.py: error:" in capsys.readouterr().err
