"""The command `python -m shared.explain`: what it prints, writes and returns."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.explain.__main__ import main
from tests import ROOT
from tests.explain.wrong_ports import BiasesAlone

PARTIAL = "tests.explain.wrong_ports"  # losses alone, with a real label of 0.9


def test_a_trap_is_printed_with_its_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "explanation.json"
    assert main([PARTIAL, "--json", str(file)]) == 1
    printed = capsys.readouterr().out
    for text in (
        "Verdict: named.",
        "real label: 0.9 instead of 1",
        "First to differ: inner: discriminator",
        "docs/porting.md#discriminator-labels",
        "not seen",
    ):
        assert text in printed
    data = json.loads(file.read_text("utf-8"))
    assert (data["verdict"], data["located"], data["findings"]) == ("named", [], [])
    (named,) = data["named"]
    assert named["title"] == "real label: 0.9 instead of 1"
    assert named["fields"] == {"real_label": 0.9}
    assert (named["stage"], named["row"]) == ("loss functions", "discriminator-labels")


def test_numbers_that_json_does_not_have_are_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = BiasesAlone(shape=(1, -1))
    monkeypatch.setattr("shared.explain.__main__.load_implementation", lambda _: port)
    assert main(["port", "--system", "mlp28", "--json", str(tmp_path / "a.json")]) == 1

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    text = (tmp_path / "a.json").read_text("utf-8")
    data = json.loads(text, parse_constant=refuse)
    assert (data["first"]["relative"], data["first"]["received"]) == ("inf", "nan")


@pytest.mark.slow
def test_two_ports_against_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "both.json"
    arguments = [PARTIAL, "--against", "shared.reference.adapter", "--system", "mlp28"]
    assert main([*arguments, "--loss", "bce", "--json", str(file)]) == 1
    printed = capsys.readouterr().out
    assert f"in {PARTIAL} alone: real label: 0.9 instead of 1" in printed
    assert "in shared.reference.adapter alone: nothing" in printed
    assert json.loads(file.read_text("utf-8"))["in_one_alone"] == {
        PARTIAL: ["real label: 0.9 instead of 1"],
        "shared.reference.adapter": [],
    }
    assert main([PARTIAL, "--against", PARTIAL]) == 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def broken(:", "importing {} raised SyntaxError"),
        ("raise RuntimeError('no GPU')", "importing {} raised RuntimeError: no GPU"),
        (
            "class Port:\n    def loss(self, loss, real, fake, **labels):\n        1 / 0\n"
            "implementation = Port()",
            "loss() raised ZeroDivisionError",
        ),
    ],
)
def test_an_adapter_that_raises_is_one_line(
    source: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"raising_port_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert main([name]) == 2
    error = capsys.readouterr().err
    assert message.format(name) in error
    assert error.count("\n") == 1


def test_a_port_that_raises_after_something_is_named_keeps_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "from tests.explain.wrong_ports import RaisesAtStepThree as Port\n"
    (tmp_path / "port_raising_later.py").write_text(f"{source}implementation = Port()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["port_raising_later", "--system", "mlp28"]) == 1
    printed = capsys.readouterr().out
    assert "adam beta1: 0.9 instead of the spec's" in printed
    assert "train_step() raised RuntimeError: out of luck" in printed


def test_every_line_of_a_stage_holds_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    main(["shared.reference.adapter", "--system", "mlp28"])
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert sum(line.endswith(" s") for line in printed) == 20


def test_rounding_returns_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shared.reference.adapter", "--system", "mlp28"]) == 0
    assert "Verdict: rounding." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_module"], "unknown implementation 'no_such_module'"),
        (["shared.spec"], "has no object called 'implementation'"),
        (["jax", "tf"], "expected one implementation or two recordings"),
        (["no.safetensors", "none.safetensors"], "no.safetensors"),
        (["one.safetensors"], "expected one implementation or two recordings"),
        ([PARTIAL, "--batch-size", "3"], "--batch-size must be even"),
        ([PARTIAL, "--width", "-1"], "width must be a whole number of at least 1"),
        ([PARTIAL, "--seed", "-1"], "--seed"),
        ([PARTIAL, "--system", "dcgan65"], "unknown system 'dcgan65'; expected dcgan64, "),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([PARTIAL, "--los", "bce"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints() -> None:
    """docs/explain.md, whose example is wrong on purpose."""
    pytest.importorskip("jax", reason="the example needs JAX")
    result = subprocess.run(
        [sys.executable, "-m", "shared.explain", "docs.examples.naive_jax"],
        cwd=ROOT,
        env=os.environ | {"JAX_ENABLE_X64": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    page = (ROOT / "docs" / "explain.md").read_text("utf-8")
    verdict = result.stdout[result.stdout.index("Verdict:") :]
    assert "conv transpose kernel: flipped instead of as stored" in verdict
    for line in verdict.splitlines():
        assert line.rstrip() in page
