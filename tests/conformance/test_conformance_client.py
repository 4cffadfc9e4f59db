"""The conformance kit's protocol, the processes that speak it, and the command."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shared.conformance.__main__ import main
from shared.conformance.protocol import (
    ChildSession,
    ProtocolError,
    RequestError,
    decode,
    encode,
    read_line,
    serve_command,
    write_line,
)
from shared.files import child_process
from shared.files.child_process import ChildEndedError
from tests import ROOT, exit_code

HELLO = '{"hello": {"protocol": 1, "name": "odd", "methods": ["loss", "adam"]}}'
SAY_HELLO = f"import os, sys, time\nprint('{HELLO}', flush=True)\n"
FIELDS = ["--select", "loss/bce/point/+0/*", "--select", "adam/fresh/*"]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child imports `shared` and `tests` from here."""
    monkeypatch.chdir(ROOT)


# --- the protocol -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_arrays_come_back_bit_by_bit(dtype: str, shape: tuple) -> None:
    size = int(np.prod(shape))
    array = np.random.default_rng(size).integers(-9, 9, shape).astype(dtype)
    if dtype != "int64" and size:
        special = [np.nan, -np.inf, -0.0, 5e-324, 1 / 3, np.finfo(dtype).max]
        array = np.resize(np.array(special).astype(dtype), shape)
    line = write_line({"a": {"b": array.T}, "n": 3})
    assert line.count(b"\n") == 1
    back = read_line(line)
    assert back["n"] == 3
    received = back["a"]["b"]
    assert (received.dtype, received.shape) == (array.dtype, array.T.shape)
    assert received.tobytes() == np.ascontiguousarray(array.T).tobytes()


def test_the_bytes_are_little_endian() -> None:
    assert encode(np.array([1.0]))["data"] == "AAAAAAAA8D8="
    assert decode({"dtype": "int64", "shape": [], "data": "AgAAAAAAAAA="}) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"dtype": "float16", "shape": [1], "data": "AAA="}, "an array of 'float16'"),
        ({"dtype": [], "shape": [1], "data": "AAA="}, "dtype"),
        (
            {"dtype": "float64", "shape": [2], "data": "AAAAAAAA8D8="},
            "cannot reshape array of size 1",
        ),
        ({"dtype": "float64", "shape": [-1], "data": ""}, "shape [-1] (another"),
        ({"dtype": "float64", "shape": [True], "data": ""}, "shape [True] (another"),
        ({"dtype": "float64", "shape": 1, "data": ""}, "not iterable"),
        ({"dtype": "float64", "shape": [1], "data": "$$$"}, "base64"),
        ({"dtype": "float64", "shape": [1], "data": [1.0]}, "not 'list'"),
    ],
)
def test_a_bad_array_is_refused(value: dict, message: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        decode(value)
    assert message in str(raised.value)


@pytest.mark.parametrize("line", [b"hello\n", b"[1]\n", b"\xff\xfe\n", b"\n"])
def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected"):
        read_line(line)


def test_nan_outside_an_array_is_refused() -> None:
    with pytest.raises(ProtocolError, match="JSON cannot hold"):
        write_line({"x": float("nan")})


# --- processes that misbehave -----------------------------------------------------------------

REQUEST = ("loss", {"real_scores": np.zeros(100_000), "fake_scores": np.zeros(100_000)})


def ask(code: str, time_limit: float = 20.0) -> str:
    """Return why a session with such a program ended at its first request."""
    with ChildSession([sys.executable, "-c", SAY_HELLO + code], time_limit) as session:
        with pytest.raises(ChildEndedError) as raised:
            session.call(*REQUEST)
        with pytest.raises(ChildEndedError) as again:
            session.call(*REQUEST)
        assert str(again.value) == str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("sys.stdin.readline(); sys.exit('no memory left')", "exit status 1; stderr: no memory"),
        ("sys.stdin.readline(); os.kill(os.getpid(), 11)", "ended by SIGSEGV; stderr: empty"),
        (
            "sys.stdin.readline(); print('loading …')",
            "(Expecting value: line 1 column 1 (char 0)), expected a JSON object",
        ),
        ("sys.stdin.readline(); print('[]')", "received '[]' (another value), expected a JSON"),
        (
            'sys.stdin.readline(); print(\'{"id": 7, "result": {}}\')',
            'expected "id": 1 and a "result"',
        ),
        ("sys.stdin.readline(); print('{\"id\": 1}')", "received {'id': 1}, expected"),
        (
            'sys.stdin.readline(); print(\'{"id": 1, "error": 3}\')',
            'or an "error" with a "message"',
        ),
        ("sys.stdin.readline(); print('{', end='')", "the process ended with exit status 0"),
        ("sys.stdin.readline(); os.close(1); time.sleep(60)", "closed its output"),
    ],
)
def test_a_process_that_breaks_off_is_reported(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 0.5)
    assert reason in ask(code)


