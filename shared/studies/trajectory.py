"""How runs in two frameworks diverge: `python -m shared.trajectory` prints the growth curve.

Each implementation trains the same system from the same seed on the same images and latents, and
after every step its losses and every tensor of its state are held against the others'. The exit
code is 0 where all stay within the bounds, 1 where two diverge, 2 for bad input.
"""

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from shared import interface
from shared.data.dataset import Batches, fit_arrays
from shared.files.atomic import require_place
from shared.interface import METRIC_NAMES, Array, Arrays, Implementation, State
from shared.reference.comparison import drifts, state_differences
from shared.run.console import add_implementations, command, seed_number, text_table, tracked, whole
from shared.run.pictures import plot
from shared.spec import LOSS_NAMES, SYSTEMS, SystemSpec, state_shapes
from shared.spec.streams import latents, stream

Pair = tuple[str, str]
End = tuple[dict[str, float], Arrays]  # the losses of the last step and the state after it

IMAGES = ("noise", "digits")
NOISE_IMAGES = 512
ULP = "+ulp"
NEEDED = ("name", "create", "import_state", "export_state", "train_step")
OURS = (*interface.IMPLEMENTATIONS, interface.canonical_name("reference"))
TABLE_STEPS = (1, 2, 5, 10, 20, 50, 100, 200)


class Bounds(NamedTuple):
    """Losses: |a - b| / max(1, |b|). Tensors of the state: relative L2. Counters must be equal.

    Drift: of what rounding moves, as `shared.reference.comparison.drifts` measures it.
    """

    loss: float
    tensor: float
    drift: float

    def __str__(self) -> str:
        return f"bounds: losses {self.loss:.0e}, tensors {self.tensor:.0e}, drift {self.drift:.0e}"


BOUNDS = {
    # 200 steps on noise: measured 5e-14 and 2e-13 with bce, 6e-14 and 3e-13 with lsgan. A slope
    # that went through float32 shows at 1e-8 after one step.
    # Drift: measured 1e-5 of the learning rate a step, rounding of 1e-13 over Adam's epsilon.
    "float64": Bounds(1e-10, 1e-9, 1e-4),
    # One step's rounding: measured 7e-7 and 2e-5. Runs leave it at the first kink, within about 20
    # steps: docs/trajectories.md. Drift: two learning rates a step, one in each direction.
    "float32": Bounds(5e-6, 1e-4, 2.0),
}


Worst = tuple[float, str]
"""The largest of several differences, inf included, and what it is of."""


class Difference(NamedTuple):
    """How far two runs are apart after a step; behind the step the fields of `Bounds`."""

    step: int
    loss: Worst
    tensor: Worst
    drift: Worst

    def within(self, bounds: Bounds) -> bool:
        """Whether all differences are within the bounds."""
        return all(worst <= bound for (worst, _), bound in zip(self[1:], bounds, strict=True))

    def share(self, bounds: Bounds) -> float:
        """Return the largest difference in units of its bound."""
        return max(worst / bound for (worst, _), bound in zip(self[1:], bounds, strict=True))

    def __str__(self) -> str:
        (loss, of_loss), (tensor, of_tensor), (drift, of_drift) = self[1:]
        shown = f"step {self.step}: {of_tensor} {tensor:.1e}, {of_loss} {loss:.1e}"
        return f"{shown}, {of_drift} drift {drift:.1e}" if of_drift else shown


Curves = dict[Pair, list[Difference]]


def load_trainer(name: str) -> Implementation:
    """Load an implementation by name; "pytorch+ulp" shows how far rounding can get.

    Every number of its initial kernels is one ULP larger. ValueError without all of NEEDED.
    """
    asked = name.removesuffix(ULP)
    own = interface.load_implementation(asked)
    if missing := [needed for needed in NEEDED if not hasattr(own, needed)]:
        raise ValueError(
            f"{name} has no {', '.join(missing)}; a trajectory needs {', '.join(NEEDED)}"
        )
    # One by one, for `own` may be a module, which cannot be copied.
    trainer: Any = SimpleNamespace(**{needed: getattr(own, needed) for needed in NEEDED})
    if asked not in OURS:  # it may be made of one of ours, and have its name
        trainer.name = asked
    if not name.endswith(ULP):
        return trainer

    def create(spec: SystemSpec, **options: Any) -> State:
        state = own.create(spec, **options)
        arrays = own.export_state(state)
        kernels = {n: np.nextafter(a, np.inf) for n, a in arrays.items() if n.endswith("/kernel")}
        own.import_state(state, arrays | kernels)
        return state

    trainer.name, trainer.create = f"{trainer.name}{ULP}", create
    return trainer


