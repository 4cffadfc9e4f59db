"""`python -m shared.report`: what the page says and shows, read back by a parser of its own.

The runs are written by what training writes them with, `RunFolder` and `RunRecords`.
"""

import base64
import io
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.interface import METRIC_NAMES
from shared.run.folder import RunFolder
from shared.run.options import TrainingOptions
from shared.run.training import TrainingRun
from tests import ROOT
from tests.report.pages import SPEC, VERSIONS, Element, figures, plots, report, rows_of, write_run


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / name, framework=name, seed=3) for name in VERSIONS]


# --- the page as a file ------------------------------------------------------------------------


def test_page_fetches_nothing_and_runs_only_its_own_script(three: list[Path]) -> None:
    page = report(*three)
    for part in (page, *plots(page).values()):
        require_own_links(part)
    assert not page.all("link")
    (style,) = page.all("style")
    assert not re.search(r"url\(|@import", style.text)
    (script,) = page.all("script")
    assert not re.search("fetch|import|http", script.text)


def require_own_links(page: Element) -> None:
    ids = [element["id"] for element in page.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for element in page.all():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), name
            if name == "src":
                assert re.match(r"data:image/(webp;base64|svg\+xml),", value or "")
                continue
            if name in ("href", "xlink:href"):
                assert (value or "#")[1:] in ids
            for target in re.findall(r"url\((.*?)\)", value or ""):
                assert target.removeprefix("#") in ids


def test_colours_of_the_lines_are_readable_in_light_and_dark(three: list[Path]) -> None:
    """WCAG 2.1 asks 3:1 of graphics; in the dark the page inverts lines, text and axes."""
    page = report(*three)
    style = page.all("style")[0].text
    light, dark = re.findall(r"--ground: (#\w+)", style)
    found = {line["stroke"] for line in page.all("line")}
    assert len(found) == 3
    for colour in found:
        assert contrast(colour, light) > 3
        assert contrast(inverted(colour), dark) > 3
    assert ".plot, .legend svg, th svg { filter: invert(1) hue-rotate(180deg); }" in style
    assert contrast(inverted("#000000"), dark) > 4.5
    for panel in plots(page).values():
        colours = re.findall(r"(?:fill|stroke): ?(#\w+)", " ".join(map(str, styles(panel))))
        assert set(colours) - found == {"#000000"} | ({"#808080"} & set(colours))


def styles(panel: Element) -> list[str]:
    return [element["style"] for element in panel.all() if "style" in element.attributes]


def inverted(colour: str) -> str:
    """Return what `invert(1) hue-rotate(180deg)` makes of a colour: Filter Effects, section 8."""
    luma = np.array([0.213, 0.715, 0.072])
    turned = 2 * np.ones((3, 1)) * luma - np.eye(3)  # at 180 degrees the cosine is -1, the sine 0
    parts = 255 - np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return "#" + "".join(f"{round(part):02x}" for part in (turned @ parts).clip(0, 255))


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_everything_is_escaped(tmp_path: Path) -> None:
    name = "<b>&amp; \"two\" 'words' 🐉 $x_1$"
    hostile = "</td><script>alert(1)</script>"
    page = report(write_run(tmp_path / name, dataset=hostile, device=hostile, platform="\x1b[31m"))
    assert page.all("title")[0].text == f"Training: {name}"
    assert page.all("h1")[0].text == f"Training: {name}"
    assert figures(page)[0].all("figcaption")[0].text == f"{name}: step 12"
    assert figures(page)[0].all("img")[0]["alt"] == f"{name}: samples after 0 steps"
    assert rows_of(page.all("table")[0])["data"] == [hostile]
    assert rows_of(page.all("table")[0])["environment"] == ["Python 3.11.7, \\x1b[31m"]
    assert not page.all("b")
    assert len(page.all("script")) == 1


def test_the_templates_are_part_of_an_installed_package() -> None:
    root = ROOT
    configuration = tomllib.loads((root / "pyproject.toml").read_text())
    data = configuration["tool"]["setuptools"]["package-data"]
    for package, folder in (("shared", "report/templates"), ("benchmarks", "show/templates")):
        files = set((root / package / folder).iterdir())
        assert files
        assert files <= {
            file for pattern in data[package] for file in (root / package).glob(pattern)
        }


