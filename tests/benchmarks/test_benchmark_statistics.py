"""What the benchmark makes of its figures: statistics, groups, ratios, verdicts, comparisons."""

import copy

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.document import intervals as statistics
from benchmarks.show import tables
from tests.benchmarks.documents import make_document, write

# --- statistics --------------------------------------------------------------------------------


def test_median_of_rounds_weighs_rounds_not_windows():
    assert statistics.median_of_rounds([[1.0, 1.0, 1.0, 1.0, 1.0], [3.0], [5.0]]) == 3.0
    assert statistics.median_of_rounds([[4.0, 1.0, 3.0, 2.0]]) == 2.5


def test_quantiles_interpolate():
    assert statistics.quantiles([4.0, 1.0, 2.0, 3.0, 5.0], (0.0, 0.25, 0.5, 1.0)) == [1, 2, 3, 5]
    assert statistics.quantiles([0.0, 10.0], (0.25, 0.95)) == [2.5, 9.5]


def test_bootstrap_interval_of_constants_is_the_constant():
    assert statistics.bootstrap_interval([[2.0, 2.0], [2.0]], seed=0) == (2.0, 2.0)


def test_bootstrap_interval_of_two_rounds_spans_them():
    # Both draws hit the same round with probability 1/2, so 95 % must hold both ends.
    assert statistics.bootstrap_interval([[1.0] * 3, [2.0] * 3], seed=1) == (1.0, 2.0)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    hits = 0
    for seed in range(20):
        low, high = statistics.bootstrap_interval([list(draw.normal(10, 1, 40))], seed)
        hits += low <= 10 <= high
    # 19 expected; at a true coverage of 90 %, fewer than 14 has a probability of 2e-3.
    assert hits >= 14


@pytest.mark.parametrize("rounds", [[], [[1.0], []]])
def test_statistics_of_nothing_are_an_error(rounds):
    with pytest.raises(ValueError, match="at least one"):
        statistics.median_of_rounds(rounds)
    with pytest.raises(ValueError, match="at least one"):
        statistics.bootstrap_interval(rounds, seed=0)


def test_a_paired_ratio_does_not_see_what_slows_a_whole_round_down():
    fast = {0: [100.0, 101.0, 99.0], 1: [50.0, 50.5, 49.5], 2: [80.0, 81.0, 79.0]}
    slow = {number: [rate / 1.1 for rate in rates] for number, rates in fast.items()}
    ratio = statistics.paired_ratio(fast, slow, seed=0)
    assert ratio.value == pytest.approx(1.1)
    assert 1.07 < ratio.low < 1.1 < ratio.high < 1.13
    unpaired = statistics.unpaired_ratio(list(fast.values()), list(slow.values()), seed=0)
    assert unpaired.low < 0.8 < 1.5 < unpaired.high


def test_only_rounds_that_both_have_are_paired():
    ratio = statistics.paired_ratio({0: [2.0], 1: [900.0]}, {0: [1.0], 2: [7.0]}, seed=0)
    assert ratio.per_round == (2.0,)
    with pytest.raises(ValueError, match="at least one"):
        statistics.paired_ratio({0: [1.0]}, {1: [1.0]}, seed=0)


def test_outliers_are_found_and_a_calm_series_has_none():
    draw = np.random.default_rng(0)
    calm = list(draw.normal(100, 1, 40))
    assert statistics.outliers(calm) == []
    assert statistics.outliers([*calm, 130.0, 70.0]) == [40, 41]
    # Equal but for the resolution of the clock: 1 % off is no outlier.
    assert statistics.outliers([100.0, 100.0, 100.0, 100.0, 101.0]) == []
    assert statistics.outliers([1.0, 99.0, 3.0]) == []


# --- groups and verdicts -------------------------------------------------------------------------

BOTH = ["--framework", "pytorch", "jax", "--rounds", "3"]


def rates_of(**by_framework):
    return lambda configuration, number: [
        by_framework[configuration.framework] * factor for factor in (0.99, 1.0, 1.01)
    ]


def test_verdict_is_certain_only_where_the_interval_is_above_the_noise():
    apart = make_document(BOTH, rates_of(pytorch=50.0, jax=60.0))
    assert tables.verdicts(apart)[0].startswith("Fastest: jax at 60.0 img/s")
    assert "1.20x pytorch" in tables.verdicts(apart)[0]
    near = make_document(BOTH, rates_of(pytorch=59.5, jax=60.0))
    assert tables.verdicts(near)[0].startswith("No clear winner")
    once = make_document([*BOTH[:3], "--rounds", "1"], rates_of(pytorch=50.0, jax=60.0))
    assert tables.verdicts(once)[0].startswith("Not certain after one round")
    alone = make_document(["--framework", "tf"], rates_of(tf=50.0))
    assert tables.verdicts(alone)[0].startswith("tf trains 50.0 img/s")
    noisy = apart | {"noise_floor": 0.3}
    assert tables.verdicts(noisy)[0].startswith("No clear winner")
    assert "differs by up to 30.0 %" in tables.verdicts(noisy)[1]


def test_every_framework_is_in_the_headline_and_scattered_rounds_make_no_winner():
    rates = {"pytorch": 50.0, "jax": 60.0, "tf": 40.0}
    three = ["--framework", "all", "--rounds", "4"]
    (line,) = tables.verdicts(make_document(three, rates_of(**rates)))
    assert line.startswith("Fastest: jax at 60.0")
    assert line.index("1.20x pytorch") < line.index("1.50x tf")

    def scattered(configuration, number):
        luck = 1 + 0.2 * (-1) ** number * (configuration.framework == "jax")
        return [rates[configuration.framework] * luck] * 3

    (line,) = tables.verdicts(make_document(three, scattered))
    assert line.startswith("No clear winner: jax")
    assert "After 4 rounds a ratio is certain from about" in line