class Experiment:
    """What every implementation trains, and for how long, on the inputs of `X_impl.train`."""

    def __init__(
        self, spec: SystemSpec, images: Array, *, steps: int, seed: int = 0, dtype: str
    ) -> None:
        self.spec, self.steps, self.seed, self.dtype = spec, steps, seed, dtype
        self._batches = Batches(images, spec, seed, dtype)

    def start(self, trainer: Implementation) -> State:
        """Return a trainer's state before the first step."""
        return trainer.create(self.spec, seed=self.seed, dtype=self.dtype)

    def train(self, trainer: Implementation, state: State, steps: Iterable[int]) -> End:
        """Make the steps with these indices; return the losses of the last and all arrays."""
        count = self.spec.latent_batches * self.spec.batch_size
        for step in steps:
            drawn = latents(self.spec, self.seed, step, count).astype(self.dtype)
            metrics = trainer.train_step(state, self._batches.images(step), drawn)
        arrays = trainer.export_state(state)
        interface.check_arrays(arrays, state_shapes(self.spec), f"the state of {trainer.name}")
        return metrics, arrays


def training_images(name: str, spec: SystemSpec, seed: int) -> Array:
    """Return uint8 images to train on: "noise", or scikit-learn's "digits"."""
    if name == "digits":
        from sklearn.datasets import load_digits

        # 8x8 counts of ink from 0 to 16 (UCI optical recognition of handwritten digits).
        digits = np.rint(load_digits().images * 255 / 16).astype(np.uint8)[..., None]
        return fit_arrays("scikit-learn's digits", digits, spec)[0]
    shape = (NOISE_IMAGES, *spec.image_shape)
    return stream(seed, "trajectory/noise").integers(0, 256, shape, dtype=np.uint8)


def difference(
    spec: SystemSpec, step: int, actual: End, expected: End, *, since: int
) -> Difference:
    """Return how far a run is from another one, `since` so many steps after the same state."""
    losses = {
        name: abs(actual[0][name] - expected[0][name]) / max(1.0, abs(expected[0][name]))
        for name in METRIC_NAMES
    }
    tensors = state_differences(spec, actual[1], expected[1])
    drifting = drifts(spec, actual[1], expected[1], since) or {"": 0.0}
    return Difference(step, _worst(losses), _worst(tensors), _worst(drifting))


def _worst(values: dict[str, float]) -> Worst:
    # nan compares as neither larger nor smaller; as inf it comes first.
    finite = {name: np.inf if np.isnan(value) else value for name, value in values.items()}
    name = max(finite, key=finite.__getitem__)
    return float(finite[name]), name


def compare(
    trainers: Sequence[Implementation],
    experiment: Experiment,
    *,
    against: str | None = None,
    restart: bool = False,
) -> Curves:
    """Train side by side; return the differences of each pair, or those with `against`, by step.

    `restart` gives all the state of the first after every step: the differences of single steps.
    """
    names = [trainer.name for trainer in trainers]
    pairs = [p for p in itertools.combinations(names, 2) if against is None or against in p]
    if len(set(names)) < len(names) or not pairs:
        expected = "expected two or more different implementations"
        expected += f" and {against} among them" if against else ""
        raise ValueError(f"nothing to compare: {expected}, received {', '.join(names)}")
    states = {trainer.name: experiment.start(trainer) for trainer in trainers}
    curves: Curves = {pair: [] for pair in pairs}
    for step in tracked(f"steps of {', '.join(names)}", range(experiment.steps)):
        ends = {t.name: experiment.train(t, states[t.name], [step]) for t in trainers}
        since = 1 if restart else step + 1
        for (a, b), curve in curves.items():
            curve.append(difference(experiment.spec, step + 1, ends[a], ends[b], since=since))
        if restart:
            for trainer in trainers[1:]:
                trainer.import_state(states[trainer.name], ends[names[0]][1])
    return curves


def first_divergence(curve: Iterable[Difference], bounds: Bounds) -> Difference | None:
    """Return the first difference beyond the bounds, or None."""
    return next((d for d in curve if not d.within(bounds)), None)


