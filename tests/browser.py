"""What a page measures in Chromium, in a frame of any width."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# Chromium's windows are 500 pixels wide at least, its frames are not.
_FRAMES = """{frames}<script>
const said = {{}};
onmessage = (message) => {{
  said[message.data.page] = message.data;
  document.title = JSON.stringify(said);
}};</script>"""
_SAY = """<script>addEventListener("load", () => setTimeout(() => {{
  const measure = () => {{ {script} }};
  parent.postMessage({{page: "{name}", width: innerWidth, ...measure()}}, "*");
}}, 100))</script>"""


def measured(pages: dict[str, Path], script: str, width: int, profile: Path) -> dict[str, Any]:
    """Return, by name of the page, its width and the object that the script's body returns.

    Fails for a message on the console. Copies of the pages lie beside them meanwhile.
    """
    found: dict[str, Any] = {}
    for _ in range(3):  # on a busy machine the browser may end before every page has answered
        if left := {name: path for name, path in pages.items() if name not in found}:
            found |= _answers(left, script, width, profile)
    assert found.keys() == pages.keys()
    assert {one["width"] for one in found.values()} == {width}
    return found


def _answers(pages: dict[str, Path], script: str, width: int, profile: Path) -> dict[str, Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium")
    copies = {name: path.with_name(f"measured-{path.name}") for name, path in pages.items()}
    for name, copy in copies.items():
        text = pages[name].read_text("utf-8")
        assert "</body>" in text
        say = _SAY.format(script=script, name=name)
        copy.write_text(text.replace("</body>", f"{say}</body>"), "utf-8")
    style = f"width: {width}px; height: 900px"
    frames = "".join(
        f'<iframe src="{c.as_uri()}" style="{style}"></iframe>' for c in copies.values()
    )
    frame = profile.with_suffix(".html")
    frame.write_text(_FRAMES.format(frames=frames))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    options += ["--allow-file-access-from-files", "--enable-logging=stderr", "--dump-dom"]
    command = [chromium, *options, "--virtual-time-budget=60000", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    for copy in copies.values():
        copy.unlink()
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    return json.loads(title[1]) if title else {}
