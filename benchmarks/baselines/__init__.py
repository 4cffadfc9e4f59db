"""Plain training steps, as most public code has them: what our own steps are measured against.

One module per framework, with the names that `train` and `checkpoint` of an implementation have.
They train dcgan64 with loss bce, in whatever layout, losses, optimizer and order of passes is usual
there; `CONVENTIONS` and `GENERATOR_BATCH`, the field of the spec, say where that departs from the
spec, so that the equivalence gate holds for them too.
"""

from shared.spec import AdamSpec, SystemSpec


def adam_settings(spec: SystemSpec) -> tuple[AdamSpec, AdamSpec]:
    """Return G's and D's; ValueError for another system than dcgan64 with loss bce."""
    if (spec.architecture, spec.loss) != ("dcgan64", "bce"):
        raise ValueError(f"the baseline trains dcgan64 with bce, received {spec.name}, {spec.loss}")
    return spec.adam("generator"), spec.adam("discriminator")