def _growth_report(curves: Curves, bounds: Bounds) -> str:
    length = max(len(curve) for curve in curves.values())
    rows = [["step", *(f"{a} - {b}" for a, b in curves)]]
    for step in sorted({step for step in TABLE_STEPS if step <= length} | {length}):
        found = [curve[step - 1] for curve in curves.values()]
        rows.append([str(step), *(f"{d.tensor[0]:.1e} ({d.loss[0]:.1e})" for d in found)])
    lines = [text_table(rows, ">"), str(bounds)]
    for (a, b), curve in curves.items():
        first = first_divergence(curve, bounds)
        worst = max(curve, key=lambda d: d.share(bounds))
        what = f"diverged at {first}" if first else f"within at every step; furthest at {worst}"
        lines.append(f"{a} - {b}: {what}")
    return "\n".join(lines)


def _plot_growth(curves: Curves, bounds: Bounds, title: str, path: Path) -> None:
    fields = {"tensor": "worst tensor, relative L2", "loss": "worst loss"}
    with plot(path, 11, 5, 1, 2, sharey=True) as (panels,):
        panels[0].figure.suptitle(title)
        for axes, (field, what) in zip(panels, fields.items(), strict=True):
            for (a, b), curve in curves.items():
                values = [getattr(d, field)[0] or np.nan for d in curve]  # 0 has no logarithm
                axes.semilogy([d.step for d in curve], values, label=f"{a} - {b}", linewidth=1)
            bound, dashed = getattr(bounds, field), {"linestyle": "--", "linewidth": 1}
            axes.axhline(bound, color="black", label=f"bound {bound:g}", **dashed)
            axes.set(xlabel="training step", title=what)
        panels[0].set_ylabel("difference")
        panels[0].legend(fontsize="small")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_implementations(parser, note="; pytorch+ulp: initial kernels one ULP larger")
    add = parser.add_argument
    add("--system", choices=SYSTEMS, default="dcgan64")
    add("--loss", choices=LOSS_NAMES, help="default: the system's own")
    default = "default: %(default)s"
    add("--steps", type=whole(1), default=200, metavar="N", help=default)
    add("--width", type=whole(1), default=8, metavar="W", help=default)
    add("--batch-size", type=whole(2), default=8, metavar="B", help=default)
    add("--seed", type=seed_number, default=0, metavar="S", help=default)
    add("--dtype", choices=tuple(BOUNDS), default="float64")
    images = "noise keeps the networks in balance; on digits bce is chaotic (default: %(default)s)"
    add("--images", choices=IMAGES, default="noise", help=images)
    name, text = "IMPLEMENTATION", "compare the others with this one alone"
    add("--against", type=interface.canonical_name, metavar=name, help=text)
    add("--restart", action="store_true", help="give all the first one's state after every step")
    add("--plot", type=Path, metavar="PNG", help="draw the growth curve")


def _run(options: argparse.Namespace) -> int:
    require_place(options.plot)
    spec = SYSTEMS[options.system].replace(width=options.width, batch_size=options.batch_size)
    spec = spec.replace(loss=options.loss or spec.loss)
    images = training_images(options.images, spec, options.seed)
    seed, dtype, bounds = options.seed, options.dtype, BOUNDS[options.dtype]
    experiment = Experiment(spec, images, steps=options.steps, seed=seed, dtype=dtype)
    trainers = [load_trainer(name) for name in options.implementations]
    title = f"{spec.name}, loss {spec.loss}, width {spec.width}, batch {spec.batch_size}, "
    rate = f"learning rate {spec.generator_optimizer.learning_rate:g}"
    title += f"{rate}, {options.images}, {dtype}, seed {seed}"
    print(title, flush=True)
    asked = map(interface.canonical_name, options.implementations)
    names = {name: trainer.name for name, trainer in zip(asked, trainers, strict=True)}
    against = names.get(options.against, options.against)
    curves = compare(trainers, experiment, against=against, restart=options.restart)
    print("relative difference of the worst tensor (of the worst loss) after a step")
    print(_growth_report(curves, bounds))
    if options.plot:
        _plot_growth(curves, bounds, title, options.plot)
    return 1 if any(first_divergence(curve, bounds) for curve in curves.values()) else 0


USAGE = "%(prog)s [options] [IMPLEMENTATION ...]"
main = command("python -m shared.trajectory", __doc__, _add_options, _run, usage=USAGE)
