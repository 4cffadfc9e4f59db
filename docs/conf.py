"""The site of the documents: `python -m sphinx -W docs OUT`, with the extra `docs` installed."""

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "GANs across frameworks"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "The same GAN in PyTorch, TensorFlow 2 and JAX"
html_static_path = ["site/static"]
html_css_files = ["columns.css"]
html_js_files = ["columns.js"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_math_renderer = "mathml"
myst_heading_anchors = 4
myst_fence_as_directive = ["math"]
myst_enable_extensions = ["dollarmath"]
# Anchors that are HTML, as the rows of porting.md are; tests/docs/test_site.py follows every link.
suppress_warnings = ["myst.xref_missing"]
default_role = "literal"
autodoc_member_order = "bysource"
# Names, signs and blanks keep the colour of the text; without their tags a page is a fifth less.
_PLAIN = re.compile(r'<span class="(?:pre|n|o|p|w)">([^<]*)</span>')
_BENCHMARK = ROOT / "benchmarks" / "results" / "cpu-jax-fp32-batch64.json"


def _math(writer: Any, node: Any, display: str) -> None:
    writer.body.append(convert(node.astext(), display=display))
    raise SkipNode


def _docstring(_app: Any, _what: str, _name: str, _of: Any, _options: Any, lines: list) -> None:
    """Take a docstring as plain text, its tables as they are; `default_role` makes code of `x`."""
    escaped = [re.sub(r"([*|\\_])", r"\\\1", line) for line in lines]
    lines[:] = ["| " + line if line.startswith("    ") else line for line in escaped]


def _finish(app: Any, error: Exception | None) -> None:
    """Make pictures small, leave out what no reader needs, add a benchmark's page and a report."""
    if error or app.builder.name != "html":
        return
    from benchmarks.show import page
    from shared.report.__main__ import make_page
    from shared.report.runs import read_runs

    out = Path(app.outdir)
    pictures = list((out / "_images").glob("*.png"))
    for path in pictures:
        image = Image.open(path).convert("RGB")
        image.thumbnail((800, 2000))  # wider than the column of text
        image.save(path.with_suffix(".webp"), quality=36, method=6)
    for path in out.rglob("*.html"):
        text = path.read_text("utf-8")
        text = _PLAIN.sub(r"\1", re.sub(r"(_images/[\w-]+)\.png", r"\1.webp", text))
        path.write_text(text, "utf-8")
    folder = out / "benchmark"
    folder.mkdir(exist_ok=True)
    page.write(folder, json.loads(_BENCHMARK.read_text("utf-8")))
    runs = read_runs(sorted((ROOT / "docs" / "examples" / "runs").iterdir()))
    (out / "report.html").write_text(make_page(runs, "python -m shared.report runs/*"), "utf-8")
    for path in [*pictures, *out.rglob("*.map"), *folder.glob("*.png")]:
        path.unlink()


def setup(app: Any) -> None:
    """Register what stands in this folder."""
    from docs.site.columns import Columns, Traps

    app.add_directive("columns", Columns)
    app.add_directive("traps", Traps)
    inline, block = (partial(_math, display=display) for display in ("inline", "block"))
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("build-finished", _finish)
