"""Pairs of recordings with the mistakes of public reports, and pairs that are right.

Each is one layer or one optimizer of two loops: what `record` is given is what a user records.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from shared.record import Recorder
from shared.reference import layers
from shared.reference.optimizers import adam_update
from shared.spec import AdamSpec, Conventions
from tests.wild.case import RecordingCase

Write = Callable[[Recorder], None]
STEPS = 4


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def pair(first: Write, second: Write) -> Callable[[Path, Path], None]:
    def write(theirs: Path, ours: Path) -> None:
        for path, loop in ((theirs, first), (ours, second)):
            with Recorder(path) as record:
                loop(record)

    return write


def upsampling(crop: slice, turn: int = 1, noise: float = 0.0) -> Write:
    """A conv-transpose of stride 2 and 3 x 3; `turn` -1 stores its kernel flipped."""
    x, kernel = normal(2, 8, 8, 5), normal(3, 3, 4, 5, seed=1)

    def loop(record: Recorder) -> None:
        y = layers.conv_transpose_forward(x, kernel, 2, 0)[0][:, crop, crop]
        record("g/up/input", x, layout="NHWC")
        record("g/up/kernel", kernel[::turn, ::turn], layout="HWOI")
        record("g/up/output", y, layout="NHWC")
        record("g/images", np.tanh(y), layout="NHWC")
        record("d/scores", y.mean(axis=(1, 2, 3)) + noise)

    return loop


def images(order: int) -> Write:
    def loop(record: Recorder) -> None:
        x, kernel = normal(4, 8, 8, 3)[..., ::order], normal(4, 4, 3, 6, seed=1)
        record("images", x, layout="NHWC")
        record("d/conv/kernel", kernel, layout="HWIO")
        record("d/conv/output", layers.conv_forward(x, kernel, 2, 1)[0], layout="NHWC")

    return loop


def batch_norm(
    momentum: float = 0.1,
    ddof: int = 1,
    epsilon: float = 1e-5,
    is_debiased: bool = False,
    passes: int = 1,
) -> Write:
    """BN in training mode; a second pass in a step, if there is one, has other inputs."""

    def loop(record: Recorder) -> None:
        mean, var, count = np.zeros(12), np.ones(12), 0
        record("g/bn/mean", mean)
        record("g/bn/var", var)
        for step in range(STEPS):
            record.step()
            for number in range(1, passes + 1):
                x = 2.0 * normal(8, 6, 6, 12, seed=step + 100 * number) + 1.0
                own = "" if number == 1 else f"/{number}"
                record(f"g/bn/input{own}", x, layout="NHWC")
                if number == 1:
                    record("g/bn/scale", np.ones(12))
                    y = layers.batch_norm_forward(x, np.ones(12), np.zeros(12), epsilon)[0]
                    record("g/bn/output", y, layout="NHWC")
                count += 1
                weight = momentum / (1 - (1 - momentum) ** count) if is_debiased else momentum
                mean = mean + weight * (x.mean((0, 1, 2)) - mean)
                var = var + weight * (x.var((0, 1, 2), ddof=ddof) - var)
            record("g/bn/mean", mean)
            record("g/bn/var", var)

    return loop


def training(
    scale: float = 1.0, times: int = 1, momentum: float = 0.5, **conventions: object
) -> Write:
    """Adam on recorded gradients, multiplied by `scale`, each used `times` times."""
    c, settings = Conventions().replace(**conventions), AdamSpec(2e-4, momentum, 0.999, 1e-8)

    def loop(record: Recorder) -> None:
        parameter, moments, number = normal(6, 4), (np.zeros((6, 4)), np.zeros((6, 4))), 0
        record("generator/dense/kernel", parameter)
        for step in range(STEPS):
            record.step()
            gradient = scale * 1e-7 * normal(6, 4, seed=10 + step)
            for _ in range(times):
                number += 1
                parameter, *rest = adam_update(parameter, gradient, moments, number, settings, c)
                moments = rest[0], rest[1]
            record("generator_loss", 0.7 + 0.1 * step)
            for name, array in (("/gradient", gradient), ("", parameter)):
                record(f"generator/dense/kernel{name}", array)
            for name, array in zip("mv", moments, strict=True):
                record(f"generator/dense/kernel/{name}", array)

    return loop


def clipped(record: Recorder) -> None:
    """Gradients of the norm 1e-7 at most, and of another factor in each step."""
    training()(record)
    for key, tensor in list(record._tensors.items()):
        if "gradient" in key[1]:
            tensor.array[...] *= 1e-7 / np.linalg.norm(tensor.array)


SEEN = (
    RecordingCase(
        "keras-team/keras#22876",
        "off by one pixel: output_padding against same",
        pair(upsampling(slice(1, 17)), upsampling(slice(0, 16))),
        frozenset({("padding_alignment", "before", "after")}),
    ),
    RecordingCase(
        "pytorch/examples#1196",
        "gradients before unscale_",
        pair(training(), training(scale=65536.0)),
        frozenset({("generator_gradient_scale", "1.0", "65536.0")}),
    ),
    RecordingCase(
        "tensorpack/tensorpack#176",
        "BGR of cv2.imread",
        pair(images(1), images(-1)),
        frozenset({("image_channels", "as_stored", "reversed")}),
    ),
    RecordingCase(
        "keras-team/keras#9003",
        "a zero-debiased running average",
        pair(batch_norm(), batch_norm(is_debiased=True)),
        frozenset({(None, "running average plain", "running average zero-debiased")}),
    ),
    RecordingCase(
        "woozzu/tagan#19",
        "G is run twice a step",
        pair(batch_norm(), batch_norm(passes=2)),
        frozenset({(None, "g once a step", "g 2 times a step")}),
    ),
    RecordingCase(
        "jax-ml/jax#592",
        "right: a kernel stored flipped, and used so",
        pair(upsampling(slice(0, 16)), upsampling(slice(0, 16), turn=-1)),
    ),
)


# --- looked at once, at the end ------------------------------------------------------------------

HELD_BACK = (
    RecordingCase(
        "rwth-i6/returnn#1539",
        "the biased variance in the running one",
        pair(batch_norm(), batch_norm(ddof=0)),
        frozenset({("batch_norm_running_variance", "unbiased", "biased")}),
    ),
    RecordingCase(
        "pytorch/examples#289",
        "BN's momentum in the other meaning",
        pair(batch_norm(), batch_norm(momentum=0.9)),
        frozenset({("batch_norm_momentum", "0.1", "0.9")}),
    ),
    RecordingCase(
        "qqwweee/keras-yolo3#451",
        "BN's epsilon",
        pair(batch_norm(), batch_norm(epsilon=1e-3)),
        frozenset({("batch_norm_epsilon", "1e-05", "0.001")}),
    ),
    RecordingCase(
        "keras-team/keras#9951",
        "BN's epsilon, of no list",
        pair(batch_norm(epsilon=1.001e-3), batch_norm(epsilon=2e-4)),
        frozenset({("batch_norm_epsilon", "0.001001", "0.0002")}),
    ),
    RecordingCase(
        "google-deepmind/optax#571",
        "Adam's epsilon before the correction",
        pair(training(), training(adam_epsilon_placement="before_correction")),
        frozenset({("adam_epsilon_placement", "outside", "before_correction")}),
    ),
    RecordingCase(
        "carpedm20/DCGAN-tensorflow#106",
        "two updates on the same minibatch",
        pair(training(), training(times=2)),
        frozenset({("generator_updates", "once", "twice")}),
    ),
    RecordingCase(
        "apache/singa#65",
        "gradients averaged twice",
        pair(training(), training(scale=0.5)),
        # Which of the two is multiplied no recording can tell.
        frozenset(
            {
                ("generator_gradient_scale", "1.0", "0.5"),
                ("generator_gradient_scale", "2.0", "1.0"),
            }
        ),
    ),
    RecordingCase(
        "google-deepmind/optax#417",
        "AdamW for Adam",
        pair(training(), training(adam_decoupled_decay=1e-4)),
        frozenset({("adam_decoupled_decay", "0.0", "0.0001")}),
    ),
    RecordingCase(
        "pytorch/pytorch#22163",
        "decay in the gradient",
        pair(training(), training(adam_weight_decay=1e-2)),
        frozenset({("adam_weight_decay", "0.0", "0.01")}),
    ),
    RecordingCase(
        "harubaru/waifu-diffusion#64",
        "gradients clipped by their norm",
        pair(training(), clipped),
        is_known=False,
    ),
)
