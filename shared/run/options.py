"""The options of every command line, `--config FILE` and config.toml of training, in one table."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

from shared.files.checkpoint import check_shapes
from shared.files.system_file import find_system
from shared.formats.file_kinds import joined, kind_of
from shared.formats.native_contents import OPTIMIZERS, Contents, part_shapes
from shared.interface import Arrays
from shared.run.console import OneLineParser, positive, seed_number, text_table, whole
from shared.spec import LOSS_NAMES, NETWORKS, SYSTEMS, GeneratorBatch, SystemSpec
from shared.spec.compute import BATCH_NORMS, PRECISIONS, BatchNormKind, Compute, check_replicas
from shared.spec.state_arrays import cast_floats
from shared.spec.streams import initial_state

GENERATOR_BATCHES = {name.replace("_", "-"): name for name in get_args(GeneratorBatch)}
WAIT_LIMIT = 300.0  # seconds: more than any first step of a compiler takes here

DEFAULT_SYSTEM = "dcgan64"
ALL_CHECKPOINTS = 0  # as a number of checkpoints to keep
KEEP_CHECKPOINTS = 3  # one to go on from, and two should that one be damaged or too late


class QuickRun(NamedTuple):
    """What a command without --full trains: enough for clothes that can be told apart."""

    width: int
    batch_size: int
    steps: int
    sample_every: int
    checkpoint_every: int


QUICK_RUNS = {
    "dcgan64": QuickRun(16, 32, steps=600, sample_every=100, checkpoint_every=500),
    "conv28": QuickRun(32, 64, steps=600, sample_every=100, checkpoint_every=500),
    "mlp28": QuickRun(128, 64, steps=10_000, sample_every=500, checkpoint_every=4000),
}
"""By architecture."""


class InitialWeights(NamedTuple):
    """--init-from: what files, of any kind that we read, hold of a state to start a run with."""

    paths: tuple[Path, ...]
    contents: Contents
    weights: Arrays

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Self:
        """Read one file or several; raises InputError for what cannot be read or joined."""
        contents = joined({path: kind_of(path).read(path) for path in paths})
        weights = {n: a for n, a in contents.arrays.items() if n.split("/")[0] in NETWORKS}
        return cls(tuple(paths), contents, weights)

    def options(self, system: str | None) -> dict[str, Any]:
        """Return the options, and the latent_dim, that the files determine.

        The loss is of no account to another system, nor the image size to another architecture.
        """
        spec = self.contents.spec
        sizes = {name: getattr(spec, name) for name in ("width", "latent_dim", "channels")}
        if SYSTEMS.get(system or spec.name, spec).architecture == spec.architecture:
            sizes["image_size"] = spec.image_size
        loss = {"loss": spec.loss} if system in (None, spec.name) else {}
        return {"system": spec.name, **sizes, **loss}

    def require_fit(self, spec: SystemSpec) -> None:
        """Raise InputError, which names them, for arrays that are not the spec's."""
        what = f"--init-from for {spec.name} of width {spec.width}"
        check_shapes(self.paths[0], self.weights, part_shapes(spec, self.contents.networks), what)

    def arrays(self, spec: SystemSpec, seed: int, dtype: str) -> Arrays:
        """Return a whole state: the files' weights, and the rest as `seed` starts it."""
        return cast_floats(initial_state(spec, seed) | self.weights, dtype)

    def notes(self) -> list[str]:
        """Return what the run starts from, and what it does not, one line each."""
        held = self.contents
        where = " and ".join(map(str, self.paths))
        others = [name for name in held.held if name not in held.networks]
        fresh = [name for name in NETWORKS if name not in held.networks]
        notes = [f"starting from {where}: {' and '.join(held.networks)}, Adam at zero"]
        notes += [f"left behind: {', '.join(others)} of {where}"] if others else []
        notes += [f"left behind: {note}" for note in held.notes]
        return notes + [f"from the seed: {name}" for name in fresh]


@dataclass(frozen=True)
class TrainingOptions:
    """What to train and how; `spec` is final, in its loss, width, batch size and order of a step.

    `data` is a path, or None for Fashion-MNIST. `checkpoint_every` and `sample_every` count steps,
    `wait_limit` seconds; `devices`, `batch_norm` and `mode` are those of `shared.spec.compute`,
    `precision` is a key of its PRECISIONS. `initial` is what --init-from stands for, `config` what
    config.toml holds, empty for no such file. ValueError for devices that do not suit the batch.
    """

    implementation: str
    spec: SystemSpec
    data: Path | None
    steps: int
    seed: int
    out: Path
    resume: bool
    device: Literal["auto", "cpu", "gpu"]
    dtype: Literal["float32", "float64"]
    checkpoint_every: int
    sample_every: int
    tensorboard: bool
    devices: int = 1
    batch_norm: BatchNormKind = "global"
    precision: str = "fp32"
    mode: str | None = None
    wait_limit: float = WAIT_LIMIT
    keep_checkpoints: int = KEEP_CHECKPOINTS
    config: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    initial: InitialWeights | None = None

    def __post_init__(self) -> None:
        check_replicas(self.spec, self.devices, self.batch_norm)

    @property
    def compute(self) -> Compute:
        """How the training state computes."""
        place = self.device, self.devices, self.batch_norm
        return Compute(self.dtype, PRECISIONS[self.precision], self.mode, *place)


