"""The plan of a benchmark: configurations, their order and their input, and bad options."""

import itertools

import numpy as np
import pytest

from benchmarks.plan import host
from benchmarks.plan.configuration import Request
from benchmarks.plan.costs import workload
from benchmarks.plan.options import choose_device, parse
from benchmarks.worker import main as worker
from benchmarks.worker.workloads import batches
from shared.interface import IMPLEMENTATIONS
from shared.spec import SYSTEMS
from tests.benchmarks.stand_ins import INSTALLED, QUICKEST, TINY, call, tiny_request

pytestmark = pytest.mark.skipif(not INSTALLED, reason="no framework is installed")


def test_order_is_shuffled_in_every_round_and_follows_from_the_seed():
    plan = parse(["--rounds", "20", "--seed", "3"])
    order = [(configuration.framework, number) for configuration, number in plan.order]
    rounds = [[name for name, number in order if number == i] for i in range(20)]
    assert all(sorted(names) == sorted(IMPLEMENTATIONS) for names in rounds)
    assert len({tuple(names) for names in rounds}) > 2
    assert plan.order == parse(["--rounds", "20", "--seed", "3"]).order
    assert plan.order != parse(["--rounds", "20", "--seed", "4"]).order


def test_every_combination_is_a_configuration_with_a_name_of_its_own():
    arguments = ["--batch-size", "8", "16", "--precision", "fp32", "bf16", "--baselines", "--aa"]
    plan = parse([*arguments, "--mode", "jit", "xla", "eager", "compile", "--device", "cpu"])
    ids = [configuration.id for configuration in plan.configurations]
    # Four modes of ours and three baselines, twice, at two sizes and two precisions.
    assert len(ids) == len(set(ids)) == (4 + 3) * 2 * 2 * 2
    assert plan.time_budget == 10 * len(ids) * plan.rounds
    assert plan.modes == ["jit", "xla", "eager", "compile"]
    assert parse(["--batch-size", "16", "8", "16"]).batch_sizes == [16, 8]


def test_auto_is_one_device_for_all_frameworks(monkeypatch):
    monkeypatch.setattr(host, "gpu_driver", lambda: "/dev/nvidia0")
    assert choose_device("auto") == ("gpu", "auto: found /dev/nvidia0")
    assert parse([]).batch_sizes == [SYSTEMS["dcgan64"].batch_size]
    monkeypatch.setattr(host, "gpu_driver", lambda: None)
    assert choose_device("auto")[0] == "cpu"
    assert choose_device("gpu")[0] == "gpu"


def test_request_survives_the_process_border():
    request = tiny_request()
    assert Request.from_json(request.to_json()) == request


@pytest.mark.parametrize("source", ["host", "loader"])
def test_batches_that_are_not_on_the_device_are_new_and_named(source):
    plan = parse([*TINY, "--framework", QUICKEST, "--input", source])
    (configuration,) = plan.configurations
    assert configuration.id.endswith(f"input-{source}")
    request = Request(plan, configuration, 0, 1.0)
    found = list(itertools.islice(batches(request, lambda batch: batch), 3))
    for images, z in found:
        assert images.shape == (4, 64, 64, 3)
        assert z.shape == (4, 100)
        assert images.dtype == z.dtype == np.float32
    assert not np.array_equal(found[0][0], found[1][0])
    assert not np.array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--framework", "mxnet"],
        ["--system", "stylegan"],
        ["--loss", "hinge"],
        ["--device", "tpu"],
        ["--batch-size", "1"],
        ["--batch-size", "many"],
        ["--precision", "fp8"],
        ["--precision", "tf32", "--device", "cpu"],
        ["--mode", "jit", "--framework", "pytorch"],
        ["--baselines", "--loss", "lsgan"],
        ["--data", "."],
        ["--data", "/nowhere", "--input", "loader"],
        ["--input", "disk"],
        ["--report", "/dev/null/report"],
        ["--width", "0"],
        ["--image-size", "48"],
        ["--image-size", "512"],
        ["--image-size", "64", "--system", "conv28"],
        ["--steps", "0"],
        ["--rounds", "0"],
        ["--threads", "0"],
        ["--threads", "1000000"],
        ["--time-budget", "0"],
        ["--time-budget", "nan"],
        ["--time-limit", "inf"],
        ["--seed", "-1"],
        ["--json", "/nowhere/at/all.json"],
        ["--json", "/"],
        ["--frame", "jax"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_before_anything_runs(arguments, monkeypatch, capsys):
    def run_worker(*_):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(worker, "run_worker", run_worker)
    assert call(*arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "error" in output.err


@pytest.mark.parametrize(("arguments", "channels"), [([], 3), (["--channels", "1"], 1)])
def test_channels_are_those_of_what_is_timed(arguments, channels):
    plan = parse([*arguments, "--image-size", "32", "--batch-size", "4", "--device", "cpu"])
    spec = plan.spec(4)
    assert spec.image_shape == (32, 32, channels)
    assert workload(spec, "float32")["channels"] == channels
