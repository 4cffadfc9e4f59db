"""What a run says, and where: terminals, logs, pipes that close, locales without Unicode."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from shared.files.checkpoint import read_checkpoint
from shared.run import console
from tests import ROOT
from tests.run.stand_in_run import loss_rows, names

pytestmark = pytest.mark.usefixtures("quick_sample_quality")

# The command with the stand-in in the place of a framework. A line for every ten steps, and a
# pause after each step in which a test can act.
PROGRAM = """
import sys, time
from shared.run import display
from shared.run.command import run_training
from tests.run.stand_in_run import fit

def slowly(step, metrics):
    time.sleep(0.005)
    return metrics

display.SECONDS_BETWEEN_LINES = 0
sys.exit(run_training("jax", lambda options: fit(options, slowly)))
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
ESCAPE = "\x1b"


def arguments(data, out, *extra):
    small = ("--width", "1", "--batch-size", "2", "--data", data, "--out", out)
    return [sys.executable, "-c", PROGRAM, *map(str, (*small, *extra))]


def environment(**settings):
    """Return the environment without what decides how to show progress."""
    removed = ("CI", "FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    return {k: v for k, v in os.environ.items() if k not in removed} | settings


def run(command, **settings):
    """Run a command to its end and return it."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


def in_a_shell(command, tail):
    """Run a command in a pipe; exit with its own code."""
    script = f'"$@" {tail}; exit "${{PIPESTATUS[0]}}"'
    return run(["bash", "-c", script, "bash", *command])


# --- readers that go away --------------------------------------------------------------------


def test_a_closed_pipe_stops_the_run_with_a_checkpoint(data, tmp_path):
    out = tmp_path / "run"
    done = in_a_shell(arguments(data, out), "| head -1")
    assert done.returncode == 141
    assert done.stdout.count("\n") == 1
    said = re.fullmatch(
        r"python -m jax_impl.train: the output cannot be written any more: stopped after step "
        rf"(\d+) of 600; go on with --resume --out {out}\n",
        done.stderr,
    )
    assert said, done.stderr
    last = names(out / "checkpoints")[-1]
    assert read_checkpoint(out / "checkpoints" / last).progress["step"] == int(said[1])
    assert loss_rows(out)[-1][0] == said[1]
    again = run(arguments(data, out, "--resume", "--steps", "40"))
    assert again.returncode == 0, again.stderr
    assert loss_rows(out)[-1][0] == "40"


def test_when_nobody_reads_the_errors_either_there_is_no_traceback(data, tmp_path):
    done = in_a_shell(arguments(data, tmp_path / "run"), "2>&1 | head -1")
    assert (done.returncode, done.stderr) == (141, "")
    assert done.stdout.startswith("system ")
    assert len(names(tmp_path / "run" / "checkpoints")) == 1


def test_help_into_a_pipe_that_closes(data, tmp_path):
    done = in_a_shell(arguments(data, tmp_path, "--help"), "| head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "usage: python -m jax_impl.train [options]\n"


@pytest.mark.parametrize("tail", [">/dev/full", ">&-"], ids=["full disk", "no stdout"])
def test_output_that_cannot_be_written(data, tmp_path, tail):
    done = in_a_shell(arguments(data, tmp_path / "run", "--steps", "30"), tail)
    expected = 141 if "full" in tail else 0
    assert done.returncode == expected, done.stderr
    assert ("the output cannot be written any more" in done.stderr) is (expected == 141)
    assert "Traceback" not in done.stderr
    assert len(names(tmp_path / "run" / "checkpoints")) == 1


def test_sigterm_saves_the_run(data, tmp_path):
    out = tmp_path / "run"
    session = subprocess.Popen(
        arguments(data, out),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in session.stdout:
        if line.startswith("step 10/600"):
            session.send_signal(signal.SIGTERM)
            break
    _, errors = session.communicate(timeout=60)
    assert session.returncode == 143
    said = re.search(r"terminated after step (\d+) of 600; go on with --resume", errors)
    assert names(out / "checkpoints") == [f"step_{int(said[1]):06d}.safetensors"]
    assert "stopping after this step; SIGTERM again stops at once" in errors


# --- locales ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_character_is_too_much_for_an_ascii_stream(data, tmp_path):
    out = tmp_path / "Läufe mit Leerzeichen"
    done = run(arguments(data, out, "--steps", "3"), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"L\xe4ufe mit Leerzeichen" in done.stdout
    other = arguments(data, tmp_path / "other", "--data", "Bilder/ä漢")
    wrong = run(other, PYTHONIOENCODING="ascii")
    assert wrong.returncode == 2
    assert r"Bilder/\xe4\u6f22 does not exist" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--help", "--steps=x", "--batch-size=1", "--config=ä"])
def test_our_own_words_are_ascii(data, tmp_path, option):
    done = run(arguments(data, tmp_path / "run", option), **ASCII)
    assert done.returncode == (0 if option == "--help" else 2), done.stderr
    assert "\\" not in re.sub(r"cannot be read|\S*(\\x|\\udc)\S*", "", done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_names_beyond_ascii_in_a_locale_of_ascii(data, tmp_path):
    pictures = tmp_path / "Bilder ü 漢字.npz"
    pictures.write_bytes(data.read_bytes())
    out = tmp_path / "Läufe 漢字"
    for extra in ((), ("--resume",)):
        steps = ("--steps", "4" if extra else "3")
        done = run(arguments(pictures, out, *steps, *extra), **ASCII)
        assert (done.returncode, done.stderr) == (0, "")
    assert loss_rows(out)[-1][0] == "4"
    assert "config.toml" in names(out)


# --- logs and terminals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1", "CI": "true"}], ids=str
)
def test_a_log_has_plain_lines(data, tmp_path, settings):
    done = run(arguments(data, tmp_path / "run", "--steps", "40"), **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert ESCAPE not in done.stdout
    assert "\r" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["10/40", "20/40", "30/40", "40/40"]
    assert all(re.search(r"D \S+  G \S+  SWD \d+  [\d,]+ img/s", line) for line in lines[:-1])
    # The last grid is made after it, so that a distance here would not be that of the end.
    assert re.search(r"D \S+  G \S+  [\d,]+ img/s", lines[-1])
    assert all(re.search(r"  0:0\d:\d\d left$", line) for line in lines[:-1])
    assert "left" not in lines[-1]


def on_a_terminal(command, **settings):
    """Run a command whose stdout and stderr are a terminal; return its exit code and its output."""
    ours, theirs = pty.openpty()
    session = subprocess.Popen(
        command, cwd=ROOT, env=environment(**settings), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    pieces = []
    with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    os.close(ours)
    return session.wait(timeout=60), b"".join(pieces).decode()


def test_a_terminal_has_a_bar(data, tmp_path):
    code, shown = on_a_terminal(arguments(data, tmp_path / "run", "--steps", "40"), TERM="xterm")
    assert code == 0
    assert ESCAPE in shown
    assert "━" in shown
    assert "40/40" in shown
    assert "step 40/40" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"TERM": "dumb"}, {"TERM": "xterm", "CI": "1"}], ids=str)
def test_a_terminal_that_is_none_has_lines(data, tmp_path, settings):
    code, shown = on_a_terminal(arguments(data, tmp_path / "run", "--steps", "40"), **settings)
    assert code == 0
    assert ESCAPE not in shown
    assert "step 40/40" in shown


def test_a_folder_that_is_only_read_is_left_as_it_is(data, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "images.npz").write_bytes(data.read_bytes())
    (folder / "images.npz").chmod(0o444)
    folder.chmod(0o555)
    before = folder.stat().st_mtime_ns
    done = run(arguments(folder / "images.npz", tmp_path / "run", "--steps", "3"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (names(folder), folder.stat().st_mtime_ns) == (["images.npz"], before)


def test_what_libraries_say_is_hidden_unless_they_fail(capfd):
    with console.hidden_stderr():
        os.write(2, b"a note of a library\n")
    assert capfd.readouterr().err == ""

    def fail():
        with console.hidden_stderr():
            os.write(2, b"why it failed\n")
            raise ImportError("no")

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "why it failed\n"
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"
