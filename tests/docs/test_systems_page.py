"""The file, the adapters and the step of docs/systems.md, run as they stand there."""

import re
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from shared.conformance.problems import problems_of
from shared.conformance.serve import Server
from shared.conformance.verdicts import counts, decide
from shared.files.system_file import read_system
from shared.spec import SYSTEMS, SystemSpec
from tests import ROOT
from tests.implementations import modules_of_others as others

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


def blocks(language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def verdicts(implementation: Any, spec: SystemSpec) -> set[str]:
    """Return the verdicts of every case but those of fresh weights."""
    found = counts(decide(problems_of(spec)[1:], Server(implementation), {}))
    return {verdict for verdict, count in found.items() if count}


def test_the_adapter_of_the_page_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    (tmp_path / "my_gan.toml").write_text(blocks("toml")[0])
    spec = read_system(tmp_path / "my_gan.toml").replace(batch_size=2)
    spec = spec.replace(discriminator_optimizer=spec.generator_optimizer)
    module = types.ModuleType("my_gan")
    exec(NETWORKS, vars(module))
    monkeypatch.setitem(sys.modules, "my_gan", module)
    names: dict = {}
    exec(blocks("python")[0], names)
    assert verdicts(names["implementation"], spec) == {"pass"}


def test_the_step_of_the_page_agrees() -> None:
    pytest.importorskip("torch")
    names: dict = {}
    exec(blocks("python")[-1], names)
    spec = SYSTEMS["mlp28"].replace(width=4, latent_dim=5, batch_size=3, loss="bce")
    assert verdicts(names["implementation"], spec) == {"pass", "skipped"}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "framework"), [(1, "tf"), (2, "jax")])
def test_the_other_adapters_of_the_page_are_read(number: int, framework: str) -> None:
    others.implementation(framework)
    generator, discriminator, *_ = others.PARTS[framework]()
    libraries = ["keras"] if framework == "tf" else ["optax", "flax.nnx"]
    names = {name.split(".")[-1]: import_module(name) for name in libraries}
    names |= {"generator": generator, "discriminator": discriminator}
    exec(blocks("python")[number].replace("(100,)", "(6,)"), names)
    assert "latent_dim = 6" in names["implementation"].system_file()


def test_what_the_page_has_to_be_written_is_fifteen_lines_at_most() -> None:
    for code in blocks("python"):
        assert len([x for x in code.splitlines() if x and "import" not in x]) <= 15
