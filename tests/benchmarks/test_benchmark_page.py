"""The page of a run: whole, self-contained, and right about what failed."""

import io
import itertools
import re
from html.parser import HTMLParser
from importlib import resources
from urllib.parse import unquote

import pytest

from benchmarks.show import page, tables
from shared.report.page import saved
from tests.benchmarks.documents import make_document
from tests.browser import measured

ARGUMENTS = ["--framework", "all", "--batch-size", "8", "16", "--baselines", "--aa"]
VOID = {"meta", "img", "br"}
STYLE = (resources.files("shared.report") / "templates" / "style.css").read_text()


class Checker(HTMLParser):
    """Collects the sources of images and links; raises where tags do not match."""

    def __init__(self):
        super().__init__()
        self.open_tags, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        self.open_tags += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag


def rates(configuration, number):
    base = {"pytorch": 50.0, "tf": 40.0, "jax": 60.0}[configuration.framework]
    base *= 1 + configuration.batch_size / 100
    base *= 0.8 if configuration.implementation == "baseline" else 1.0
    return [base * factor * (1 + number / 50) for factor in (0.98, 1.0, 1.01)]


@pytest.fixture(scope="module")
def found():
    return make_document(ARGUMENTS, rates)


def test_page_is_one_file_that_fetches_nothing(found, tmp_path):
    text = page.write(tmp_path, found).read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open_tags == []
    assert all(source.startswith("data:image/svg+xml,") for source in checker.sources)
    assert len(pictures(text)) == len(checker.sources) == 4
    assert "http" not in re.sub('data:image[^"]*', "", text)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html"] + [".png"] * 4


def test_page_has_the_verdict_the_tables_and_the_settings(found, tmp_path):
    text = page.write(tmp_path, found).read_text()
    assert "jax batch 16 at 70.3 img/s" in text
    assert "Matched: float32, batch 16, cpu, threads 1" in text
    assert "Noise floor" in text
    names = re.findall(r'<th scope="row">((?:pytorch|tf|jax)[^<]*)</th>', text)
    # Within a group its title says the batch size; the table of the best says it in each line.
    group = [f"{n}{kind}{again}" for n in ("pytorch", "tf", "jax") for kind in ("", " baseline")
             for again in ("", " again")]  # fmt: skip
    assert names == [*group, *group, "jax batch 16", "pytorch batch 16", "tf batch 16"]
    for words in ("channels_last", "GFLOP/s", "numpy 2", found["host"]["cpu"]):
        assert words in text


def test_page_of_a_run_without_numbers_says_why(tmp_path):
    def fail(configuration, number):
        return {
            "rates": [1.0, 1.0], "status": "oom", "error": "<b>no</b> memory", "warm_up": None,
            "windows": [], "latency_ms": [],
        }  # fmt: skip

    document = make_document(["--framework", "jax", "--rounds", "1"], fail)
    text = page.write(tmp_path, document).read_text()
    assert "jax: oom: &lt;b&gt;no&lt;/b&gt; memory" in text
    assert "No verdict" in text
    assert not pictures(text)


HEADS = """
const heads = [...document.querySelectorAll("thead th")];
const line = parseFloat(getComputedStyle(document.body).lineHeight);
return {count: heads.length, lines: Math.max(...heads.map((head) => head.offsetHeight)) / line};
"""


@pytest.mark.slow
def test_no_word_of_a_tables_head_is_broken_at_400_pixels(found, tmp_path):
    """The longest, "% of GEMM peak", is four words, so that it takes four lines at most."""
    pages = {"page": page.write(tmp_path, found)}
    heads = measured(pages, HEADS, 400, tmp_path / "profile")["page"]
    assert heads["count"] > 10
    assert heads["lines"] < 5


def test_plots_are_pictures_of_a_legible_size(found):
    figures = page.draw(found)
    assert set(figures) == {"throughput", "latency", "time_to_image", "ratios"}
    for figure in figures.values():
        content = saved(figure, "png")
        assert content.startswith(b"\x89PNG")
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        assert 900 < width < 1400
        assert 300 < height < 4000


def test_plots_have_no_ground_and_the_dark_scheme_inverts_them(found, tmp_path):
    text = page.write(tmp_path, found).read_text()
    assert ".plot, .legend svg, th svg { filter: invert(1) hue-rotate(180deg); }" in text
    for picture in pictures(text):
        assert picture.count("<text") > 5
        assert not re.findall(r"(?:fill|stroke): ?(?:#ffffff|white)", picture)


def pictures(text):
    """Return the plots of a page as SVG."""
    found = re.findall(r'<img class="plot" alt="\w+" src="data:image/svg\+xml,(.*?)">', text)
    return [unquote(picture) for picture in found]


def test_lines_differ_and_an_axis_within_a_decade_has_labels():
    found = make_document([*ARGUMENTS[:5], "--devices", "1", "2", "--mode", "eager", "compile",
                           "function", "xla", "jit"], lambda *_: [60.0, 61.0])  # fmt: skip
    (axes,) = page._throughput(found, tables.measured(found)).axes
    # Rooflines have no markers.
    lines = [line for line in axes.get_lines() if line.get_marker() in [*"os^Dv*P<>Xp"]]
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(lines) == len(looks) == 2 * 5
    low, high = axes.get_ylim()
    assert high < 10 * low
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 3


@pytest.mark.parametrize("columns", [80, 200])
def test_framework_and_status_are_whole_in_a_terminal_of_80_columns(columns):
    def unsettled(configuration, number):
        return {"rates": rates(configuration, number), "warm_up": {"settled": False, "windows": []}}

    found = make_document(["--framework", "all", "--baselines"], unsettled)
    console = tables.make_console(file=io.StringIO(), force_terminal=True, width=columns)
    tables.show(found, console)
    text = console.file.getvalue()
    table = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    names = [line[1].strip() for line in table]
    assert names == ["pytorch", "pytorch baseline", "tf", "tf baseline", "jax", "jax baseline"]
    assert {line[-2].strip() for line in table} == {"ok, not settled"}
    assert text.count("#how-to-read-it explains not settled") == 1
    assert ("roofline" in text.split("Roofline of")[0]) == (columns == 200)


# --- dark mode -----------------------------------------------------------------------------------


def colours():
    """Return the colours of the light and of the dark scheme by the names of their variables."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark}


def luminance(colour):
    """Return the relative luminance of WCAG 2.2 of an sRGB colour."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_ground_in_both_schemes(scheme):
    own = colours()[scheme]
    assert (luminance(own["ground"]) < luminance(own["text"])) == (scheme == "dark")
    for text, ground in itertools.product(("text", "quiet", "failed"), ("ground", "band", "mark")):
        low, high = sorted((luminance(own[text]), luminance(own[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)  # WCAG 2.2, level AA


def test_the_dark_scheme_changes_every_colour(found, tmp_path):
    text = page.write(tmp_path, found).read_text()
    assert "color-scheme: light dark;" in text
    assert "@media (prefers-color-scheme: dark)" in text
    schemes = colours()
    assert schemes["light"].keys() == schemes["dark"].keys()
    assert not set(schemes["light"].values()) & set(schemes["dark"].values())
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    used = set(re.findall(r"var\(--([\w-]+)\)", rules))
    assert used == schemes["light"].keys()
    assert re.findall(r"#[0-9a-f]{3,6}", rules) == []  # no colour beside the variables
