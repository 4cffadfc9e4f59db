"""Documents of runs that never took place, for what is made of a document."""

import json

import jsonschema

from benchmarks.document import assembly as document
from benchmarks.document.stored import SCHEMA, VALIDATOR, write_json
from benchmarks.plan.configuration import Request
from benchmarks.plan.options import parse
from benchmarks.worker import main as worker

PHASES = ("import", "check", "init", "compile_first_step", "sync_check", "warm_up", "linear_check")
PHASES += ("throughput", "latency", "peak")


def validate(found):
    VALIDATOR.validate(found)


def validate_row(row):
    schema = {"$defs": json.loads(SCHEMA.read_text())["$defs"], "$ref": "#/$defs/row"}
    jsonschema.Draft202012Validator(schema).validate(row)


def make_row(request, rates, **changes):
    """Return a row that is ok and has these images per second in its windows."""
    asked = request.configuration
    worst = {"name": "x", "difference": 1e-7, "bound": 1e-4}
    settings = {
        "platform": request.plan.device, "device": "a device", "dtype": "float32",
        "threads": asked.threads, "precision": asked.precision, "mode": asked.mode,
        "layout": "channels_last", "flags": {},
    }  # fmt: skip
    windows = [{"steps": 10, "ms": 1e4 * asked.batch_size / rate} for rate in rates]
    equivalence = {"passed": True, "seed": 1, "width": 8, "batch_size": 8}
    row = worker.empty_row(request) | {
        "status": "ok",
        "versions": {"numpy": "2"},
        "settings": settings | changes.pop("settings", {}),
        "phases_ms": dict.fromkeys(PHASES if request.measures_rates else PHASES[:-1], 1000.0),
        "warm_up": {"settled": True, "windows": windows[:2]},
        "windows": windows,
        "latency_ms": [1e3 * asked.batch_size / rate for rate in rates] * 2,
        "memory": {"peak_resident_bytes": 10**9, "peak_device_bytes": None},
        "peak_gflops_per_second": 100.0 if request.measures_rates else None,
        "bandwidth_gbytes_per_second": 10.0 if request.measures_rates else None,
        "checks": {
            "equivalence": equivalence | {"worst_loss": worst, "worst_array": worst},
            "precision": {"matmul": 1e-7, "convolution": 1e-7, "effective": asked.precision},
            "complete": {"steps": 1, "left_shares": [0.0], "bound": 0.1},
            "linear": {
                "steps": 1, "ms": [1.0], "double_ms": [2.0], "ratio": 2.0, "band": [1.5, 2.5],
            },
        },
    }  # fmt: skip
    return row | changes


def make_document(arguments, rates, **changes):
    """Return a valid document of `run.py ARGUMENTS`.

    `rates(configuration, round)` gives the images per second of a worker's windows, or a row.
    """
    plan = parse([*arguments, "--device", "cpu", "--threads", "1"])
    found = document.header(plan, "python benchmarks/run.py")
    for configuration, number in plan.order:
        answer = rates(configuration, number)
        request = Request(plan, configuration, number, 1.0)
        found["rows"].append(
            make_row(request, answer) if isinstance(answer, list) else make_row(request, **answer)
        )
    document.conclude(plan, found)
    found["elapsed_seconds"] = 1.0
    validate(found)
    return found | changes


def write(path, found):
    write_json(path, found)
    return str(path)
