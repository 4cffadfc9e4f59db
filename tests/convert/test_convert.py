"""`python -m shared.convert`: between all kinds, and what is left out and made up."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from shared.files.checkpoint import read_checkpoint
from shared.files.errors import InputError
from shared.formats.file_kinds import FILE_KINDS, kind_of
from shared.spec import NETWORKS, SYSTEMS
from tests.convert.converted_files import (
    COLOUR,
    SUFFIX,
    checkpoint,
    needs,
    read,
    run,
    weights,
)
from tests.tiers import one_in

# --- all to all ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory: pytest.TempPathFactory):
    """Return a function: a system, a dtype and a kind → a file of it, made from a checkpoint."""
    made: dict[tuple[str, str, str], Path] = {}

    def make(system: str, dtype: str, kind: str) -> Path:
        needs(kind)
        key = (system, dtype, kind)
        if key not in made:
            folder = tmp_path_factory.mktemp("files")
            made[key] = checkpoint(folder, system, dtype, **COLOUR.get(system, {}))
            if kind != "safetensors":
                made[key] = folder / f"file{SUFFIX[kind]}"
                assert run(folder / f"{system}-{dtype}.safetensors", made[key]) == 0
        return made[key]

    return make


def every_way() -> list[tuple[str, str, str, str]]:
    """Return (system, dtype, source, target); from a kind to itself for the two dcgan64 only."""
    dtypes = {
        "dcgan64": "float32",
        "dcgan64-lsgan": "float64",
        "conv28": "float32",
        "mlp28": "float64",
    }
    return [
        (system, dtypes[system], source, target)
        for system in SYSTEMS
        for source, target in itertools.product(FILE_KINDS, FILE_KINDS)
        if source != target or system.startswith("dcgan64")
    ]


@pytest.mark.parametrize(("system", "dtype", "source", "target"), one_in(11, every_way()))
def test_all_to_all(one_of_each, tmp_path, capsys, source, target, system, dtype) -> None:
    needs(source, target)
    path = one_of_each(system, dtype, source)
    capsys.readouterr()
    destination = tmp_path / f"b{SUFFIX[target]}"
    assert run(path, destination) == 0
    output = capsys.readouterr().out
    assert weights(destination) == weights(path)
    assert "every bit the same" in output
    for network in NETWORKS:
        (line,) = (line for line in output.splitlines() if line.startswith(f"{network}: max"))
        difference, largest = (float(line.split()[i]) for i in (3, 8))
        # What the table of bounds says was measured, with room for another machine.
        assert difference <= {"float32": 5e-6, "float64": 1e-14}[dtype] * largest
    before, after = read(path), read(destination)
    assert after.spec == before.spec
    if "keras" not in (source, target):
        assert {n: a.tobytes() for n, a in after.arrays.items()} == {
            n: a.tobytes() for n, a in before.arrays.items()
        }
        assert after.progress == before.progress
        assert "left behind" not in output
    elif target == "keras" != source:
        assert (
            "left behind: generator_optimizer, discriminator_optimizer, progress (step 3) "
            "(keras has no place for it)" in output
        )
    assert [p.name for p in tmp_path.iterdir()] == [destination.name]


# --- what is left out and made up ------------------------------------------------------------


def test_networks_alone_are_no_state_to_resume(one_of_each, tmp_path, capsys) -> None:
    path = one_of_each("dcgan64", "float32", "keras")
    destination = tmp_path / "b.safetensors"
    assert run(path, destination) == 0
    assert capsys.readouterr().out.endswith(f"wrote {destination}: generator, discriminator\n")
    with pytest.raises(InputError, match="'progress'"):
        read_checkpoint(destination)


@pytest.mark.parametrize("system", ["dcgan64", "conv28", "mlp28"])
def test_two_bare_files_of_pytorch_become_one(tmp_path, capsys, system) -> None:
    needs("torch")
    source = checkpoint(tmp_path, system)
    for network in NETWORKS:
        assert run(source, tmp_path / f"{network}.pth", "--only", network) == 0
    output = capsys.readouterr().out
    assert "left behind: discriminator, generator_optimizer" in output
    assert "(--only generator)" in output
    files = [tmp_path / f"{network}.pth" for network in NETWORKS]
    assert run(*files, tmp_path / "b.safetensors") == 0
    assert weights(tmp_path / "b.safetensors") == weights(source)


def test_the_system_of_a_bare_generator_can_be_said(tmp_path, capsys) -> None:
    needs("torch", "keras")
    source = checkpoint(tmp_path, "dcgan64-lsgan", batch_size=128)
    assert run(source, tmp_path / "g.pth", "--only", "generator") == 0
    output = capsys.readouterr().out
    assert "left behind: of the spec name, discriminator_head, loss (a network alone" in output
    options = ("--system", "dcgan64-lsgan", "--loss", "bce")
    assert run(tmp_path / "g.pth", tmp_path / "g.weights.h5", *options) == 0
    assert "spec read off the shapes: dcgan64-lsgan, width 2" in capsys.readouterr().out
    assert read(tmp_path / "g.weights.h5").spec == read(source).spec.replace(loss="bce")


# --- the command -----------------------------------------------------------------------------


def test_help_names_every_kind(capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("--help")
    assert exit_.value.code == 0
    output = capsys.readouterr().out
    endings = [kind.suffixes[0] for kind in FILE_KINDS.values()]
    for text in ("SRC", "DST", "--force", *endings, "--init-from", "netG"):
        assert text in output


def test_no_framework_is_imported_for_help() -> None:
    code = (
        "import sys, shared.convert.__main__\n"
        "found = {'torch', 'tensorflow', 'keras', 'jax', 'h5py', 'orbax'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.safetensors", "safetensors"),
        ("a.pth", "torch"),
        ("a.pt", "torch"),
        ("a.weights.h5", "keras"),
        ("a.orbax", "orbax"),
    ],
)
def test_the_kind_follows_from_the_name(tmp_path, name, kind) -> None:
    assert kind_of(tmp_path / name).name == kind
    assert kind_of(tmp_path).name == "orbax"
