"""docs/port_a_gan.ipynb: what is stored in it is what it says, and it runs."""

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import ROOT

nbformat = pytest.importorskip("nbformat", reason="the notebook needs the extra docs")
NOTEBOOK = ROOT / "docs" / "port_a_gan.ipynb"


def check(notebook: Any) -> None:
    """Hold the outputs to the story: images, wrong ones, a name, the right ones, more steps."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(cell.outputs for cell in cells[1:] if "def forward" not in cell.source)
    assert not [o for o in outputs if o.output_type == "error"]
    text = "".join(o.get("text", "") for o in outputs)
    assert re.findall(r"Verdict: (\w+)", text) == ["named", "rounding"]
    assert "conv transpose kernel: flipped instead of as stored" in text
    wrong, right = map(float, re.findall(r"relative L2 difference ([\d.e-]+)", text))
    assert wrong > 0.5
    assert right < 1e-5
    assert "resuming from" in text
    assert "written by pytorch" in text
    assert [int(step) for step in re.findall(r"^(\d+),[\d.]+,", text, re.MULTILINE)] == [
        199,
        200,
        201,
        202,
    ]
    shown = [o.data["image/jpeg"] for o in outputs if "image/jpeg" in o.get("data", {})]
    theirs, wrong_ones, ours, later = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image))), float) for image in shown
    )
    assert np.abs(ours - theirs).mean() < 1
    assert np.abs(wrong_ones - theirs).mean() > 10
    assert np.abs(later - theirs).mean() > 5


def test_the_stored_outputs_tell_the_story() -> None:
    check(nbformat.read(NOTEBOOK, 4))
    assert NOTEBOOK.stat().st_size < 100_000


@pytest.mark.slow
def test_it_runs() -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:  # a batch of a quarter, on which nothing that is checked depends
        cell.source = cell.source.replace("pytorch_impl.train", "pytorch_impl.train --batch-size 8")
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    check(notebook)
