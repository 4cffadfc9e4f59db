"""What the silent parts of commands show: a bar on a terminal, plain lines anywhere else."""

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from shared import sample
from shared.conformance.__main__ import main as conformance
from shared.convert.__main__ import main as convert
from shared.run import console, display
from shared.run.console import shown_progress
from shared.studies import equilibrium, evaluate, trajectory
from tests.studies.evaluated_run import trained_arrays, write_data, write_run
from tests.studies.test_trajectory import write_port

LONG = "reading [b]generator_of_my_best_run_with_a_long_name.safetensors"


@pytest.fixture
def impatient(monkeypatch):
    """Show progress at once, and a line every 30 ms."""
    monkeypatch.setattr(console, "SECONDS_WITHOUT_PROGRESS", 0.0)
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.03)


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def frames(self):
        """Return every line that was shown, without the movements of the cursor."""
        plain = Text.from_ansi(re.sub(r"\x1b\[\??\d*[lhAK]|\x1b\[2K", "", self.getvalue()))
        return [line.rstrip() for line in plain.plain.splitlines() if line.strip()]


@pytest.fixture
def terminal(monkeypatch):
    """Return a function: a width → a terminal that wide, on which progress is shown."""

    def make(width):
        shown = Terminal()
        settings = {"force_terminal": True, "width": width, "_environ": {"TERM": "xterm"}}
        for module in (console, display):
            monkeypatch.setattr(module, "Console", lambda **_: Console(file=shown, **settings))
        return shown

    monkeypatch.delenv("CI", raising=False)
    return make


def test_a_log_has_plain_lines(impatient, capfd):
    with shown_progress("images", 1500) as advance:
        advance(1200)
        time.sleep(0.1)
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert 2 <= len(lines) <= 5
    assert lines[-1] == "images: 1,200 of 1,500, 0 s"


def test_what_a_file_is_called_reaches_no_terminal_raw(impatient, capfd):
    with shown_progress("net\x1b[31mG.pth, written", 1):
        time.sleep(0.02)
    assert capfd.readouterr().err.splitlines()[0] == r"net\x1b[31mG.pth, written: 0 of 1, 0 s"


def test_a_quick_block_says_nothing(capfd):
    with shown_progress("images", 2) as advance:
        advance(2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("width", [60, 80])
def test_a_bar_fits_the_terminal_and_goes_away(impatient, terminal, capfd, width):
    shown = terminal(width)
    with shown_progress(LONG, 20000) as advance:
        advance(15000)
        time.sleep(0.15)
        print("a result")
    assert capfd.readouterr().out == "a result\n"
    frames = shown.frames()
    assert frames
    assert all(len(frame) <= width for frame in frames), frames
    assert re.search(r"━ 15000/20000 reading \[b\]generator.*… 0:00:00$", frames[-1])
    # Nothing stays, and the cursor is back.
    assert shown.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_a_ci_with_a_terminal_has_lines(impatient, terminal, monkeypatch, capfd):
    monkeypatch.setenv("CI", "true")
    shown = terminal(80)
    with shown_progress("images", 2):
        time.sleep(0.02)
    assert shown.getvalue() == ""
    assert "images: 0 of 2, 0 s" in capfd.readouterr().err


def test_an_error_ends_the_bar(impatient, terminal):
    shown = terminal(80)

    def read():
        with shown_progress("images", 2):
            time.sleep(0.02)
            raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        read()
    length = len(shown.getvalue())
    time.sleep(0.15)
    assert len(shown.getvalue()) == length


def run_of(tmp_path: Path) -> tuple[str, ...]:
    run = write_run(tmp_path / "run", trained_arrays(dtype="float64"))
    return str(run), "--data", str(write_data(tmp_path / "images.npz")), "--samples", "4"


def checkpoint(tmp_path: Path) -> str:
    (path,) = (write_run(tmp_path / "run") / "checkpoints").iterdir()
    return str(path)


def two_ports(tmp_path: Path) -> tuple[str, str]:
    write_port(tmp_path / "port_of_progress.py", "")
    return "reference", "port_of_progress"


COMMANDS = {
    "evaluate": (
        evaluate.main,
        lambda path: (*run_of(path), "--framework", "reference"),
        ("generated images: 0 of 8", "distances: 0 of 3"),
    ),
    "trajectory": (
        trajectory.main,
        lambda path: (*two_ports(path), "--width=1", "--steps=2"),
        ("steps of reference, ",),
    ),
    "equilibrium": (
        equilibrium.main,
        lambda _: ("reference", "--loss=bce", "--steps=5"),
        ("discriminators: 0 of 1",),
    ),
    "conformance": (
        conformance,
        lambda _: ("tests.conformance.reference", "--select", "loss/bce/*/float64/*"),
        ("problems of tests.conformance.reference: 0 of ",),
    ),
    "convert": (
        convert,
        lambda path: (checkpoint(path), str(path / "b.safetensors")),
        ("files read: 0 of 1", "b.safetensors, written and checked: 0 of 1"),
    ),
    "sample": (
        sample.main,
        lambda path: (checkpoint(path), "--framework=reference", "--count=65",
                      "--out", str(path / "out")),
        ("images: 0 of 65",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_show_their_progress(impatient, tmp_path, monkeypatch, capfd, name):
    monkeypatch.syspath_prepend(tmp_path)
    main, arguments, expected = COMMANDS[name]
    assert main(arguments(tmp_path)) in (0, 1)
    shown = capfd.readouterr().err
    assert "\x1b" not in shown
    assert "\r" not in shown
    lines = shown.splitlines()
    for start in expected:
        assert any(line.startswith(start) for line in lines), lines


# --- the bar of training ---------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80])
def test_the_numbers_of_training_are_whole(terminal, width):
    shown = terminal(width)
    bar = display.Display(0, 20000, 32)
    bar.start()
    bar.advance(7000)
    bar.losses(7000, {"discriminator_loss": 0.5, "generator_loss": 14.621}, 275.0)
    bar.stop()
    last = shown.frames()[-1]
    assert len(last) <= width
    assert re.search(r"7000/20000 D 0\.500  G 14\.621  SWD 275  .* (-|\d):[-\d:]+$", last), last


def test_a_distance_that_there_is_not_is_not_shown(monkeypatch, capsys):
    monkeypatch.setattr(display, "SECONDS_BETWEEN_LINES", 0.0)
    bar = display.Display(0, 20, 32)
    bar.start()
    for distance, words in ((float("nan"), "G 1.000  [0-9]"), (8.0, "G 1.000  SWD 8  [0-9]")):
        bar.losses(10, {"discriminator_loss": 0.5, "generator_loss": 1.0}, distance)
        assert re.search(words, capsys.readouterr().out)
