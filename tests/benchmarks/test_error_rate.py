"""How often the benchmark is wrong about a difference, against SciPy and a noise that is known."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.document import intervals
from benchmarks.document.stored import load
from tests.apparatus import error_rate


def test_intervals_are_students_and_welchs():
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.2, 0.1, 7), draw.normal(0.0, 0.05, 12)
    expected = stats.ttest_1samp(a, 0).confidence_interval(0.995)
    assert np.log(intervals.certainty(np.exp(a))) == pytest.approx(expected, rel=1e-9)
    found = intervals.certainty(np.exp(a), np.exp(-b))
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.995)
    assert np.log(found) == pytest.approx(expected, rel=1e-9)


def test_nothing_is_certain_after_one_round():
    assert intervals.certainty([2.0]) == (0.0, np.inf)
    assert intervals.certainty([2.0, 2.0], [1.0]) == (0.0, np.inf)


def document(draw, names, rounds):
    """Return a document with noise of known size: rounds 8 %, processes 4 %, windows 6 %."""
    rows = []
    for number, common in enumerate(draw.normal(0, 0.08, rounds)):
        for name in names:
            level = common + draw.normal(0, 0.04)
            windows = [
                {"steps": 1, "ms": float(np.exp(level + x))} for x in draw.normal(0, 0.06, 5)
            ]
            rows.append({"configuration": name, "round": number, "windows": windows})
    return {"rows": rows}


def test_noise_is_told_apart():
    draw = np.random.default_rng(0)
    noise = error_rate.fit([document(draw, "abcdef", 4) for _ in range(60)])
    assert noise.windows.std() == pytest.approx(0.06, rel=0.05)
    assert noise.processes.std() == pytest.approx(0.04, rel=0.1)
    # The mean over six configurations has a sixth of the processes' variance left in it.
    assert noise.rounds.std() == pytest.approx(np.hypot(0.08, 0.052 / 6**0.5), rel=0.1)
    with pytest.raises(ValueError, match="no noise to fit"):
        error_rate.fit([document(draw, "a", 4)])


def test_equal_pairs_are_rarely_called_different_and_ten_per_cent_are_found():
    noise = error_rate.fit([load(path) for path in error_rate.RESULTS])
    draw = np.random.default_rng(1)
    same = [error_rate.decisions(noise, 40, 0.0, draw) for _ in range(300)]
    slow = [error_rate.decisions(noise, 40, 0.1, draw) for _ in range(60)]
    for said, found in zip(zip(*same, strict=True), zip(*slow, strict=True), strict=True):
        assert 300 - said.count("no difference") <= 3
        assert found.count("slower") >= 57


def test_command_prints_both_figures(capsys):
    assert error_rate.main(["--pairs", "2", "--rounds", "2", "--slowdown", "0.9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["run.py", "compare.py"]
    assert error_rate.main(["--slowdown", "1.5"]) == 2
    assert "must be below 1" in capsys.readouterr().err
