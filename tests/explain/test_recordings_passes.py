"""Two recordings: what moves once a pass, what one file alone has, what is not accused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shared.explain.recordings import RecordingReport, explain_recordings, format_report
from shared.record import Recorder
from shared.reference.optimizers import moved_parameter
from shared.spec import AdamSpec, Conventions
from tests.explain.recorded_loops import normal, pair_of
from tests.wild.recordings import Write, batch_norm, pair, training, upsampling


def report_of(tmp_path: Path, first: Write, second: Write) -> RecordingReport:
    paths = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    pair(first, second)(*paths)
    return explain_recordings(*paths)


def named(report: RecordingReport) -> set[tuple]:
    return {(trap.field, trap.first, trap.second, trap.certain) for trap in report.traps}


def averages(weights: list[list[float]]) -> Write:
    """Running statistics that move by several weights a step, on one recorded input."""

    def loop(record: Recorder) -> None:
        statistics = np.stack([np.zeros(12), np.ones(12)])
        for step in range(len(weights) + 1):
            if step:
                record.step()
                x = normal(50, 12, seed=step)
                record("bn/input", x)
                for weight in weights[step - 1]:
                    new = np.stack([x.mean(0), x.var(0, ddof=1)])
                    statistics = (1 - weight) * statistics + weight * new
            for name, array in zip(("mean", "var"), statistics, strict=True):
                record(f"bn/{name}", array)

    return loop


ONCE = averages([[0.1]] * 4)


@pytest.mark.parametrize("weights", [[1.0, 1 / 2, 1 / 3, 1 / 4], [0.1, 0.2, 0.3, 0.4]])
def test_a_momentum_of_its_own_in_every_step_is_none(tmp_path: Path, weights: list) -> None:
    report = report_of(tmp_path, ONCE, averages([[weight] for weight in weights]))
    assert (report.first_difference is not None, report.traps) == (True, ())


def test_two_passes_are_no_momentum(tmp_path: Path) -> None:
    report = report_of(tmp_path, ONCE, averages([[0.1, 0.1]] * 4))
    assert named(report) == {(None, "passes a step: 1", "passes a step: 2", True)}
    # Two passes of 0.9 are one of 0.99, which frameworks have as well.
    report = report_of(tmp_path, averages([[0.9]] * 4), averages([[0.9, 0.9]] * 4))
    assert named(report) == {
        ("batch_norm_momentum", "0.9", "0.99", False),
        (None, "passes a step: 1", "passes a step: 2", False),
    }


def test_a_momentum_of_two_passes_over_one_batch_is_that_of_each(tmp_path: Path) -> None:
    twice = [averages([[weight, weight]] * 4) for weight in (0.1, 0.05)]
    assert named(report_of(tmp_path, *twice)) == {("batch_norm_momentum", "0.1", "0.05", True)}


def test_a_factor_of_one_number_is_that_of_every_step(tmp_path: Path) -> None:
    def numbers(name: str, factors: list[float]) -> Write:
        def loop(record: Recorder) -> None:
            record("bn/input", normal(100, 1))
            for number, factor in enumerate(factors):
                if number:
                    record.step()
                record(name, np.array([factor * (number + 0.7)]))

        return loop

    def read(name: str, factors: list[float]) -> set[str | None]:
        report = report_of(tmp_path, numbers(name, [1.0] * 3), numbers(name, factors))
        assert report.first_difference is not None
        return {trap.field for trap in report.traps}

    half = {"lsgan_scale", "discriminator_loss_scale"}
    assert read("discriminator_loss", [0.5, 0.501, 0.499]) == half
    assert read("discriminator_loss", [0.5, 0.8, 1.0]) == set()
    assert read("bn/var", [100 / 99] * 3) == {"batch_norm_running_variance"}
    assert read("bn/var", [1.004, 1.006, 100 / 99]) == set()


def updates(moved: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> Write:
    """Three updates of a kernel and of a bias of one number, whose moments are Adam's."""

    def loop(record: Recorder) -> None:
        held = {n: (normal(*shape), 0.0, 0.0) for n, shape in (("kernel", (7, 6)), ("bias", (1,)))}
        for step in range(4):
            if step:
                record.step()
            for name, (parameter, m, v) in held.items():
                if step:
                    gradient = 0.1 * normal(*parameter.shape, seed=step)
                    record(f"generator/d/{name}/gradient", gradient)
                    m, v = 0.5 * m + 0.5 * gradient, 0.999 * v + 0.001 * gradient**2
                    held[name] = parameter - 1e-3 * moved(m, v, step), m, v
                parts = zip(("", "/m", "/v"), held[name], strict=True)
                for part, array in parts:
                    record(f"generator/d/{name}{part}", np.broadcast_to(array, parameter.shape))

    return loop


@np.errstate(invalid="ignore")
def test_what_explains_a_number_or_a_multiple_is_no_name_of_an_optimizer(tmp_path: Path) -> None:
    def right(m: np.ndarray, v: np.ndarray, step: int) -> np.ndarray:
        return m / (1 - 0.5**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)

    def uncorrected(m: np.ndarray, v: np.ndarray, step: int) -> np.ndarray:
        return m / (np.sqrt(v) + 1e-8)

    report = report_of(tmp_path, updates(right), updates(uncorrected))
    assert named(report) == {("adam_bias_correction", "True", "False", True)}

    def of_largest(m: np.ndarray, v: np.ndarray, step: int) -> np.ndarray:
        return m / (np.sqrt(v.max()) + 1e-8)  # the same for the bias

    report = report_of(tmp_path, updates(right), updates(of_largest))
    assert (report.verdict, named(report)) == ("unexplained", set())

    def of_softened(m: np.ndarray, v: np.ndarray, step: int) -> np.ndarray:
        return m / (np.sqrt(1e-12 * v) + 1e-4)  # as epsilon of 1e-8 in the root makes it

    report = report_of(tmp_path, updates(right), updates(of_softened))
    assert (report.verdict, named(report)) == ("unexplained", set())


