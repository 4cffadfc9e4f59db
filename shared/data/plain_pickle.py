"""Pickles of plain data, read by a machine that can call nothing.

A pickle is a program that may call any function of Python. This reader knows only the
instructions that dicts, lists, tuples, texts, bytes, numbers and NumPy's arrays of bytes are
written with. It takes the names of NumPy's array and dtype as a sign that one follows, looks up no
name, and refuses everything else. NumPy itself is not asked to rebuild anything either: a forged
state of a dtype would make it take numbers for addresses.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

MAXIMUM_INSTRUCTIONS = 2**19
"""Most instructions of a pickle: one of a byte may make an object of sixty. CIFAR-10's have some
sixty thousand, CIFAR-100's images for training a quarter of a million."""

# As NumPy before 2.0 and from 2.0 on calls what makes an array.
_MAKERS = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_ARRAY, _DTYPE = "numpy ndarray", "numpy dtype"
_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE"),
    *("SHORT_BINBYTES", "BINBYTES"),
)
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Name:
    """A name of NumPy in the pickle, which is not looked up."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Bytes:
    """The dtype of single bytes, the only one that is taken."""


class _Array:
    """A place for an array, whose bytes the pickle brings later."""

    values: np.ndarray | None = None


def read_plain_pickle(content: bytes) -> Any:
    """Return the value of a pickle, a dict with an array in it, say; arrays are uint8.

    ValueError says which instruction, name or damage was found that has no place in plain data.
    """
    machine = _Machine()
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
            if number == MAXIMUM_INSTRUCTIONS:
                raise ValueError(f"a pickle of more than {MAXIMUM_INSTRUCTIONS:,} instructions")
            if opcode.name == "STOP":
                return machine.value()
            machine.carry_out(opcode.name, argument)
    # What damage does to pickletools, to the machine's stack and to NumPy.
    except (LookupError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"a damaged pickle ({error or type(error).__name__})") from error
    raise ValueError("a damaged pickle (cut off)")


class _Machine:
    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def value(self) -> Any:
        """Return what is left; arrays that are items of a dict are put in their places."""
        (value,) = self._stack
        if isinstance(value, dict):
            return {k: v.values if isinstance(v, _Array) else v for k, v in value.items()}
        return value

    def carry_out(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self._stack.append(tuple(self._taken(_TUPLES[name])))
        elif name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._name(argument if name == "GLOBAL" else " ".join(self._taken(2)))
        elif name not in ("PROTO", "FRAME"):
            self._combine(name)

    def _combine(self, name: str) -> None:
        """Carry out an instruction that puts things of the stack together."""
        if name == "TUPLE":
            self._stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._to_mark() if name == "APPENDS" else self._taken(1)
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if name == "SETITEMS" else self._taken(2)
            # Python would follow a tuple of a million levels to hash it, off the end of its stack.
            if not all(isinstance(key, str | bytes | int) for key in items[::2]):
                raise ValueError("a dict whose keys are neither texts nor numbers")
            self._top(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "REDUCE":
            self._stack.append(_made(*self._taken(2)))
        elif name == "BUILD":
            (state,) = self._taken(1)
            _fill(self._stack[-1], state)
        else:
            raise ValueError(f"the instruction {name}, which no plain data needs")

    def _name(self, text: str) -> None:
        if text not in (*_MAKERS, _ARRAY, _DTYPE):
            raise ValueError(f"the name {text[:80]!r}, which is not looked up")
        self._stack.append(_Name(text))

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(
                f"items for a {type(self._stack[-1]).__name__} as for a {kind.__name__}"
            )
        return self._stack[-1]

    def _taken(self, count: int) -> list[Any]:
        lowest = self._marks[-1] if self._marks else 0
        if len(self._stack) - lowest < count:
            raise ValueError("a damaged pickle (an instruction without its arguments)")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        taken = self._stack[mark:]
        del self._stack[mark:]
        return taken


def _made(maker: Any, arguments: Any) -> _Array | _Bytes:
    """Return what stands for an array or for its dtype."""
    first = arguments[0]
    if isinstance(maker, _Name) and maker.text in _MAKERS and isinstance(first, _Name):
        return _Array()
    if isinstance(maker, _Name) and maker.text == _DTYPE and first in ("u1", b"u1"):
        return _Bytes()
    raise ValueError("a call of something else than NumPy's array of bytes (u1)")


def _fill(target: Any, state: Any) -> None:
    """Put its bytes into an array; what a pickle says of the dtype of bytes is passed over."""
    if isinstance(target, _Bytes):
        return
    if not isinstance(target, _Array):
        raise ValueError(f"a state for a {type(target).__name__}")
    _, shape, dtype, is_fortran, data = state
    if not isinstance(dtype, _Bytes) or is_fortran:
        raise ValueError("an array of something else than bytes (u1) in C order")
    # Python 2 wrote bytes as texts.
    values = data.encode("latin-1") if isinstance(data, str) else data
    target.values = np.frombuffer(values, np.uint8).reshape(shape)
