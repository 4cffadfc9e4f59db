"""Verdicts, overrides and reports of the conformance kit."""

import io
import json
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from shared.conformance.cases import (
    Bound,
    Case,
    Override,
    Problem,
    cases_of,
    load_overrides,
    matching,
    relative,
    selected,
)
from shared.conformance.problems import all_problems
from shared.conformance.protocol import RequestError
from shared.conformance.serve import Server
from shared.conformance.verdicts import (
    VERDICTS,
    Result,
    counts,
    decide,
    is_conformant,
    judge,
    print_summary,
    write_json,
    write_junit,
)
from shared.files.child_process import ChildEndedError
from shared.reference.adapter import ReferenceImplementation

TRUTH = np.array([1.0, 2.0])
BOUND = Bound(1e-6, "relative L2", "for a test")


def case(identifier: str = "loss/one", **changes: Any) -> Case:
    return Case(identifier, "x", TRUTH, "float64", BOUND, relative, **changes)


RIGHT, NEAR, WRONG = TRUTH * (1 + 1e-9), TRUTH * (1 + 1e-4), TRUTH * 2
DIVERGENT = Override("ours is another")
TIGHT, LOOSE = (Override("we know better", bound) for bound in (1e-12, 1e-3))


@pytest.mark.parametrize(
    ("answer", "override", "verdict"),
    [
        (RIGHT, None, "pass"),
        (NEAR, None, "fail"),
        (TRUTH * np.nan, None, "fail"),
        (NEAR, DIVERGENT, "divergent as declared"),
        (RIGHT, DIVERGENT, "unexpected pass"),
        (TRUTH, TIGHT, "pass"),
        (RIGHT, TIGHT, "fail"),
        (NEAR, LOOSE, "loosened"),
        (RIGHT, LOOSE, "loosened"),  # never a pass
        (WRONG, LOOSE, "fail"),
        (TRUTH * np.nan, LOOSE, "fail"),
        (RIGHT, Override("the same", 1e-6), "pass"),
    ],
)
def test_verdicts(answer: np.ndarray, override: Override | None, verdict: str) -> None:
    result = judge(case(), answer, "somebody", override)
    assert result.verdict == verdict
    if override:
        assert override.reason in result.message
    assert is_conformant([result]) == (verdict not in ("fail", "unexpected pass"))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "the answer has no 'x'"),
        (3.0, "received a float, expected an array"),
        (RIGHT[:, None], r"received shape (2, 1), expected (2,)"),
        (RIGHT.astype(np.float32), "received dtype float32, expected float64"),
    ],
)
@pytest.mark.parametrize("override", [None, LOOSE])
def test_an_answer_of_another_kind_fails(answer: Any, message: str, override: Any) -> None:
    result = judge(case(), answer, "somebody", override)
    assert result.verdict == "fail"
    assert message in result.message
    assert result.error is None


def test_a_failure_names_the_worst_element() -> None:
    result = judge(case(), np.array([1.0, 3.0]), "somebody", None)
    assert "off by 0.447 relative L2" in result.message  # 1 / √5
    assert "worst element (1,): received 3.0, expected 2.0" in result.message


@pytest.mark.parametrize(
    ("name", "answer", "verdict"),
    [
        ("tf", np.array([np.nan, np.nan]), "divergent as declared"),
        ("tf", RIGHT, "unexpected pass"),
        ("tf", WRONG, "fail"),
        ("jax", np.array([np.nan, np.nan]), "fail"),
        ("jax", RIGHT, "pass"),
    ],
)
def test_what_the_fixture_declares_holds_for_one_implementation(
    name: str, answer: np.ndarray, verdict: str
) -> None:
    declared = case(declared={"tf": Override("inf - inf", observed=float("nan"))})
    assert judge(declared, answer, name, None).verdict == verdict


class Stub:
    """A session whose method raises, or answers with one array."""

    name = "stub"
    methods = ("loss",)

    def __init__(self, outcome: Exception | dict) -> None:
        self.outcome = outcome

    def call(self, method: str, arguments: object) -> dict:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def ask(session: Any) -> dict:
    """Ask for an array, and for others by name as those of a state are."""
    result = session.call("loss", {})
    return {"x": result["x"], **dict(result.get("arrays", {}).items())}


PROBLEM = Problem(ask, (case(), case("loss/two")))


