"""Settings that every test shares; they must stand before a framework is imported."""

import atexit
import ctypes
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.interface import IMPLEMENTATIONS, Implementation, MissingFrameworkError
from shared.interface import load_implementation as load
from shared.run.command import run_training
from shared.run.options import TrainingOptions
from tests.run.stand_in_run import stand_in_options, ten_pictures
from tests.tiers import FrameworkScheduling, choose, frameworks_of, is_slow

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
DEVICE = os.environ.get("GAN_TEST_DEVICE", "cpu")
if DEVICE == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["JAX_PLATFORMS"] = "cpu"
    # Compiles a step in a sixth of the time; tests/studies/test_agreement.py does without.
    quick = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    quick += " --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", quick)

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # A program that several tests, processes or copies of the code have is compiled once.
    _programs = tempfile.mkdtemp(prefix="compiled-programs-")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

for _variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    # Threads that spin beside each other make small tensors several times slower.
    os.environ[_variable] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose a tier."""
    parser.addoption("--all", action="store_true", help="run the slow tests too")
    parser.addoption("--rest", action="store_true", help="run only what is left out without --all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests of the tier."""
    choose(config, items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FrameworkScheduling:
    """Choose which tests share a process."""
    return FrameworkScheduling(config, log)  # type: ignore[arg-type]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return 0, which is this process alone, where tests are asked for by their names."""
    return 0 if any("::" in argument for argument in config.args) else None


@pytest.fixture(scope="session")
def memory_in_use() -> dict[str, int]:
    """What this process used when it last forgot what it could."""
    return {"bytes": 0}


@pytest.fixture(scope="module", autouse=True)
def free_memory(memory_in_use: dict[str, int], pytestconfig: pytest.Config) -> Iterator[None]:
    """Forget what the frameworks keep of their programs, after a file of tests that left much.

    After every file it would take a fifth of the time: the collector looks through all that lives.
    With --rest it leaves aside what was there before a file; the default tier saves memory.
    """
    if pytestconfig.getoption("rest"):
        gc.freeze()
    yield
    if resident_bytes() < memory_in_use["bytes"] + 150e6:
        return
    gc.unfreeze()
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    memory_in_use["bytes"] = resident_bytes()


def resident_bytes() -> int:
    """Return the memory of this process where Linux counts it, elsewhere more than any limit."""
    counts = Path("/proc/self/statm")
    if not counts.exists():
        return 2**62
    return int(counts.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    """Each of the three implementations whose framework is installed; others are skipped."""
    loaded = require_framework(request.param)
    if DEVICE == "cpu":
        return loaded
    forbid_tf32(request.param)
    return type(loaded)(DEVICE)


@pytest.fixture
def eager_tensorflow(request: pytest.FixtureRequest) -> Iterator[None]:
    """Spare TensorFlow the tracing in a test that the default tier leaves out: it has a traced one.

    The numbers are the same; a step of eager TensorFlow takes a sixth of the time of its tracing.
    """
    if not is_slow(request.node) or "tf" not in frameworks_of(request.node.nodeid):
        yield
        return
    import tensorflow

    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


def require_framework(name: str) -> Implementation:
    """Return an implementation; a missing framework skips the test."""
    try:
        return load(name)
    except MissingFrameworkError as error:
        pytest.skip(str(error))


def installed_implementations(at_least: int = 1) -> list[Implementation]:
    """Return those whose framework is installed; fewer than `at_least` skips the test."""
    found, missing = [], []
    for name in IMPLEMENTATIONS:
        try:
            found.append(load(name))
        except MissingFrameworkError as error:
            missing.append(str(error))
    if len(found) < at_least:
        pytest.skip(f"needs {at_least} frameworks: {'; '.join(missing)}")
    return found


@pytest.fixture(params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest, implementation: Implementation) -> Iterator[str]:
    """The dtype, with JAX's x64 switched on for float64."""
    if implementation.name != "jax":
        yield request.param
        return
    import jax

    with jax.enable_x64(request.param == "float64"):
        yield request.param


def forbid_tf32(name: str) -> None:
    """Make float32 on a GPU mean float32, as the bounds of the tests do."""
    if name == "pytorch":
        import torch

        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.conv.fp32_precision = "ieee"
    elif name == "tf":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    else:
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ten small pictures."""
    return ten_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture
def make_options(tmp_path: Path, data: Path) -> Callable[..., TrainingOptions]:
    """What returns the options of a short run on them, with changes."""
    return lambda **changes: stand_in_options(tmp_path, data, **changes)


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingOptions]:
    """What returns the options that a command line stands for, in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def parse(*argv: str) -> TrainingOptions:
        received: list[TrainingOptions] = []
        assert run_training("jax", received.append, argv) == 0
        return received[0]

    return parse