def test_nothing_is_ranked_against_what_was_read_back_with_other_settings():
    def rates(configuration, number):
        tf32 = configuration.framework == "jax"
        return {"rates": [60.0, 61.0]} | ({"settings": {"precision": "tf32"}} if tf32 else {})

    found = make_document(BOTH, rates)
    assert [len(group["ranking"]) for group in found["groups"]] == [1, 1]
    assert all(group["ratios"] == [] for group in found["groups"])
    assert len(found["best"]) == 2
    assert all("trains" in line for line in tables.verdicts(found))


def test_batch_sizes_and_precisions_are_groups_of_their_own():
    arguments = [*BOTH, "--batch-size", "8", "16", "--precision", "fp32", "bf16"]
    found = make_document(arguments, rates_of(pytorch=50.0, jax=60.0))
    assert len(found["groups"]) == 4
    assert [len(group["ranking"]) for group in found["groups"]] == [2, 2, 2, 2]
    assert found["configurations"][0]["label"] == "pytorch fp32 batch 8"


def test_a_baseline_is_compared_with_its_own_framework_and_does_not_win():
    def rates(configuration, number):
        quick = configuration.implementation == "baseline" and configuration.framework == "jax"
        return [90.0, 91.0] if quick else [60.0, 61.0]

    found = make_document([*BOTH, "--baselines"], rates)
    (group,) = found["groups"]
    kinds = [(r["kind"], r["numerator"].split("/")[0]) for r in group["ratios"]]
    assert kinds == [
        ("fastest", "pytorch"), ("framework", "jax"), ("baseline", "pytorch"), ("baseline", "jax"),
    ]  # fmt: skip
    assert any("jax is 0.67x jax baseline" in line for line in tables.ratio_lines(found))
    assert tables.verdicts(found)[0].startswith("No clear winner: pytorch")


def test_the_same_thing_twice_gives_the_noise_floor():
    def rates(configuration, number):
        return [rate * (1.04 if configuration.again else 1.0) for rate in (50.0, 50.0)]

    found = make_document([*BOTH, "--aa"], rates)
    assert found["noise_floor"] == pytest.approx(0.04)
    assert make_document(BOTH, rates)["noise_floor"] is None
    (group,) = found["groups"]
    assert not any(name.endswith("/again") for name in group["ranking"])


# --- compare.py ----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Return what writes an old document and a changed one; returns their paths."""

    def make(change=lambda document: None, **new_rates):
        old = make_document(BOTH, rates_of(pytorch=50.0, jax=60.0))
        new = make_document(BOTH, rates_of(**{"pytorch": 50.0, "jax": 60.0} | new_rates))
        change(new)
        return [write(tmp_path / "old.json", old), write(tmp_path / "new.json", new)]

    return make


@pytest.mark.parametrize(
    ("rate", "word", "code"),
    [(60.3, "no difference", 0), (70.0, "faster", 0), (52.0, "slower", 1), (59.0, "no diff", 0)],
)
def test_compare_says_what_became_of_each_configuration(rate, word, code, files, capsys):
    assert compare.main(files(jax=rate)) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "no difference, 1.000x" in lines[0]
    assert word in lines[1]


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        (statistics.Ratio(0.96, 0.95, 0.97), "slower"),
        (statistics.Ratio(0.96, 0.91, 1.01), "no difference"),  # not certain
        (statistics.Ratio(0.98, 0.975, 0.985), "no difference"),  # certain, and too little
        (statistics.Ratio(1.04, 1.03, 1.05), "faster"),
        (statistics.Ratio(1.04, 0.99, 1.09), "no difference"),
        (statistics.Ratio(1.02, 1.01, 1.03), "no difference"),
    ],
)
def test_a_change_is_certain_and_not_small(ratio, word):
    assert statistics.judge(ratio.value, (ratio.low, ratio.high)) == word


@pytest.mark.parametrize(
    ("part", "name"), [("host", "cpu"), ("host", "cores"), ("workload", "width")]
)
def test_compare_refuses_another_host_or_workload(part, name, files, capsys):
    def change(document):
        document[part] = document[part] | {name: "another CPU" if name == "cpu" else 3}

    paths = files(change)
    assert compare.main(paths) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{part} {name} differs" in error
    assert "--force" in error
    assert compare.main([*paths, "--force"]) == 0
    assert "warning: " in capsys.readouterr().out


def test_compare_refuses_what_is_no_result_of_this_version(files, tmp_path, capsys):
    old, _ = files()
    for text in ("{}", "[]", "no JSON", '{"schema_version": 1}'):
        other = tmp_path / "other.json"
        other.write_text(text)
        assert compare.main([old, str(other)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert compare.main([old, str(tmp_path / "absent.json")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_configuration_that_lost_its_number_is_a_regression(files, capsys):
    def fail(document):
        for summary in document["summary"]:
            if summary["configuration"].startswith("jax"):
                summary |= {"status": "oom", "results": None, "error": "no memory"}

    assert compare.main(files(fail)) == 1
    assert "oom" in capsys.readouterr().out


def test_compare_knows_what_is_new(files, capsys):
    def rename(document):
        text = copy.deepcopy(document["rows"][0]["configuration"])
        name = text.replace("auto", "compile")
        for part in (document["rows"], document["summary"]):
            for entry in part:
                if entry["configuration"] == text:
                    entry["configuration"] = name
        next(c for c in document["configurations"] if c["id"] == text)["id"] = name

    assert compare.main(files(rename)) == 0
    output = capsys.readouterr().out
    assert "not measured any more" in output
    assert "/compile/" in output
    assert ": new" in output
