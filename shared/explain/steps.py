"""What takes more than one call: ten steps in a row, calls that change what they should not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shared.explain.distance import Comparison, Divergence
from shared.explain.observations import Group
from shared.explain.port import Port
from shared.explain.probes import KINK_MARGIN, Arrays, Probe, draw_inputs, kink_margin
from shared.explain.verdict import Stage
from shared.spec import Conventions, state_shapes

DRAWS = 50


def many_steps(
    port: Port, probe: Probe, conventions: Conventions, steps: int, bound: float
) -> tuple[Stage, Divergence | None]:
    """Compare several steps with the reference, each from the implementation's own state.

    So rounding does not grow from step to step, and neither does a difference. Returns the largest
    difference of all steps, and the first array that differs.
    """
    stage = Stage(f"{steps} steps, each from where the implementation is", probe.name, None, "")
    needed = ("create", "import_state", "train_step", "export_state")
    if reason := port.lacking(*needed):
        return replace(stage, probe="", reason=reason), None
    state, largest = port.state_of(probe), (0.0, "")
    for number in range(steps):
        before = port.exported(probe.spec, state)
        if len(before) < len(state_shapes(probe.spec)):
            reason = "export_state() does not return the whole state"
            return replace(stage, probe="", reason=reason), None
        here = _next_probe(replace(probe, arrays=before), number + 1, port.dtype, conventions)
        comparison = Comparison(port.dtype, bound)
        for name, arrays in port.step(state, here).items():
            found, divergence = comparison.compare(Group(name, here, arrays), conventions)
            largest = max([largest, *((difference, array) for array, difference in found.items())])
            if divergence is not None:
                stage = replace(stage, probe=here.name, agrees=False)
                return replace(stage, difference=largest[0], array=largest[1]), divergence
    return replace(stage, difference=largest[0], array=largest[1]), None


def _next_probe(probe: Probe, number: int, dtype: str, conventions: Conventions) -> Probe:
    """Return the probe with other inputs, in float32 such that are clear of every kink."""
    for draw in range(DRAWS):
        real, z = draw_inputs(probe.spec, DRAWS * number + draw)
        drawn = replace(probe, name=f"step {number}", real_images=real, latents=z)
        if dtype != "float32" or kink_margin(drawn, conventions) >= KINK_MARGIN:
            break
    return drawn


def habits(port: Port, probe: Probe) -> list[str]:
    """Return what an implementation does that no comparison of numbers can explain.

    A state that does not come back as it was given, one that a call changes which should not, and
    numbers that are others when they are asked for once more.
    """
    if port.lacking("create", "import_state", "export_state"):
        return []
    state, notes = port.state_of(probe), []
    given = {name: port.cast(array).astype(np.float64) for name, array in probe.arrays.items()}
    before = port.exported(probe.spec, state)
    if changed := _changed(given, before):
        notes.append(f"export_state() does not return what import_state() was given: {changed}")
    z, real = map(port.cast, probe.one_batch)
    inputs = {"generate": (z,), "discriminate": (real,), "gradients": port.inputs(probe)}
    for method in inputs:
        if port.lacking(method):
            continue
        port.call(method, state, *inputs[method])
        if changed := _changed(before, port.exported(probe.spec, state)):
            return [*notes, f"{method}() changes the state: {changed}"]
    if not port.lacking("gradients"):
        first, second = (
            port.call("gradients", port.state_of(probe), *inputs["gradients"]) for _ in range(2)
        )
        if any(not np.allclose(first[n], second[n], rtol=1e-3, atol=0) for n in first):
            notes.append(
                "gradients() gives other numbers when it is called twice from the same state: "
                "the step draws its own random numbers (latents, dropout)"
            )
    return notes


def _changed(before: Arrays, after: Arrays) -> str:
    other = (n for n, a in after.items() if not np.array_equal(before[n], a, equal_nan=True))
    return next(other, "")
