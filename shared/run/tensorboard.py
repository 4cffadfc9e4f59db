"""A run's losses and samples as an event file, which TensorBoard shows.

Both ready-made writers load a framework wherever one is installed: tensorboard's `EventFileWriter`
TensorFlow (four seconds), tensorboardX PyTorch. Values are as `torch.utils.tensorboard`'s.
"""

import struct
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from shared.interface import METRIC_NAMES

TAGS = {n: n.replace("discriminator", "d").replace("generator", "g") for n in METRIC_NAMES}
"""METRIC_NAMES → what TensorBoard calls them: d_loss, d_loss_real, d_loss_fake, g_loss."""


class EventFile:
    """One session's event file in the folder of a run: its steps come after `completed`.

    TensorBoard drops what it has of the repeated steps when it meets a file's START.
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