@pytest.mark.parametrize(
    "code",
    [
        "sys.stdin.readline(); time.sleep(60)",
        "time.sleep(60)",  # never reads: the request does not fit into the pipe
        "os.read(0, 8192); time.sleep(60)",  # makes room for less than the runner has to write
        "sys.stdin.readline()\nwhile True: sys.stdout.write('x'); time.sleep(0.01)",
    ],
)
def test_a_process_that_hangs_is_killed(code: str) -> None:
    start = time.monotonic()
    reason = ask("print('what it said', file=sys.stderr, flush=True)\n" + code, time_limit=1.0)
    assert reason == "no answer within 1 s; stderr: what it said"
    assert time.monotonic() - start < 10.0


def test_the_whole_group_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    assert "no answer" in ask(code, time_limit=3.0)
    deadline = time.monotonic() + 10
    while is_running(int(note.read_text())):
        assert time.monotonic() < deadline, "a grandchild is still there"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_one_that_left_the_group_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the pipes open; the runner leaves them to it."""
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 0.2)
    code = (
        "import subprocess\n"
        "sleep = 'import time; time.sleep(8)'\n"
        "subprocess.Popen([sys.executable, '-c', sleep], start_new_session=True)\n"
        "time.sleep(60)"
    )
    start = time.monotonic()
    assert "no answer within 2 s" in ask(code, time_limit=2.0)
    assert time.monotonic() - start < 7.0


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import time; time.sleep(60)", "no answer within 2 s"),
        ("raise SystemExit('not ready')", "exit status 1; stderr: not ready"),
        ("print('{}')", 'received {}, expected {"hello": {"protocol": 1, "name": "…", '),
        (f"print({HELLO.replace('1', '2', 1)!r})", "'protocol': 2, 'name': 'odd', "),
        (f"print({HELLO.replace('odd', '')!r})", '"name": "…", "methods": ["…"]}}'),
        ('print(\'{"hello": {"protocol": 1, "name": "odd"}}\')', '"methods": ["…"]}}'),
        ("print('ready')", "received 'ready' (Expecting value: line 1 column 1 (char 0)), "),
    ],
)
def test_a_process_without_a_proper_hello_is_no_session(code: str, reason: str) -> None:
    with pytest.raises(ChildEndedError) as raised:
        ChildSession([sys.executable, "-c", code], 2.0)
    assert reason in str(raised.value)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ChildEndedError, match="cannot start 'no-such-program'"):
        ChildSession(["no-such-program"], 1.0)


def test_an_adapter_may_print_and_its_exceptions_are_answers(tmp_path: Path) -> None:
    (tmp_path / "noisy_adapter.py").write_text(
        "import os\n"
        "class Noisy:\n"
        "    name = 'noisy'\n"
        "    def loss(self, loss, real, fake, **labels):\n"
        "        print('in Python'); os.system('echo from below')\n"
        "        raise RuntimeError('two\\nlines')\n"
        "implementation = Noisy()\n"
    )
    environment = dict(os.environ, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    command = ["env", f"PYTHONPATH={environment['PYTHONPATH']}", *serve_command("noisy_adapter")]
    arguments = {"loss": "bce", "real_scores": 1, "fake_scores": 1, "labels": {}}
    with ChildSession(command, 60.0) as session:
        assert (session.name, session.methods) == ("noisy", ("loss",))
        for _ in range(2):
            with pytest.raises(RequestError, match=r"RuntimeError: two lines \(noisy_ad.*:6"):
                session.call("loss", arguments)
        with pytest.raises(RequestError, match="no method adam") as raised:
            session.call("adam", {})
        assert raised.value.is_refusal


# --- the command ------------------------------------------------------------------------------


def test_list_prints_every_case_with_its_bound(capsys: pytest.CaptureFixture) -> None:
    assert main(["--list", "--select", "loss/bce/point/+0/float64/*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0] == "loss/bce/point/+0/float64/discriminator  2.6 ULP"


def test_a_right_and_a_wrong_implementation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = tmp_path / "report.json"
    files = ["--json", str(report)]
    select = ["--select", "network/mlp28/generate/*/float64", "--select", "step/conv28/float64/*"]
    assert main(["--impl", "tests.conformance.reference", *select, *files]) == 0
    assert "reference: 97 pass, 0 fail, 0 errored" in capsys.readouterr().out
    assert json.loads(report.read_text())["conformant"] is True
    assert main(["--impl", "tests.conformance.wrong", *select, *files]) == 1
    assert "fail: step/conv28/float64/discriminator_loss: off by" in capsys.readouterr().out
    written = json.loads(report.read_text())
    assert written["counts"]["fail"] > 0
    assert len(written["cases"]) == 97


def test_the_remaining_cases_of_a_dead_process_are_errored(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    program = tmp_path / "dies.py"
    program.write_text(SAY_HELLO + "sys.stdin.readline(); sys.exit('lost the device')")
    command = f"{sys.executable} {program}"
    assert main(["--command", command, *FIELDS]) == 1
    shown = capsys.readouterr().out
    assert "odd: 0 pass, 0 fail, 28 errored" in shown
    assert "the process ended with exit status 1; stderr: lost the device" in shown


def test_nothing_run_is_no_success(capsys: pytest.CaptureFixture) -> None:
    select = ["--select", "step/mlp28/float32/*"]  # which the reference refuses
    assert main(["--impl", "tests.conformance.reference", *select]) == 1
    assert "no case was run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--impl", "no.such.module"], "unknown implementation 'no.such.module'"),
        (["--impl", "shared.spec"], "has no object called 'implementation'"),
        (["--command", "no-such-program"], "cannot start 'no-such-program'"),
        (["--command", ""], "--command is empty"),
        (["--list", "--select", "x"], "--select 'x', which matches no case"),
        (["--list", "--time-limit", "0"], "--time-limit: must be a positive number"),
        (["--list", "--time-limit", "nan"], "--time-limit: must be a positive number"),
        (
            ["--list", "--overrides", "absent.toml"],
            "absent.toml: expected a document in TOML or JSON, found nothing",
        ),
        (["--list", "--json", "no/such/folder.json"], "there is no folder no/such; make it"),
        (["--list", "--json", "tests"], "tests is a folder; name a file in it"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert exit_code(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m shared.conformance: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_overrides_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    overrides = tmp_path / "o.json"
    entry = {"divergent": True, "reason": "Keras' epsilon, on purpose"}
    overrides.write_text(json.dumps({"network/conv28/generate/training/float64": entry}))
    command = ["--impl", "tests.conformance.wrong", "--overrides", str(overrides)]
    assert main([*command, "--select", "network/conv28/generate/training/float64"]) == 0
    shown = capsys.readouterr().out
    assert "0 pass, 0 fail, 0 errored, 0 unexpected pass, 1 divergent as declared" in shown
    assert "(Keras' epsilon, on purpose)" in shown


def test_the_runner_imports_no_framework() -> None:
    code = (
        "import sys\nfrom shared.conformance.__main__ import main\n"
        "code = main(['--impl', 'tests.conformance.reference', '--select', 'loss/*/float64/*'])\n"
        "names = ('torch', 'tensorflow', 'keras', 'jax', 'flax', 'optax')\n"
        "print(code, [name for name in names if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "0 []", result.stderr


def test_the_example_in_javascript_passes(capsys: pytest.CaptureFixture) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: no program 'node' was found")
    assert main(["--command", "node docs/examples/losses.js"]) == 0
    shown = capsys.readouterr().out
    assert "losses.js: 1196 pass, 0 fail, 0 errored, 0 unexpected pass" in shown
