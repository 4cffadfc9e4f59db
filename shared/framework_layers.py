"""Layers of PyTorch, Keras and Flax as they are met: their kinds, their arrays, their calls.

No framework is imported: who has a layer of it has imported it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

WORDS = {
    "weight": ("kernel", "w", "weights", "matrix", "gamma", "scale"),
    "bias": ("bias", "b", "biases", "beta"),
    "running_mean": ("moving_mean", "running_mean", "mean"),
    # Keras 1 calls it running_std and keeps the variance there.
    "running_var": ("moving_variance", "running_std", "running_var", "var"),
}
"""PyTorch's name of an array of a layer → what it is called elsewhere."""
IN_PYTORCH = {word: name for name, words in WORDS.items() for word in words}
"""The other way round; our own names are among the words."""
KEPT = {"exp_avg": "m", "grad_avg": "m", "momentum_buffer": "m", "mu": "m", "trace": "m"}
KEPT |= {"exp_avg_sq": "v", "square_avg": "v", "nu": "v", "max_exp_avg_sq": "v_max"}
KEPT |= {"nu_max": "v_max", "count": "step", "_momentums": "m", "_average_gradients": "m"}
KEPT |= {"_velocities": "v", "_velocity_hats": "v_max"}
"""What an optimizer of PyTorch, Optax or Keras keeps → what `shared.spec.optimizers` calls it."""


def kept_by_optax(state: Any) -> dict[str, Any]:
    """Return what an optimizer of Optax keeps, and its count where it has one, by our names."""
    found: dict[str, Any] = {}
    parts = [state]
    while parts:
        part = parts.pop()
        own = getattr(part, "_fields", ())
        found |= {KEPT[name]: getattr(part, name) for name in own if name in KEPT}
        parts += part if isinstance(part, tuple) else ()
    return found


def canonical_arrays(kind: str, held: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a layer's arrays by our names, given by its framework's; others keep theirs."""
    weight = "scale" if kind == "batch_norm" else "kernel"
    known = ((IN_PYTORCH.get(name, name), array) for name, array in held)
    return {weight if n == "weight" else n.removeprefix("running_"): array for n, array in known}


def kind_of(layer: type) -> str:
    """Return what a layer is called: "conv" of torch's Conv2d, Keras' Conv2D and Flax' Conv."""
    for name in (base.__name__ for base in layer.__mro__):
        if name in ("Linear", "Dense") or "BatchNorm" in name:
            return "batch_norm" if "BatchNorm" in name else "dense"
        if re.fullmatch("Conv(2[dD])?|Conv(2D)?Transpose(2d)?", name):
            return "conv_transpose" if "Transpose" in name else "conv"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", layer.__name__).lower()


@contextmanager
def intercepted(held: Any, record: Callable[..., Any], method: str = "__call__") -> Iterator[None]:
    """In this context `record(call, *given, **named)` replaces an object's method, which is `call`.

    The object gets a class of its own: within `nnx.jit` it is another object of the same class.
    """
    kind = type(held)

    def recorded(held: Any, *given: Any, **named: Any) -> Any:
        return record(partial(getattr(kind, method), held), *given, **named)

    own = type(kind.__name__, (kind,), {method: recorded})
    held.__class__ = own
    try:
        yield
    finally:
        held.__class__ = kind
        delattr(own, method)  # JAX keeps every class, and it would keep what was recorded
