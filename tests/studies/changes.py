"""Runs that change framework half-way: `python -m tests.studies.changes` prints a table."""

import itertools
from collections.abc import Sequence

from shared.interface import IMPLEMENTATIONS, Implementation, load_implementation
from shared.run.console import text_table
from shared.spec import SYSTEMS
from shared.studies.trajectory import Curves, Experiment, difference, training_images


def change_framework(
    trainers: Sequence[Implementation], experiment: Experiment, change_at: int
) -> Curves:
    """Train `change_at` steps in one, the rest in another: how far from the unbroken runs?

    Each ordered pair has the larger difference from its two unbroken runs, after the last step.
    """
    spec, steps = experiment.spec, experiment.steps
    after, states, halves, unbroken, changed = range(change_at, steps), {}, {}, {}, {}
    for trainer in trainers:
        states[trainer.name] = state = experiment.start(trainer)
        _, halves[trainer.name] = experiment.train(trainer, state, range(change_at))
        unbroken[trainer.name] = experiment.train(trainer, state, after)
    for first, second in itertools.permutations(trainers, 2):
        # The state of the unbroken run: TensorFlow would trace the step of a fresh one anew.
        second.import_state(states[second.name], halves[first.name])
        end = experiment.train(second, states[second.name], after)
        pair = first.name, second.name
        apart = [difference(spec, steps, end, unbroken[name], since=steps) for name in pair]
        changed[pair] = [max(apart, key=lambda d: (d.tensor, d.loss))]
    return changed


def change_table(changed: Curves) -> str:
    """Return a table of `change_framework`'s differences from the unbroken runs."""
    rows = [["first", "then", "tensor", "loss", "worst tensor"]]
    for (first, second), (d,) in changed.items():
        rows.append([first, second, f"{d.tensor[0]:.1e}", f"{d.loss[0]:.1e}", d.tensor[1]])
    return text_table(rows, "<<>><")


if __name__ == "__main__":
    narrow = SYSTEMS["dcgan64"].replace(width=4, batch_size=4)
    images = training_images("noise", narrow, 0)
    whole = Experiment(narrow, images, steps=100, seed=0, dtype="float64")
    print(change_table(change_framework([*map(load_implementation, IMPLEMENTATIONS)], whole, 50)))
