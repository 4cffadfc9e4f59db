"""What PyTorch's implementation asks of GPUs, where PyTorch only says that it has some."""

from collections.abc import Iterator

import numpy as np
import pytest

from shared.spec import SYSTEMS
from shared.spec.compute import Compute

torch = pytest.importorskip("torch")

from pytorch_impl import checkpoint, parallel, state, train  # noqa: E402

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


def test_a_step_is_recorded_once_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, replayed = [], []

    class Recorded:
        def __init__(self, *arguments: object) -> None:
            recorded.append(arguments)

        def __call__(self, *batches: object) -> dict:
            replayed.append(batches)
            return {}

    monkeypatch.setattr(train, "CapturedStep", Recorded)
    held = train.create_train_state(SPEC)
    held.compute = Compute(device="gpu", mode="cudagraph")
    batches = [np.zeros(shape, np.float32) for shape in ((4, 28, 28, 1), (4, 5))]
    for _ in range(3):
        train.train_step(held, *state.batches_to_devices(held, *batches))
    assert (len(recorded), len(replayed)) == (1, 3)


@pytest.mark.parametrize(
    ("batch_norm", "devices", "is_averaged"),
    [("per-replica", 2, True), ("per-replica", 1, False), ("global", 2, False)],
)
def test_running_statistics_of_replicas_are_averaged_where_they_are_read(
    monkeypatch: pytest.MonkeyPatch, batch_norm: str, devices: int, is_averaged: bool
) -> None:
    averaged: list[object] = []
    for module in (parallel, checkpoint):
        monkeypatch.setattr(module, "average_statistics", averaged.append)
    held = train.create_train_state(SPEC)
    held.compute = Compute(batch_norm=batch_norm, devices=devices)
    networks = [held.generator, held.discriminator]
    train.generate(held, state.latents_to_device(held, np.zeros((4, 5), np.float32)))
    assert averaged == (networks[:1] if is_averaged else [])
    averaged.clear()
    checkpoint.export_state(held)
    assert averaged == (networks if is_averaged else [])


@pytest.mark.parametrize("devices", [1, 2])
def test_both_networks_are_replicated_on_several_devices(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    monkeypatch.setattr(parallel, "check_processes", lambda devices: None)
    monkeypatch.setattr(checkpoint, "replicate", lambda network: [network])
    held = checkpoint.create_train_state(SPEC, Compute(devices=devices))
    networks = {"generator": [held.generator], "discriminator": [held.discriminator]}
    assert held.replicated == (networks if devices > 1 else {})
