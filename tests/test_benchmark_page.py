"""The page of a run: whole, self-contained, and right about what failed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from benchmarks import page, plots
from tests.benchmark_documents import make_document

ARGUMENTS = ["--framework", "all", "--batch-size", "8", "16", "--baselines", "--aa"]
VOID = {"meta", "img", "br"}


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
    assert len(checker.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in checker.sources)
    assert "http" not in re.sub(r'"data:[^"]*"', "", text)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html"] + [".png"] * 4


def test_page_has_the_verdict_the_tables_and_the_settings(found, tmp_path):
    text = page.write(tmp_path, found).read_text()
    assert "jax batch 16 at 70.3 img/s" in text
    assert "Matched: float32, batch 16, cpu, threads 1" in text
    assert "Noise floor" in text
    names = re.findall(r"<td class=text>((?:pytorch|tf|jax)[^<]*)</td>", text)
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
    assert "<img" not in text


def test_plots_are_pictures_of_a_legible_size(found):
    images = plots.draw(found)
    assert set(images) == set(page.CAPTIONS)
    for content in images.values():
        assert content.startswith(b"\x89PNG")
        width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
        assert 900 < width < 1400
        assert 300 < height < 4000