def respecified(system: SystemSpec, given: Mapping[str, Any]) -> SystemSpec:
    """Return a system with those of its options that are given, by name, and are not None."""
    names = ("image_size", "channels", "width", "latent_dim", "batch_size", "loss")
    fields = {name: given.get(name) for name in names}
    fields["discriminator_steps"] = given.get("d_steps")
    fields["generator_batch"] = GENERATOR_BATCHES.get(given.get("generator_batch", ""))
    if (rate := given.get("learning_rate")) is not None:
        for name in OPTIMIZERS:
            fields[name] = replace(getattr(system, name), learning_rate=rate)
    return system.replace(**{name: value for name, value in fields.items() if value is not None})


class Option(NamedTuple):
    """One option: `name` is its flag after the two dashes and its key in a configuration file.

    A bool is a flag with a --no- form, which takes back what a configuration file sets.
    """

    name: str
    type: Callable[[str], Any] = str
    metavar: str | None = None
    default: Any = None
    choices: tuple[Any, ...] | None = None
    nargs: str | None = None


def _checkpoints_to_keep(text: str) -> int:
    return ALL_CHECKPOINTS if text == "all" else whole(0)(text)


_checkpoints_to_keep.__name__ = "whole number, or all,"  # what argparse calls it
_BY_SYSTEM = "(default: by system, see below)"
_OWN_SIZES = ", ".join(f"{n} {SYSTEMS[n].width} and {SYSTEMS[n].batch_size}" for n in QUICK_RUNS)
OPTIONS: dict[str, dict[Option, str]] = {
    "what to train": {
        Option("system", choices=tuple(SYSTEMS)): "dcgan64: convolutional, 64x64 in colour; "
        "dcgan64-lsgan: the same with a dense last layer and loss lsgan; conv28: convolutional, "
        "28x28 grey; mlp28: dense, 28x28 grey (default: dcgan64, or that of --init-from)",
        Option("loss", choices=LOSS_NAMES): "adversarial loss (default: the system's own)",
        Option("data", Path, "PATH"): "folder of images, IDX file as MNIST's (raw or .gz), or .npz "
        "(default: 2,000 images of Fashion-MNIST)",
        Option("image-size", int, "PIXELS"): "height and width of images: 32, 64, 128 "
        "or 256 for the two dcgan64, 28 for the others (default: the system's own)",
        Option("channels", int, choices=(1, 3)): "1: grey; 3: colour (default: the system's own)",
        Option("width", whole(1), "W"): f"size of the narrowest hidden layer {_BY_SYSTEM}",
        Option("batch-size", whole(2), "B"): f"images per update, at least 2 {_BY_SYSTEM}",
        Option("full", bool): f"default to the system's own width and batch size ({_OWN_SIZES})",
        Option("init-from", Path, "FILE", nargs="+"): "start from the weights in a file, or in one "
        "of each network, as `python -m shared.convert` reads them; the rest is the seed's",
        Option("steps", whole(1), "N"): f"training steps, those before --resume too {_BY_SYSTEM}",
        Option("learning-rate", positive, "LR"): "of both networks (default: the system's own "
        "times its width over --width, because the steps of fewer channels add up to less)",
        Option("d-steps", whole(1), "K"): "discriminator updates per generator update, each with "
        "fresh images and latents: Goodfellow et al. 2014, Algorithm 1 (default: the system's)",
        Option("generator-batch", choices=tuple(GENERATOR_BATCHES)): "the generator learns from "
        "the fakes that the discriminator has just seen, from images made anew from their latents, "
        "or from latents of its own, as in Algorithm 1 (default: the system's own)",
        Option("seed", seed_number, "S", 0): "of weights, latents and the order of the images",
    },
    "the run": {
        Option("out", Path, "DIR"): "folder of the run (default: runs/IMPLEMENTATION-SYSTEM-LOSS, "
        "or the next free name with -2, -3, ...; with --resume the latest of these)",
        Option("resume", bool): "continue from the last checkpoint in --out, whichever framework "
        "wrote it, with the options in its config.toml; what is given here wins: --steps may grow",
        Option("config", Path, "FILE"): "take options from a TOML file, such as the config.toml in "
        "the folder of every run: batch-size = 16, full = true; the command line wins",
        Option("sample-every", whole(1), "N"): f"steps between two samples {_BY_SYSTEM}",
        Option("checkpoint-every", whole(1), "N"): f"steps between two checkpoints {_BY_SYSTEM}",
        Option("keep-checkpoints", _checkpoints_to_keep, "N"): "how many of the newest checkpoints "
        f"to keep, or all (default: {KEEP_CHECKPOINTS})",
        Option("tensorboard", bool): "also write losses and samples for TensorBoard into --out",
    },
    "where and how to compute": {
        Option("device", str, None, "auto", ("auto", "cpu", "gpu")): "auto: a GPU, if there is one",
        Option("dtype", str, None, "float32", ("float32", "float64")): "of weights and arithmetic",
        Option("precision", str, None, "fp32", tuple(PRECISIONS)): "of convolutions and matrix "
        "products; weights, statistics, losses and Adam stay --dtype; tf32 needs a GPU",
        Option("mode", metavar="MODE"): "how a step runs: eager, compile or cudagraph in pytorch, "
        "function or xla in tf, jit in jax (default: by device)",
        Option("devices", int, "N", 1): "train on N GPUs, or N virtual CPU devices; each takes its "
        "part of every batch, which N must divide. The run is the same for every N",
        Option("batch-norm", default="global", choices=BATCH_NORMS): "with several devices: "
        "normalise by the statistics of the global batch, or each device by those of its own part",
        Option("wait-limit", positive, "SECONDS", WAIT_LIMIT): "longest wait for another process",
        Option("debug", bool): "show the traceback of an error",
    },
}
"""Their help, by the headings of --help."""


