"""What takes more than one call: ten steps in a row, calls that change what they should not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from shared.explain.distance import Parting, differences, worst
from shared.explain.observations import Group, ReferenceObserver
from shared.explain.port import Port
from shared.explain.probes import KINK_MARGIN, Probe, draw_inputs, kink_margin
from shared.explain.verdict import Stage
from shared.spec import Conventions, state_shapes

DRAWS = 50
STAGE = "{} steps, each from where the implementation is"


@dataclass(frozen=True)
class Steps:
    """The largest difference in all steps, and the first array that parts."""

    stages: list[Stage]
    parting: Parting | None = None


def many_steps(
    port: Port, probe: Probe, conventions: Conventions, steps: int, bound: float
) -> Steps:
    """Hold every one of several steps against the reference from the implementation's own state.

    So rounding does not grow from step to step, and neither does a difference.
    """
    needed = ("create", "import_state", "train_step", "export_state")
    if not port.offers(*needed):
        return Steps([Stage(STAGE.format(steps), "", None, "", port.lacking(*needed))])
    state, largest, where = port.state_of(probe), 0.0, ""
    for number in range(steps):
        before = port.exported(probe.spec, state)
        if len(before) < len(state_shapes(probe.spec)):
            reason = "export_state() does not return the whole state"
            return Steps([Stage(STAGE.format(steps), "", None, "", reason)])
        here = _next_probe(replace(probe, arrays=before), number + 1, port.dtype, conventions)
        reference = ReferenceObserver()
        for stage, arrays in port.step(state, here).items():
            group = Group(stage, here, arrays)
            expected = reference.arrays(stage, here, conventions)
            found = differences(group, expected, port.dtype)
            parting = worst(group, expected, found, bound)
            seen = [(difference, name) for name, difference in found.items()]
            largest, where = max([(largest, where), *seen])
            if parting is not None:
                row = (STAGE.format(steps), here.name, largest, where)
                return Steps([Stage(*row, agrees=False)], parting)
    return Steps([Stage(STAGE.format(steps), probe.name, largest, where)])


def _next_probe(probe: Probe, number: int, dtype: str, conventions: Conventions) -> Probe:
    """Return the probe with other inputs, in float32 such that are clear of every kink."""
    for draw in range(DRAWS):
        real, z = draw_inputs(probe.spec, DRAWS * number + draw)
        drawn = replace(probe, name=f"step {number}", real_images=real, latents=z)
        if dtype != "float32" or kink_margin(drawn, conventions) >= KINK_MARGIN:
            return drawn
    return drawn


def habits(port: Port, probe: Probe) -> list[str]:
    """Return what an implementation does that no comparison of numbers can explain.

    A state that does not come back as it was given, one that a call changes which should not, and
    numbers that are others when they are asked for again.
    """
    if not port.offers("create", "import_state", "export_state"):
        return []
    state, notes = port.state_of(probe), []
    given = {name: port.cast(array).astype(np.float64) for name, array in probe.arrays.items()}
    before = port.exported(probe.spec, state)
    if changed := _changed(given, before):
        notes.append(f"export_state() does not return what import_state() was given: {changed}")
    z, real = (port.cast(x) for x in probe.one_batch)
    for method, inputs in (
        ("generate", (z,)),
        ("discriminate", (real,)),
        ("gradients", (port.cast(probe.real_images), port.cast(probe.latents))),
    ):
        if port.offers(method):
            port.call(method, state, *inputs)
            if changed := _changed(before, port.exported(probe.spec, state)):
                notes.append(f"{method}() changes the state: {changed}")
                return notes
    if port.offers("gradients"):
        first, second = (port.call("gradients", port.state_of(probe), *inputs) for _ in range(2))
        if any(not np.allclose(first[n], second[n], rtol=1e-3, atol=0) for n in first):
            notes.append("gradients() gives other numbers when it is called again from the same")
            notes[-1] += " state: the step draws random numbers of its own (latents, dropout)"
    return notes


def _changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> str:
    """Return the first array that is another, or "" where none is."""
    for name, array in after.items():
        if not np.array_equal(before[name], array, equal_nan=True):
            return name
    return ""
