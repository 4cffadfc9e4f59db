"""Runs to report on, and a parser of its own that reads the page back."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from shared.interface import METRIC_NAMES
from shared.report.__main__ import main
from shared.run.folder import RunFolder, RunRecords
from shared.run.pictures import save_png
from shared.spec import SYSTEMS, SystemSpec

VOID = {"meta", "img", "br", "input", "link"}
SPEC = SYSTEMS["mlp28"].replace(width=8, batch_size=4)
VERSIONS = {"pytorch": {"torch": "2.13.0"}, "tf": {"tensorflow": "2.21.0"}, "jax": {"jax": "0.10"}}


class Element:
    """An element of a page: its name, attributes, parts in order and text, nested text included."""

    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes = tag, attributes
        self.parts: list[Element | str] = []

    def __getitem__(self, name: str) -> str:
        return self.attributes[name] or ""

    @property
    def classes(self) -> list[str]:
        return (self.attributes.get("class") or "").split()

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def all(self, tag: str | None = None, **attributes: str) -> list[Element]:
        found = []
        for part in self.parts:
            if isinstance(part, Element):
                fits = all(part.attributes.get(name) == text for name, text in attributes.items())
                found += [part] if fits and tag in (None, part.tag) else []
                found += part.all(tag, **attributes)
        return found

    def of_class(self, name: str) -> list[Element]:
        return [element for element in self.all() if name in element.classes]


class Reader(HTMLParser):
    """Builds the elements; an end that does not match its start is an AssertionError."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), attrs
        element = Element(tag, dict(attrs))
        self.open[-1].parts.append(element)
        self.open += [] if tag in VOID else [element]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].parts.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def read_page(path: Path) -> Element:
    """Read a page; a tag that is left open is an AssertionError."""
    return parsed(path.read_text(encoding="utf-8"))


def plots(page: Element) -> dict[str, Element]:
    """Return the plots of a page by their names, each read out of its picture."""
    start = "data:image/svg+xml,"
    pictures = [image for image in page.of_class("plot") if image["src"].startswith(start)]
    return {image["alt"]: parsed(unquote(image["src"].removeprefix(start))) for image in pictures}


def parsed(text: str) -> Element:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1
    return reader.open[0]


def write_run(
    path: Path,
    *,
    steps: int = 12,
    sample_every: int = 4,
    framework: str = "pytorch",
    spec: SystemSpec = SPEC,
    seed: int = 0,
    **session: Any,
) -> Path:
    """Write a run of random losses, grids of 6x6 pixels and distances; returns its folder."""
    folder, draw = RunFolder(path), np.random.default_rng(seed)
    folder.create()
    recorded = {
        "start": 0,
        "options": {"implementation": framework, "steps": steps, "seed": seed, "out": str(path)},
        "dataset": "4 images from photos",
        "device": "cpu",
        "versions": {**VERSIONS[framework], "numpy": "2.4.6"},
        "python": "3.11.7",
        "platform": "Linux",
    }
    folder.add_session(spec.to_dict(), {**recorded, **session})
    records = RunRecords(folder, 0, tensorboard=False)
    for step in range(steps + 1):
        if step:
            losses = dict(zip(METRIC_NAMES, draw.normal(1.0, 0.5, 4).tolist(), strict=True))
            records.add_losses(step, losses, step * 1.5)
        if step % sample_every == 0:
            save_png(folder.sample(step), draw.integers(0, 256, (6, 6, 1), dtype=np.uint8))
            records.add_samples(step, folder.sample(step), 100.0 / (step + 1))
    records.close()
    return path


def report(*runs: Path) -> Element:
    """Return the page about these runs, made beside the first of them."""
    out = runs[0].parent / "page.html"
    assert main([*map(str, runs), "--out", str(out)]) == 0
    return read_page(out)


def column(path: Path, name: str) -> np.ndarray:
    with open(path, newline="") as file:
        return np.array([float(row[name]) for row in csv.DictReader(file)])


def rows_of(table: Element) -> dict[str, list[str]]:
    """Return the rows of a table's body by what stands at their head."""
    body = table.all("tbody")[0]
    return {row.all("th")[0].text: [c.text for c in row.all("td")] for row in body.all("tr")}


def figures(page: Element) -> list[Element]:
    return [figure for figure in page.all("figure") if "grid" in figure.classes]
