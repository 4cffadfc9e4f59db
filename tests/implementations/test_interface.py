"""Loading implementations, and the walls between them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared import interface
from shared.interface import (
    IMPLEMENTATIONS,
    MissingFrameworkError,
    canonical_name,
    check_arrays,
    load_implementation,
)
from tests import ROOT
from tests.tiers import SLOW_IN_TF_AND_JAX

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "flax", "optax")
OWN = {
    "pytorch": {"torch"},
    "tf": {"tensorflow", "keras"},
    "jax": {"jax", "flax", "optax"},
}


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_the_three_are_read_side_by_side() -> None:
    """Every file of one stands in the others too, so that a diff of folders has no file alone."""
    files = {n: {path.name for path in (ROOT / f"{n}_impl").glob("*.py")} for n in IMPLEMENTATIONS}
    assert files["pytorch"] == files["tf"] == files["jax"]


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_an_implementation_works_where_the_other_frameworks_cannot_be_imported(name: str) -> None:
    """It tries to import none of them, beyond what its own does, and makes a step without them."""
    others = [f for f in FRAMEWORKS if f not in OWN[name]]
    code = f"""
import importlib, importlib.abc, importlib.machinery, sys
tried = []
class Blocked(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # Found, as PyTorch asks, but it cannot be imported.
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {others!r}:
            return importlib.machinery.ModuleSpec(name, self)
    def exec_module(self, module):
        tried.append(module.__name__)
        raise ModuleNotFoundError(f"No module named {{module.__name__!r}}", name=module.__name__)
sys.meta_path.insert(0, Blocked())
import numpy as np
from shared.interface import load_implementation
from shared.spec import SYSTEMS
try:
    for own in {sorted(OWN[name])!r}:
        importlib.import_module(own)
    tried.clear()
    implementation = load_implementation({name!r})
except ImportError:
    print("missing")
else:
    import {name}_impl.train
    imported = list(tried)
    spec = SYSTEMS["dcgan64"].replace(width=2, latent_dim=5, batch_size=2)
    state = implementation.create(spec)
    metrics = implementation.train_step(
        state, np.zeros((2, 64, 64, 3), "float32"), np.ones((2, 5), "float32")
    )
    print(imported, all(np.isfinite(v) for v in metrics.values()))
"""
    answer = run_python(code)
    if answer == "missing":
        pytest.skip(f"the framework of {name} is not installed")
    assert answer == "[] True"


def test_shared_imports_no_framework() -> None:
    code = f"""
import sys, pkgutil, importlib, shared
for module in pkgutil.walk_packages(shared.__path__, "shared."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print([f for f in {FRAMEWORKS!r} if f in sys.modules])
"""
    assert run_python(code) == "[]"


def test_a_missing_framework_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "PACKAGES", {"jax": ("numpy", "a_package_that_nobody_has")})
    with pytest.raises(MissingFrameworkError) as raised:
        load_implementation("jax")
    assert "a_package_that_nobody_has, which is not installed" in str(raised.value)
    assert "pip install -c constraints.txt -e '.[jax]'" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "package"), [("pytorch", "torch"), ("tf", "tensorflow"), ("jax", "jax")]
)
def test_a_command_without_its_framework_is_one_line(
    tmp_path: Path, name: str, package: str
) -> None:
    # None in sys.modules is how Python marks what cannot be imported.
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{package!r}] = None")
    done = subprocess.run(
        [sys.executable, "-m", f"{name}_impl.train"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: the implementation {name!r} needs {package}, which is not installed; "
        f"install it with: pip install -c constraints.txt -e '.[{name}]'\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("debug", "is_quiet"), [([], True), (["--debug"], False)])
def test_tensorflow_says_nothing_unless_asked(debug: list[str], is_quiet: bool) -> None:
    pytest.importorskip("tensorflow")
    environment = {n: v for n, v in os.environ.items() if n != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "tf_impl.train", "--steps", "0", *debug],
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    error = "python -m tf_impl.train: error: argument --steps: must be at least 1, received 0\n"
    assert (done.stderr == error) == is_quiet
    assert done.stderr.endswith(error)


def test_anybodys_module_can_be_loaded() -> None:
    assert load_implementation("shared.reference.adapter").name == "reference"


def test_torch_and_reference_are_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "PACKAGES", {"pytorch": ("nobody",)})
    with pytest.raises(MissingFrameworkError, match="the implementation 'pytorch' needs nobody"):
        load_implementation("torch")
    assert load_implementation("reference").name == "reference"
    names = ("torch", "pytorch", "jax", "mine.port")
    assert [canonical_name(name) for name in names] == ["pytorch", "pytorch", "jax", "mine.port"]


@pytest.mark.parametrize("name", ["keras", "no.such.module", "", "..", "pytorch_impl.nothing"])
def test_an_unknown_implementation_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="implementation"):
        load_implementation(name)


def test_a_module_without_an_implementation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'shared\.spec' has no object called 'implementation'"):
        load_implementation("shared.spec")


def test_check_arrays_names_every_problem_at_once() -> None:
    arrays = {"a": np.zeros(2), "b": np.zeros((2, 1)), "d": np.zeros(1)}
    with pytest.raises(ValueError, match="the file does not fit the system") as raised:
        check_arrays(arrays, {"a": (2,), "b": (2,), "c": ()}, "the file")
    for part in ("missing: c", "unexpected: d", "wrong shape: b (2, 1) instead of (2,)"):
        assert part in str(raised.value)
    check_arrays({"a": np.zeros(2)}, {"a": (2,)}, "the file")
