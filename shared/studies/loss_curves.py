"""The four losses and their gradients against the score, as a picture.

`python -m shared.loss_curves` draws `docs/images/loss_curves.png`: above the loss of one score,
below its derivative, for the discriminator on a real and on a fake image and for the generator.
The values are those of the NumPy reference. Bad input is exit code 2.
"""

import argparse
import tomllib
from pathlib import Path

import numpy as np

from shared.files.atomic import require_place
from shared.reference.layers import Array, sigmoid_forward
from shared.reference.losses import discriminator_half, generator_loss
from shared.run.console import command
from shared.run.pictures import plot
from shared.spec import Conventions

ROLES = {"real": "D on real images", "fake": "D on fake images", "generator": "G"}
"""Whose loss: that of the discriminator on a real image, on a fake one, of the generator."""

OUT = Path("docs/images/loss_curves.png")
_DRAWN = tomllib.loads(Path(__file__).with_name("loss_curves.toml").read_text("utf-8"))
_ARROW = {"arrowstyle": "->", "linewidth": 0.8}
_BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}


def loss_curve(loss: str, role: str, scores: Array) -> tuple[Array, Array]:
    """Return the loss of every score and its derivative by that score, float64 [scores].

    By the reference, with labels 1, 0, 1; of `bce_probs` at σ(score).
    """
    c = Conventions()
    label = {"real": c.real_label, "fake": c.fake_label}.get(role)
    inputs, backward = sigmoid_forward(scores) if loss == "bce_probs" else (scores, None)
    # Batches of one: the reference returns the mean of a batch.
    found = (
        generator_loss(loss, x, c) if label is None else discriminator_half(loss, x, label, c)
        for x in inputs[:, None]
    )
    values, gradients = zip(*found, strict=True)
    gradient = np.concatenate(gradients)
    return np.array(values), backward(gradient)[0] if backward else gradient


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=OUT, metavar="PNG", help="default: %(default)s")


def _run(options: argparse.Namespace) -> None:
    require_place(options.out)
    scores = np.linspace(-6.0, 6.0, 241)
    with plot(options.out, 11, 7.2, 2, 3, sharex=True, sharey="row") as panels:
        for (above, below), role in zip(panels.T, ROLES, strict=True):
            for loss, style in _DRAWN["styles"].items():
                for axes, curve in zip((above, below), loss_curve(loss, role, scores), strict=True):
                    axes.plot(scores, curve, label=loss, **style)
            above.set_title(ROLES[role])
            for text, point, place in _DRAWN["notes"][role]:
                below.annotate(text, point, place, fontsize="small", arrowprops=_ARROW, bbox=_BOX)
            below.set_xlabel("score (a logit; for lsgan the output itself)")
        for axes in panels.flat:
            axes.axhline(0.0, color="black", linewidth=0.8)
        panels[0, 0].set(ylabel="loss of one score", ylim=(-6.2, 8.0), xlim=(-6.0, 6.0))
        panels[1, 0].set(ylabel="derivative by the score", ylim=(-4.9, 5.6))
        panels[0, 0].legend(loc="lower left", fontsize="small", ncols=2)
    print(f"wrote {options.out}")


main = command("python -m shared.loss_curves", __doc__, _add_options, _run)
