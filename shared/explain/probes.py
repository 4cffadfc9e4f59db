"""What an implementation is asked to compute: weights, images and latents that show every trap."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
from scipy.special import logit

from shared.explain.catalogue import CANONICAL
from shared.fixtures.network import KINK_MARGIN, representative_inputs
from shared.interface import Array, Arrays
from shared.reference.network import Pass, forward
from shared.reference.step import Step
from shared.spec import Conventions, NetworkName, SystemSpec

SMALL = 1e-6
LARGEST_FACTOR, DRAWS = 8.0, 20
PROBES = ("mid-training", "small gradients")


@dataclass(frozen=True, eq=False)
class Probe:
    """A state and the inputs of one step; every number is a float32 number, held as float64.

    `after` is the state in which an implementation has left it, empty where it has not shown that,
    and `shown` what else it showed of the step, by stage. `port` is that implementation, which
    makes the passes of networks that nothing else explains.
    """

    name: str
    spec: SystemSpec
    arrays: Arrays
    real_images: Array
    latents: Array
    after: Arrays = field(default_factory=dict)
    shown: dict[str, Arrays] = field(default_factory=dict)
    port: Any = None

    def as_drawn(self) -> Self:
        """Return the probe without what an implementation made of it."""
        return replace(self, after={}, shown={}, port=None)

    @property
    def one_batch(self) -> tuple[Array, Array]:
        """The first batch of latents and of real images."""
        count = len(self.real_images) // self.spec.discriminator_steps
        return self.latents[:count], self.real_images[:count]

    def weights_after(self, network: NetworkName) -> Arrays:
        """Return a network's parameters and its Adam's arrays after the step, if all are known."""
        known = {n: self.after[n] for n in self.arrays if n.startswith(network) and n in self.after}
        own = {n: a for n, a in known.items() if not n.endswith(("/mean", "/var"))}
        return own if len(known) == sum(n.startswith(network) for n in self.arrays) else {}


def draw_probe(
    name: str, spec: SystemSpec, seed: int, clear_under: Sequence[Conventions], score: float = 0.0
) -> Probe:
    """Return a probe: one of PROBES, or "held out", which has other weights, data and counters.

    `score` is how far the discriminator's mean score is to be from where it tells nothing, if that
    takes a factor of up to 8 in its last layer: of either sign another network is losing.
    No pre-activation is near a kink under any of the conventions `clear_under`. In the first no
    array is 0 or 1, no moment is 0. In that of small gradients the moments are 0, the gradients of
    the size of Adam's epsilon, and the first channel of the discriminator's first convolution, but
    for an only one, has no weights: its pre-activations are exactly 0.
    """
    first = 1000 * seed + 500 * (name == "held out")
    for number in range(first, first + 300):
        arrays, real_images, latents = representative_inputs(spec, number, "explain")
        if name == "small gradients":
            _make_small(arrays, spec)
        if name == "held out":
            arrays |= {n: a + 4 for n, a in arrays.items() if n.endswith("/step")}
        inputs = spec, arrays, real_images, latents
        if score and not _move_scores(Probe(name, *inputs), score) and number < first + DRAWS:
            continue
        if all(kink_margin(*inputs, c) >= KINK_MARGIN for c in clear_under):
            return Probe(name, *inputs)
    raise ValueError(
        f"no probe of {spec.name} with width {spec.width} and batch {spec.batch_size} keeps every "
        "pre-activation clear of 0 in float32; expected a narrower system or --dtype float64"
    )


def _make_small(arrays: Arrays, spec: SystemSpec) -> None:
    for name, array in arrays.items():
        if name.endswith(("/m", "/v", "/step")):
            arrays[name] = np.zeros_like(array)
    layers = [x for x in spec.layers("discriminator") if "kernel" in (p.name for p in x.parameters)]
    last = f"discriminator/{layers[-1].name}"
    arrays[f"{last}/kernel"] = (SMALL * arrays[f"{last}/kernel"].astype(np.float32)).astype(float)
    if f"{last}/bias" in arrays:
        # Not near 0, nor 1/2: there the real and the fake half of its gradient cancel to rounding.
        arrays[f"{last}/bias"][:] = np.float32(0.3)
    if layers[0].kind == "conv":
        for parameter in layers[0].parameters:
            arrays[f"discriminator/{layers[0].name}/{parameter.name}"][..., :-1][..., :1] = 0.0


def _move_scores(probe: Probe, score: float) -> bool:
    """Scale the discriminator's last layer; return False where that takes too large a factor."""
    spec, (z, real) = probe.spec, probe.one_batch
    run = partial(forward, spec, arrays=probe.arrays, conventions=CANONICAL, training=True)
    images = real, run("generator", x=z).output
    scores = np.concatenate([run("discriminator", x=x).output for x in images])
    layers = spec.layers("discriminator")
    if layers[-1].kind == "sigmoid":
        scores = logit(scores)
    factor = np.float32((score + 0.5 * (spec.loss == "lsgan")) / scores.mean())
    if not abs(factor) <= LARGEST_FACTOR:
        return False
    last = [layer.name for layer in layers if layer.parameters][-1]
    for name in (n for n in probe.arrays if n.startswith(f"discriminator/{last}/")):
        probe.arrays[name] *= factor
    return True


class _Kinks(Step):
    """A step that notes the smallest |pre-activation| but 0 of any (leaky) ReLU in its passes.

    Of channels smaller than 1 against their size, since what rounding does is in proportion to it:
    one whose weights have just left 0 has pre-activations of 1e-4.
    """

    smallest = np.inf

    def forward(self, network: NetworkName, arrays: Arrays, x: Array, training: bool) -> Pass:
        run = super().forward(network, arrays, x, training)
        for (before, _), (layer, _) in itertools.pairwise(run.saved):
            if layer.kind in ("relu", "leaky_relu"):
                y = run.activations[before.name]
                size = np.sqrt(np.square(y).mean(axis=tuple(range(y.ndim - 1)), keepdims=True))
                relative = np.abs(y) / np.clip(size, np.finfo(np.float64).tiny, 1.0)
                self.smallest = float(np.min(relative, where=y != 0.0, initial=self.smallest))
        return run


def kink_margin(
    spec: SystemSpec, arrays: Arrays, real_images: Array, latents: Array, c: Conventions = CANONICAL
) -> float:
    """Return the smallest |pre-activation| but 0 of any (leaky) ReLU in the passes of one step."""
    step = _Kinks(spec, c)
    step.run(arrays, real_images, latents)
    return step.smallest
