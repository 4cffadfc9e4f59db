"""The site: every function is aligned, every trap has its line, every link leads somewhere."""

import html.parser
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from tests import ROOT
from tests.browser import measured
from tests.docs.test_porting import rows as rows_of_the_guide

pytest.importorskip("sphinx", reason="the site needs the extra docs")
from docs.site import columns
from docs.site.columns import COLUMNS, HEAD, align, likeness, merged_names

MODULES = ("losses", "layers", "models", "state", "train", "checkpoint")
WITHOUT_A_LINE = {
    # The shared streams draw all initial weights.
    "truncated-normal",
    "dense-default-init",
    "nnx-dense-default-init",
    # No line is what is right.
    "adam-weight-decay",
    "adam-decoupled-decay",
    "gradient-clipping",
    # Images come as RGB from the readers.
    "channel-order",
    # Layers that systems of a file alone have.
    "upsample-corners",
    "average-pool-padding",
    "conv-transpose-same",
    "conv-same",
    "rmsprop-epsilon",
    "rmsprop-decay",
}
MOST_BYTES = 3_000_000


def names_of(module: str) -> list[str]:
    return merged_names(list(columns.files_of(module).values()))


@pytest.mark.parametrize("module", MODULES)
def test_every_line_of_a_module_stands_in_its_column_once(module: str) -> None:
    for column in COLUMNS:
        shown: dict[int, str] = {}
        for name in names_of(module):
            found, rows = columns.aligned(module, name)
            if column in found:
                place = list(found).index(column)
                definition = found[column]
                indices = [r[place] for r in rows if r[place] is not None]
                assert indices == list(range(len(definition.lines))), name
                shown |= dict(enumerate(definition.lines, start=definition.start))
        lines = (ROOT / f"{column}_impl" / f"{module}.py").read_text("utf-8").splitlines()
        left = {i: line for i, line in enumerate(lines, start=1) if shown.get(i) != line}
        assert not any(left.values()), left


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_aligned_or_it_is_said_why_not(module: str) -> None:
    files = columns.files_of(module)
    alone = {
        f"{module}.{name}"
        for name in names_of(module)
        if name != HEAD and not name.startswith("_") and any(name not in f for f in files.values())
    }
    said = {name for name in columns.TABLES["alone"] if name.startswith(f"{module}.")}
    assert alone == said


def test_most_lines_of_a_model_are_the_same_in_all_columns() -> None:
    """The alignment finds what the implementations have in common."""
    found, rows = columns.aligned("models", "DCGANDiscriminator")
    least = min(len(definition.lines) for definition in found.values())
    html = columns.table("models", "DCGANDiscriminator")
    assert html.count("<tr class=same>") >= 0.8 * least
    assert len(rows) <= max(len(d.lines) for d in found.values()) + 2


def test_lines_are_paired_by_likeness_and_keep_their_order() -> None:
    one = ("def f(x):", "    y = torch.relu(x)", "    return y")
    other = ("def f(x):", "    # why", "    y = jax.nn.relu(x)", "    return y")
    rows = align([one, other])
    assert rows == [(0, 0), (None, 1), (1, 2), (2, 3)]
    assert likeness(one[0], other[0]) == 1.0
    assert likeness("", "") < 0.1


def test_every_row_of_the_guide_is_marked_on_a_line() -> None:
    assert set(columns.TABLES["marks"]) == set(rows_of_the_guide()) - WITHOUT_A_LINE
    assert {n: t["error"] for n, t in columns.traps().items()} == rows_of_the_guide()


@pytest.mark.parametrize("trap", columns.TABLES["marks"])
def test_a_mark_finds_a_line_in_its_columns(trap: str) -> None:
    for text in columns.TABLES["marks"][trap]:
        mark = columns.MARK.fullmatch(text)
        assert mark, text
        found, _ = columns.aligned(mark["module"], mark["name"])
        matched = {
            column
            for column, definition in found.items()
            if any(re.search(mark["line"], line) for line in definition.lines)
        }
        assert matched, text
        assert mark["column"] in (None, *matched), text


def test_every_public_function_has_its_reference_or_none_is_named() -> None:
    without = {
        f"{m}.{n}" for m, names in columns.TABLES["without_reference"].items() for n in names
    }
    public = {f"{m}.{n}" for m in MODULES for n in names_of(m) if n != HEAD and n[0] != "_"}
    assert public == without | columns.TABLES["reference"].keys()
    assert not without & columns.TABLES["reference"].keys()
    for place in columns.TABLES["reference"]:
        assert len(columns.reference_of(*place.split("."))) >= 3, place


class Page(html.parser.HTMLParser):
    """What a page links to, fetches and offers as anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("link", "script", "img", "iframe", "source"):
            self.fetched += [given[name] for name in ("href", "src") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", folder / "trees"]
    made = subprocess.run(
        [*command, ROOT / "docs", folder / "html"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert made.returncode == 0, made.stderr
    return folder / "html"


@pytest.mark.slow
def test_links_and_anchors_lead_somewhere_and_nothing_is_fetched_from_afar(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links + page.fetched:
            url = urlparse(link)
            if url.scheme:
                assert link in page.links or url.scheme == "data", (path.name, link)
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.exists() or (
                url.fragment and target in pages and url.fragment not in pages[target].anchors
            ):
                broken.append((str(path.relative_to(site)), link))
    assert not broken, broken
    assert sum(p.stat().st_size for p in site.rglob("*") if p.is_file()) <= MOST_BYTES
    documents = {*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*/*.md")}
    assert {site / p.relative_to(ROOT / "docs").with_suffix(".html") for p in documents} <= {*pages}


@pytest.mark.slow
def test_formulas_are_rendered(site: Path) -> None:
    """A text that still has the source of a formula, such as p_g, was not taken for one."""
    page = (site / "losses.html").read_text("utf-8")
    assert page.count("<math") > 40
    text = re.sub(r"<[^>]+>", "", page)
    assert re.findall(r"\b[pl]_\w+|\bD\*|\$|\\\w+", text) == []


MEASURE = """
const shown = (row) => [...row.children].filter((c) => c.offsetWidth > 0);
const tables = [...document.querySelectorAll("table.columns")];
const of = () => tables.flatMap((t) => [...t.tBodies[0].rows].map(shown).filter((r) => r.length));
const first = of().map((row) => row.length);
document.querySelector("input[value=jax]").click();
const then = of().map((row) => row.map((cell) => cell.cellIndex).join("+"));
document.querySelector(".controls input[type=checkbox]").click();
return {first, then, fourth: of().map((row) => row.length), over: overflow()};
"""
# An element that scrolls by itself, as a block of code does, is no overflow of the page.
OVERFLOW = """
const overflow = () => document.documentElement.scrollWidth - innerWidth;
"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "shown"), [(1400, 3), (400, 1)])
def test_a_browser_shows_three_columns_or_tabs_in_step(site: Path, width: int, shown: int) -> None:
    pages = {"page": site / "columns" / "layers.html"}
    profile = site.parent / f"profile-{width}"
    found = measured(pages, OVERFLOW + MEASURE, width, profile)["page"]
    assert set(found["first"]) == {shown}, found
    assert found["over"] <= 0, found
    if shown == 1:
        assert set(found["then"]) == {"2"}, found
    else:
        assert max(found["fourth"]) == 4, found


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone(site: Path) -> None:
    pages = {str(path.relative_to(site)): path for path in site.rglob("*.html")}
    found = measured(pages, f"{OVERFLOW} return {{over: overflow()}}", 400, site.parent / "phone")
    assert {name: one["over"] for name, one in found.items() if one["over"] > 0} == {}
