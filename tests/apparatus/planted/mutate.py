"""Plant faults in a copy of an implementation's package and import it beside the original."""

import importlib
import importlib.util
import itertools
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from shared.interface import Implementation
from tests import ROOT
from tests.apparatus.planted.fault import Fault

_numbers = itertools.count(1)


def package_of(framework: str) -> str:
    """Return the name of a framework's package."""
    return f"{framework}_impl"


def mutated_sources(framework: str, faults: Sequence[Fault]) -> dict[str, str]:
    """Return the package's files with the faults planted, one after another, by file name.

    Raises ValueError for a fault that the framework cannot have and for an edit that does not
    apply: its text is not there as often as it says, in the sources or in what an earlier fault
    has left of them.
    """
    folder = ROOT / package_of(framework)
    sources = {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.py"))}
    for fault in faults:
        if framework in fault.absent:
            raise ValueError(f"{fault.name} is absent in {framework}: {fault.absent[framework]}")
        for edit in fault.edits[framework]:
            found = sources.get(edit.file, "").count(edit.old)
            if found != edit.count:
                raise ValueError(
                    f"{fault.name} does not apply to {folder.name}/{edit.file}: found {edit.old!r} "
                    f"{found} times, expected {edit.count}; the source has changed, or another "
                    "fault has changed the same place"
                )
            sources[edit.file] = sources[edit.file].replace(edit.old, edit.new)
    return sources


def load_mutated(framework: str, faults: Sequence[Fault]) -> Implementation:
    """Import a copy of a framework's package with the faults planted; `unload` removes it.

    Raises ValueError as `mutated_sources` does.
    """
    sources = mutated_sources(framework, faults)
    package = package_of(framework)
    name = f"planted_{package}_{next(_numbers)}"
    # On the disk, because TensorFlow's autograph and torch read a function's source again.
    folder = Path(tempfile.mkdtemp(prefix=f"{name}_"))
    for file, source in sources.items():
        renamed = re.sub(rf"\b{package}\b", name, source)
        (folder / file).write_text(renamed, "utf-8")
    try:
        _import_package(name, folder)
        return importlib.import_module(f"{name}.adapter").implementation
    except BaseException:
        _remove(name, folder)
        raise


def unload(implementation: Implementation) -> None:
    """Remove the modules and the files of what `load_mutated` returned."""
    name = type(implementation).__module__.split(".", 1)[0]
    origin = sys.modules[name].__file__
    assert origin is not None
    _remove(name, Path(origin).parent)


@contextmanager
def mutated(
    framework: str, faults: Sequence[Fault], *, compiled: bool = False
) -> Iterator[Implementation]:
    """Hold what `load_mutated` returns for the time of a `with` block.

    In it JAX runs operation by operation unless it is `compiled`: of many copies in one process
    each operation is compiled once, the step of each copy anew.
    """
    implementation = load_mutated(framework, faults)
    try:
        by_operation = framework == "jax" and not compiled
        with importlib.import_module("jax").disable_jit() if by_operation else nullcontext():
            yield implementation
    finally:
        unload(implementation)


def _import_package(name: str, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


def _remove(name: str, folder: Path) -> None:
    for module in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[module]
    shutil.rmtree(folder)
