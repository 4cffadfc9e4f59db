"""The roofline: what a document says of it, what is shown of it, and files from before it."""

import io

import numpy as np
import pytest

from benchmarks import compare
from benchmarks.document import roofline
from benchmarks.document import stored as stored_document
from benchmarks.show import page, tables
from tests import ROOT
from tests.benchmarks.documents import make_document, validate

STORED = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


# --- what a document says of it --------------------------------------------------------------

PER_IMAGE, FIXED = 10_699_584, 305_620_480  # dcgan64, float32: the sums in test_benchmark_costs.py
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
    line, hint = tables.limit_lines(document)
    assert hint == tables.ODD_FIGURES  # 113 % of the peak
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


def made(device="cpu", devices=1, precision="float32", **rates_by_threads):
    """Return a document of rows with these (GFLOP/s, GB/s), two for each number of threads."""
    configurations, found = [], []
    for threads, pairs in rates_by_threads.items():
        for peak, bandwidth in pairs:
            own = {"id": str(len(found)), "precision": precision, "devices": devices}
            configurations.append(own | {"threads": int(threads[1:])})
            rates = {"peak_gflops_per_second": peak, "bandwidth_gbytes_per_second": bandwidth}
            found.append({"configuration": own["id"], **rates})
    moved = {precision: {"fixed": 1000, "per_image": 3}}
    return {
        "configurations": configurations,
        "rows": found,
        "requested": {"device": device},
        "workload": {"flops_per_image": 10, "bytes_per_step": moved},
    }


def test_rates_are_the_best_of_the_run_with_these_threads():
    document = made(t1=[(90.0, 20.0), (100.0, 10.0)], t2=[(200.0, None), (None, 30.0)])
    for threads, expected in ((1, (100.0, 20.0)), (2, (200.0, 30.0)), (4, None)):
        asked = {"precision": "float32", "threads": threads, "batch_size": 1}
        found = roofline.roofline_of(document, asked)
        assert (found and (found.peak, found.bandwidth)) == expected


@pytest.mark.parametrize(("device", "factor"), [("cpu", 1), ("gpu", 4)])
def test_every_device_has_weights_and_adam_of_its_own_and_a_gpu_its_own_memory(device, factor):
    own = 4 if device == "gpu" else 1  # on a CPU the rates are those of a process with all cores
    document = made(device, own, "tf32", t1=[(7.0, 5.0)])
    configuration = {"precision": "tf32", "threads": 1, "devices": 4, "batch_size": 8}
    found = roofline.roofline_of(document, configuration)
    assert (found.operations, found.moved_bytes) == (80, 4 * 1000 + 8 * 3)
    assert (found.peak, found.bandwidth) == (factor * 7.0, factor * 5.0)
    assert roofline.roofline_of(document, configuration | {"batch_size": 16}).moved_bytes == 4048


def test_the_times_are_in_milliseconds_and_those_of_each_limit():
    # 8 images of 10 operations at 7e9 a second; 1,000 bytes and 8 times 3 at 5e9 a second.
    document = made(t1=[(7.0, 5.0)])
    asked = {"precision": "float32", "threads": 1, "batch_size": 8}
    found = roofline.roofline_of(document, asked)
    assert found.compute_ms == pytest.approx(1e3 * 80 / 7e9)
    assert found.memory_ms == pytest.approx(1e3 * 1024 / 5e9)


@pytest.mark.parametrize("missing", ["peak", "bandwidth"])
def test_without_a_rate_there_is_no_roofline_and_no_percentage(missing, tmp_path):
    document = make_document(["--framework", "jax"], rows(**{"bandwidth": 1.0, missing: None}))
    (found,) = results_of(document)
    assert found["percent_of_roofline"] is found["roofline"] is None
    assert found["percent_of_gemm_peak"] is None
    assert not tables.limit_lines(document)
    assert "Roofline" not in printed(document)
    (axes,) = page._throughput(document, tables.measured(document)).axes
    assert not [line for line in axes.lines if "roofline" in str(line.get_label())]


def test_a_cpu_device_with_a_part_of_the_threads_gives_no_bandwidth():
    arguments = ["--framework", "jax", "--batch-size", "8", "--devices", "1", "2"]

    def answer(configuration, number):
        return rows(10.0 if configuration.devices == 1 else 99.0)(configuration, number)

    document = make_document(arguments, answer)
    one, two = (found["roofline"] for found in results_of(document))
    assert one["memory_ms"] == pytest.approx((FIXED + 8 * PER_IMAGE) / 10e6)
    assert two["bytes_per_step"] - one["bytes_per_step"] == FIXED
    assert two["memory_ms"] / one["memory_ms"] == pytest.approx(1 + FIXED / (FIXED + 8 * PER_IMAGE))


# --- what is shown ---------------------------------------------------------------------------


def printed(document):
    console = tables.make_console(file=io.StringIO())
    tables.show(document, console)
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
    assert max(map(len, table)) <= tables.PIPED_WIDTH
    assert "…" not in text
    # Every figure in one piece, in the matched groups and among the best.
    rates = [line for line in table if "│ 1234 [1234, 1234] │" in line]
    assert len(rates) == 2 * 2 * (3 + 3) * 2 + 3


def test_the_terminal_and_the_page_say_which_limit_holds_and_the_bandwidth(tmp_path):
    document = make_document(["--framework", "all", "--batch-size", "8"], rows(1.0))
    shown = printed(document), page.write(tmp_path, document).read_text()
    for text in shown:
        assert text.count("Roofline of float32, batch 8, threads 1: memory.") == 1
        assert "GB at 1.00 GB/s" in text
        assert tables.ODD_FIGURES in text  # 0.39 s at least, 0.16 s measured
    percent = 100 * (FIXED + 8 * PER_IMAGE) / 1e9 / (8 / 50)
    assert f" {percent:.0f} " in shown[0]
    assert f'<td class="number">{percent:.0f}</td>' in shown[1]


def test_the_plot_has_the_smaller_of_both_limits_at_every_batch_size():
    arguments = ["--framework", "jax", "--batch-size", "2", "64"]
    document = make_document(arguments, rows(2.0))
    (axes,) = page._throughput(document, tables.measured(document)).axes
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("float32 roofline")]
    batches, limits = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert batches[0] < 2 < 64 < batches[-1]
    compute, memory = 100e9 / FLOPS, batches * 2e9 / (FIXED + batches * PER_IMAGE)
    assert memory[0] < compute < memory[-1]  # the curve has both parts
    np.testing.assert_allclose(limits, np.minimum(compute, memory))


# --- files of before -------------------------------------------------------------------------


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_file_of_before_is_still_one_of_the_schema_and_loads(path):
    document = stored_document.load(path)
    validate(document)
    assert compare.main([str(path), str(path)]) == 0


def test_a_file_of_before_still_makes_a_page(tmp_path):
    document = stored_document.load(ROOT / "benchmarks" / "results" / "cpu-loader.json")
    assert "bandwidths" not in document
    text = page.write(tmp_path, document).read_text()
    assert "Roofline of" not in text
    assert "% of roofline" in text
