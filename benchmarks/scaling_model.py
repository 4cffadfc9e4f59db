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
from shared.spec import SYSTEMS


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
    spec, exchanges = SYSTEMS[given.system], exchanges_of_step(SYSTEMS[given.system])
    gradients = FLOAT32_BYTES * sum(exchanges.reduced_gradients)
    statistics = exchanges.gathered + exchanges.reduced_statistics
    arithmetic = given.images * flops_per_image(spec) / (1e9 * given.tflops)  # milliseconds
    print(
        f"gradients: {gradients:,} bytes; batch norm: {len(statistics)} exchanges, "
        f"{FLOAT32_BYTES * sum(statistics):,} bytes"
    )
    print("| devices | images | arithmetic | gradients | batch norm | step | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for count in given.devices:
        ring = 2 * (count - 1) / count * gradients / (1e6 * given.bandwidth)
        hops = 1e-3 * len(statistics) * given.latency * math.log2(count)
        step = arithmetic + ring + hops
        cells = " | ".join(f"{term:.2f} ms" for term in (arithmetic, ring, hops, step))
        print(f"| {count:,} | {count * given.images:,} | {cells} | {arithmetic / step:.0%} |")


TEXTS = "python -m benchmarks.scaling_model", "What a training step should take on N devices."
main = command(*TEXTS, _add_options, _print_table, usage="%(prog)s [options]")

if __name__ == "__main__":
    sys.exit(main())
