"""The machine, the packages and the checkout that a result came from."""

import importlib.metadata
import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from shared.interface import PACKAGES

ROOT = Path(__file__).resolve().parent.parent.parent

# Of what changes how fast a framework is, alone recorded. Not all of TF_: Terraform's is that too.
ENVIRONMENT_PREFIXES = (
    "CUBLAS_", "CUDA_", "CUDNN_", "DNNL_", "GLIBC_", "JAX_", "KERAS_", "KMP_", "MALLOC_", "MKL_",
    "NPROC", "NVIDIA_TF32", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TF_CPP_", "TF_CUDNN_",
    "TF_DETERMINISTIC_", "TF_ENABLE_", "TF_FORCE_", "TF_GPU_", "TF_NUM_", "TF_USE_", "TF_XLA_",
    "TORCH_", "TORCHINDUCTOR_", "TRITON_", "XLA_",
)  # fmt: skip
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # each worker has a folder of its own
# NPROC is the size of the thread pools of XLA's CPU client.
THREAD_VARIABLES = ("MKL_NUM_THREADS", "NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A driver's device files: an NVIDIA GPU, an AMD GPU, a GPU in WSL.
GPU_DRIVER_FILES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
GPU_QUERY = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit")


def available_threads() -> int:
    """Return how many CPU cores this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def gpu_driver() -> str | None:
    """Return the device file of a GPU driver, or None; asks no framework."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    return next((path for path in GPU_DRIVER_FILES if Path(path).exists()), None)


def gpu_state() -> dict[str, str]:
    """Return driver, clocks and power limit of the GPU in use by nvidia-smi; nothing without it."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    query = f"--query-gpu={','.join(GPU_QUERY)}"
    answer = _output(["nvidia-smi", query, "--format=csv,noheader", f"--id={gpu}"])
    return {} if answer is None else dict(zip(GPU_QUERY, answer.split(", "), strict=False))


def environment() -> dict[str, str]:
    """Return the environment variables that change how fast a framework is."""
    names = (n for n in sorted(os.environ) if n.startswith(ENVIRONMENT_PREFIXES))
    return {name: os.environ[name] for name in names if name not in CACHES}


def package_versions(framework: str) -> dict[str, str]:
    """Return the versions of NumPy, of a framework's packages, and of every cuDNN."""
    installed = importlib.metadata.distributions()
    versions = {d.name: d.version for d in installed if str(d.name).startswith("nvidia-cudnn-")}
    for package in ("numpy", *PACKAGES[framework]):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # Also what tensorflow is where it was installed as tensorflow-cpu.
            versions[package] = getattr(sys.modules.get(package), "__version__", "unknown")
    return versions


def peak_resident_bytes() -> int:
    """Return the most memory that this process and those that it started ever held, in bytes.

    Frameworks and all; beside Linux of this process alone.
    """
    if Path("/proc/self/status").exists():
        own = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        texts = [Path(f"/proc/{number}/status").read_text("utf-8") for number in own]
        # Not ru_maxrss there: a process inherits that of the one that started it.
        return sum(1024 * int(text.partition("VmHWM:")[2].split()[0]) for text in texts)
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # kilobytes but on macOS


def describe() -> dict[str, Any]:
    """Return the machine, without its name: CPU, cores, memory, platform, load before the run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = [platform.processor() or "unknown"]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": available_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
        "load_average": os.getloadavg()[0],
    }


def git_state() -> dict[str, Any] | None:
    """Return the commit and whether files differ from it; None outside a checkout."""
    git = ["git", "-C", str(ROOT)]
    # Installed in somebody's environment, the folders above may be a checkout of something else.
    if _output([*git, "rev-parse", "--show-toplevel"]) != str(ROOT):
        return None
    commit, dirty = _output([*git, "rev-parse", "HEAD"]), bool(_output([*git, "status", "-s"]))
    return None if commit is None else {"commit": commit, "dirty": dirty}


def _output(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
