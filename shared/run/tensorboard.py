"""A run's losses and samples as an event file, which TensorBoard shows.

Both ready-made writers load a framework wherever one is installed: tensorboard's `EventFileWriter`
TensorFlow (four seconds), tensorboardX PyTorch. Values are as `torch.utils.tensorboard`'s.
"""

import importlib.util
import itertools
import os
import struct
import time
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.interface import METRIC_NAMES, MissingFrameworkError

TAGS = {n: n.replace("discriminator", "d").replace("generator", "g") for n in METRIC_NAMES}
"""METRIC_NAMES → what TensorBoard calls them: d_loss, d_loss_real, d_loss_fake, g_loss."""

_HEAD = struct.Struct("<QI")
_CHECKSUM_BYTES = 4


def require_tensorboard() -> None:
    """Raise MissingFrameworkError, which names the command to install it, where there is none."""
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingFrameworkError(
            "--tensorboard needs tensorboard, which is not installed; "
            "install it with: pip install -c constraints.txt -e '.[tensorboard]'"
        )


class EventFile:
    """One session's event file in the folder of a run; earlier ones are cut after `completed`.

    A new file all the same: a TensorBoard that is watching the folder reads a file only forwards,
    and drops what it has of the repeated steps when it meets the new file's START.
    """

    def __init__(self, folder: Path, completed: int) -> None:
        earlier = event_files(folder)
        for path in earlier:
            # Leaves the first steps' events, which come before all others, because a checkpoint is
            # saved after the losses of its steps.
            whole = itertools.takewhile(lambda r: r[0].step <= completed, read_events(path))
            os.truncate(path, max((end for _, end in whole), default=0))
        # TensorBoard reads the files of a folder in the order of their names.
        number = 1 + max((int(path.name.split(".")[3]) for path in earlier), default=0)
        # Imported by name: the package is optional and, like protobuf, carries no types.
        records = import_module("tensorboard.summary.writer.record_writer")
        file = open(folder / f"events.out.tfevents.{number:010d}.gan", "xb")  # noqa: SIM115
        self._writer = records.RecordWriter(file)
        self.flush, self.close = self._writer.flush, self._writer.close
        self._write(0, time.time(), file_version="brain.Event:2")
        # In the first session too: a reader purges steps from its second START on.
        start = import_module("tensorboard.compat.proto.event_pb2").SessionLog.START
        self._write(completed + 1, time.time(), session_log={"status": start})

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
        event = _event_type()(step=step, wall_time=wall_time, **content)
        self._writer.write(event.SerializeToString())


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a run's folder, in the order in which they were written."""
    return sorted(folder.glob("events.out.tfevents.*.gan"))


def read_events(path: Path) -> Iterator[tuple[Any, int]]:
    """Yield every event of a file and the offset of its end; a damaged one ends the file."""
    # A record: its length, a checksum of that, the event, a checksum of that, which tensorboard's
    # own reader verifies byte by byte in Python: too slow for pictures.
    checksum = import_module("tensorboard.compat.tensorflow_stub.pywrap_tensorflow").masked_crc32c
    decode_error = import_module("google.protobuf.message").DecodeError
    content, start = path.read_bytes(), 0
    while start + _HEAD.size <= len(content):
        length, found = _HEAD.unpack_from(content, start)
        end = start + _HEAD.size + length + _CHECKSUM_BYTES
        if end > len(content) or checksum(content[start : start + 8]) != found:
            return
        try:
            yield _event_type().FromString(content[start + _HEAD.size : end - _CHECKSUM_BYTES]), end
        except decode_error:
            return
        start = end


def _event_type() -> Any:
    return import_module("tensorboard.compat.proto.event_pb2").Event
