"""What takes more than one stage: fresh weights, steps in a row, what a port keeps or draws."""

from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from shared.explain import explain, explanation, observations
from shared.explain.behaviour import initial_weights
from shared.explain.distance import BOUNDS, Comparison
from shared.explain.observations import Group, Sides, reference_arrays
from shared.explain.port import Port
from shared.explain.probes import draw_probe, kink_margin
from shared.explain.report import Located
from shared.explain.search import consistent
from shared.interface import load_implementation
from shared.reference.adapter import ReferenceImplementation, ReferenceState
from shared.reference.network import forward
from shared.reference.step import train_step
from shared.spec import Conventions
from shared.spec.streams import initial_state
from tests.explain.wrong_ports import (
    AdamAlone,
    CountsSteps,
    ForgetsAVariance,
    OwnLatents,
    OwnWeights,
    WrongAtStepThree,
    narrow,
)


def seen_of(port: Any) -> tuple[Group | str, str, list[Located]]:
    return initial_weights(Port(port, "float64"), narrow())


@pytest.mark.parametrize(
    ("spread", "suggested"),
    [(1.0, None), (1.2, "generator/batch_norm_1/var is not 1")],
)
def test_initial_weights_of_their_own_streams(spread: float, suggested: str | None) -> None:
    shown, initializer, located = seen_of(OwnWeights(spread))
    assert (shown, initializer) == ("not drawn from the shared streams", "spec")
    assert [place.note for place in located] == ([suggested] if suggested else [])
    drawn = "generator/*/kernel"
    assert all(drawn in place.arrays for place in located), located


@pytest.mark.parametrize("initializer", ["torch_default", "keras_default", "flax_default"])
def test_a_frameworks_default_is_known_by_its_distribution(initializer: str) -> None:
    class Default(ReferenceImplementation):
        def create(self, spec: Any, *, seed: int = 0, dtype: str = "float64") -> Any:
            conventions = Conventions().replace(initializer=initializer)
            return ReferenceState(spec, initial_state(spec, seed + 1000, conventions))

    assert seen_of(Default())[1:] == (initializer, [])


def test_small_arrays_together_show_what_none_does_alone() -> None:
    """BN's scales of 1 where N(1, 0.02²) is drawn: G has 16, 8, 4 and 2 of them, 30 together."""

    class Ones(OwnWeights):
        def create(self, *arguments: Any, **options: Any) -> Any:
            state = super().create(*arguments, **options)
            ones = {n: np.ones_like(a) for n, a in state.arrays.items() if n.endswith("/scale")}
            state.arrays |= ones
            return state

    (_, _, (place,)) = seen_of(Ones(spread=1.0))
    assert place.arrays == ("generator/*/scale",)
    stats = pytest.importorskip("scipy.stats")
    assert f"p = {stats.chisquare([0, 30, 0]).pvalue:.0e}" in place.note


