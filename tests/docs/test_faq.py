"""What docs/faq.md says: its answers cite what exists, and the figures of its own are these."""

import importlib.util
import re

import numpy as np
import pytest

from shared.data.dataset import load_dataset
from shared.explain import explain
from shared.quality.metrics import sliced_wasserstein_distance
from shared.reference.adapter import ReferenceImplementation
from shared.reference.comparison import relative_l2
from shared.reference.losses import loss_values
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import SYSTEMS, Conventions
from tests import ROOT
from tests.conftest import require_framework
from tests.docs.test_porting import rows
from tests.docs.traps_of_steps import starting_point, step_numbers

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("faq", "checklist")}
QUESTION = re.compile(r"^## (?P<question>.+)\n\n(?P<answer>(?:.+\n)+)", re.MULTILINE)
TEST = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")


def answers() -> dict[str, str]:
    return {m["question"]: m["answer"] for m in QUESTION.finditer(PAGES["faq"])}


def test_fifteen_questions_have_short_answers_with_evidence() -> None:
    assert len(answers()) == 15
    for question, answer in answers().items():
        assert len(answer.splitlines()) <= 5, question
        assert TEST.search(answer) or "python -m" in answer, question
        threads = re.findall(r"\[([^\]]+ \d+)\](?!\()", answer)
        assert threads, question
        for thread in threads:
            assert f"\n[{thread}]: https://github.com/" in PAGES["faq"], thread


@pytest.mark.parametrize("page", PAGES)
def test_what_is_cited_exists(page: str) -> None:
    for path, name in TEST.findall(PAGES[page]):
        assert f"def {name}" in (ROOT / path).read_text("utf-8"), (path, name)
    for module in re.findall(r"python -m ([\w.]+)", PAGES[page]):
        if not module.startswith("my_"):
            assert importlib.util.find_spec(module), module
    cited = re.findall(r"\]\(porting\.md#([\w-]+)\), (\d[\d.e-]*\d)", PAGES[page])
    assert all(rows()[row] == figure for row, figure in cited), cited


@pytest.mark.parametrize(("size", "scores"), [(64, 1), (128, 25), (256, 169)])
def test_a_larger_image_has_several_scores(size: int, scores: int) -> None:
    implementation = require_framework("pytorch")
    import torch

    spec = SYSTEMS["dcgan64"].replace(width=2)
    discriminator = implementation.create(spec).network("discriminator")
    assert discriminator(torch.zeros(2, 3, size, size)).numel() == 2 * scores


@pytest.mark.parametrize(("training", "least", "most"), [(True, 0.1, 2.0), (False, 0.0, 1e-14)])
def test_an_image_depends_on_its_batch_in_training_mode(
    training: bool, least: float, most: float
) -> None:
    spec, arrays, _, z = starting_point("dcgan64", "bce")
    alone, together = (
        forward(spec, "generator", arrays, latents, Conventions(), training=training).output[:2]
        for latents in (z[:2], z)
    )
    assert least <= relative_l2(alone, together) <= most


def test_without_the_half_adam_moves_as_with_it() -> None:
    right = step_numbers("dcgan64-lsgan", "lsgan")
    wrong = step_numbers("dcgan64-lsgan", "lsgan", lsgan_scale=1.0)
    kernel = "discriminator/conv_1/kernel"
    assert relative_l2(wrong[f"gradient of {kernel}"], right[f"gradient of {kernel}"]) == 1.0
    # By a first update, from moments of 0: Adam divides by the size of the gradient.
    spec, arrays, real, z = starting_point("dcgan64-lsgan", "lsgan")
    fresh = {n: np.zeros_like(a) if "optimizer" in n else a for n, a in arrays.items()}
    moves = [
        train_step(spec, fresh, real, z, Conventions(lsgan_scale=scale)).arrays[kernel]
        - arrays[kernel]
        for scale in (0.5, 1.0)
    ]
    assert relative_l2(moves[1], moves[0]) < 1e-3


def test_the_square_of_the_mean_lets_errors_cancel() -> None:
    scores = np.array([2.0, 0.0])
    assert 0.5 * (scores.mean() - 1.0) ** 2 == 0.0
    assert loss_values("lsgan", np.ones(2), scores).generator == 0.5


def test_an_epsilon_of_0_8_is_named() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm2d(4, 0.8)
    assert (layer.eps, layer.momentum) == (0.8, 0.1)
    spec = SYSTEMS["dcgan64"].replace(width=2, latent_dim=6, batch_size=4)
    port = ReferenceImplementation(Conventions(batch_norm_epsilon=0.8))
    assert explain(port, spec, steps=1).fields == {"batch_norm_epsilon": pytest.approx(0.8)}


@pytest.mark.slow
def test_keras_3_trains_no_discriminator_that_was_frozen_after_compile() -> None:
    keras = pytest.importorskip("keras")
    discriminator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    discriminator.compile("adam", "mse")
    before = discriminator.get_weights()
    discriminator.trainable = False
    combined = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), discriminator])
    combined.compile("adam", "mse")
    batch = np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32)
    with pytest.warns(UserWarning, match="does not have any trainable weights"):
        discriminator.train_on_batch(*batch)
    assert all(
        np.array_equal(a, b) for a, b in zip(before, discriminator.get_weights(), strict=True)
    )


def test_without_moments_every_weight_moves_by_the_learning_rate() -> None:
    spec, arrays, real, z = starting_point("dcgan64", "bce")
    fresh = {n: np.zeros_like(a) if "optimizer" in n else a for n, a in arrays.items()}
    name = "generator/conv_transpose_1/kernel"
    moved = np.abs(train_step(spec, fresh, real, z).arrays[name] - arrays[name])
    rate = spec.generator_optimizer.learning_rate
    assert np.quantile(moved / rate, 0.01) == pytest.approx(1.0, abs=1e-3)


def test_one_image_repeated_is_far_from_the_real_ones() -> None:
    images = load_dataset(None, SYSTEMS["conv28"]).images[:256]
    halves = images[:128], images[128:]
    near = sliced_wasserstein_distance(*halves, (0, 255))
    repeated = np.repeat(images[:1], 128, axis=0)
    far = sliced_wasserstein_distance(halves[1], repeated, (0, 255))
    assert sum(far.values()) > 3 * sum(near.values())


def test_swapped_labels_only_turn_the_sign_of_the_score() -> None:
    real, fake = np.array([0.3, -2.0]), np.array([1.2, -0.7])
    swapped = Conventions(real_label=0.0, fake_label=1.0, generator_label=0.0)
    ours, other = loss_values("bce", real, fake), loss_values("bce", -real, -fake, swapped)
    assert (ours.discriminator, ours.generator) == (other.discriminator, other.generator)
    for field in ("discriminator_real", "discriminator_fake", "generator_fake"):
        one, two = (getattr(values, f"{field}_gradient") for values in (ours, other))
        np.testing.assert_array_equal(one, -two)
