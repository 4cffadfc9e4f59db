"""The fixture files: valid, reproducible, and a changed one is noticed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.fixtures import load_loss_cases, load_network_fixture
from shared.fixtures.__main__ import check_fixtures, main, write_fixtures
from shared.fixtures.load import DIRECTORY, LOSSES_FILE, NETWORK_FORMAT, SCHEMA_FILE
from shared.fixtures.make_network import KINK_MARGIN, kink_margin
from shared.reference.comparison import require_close
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import Conventions


def test_the_files_are_made_again(capsys: pytest.CaptureFixture) -> None:
    assert main(["--check"]) == 0
    assert capsys.readouterr().out.count("same:") == 6


def test_the_losses_follow_their_schema() -> None:
    document = json.loads(LOSSES_FILE.read_text("utf-8"))
    schema = json.loads(SCHEMA_FILE.read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)
    document["cases"][0]["expected"]["generator"][0]["decimal"] = "one"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_ids_are_unique_and_every_asked_score_is_there() -> None:
    cases = load_loss_cases()
    assert len({case.id for case in cases}) == len(cases)
    for loss in ("bce", "minimax", "lsgan"):
        points = [c.real_scores[0] for c in cases if c.id.startswith(f"{loss}/point/")]
        asked = [0, 1e-8, 1, 16.75, 17, 20, 50, 88, 100, 1e4, np.inf]
        expected = {float(np.float32(s * x)) for x in asked for s in (1, -1)}
        assert {p for p in points if not np.isnan(p)} == expected
        assert sum(np.isnan(points)) == 1
        sizes = {len(c.real_scores) for c in cases if c.id.startswith(f"{loss}/random/")}
        assert sizes == {1, 2, 7, 128}


def test_decimal_and_bits_are_the_same_number() -> None:
    document = json.loads(LOSSES_FILE.read_text("utf-8"))
    for case in document["cases"]:
        for number in case["real_scores"] + case["expected"]["generator"]:
            if "special" not in number:
                assert float(number["decimal"]) == float.fromhex(number["bits"]), case["id"]


def test_the_network_fixture_is_what_the_reference_computes() -> None:
    fixture = load_network_fixture()
    step = train_step(fixture.spec, fixture.arrays, fixture.real_images, fixture.latents)
    assert step.metrics == pytest.approx(fixture.metrics, rel=1e-13)
    for network, x, expected in (
        ("generator", fixture.latents, fixture.generator_activations),
        ("discriminator", fixture.real_images, fixture.discriminator_activations),
    ):
        run = forward(fixture.spec, network, fixture.arrays, x, Conventions(), training=True)
        assert run.activations.keys() == expected.keys()
        for name, activation in expected.items():
            require_close(name, run.activations[name], activation, bound=1e-12, dtype="float64")


def test_no_pre_activation_is_near_a_kink() -> None:
    fixture = load_network_fixture()
    inputs = (fixture.arrays, fixture.real_images, fixture.latents)
    assert fixture.kink_margin == pytest.approx(kink_margin(fixture.spec, *inputs), rel=1e-6)
    assert fixture.kink_margin >= KINK_MARGIN


def change_byte(directory: Path) -> None:
    path = directory / LOSSES_FILE.name
    path.write_text(path.read_text("utf-8").replace('"0x1.', '"0x0.', 1), "utf-8")


def change_array(directory: Path) -> None:
    path = directory / "narrow-dcgan64-gradients.safetensors"
    arrays = load_file(path)
    arrays["generator/conv_transpose_5/kernel"][0, 0, 0, 0] *= 1 + 1e-6
    save_file(arrays, path, metadata=NETWORK_FORMAT.fields)


def drop_array(directory: Path) -> None:
    path = directory / "narrow-dcgan64-optimizers.safetensors"
    arrays = load_file(path)
    arrays.pop("generator_optimizer/step")
    save_file(arrays, path, metadata=NETWORK_FORMAT.fields)


def drop_file(directory: Path) -> None:
    (directory / "narrow-dcgan64-inputs.safetensors").unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (change_byte, "line [0-9]+ reads"),
        (
            change_array,
            "generator/conv_transpose_5/kernel: relative L2 difference .*, bound 1e-12",
        ),
        (drop_array, "other arrays: .*generator_optimizer/step"),
        (drop_file, "found nothing"),
    ],
)
def test_a_changed_file_is_noticed(tmp_path: Path, fault: Callable, message: str) -> None:
    for path in DIRECTORY.iterdir():
        if path.suffix in (".json", ".safetensors"):
            shutil.copy(path, tmp_path)
    fault(tmp_path)
    (problem,) = [difference for _, difference in check_fixtures(tmp_path) if difference]
    assert re.search(message, problem), problem


def test_the_files_are_written_again(tmp_path: Path) -> None:
    names = write_fixtures(tmp_path)
    assert sorted(names) == sorted(p.name for p in tmp_path.iterdir())
    assert [difference for _, difference in check_fixtures(tmp_path)] == [None] * 6
    cases, fixture = load_loss_cases(tmp_path / LOSSES_FILE.name), load_network_fixture(tmp_path)
    assert [case.id for case in cases] == [case.id for case in load_loss_cases()]
    assert fixture.spec == load_network_fixture().spec