# --- samples -----------------------------------------------------------------------------------


def grey(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("L"), float)


def test_every_run_has_its_grids_and_shows_the_last(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", sample_every=6, seed=1)]
    page = report(*runs)
    for figure, run, steps in zip(figures(page), runs, ([0, 4, 8, 12], [0, 6, 12]), strict=True):
        images = figure.all("img")
        assert [int(image["data-step"]) for image in images] == steps
        for image, step in zip(images, steps, strict=True):
            shown = grey(base64.b64decode(image["src"].split(",")[1], validate=True))
            saved = grey((run / "samples" / f"step_{step:06d}.png").read_bytes())
            assert np.sqrt(np.mean((shown - saved) ** 2)) < 4  # of 255; of random pixels
            assert (image["width"], image["height"]) == ("6", "6")
            assert ("hidden" in image.attributes) == (step != 12)
    slider = page.all("div", id="slider")[0]
    assert slider["data-steps"] == "0 4 6 8 12"
    assert "hidden" in slider.attributes  # until the script shows it
    (range_,) = slider.all("input")
    assert (range_["type"], range_["min"], range_["max"], range_["value"]) == (
        "range", "0", "4", "4",
    )  # fmt: skip
    assert slider.all("label")[0]["for"] == range_["id"]


# --- words and tables --------------------------------------------------------------------------


def test_headline_of_every_run(three: list[Path]) -> None:
    page = report(*three)
    rows = rows_of(page.all("table")[0])
    assert rows["framework"] == ["pytorch", "tf", "jax"]
    assert rows["versions"][0] == "torch 2.13.0, numpy 2.4.6"
    assert rows["system"] == ["mlp28, width 8"] * 3
    assert rows["loss"] == ["bce_probs"] * 3
    assert rows["seed"] == ["3"] * 3
    assert rows["steps"] == ["12 of 12"] * 3
    rates = [SPEC.generator_optimizer.learning_rate, SPEC.discriminator_optimizer.learning_rate]
    assert rows["learning rates"][0] == f"generator {rates[0]}, discriminator {rates[1]}"
    assert rows["device"] == ["cpu"] * 3
    assert rows["environment"][0] == "Python 3.11.7, Linux"
    assert rows["duration"] == ["0:00:18"] * 3
    words = page.of_class("verdict")[0].text
    assert words == (
        "The runs differ in implementation (pytorch, tf, jax). "
        "All else of system, options and data is the same."
    )


def test_a_loss_that_is_no_text_is_compared_as_it_is(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]
    description = runs[1] / "run.json"
    description.write_text(description.read_text().replace('"bce_probs"', '["bce_probs"]'))
    assert "The runs have different losses" in report(*runs).text


def test_different_data_are_reported(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", dataset="5 images from x")]
    page = report(*runs)
    words = "The runs differ in dataset (4 images from photos, 5 images from x)."
    assert page.of_class("verdict")[0].text.startswith(words)
    assert "The runs have different data, so their values cannot be compared." in page.text
    same = report(runs[0], write_run(tmp_path / "c"))
    words = "System, options and data are the same in all runs."
    assert same.of_class("verdict")[0].text == words
    assert "cannot be compared" not in same.text


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("/home/a/photos", None), "photos, default"),
        (("/home/a/photos", "/home/b/photos"), "a/photos, b/photos"),
    ],
)
def test_the_headline_has_no_null_and_no_absolute_path(
    tmp_path: Path, folders: tuple[str | None, str | None], words: str
) -> None:
    runs = []
    for name, data in zip("ab", folders, strict=True):
        options = {"implementation": "jax", "steps": 12, "out": "x", "data": data, "mode": None}
        runs.append(write_run(tmp_path / name, options=options))
    said = report(*runs).of_class("verdict")[0].text
    assert said == (
        f"The runs differ in data ({words}). All else of system, options and data is the same."
    )
    table = rows_of(report(*runs).all("table")[-1])
    assert table["data"] == ["default" if folder is None else folder for folder in folders]
    assert table["mode"] == ["default", "default"]


