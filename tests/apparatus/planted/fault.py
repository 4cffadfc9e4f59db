"""What a planted fault is: a mistake in a framework's source, and the name of the mistake."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.interface import IMPLEMENTATIONS
from shared.spec import SYSTEMS, Conventions, SystemSpec

Start = Literal["middle", "tiny_gradients", "zeroed_channel", "scores_like_probabilities"]
"""The state that a fault shows from: in the middle of training; with gradients of 1e-7 or so and
Adam's moments at 0, where its epsilon counts; with pre-activations of exactly 0; with scores
between 0 and 1, which a loss takes for probabilities. See `tests.apparatus.planted.probe`."""


@dataclass(frozen=True)
class Edit:
    """Replace `old`, which stands `count` times in a file of the package, by `new`."""

    file: str
    old: str
    new: str
    count: int = 1


Edits = Mapping[str, tuple[Edit, ...]]
"""Framework → what is replaced in its package, one after another."""


@dataclass(frozen=True)
class Fault:
    """A mistake as it is made in each framework, and the truth of what it is.

    Under `Conventions().replace(**deviation)` the float64 reference computes what the changed
    implementation computes. It shows in the system that `spec` returns, from the state `start`.
    `absent`: framework → why the mistake cannot be planted there.
    """

    name: str
    deviation: Mapping[str, Any]
    edits: Edits
    system: str = "dcgan64"
    loss: str | None = None
    spec_changes: Mapping[str, Any] = field(default_factory=dict)
    start: Start = "middle"
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> SystemSpec:
        """The narrow system that the fault shows in."""
        spec = SYSTEMS[self.system].replace(width=2, latent_dim=5, batch_size=4)
        return spec.replace(loss=self.loss or spec.loss, **self.spec_changes)

    @property
    def conventions(self) -> Conventions:
        """The conventions under which the reference makes the same mistake."""
        return Conventions().replace(**self.deviation)


def everywhere(*edits: Edit) -> Edits:
    """Return the same edits for every framework."""
    return dict.fromkeys(IMPLEMENTATIONS, edits)