@pytest.mark.parametrize(
    ("outcome", "verdict", "message"),
    [
        ({"x": RIGHT}, "pass", "off by"),
        ({"y": RIGHT}, "errored", "an answer lacks 'x'"),
        ({"x": RIGHT, "arrays": RIGHT}, "errored", "an answer of another form: 'numpy.nd"),
        (RequestError("float64 only", is_refusal=True), "skipped", "float64 only"),
        (RequestError("no memory"), "errored", "no memory"),
        (ChildEndedError("killed"), "errored", "killed"),
    ],
)
def test_every_case_of_a_problem_gets_a_verdict(outcome: Any, verdict: str, message: str) -> None:
    results = decide([PROBLEM], Stub(outcome), {})
    assert [r.verdict for r in results] == [verdict] * 2
    assert message in results[0].message
    assert is_conformant(results) == (verdict == "pass")


def test_a_partial_adapter_is_asked_only_what_it_offers() -> None:
    class LossesAlone:
        name = "losses alone"
        loss = ReferenceImplementation().loss

    problems = selected(all_problems(), ["*/float64", "*/float64/*"])
    found = counts(decide(problems, Server(LossesAlone()), {}))
    assert found == dict.fromkeys(VERDICTS, 0) | {"pass": 490, "skipped": 735}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(NotImplementedError("float64 only"), "skipped"), (ValueError("float64 only"), "errored")],
)
def test_only_a_plain_refusal_is_a_skip(error: Exception, verdict: str) -> None:
    """Any other exception may be a mistake: a ValueError of a loss is no refusal of a dtype."""

    class Refusing:
        def loss(self, *_: object, **__: float) -> None:
            raise error

    (result, *_) = decide(selected(all_problems(), ["loss/bce/point/+0/*"]), Server(Refusing()), {})
    assert result.verdict == verdict
    assert "float64 only" in result.message


def test_a_system_or_dtype_that_create_refuses_is_a_skip() -> None:
    problems = selected(all_problems(), ["network/mlp28/generate/*/float32"])
    results = decide(problems, Server(ReferenceImplementation()), {})
    assert {r.verdict for r in results} == {"skipped"}
    assert "computes in float64 only, received 'float32'" in results[0].message


# --- overrides --------------------------------------------------------------------------------

IDENTIFIERS = ["loss/bce/float32/generator", "loss/bce/float64/generator", "step/mlp28/float32/x"]
TOML = """
["loss/*/float32/*"]
divergent = true
reason = "rounds to bfloat16"

["step/mlp28/float32/x"]
bound = 1e-3
reason = "fast mathematics"
"""


