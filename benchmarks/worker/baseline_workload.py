"""The plain steps of `benchmarks.baselines` as workloads like ours."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from benchmarks.plan.request import Request
from benchmarks.worker import workloads
from benchmarks.worker.feed import Feed
from benchmarks.worker.workloads import Workload
from shared.spec import SystemSpec


def baseline(framework: str) -> ModuleType:
    """Return the module of a framework's baseline."""
    return importlib.import_module(f"benchmarks.baselines.{framework}_baseline")


def create(spec: SystemSpec, seed: int, request: Request, feed: Feed) -> Workload:
    """Return a baseline's training state with its batches."""
    module, framework = baseline(request.framework), workloads.load(request.framework)
    configuration = request.configuration
    state = module.create(
        spec, seed, request.device, configuration.threads, configuration.precision
    )
    inputs = feed.on_device(
        lambda batch: (
            module.images_to_device(state, batch[0]),
            module.latents_to_device(state, batch[1]),
        )
    )
    return Workload(
        step=lambda: module.step(state, *next(inputs)),
        synchronize=lambda: module.synchronize(state),
        wait=lambda: framework.wait(request, _networks(state)),
        export_state=lambda: module.export_state(state),
        import_state=lambda arrays: module.import_state(state, arrays),
        effective_settings=lambda: workloads.settings_of(
            state, **framework.read_back(_networks(state)[0])
        ),
        peak_device_bytes=lambda: framework.peak_device_bytes(request),
    )


def _networks(state: Any) -> list[Any]:
    if hasattr(state, "networks"):
        return list(state.networks.values())
    return [state.train_state.generator, state.train_state.discriminator]
