"""The options of `python -m {pytorch_impl,tf_impl,jax_impl}.train`: their names and their help."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from shared.run.options import (
    ALL_CHECKPOINTS,
    GENERATOR_BATCHES,
    KEEP_CHECKPOINTS,
    QUICK_RUNS,
    WAIT_LIMIT,
    QuickRun,
)
from shared.spec import LOSS_NAMES, SYSTEMS
from shared.spec.replicas import BATCH_NORMS

EXIT_CODES = (
    "exit codes: 0 complete; 2 bad input, or a disk, memory or training that fails: one line on "
    "stderr;\n130 Ctrl-C, 143 SIGTERM, 141 the output was closed: all with a checkpoint to "
    "--resume from; 1 a bug"
)


def build_parser(implementation: str) -> argparse.ArgumentParser:
    """Return the parser, the same in all three implementations but for the name."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {implementation}_impl.train",
        usage="%(prog)s [options]",
        description=(
            f"Train a GAN in {implementation}. The same options and the same --seed start the same "
            "run in\npytorch, tf and jax."
        ),
        epilog=(
            "With no options: a narrow dcgan64 on scikit-learn's digits. The defaults take less "
            "than two minutes\non them on two CPU cores, and are the same on every device and for "
            "every data set:\n\n"
            f"{_quick_runs()}\n\n"
            "--full takes the system's own width and batch size instead. What is given explicitly "
            f"always holds.\n\n{EXIT_CODES}\n\n"
            "docs/runs.md: resuming, checkpoints, configuration files, what each message means"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_what_to_train(parser)
    _add_where(parser, implementation)
    _add_how(parser)
    return parser


def _add_what_to_train(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to train")
    group.add_argument(
        "--system",
        choices=SYSTEMS,
        default="dcgan64",
        help="dcgan64: convolutional, 64x64 in colour; dcgan64-lsgan: the same with a dense last "
        "layer and loss lsgan; conv28: convolutional, 28x28 grey; mlp28: dense layers only, 28x28 "
        "grey (default: %(default)s)",
    )
    group.add_argument(
        "--loss", choices=LOSS_NAMES, help="adversarial loss (default: the system's own)"
    )
    group.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder of images, IDX file as MNIST's (raw or .gz), or .npz "
        "(default: scikit-learn's digits)",
    )
    _add_sizes(group)
    _add_order_of_a_step(group)
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the weights, the latents and the order of the images (default: %(default)s)",
    )


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    own = ", ".join(
        f"{name} {system.width} and {system.batch_size}"
        for name, system in SYSTEMS.items()
        if name in QUICK_RUNS
    )
    group.add_argument(
        "--width",
        type=int,
        metavar="W",
        help="size of the narrowest hidden layer, of which the others are multiples "
        "(default: by system, see below)",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="images per update, at least 2 (default: by system, see below)",
    )
    _add_flag(group, "--full", f"default to the system's own width and batch size ({own})")
    group.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="training steps in all, those before a --resume included "
        "(default: by system, see below)",
    )
    group.add_argument(
        "--learning-rate",
        type=float,
        metavar="LR",
        help="of both networks (default: the system's own times its width over --width, because "
        "Adam's steps have one size and fewer channels add up to less)",
    )


def _add_order_of_a_step(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--d-steps",
        type=int,
        metavar="K",
        help="discriminator updates per generator update, each with fresh images and latents, as "
        "in Goodfellow et al. 2014, Algorithm 1 (default: the system's own, 1 in all of them)",
    )
    group.add_argument(
        "--generator-batch",
        choices=GENERATOR_BATCHES,
        help="what the generator learns from. same-images: the fakes that the discriminator has "
        "just seen; same-latents: images made anew from their latents, after the discriminator "
        "has changed; new-latents: images from latents of its own, as in Goodfellow et al. 2014, "
        "Algorithm 1 (default: the system's own, whatever --d-steps is: same-latents for conv28, "
        "same-images for the others)",
    )


def _quick_runs() -> str:
    """Return a table of the defaults of every system."""
    fields = [field.name for field in dataclasses.fields(QuickRun)]
    rows = [["", *(f"--{field.replace('_', '-')}" for field in fields)]]
    for name, system in SYSTEMS.items():
        quick = QUICK_RUNS[system.architecture]
        rows.append([name, *(str(getattr(quick, field)) for field in fields)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _add_where(parser: argparse.ArgumentParser, implementation: str) -> None:
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder of the run (default: runs/{implementation}-SYSTEM-LOSS, or the next free "
        "name with -2, -3, ...; with --resume the latest of these)",
    )
    _add_flag(
        group,
        "--resume",
        "continue from the last checkpoint in --out, whichever framework wrote it; "
        "repeat the options of the first run, --steps may grow",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="take options from a TOML file, such as the config.toml in the folder of every run: "
        "batch-size = 16, full = true; the command line wins",
    )
    for what in ("sample", "checkpoint"):
        group.add_argument(
            f"--{what}-every",
            type=int,
            metavar="N",
            help=f"steps between two {what}s; the last step always makes one "
            "(default: by system, see below)",
        )
    group.add_argument(
        "--keep-checkpoints",
        type=checkpoints_to_keep,
        metavar="N",
        help="how many of the newest checkpoints to keep, or all "
        f"(default: {KEEP_CHECKPOINTS}; with --resume as the run was started)",
    )
    _add_flag(
        group,
        "--tensorboard",
        "also write losses, samples and their quality for TensorBoard into --out; "
        "`tensorboard --logdir runs` shows all runs side by side",
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where and how to compute")
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="auto is the GPU where the framework finds one (default: %(default)s)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the weights and of all arithmetic (default: %(default)s)",
    )
    _add_devices(group)
    _add_flag(group, "--debug", "show the traceback of an error")


def _add_flag(group: argparse._ArgumentGroup, name: str, help_text: str) -> None:
    # With its --no- form, so that the command line can take back what a configuration file says.
    group.add_argument(name, action=argparse.BooleanOptionalAction, default=False, help=help_text)


def checkpoints_to_keep(text: str) -> int:
    """Return a number of checkpoints out of "3" or "all"."""
    if text == "all":
        return ALL_CHECKPOINTS
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected a whole number or all, received {text!r}"
        ) from error


def _add_devices(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="train on N GPUs, or N virtual CPU devices; each takes its part of every batch, "
        "which N must divide. The run is the same for every N (default: %(default)s)",
    )
    group.add_argument(
        "--batch-norm",
        choices=BATCH_NORMS,
        default="global",
        help="with several devices: normalise by the statistics of the global batch, or each "
        "device by those of its own part (default: %(default)s)",
    )
    group.add_argument(
        "--wait-limit",
        type=float,
        default=WAIT_LIMIT,
        metavar="SECONDS",
        help="with several processes: give up when another one has not answered for so long "
        "(default: %(default)g)",
    )
