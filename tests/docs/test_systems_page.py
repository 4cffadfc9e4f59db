"""The file and the adapter of docs/systems.md, run as they stand there."""

import re
import sys
import types
from pathlib import Path

import pytest

from shared.conformance.network_cases import problems_of
from shared.conformance.serve import Server
from shared.conformance.verdicts import counts, decide
from shared.files.system_file import read_system
from tests import ROOT

PAGE = (ROOT / "docs" / "systems.md").read_text("utf-8")
# The networks of the page's file; SAME of 5x5 is one row more at the end than at the start.
NETWORKS = """
from torch import nn, where
from torch.nn import functional as F

def leaky(x):
    return where(x > 0, x, 0.3 * x)

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense_1 = nn.Linear(100, 6272)
        self.batch_norm_1 = nn.BatchNorm2d(128, eps=1e-3)
        self.conv_transpose_2 = nn.ConvTranspose2d(128, 64, 5, 2, 1, bias=False)
        self.conv_transpose_3 = nn.ConvTranspose2d(64, 1, 5, 2, 1)

    def forward(self, latents):
        x = leaky(self.batch_norm_1(self.dense_1(latents).view(-1, 128, 7, 7)))
        x = self.conv_transpose_2(x)[..., :-1, :-1]
        return self.conv_transpose_3(x)[..., :-1, :-1].tanh()

class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_1 = nn.Conv2d(1, 64, 5, 2)
        self.dense_2 = nn.Linear(12544, 1)

    def forward(self, images):
        x = leaky(self.conv_1(F.pad(images, (1, 2, 1, 2))))
        return self.dense_2(x.flatten(1)).reshape(-1)
"""


def block(language: str) -> str:
    """Return the page's only block of code in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_adapter_of_the_page_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    (tmp_path / "my_gan.toml").write_text(block("toml"))
    spec = read_system(tmp_path / "my_gan.toml").replace(batch_size=2)
    module = types.ModuleType("my_gan")
    exec(NETWORKS, vars(module))
    monkeypatch.setitem(sys.modules, "my_gan", module)
    names: dict = {}
    exec(block("python"), names)
    problems = [p for p in problems_of(spec) if p.cases[0].id.split("/")[2] != "unmoved"]
    found = counts(decide(problems[1:], Server(names["implementation"]), {}))  # but for `create`
    assert {verdict: n for verdict, n in found.items() if n} == {"pass": sum(found.values())}


def test_the_adapter_of_the_page_has_its_lines() -> None:
    code = [line for line in block("python").splitlines() if line and "import" not in line]
    assert len(code) <= 15
