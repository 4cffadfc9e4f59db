"""What a step should take on N devices: `python -m benchmarks.scaling_model --help`.

    step = images per device · FLOP per image / speed
         + 2 (N - 1)/N · bytes of gradients / bandwidth
         + exchanges · latency · log2(N)

The second term is a ring all-reduce (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce
algorithms"), the third what the exchanges of batch normalisation cost, which are too small for the
bandwidth to matter, by trees of log2(N) hops. Nothing overlaps, so this is an upper bound.
"""

import argparse
import math
import sys

from benchmarks.plan.costs import FLOAT32_BYTES, exchanges_of_step, flops_per_image
from shared.run.console import command, positive, whole
from shared.spec import SYSTEMS, SystemSpec


def step_seconds(
    spec: SystemSpec, devices: int, images: int, speed: float, bandwidth: float, latency: float
) -> tuple[float, float, float]:
    """Return the seconds of arithmetic, of averaging gradients and of batch normalisation.

    `images` and `speed` (FLOP/s) of one device; `bandwidth` in bytes/s, `latency` of a hop in s.
    """
    exchanges = exchanges_of_step(spec)
    gradients = FLOAT32_BYTES * sum(exchanges.reduced_gradients)
    hops = len(exchanges.gathered + exchanges.reduced_statistics) * math.log2(devices)
    return (
        images * flops_per_image(spec) / speed,
        2 * (devices - 1) / devices * gradients / bandwidth,
        hops * latency,
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--system", choices=SYSTEMS, default="dcgan64")
    add("--images", type=whole(1), default=128, help="of one device (default: %(default)g)")
    add("--tflops", type=positive, default=200.0, help="of one device (default: %(default)g)")
    text = "of one device, in GB/s (default: %(default)g)"
    add("--bandwidth", type=positive, default=50.0, help=text)
    add("--latency", type=positive, default=10.0, help="of a hop, in µs (default: %(default)g)")
    counts = [2**i for i in range(11)]
    add("--devices", type=whole(1), nargs="+", default=counts, metavar="N")


def _print_table(given: argparse.Namespace) -> None:
    spec, images = SYSTEMS[given.system], given.images
    machine = 1e12 * given.tflops, 1e9 * given.bandwidth, 1e-6 * given.latency
    exchanges = exchanges_of_step(spec)
    statistics = exchanges.gathered + exchanges.reduced_statistics
    print(
        f"gradients: {FLOAT32_BYTES * sum(exchanges.reduced_gradients):,} bytes; batch norm: "
        f"{len(statistics)} exchanges, {FLOAT32_BYTES * sum(statistics):,} bytes"
    )
    print("| devices | images | arithmetic | gradients | batch norm | step | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for count in given.devices:
        terms = step_seconds(spec, count, images, *machine)
        cells = " | ".join(f"{1e3 * term:.2f} ms" for term in (*terms, sum(terms)))
        print(f"| {count:,} | {count * images:,} | {cells} | {terms[0] / sum(terms):.0%} |")


TEXTS = "python -m benchmarks.scaling_model", "What a training step should take on N devices."
main = command(*TEXTS, _add_options, _print_table, usage="%(prog)s [options]")

if __name__ == "__main__":
    sys.exit(main())
