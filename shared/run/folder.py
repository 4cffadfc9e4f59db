"""The folder of a run: which file lies where, what is already there, which checkpoint is last.

docs/runs.md says what is in each file. The numbers in their names and in the tables count completed
steps, so step index 199 makes 200. A process that trains into the folder holds `.lock`.
"""

import contextlib
import json
import math
import os
import re
import shutil
import struct
import time
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from filelock import BaseFileLock, FileLock, Timeout

from shared.files.atomic import write_file_atomically
from shared.files.checkpoint import Contents, read_checkpoint, spec_differences
from shared.files.errors import InputError, printable, refused_as
from shared.interface import METRIC_NAMES, Array
from shared.run.options import ALL_CHECKPOINTS, TrainingOptions
from shared.run.pictures import averaging_window, moving_average, plot

LOSS_COLUMNS = ("step", *METRIC_NAMES, "seconds")
QUALITY_COLUMNS = ("step", "swd")
TAGS = {n: n.replace("discriminator", "d").replace("generator", "g") for n in METRIC_NAMES}
"""METRIC_NAMES → what TensorBoard calls them: d_loss, d_loss_real, d_loss_fake, g_loss."""
MOST_STEPS = 2**53  # above it float64 does not hold every whole number
_NUMBERED = re.compile(r"step_(\d{6,})\.(png|safetensors)")
# What `write_file_atomically` leaves of these files when its process is killed.
_LEFTOVER = re.compile(
    r"\.(step_\d{6,}\.(png|safetensors)|(run\.json|config\.toml|losses\.(csv|png)|quality\.csv"
    r"|events\.out\.tfevents\.\d+\.gan))\.\w{8}\.tmp"
)