def test_settings_that_differ_are_marked_and_no_others(tmp_path: Path) -> None:
    other = SPEC.replace(loss="lsgan", discriminator_steps=2)
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", framework="tf", spec=other, python="3.12.1"),
    ]
    page = report(*runs)
    marked = {row.all("th")[0].text for row in page.of_class("differs")}
    assert marked == {"loss", "discriminator_steps", "implementation", "out", "python"}
    table = rows_of(page.all("table")[-1])
    assert table["loss"] == ["bce_probs", "lsgan"]
    assert table["discriminator_steps"] == ["1", "2"]
    assert table["torch"] == ["2.13.0", "—"]  # a package that only one has is no difference
    assert table["generator_optimizer.beta1"] == ["0.5", "0.5"]
    assert set(SPEC.to_dict()) - {"generator_optimizer", "discriminator_optimizer"} < set(table)
    assert "5 of" in page.text
    assert "The runs have different losses" in page.text
    assert not report(runs[0]).of_class("differs")


def test_a_run_of_several_sessions_says_what_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=8)
    later = {"implementation": "jax", "steps": 8, "seed": 0, "out": str(run)}
    versions = {"jax": "0.10"}
    session = {"start": 4, "options": later, "device": "cpu:0", "versions": versions}
    RunFolder(run).add_session(SPEC.to_dict(), session)
    page = report(run)
    rows = rows_of(page.all("table")[0])
    assert rows["framework"] == ["pytorch → jax"]
    assert rows["device"] == ["cpu → cpu:0"]
    assert "In 2 sessions: pytorch from step 0, jax from step 4." in page.text


def test_quality_table_holds_the_values_of_the_file(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", sample_every=6)]
    page = report(*runs)
    short, long = (rows_of(table) for table in page.all("table")[1:3])
    assert short == {
        "first": ["100.0 (step 0)"] * 2,
        "best": ["7.7 (step 12)"] * 2,
        "last": ["7.7 (step 12)"] * 2,
    }
    assert long == {
        "0": ["100.0", "100.0"],
        "4": ["20.0", ""],
        "6": ["", "14.3"],
        "8": ["11.1", ""],
        "12": ["7.7", "7.7"],
    }
    assert "open" in page.all("details")[0].attributes


def test_a_run_that_training_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole folder is `TrainingRun`'s, so the page follows what that writes.

    Data are recorded where they are: config.toml, from which a run is resumed, has whole paths, and
    its later sessions would have other data than the first.
    """
    monkeypatch.chdir(tmp_path)
    data = Path("images.npz")
    np.savez(data, images=np.random.default_rng(0).integers(0, 256, (10, 28, 28, 1), np.uint8))
    options = TrainingOptions(
        implementation="jax", spec=SPEC, data=data, steps=3, seed=5, out=tmp_path / "run",
        resume=False, device="cpu", dtype="float32", checkpoint_every=9, sample_every=2,
        tensorboard=False,
    )  # fmt: skip
    with TrainingRun(options, device="cpu:0", versions={"jax": "0.10.2"}) as run:
        images = np.random.default_rng(1).uniform(*SPEC.image_range, (64, 28, 28, 1))
        run.save_samples(-1, images)
        for step in run.remaining_steps():
            run.record(step, dict.fromkeys(METRIC_NAMES, 0.5))
            if run.sample_due(step):
                run.save_samples(step, images)
    page = report(options.out)
    rows = rows_of(page.all("table")[0])
    assert rows["steps"] == ["3 of 3"]
    assert rows["framework"] == ["jax"]
    assert rows["dtype"] == ["float32"]
    assert rows["data"] == ["10 images from images.npz"]
    assert [int(i["data-step"]) for i in figures(page)[0].all("img")] == [0, 2, 3]
    assert "—" not in "".join(text for row in rows.values() for text in row)
    (session,) = RunFolder(options.out).sessions()
    assert session["options"]["data"] == str(tmp_path / data)