def test_each_initializer_draws_a_state_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights from other streams too, whose arrays are held against distributions, not draws."""
    drawn = []

    def counted(spec: Any, seed: int, conventions: Conventions) -> Any:
        drawn.append(conventions.initializer)
        return initial_state(spec, seed, conventions)

    monkeypatch.setattr(observations, "initial_state", counted)
    spec = narrow().replace(latent_dim=7)  # which nobody has asked for before
    initial_weights(Port(OwnWeights(1.2), "float64"), spec)
    assert sorted(drawn) == sorted(get_args(get_type_hints(Conventions)["initializer"]))


def test_latents_of_its_own() -> None:
    explanation = explain(OwnLatents(), narrow("mlp28"))
    assert explanation.verdict == "unexplained"
    assert any("its own random numbers" in note for note in explanation.findings)


@pytest.mark.parametrize(
    ("port", "note"),
    [
        ("KeepsGradients", "a second train_step() depends on something that export_state() does"),
        (
            "AverageWithoutStatistics",
            "generate() after a step has other arrays than export_state()",
        ),
        ("NoisySamples", "generate() gives other numbers when it is called twice"),
        ("TorchPort", None),
    ],
)
def test_what_a_port_keeps_beside_its_state_is_noted(
    port: str, note: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    # No convention explains noise, however long it is searched for.
    monkeypatch.setattr("shared.explain.search.MOST_WORK", 300)
    from tests.wild import adapters
    from tests.wild import port as right

    class NoisySamples(right.TorchPort):
        def generate(self, *arguments: Any, **options: Any) -> Any:
            images = super().generate(*arguments, **options)
            return images + 1e-3 * np.random.default_rng().standard_normal(images.shape)

    ports = {**vars(adapters), "NoisySamples": NoisySamples}
    found = explain(ports[port](), narrow("conv28"), steps=1)
    assert found.verdict == ("unexplained" if note else "rounding")
    said = [text for text in found.findings if "search was ended" not in text]
    assert [text[: len(note or "")] for text in said] == ([note] if note else [])


def test_dropout_is_not_searched_for_and_hides_nothing_of_adam() -> None:
    torch = pytest.importorskip("torch")
    from tests.wild import port as right

    class Dropout(right.TorchPort):
        def batch_norm(self, x: Any, p: dict[str, Any], training: bool) -> Any:
            return torch.nn.functional.dropout(super().batch_norm(x, p, training), 0.25, training)

        def optimizer(self, parameters: Any, rate: float) -> Any:
            return torch.optim.Adam(parameters, rate, (0.9, 0.999))

    found = explain(Dropout(), narrow("conv28"), steps=1)
    assert found.verdict == "partly named"
    assert [trap.fields for trap in found.traps] == [{"adam_beta1": 0.9}]
    drawn = {place.stage for place in found.located if "at each call" in place.note}
    assert {f"{network}, batch statistics" for network in ("generator", "discriminator")} <= drawn
    # A search of one such stage alone would try more than a thousand.
    assert found.tried < 300
    assert [note for note in found.findings if "train_step() gives other numbers" in note]


@pytest.mark.slow
def test_a_state_that_does_not_come_back() -> None:
    explanation = explain(ForgetsAVariance(), narrow("conv28"))
    assert explanation.verdict == "unexplained"
    assert any("generator/batch_norm_2/var" in note for note in explanation.findings)


def test_a_later_step_that_diverges() -> None:
    explanation = explain(WrongAtStepThree(), narrow("mlp28"), steps=5)
    assert explanation.verdict == "unexplained"
    assert explanation.first is not None
    assert explanation.first.probe == "step 3"


def test_what_later_steps_contradict_is_no_name() -> None:
    class Recovers(CountsSteps):
        """Scales its gradients in the first two steps alone."""

        def before_step_three(self, state: ReferenceState) -> None:
            self.conventions = Conventions()

    port = Recovers(Conventions(discriminator_gradient_scale=0.5))
    found = explain(port, narrow("mlp28"), steps=5)
    assert found.fields == {}, found
    stages = [place.stage for place in found.located]
    assert stages[0] == "5 steps, each from where the implementation is", stages
    assert found.located[1].note == "what explains it here does not in 5 steps in a row"
    port = Recovers(Conventions(discriminator_gradient_scale=0.5))
    assert explain(port, narrow("mlp28"), steps=2).fields == {"discriminator_gradient_scale": 0.5}


@pytest.mark.parametrize("name", ["dcgan64", "dcgan64-lsgan", "conv28", "mlp28"])
@pytest.mark.parametrize("score", [-1.5, 1.5])
def test_held_out_probes_have_either_network_losing(name: str, score: float) -> None:
    spec = narrow(name)
    probe = draw_probe("held out", spec, 3, [], score)
    z, real = probe.one_batch
    given = {"conventions": Conventions(), "training": True}
    fake = forward(spec, "generator", probe.arrays, z, **given).output
    scores = [forward(spec, "discriminator", probe.arrays, x, **given).output for x in (real, fake)]
    if spec.loss == "bce_probs":
        scores = [np.log(p) - np.log1p(-p) for p in scores]
    middle = 0.5 if spec.loss == "lsgan" else 0.0
    # The factor is a float32 number: scores that cancel show its rounding, 2**-24, by their sizes.
    rounding = 2.0**-24 * np.abs(scores).mean()
    assert abs(np.mean(scores) - middle - score) <= 2.0 * rounding


def test_a_change_by_which_a_stage_differs_that_agrees_is_no_name() -> None:
    """Exchanged betas move parameters as exchanged corrections do; the moments are right."""
    probe = draw_probe("mid-training", narrow("mlp28"), 0, [])
    stage = "Adam's first moments of the generator"
    groups = [Group(stage, probe, reference_arrays(stage, probe, Conventions()))]
    exchanged = Conventions(adam_beta1=0.999, adam_beta2=0.5)
    wrong = exchanged.replace(batch_norm_momentum=0.2)
    comparison = Comparison("float64", BOUNDS["float64"])
    kept = consistent(groups, comparison, Sides(wrong, wrong))
    assert kept == Sides(*[Conventions(batch_norm_momentum=0.2)] * 2)
    assert consistent(groups, comparison, kept) == kept


def test_rounding_that_a_batch_of_two_makes_large_is_rounding() -> None:
    """A channel whose two numbers are alike: its normalisation multiplies what float32 rounds."""
    pytest.importorskip("torch")
    spec = narrow("conv28").replace(width=3, latent_dim=3, batch_size=2, loss="lsgan")
    found = explain(load_implementation("pytorch"), spec, dtype="float32", seed=1037)
    assert found.agrees, found
    assert (found.stages[-1].difference or 0.0) > 1e-3  # of gradients, whose bound it is


def test_a_later_step_that_diverges_in_float32() -> None:
    """Rounding of the weights explains nothing of it."""
    pytest.importorskip("torch")
    right = load_implementation("pytorch")

    class Forgets:
        def __getattr__(self, name: str) -> Any:
            return getattr(right, name)

        def create(self, *arguments: Any, **options: Any) -> Any:
            self.steps = 0
            return right.create(*arguments, **options)

        def train_step(self, state: Any, real_images: Any, latents: Any) -> Any:
            self.steps += 1
            if self.steps == 3:
                first = {"generator_optimizer/step": np.array(0)}
                right.import_state(state, right.export_state(state) | first)
            return right.train_step(state, real_images, latents)

    found = explain(Forgets(), narrow("mlp28"), dtype="float32", steps=5)
    assert found.first is not None
    assert (found.verdict, found.first.probe) == ("unexplained", "step 3")


def test_the_margin_of_kinks_has_the_passes_of_every_update_of_d() -> None:
    spec = narrow("mlp28").replace(discriminator_steps=2)
    once, size = spec.replace(discriminator_steps=1), spec.batch_size
    for seed in range(10):
        probe = draw_probe("mid-training", spec, seed, [])
        real, z = probe.real_images, probe.latents
        after = train_step(once, probe.arrays, real[:size], z[:size]).arrays
        updated = {n: a for n, a in after.items() if n.startswith("discriminator")}
        given = spec, "discriminator", probe.arrays | updated, real[size:], Conventions()
        passed = forward(*given, training=True).activations
        sizes = {n: np.sqrt(np.square(passed[n]).mean(axis=0)) for n in ("dense_1", "dense_2")}
        smallest = min(np.abs(passed[n] / np.minimum(1.0, x)).min() for n, x in sizes.items())
        assert kink_margin(spec, probe.arrays, real, z) <= smallest * (1 + 1e-12)


@pytest.mark.parametrize("width", [1, 2])
def test_a_layer_keeps_a_channel_with_weights(width: int) -> None:
    """Without any, gradients of everything before it are rounding alone."""
    arrays = draw_probe("small gradients", narrow("conv28").replace(width=width), 0, []).arrays
    kernel = arrays["discriminator/conv_1/kernel"]
    assert [bool(kernel[..., i].any()) for i in range(width)] == [False, True][-width:]


@pytest.mark.parametrize(
    ("port", "suggested"),
    [
        ("AMSGrad", "AMSGrad: the largest second moment so far"),
        ("HalvesItsRate", "0.5 times the move that is expected, as by a schedule"),
        ("ReportsHalves", "what is reported; what is learnt from agrees"),
    ],
)
def test_what_the_numbers_of_a_step_suggest(port: str, suggested: str) -> None:
    pytest.importorskip("torch")
    from tests.wild import tangles

    found = explain(vars(tangles)[port](), narrow("conv28"), steps=2)
    assert not found.traps
    (place,) = found.located
    assert place.note.startswith(suggested)


def test_nothing_is_named_by_the_bound_that_kinks_are_looked_for_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32 what no convention explains is searched once more, coarsely; the last word is
    that of the dtype's own bound, after probes on which as much is unexplained."""

    class Odd(AdamAlone):
        def adam(self, *arguments: Any) -> Any:
            parameter, m, v = super().adam(*arguments)
            return 1.01 * parameter, m, v

    bounds = []
    solve = explanation._Explainer._solve_tracks

    def counted(self: Any) -> None:
        bounds.append(self.comparison.bound)
        solve(self)

    monkeypatch.setattr(explanation._Explainer, "_solve_tracks", counted)
    monkeypatch.setattr("shared.explain.search.MOST_WORK", 300)
    found = explain(Odd(), narrow("mlp28"), dtype="float32")
    assert bounds == [BOUNDS["float32"], explanation.NEAR_ENOUGH, BOUNDS["float32"]]
    assert (found.traps, len(found.located)) == ([], 1)
