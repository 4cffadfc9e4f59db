"""Which tensors of two recordings belong together: by name, else by value."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence

from shared.explain.recordings.pairs import BOUNDS, Pair, coarser_dtype, hold_the_same_numbers
from shared.files.recording import PYTHON_NUMBER, Recorded, Recording


def with_settled_dtypes(recording: Recording) -> tuple[Recorded, ...]:
    """Return the tensors; a Python number gets the coarsest dtype of its whole recording."""
    held = {t.dtype for t in recording.tensors}
    coarsest = next((d for d in BOUNDS if d in held), "float64")
    return tuple(
        dataclasses.replace(t, dtype=coarsest) if t.dtype == PYTHON_NUMBER else t
        for t in recording.tensors
    )


def match(
    first: Sequence[Recorded], second: Sequence[Recorded], chosen_bound: float | None
) -> tuple[list[Pair], tuple[str, ...]]:
    """Return the pairs in the first's order, and a text for every tensor that is in none."""

    def bound(a: Recorded, b: Recorded) -> float:
        own = BOUNDS.get(coarser_dtype(a, b), 0.0)  # whole numbers must be equal
        return chosen_bound if chosen_bound is not None and own else own

    def by_value(a: Recorded, b: Recorded) -> bool:
        return hold_the_same_numbers(a, b, bound(a, b))

    ways: dict[str, Callable[[Recorded, Recorded], bool]] = {
        "name": lambda a, b: a.name == b.name,
        "similar name": lambda a, b: _plain_name(a.name) == _plain_name(b.name),
        "value": by_value,
    }
    found: dict[int, Pair] = {}
    texts: list[str] = []
    for step in sorted({t.step for t in (*first, *second)}):
        mine, theirs = ([t for t in side if t.step == step] for side in (first, second))
        for how, same in ways.items():
            alike = [(a, b) for a in mine for b in theirs if same(a, b)]
            counts = Counter(id(t) for pair in alike for t in pair)
            # Nothing is guessed: of a pair, each is the only one that is the same as the other.
            pairs = [(a, b) for a, b in alike if counts[id(a)] == counts[id(b)] == 1]
            found |= {id(a): Pair(a, b, how, bound(a, b)) for a, b in pairs}
            taken = {id(t) for pair in pairs for t in pair}
            mine, theirs = ([t for t in ts if id(t) not in taken] for ts in (mine, theirs))
        texts += [_unmatched_text("first", a, [b for b in theirs if by_value(a, b)]) for a in mine]
        texts += [_unmatched_text("second", b, [a for a in mine if by_value(a, b)]) for b in theirs]
    return [found[id(t)] for t in first if id(t) in found], tuple(texts)


def _plain_name(name: str) -> str:
    """Return a name without case, wrappers' prefixes and frameworks' suffixes."""
    plain = name.lower().replace(".", "/")
    for prefix in ("_orig_mod/", "module/", "model/", "params/"):
        plain = plain.removeprefix(prefix)
    return plain.removesuffix(":0").removesuffix("/value")


def _unmatched_text(side: str, tensor: Recorded, candidates: list[Recorded]) -> str:
    text = f"{tensor.name!r} of step {tensor.step} is in the {side} recording only"
    if not candidates:
        return text
    names = ", ".join(repr(c.name) for c in candidates[:4])
    return f"{text} by name; by its numbers it could be any of: {names}"
