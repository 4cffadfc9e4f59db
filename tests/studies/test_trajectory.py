"""200 steps in every framework, held against one another after every single step."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.interface import Implementation
from shared.interface import load_implementation as load
from shared.reference.adapter import ReferenceImplementation
from shared.run.console import text_table
from shared.spec import SYSTEMS, Conventions, SystemSpec
from shared.studies import trajectory
from shared.studies.trajectory import (
    BOUNDS,
    Bounds,
    Difference,
    Experiment,
    compare,
    difference,
    first_divergence,
    load_trainer,
    training_images,
)
from tests import exit_code
from tests.comparison import MismatchError
from tests.conftest import installed_implementations
from tests.studies.curves import optimized_steps, require_within
from tests.tiers import one_in

SYSTEM = {"bce": "dcgan64", "lsgan": "dcgan64-lsgan"}
# What one float64 step adds from a common state: measured 3e-15 and 2e-14 on digits. A slope that
# went through float32 adds 1e-8.
ONE_STEP = Bounds(loss=1e-12, tensor=1e-11, drift=1e-4)
TINY = ("--width", "2", "--batch-size", "2", "--steps", "2")


@pytest.fixture(scope="module")
def trainers() -> list[Implementation]:
    """All of the three that are installed, at one thread each."""
    return installed_implementations(at_least=2)


def narrow(loss: str) -> SystemSpec:
    return SYSTEMS[SYSTEM[loss]].replace(width=4, batch_size=4)


def experiment(loss: str, images: str, steps: int) -> Experiment:
    spec = narrow(loss)
    return Experiment(spec, training_images(images, spec, 0), steps=steps, dtype="float64")


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "lsgan"])
def test_two_hundred_steps(trainers: list[Implementation], loss: str) -> None:
    """Losses within 1e-10 and every tensor within 1e-9 after each step, every pair.

    Measured 2e-14 and 1e-13 (bce), 6e-14 and 3e-13 (lsgan).
    """
    with optimized_steps():
        curves = compare(trainers, experiment(loss, "noise", 200))
    assert all(len(curve) == 200 for curve in curves.values())
    require_within(curves, BOUNDS["float64"])


@pytest.mark.slow
def test_every_step_of_a_chaotic_run(trainers: list[Implementation]) -> None:
    """On digits bce multiplies any rounding error by 1.25 a step; no single step adds much."""
    with optimized_steps():
        curves = compare(trainers, experiment("bce", "digits", 200), restart=True)
    require_within(curves, ONE_STEP)


class Faulty(ReferenceImplementation):
    """The reference under other conventions."""

    name = "faulty"


@pytest.mark.parametrize(
    "deviation",
    [
        {"leaky_relu_slope": float(np.float32(0.2))},
        {"adam_epsilon_placement": "before_correction"},
        {"adam_epsilon": 1e-7},
        {"batch_norm_running_variance": "biased"},
        {"batch_norm_statistics": "not_in_generator_step"},
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", ["bce", "lsgan"])
def test_a_planted_fault_diverges_at_once(loss: str, deviation: dict) -> None:
    faulty = Faulty(Conventions(**deviation))
    curves = compare([ReferenceImplementation(), faulty], experiment(loss, "noise", 1))
    with pytest.raises(MismatchError, match="reference and faulty diverged at step 1: "):
        require_within(curves, BOUNDS["float64"])


class Glitch(ReferenceImplementation):
    """The reference with one number wrong after one step; the run itself goes on unharmed."""

    name = "glitch"

    def __init__(self, step: int, tensor: str | None = None, value: float = 0.0) -> None:
        super().__init__()
        self.at, self.tensor, self.value = step, tensor, value

    def train_step(self, *arguments: object) -> dict[str, float]:
        metrics = super().train_step(*arguments)
        if arguments[0].arrays["generator_optimizer/step"] == self.at and self.tensor is None:
            metrics["generator_loss"] += self.value
        return metrics

    def export_state(self, state: object) -> dict[str, np.ndarray]:
        arrays = super().export_state(state)
        if arrays["generator_optimizer/step"] == self.at and self.tensor is not None:
            arrays[self.tensor] = arrays[self.tensor] * (1 + self.value)
        return arrays


@pytest.mark.parametrize("step", one_in(3, [2, 1, 3]))
@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        (None, 2e-10),
        (None, np.nan),
        ("discriminator_optimizer/batch_norm_4/bias/m", 2e-9),
        ("generator/conv_transpose_1/kernel", np.nan),
        ("discriminator_optimizer/step", 1),
    ],
)
def test_one_wrong_number_after_any_step_is_caught(
    step: int, tensor: str | None, value: float
) -> None:
    glitch = Glitch(step, tensor, value)
    curves = compare([ReferenceImplementation(), glitch], experiment("bce", "noise", 3))
    found = f"diverged at step {step}: .*{tensor or 'generator_loss'}"
    with pytest.raises(MismatchError, match=found):
        require_within(curves, BOUNDS["float64"])
    (curve,) = curves.values()
    assert [d.within(BOUNDS["float64"]) for d in curve] == [s != step for s in (1, 2, 3)]


def test_a_restart_shows_each_step_alone() -> None:
    reference, faulty = ReferenceImplementation(), Faulty(Conventions(leaky_relu_slope=0.2001))
    run = experiment("bce", "noise", 3)
    (free,) = compare([reference, faulty], run).values()
    (alone,) = compare([reference, faulty], run, restart=True).values()
    assert free[0] == alone[0]
    ours, theirs = run.start(reference), run.start(faulty)
    _, arrays = run.train(reference, ours, [0, 1])
    faulty.import_state(theirs, arrays)
    ends = [run.train(reference, ours, [2]), run.train(faulty, theirs, [2])]
    assert difference(run.spec, 3, *ends, since=1) == alone[2]
    assert free[2] != alone[2]


def test_a_difference_of_nothing_is_nothing() -> None:
    reference = ReferenceImplementation()
    state = reference.create(narrow("bce"))
    end = (dict.fromkeys(trajectory.METRIC_NAMES, 1.0), reference.export_state(state))
    assert difference(narrow("bce"), 1, end, end, since=1).within(Bounds(0.0, 0.0, 0.0))


def test_losses_are_relative_above_one_and_absolute_below() -> None:
    spec, arrays = narrow("bce"), {"a": np.ones(1)}
    for size, moved, expected in ((1e-3, 2e-3, 1e-3), (10.0, 11.0, 0.1)):
        losses = dict.fromkeys(trajectory.METRIC_NAMES, size)
        ends = ((losses | {"generator_loss": moved}, arrays), (losses, arrays))
        assert difference(spec, 1, *ends, since=1).loss[0] == expected


def test_a_state_with_a_missing_tensor_is_refused() -> None:
    class Partial(Faulty):
        def export_state(self, state: object) -> dict[str, np.ndarray]:
            arrays = super().export_state(state)
            del arrays["generator/batch_norm_1/var"]
            return arrays

    with pytest.raises(ValueError, match=r"state of faulty .* missing: generator/batch_norm_1/var"):
        compare([ReferenceImplementation(), Partial()], experiment("bce", "noise", 1))


def test_the_first_divergence_is_the_first() -> None:
    none = (0.0, "")
    tensors = ((1, 0.5), (2, 2.0), (3, 0.1), (4, 3.0))
    curve = [Difference(step, none, (tensor, "t"), none) for step, tensor in tensors]
    assert first_divergence(curve, Bounds(1.0, 1.0, 1.0)) == curve[1]
    assert first_divergence(curve, Bounds(1.0, 5.0, 1.0)) is None


def test_a_text_table_aligns_its_columns() -> None:
    rows = [["", "images", "average", "note"], ["real against real", "8", "12.5", ""]]
    assert text_table(rows, "<>><").splitlines() == [
        "                   images  average  note",
        "real against real       8     12.5",
    ]


def test_a_nudged_implementation_starts_one_ulp_away_and_is_the_same_otherwise() -> None:
    nudged, run = load_trainer("reference+ulp"), experiment("bce", "noise", 2)
    assert nudged.name == "reference+ulp"
    ours, theirs = (t.export_state(run.start(t)) for t in (load("reference"), nudged))
    for name, array in ours.items():
        moved = np.nextafter(array, np.inf) if name.endswith("/kernel") else array
        np.testing.assert_array_equal(theirs[name], moved, name)
    curves = compare([load("reference"), nudged], run)
    require_within(curves, BOUNDS["float64"])
    assert all(difference.tensor[0] > 0 for (curve,) in [curves.values()] for difference in curve)


def test_an_implementation_that_is_a_module_is_nudged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_port.py").write_text(
        "import sys\n"
        "from shared.reference.adapter import implementation as _own\n"
        "name, create, train_step = 'module_port', _own.create, _own.train_step\n"
        "import_state, export_state = _own.import_state, _own.export_state\n"
        "implementation = sys.modules[__name__]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    nudged, run = load_trainer("module_port+ulp"), experiment("bce", "noise", 2)
    assert load_trainer("module_port").name == "module_port", "the module itself is as it was"
    assert nudged.name == "module_port+ulp"
    expected = load_trainer("reference+ulp")
    ours, theirs = (t.export_state(run.start(t)) for t in (nudged, expected))
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, name)


def test_an_adapter_that_is_made_of_ours_is_another_one(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in docs/systems.md: a loop of one's own in one of our implementations has its name."""
    (tmp_path / "own_loop.py").write_text(
        "from shared.reference.adapter import ReferenceImplementation\n"
        "implementation = ReferenceImplementation()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for against in ("reference", "own_loop"):
        assert trajectory.main(["own_loop", "reference", *TINY, "--against", against]) == 0
        assert "own_loop - reference: within at every step" in capsys.readouterr().out


def test_the_command_prints_plots_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_port(tmp_path / "wrong_port.py", "batch_norm_epsilon=1e-3")
    monkeypatch.syspath_prepend(tmp_path)
    png = tmp_path / "growth.png"
    assert trajectory.main(["reference", "wrong_port", *TINY, "--plot", str(png)]) == 1
    output = capsys.readouterr().out
    assert "dcgan64, loss bce, width 2, batch 2, learning rate 0.0002, noise, float64" in output
    assert "reference - wrong_port: diverged at step 1: " in output
    with Image.open(png) as image:
        assert np.asarray(image.convert("L")).std() > 10


def test_the_command_says_when_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_port(tmp_path / "right_port.py", "")
    monkeypatch.syspath_prepend(tmp_path)
    assert trajectory.main(["reference", "right_port", *TINY]) == 0
    assert "reference - right_port: within at every step; furthest" in capsys.readouterr().out


def write_port(path: Path, deviation: str) -> None:
    path.write_text(
        "from shared.reference.adapter import ReferenceImplementation\n"
        "from shared.spec import Conventions\n"
        f"implementation = ReferenceImplementation(Conventions({deviation}))\n"
        f"implementation.name = {path.stem!r}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reference"], "two or more different implementations"),
        (["reference", "reference"], "two or more different implementations"),
        (["reference", "nothing"], "unknown implementation 'nothing'"),
        (["reference", "nothing+ulp"], "unknown implementation 'nothing'"),
        (["reference", "--steps", "0"], "--steps: must be at least 1"),
        (["reference", "--batch-size", "1"], "--batch-size: must be at least 2"),
        (["reference", "--plot", "no/such/folder.png"], "there is no folder no/such; make it"),
        (["reference", "--plot", "tests"], "tests is a folder; name a file in it"),
        (["reference", "shared.fixtures"], "no object called 'implementation'"),
        (["reference", "pytorch", "--dtype", "float32"], "float64 only"),
        (["reference", "shared.reference.adapter", "--against", "tf"], "tf among them"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert exit_code(trajectory.main, [*TINY, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize("name", ["bare_port", "bare_port+ulp"])
def test_an_implementation_that_lacks_a_method_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "class Bare:\n    create = import_state = train_step = None\nimplementation = Bare()\n"
    (tmp_path / "bare_port.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert exit_code(trajectory.main, [*TINY, "reference", name]) == 2
    error = capsys.readouterr().err.strip()
    assert f"{name} has no name, export_state; a trajectory needs" in error
    assert "\n" not in error
