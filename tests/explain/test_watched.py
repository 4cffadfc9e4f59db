"""A watched loop: the numbers are those of the loop, and its port's mistakes are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.explain.recordings import explain_recordings
from shared.files.errors import InputError
from shared.files.recording import read_recording
from shared.record import Recorder
from tests.conftest import require_framework
from tests.explain import watched_loops

D = "discriminator"


def numbers(path: Path) -> dict[tuple[int, str], Any]:
    return {(t.step, t.name): t.array.astype(np.float64) for t in read_recording(path).tensors}


def test_the_numbers_of_a_loop_in_pytorch(tmp_path: Path) -> None:
    """They fit one another as the rules of BN, Adam and a convolution want them."""
    require_framework("pytorch")
    import torch

    network, adam = watched_loops.in_pytorch(tmp_path / "a")
    held = numbers(tmp_path / "a")
    # D runs three times a step, on images, on G's and on G's again.
    images, _ = next(watched_loops.batches())
    assert np.array_equal(held[1, f"{D}/input"].transpose(0, 2, 3, 1), images)
    assert np.array_equal(held[1, f"{D}/input/2"], held[1, "generator/output"])
    assert np.array_equal(held[1, f"{D}/input/3"], held[1, f"{D}/input/2"])
    assert (1, f"{D}/input/4") not in held
    assert (1, "generator/input/2") not in held
    # The third pass has the updated weights.
    for number, step in (("", 0), ("/2", 0), ("/3", 1)):
        x, kernel = held[1, f"{D}/conv_3/input{number}"], held[step, f"{D}/conv_3/kernel"]
        expected = np.einsum("nchw,ochw->no", x, kernel) + held[step, f"{D}/conv_3/bias"]
        found = held[1, f"{D}/conv_3/output{number}"][:, :, 0, 0]
        assert found == pytest.approx(expected, abs=1e-5)  # sums of 128 terms in float32
    # The statistics move once a pass, by 0.1, from 0; Adam's moments from the gradient.
    mean = np.zeros(8)
    for number in ("", "/2", "/3"):
        mean += 0.1 * (held[1, f"{D}/batch_norm_1/input{number}"].mean((0, 2, 3)) - mean)
    assert held[1, f"{D}/batch_norm_1/mean"] == pytest.approx(mean, abs=1e-6)
    for name in (f"{D}/conv_1/kernel", "generator/batch_norm_1/scale"):
        m = 0.0
        for step in (1, 2):
            m = 0.5 * m + 0.5 * held[step, f"{name}/gradient"]
            assert held[step, f"{name}/m"] == pytest.approx(m, abs=1e-6)
        moved = held[1, name] - held[0, name]
        assert moved == pytest.approx(-2e-4 * np.sign(held[1, f"{name}/gradient"]), abs=1e-6)
        assert (0, f"{name}/m") not in held
    # Nothing is left behind.
    assert {type(layer).__module__.split(".")[0] for layer in network.modules()} == {"torch"}
    assert type(adam) is torch.optim.Adam


@pytest.mark.slow
@pytest.mark.parametrize("rightly", [True, False], ids=["right", "with defaults"])
@pytest.mark.parametrize("framework", ["tf", "jax"])
def test_a_port_of_the_loop(framework: str, rightly: bool, tmp_path: Path) -> None:
    for needed in ("pytorch", framework):
        require_framework(needed)
    watched_loops.in_pytorch(tmp_path / "a")
    port: Callable = {"tf": watched_loops.in_keras, "jax": watched_loops.in_flax}[framework]
    network, optimizer = port(tmp_path / "b", rightly)
    assert numbers(tmp_path / "a").keys() == numbers(tmp_path / "b").keys()
    report = explain_recordings(tmp_path / "a", tmp_path / "b")
    assert not report.findings
    differ = {p.one.name.rsplit("/", 1)[-1] for p in report.pairs if not p.agrees}
    named = {trap.field for trap in report.traps}
    expected = {"batch_norm_running_variance"}  # biased in Keras and Flax, whatever is set
    if framework == "tf":
        expected.add("adam_epsilon_placement")  # so is Keras' own place for it
    if not rightly:
        expected |= {"batch_norm_momentum"} | (
            {"batch_norm_epsilon"} if framework == "tf" else set()
        )
    assert named == expected
    if framework == "jax":
        assert differ == ({"var"} if rightly else {"var", "mean"})
    # Nothing is left behind.
    assert type(optimizer).__module__.split(".")[0] in ("keras", "flax")
    assert type(network).__module__.split(".")[0] in ("keras", "tests")


def test_what_cannot_be_watched_is_refused_in_a_line(tmp_path: Path) -> None:
    require_framework("pytorch")
    import torch

    network = torch.nn.Linear(3, 1)
    record = Recorder(tmp_path / "a")
    for arguments, message in (
        ((np.ones(3),), "'d': received a ndarray; expected a torch.nn.Module, a keras.Layer or"),
        ((network, "adam"), "received a str as the optimizer; expected an Optimizer of torch"),
        ((torch.nn.ReLU(),), "'d': a ReLU without weights; expected a network whose layers exist"),
    ):
        with pytest.raises(InputError, match=message) as error:
            record.watch("d", *arguments)
        assert "\n" not in str(error.value)


def test_a_block_that_raises_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    require_framework("pytorch")
    import torch

    network = torch.nn.Linear(3, 1)

    def recorded() -> None:
        with Recorder(tmp_path / "a") as record:
            record.watch("d", network)
            network(torch.ones(2, 3))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recorded()
    assert type(network) is torch.nn.Linear
    assert not (tmp_path / "a").exists()