class RunFolder:
    """The paths of one run, and the questions that starting and resuming ask of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path / "run.json"
        self.config = path / "config.toml"
        self.losses = path / "losses.csv"
        self.losses_plot = path / "losses.png"
        self.quality = path / "quality.csv"
        self.samples = path / "samples"
        self.checkpoints = path / "checkpoints"

    def sample(self, completed: int) -> Path:
        """The grid of samples after so many completed steps."""
        return self.samples / f"step_{completed:06d}.png"

    def checkpoint(self, completed: int) -> Path:
        """The checkpoint after so many completed steps."""
        return self.checkpoints / f"step_{completed:06d}.safetensors"

    def require_free(self) -> None:
        """Raise ValueError if a run is here, NotADirectoryError if a file is."""
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"--out {self.path} is a file; expected a folder or none")
        files = (self.description, self.losses, self.samples, self.checkpoints)
        if taken := [path.name for path in files if path.exists()]:
            advice, held = "continue it with --resume or choose another name", ", ".join(taken)
            raise ValueError(f"--out {self.path} already holds a run ({held}); {advice}")

    def lock(self) -> BaseFileLock:
        """Hold the folder, made if need be, for this process; ValueError if another does."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            text = f"another process is training into --out {self.path}"
            raise ValueError(f"{text}; wait for its end or choose another name") from error
        return lock

    def read_last_checkpoint(self, options: TrainingOptions) -> tuple[Contents | None, list[str]]:
        """Return the last checkpoint that is good, and notes on those that are not.

        None for a run that was killed before its first one. ValueError where there is nothing to go
        on from, InputError where none can be read or the spec, seed or dtype is another.
        """
        if not (files := newest_first(self.checkpoints)):
            (rows, _), sessions = read_table(self.losses, LOSS_COLUMNS), self.sessions()
            first = sessions[-1]["options"].get("checkpoint_every", 0) if sessions else 0
            # A run whose checkpoints were deleted keeps its records: all that is left of it.
            if not sessions or (len(rows) and rows["step"][-1] > first):
                text = f"nothing to resume: no checkpoint in {self.checkpoints}"
                raise ValueError(f"{text}; leave --resume out, or name a run's folder with --out")
            return None, [f"starting again: {self.path} was stopped before its first checkpoint"]
        notes = []
        for path in files:
            try:
                checkpoint = read_checkpoint(path)
                if bad := describe_non_finite(checkpoint.arrays):
                    raise InputError(f"{path}: {bad}")
            except InputError as error:
                notes.append(f"skipped: {error}")
            else:
                break
        else:
            raise InputError(f"no checkpoint can be read: {'; '.join(notes)}")
        differences = spec_differences(checkpoint.spec, options.spec)
        for name in ("seed", "dtype"):
            found, asked = checkpoint.progress.get(name), getattr(options, name)
            if found != asked:
                differences.append(f"{name}: {found} in the checkpoint, {asked} asked for")
        if differences:
            text = f"{path} is from a run with other options ({'; '.join(differences)})"
            raise InputError(f"{text}; repeat those of the first run or choose another --out")
        writer = checkpoint.progress.get("implementation")
        return checkpoint, [*notes, f"resuming from {path} (written by {writer})"]

    def create(self) -> None:
        """Make the folders that are missing; remove what killed writers have left of files."""
        self.samples.mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(exist_ok=True)
        for folder in (self.path, self.samples, self.checkpoints):
            for path in folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    shutil.rmtree(path)

    def prune_checkpoints(self, completed: int, keep: int) -> None:
        """Leave the newest `keep` up to `completed` steps; later ones cannot be read."""
        if keep != ALL_CHECKPOINTS:
            for path in newest_first(self.checkpoints, completed)[keep:]:
                path.unlink()

    def sessions(self) -> list[dict[str, Any]]:
        """Return the sessions of run.json, none where it is missing; InputError."""
        advice = "move it away to go on without it"
        return self.read_description(advice)[1] if self.description.exists() else []

    def read_description(
        self, advice: str = "name the folder that was training's --out"
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the spec and the sessions, at least one, of run.json; InputError."""
        if not self.description.is_file():
            text = "expected the folder of a run, found no run.json in it"
            raise InputError(f"{self.path}: {text}; {advice}")
        expected = "what training writes (spec, and one or more sessions with their options)"
        with refused_as(self.description, expected, advice):
            content = json.loads(self.description.read_text(encoding="utf-8"))
            sessions = [
                {**s, "options": dict(s["options"]), "versions": dict(s.get("versions", {}))}
                for s in content["sessions"]
            ]
            sessions[-1]  # there is at least one
            return dict(content["spec"]), sessions

    def add_session(self, spec: dict[str, Any], session: dict[str, Any]) -> None:
        """Add one start of the run to run.json; a run that was resumed has several."""
        content = {"spec": spec, "sessions": [*self.sessions(), session]}
        self.write(self.description, json.dumps(content, indent=2, default=os.fspath).encode())

    def plot_losses(self) -> None:
        """Draw losses.png, if losses.csv holds a step: both losses, pale, and their averages."""
        rows, _ = read_table(self.losses, LOSS_COLUMNS)
        if not len(rows):
            return
        window = averaging_window(len(rows))
        with naming_file(self.losses_plot), plot(self.losses_plot, 9.6, 5.4) as ((axes,),):
            # A folder may be called anything: $ begins no formula, odd bytes are escaped.
            axes.set_title(printable(self.path.resolve().name), parse_math=False)
            axes.set(xlabel="training step", ylabel="loss")
            for network, colour in (("discriminator", "tab:blue"), ("generator", "tab:orange")):
                steps, losses = rows["step"], rows[f"{network}_loss"]
                axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.8)
                axes.plot(steps, moving_average(losses, window), color=colour, label=network)
            axes.legend(title=f"mean of {window} steps" if window > 1 else None)

    def write(self, path: Path, content: bytes) -> None:
        """Write one of the files whole or not at all; OSError names it."""
        with naming_file(path):
            write_file_atomically(path, content)

    def write_config(self, implementation: str, config: Mapping[str, Any]) -> None:
        """Write a config.toml that starts the same run; paths may hold bytes that are no UTF-8."""
        command = f"python -m {implementation}_impl.train --config THIS_FILE --out ANOTHER_FOLDER"
        text = f"# The options of this run. Start it again:\n# {command}\n{tomli_w.dumps(config)}"
        self.write(self.config, text.encode("utf-8", "surrogateescape"))

    def changes(self, config: Mapping[str, Any]) -> list[str]:
        """Return a text for every option that differs from config.toml, if there is one."""
        if not self.config.is_file():
            return []
        before = tomllib.loads(self.config.read_bytes().decode("utf-8", "surrogateescape"))
        return [
            f"{name} {value} (was {before.get(name, 'the default')})"
            for name, value in config.items()
            if name != "out" and before.get(name) != value
        ]


def describe_non_finite(arrays: Mapping[str, Array]) -> str:
    """Return which numbers are NaN or infinite, or "" if none is."""
    counts = {name: int(np.size(a) - np.isfinite(a).sum()) for name, a in arrays.items()}
    bad = [name for name, count in counts.items() if count]
    if not bad:
        return ""
    others = f" (and some of {len(bad) - 1} other arrays)" if bad[1:] else ""
    part = f"{counts[bad[0]]:,} of the {np.size(arrays[bad[0]]):,} numbers of {bad[0]}"
    return f"{part} are NaN or infinite{others}"


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Give an OSError of writing a file its name, and say how to go on."""
    try:
        yield
    except OSError as error:
        advice = "what was saved before is good: put that right and go on with --resume"
        reason = f"cannot be written: {error.strerror or error}"
        raise OSError(f"{printable(path)} {reason}; {advice}") from error


class EventFile:
    """One session's event file for TensorBoard: its steps come after `completed`.

    TensorBoard drops what it has of the repeated steps when it meets a file's START. Ready-made
    writers load a framework wherever one is installed: tensorboard's `EventFileWriter` TensorFlow
    (four seconds), tensorboardX PyTorch. Values are as `torch.utils.tensorboard`'s.
    """

    def __init__(self, folder: Path, completed: int) -> None:
        earlier = folder.glob("events.out.tfevents.*.gan")
        # TensorBoard reads the files of a folder in the order of their names.
        number = 1 + max((int(path.name.split(".")[3]) for path in earlier), default=0)
        # Imported by name: the package is optional and, like protobuf, carries no types.
        self._events = import_module("tensorboard.compat.proto.event_pb2")
        records = import_module("tensorboard.summary.writer.record_writer")
        file = open(folder / f"events.out.tfevents.{number:010d}.gan", "xb")  # noqa: SIM115
        self._writer = records.RecordWriter(file)
        self.flush, self.close = self._writer.flush, self._writer.close
        self._write(0, time.time(), file_version="brain.Event:2")
        # In the first session too: a reader purges steps from its second START on.
        start = {"status": self._events.SessionLog.START}
        self._write(completed + 1, time.time(), session_log=start)

    def add_scalars(self, completed: int, values: Mapping[str, float], wall_time: float) -> None:
        """Record values by tag as float32; `wall_time` is in seconds since 1970."""
        summary = {"value": [{"tag": t, "simple_value": v} for t, v in values.items()]}
        self._write(completed, wall_time, summary=summary)

    def add_image(self, completed: int, tag: str, png: bytes, wall_time: float) -> None:
        """Record a PNG, grey or colour, after so many completed steps."""
        # After its signature and the start of its first chunk, 8 bytes each, a PNG has its size.
        width, height, _, colour_type = struct.unpack(">IIBB", png[16:26])
        image = {"width": width, "height": height, "colorspace": 1 if colour_type == 0 else 3}
        image["encoded_image_string"] = png
        self._write(completed, wall_time, summary={"value": [{"tag": tag, "image": image}]})

    def _write(self, step: int, wall_time: float, **content: Any) -> None:
        event = self._events.Event(step=step, wall_time=wall_time, **content)
        self._writer.write(event.SerializeToString())


class RunRecords:
    """losses.csv and quality.csv, cut after `completed` steps, and an event file, if asked for.

    `earlier_seconds`: how long the run had taken. `last_quality`: the last of quality.csv, or None.
    """

    def __init__(self, folder: RunFolder, completed: int, *, tensorboard: bool) -> None:
        self.earlier_seconds = _cut(folder, folder.losses, LOSS_COLUMNS, completed) or 0.0
        self.last_quality = _cut(folder, folder.quality, QUALITY_COLUMNS, completed)
        self._folder = folder
        self._wall_start = time.time() - self.earlier_seconds
        with contextlib.ExitStack() as files:
            self._losses = files.enter_context(open(folder.losses, "a"))
            self._quality = files.enter_context(open(folder.quality, "a"))
            self._events = EventFile(folder.path, completed) if tensorboard else None
            if self._events:
                files.callback(self._events.close)
            self.close = files.pop_all().close

    def add_losses(self, completed: int, values: Mapping[str, float], seconds: float) -> None:
        """Write the METRIC_NAMES of one step and the seconds since the start; see `flush`."""
        fields = [str(completed), *map(repr, values.values()), f"{seconds:.3f}"]
        self._losses.write(",".join(fields) + "\n")
        if self._events:
            tagged = {TAGS[name]: value for name, value in values.items()}
            self._events.add_scalars(completed, tagged, self._wall_start + seconds)

    def add_samples(self, completed: int, picture: Path, distance: float) -> None:
        """Write the distance of samples to real images, and show TensorBoard their PNG."""
        self.last_quality = distance
        self._quality.write(f"{completed},{distance!r}\n")
        if self._events:
            now = time.time()
            self._events.add_image(completed, "samples", picture.read_bytes(), now)
            if math.isfinite(distance):
                self._events.add_scalars(completed, {"swd": distance}, now)
        self.flush()

    def flush(self) -> None:
        """Let a reader see everything that was written; OSError names the file."""
        files: dict[str, Any] = {"losses.csv": self._losses, "quality.csv": self._quality}
        files |= {"events.out.tfevents": self._events} if self._events else {}
        for name, file in files.items():
            with naming_file(self._folder.path / name):
                file.flush()

    def synchronize(self) -> None:
        """Make what was written survive a power cut; a checkpoint must not be ahead of it."""
        self.flush()
        for file in (self._losses, self._quality):
            os.fsync(file.fileno())


def _cut(folder: RunFolder, path: Path, columns: tuple[str, ...], completed: int) -> float | None:
    """Leave a table, which may be new, the first `completed` steps; return its last value."""
    table, _ = read_table(path, columns)
    kept = int((table["step"] <= completed).sum())
    lines = path.read_text().splitlines()[1 : kept + 1] if kept else []
    folder.write(path, "".join(f"{line}\n" for line in (",".join(columns), *lines)).encode())
    return float(table[columns[-1]][kept - 1]) if kept else None


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[Array, list[str]]:
    """Return a CSV's whole lines as a structured array [rows], and notes; or InputError."""
    kind = [(name, np.int64 if name == "step" else np.float64) for name in columns]
    if not path.exists():
        return np.empty(0, kind), [f"There is no {path.name}."]
    # Whatever is not UTF-8 becomes a character that is no number, which is reported with its line.
    *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
    names = ",".join(columns)
    if lines and lines[0].strip() != names:
        raise InputError(f"{path}: expected the columns {names}, received {lines[0]!r:.60}")
    rows: list[tuple[float, ...]] = []
    for number, line in enumerate(lines[1:], 2):
        last = rows[-1][0] if rows else -1
        try:
            step, *values = line.split(",")
            rows.append((int(step), *map(float, values)))
            if len(rows[-1]) != len(columns) or not last < rows[-1][0] < MOST_STEPS:
                raise ValueError
        except ValueError:
            expected = f"expected {len(columns)} numbers ({names}), the step above {last}"
            advice = "remove the line, or find out whether two runs have written to the file"
            text = f"{path}, line {number}: {expected}, received {line!r:.60}; {advice}"
            raise InputError(text) from None
    notes = [f"The last line of {path.name} is half-written and left out."] if rest else []
    notes += [] if rows else [f"{path.name} holds no row yet."]
    return np.array(rows, kind), notes


def newest_first(folder: Path, completed: float = math.inf) -> list[Path]:
    """Return the samples or checkpoints in a folder up to so many completed steps."""
    return [path for number, path in reversed(numbered(folder).items()) if number <= completed]


def numbered(folder: Path) -> dict[int, Path]:
    """Return the samples or checkpoints in a folder by their completed steps, ascending."""
    found = {int(m[1]): p for p in folder.glob("*") if (m := _NUMBERED.fullmatch(p.name))}
    return dict(sorted(found.items()))
