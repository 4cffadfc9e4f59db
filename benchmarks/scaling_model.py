"""What a step should take on N devices: `python -m benchmarks.scaling_model --help`.

    step = images per device · FLOP per image / speed
         + 2 (N - 1)/N · bytes of gradients / bandwidth
         + exchanges · latency · log2(N)

The second term is a ring all-reduce (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce
algorithms"), the third what the exchanges of batch normalisation cost, which are too small for the
bandwidth to matter, by trees of log2(N) hops. Nothing overlaps, so this is an upper bound.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.document.costs import flops_per_image
from benchmarks.worker.exchanges import exchanges_of_step
from shared.spec import NETWORKS, SYSTEMS, SystemSpec

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Machine:
    """Speed of a device in FLOP/s, bandwidth in bytes/s, latency of a hop in seconds."""

    speed: float
    bandwidth: float
    latency: float


def gradient_bytes(spec: SystemSpec) -> int:
    """Return the bytes of the gradients of both networks, which a step averages once."""
    return BYTES * sum(spec.parameter_count(network) for network in NETWORKS)


def batch_norm_exchanges(spec: SystemSpec) -> tuple[int, int]:
    """Return how often a step exchanges batch statistics, and the bytes of all of these."""
    exchanges = exchanges_of_step(spec)
    sizes = [*exchanges.gathered, *exchanges.reduced_statistics]
    return len(sizes), BYTES * sum(sizes)


def step_seconds(
    spec: SystemSpec, machine: Machine, devices: int, images: float
) -> tuple[float, float, float]:
    """Return the seconds of arithmetic, of averaging gradients and of batch normalisation.

    `images` are those of one device.
    """
    arithmetic = images * flops_per_image(spec) / machine.speed
    ring = 2 * (devices - 1) / devices * gradient_bytes(spec) / machine.bandwidth
    hops = batch_norm_exchanges(spec)[0] * math.log2(devices)
    return arithmetic, ring, hops * machine.latency


def table(spec: SystemSpec, machine: Machine, images: int, devices: Sequence[int]) -> list[str]:
    """Return the rows of a table in Markdown, one for each number of devices."""
    rows = ["| devices | images | arithmetic | gradients | batch norm | step | efficiency |"]
    rows.append("|---|---|---|---|---|---|---|")
    for count in devices:
        terms = step_seconds(spec, machine, count, images)
        cells = " | ".join(f"{1e3 * term:.2f} ms" for term in (*terms, sum(terms)))
        rows.append(f"| {count:,} | {count * images:,} | {cells} | {terms[0] / sum(terms):.0%} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling_model",
        description="What a training step of full width should take on several devices.",
    )
    add = parser.add_argument
    add("--system", choices=SYSTEMS, default="dcgan64")
    add("--images", type=_positive, default=128, help="of one device (default: %(default)g)")
    add("--tflops", type=_positive, default=200.0, help="of one device (default: %(default)g)")
    text = "of one device, in GB/s (default: %(default)g)"
    add("--bandwidth", type=_positive, default=50.0, help=text)
    add("--latency", type=_positive, default=10.0, help="of a hop, in µs (default: %(default)g)")
    add("--devices", type=int, nargs="+", default=[2**i for i in range(11)], metavar="N")
    given = parser.parse_args(arguments)
    if min(given.devices) < 1:
        parser.error(f"--devices must be at least 1, received {min(given.devices)}")
    machine = Machine(1e12 * given.tflops, 1e9 * given.bandwidth, 1e-6 * given.latency)
    spec = SYSTEMS[given.system]
    count, size = batch_norm_exchanges(spec)
    print(
        f"gradients: {gradient_bytes(spec):,} bytes; batch norm: {count} exchanges, {size:,} bytes"
    )
    print("\n".join(table(spec, machine, int(given.images), given.devices)))
    return 0


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    sys.exit(main())
