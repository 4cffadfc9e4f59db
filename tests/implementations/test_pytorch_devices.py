"""What PyTorch's implementation asks of GPUs, where PyTorch only says that it has some."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from shared.spec import SYSTEMS
from shared.spec.compute import Compute

torch = pytest.importorskip("torch")

from pytorch_impl import state  # noqa: E402

SPEC = SYSTEMS["mlp28"].replace(width=2, latent_dim=5, batch_size=4)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Let PyTorch say that it has GPUs; give where their precisions are set, and put them back."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(state.parallel, "check_processes", lambda devices: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    places = [torch.backends.cuda.matmul, torch.backends.cudnn.conv]
    held = [place.fp32_precision for place in places]
    yield places
    for place, precision in zip(places, held, strict=True):
        place.fp32_precision = precision


@pytest.mark.parametrize(
    ("compute", "is_recorded"),
    [
        (Compute(device="gpu", mode="cudagraph"), True),
        (Compute(device="gpu", mode="compile"), True),
        (Compute(device="gpu", mode="eager"), False),
        (Compute(device="gpu", mode="compile", devices=2), False),
        (Compute(device="cpu", mode="compile"), False),
        (Compute(device="cpu", mode="compile", devices=2), False),
    ],
)
def test_the_step_is_recorded_on_one_gpu(compute: Compute, is_recorded: bool) -> None:
    assert state.TrainState.is_recorded.fget(SimpleNamespace(compute=compute)) is is_recorded


def test_a_step_is_a_graph_on_one_gpu_alone(settings: list[object]) -> None:
    assert state.check_compute(SPEC, Compute(device="gpu")).mode == "cudagraph"
    assert state.check_compute(SPEC, Compute(device="gpu", mode="cudagraph")).mode == "cudagraph"
    assert state.check_compute(SPEC, Compute(device="gpu", devices=2)).mode == "eager"
    for wrong in ({"device": "cpu"}, {"device": "gpu", "devices": 2}):
        with pytest.raises(ValueError, match="mode cudagraph needs one GPU"):
            state.check_compute(SPEC, Compute(mode="cudagraph", **wrong))


@pytest.mark.parametrize(("precision", "held"), [("float32", "ieee"), ("tf32", "tf32")])
def test_tf32_is_for_all_products_or_for_none(
    settings: list[object], precision: str, held: str
) -> None:
    for place in settings:
        place.fp32_precision = "ieee" if held == "tf32" else "tf32"
    state.check_compute(SPEC, Compute(device="gpu", precision=precision))
    assert [place.fp32_precision for place in settings] == [held, held]


@pytest.mark.parametrize(
    ("device", "is_one_of_several", "chosen"),
    [("gpu", True, [1]), ("auto", True, [1]), ("gpu", False, []), ("cpu", True, [])],
)
def test_each_process_takes_the_gpu_of_its_number(
    settings: list[object],
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    is_one_of_several: bool,
    chosen: list[int],
) -> None:
    """Process 3 of two machines with two GPUs each has the second GPU of its machine."""
    taken: list[int] = []
    monkeypatch.setattr(state.dist, "is_initialized", lambda: is_one_of_several)
    monkeypatch.setattr(state, "process_number", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert state.select_device(device).type == ("cpu" if device == "cpu" else "cuda")
    assert taken == chosen