def test_further_passes_of_one_file_are_one_line_and_one_finding(tmp_path: Path) -> None:
    report = report_of(tmp_path, batch_norm(), batch_norm(passes=3))
    assert named(report) == {(None, "g once a step", "g 3 times a step", True)}
    assert report.findings == (
        "8 tensors of steps 1 to 4 are in the second recording only: "
        "'g/bn/input/2', 'g/bn/input/3'",
    )
    assert "Verdict: named.\n- named: first g once a step" in format_report(report)
    assert report.to_dict()["verdict"] == "named"


@pytest.mark.parametrize("scale", [3.0, 24.0, 65536.0])
def test_a_factor_is_no_batch_that_is_not_recorded(tmp_path: Path, scale: float) -> None:
    gradient = {"d/w/gradient": normal(4, 6)}
    report = pair_of(tmp_path, gradient, {"d/w/gradient": scale * gradient["d/w/gradient"]})
    expected = {(None, "gradient scale 1.0", "gradient scale 65536.0", True)}
    assert named(report) == (expected if scale == 65536.0 else set())


@pytest.mark.parametrize(("loss", "expected"), [(0.7001, set()), (3.5, {"loss_reduction"})])
def test_a_loss_is_summed_only_if_it_has_the_factor(
    tmp_path: Path, loss: float, expected: set
) -> None:
    first = {"scores": normal(5), "loss": np.array(0.7), "d/w/gradient": normal(4, 6)}
    second = first | {"loss": np.array(loss), "d/w/gradient": 5.0 * first["d/w/gradient"]}
    assert {trap.field for trap in pair_of(tmp_path, first, second).traps} == expected


@pytest.mark.parametrize(("output", "is_named"), [(0.0, False), (1.0, True)])
def test_a_kernel_turned_round_is_judged_by_its_own_outputs(
    tmp_path: Path, output: float, is_named: bool
) -> None:
    kernel, y = normal(4, 4, 2, 3), normal(7)
    first = {"w/kernel": kernel, "w/output": y, "other": normal(5)}
    second = {"w/kernel": kernel[::-1, ::-1], "w/output": y + output, "other": normal(5) + 1.0}
    assert (named(pair_of(tmp_path, first, second)) != set()) == is_named


def test_a_right_kernel_is_not_accused_where_most_arrays_agree(tmp_path: Path) -> None:
    turned = upsampling(slice(0, 16), turn=-1, noise=1e-3)
    report = report_of(tmp_path, upsampling(slice(0, 16)), turned)
    assert (report.pairs[report.first_difference or 0].one.name, report.traps) == ("d/scores", ())


def amsgrad(record: Recorder) -> None:
    """`training` of smaller and smaller gradients, by the largest second moment so far."""
    shrinking(record, largest=True)


def shrinking(record: Recorder, largest: bool = False) -> None:
    parameter, m, v, most = normal(6, 4), np.zeros((6, 4)), np.zeros((6, 4)), np.zeros((6, 4))
    record("d/kernel", parameter)
    for number in range(1, 5):
        record.step()
        gradient = normal(6, 4, seed=number) / 8.0**number
        m, v = 0.5 * m + 0.5 * gradient, 0.9 * v + 0.1 * gradient**2
        most = np.maximum(most, v)
        settings = AdamSpec(2e-4, 0.5, 0.9, 1e-8)
        second = most if largest else v
        parameter = moved_parameter(parameter, m, second, number, settings, Conventions())
        arrays = {"/gradient": gradient, "": parameter, "/m": m, "/v": v}
        for name, array in arrays.items():
            record(f"d/kernel{name}", array)


def test_amsgrad_is_named(tmp_path: Path) -> None:
    text = "second moments in Adam's root:"
    report = report_of(tmp_path, shrinking, amsgrad)
    assert named(report) == {(None, f"{text} own", f"{text} largest", True)}


def test_what_would_decide_it_is_reported(tmp_path: Path) -> None:
    first = {"bn/mean": normal(4), "bn/output": normal(4, 4), "w/m": normal(3)}
    texts = {
        "bn/mean": "bn/input, bn/var",
        "bn/output": "bn/input, bn/kernel",
        "w/m": "w, w/gradient, w/v",
    }
    for name, wanted in texts.items():
        report = pair_of(tmp_path, first, first | {name: first[name] + 1.0})
        assert f"record more to decide it: {wanted}\n" in format_report(report) + "\n"
        (place,) = report.to_dict()["located"]
        assert (place["stage"], place["array"]) == ("step 0", name)
        assert place["note"].endswith(wanted)


def test_what_a_name_does_not_explain_is_located_beside_it(tmp_path: Path) -> None:
    def with_noise(record: Recorder) -> None:
        record("d/scores", normal(3))
        training(scale=65536.0)(record)

    def without(record: Recorder) -> None:
        record("d/scores", normal(3) + 1.0)
        training()(record)

    report = report_of(tmp_path, without, with_noise)
    text = format_report(report)
    assert "Verdict: partly named, located where they first differ." in text
    assert "- named: generator gradient scale: first 1.0, second 65536.0" in text
    assert "- located: step 0  d/scores" in text
    data = report.to_dict()
    assert data["verdict"] == "partly named"
    assert [(n["fields"], n["stage"], n["row"]) for n in data["named"]] == [
        ({"generator_gradient_scale": 65536.0}, "generator/dense/kernel/gradient", "gradient-scale")
    ]
    assert [place["array"] for place in data["located"]] == ["d/scores"]
    assert "may follow from it" in text
