"""`python -m shared.convert`: nothing silent, nothing half done."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from shared.convert.__main__ import NETWORK_BOUND, require_same_outputs
from shared.files.errors import InputError
from shared.formats import file_kinds
from shared.interface import MissingFrameworkError
from shared.spec import NETWORKS, Pixels, SystemSpec
from tests import exit_code
from tests.convert.converted_files import COLOUR, checkpoint, needs, run, weights

# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SRC", "b.xyz"], "the name has no known ending; expected one that ends in .safetens"),
        (["b.xyz", "b.pth"], "b.xyz: expected a file of networks, found nothing"),
        (["notes.txt", "b.pth"], "notes.txt: the name has no known ending"),
        (["run", "b.pth"], "run is the folder of a run; name a file in run/checkpoints"),
        (["folder", "b.pth"], "expected a complete checkpoint of orbax, found a folder without"),
        (["missing.safetensors", "b.pth"], "expected a checkpoint file, found nothing"),
        (["missing.pth", "b.pth"], "missing.pth: expected a file, found nothing"),
        (["SRC", "b.h5"], "the name has no known ending"),
        (["SRC", "nowhere/b.pth"], "there is no folder"),
        (["SRC", "SRC"], "exists; choose another name or replace it with --force"),
        (["SRC", "folder", "--force"], "is a folder that orbax has not made; it is not replaced"),
        (["SRC", "SRC2", "b.pth"], "more than one file holds discriminator, discriminator_opt"),
        (["SRC", "b.pth", "--loss", "lsgan"], "SRC stores another spec: loss: bce in the"),
        (["SRC", "b.pth", "--system", "dcgan64-lsgan"], "discriminator_head: conv in the check"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors_are_one_line(tmp_path, capsys, monkeypatch, arguments, message) -> None:
    needs("torch", "keras", "orbax")
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path).rename("SRC.safetensors")
    checkpoint(tmp_path, "dcgan64-lsgan").rename("SRC2.safetensors")
    Path("folder").mkdir()
    Path("run/checkpoints").mkdir(parents=True)
    Path("notes.txt").write_text("no file of networks")
    before = sorted(p.name for p in tmp_path.iterdir())
    named = [f"{a}.safetensors" if a.startswith("SRC") else a for a in arguments]
    assert exit_code(run, *named) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m shared.convert: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("main.1.running_var"), "missing: generator/main.1.running_var"),
        (lambda s: s.update(extra=s["main.0.weight"]), "unexpected: generator/extra"),
        (
            lambda s: s.update({"main.0.weight": s["main.0.weight"][..., :3]}),
            r"wrong shape: generator/main.0.weight (5, 16, 4, 3) instead of (5, 16, 4, 4)",
        ),
    ],
    ids=["missing", "unused", "misshapen"],
)
def test_an_array_without_a_counterpart_is_an_error(tmp_path, capsys, change, message) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "g.pth"
    assert run(checkpoint(tmp_path), path, "--only", "generator") == 0
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    assert run(path, tmp_path / "b.pth") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b.pth").exists()


def test_joined_files_must_agree(tmp_path, capsys) -> None:
    torch = pytest.importorskip("torch")
    source = checkpoint(tmp_path)
    for network in NETWORKS:
        assert run(source, tmp_path / f"{network}.pth", "--only", network) == 0
    files = [tmp_path / f"{network}.pth" for network in NETWORKS]
    saved = torch.load(files[1], weights_only=True)
    torch.save({n: t.double() if t.is_floating_point() else t for n, t in saved.items()}, files[1])
    assert run(*files, tmp_path / "b.pth") == 2
    assert "expected float32 alone or float64 alone" in capsys.readouterr().err


def test_joined_files_must_be_of_one_width(tmp_path, capsys) -> None:
    needs("torch")
    for network, width in zip(NETWORKS, (2, 3), strict=True):
        source = checkpoint(tmp_path, width=width)
        assert run(source, tmp_path / f"{network}.pth", "--only", network) == 0
    files = [tmp_path / f"{network}.pth" for network in NETWORKS]
    assert run(*files, tmp_path / "b.pth") == 2
    assert "discriminator/conv_1/kernel (4, 4, 3, 3) instead of (4, 4, 3, 2)" in (
        capsys.readouterr().err
    )


def test_joined_files_must_be_of_one_spec(tmp_path, capsys) -> None:
    needs("keras")
    for network, loss in zip(NETWORKS, ("bce", "minimax"), strict=True):
        source = checkpoint(tmp_path, loss=loss)
        assert run(source, tmp_path / f"{network}.weights.h5", "--only", network) == 0
    files = [tmp_path / f"{network}.weights.h5" for network in NETWORKS]
    assert run(*files, tmp_path / "b.weights.h5") == 2
    assert "belong to other systems: loss: minimax" in capsys.readouterr().err


def test_force_replaces_a_file_and_a_folder(tmp_path) -> None:
    needs("torch", "orbax")
    source = checkpoint(tmp_path)
    for name in ("b.pth", "b.orbax"):
        assert run(source, tmp_path / name) == 0
        assert run(source, tmp_path / name) == 2
        assert run(source, tmp_path / name, "--force") == 0
        assert weights(tmp_path / name) == weights(source)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MissingFrameworkError("torch is needed"),
            "files of kind torch: torch is needed\n",
        ),
        (ModuleNotFoundError("No module named 'x'"), "files of kind torch: No module named 'x'\n"),
    ],
)
def test_a_missing_package_is_named(tmp_path, capsys, monkeypatch, error, message) -> None:
    def missing(name: str) -> None:
        raise error

    monkeypatch.setattr(file_kinds, "importlib", SimpleNamespace(import_module=missing))
    assert run(checkpoint(tmp_path), tmp_path / "b.pth") == 2
    assert message in capsys.readouterr().err
    # The kind without a framework goes on working.
    assert run(checkpoint(tmp_path), tmp_path / "b.safetensors") == 0


def test_debug_adds_the_traceback(tmp_path, capsys) -> None:
    assert run(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


# --- verification ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "left_out"),
    [
        ("dcgan64-lsgan", "discriminator/dense_5/kernel"),
        ("conv28", "generator/dense_2/kernel"),
        ("conv28", "generator/dense_2/bias"),
        ("conv28", "generator/batch_norm_2/"),
        ("conv28", "generator/batch_norm_2/mean"),
        ("conv28", "discriminator/dense_3/kernel"),
        ("mlp28", "generator/dense_3/kernel"),
        ("mlp28", "generator/dense_3/bias"),
        ("mlp28", "discriminator/dense_1/kernel"),
    ],
)
def test_a_mistake_that_reading_undoes_is_caught(
    tmp_path, capsys, monkeypatch, system, left_out
) -> None:
    """Pixels left in HWC order, both ways: the arrays agree, PyTorch's network not."""
    pytest.importorskip("torch")
    import pytorch_impl.native_format as own

    every = own.flattened_pixels

    def some(spec: SystemSpec) -> dict[str, Pixels]:
        assert any(name.startswith(left_out) for name in every(spec))
        return {n: where for n, where in every(spec).items() if not n.startswith(left_out)}

    monkeypatch.setattr(own, "flattened_pixels", some)
    source = checkpoint(tmp_path, system, **COLOUR.get(system, {}))
    assert run(source, tmp_path / "b.pth") == 2
    captured = capsys.readouterr()
    assert "every bit the same" in captured.out
    network = left_out.split("/")[0]
    assert f"the {network}s of SRC and DST differ by up to" in captured.err
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("name", ["generator/batch_norm_2/mean", "discriminator_optimizer/step"])
def test_a_bit_that_changes_is_caught(tmp_path, capsys, monkeypatch, name) -> None:
    from shared.formats import canonical_format

    write = canonical_format.write_native

    def spoil(path, contents):
        flipped = contents.arrays[name].copy()
        flipped.reshape(-1).view(np.uint8)[0] ^= 1
        write(path, dataclasses.replace(contents, arrays=contents.arrays | {name: flipped}))

    source = checkpoint(tmp_path)
    monkeypatch.setattr(canonical_format, "write_native", spoil)
    assert run(source, tmp_path / "b.safetensors") == 2
    assert f"arrays that changed on the way: {name}" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


def test_the_comparison_of_outputs_catches_what_it_must() -> None:
    values = np.linspace(-1.0, 1.0, 12).reshape(3, 4)
    assert require_same_outputs("generator", values, values.copy(), "float64") == (0.0, 1.0)
    for wrong in (values * (1 + 1e-10), np.where(values == 1, np.nan, values)):
        with pytest.raises(InputError, match="the generators of SRC and DST differ"):
            require_same_outputs("generator", values, wrong, "float64")
    broken = np.where(values > 0.9, np.nan, values)
    assert require_same_outputs("generator", broken, broken.copy(), "float64")[0] == 0.0
    with pytest.raises(InputError):
        require_same_outputs("generator", broken, values, "float64")
    assert NETWORK_BOUND["float32"] < 1e-3
