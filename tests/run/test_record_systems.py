"""Recordings whose header names a system: networks of each framework are held against it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.explain.recordings import explain_recordings, format_report
from shared.files.errors import InputError
from shared.files.recording import RECORDING, read_recording
from shared.files.system_file import read_system
from shared.interface import IMPLEMENTATIONS
from shared.record import Recorder
from shared.spec import NETWORKS
from tests.convert.test_own_systems import written
from tests.implementations.modules_of_others import PARTS
from tests.implementations.test_module_pair import DISCRIMINATOR, GENERATOR
from tests.tiers import SLOW_IN_TF_AND_JAX


@pytest.mark.parametrize(
    "framework", [pytest.param(name, marks=SLOW_IN_TF_AND_JAX) for name in IMPLEMENTATIONS]
)
def test_networks_are_those_of_the_file_or_the_first_other_array_is_named(
    tmp_path: Path, framework: str
) -> None:
    library = {"pytorch": "torch", "tf": "tensorflow", "jax": "flax"}[framework]
    pytest.importorskip(library)
    networks = dict(zip(NETWORKS, PARTS[framework](), strict=False))
    system, path = written(tmp_path / "mine.toml"), tmp_path / "ours.safetensors"
    with Recorder(path, framework=framework, system=str(system)) as record:
        for name, network in networks.items():
            record.watch(name, network)
    recording = read_recording(path)
    assert recording.system == read_system(system)
    assert len(recording.tensors) == 8 + 9

    def watched(layers: Any, network: str = "discriminator") -> None:
        changed = written(tmp_path / "other.toml", **{network: {"layers": layers}, "names": {}})
        with Recorder(tmp_path / "none", system=str(changed)) as record:
            record.watch(network, networks[network])

    last, *before = reversed(DISCRIMINATOR)
    twice = [*reversed(before), {"kind": "dense", "features": 2}, last]
    with pytest.raises(InputError, match=r"tor/dense_1/kernel: mine has \(128, 2\), the netw"):
        watched(twice)
    with pytest.raises(InputError, match=r"conv_2/bias: mine has \(8,\), the network none; "):
        watched([*DISCRIMINATOR[:2], DISCRIMINATOR[2] | {"bias": True}, *DISCRIMINATOR[3:]])
    with pytest.raises(InputError, match=r"batch_norm_1/(scale|mean): mine has none, the n"):
        watched([*GENERATOR[:2], *GENERATOR[3:]], "generator")
    assert not (tmp_path / "none").exists()


def test_a_system_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml"):
        Recorder(tmp_path / "a", system=str(tmp_path / "no.toml"))
    with pytest.raises(ValueError, match="unknown system 'dcgan'; expected dcgan64"):
        Recorder(tmp_path / "a", system="dcgan")


def recorded(path: Path, system: str | None) -> Path:
    with Recorder(path, system=system) as record:
        record("loss", np.ones(3))
    return path


def test_the_report_says_in_what_two_systems_differ(tmp_path: Path) -> None:
    ours = recorded(tmp_path / "ours", "conv28")
    theirs = recorded(tmp_path / "theirs", str(written(tmp_path / "mine.toml")))
    text = format_report(explain_recordings(ours, theirs))
    assert "their systems differ in name, architecture, image_size, channels, width, " in text
    assert "They differ nowhere." in text
    for other in (ours, recorded(tmp_path / "unnamed", None)):
        assert "systems" not in format_report(explain_recordings(ours, other))


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"name": 1}', "{" * 9999])
def test_another_system_in_the_header_is_refused(tmp_path: Path, text: str) -> None:
    path = recorded(tmp_path / "ours", "conv28")
    arrays, metadata = RECORDING.read(path)
    assert json.loads(metadata["system"])["name"] == "conv28"
    RECORDING.write(path, arrays, metadata | {"system": text})
    with pytest.raises(InputError, match="record it again"):
        read_recording(path)
