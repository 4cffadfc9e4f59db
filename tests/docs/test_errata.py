"""The errata of docs/losses.md: each has an entry and a test, its figures are the measured ones."""

import re
from collections.abc import Callable

import pytest

from tests import ROOT
from tests.docs.errata import FIGURES

DOCUMENT = (ROOT / "docs" / "losses.md").read_text("utf-8")
ENTRY = re.compile(r'^### <a id="erratum-(\d\d)"></a>Erratum (\d+)[ ,].*$', re.MULTILINE)


def entries() -> dict[int, str]:
    """Return the text of every erratum by its number."""
    section = DOCUMENT.split("\n## Errata\n")[1].split("\n## ")[0]
    found = list(ENTRY.finditer(section))
    ends = [match.start() for match in found[1:]] + [len(section)]
    return {int(m[1]): section[m.end() : end] for m, end in zip(found, ends, strict=True)}


def file_of_each_test() -> dict[str, str]:
    """Return the name of the file that every erratum's tests stand in."""
    return {
        name: path.name
        for path in (ROOT / "tests" / "docs").glob("test_errata_*.py")
        for name in re.findall(r"^def (test_erratum_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }


def test_every_erratum_has_an_entry_and_a_test() -> None:
    assert list(entries()) == list(range(1, 16))
    files = file_of_each_test()
    for number, text in entries().items():
        own = [name for name in files if name.startswith(f"test_erratum_{number:02}_")]
        assert own, number
        linked = re.findall(r"`(test_erratum_\w+)`", text)
        assert linked, number
        assert set(linked) <= set(own), number
        for name in linked:
            assert f"[`{name}`](../tests/docs/{files[name]})" in text


@pytest.mark.parametrize(
    ("number", "what"), [(n, what) for n, figures in FIGURES.items() for what in figures]
)
def test_the_figures_of_the_document_are_the_measured_ones(number: int, what: str) -> None:
    measure: Callable[[], float]
    measure, text = FIGURES[number][what]
    digits = len(text.partition(".")[2])
    assert float(measure()) == pytest.approx(float(text), abs=0.5000001 * 10.0**-digits)
    # As a number of its own: 0.3133 is not found in 10.3133 or 0.31330.
    written = text.replace("-", "[-−]")
    assert re.search(rf"(?<![\d.\-−]){written}(?![\d]|\.\d)", entries()[number]), text
