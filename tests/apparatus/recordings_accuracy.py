"""How often two recordings get a false name: `python -m tests.apparatus.recordings_accuracy`.

The first is of the reference, the second of PyTorch, right or with a mistake planted, in random
systems, dtypes and layouts. A name is false where it is of no field that the mistake changes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shared.explain.distance import BOUNDS
from shared.explain.port import Port, PortError
from shared.explain.recordings import explain_recordings
from shared.interface import load_implementation
from shared.reference.adapter import ReferenceImplementation
from shared.spec import SystemSpec
from shared.spec.streams import initial_state, latents, stream
from tests.apparatus.explain_accuracy import Log, Outcome
from tests.apparatus.explain_draws import SYSTEMS_OF_OUTSIDE_RUNS, described, random_system, shows
from tests.apparatus.planted.fault import Fault
from tests.apparatus.planted.faults import FAULTS
from tests.apparatus.planted.mutate import mutated
from tests.apparatus.planted.outside import OUTSIDE
from tests.explain.recorded_loops import Written, layers, state, write

STEPS = 3


def recorded(implementation: Any, spec: SystemSpec, seed: int, dtype: str) -> list[Written]:
    """Return what a loop of an implementation would record, in the order of computation."""
    port = Port(implementation, dtype)
    fresh = initial_state(spec, seed).items()
    arrays = {n: 10.0 * a if n.endswith("/kernel") else a for n, a in fresh}
    held = port.call("create", spec, seed=0, dtype=dtype)
    port.call("import_state", held, arrays)
    written = [(0, name, a) for name, a in state(spec, arrays).items()]
    for step in range(1, STEPS + 1):
        count = spec.batch_size * spec.discriminator_steps
        draw = stream(seed, "recorded images", step)
        real = draw.uniform(*spec.image_range, (count, *spec.image_shape))
        z = latents(spec, seed, step, spec.batch_size * spec.latent_batches)
        one = z[: spec.batch_size]
        passed = port.call("activations", held, "generator", one, training=True)
        gradients = port.call("gradients", held, real, z)
        found = {"real_images": real, "latents": z} | layers(spec, passed)
        found |= dict(port.call("train_step", held, real, z).items())
        found |= {f"{name}/gradient": g for name, g in gradients.items()}
        found |= state(spec, port.exported(spec, held))
        written += [(step, name, np.asarray(a, np.float64)) for name, a in found.items()]
    return written


def runs(kind: str, count: int, seed: int) -> Iterator[tuple[Fault | None, SystemSpec, str, int]]:
    """Yield a mistake of a kind, None for none, a system in which it shows, a dtype, a seed."""
    rng, made = np.random.default_rng(seed), 0
    several: Sequence[Fault] = {"wrong": FAULTS, "outside": OUTSIDE}.get(kind, ())
    while made < count:
        fault = several[rng.integers(len(several))] if several else None
        known = kind == "wrong" and fault is not None
        names = (fault.system,) if known and fault else SYSTEMS_OF_OUTSIDE_RUNS
        spec = random_system(rng, names)
        if fault is not None and known:
            spec = spec.replace(loss=fault.spec.loss, **fault.spec_changes)
        if fault is None or shows(fault, spec):
            yield fault, spec, str(rng.choice(list(BOUNDS))), 1000 * seed + made
            made += 1


def find(fault: Fault | None, spec: SystemSpec, dtype: str, seed: int) -> Outcome:
    """Record both sides, and return what two recordings are told apart by."""
    started, right = time.monotonic(), load_implementation("pytorch")
    rng = np.random.default_rng(seed)
    first = ReferenceImplementation() if dtype == "float64" else right
    how = {"dtype": dtype, "declared": bool(rng.integers(2))}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.safetensors", "b.safetensors")]
        write(paths[0], recorded(first, spec, seed, dtype), **how)
        if fault is None:
            second = recorded(right, spec, seed, dtype)
        else:
            with mutated("pytorch", [fault]) as wrong:
                second = recorded(wrong, spec, seed, dtype)
        noise = 0.0 if fault or dtype == "float64" else 2.0**-24
        write(paths[1], second, pytorch=bool(rng.integers(2)), noise=noise, **how)
        report = explain_recordings(*paths)
    wanted = {n: str(v) for n, v in fault.deviation.items()} if fault else {}
    named = [f"{t.field or t.second}: {t.first} / {t.second}, {t.certain}" for t in report.traps]
    false = [t for t in report.traps if t.certain and wanted.get(t.field or "") != t.second]
    first = (
        report.pairs[report.first_difference].one.name
        if report.first_difference is not None
        else "agrees"
    )
    return Outcome(
        "pytorch",
        dtype,
        (fault.name,) if fault else (),
        f"diverges at {first}",
        "; ".join(named),
        not false,
        time.monotonic() - started,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0 where no name is false."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in ("right", "wrong", "outside"):
        parser.add_argument(f"--{kind}", type=int, default=0, metavar="N", help="so many pairs")
    parser.add_argument("--seed", type=int, default=0)
    text = "a line for each run; those that it has already are not made again"
    parser.add_argument("--log", type=Path, metavar="FILE", help=text)
    options = parser.parse_args(arguments)
    log, outcomes = Log(options.log), []
    for kind in ("right", "wrong", "outside"):
        for fault, spec, dtype, seed in runs(kind, getattr(options, kind), options.seed):
            task = partial(find, fault, spec, dtype, seed)
            run = f"{kind} {seed}: {described(spec)}"
            try:
                outcomes.append(log.outcome("pytorch", dtype, [fault] if fault else [], task, run))
            except PortError as error:  # a mistake may raise at numbers that others do not reach
                print(f"void {fault.name if fault else run}: {error}", flush=True)
    print(f"{sum(o.right for o in outcomes)} of {len(outcomes)} pairs without a false name")
    return 0 if all(o.right for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