def write(folder: Path, text: str, name: str = "overrides.toml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_overrides_of_toml_and_json(tmp_path: Path) -> None:
    expected = {
        IDENTIFIERS[0]: Override("rounds to bfloat16"),
        IDENTIFIERS[2]: Override("fast mathematics", 1e-3),
    }
    assert load_overrides(write(tmp_path, TOML), IDENTIFIERS) == expected
    as_json = json.dumps(tomllib.loads(TOML))
    assert load_overrides(write(tmp_path, as_json, "o.json"), IDENTIFIERS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["loss/none"]\ndivergent = true\nreason = "r"', "'loss/none', which matches no case"),
        ('["loss/*"]\ndivergent = true', "expected a table by case id"),
        ('["loss/*"]\ndivergent = false\nreason = "r"', "expected a table by case id"),
        (
            '["loss/*"]\ndivergent = true\nreason = " "',
            "found {'divergent': True, 'reason': ' '} for 'loss/*'",
        ),
        ('["loss/*"]\nbound = "1"\nreason = "r"', "expected a table by case id"),
        ('["loss/*"]\nbound = 1\nreason = "r"\nx = 1', "expected a table by case id"),
        ('["loss/*"]\nbound = true\nreason = "r"', "expected a table by case id"),
        ('["loss/*"]\nbound = nan\nreason = "r"', "a finite bound of at least 0"),
        ('["loss/*"]\nbound = -1.0\nreason = "r"', "a finite bound of at least 0"),
        ('["loss/*"]\nbound = 1\ndivergent = true\nreason = "r"', "expected a table by case"),
        ('"loss/*" = 3', "expected a table by case id"),
        ("[", "overrides.toml: "),
        (
            '["*32*"]\nbound = 1\nreason = "r"\n["loss/*"]\nbound = 1\nreason = "r"',
            "'loss/*' and an earlier pattern for loss/bce/float32/generator",
        ),
    ],
)
def test_a_bad_override_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match="overrides") as raised:
        load_overrides(write(tmp_path, text), IDENTIFIERS)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["absent.toml", "overrides.yaml", "folder.toml"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.toml").mkdir()
    write(tmp_path, "", "overrides.yaml")
    with pytest.raises(ValueError, match=name):
        load_overrides(tmp_path / name, IDENTIFIERS)


def test_patterns() -> None:
    identifier = "loss/bce/point/+inf/float32/generator"
    assert matching([identifier, "step/x"], "loss/*/float32/*") == [identifier]
    with pytest.raises(ValueError, match=r"'loss/\*/float32', which matches no case"):
        matching([identifier], "loss/*/float32")
    with pytest.raises(ValueError, match=r"--select 'nothing', which matches no case"):
        selected(all_problems(), ["loss/*", "nothing"])
    chosen = cases_of(selected(all_problems(), ["adam/fresh/*", "step/mlp28/*"]))
    assert {c.id.split("/")[0] for c in chosen} == {"adam", "step"}


# --- reports ----------------------------------------------------------------------------------

# What a process may say on stderr before it dies; XML can hold neither \x00 nor a lone surrogate.
HOSTILE = 'Segmentation fault \x00\x1b[31m <&"]]> \ud800 é'


def one_of_each() -> list[Result]:
    return [
        Result(case(f"kind/{verdict}"), verdict, 0.5, 1.0, f"{verdict} {HOSTILE}")
        for verdict in VERDICTS
    ] + [Result(case("kind/inf"), "fail", float("inf"), 1.0, "")]


def test_the_json_report(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", "somebody", one_of_each())
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["counts"] == dict.fromkeys(VERDICTS, 1) | {"fail": 2}
    assert report["conformant"] is False
    assert report["cases"][0]["derivation"] == "for a test"
    assert report["cases"][-1]["error"] is None
    assert report["cases"][2]["id"] == "kind/errored"


def test_the_junit_report_is_xml(tmp_path: Path) -> None:
    write_junit(tmp_path / "report.xml", f"somebody {HOSTILE}", one_of_each())
    suite = ElementTree.parse(tmp_path / "report.xml").getroot().find("testsuite")
    assert suite is not None
    numbers = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert numbers == {"tests": "8", "failures": "3", "errors": "1", "skipped": "3"}
    tags = {
        element.get("name"): [child.tag for child in element]
        for element in suite.findall("testcase")
    }
    assert tags == {
        "kind/pass": [],
        "kind/fail": ["failure"],
        "kind/errored": ["error"],
        "kind/unexpected pass": ["failure"],
        "kind/divergent as declared": ["skipped"],
        "kind/loosened": ["skipped"],
        "kind/skipped": ["skipped"],
        "kind/inf": ["failure"],
    }
    assert '<&"]]>' in suite.findall("testcase")[2][0].get("message", "")


def test_the_summary_shows_counts_reasons_and_failures() -> None:
    text = io.StringIO()
    print_summary("somebody", one_of_each(), Console(file=text, width=80))
    shown = text.getvalue()
    expected = (
        "somebody: 1 pass, 2 fail, 1 errored, 1 unexpected pass, 1 divergent as declared, "
        "1 loosened, 1 skipped"
    )
    assert expected in shown.splitlines()
    assert "fail: kind/inf: " in shown
    assert "skipped, 1: skipped Segmentation fault" in shown
    assert "\x1b" not in shown
    shown.encode()  # a lone surrogate could not be
    table = {line[:21].strip(): line.split()[-1] for line in shown.splitlines()[:8]}
    assert table == {"cases": "kind", **{v: "2" if v == "fail" else "1" for v in VERDICTS}}


def test_the_table_of_all_kinds_fits_into_sixty_columns() -> None:
    """A name of a verdict that is cut cannot be looked up in the documents."""
    kinds = {case.id.split("/")[0] for case in cases_of(all_problems())}
    assert len(kinds) == 5
    results = [
        Result(case(f"{kind}/x"), verdict, 0.5, 1.0, "")
        for kind in kinds
        for verdict in VERDICTS
        for _ in range(1000)
    ]
    text = io.StringIO()
    print_summary("somebody", results, Console(file=text, width=60))
    table = text.getvalue().splitlines()[:8]
    assert [line[:21].strip() for line in table] == ["cases", *VERDICTS]
    assert max(map(len, table)) <= 60


def test_a_summary_of_nothing_says_so() -> None:
    text = io.StringIO()
    print_summary("somebody", [], Console(file=text, width=80))
    assert "no case was run" in text.getvalue()
