"""Explaining adapters of systems that a file describes."""

from pathlib import Path

import numpy as np
import pytest

from shared.explain import explain
from shared.explain.__main__ import main
from shared.reference.adapter import ReferenceImplementation
from shared.spec import Conventions
from tests import ROOT
from tests.files.test_system_file import DOCUMENT, written
from tests.reference.test_given_networks import given_system


@pytest.mark.parametrize(
    "fields",
    [
        {"leaky_relu_slope": 0.01},
        {"conv_transpose_kernel": "flipped"},
        {"update_order": "generator_first", "batch_norm_running_variance": "biased"},
    ],
)
def test_a_mistake_in_a_given_system_is_named(fields: dict) -> None:
    port = ReferenceImplementation(Conventions(**fields))
    assert explain(port, given_system(batch_size=4), steps=1).fields == fields


def test_what_the_system_has_of_its_own_is_no_mistake() -> None:
    own = (("discriminator_loss_scale", 0.5), ("update_order", "generator_first"))
    spec = given_system(batch_size=4, conventions=own)
    halved = {"discriminator_loss_scale": 0.5}  # which its loss() has to be told: it has no spec
    right = ReferenceImplementation(Conventions(**halved))
    assert explain(right, spec, steps=1).verdict == "rounding"
    port = ReferenceImplementation(Conventions(**halved, generator_label=0.9))
    assert explain(port, spec, steps=1).fields == {"generator_label": 0.9}


@pytest.mark.parametrize(
    ("field", "value", "title"),
    [
        ("leaky_relu_slope", 0.2, "leaky relu slope: 0.2 instead of the spec's"),
        ("batch_norm_epsilon", 1e-5, "batch norm epsilon: 1e-05 instead of the spec's"),
        ("batch_norm_momentum", 0.1, "batch norm momentum: 0.1 instead of the spec's"),
    ],
)
def test_the_usual_number_where_the_system_has_another(
    field: str, value: float, title: str
) -> None:
    """A port that left PyTorch's epsilon, or this project's slope, where the file has its own."""
    literal = Conventions(**{field: np.nextafter(value, 1.0)})
    found = explain(ReferenceImplementation(literal), given_system(batch_size=4), steps=1)
    assert found.fields == {field: pytest.approx(value, rel=1e-15)}
    assert found.traps[0].title == title


def test_numbers_beside_those_of_a_file() -> None:
    """The file's slope is what a port has otherwise; Keras' is the same, rounded to float32."""
    spec = given_system(batch_size=4)
    for slope, words in (
        (0.23, "0.23 instead of the spec's"),
        (0.3, "0.3, rounded to float32, instead of the spec's"),
    ):
        rounded = float(np.float32(slope)) if slope == 0.3 else slope
        port = ReferenceImplementation(Conventions(leaky_relu_slope=rounded))
        found = explain(port, spec, steps=1)
        assert [trap.title for trap in found.traps] == [f"leaky relu slope: {words}"]
        assert found.fields["leaky_relu_slope"] == pytest.approx(rounded, rel=1e-9)


def test_a_file_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(written(tmp_path / "mine.toml", DOCUMENT))
    options = ["--system", file, "--loss", "lsgan", "--learning-rate", "0.01"]
    assert main(["shared.reference.adapter", *options, "--generator-batch", "new-latents"]) == 0
    assert "mine" in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text("name = 3")
    assert main(["shared.reference.adapter", "--system", file]) == 2
    error = capsys.readouterr().err
    assert f"error: {file}: the file: 'image_size' is a required property" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["keras_gan", "tensorflow_tutorial"])
def test_the_reference_is_right_about_the_examples(name: str) -> None:
    file = str(ROOT / "docs" / "examples" / f"{name}.toml")
    assert main(["shared.reference.adapter", "--system", file, "--width", "2"]) == 0


def test_the_implementations_here_refuse_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    file = str(written(tmp_path / "mine.toml", DOCUMENT))
    assert main(["pytorch", "--system", file]) == 2
    assert "mine is a system of a file, which only the reference" in capsys.readouterr().err
