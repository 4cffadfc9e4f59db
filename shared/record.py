"""Recording the numbers of anybody's own training loop: named tensors of any framework, one file.

    with Recorder("ours.safetensors", framework="pytorch") as record:
        record("images", fake, layout="NCHW")
        record("discriminator/conv_1/kernel", conv.weight, layout="OIHW")
        record.step()     # what follows belongs to the next step

Two such files are compared by `python -m shared.explain`; docs/recordings.md walks through it.
No framework is imported here: a tensor is asked for what it can do.
"""

import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from shared.files import recording
from shared.files.atomic import require_place
from shared.files.errors import InputError
from shared.files.recording import Recorded
from shared.files.system_file import find_system
from shared.interface import Array
from shared.spec import NETWORKS, NetworkName, SystemSpec
from shared.watched import WatchedNetwork, watched

__all__ = ["InputError", "Recorder"]

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_STORED = ("float32", "float64", "bool", *_INTEGERS)


class Recorder:
    """Collects named tensors in memory and writes them when the block ends without an error.

    The file is complete or not there: a block that raises leaves what was at `path` before. Values
    are copied at once, so a tensor may be changed in place afterwards. Raises InputError for a
    name given twice in a step, for what is no tensor of numbers, and at the end where nothing was
    recorded. `system`: the loop's, ours or a file of docs/systems.md; watched networks must be its.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, framework: str = "unknown", system: str | None = None
    ) -> None:
        self.path = Path(path)
        self.system = find_system(system) if system else None
        self.framework = framework
        self._step = 0
        self._watched: list[WatchedNetwork] = []
        self._tensors: dict[tuple[int, str], Recorded] = {}
        require_place(self.path)

    def __call__(self, name: str, value: Any, *, layout: str | None = None) -> None:
        """Record a tensor of any framework, or a number, under a name used as it is.

        `layout` has a letter for each axis, such as NCHW for images, OIHW for a kernel, NF for
        features: N batch, H height, W width, C channels, I in, O out, F features. Any other
        letters count as well, as long as both recordings use the same ones.
        """
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"expected a name of printable characters, received {name!r}")
        if (self._step, name) in self._tensors:
            advice = "give the second another name, or call record.step() between the two"
            raise InputError(f"{name!r} was recorded twice in step {self._step}; {advice}")
        array, dtype = _to_numpy(name, value)
        recording.check_layout(name, layout, array.shape)
        self._tensors[self._step, name] = Recorded(name, self._step, dtype, layout, array)

    def watch(self, name: str, network: Any, optimizer: Any = None) -> None:
        """Record a network of PyTorch, Keras or Flax NNX by itself; give no name to any tensor.

        Its state is recorded when a step ends; within a step each layer's inputs and outputs, and
        the gradients that the optimizer is given. In Flax that is an `nnx.Optimizer`. Call it
        before the loop and before anything is compiled, and `record.step()` before each step.
        """
        self._watched.append(watched(name, network, optimizer, self._store))
        if self.system and name in NETWORKS:
            _hold(self.system, name, self._watched[-1].arrays)

    def _store(self, name: str, value: Any, layout: str | None) -> None:
        """Record what was met: the second of a name in a step is name/2."""
        number, free = 1, name
        while (self._step, free) in self._tensors:
            number += 1
            free = f"{name}/{number}"
        self(free, value, layout=layout)

    def step(self) -> None:
        """Begin the next step: names recorded from here on may repeat earlier ones."""
        for network in self._watched:
            network.record_state()
        self._step += 1

    def close(self) -> None:
        """Write the file; raises InputError if nothing was recorded, OSError from the disk."""
        for network in self._watched:
            network.record_state()
        if not self._tensors:
            raise InputError(f"{self.path}: nothing was recorded, nothing written")
        recording.write_recording(self.path, self.framework, self._tensors.values(), self.system)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            for network in self._watched:
                network.interceptions.close()


def _hold(system: SystemSpec, network: NetworkName, arrays: dict[str, Any]) -> None:
    """Raise InputError for the first array that a system and a network do not share."""
    found = {name: tuple(array.shape) for name, (array, _) in arrays.items()}
    wanted: dict[str, Any] = {}
    layers = [layer for layer in system.layers(network) if layer.parameters]
    for i, layer in enumerate(layers):
        place = f"{network}/{layer.kind}_{sum(x.kind == layer.kind for x in layers[: i + 1])}"
        wanted |= {f"{place}/{p.name}": p.shape for p in layer.parameters}
    for name in wanted | found:
        both = [shapes.get(name, "none") for shapes in (wanted, found)]
        if sorted(both[0]) != sorted(both[1]):  # a framework has its own order of axes
            text = f"{name}: {system.name} has {both[0]}, the network {both[1]}; correct either"
            raise InputError(text)


def _to_numpy(name: str, value: Any) -> tuple[Array, str]:
    """Return a copy of a tensor in C order and the name of its own dtype."""
    if isinstance(value, bool | int | float):
        array, dtype = np.array(value), recording.PYTHON_NUMBER
    else:
        try:
            # NumPy has no such dtype.
            is_bfloat16 = str(getattr(value, "dtype", "")) == "torch.bfloat16"
            array = _as_array(value.float() if is_bfloat16 else value)
        # A framework may raise anything of its own for a tensor that has no values to give.
        except Exception as error:
            reason, *_ = str(error).strip().splitlines() or [type(error).__name__]
            text = f"{name!r} is a {type(value).__name__} that gives no numbers ({reason})"
            advice = "record outside of jit, tf.function and the like"
            raise InputError(f"{text}; {advice}") from error
        dtype = "bfloat16" if is_bfloat16 else array.dtype.name
    if array.dtype.name in recording.HALF_PRECISIONS:
        array = array.astype(np.float32)
    if array.dtype.name not in _STORED or array.size == 0:
        what = f"{type(value).__name__} of dtype {array.dtype} and shape {array.shape}"
        raise InputError(f"{name!r} is a {what}; expected a tensor of at least one real number")
    return np.array(array, array.dtype.newbyteorder("="), order="C"), dtype


def _as_array(value: Any) -> Array:
    """Return a tensor's values; one of PyTorch's is detached and brought to the CPU first."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    raise TypeError("it has neither __array__ nor __dlpack__")