def build_parser(implementation: str) -> OneLineParser:
    """Return the parser, the same in all three implementations but for the name."""
    parser = OneLineParser(
        prog=f"python -m {implementation}_impl.train",
        usage="%(prog)s [options]",
        description=f"Train a GAN in {implementation}. Options start the same run in all three.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for option, text in options.items():
            _add(group, option, text.replace("IMPLEMENTATION", implementation))
    return parser


def _add(group: argparse._ActionsContainer, option: Option, text: str) -> None:
    settings = {n: v for n, v in option._asdict().items() if n != "name" and v is not None}
    if option.type is bool:
        settings = {"action": argparse.BooleanOptionalAction, "default": False}
    text += "" if "default" in text or option.default is None else " (default: %(default)s)"
    group.add_argument(f"--{option.name}", help=text, **settings)


_DEFAULTS = [["", *(column.replace("_", "-") for column in QuickRun._fields)]]
_DEFAULTS += [[name, *map(str, QUICK_RUNS[x.architecture])] for name, x in SYSTEMS.items()]
_EPILOG = f"""\
With no options: a narrow dcgan64 on 2,000 images of Fashion-MNIST. The defaults
take less than two minutes on them on two CPU cores, and are the same on every
device and for every data set:

{text_table(_DEFAULTS, "<")}

--full takes the system's own width and batch size instead. What is given
explicitly always holds.

exit codes: 0 complete; 2 bad input, or a disk, memory or training that fails:
one line on stderr; 130 Ctrl-C, 143 SIGTERM, 141 the output was closed: all with
a checkpoint to --resume from; 1 a bug

docs/runs.md: resuming, checkpoints, configuration files, every message"""


def add_spec_options(parser: argparse.ArgumentParser, system: str | None, batch_size: int) -> None:
    """Add --system, ours or a file, and an option for each field that may be another one."""
    names = f"{', '.join(SYSTEMS)}, or a file: docs/systems.md (default: {system or 'all four'})"
    narrow = "(default: narrow, of a file its own)"
    _add(parser, Option("system", str, "SYSTEM|FILE", system), names)
    _add(parser, Option("width", int, "W"), f"size of the narrowest layer {narrow}")
    _add(parser, Option("latent-dim", int, "N"), narrow)
    _add(parser, Option("batch-size", int, "B", batch_size), "(default: %(default)s)")
    _add(parser, Option("learning-rate", positive, "LR"), "(default: the system's own)")
    for option, text in OPTIONS["what to train"].items():
        if option.name in ("loss", "image-size", "channels", "d-steps", "generator-batch"):
            _add(parser, option, text)


def chosen_spec(options: argparse.Namespace, narrow: Callable[[str], dict[str, int]]) -> SystemSpec:
    """Return the system of the options, or ValueError; `narrow` has sizes of each architecture."""
    system = find_system(options.system)
    own = {} if system.architecture == "custom" else narrow(system.architecture)
    given = {name: value for name, value in vars(options).items() if value is not None}
    return respecified(system, own | given)
