"""The third-party adapters of docs/examples against the reference, each in a process of its own.

A process, because Keras' backend and JAX' float64 are chosen before the first import.
"""

import ast
import importlib.util
import io
import os
import subprocess
import sys
import tokenize

import pytest

from tests import ROOT

EXAMPLES = {
    "keras_torch": ("keras", "torch"),
    "equinox_networks": ("equinox", "jax"),
}
SYSTEMS = ("dcgan64", "dcgan64-lsgan", "conv28", "mlp28")
BOUNDS = {"float64": 1e-11, "float32": 1e-5}

# Prints two lines of relative L2 differences: of the networks, and of the losses it offers.
CODE = """
import sys
import numpy as np
from shared.reference.comparison import relative_l2
from tests.comparison import require_same_kind
from shared.fixtures.network import representative_state
from shared.interface import load_implementation
from shared.reference.adapter import ReferenceImplementation
from shared.spec import SYSTEMS
from shared.spec.streams import latents

def differences(ours, system, dtype):
    truth = ReferenceImplementation()
    spec = SYSTEMS[system].replace(width=4, channels=3, latent_dim=10, batch_size=7)
    arrays = {n: a.astype(np.float64) for n, a in representative_state(spec, 0).items()}
    images = np.random.default_rng(0).uniform(*spec.image_range, (7, *spec.image_shape))
    images, z = images.astype(np.float32), latents(spec, 0, 0, 7).astype(np.float32)
    states = ours.create(spec, dtype=dtype), truth.create(spec)
    fresh = ours.generate(states[0], z.astype(dtype)), truth.generate(states[1], z)
    yield relative_l2(*fresh)
    for implementation, state in zip((ours, truth), states):
        implementation.import_state(state, arrays)
    for training in (True, False):
        for run, x in (("generate", z), ("discriminate", images)):
            actual = getattr(ours, run)(states[0], x.astype(dtype), training=training)
            expected = getattr(truth, run)(states[1], x.astype(np.float64), training=training)
            require_same_kind(run, actual, expected.shape, dtype)
            yield relative_l2(actual, expected)

def of_losses(ours, dtype):
    real, fake = np.array([-3.0, 0.5, 30.0], dtype), np.array([-25.0, 0.25, 3.0], dtype)
    for loss in ("bce", "minimax", "lsgan"):
        for labels in ({}, {"real_label": 0.9, "fake_label": 0.1}):
            truth = ReferenceImplementation()
            values = [vars(i.loss(loss, real, fake, **labels)) for i in (ours, truth)]
            yield from (relative_l2(values[0][k], values[1][k]) for k in values[1])

name, dtype, *systems = sys.argv[1:]
ours = load_implementation(name)
print(*(d for system in systems for d in differences(ours, system, dtype)))
print(*of_losses(ours, dtype) if hasattr(ours, "loss") else ())
"""


def run(name: str, dtype: str) -> list[list[float]]:
    """Return the differences of the networks and those of the losses."""
    package = next((p for p in EXAMPLES[name] if importlib.util.find_spec(p) is None), None)
    if package is not None:
        pytest.skip(f"docs/examples/{name}.py needs {package}, which is not installed")
    command = [sys.executable, "-c", CODE, f"docs.examples.{name}", dtype, *SYSTEMS]
    environment = os.environ | {"JAX_ENABLE_X64": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert result.returncode == 0, result.stderr
    return [[float(number) for number in line.split()] for line in result.stdout.split("\n")[-3:-1]]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_agrees_with_the_reference(name: str, dtype: str) -> None:
    networks, losses = run(name, dtype)
    assert len(networks) == 5 * len(SYSTEMS)
    assert len(losses) == (30 if name == "keras_torch" else 0)
    assert all(difference <= BOUNDS[dtype] for difference in networks + losses)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_at_most_fifty_lines_of_code(name: str) -> None:
    """Lines with code on them: neither empty ones nor comments nor docstrings."""
    source = (ROOT / "docs" / "examples" / f"{name}.py").read_text()
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            documentation |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in layout | {tokenize.ENDMARKER}:
            code |= set(range(token.start[0], token.end[0] + 1))
    assert len(code - documentation) <= 50


def test_every_example_is_tested_and_explained() -> None:
    folder = ROOT / "docs" / "examples"
    # naive_jax is wrong on purpose: docs/explain.md, tests/explain/test_explain_command.py.
    assert {path.stem for path in folder.glob("*.py")} == {*EXAMPLES, "naive_jax"}
    page = (folder / "README.md").read_text()
    for name in EXAMPLES:
        assert f"{name}.py" in page
