"""Adapters that offer a part are skipped with the reason, and any system can be asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.conformance.__main__ import main
from shared.conformance.problems import function_problems, problems_of
from shared.conformance.serve import Server
from shared.conformance.verdicts import Result, decide
from shared.interface import Arrays, LossValues
from shared.reference.adapter import ReferenceImplementation, ReferenceState
from shared.spec import Conventions
from tests import exit_code
from tests.files.test_system_file import DOCUMENT, written
from tests.reference.test_given_networks import given_system


class NetworksOnly(ReferenceImplementation):
    """Its state holds weights and statistics alone."""

    train_step = adam = loss = None  # type: ignore[assignment]

    def export_state(self, state: ReferenceState) -> Arrays:
        return {n: a for n, a in super().export_state(state).items() if "_optimizer/" not in n}


class ProbabilitiesAlone:
    """One loss, without labels."""

    def loss(self, loss: str, real_scores: np.ndarray, fake_scores: np.ndarray) -> LossValues:
        if loss != "bce_probs":
            raise ValueError(f"no loss {loss!r}")
        return ReferenceImplementation().loss(loss, real_scores, fake_scores)


def results(adapter: Any, problems: Any) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in decide(problems, Server(adapter), {}):
        found.setdefault(result.verdict, []).append(result)
    return found


def test_networks_alone_pass_what_they_offer() -> None:
    found = results(NetworksOnly(), problems_of(given_system()))
    assert found.keys() == {"pass", "skipped"}
    ids = [r.case.id for r in found["pass"]]
    assert {i.split("/")[0] for i in ids} == {"create", "network"}
    assert "network/given/unmoved/float64" in ids
    assert {r.message for r in found["skipped"]} == {"no method train_step"}


def test_a_step_without_moments_is_judged_by_its_weights() -> None:
    class Forgetful(NetworksOnly):
        train_step = ReferenceImplementation.train_step

    found = results(Forgetful(), problems_of(given_system()))
    assert found.keys() == {"pass", "skipped"}
    assert {r.message for r in found["skipped"]} == {
        "export_state() returns no array of an optimizer"
    }
    assert all("_optimizer/" in r.case.id for r in found["skipped"])


def test_one_loss_without_labels_is_skipped_elsewhere() -> None:
    problems = [p for p in function_problems() if "/float64/" in p.cases[0].id]
    found = results(ProbabilitiesAlone(), problems)
    assert not found.keys() - {"pass", "skipped"}
    assert all(r.case.id.startswith("loss/bce_probs/") for r in found["pass"])
    messages = {r.message for r in found["skipped"]}
    assert "no loss 'lsgan'" in messages
    assert any("unexpected keyword argument" in message for message in messages)


class Broken(ReferenceImplementation):
    def loss(self, *scores: Any, **labels: Any) -> LossValues:
        raise ValueError("operands could not be broadcast together")


def test_a_loss_that_breaks_is_an_error() -> None:
    problem = next(function_problems())
    assert results(Broken(), [problem]).keys() == {"errored"}


@pytest.mark.parametrize("adapter", ["right", "wrong"])
def test_the_systems_own_conventions_are_the_truth(adapter: str) -> None:
    spec = given_system(conventions=(("discriminator_loss_scale", 0.5),))
    wrong = Conventions(discriminator_loss_scale=0.25)
    ours = ReferenceImplementation(wrong if adapter == "wrong" else None)
    found = results(ours, problems_of(spec))
    assert ("fail" in found) == (adapter == "wrong")


def test_a_file_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(written(tmp_path / "mine.toml", DOCUMENT))
    asked = ["--impl", "tests.conformance.reference", "--system", file]
    assert main([*asked, "--json", str(tmp_path / "a.json")]) == 0
    cases = json.loads((tmp_path / "a.json").read_text("utf-8"))["cases"]
    assert {case["id"].split("/")[1] for case in cases} == {"mine"}
    capsys.readouterr()
    for options, message in (
        (["--system", "dcgan"], "unknown system 'dcgan'"),
        (["--loss", "bce"], "--loss is one system's: add --system"),
        (["--system", file, "--width", "3"], "generator, layer 4, reshape_1: expected a multiple"),
        (
            ["--system", file, "--learning-rate", "nan"],
            "--learning-rate: must be a positive number",
        ),
    ):
        assert exit_code(main, [*asked[:2], *options]) == 2
        assert message in capsys.readouterr().err
