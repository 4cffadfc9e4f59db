"""A run on two hosts, which are two network namespaces joined by a virtual cable."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shared.files.checkpoint import read_checkpoint
from shared.interface import IMPLEMENTATIONS
from tests import ROOT
from tests.implementations.test_parallel_runs import BOUND, SMALL, require, train_alone

pytestmark = pytest.mark.slow
PORT = 29517  # of the namespaces' own, so that nothing else can hold it
STEPS = ("--dtype", "float64", "--steps", "12")


@dataclass(frozen=True)
class Host:
    """A network namespace with one end of the cable."""

    name: str
    address: str
    interface: str


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    tag = f"gan{os.getpid()}"
    first, second = (
        Host(f"{tag}{x}", f"10.77.0.{i}", f"v{tag}{x}") for i, x in ((1, "a"), (2, "b"))
    )
    try:
        ip("netns", "add", first.name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"two hosts need the right to make network namespaces (ip netns): {error}")
    try:
        ip("netns", "add", second.name)
        ip("link", "add", first.interface, "type", "veth", "peer", "name", second.interface)
        for host in (first, second):
            ip("link", "set", host.interface, "netns", host.name)
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", host.interface)
            ip("-n", host.name, "link", "set", host.interface, "up")
            ip("-n", host.name, "link", "set", "lo", "up")
        yield first, second
    finally:
        for host in (first, second):
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)


def environment(framework: str, hosts: tuple[Host, Host], index: int) -> dict[str, str]:
    """Return what each engine's own launcher would set on a host."""
    address = f"{hosts[0].address}:{PORT}"
    workers = [f"{host.address}:{PORT}" for host in hosts]
    task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    return (
        os.environ
        | {
            "pytorch": {"GLOO_SOCKET_IFNAME": hosts[index].interface},
            "tf": {"TF_CONFIG": json.dumps(task)},
            "jax": {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            },
        }[framework]
    )


def command(framework: str, hosts: tuple[Host, Host], index: int, out: Path) -> list[str]:
    # JAX' gloo looks its own address up by the host's name.
    named = ["unshare", "--uts", "sh", "-c", f'hostname {hosts[index].address}; exec "$@"', "sh"]
    within = ["ip", "netns", "exec", hosts[index].name, *named, sys.executable]
    options = ["-m", f"{framework}_impl.train", *SMALL, *STEPS, "--devices", "2", "--out", str(out)]
    if framework != "pytorch":
        return [*within, *options]
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(index)]
    meeting = ["--master-addr", hosts[0].address, "--master-port", str(PORT)]
    return [*within, "-m", "torch.distributed.run", *nodes, *meeting, *options]


@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_two_hosts_train_what_one_device_trains(framework, hosts, tmp_path):
    require(framework)
    out, alone = tmp_path / "two", tmp_path / "one"
    processes = [
        subprocess.Popen(
            command(framework, hosts, index, out),
            cwd=ROOT,
            env=environment(framework, hosts, index),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        printed = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
    assert "devices        2, each with 4 images" in printed[0]
    assert "devices  " not in printed[1]  # the second host follows in silence
    train_alone(framework, alone, *STEPS)
    name = "checkpoints/step_000012.safetensors"
    found, truth = read_checkpoint(out / name).arrays, read_checkpoint(alone / name).arrays
    assert max(np.abs(found[n] - truth[n]).max() for n in truth) <= BOUND
