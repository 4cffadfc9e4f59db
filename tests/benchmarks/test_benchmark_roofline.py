"""The roofline: bytes against counts by hand, bandwidths against clocks that are told the time."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.document import roofline
from benchmarks.document import stored as stored_document
from benchmarks.plan.costs import bytes_per_image, fixed_bytes, flops_per_image
from benchmarks.show import page, plots
from benchmarks.show import tables as report
from benchmarks.worker import rates
from shared.spec import SYSTEMS
from tests import ROOT
from tests.benchmarks.documents import make_document, validate
from tests.benchmarks.stand_ins import INSTALLED, plant, stand_in, tiny_request
from tests.tiers import SLOW_IN_TF_AND_JAX

STORED = sorted((ROOT / "benchmarks" / "results").glob("*.json"))

# --- bytes -------------------------------------------------------------------------------------

# Elements of input and output per image, of the kernel, and multiply-adds per image of each layer
# that has a kernel: written down from the tables of the papers, not taken from the spec.
LAYERS = {
    "dcgan64": {
        "generator": [
            (100, 8192, 100 * 8192, 819_200),
            (8192, 16384, 16 * 512 * 256, 16 * 16 * 512 * 256),
            (16384, 32768, 16 * 256 * 128, 64 * 16 * 256 * 128),
            (32768, 65536, 16 * 128 * 64, 256 * 16 * 128 * 64),
            (65536, 12288, 16 * 64 * 3, 1024 * 16 * 64 * 3),
        ],
        "discriminator": [
            (12288, 65536, 16 * 3 * 64, 1024 * 16 * 3 * 64),
            (65536, 32768, 16 * 64 * 128, 256 * 16 * 64 * 128),
            (32768, 16384, 16 * 128 * 256, 64 * 16 * 128 * 256),
            (16384, 8192, 16 * 256 * 512, 16 * 16 * 256 * 512),
            (8192, 1, 8192, 8192),
        ],
    },
    "conv28": {
        "generator": [
            (62, 1024, 62 * 1024, 62 * 1024),
            (1024, 6272, 1024 * 6272, 1024 * 6272),
            (6272, 12544, 16 * 128 * 64, 49 * 16 * 128 * 64),
            (12544, 784, 16 * 64, 196 * 16 * 64),
        ],
        "discriminator": [
            (784, 12544, 16 * 64, 196 * 16 * 64),
            (12544, 6272, 16 * 64 * 128, 49 * 16 * 64 * 128),
            (6272, 1024, 6272 * 1024, 6272 * 1024),
            (1024, 1, 1024, 1024),
        ],
    },
    "mlp28": {
        "generator": [
            (100, 128, 12800, 12800),
            (128, 256, 32768, 32768),
            (256, 784, 200_704, 200_704),
        ],
        "discriminator": [
            (784, 256, 200_704, 200_704),
            (256, 128, 32768, 32768),
            (128, 1, 128, 128),
        ],
    },
}
# The README's, both networks.
PARAMETERS = {
    "dcgan64": (3_576_704, 2_765_568),
    "conv28": (6_640_193, 6_559_169),
    "mlp28": (247_440, 233_985),
}


def bytes_per_step(spec, batch_size, precision):
    return fixed_bytes(spec) + batch_size * bytes_per_image(spec, precision)


def walk(system, steps, batch):
    """Return the layers that a step passes, one after another, and the numbers Adam updates."""
    g, d = LAYERS[system]["generator"], LAYERS[system]["discriminator"]
    passed, updated = [], 0
    for _ in range(steps):
        passed += g  # images, detached
        for _ in ("real", "fake"):
            passed += [*d, *d, *d[1:]]  # forward, by the weights, by the inputs but the images
        updated += PARAMETERS[system][1]
    passed += [] if batch == "same_images" else g  # forward once more
    passed += [*d, *d]  # forward, by the inputs, the images included
    passed += [*g, *g[1:]]  # by the weights, by the inputs but the latents
    return passed, updated + PARAMETERS[system][0]


@pytest.mark.parametrize("batch", ["same_images", "same_latents", "new_latents"])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("system", LAYERS)
def test_bytes_and_operations_are_those_of_a_step_walked_by_hand(system, steps, batch):
    spec = SYSTEMS[system].replace(discriminator_steps=steps, generator_batch=batch)
    passed, updated = walk(system, steps, batch)
    assert flops_per_image(spec) == 2 * sum(operations for _, _, _, operations in passed)
    for images, (precision, size) in itertools.product(
        (1, 64), {"float32": 4, "tf32": 4, "bfloat16": 2}.items()
    ):
        # Two operands and a result are the input, the output and the kernel, whichever pass it is.
        moved = sum(
            size * images * (before + after) + 4 * kernel for before, after, kernel, _ in passed
        )
        assert bytes_per_step(spec, images, precision) == moved + 7 * 4 * updated


def test_the_step_of_dcgan64_moves_1_7_gigabytes():
    """The sum, in elements, from the shapes alone.

    D: a pass moves per image 77,824 + 98,304 + 49,152 + 24,576 + 8,193 = 258,049 and a kernel of
    2,763,776; eight passes, two without the first layer (77,824 and 3,072). G: a pass moves
    8,292 + 24,576 + 49,152 + 98,304 + 77,824 = 258,148 and 3,574,784; three passes, one without
    the first layer (8,292 and 819,200).
    """
    per_image = 8 * 258_049 - 2 * 77_824 + 3 * 258_148 - 8_292
    kernels = 8 * 2_763_776 - 2 * 3_072 + 3 * 3_574_784 - 819_200
    adam = 7 * (3_576_704 + 2_765_568)
    expected = 4 * (128 * per_image + kernels + adam)
    assert expected == 1_675_167_232
    assert bytes_per_step(SYSTEMS["dcgan64"], 128, "float32") == expected
    half = 2 * 128 * per_image + 4 * (kernels + adam)
    assert bytes_per_step(SYSTEMS["dcgan64"], 128, "bfloat16") == half


@pytest.mark.parametrize("system", SYSTEMS)
def test_bytes_grow_evenly_with_the_batch_and_with_the_steps_of_the_discriminator(system):
    spec = SYSTEMS[system]
    by_batch = [bytes_per_step(spec, batch, "float32") for batch in (8, 16, 24)]
    assert by_batch[2] - by_batch[1] == by_batch[1] - by_batch[0] > 0
    assert 2 * by_batch[0] > by_batch[1]  # weights and Adam are not made twice
    by_steps = [
        bytes_per_step(spec.replace(discriminator_steps=k), 8, "float32") for k in (1, 2, 3)
    ]
    assert by_steps[2] - by_steps[1] == by_steps[1] - by_steps[0] > 0


# --- rates ---------------------------------------------------------------------------------------


def test_rates_are_in_1e9_a_second_and_the_best_is_kept(monkeypatch):
    # The first is the warm-up; of the others each is that of 1, 2 and 4 times.
    clock, seconds = [0.0], iter([9.0, 0.5, *[0.25] * 2, *[2.0] * 4])
    waited = []

    def once():
        clock[0] += next(seconds)

    monkeypatch.setattr(rates.time, "perf_counter", lambda: clock[0])
    found = rates.best_rate(once, 3e9, lambda: waited.append(clock[0]))
    assert found == pytest.approx(12.0)  # 3e9 in a quarter of a second
    assert waited == [9.0, 9.5, 10.0, 18.0]  # after all of each


def test_the_time_of_the_wait_is_in_a_rate(monkeypatch):
    # As on a GPU, which returns before it has computed, and waits only for what still exists.
    clock, held = [0.0], []

    class Result:
        def __init__(self):
            held.append(weakref.ref(self))

    def wait():
        assert held[-1]() is not None
        clock[0] += 0.5 * len(held)
        held.clear()

    monkeypatch.setattr(rates.time, "perf_counter", lambda: clock[0])
    assert rates.best_rate(Result, 1e9, wait) == pytest.approx(2.0)


def test_a_row_has_gflops_and_gbytes_per_second(monkeypatch):
    clock = [0.0]

    def each(seconds):
        def once():
            clock[0] += seconds

        return once

    monkeypatch.setattr(rates.time, "perf_counter", lambda: clock[0])
    parts = {
        "product": lambda request, size: each(1e-11 * 2 * size**3),  # 100 GFLOP/s
        # 20 GB/s: two arrays of float32 read and one written.
        "addition": lambda request, length: each(12 * length / 20e9),
    }
    found = rates.framework_rates(stand_in({}, **parts), tiny_request())
    assert found["peak_gflops_per_second"] == pytest.approx(100.0)
    assert found["bandwidth_gbytes_per_second"] == pytest.approx(20.0)


ADD = """
import inspect, json, numpy as np
from benchmarks.plan import host
from benchmarks.worker import workloads
from tests.benchmarks.stand_ins import tiny_request
request, length = tiny_request({framework!r}), 2**24
framework = workloads.load({framework!r})
framework.configure(request)
framework.addition(request, 1024)()
before = host.peak_resident_bytes()
add = framework.addition(request, length)
for _ in range(5):
    add()
