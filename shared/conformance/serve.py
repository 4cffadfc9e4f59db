"""An implementation in Python behind the protocol: `python -m shared.conformance.serve NAME`."""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from shared.conformance import protocol
from shared.conformance.protocol import RequestError
from shared.files.errors import one_line
from shared.fixtures import LOSS_FIELDS
from shared.interface import Arrays, load_implementation
from shared.run.console import EXIT_BAD_INPUT, print_error
from shared.spec import AdamSpec, SystemSpec

# Method → the arguments that go by position: an adapter may call them as it likes.
METHODS: dict[str, tuple[str, ...]] = {
    "loss": ("loss", "real_scores", "fake_scores"),
    "create": ("spec",),
    "generate": ("state", "latents"),
    "discriminate": ("state", "images"),
    "gradients": ("state", "real_images", "latents"),
    "train_step": ("state", "real_images", "latents"),
    "export_state": ("state",),
    "import_state": ("state", "arrays"),
    "synchronize": ("state",),
    "adam": ("parameter", "gradient", "m", "v", "step", "settings"),
}


class Server:
    """Answers requests with an implementation's methods; keeps its states and numbers them.

    An exception becomes a RequestError: a refusal, if it is a NotImplementedError, or a ValueError
    of `create`, which is asked for a dtype and a system.
    """

    def __init__(self, implementation: Any) -> None:
        self._implementation = implementation
        self._states: list[Any] = []
        self.name = str(getattr(implementation, "name", type(implementation).__name__))
        self.methods = tuple(m for m in METHODS if callable(getattr(implementation, m, None)))

    def call(self, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of one request."""
        if method not in self.methods:
            raise RequestError(f"no method {method}", is_refusal=True)
        try:
            given = dict(arguments)
            if "state" in given:
                given["state"] = self._states[given["state"]]
            if "spec" in given:
                given["spec"] = SystemSpec.from_dict(given["spec"])
            if "settings" in given:
                given["settings"] = AdamSpec(**given["settings"])
            positional = [given.pop(name) for name in METHODS[method]]
            options = given.pop("labels", {}) | given
            made = getattr(self._implementation, method)(*positional, **options)
            return self._result(method, made)
        except Exception as error:  # whatever anybody raises is an answer
            if _is_refusal(error, method, arguments):
                raise RequestError(one_line(str(error)), is_refusal=True) from error
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{os.path.basename(place.filename)}:{place.lineno}"
            message = f"{type(error).__name__}: {one_line(str(error))} ({where})"
            raise RequestError(message) from error

    def _result(self, method: str, made: Any) -> dict[str, Any]:
        """Return what a method gave under the names of the protocol."""
        match method:
            case "loss":
                return _arrays({field: getattr(made, field) for field in LOSS_FIELDS})
            case "adam":
                return _arrays(dict(zip(("parameter", "m", "v"), made, strict=True)))
            case "create":
                self._states.append(made)
                return {"state": len(self._states) - 1}
            case "generate" | "discriminate":
                return _arrays({"images" if method == "generate" else "scores": made})
            case "gradients" | "export_state":
                return {"gradients" if method == "gradients" else "arrays": _arrays(made)}
            case "train_step":
                return {"metrics": _arrays({name: float(value) for name, value in made.items()})}
        return {}  # import_state, synchronize


def _is_refusal(error: Exception, method: str, arguments: Mapping[str, Any]) -> bool:
    """Whether an exception says that this is not offered: a system, a dtype, a loss, a label."""
    if method == "loss" and isinstance(error, (KeyError, TypeError, ValueError)):
        asked = (arguments["loss"], *arguments.get("labels", ()))
        return any(repr(name) in str(error) for name in asked)
    is_refused = method == "create" and isinstance(error, ValueError)
    return is_refused or isinstance(error, NotImplementedError)


def _arrays(made: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(array) for name, array in made.items()}


def serve(server: Server, requests: BinaryIO, answers: BinaryIO) -> None:
    """Write the hello, then answer line by line until the requests end."""
    hello = {"protocol": protocol.VERSION, "name": server.name, "methods": list(server.methods)}
    answers.write(protocol.write_line({"hello": hello}))
    answers.flush()
    for line in requests:
        request = protocol.read_line(line)
        try:
            result = server.call(request["method"], request["arguments"])
            answer = protocol.write_line({"id": request["id"], "result": result})
        except (RequestError, protocol.ProtocolError) as error:
            kind = "refused" if getattr(error, "is_refusal", False) else "failed"
            failure = {"kind": kind, "message": str(error)}
            answer = protocol.write_line({"id": request["id"], "error": failure})
        answers.write(answer)
        answers.flush()


def main(arguments: Sequence[str]) -> int:
    """Serve the implementation that is named; returns 2 where it cannot be loaded."""
    # Whatever anybody prints goes to stderr from now on; stdout is the protocol's alone.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        (name,) = arguments
        implementation = load_implementation(name)
    except (ImportError, ValueError) as error:
        print_error(one_line(str(error)))
        return EXIT_BAD_INPUT
    serve(Server(implementation), sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
