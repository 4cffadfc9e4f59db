"""shared.spec.compute and the options of several devices."""

import functools
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from shared.spec import SYSTEMS
from shared.spec.compute import check_replicas, require_devices, rows_of_replica

SPEC = SYSTEMS["dcgan64"].replace(batch_size=12)


def test_the_slices_of_all_devices_are_the_batches_in_order():
    batches = [np.arange(24.0).reshape(12, 2) + 100 * k for k in range(3)]
    for devices in (1, 2, 3, 4):
        parts = [rows_of_replica(np.concatenate(batches), 3, devices, r) for r in range(devices)]
        for k, batch in enumerate(batches):
            own = [np.split(part, 3)[k] for part in parts]
            np.testing.assert_array_equal(np.concatenate(own), batch)


def test_rows_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match="10 rows are not 2 batches on 4 devices"):
        rows_of_replica(np.zeros(10), 2, 4, 0)


@pytest.mark.parametrize(
    ("devices", "batch_norm", "message"),
    [
        (0, "global", "--devices must be at least 1, received 0"),
        (5, "global", "--batch-size 12 is no multiple of --devices 5"),
        (12, "per-replica", "needs 2 images on each device"),
        (2, "local", "unknown --batch-norm 'local'; expected one of global, per-replica"),
    ],
)
def test_what_cannot_be_trained_on_several_devices_is_reported(devices, batch_norm, message):
    with pytest.raises(ValueError, match=message):
        check_replicas(SPEC, devices, batch_norm)


@pytest.mark.parametrize(
    ("found", "kind", "end"),
    [
        (0, "gpu", "0 GPUs; use --devices 1 or --device cpu"),
        (1, "gpu", "1 GPU; use --devices 1 or --device cpu"),
        (2, "cpu", "2 CPUs; use --devices 2"),
    ],
)
def test_devices_that_are_not_there_are_counted(found, kind, end):
    message = f"^--devices 3 was asked for, but JAX sees {end}$"
    with pytest.raises(ValueError, match=message):
        require_devices("JAX", 3, found, kind)
    require_devices("JAX", found, found, kind)


def test_every_image_of_its_own_device_is_fine_where_batch_norm_is_global():
    check_replicas(SPEC, 12, "global")


WORKERS = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
COORDINATOR = {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}


@pytest.mark.parametrize(
    ("framework", "environment", "message"),
    [
        ("tf", {"TF_CONFIG": json.dumps(WORKERS)}, "names 2 workers with 1 CPU each; use"),
        ("jax", COORDINATOR, "JAX_COORDINATOR_ADDRESS is expected to be HOST:PORT, received 'a'"),
    ],
    ids=["tf", "jax"],
)
def test_a_run_joins_its_hosts_first(
    framework, environment, message, tmp_path, capsys, monkeypatch
):
    """Hosts that cannot be joined are said before anything else; PyTorch's torchrun joins them."""
    pytest.importorskip({"tf": "tensorflow"}.get(framework, framework))
    train = importlib.import_module(f"{framework}_impl.train")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if framework == "tf":  # which reads its variable once in a process
        place = functools.cache(train.cluster._place.__wrapped__)
        monkeypatch.setattr(train.cluster, "_place", place)
    assert train.main(["--device", "cpu", "--devices", "4", "--out", str(tmp_path / "a")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


HOLD = """
import sys, time
from pathlib import Path
from shared.run.folder import RunFolder
lock = RunFolder(Path(sys.argv[1])).lock()
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path):
    from shared.run.folder import RunFolder

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="another process is training into --out"):
            RunFolder(tmp_path).lock()
    finally:
        holder.kill()
        holder.communicate()
    RunFolder(tmp_path).lock().release()