framework.wait(request)
arrays = (host.peak_resident_bytes() - before) / (4 * length)
total = np.asarray(inspect.getclosurevars(add).nonlocals["total"])
print(json.dumps([arrays, float(total.min()), float(total.max()), total.dtype.name, total.size]))
"""


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("framework", INSTALLED)
def test_additions_are_made_each_time_and_in_place(framework):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", ADD.format(framework=framework)]
    finished = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    arrays, *total = json.loads(finished.stdout)
    assert total == [6.0, 6.0, "float32", 2**24]  # one and five times one
    assert 1.9 < arrays < 2.5  # a result of its own would be a third array


def test_numpy_adds_in_place_too(monkeypatch):
    seen = []
    monkeypatch.setattr(rates, "NUMPY_SIZES", (2,))
    monkeypatch.setattr(rates, "ADDITION_SIZE", {"cpu": 1000})
    monkeypatch.setattr(rates, "best_rate", lambda once, amount: seen.append((once, amount)) or 7)
    assert rates.numpy_rates()["bandwidth"]["gbytes_per_second"] == 7
    multiply, amount = seen[0]
    assert amount == 2 * 2**3
    assert multiply().tolist() == [[0.5, 0.5], [0.5, 0.5]]
    add, amount = seen[-1]
    assert amount == 12_000
    for _ in range(3):
        total = add()
    assert np.all(total == 4.0)


# --- what a document says of it -------------------------------------------------------------------

PER_IMAGE, FIXED = 10_699_584, 305_620_480  # dcgan64, float32: bytes by the sums above
FLOPS = 2_274_623_488


def rows(bandwidth, rate=50.0, peak=100.0):
    def answer(configuration, number):
        rates = {"peak_gflops_per_second": peak, "bandwidth_gbytes_per_second": bandwidth}
        return {"rates": [rate] * 3, **rates}

    return answer


def results_of(document):
    return [summary["results"] for summary in document["summary"]]


@pytest.mark.parametrize(("bandwidth", "limit"), [(10.0, "compute"), (1.0, "memory")])
def test_percent_of_roofline_is_the_larger_time_over_that_of_a_step(bandwidth, limit):
    document = make_document(["--framework", "jax", "--batch-size", "8"], rows(bandwidth))
    (found,) = results_of(document)
    compute, memory = 8 * FLOPS / 100e9, (FIXED + 8 * PER_IMAGE) / (bandwidth * 1e9)
    assert found["percent_of_roofline"] == pytest.approx(100 * max(compute, memory) / (8 / 50))
    assert found["percent_of_gemm_peak"] == pytest.approx(100 * compute / (8 / 50))
    assert found["roofline"] == {
        "limit": limit,
        "compute_ms": pytest.approx(1e3 * compute),
        "memory_ms": pytest.approx(1e3 * memory),
        "bytes_per_step": FIXED + 8 * PER_IMAGE,
    }
    line, *cautions = report.limit_lines(document)
    assert (report.ABOVE_ROOFLINE in cautions) == (limit == "memory")
    assert line.startswith(f"Roofline of float32, batch 8, threads 1: {limit}. 18.2 GFLOP at 100 ")
    assert f"0.391 GB at {bandwidth:#.3g} GB/s" in line


def test_bfloat16_has_less_to_move_and_the_same_memory():
    def answer(configuration, number):
        wide = configuration.precision == "float32"
        return rows(4.0 if wide else 2.0, peak=100.0 if wide else 300.0)(configuration, number)

    arguments = ["--framework", "jax", "--batch-size", "8", "--precision", "fp32", "bf16"]
    wide, narrow = results_of(make_document(arguments, answer))
    # The best bandwidth of the run, whoever measured it; the peak is that of the precision.
    assert narrow["roofline"]["memory_ms"] == pytest.approx((FIXED + 4 * PER_IMAGE) / 4e6)
    assert narrow["roofline"]["compute_ms"] == pytest.approx(8 * FLOPS / 300e6)
    assert wide["roofline"]["compute_ms"] == pytest.approx(8 * FLOPS / 100e6)


def test_rates_are_the_best_of_the_run_with_these_threads():
    document = {
        "peaks": [
            {"precision": "float32", "threads": t, "gflops_per_second": r}
            for t, r in ((1, 90.0), (1, 100.0), (2, 200.0))
        ],
        "bandwidths": [
            {"threads": t, "gbytes_per_second": r} for t, r in ((1, 20.0), (1, 10.0), (2, 30.0))
        ],
        "requested": {"device": "cpu"},
        "workload": {"flops_per_image": 1},
    }
    for threads, expected in ((1, (100.0, 20.0)), (2, (200.0, 30.0)), (4, (None, None))):
        asked = {"precision": "float32", "threads": threads, "batch_size": 1}
        found = roofline.roofline_of(document, asked)
        assert (found.peak, found.bandwidth) == expected


@pytest.mark.parametrize(("device", "factor"), [("cpu", 1), ("gpu", 4)])
def test_every_device_has_weights_and_adam_of_its_own_and_a_gpu_its_own_memory(device, factor):
    document = {
        "requested": {"device": device},
        "workload": {
            "flops_per_image": 10,
            "bytes_per_step": {"tf32": {"fixed": 1000, "per_image": 3}},
        },
        "peaks": [{"precision": "tf32", "threads": 1, "gflops_per_second": 7.0}],
        "bandwidths": [{"threads": 1, "gbytes_per_second": 5.0}],
    }
    configuration = {"precision": "tf32", "threads": 1, "devices": 4, "batch_size": 8}
    found = roofline.roofline_of(document, configuration)
    assert (found.operations, found.moved_bytes) == (80, 4 * 1000 + 8 * 3)
    assert (found.peak, found.bandwidth) == (factor * 7.0, factor * 5.0)
    assert roofline.roofline_of(document, configuration, 16).moved_bytes == 4 * 1000 + 16 * 3


@pytest.mark.parametrize("missing", ["moved_bytes", "peak", "bandwidth"])
def test_without_one_of_its_figures_there_is_no_roofline(missing):
    figures = {"operations": 1e9, "moved_bytes": 3e9, "peak": 1.0, "bandwidth": 1.0}
    assert roofline.Roofline(**figures).seconds == 3.0
    half = roofline.Roofline(**figures | {missing: None})
    assert half.seconds is half.to_dict() is None
    assert (half.compute_seconds, half.memory_seconds) == (
        (None, 3.0) if missing == "peak" else (1.0, None)
    )


def test_without_a_bandwidth_there_is_no_percentage_and_the_plot_has_the_operations(tmp_path):
    document = make_document(["--framework", "jax"], rows(None))
    (found,) = results_of(document)
    assert found["percent_of_roofline"] is found["roofline"] is None
    assert found["percent_of_gemm_peak"] > 0
    assert not any(line.startswith("Roofline") for line in report.limit_lines(document))
    assert "memory bandwidth: not measured" in printed(document)
    assert "memory bandwidth: not measured" in page.write(tmp_path, document).read_text()
    (axes,) = plots._throughput(document, plots._measured(document)).axes
    (line,) = [line for line in axes.lines if "float32 roofline" in str(line.get_label())]
    np.testing.assert_allclose(line.get_ydata(), 100e9 / FLOPS)


def test_a_cpu_device_with_a_part_of_the_threads_gives_no_bandwidth():
    arguments = ["--framework", "jax", "--batch-size", "8", "--devices", "1", "2"]

    def answer(configuration, number):
        return rows(10.0 if configuration.devices == 1 else 99.0)(configuration, number)

    document = make_document(arguments, answer)
    assert [entry["gbytes_per_second"] for entry in document["bandwidths"]] == [10.0]
    one, two = (found["roofline"] for found in results_of(document))
    assert two["bytes_per_step"] - one["bytes_per_step"] == FIXED
    assert two["memory_ms"] / one["memory_ms"] == pytest.approx(1 + FIXED / (FIXED + 8 * PER_IMAGE))


def test_a_row_that_failed_keeps_no_rate(monkeypatch):
    def fail(request, length):
        raise MemoryError

    row = plant(monkeypatch, framework={"addition": fail})
    assert row["status"] == "oom"
    assert row["peak_gflops_per_second"] is row["bandwidth_gbytes_per_second"] is None
    assert plant(monkeypatch)["bandwidth_gbytes_per_second"] > 0


# --- what is shown --------------------------------------------------------------------------------


def printed(document):
    console = report.make_console(file=io.StringIO())
    report.show(document, console)
    return console.file.getvalue()


def test_the_table_of_the_longest_names_is_readable_in_120_columns():
    def answer(configuration, number):
        windows = [{"steps": 1, "ms": 1.0}] * 2
        return rows(0.1, rate=1234.0)(configuration, number) | {
            "warm_up": {"settled": False, "windows": windows},
            "latency_ms": [1000.0] * 9 + [9000.0],
        }

    arguments = ["--framework", "all", "--batch-size", "128", "1024", "--baselines", "--aa"]
    arguments += ["--precision", "fp32", "bf16", "--mode", "cudagraph", "xla", "jit"]
    text = printed(make_document(arguments, answer))
    table = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= report.PIPED_WIDTH
    assert "…" not in text
    # Every figure in one piece, in the matched groups and among the best.
    rates = [line for line in table if "│ 1234 [1234, 1234] │" in line]
    assert len(rates) == 2 * 2 * (3 + 3) * 2 + 3


def test_the_terminal_and_the_page_say_which_limit_holds_and_the_bandwidth(tmp_path):
    document = make_document(["--framework", "all", "--batch-size", "8"], rows(1.0))
    shown = printed(document), page.write(tmp_path, document).read_text()
    for text in shown:
        assert text.count("Roofline of float32, batch 8, threads 1: memory.") == 1
        assert "memory bandwidth: 1.0 GB/s, additions in place of" in text
        assert "Above 100 % of a memory roofline" in text  # 0.39 s at least, 0.16 s measured
    percent = 100 * (FIXED + 8 * PER_IMAGE) / 1e9 / (8 / 50)
    assert f" {percent:.0f} " in shown[0]
    assert f'<td class="number">{percent:.0f}</td>' in shown[1]


def test_the_plot_has_the_smaller_of_both_limits_at_every_batch_size():
    arguments = ["--framework", "jax", "--batch-size", "2", "64"]
    document = make_document(arguments, rows(2.0))
    (axes,) = plots._throughput(document, plots._measured(document)).axes
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("float32 roofline")]
    batches, limits = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert batches[0] < 2 < 64 < batches[-1]
    compute, memory = 100e9 / FLOPS, batches * 2e9 / (FIXED + batches * PER_IMAGE)
    assert memory[0] < compute < memory[-1]  # the curve has both parts
    np.testing.assert_allclose(limits, np.minimum(compute, memory))


# --- files of before ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_file_of_before_is_still_one_of_the_schema_and_loads(path):
    document = stored_document.load(path)
    validate(document)
    assert compare.main([str(path), str(path)]) == 0


def test_a_file_of_before_still_makes_a_page(tmp_path):
    document = stored_document.load(ROOT / "benchmarks" / "results" / "cpu-loader.json")
    assert "bandwidths" not in document
    text = page.write(tmp_path, document).read_text()
    assert "memory bandwidth: not measured" in text
    assert "% of roofline" in text
