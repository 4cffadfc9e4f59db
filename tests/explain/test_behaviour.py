"""What takes more than one stage: fresh weights, steps in a row, what a port keeps or draws."""

from typing import Any

import numpy as np
import pytest

from shared.explain import explain
from shared.explain.behaviour import initial_weights
from shared.explain.observations import initial_arrays
from shared.explain.port import Observations, Port
from shared.spec.streams import initial_state
from tests.explain.wrong_ports import (
    ForgetsAVariance,
    OwnLatents,
    OwnWeights,
    WrongAtStepThree,
    narrow,
)


def test_initial_weights_of_another_spread_are_noted_after_few_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws = []

    def counted(*arguments: Any) -> Any:
        draws.append(arguments)
        return initial_state(*arguments)

    for module in ("behaviour", "observations"):
        monkeypatch.setattr(f"shared.explain.{module}.initial_state", counted)
    initial_arrays.cache_clear()
    found, right = Observations(), Observations()
    initial_weights(Port(OwnWeights(spread=3.0), "float64"), narrow(), found)
    assert "generator/conv_transpose_1/kernel has 0.0" in found.notes[0]
    initial_weights(Port(OwnWeights(spread=1.0), "float64"), narrow(), right)
    assert right.notes == []
    for seen in (found, right):
        assert (seen.groups, seen.initializer) == ([], "spec")
        assert seen.missing == {"initial weights": "not drawn from the shared streams"}
    # Four initializers, then twenty draws of all arrays together for each of the two ports.
    assert len(draws) == 4 + 2 * 20


def test_latents_of_its_own() -> None:
    explanation = explain(OwnLatents(), narrow("mlp28"))
    assert explanation.verdict == "unexplained"
    assert any("its own random numbers" in note for note in explanation.notes)


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
    said = [text for text in found.notes if "search was ended" not in text]
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
    assert found.verdict == "unexplained"
    assert [trap.change for trap in found.traps] == [{"adam_beta1": 0.9}]
    drawn = {place.stage for place in found.located if "at each call" in place.suggests}
    assert {f"{network}, batch statistics" for network in ("generator", "discriminator")} <= drawn
    # A search of one such stage alone would try more than a thousand.
    assert found.tried < 300
    assert [note for note in found.notes if "train_step() gives other numbers" in note]


@pytest.mark.slow
def test_a_state_that_does_not_come_back() -> None:
    explanation = explain(ForgetsAVariance(), narrow("conv28"))
    assert explanation.verdict == "unexplained"
    assert any("generator/batch_norm_2/var" in note for note in explanation.notes)


def test_a_later_step_that_diverges() -> None:
    explanation = explain(WrongAtStepThree(), narrow("mlp28"), steps=5)
    assert explanation.verdict == "unexplained"
    assert explanation.first is not None
    assert explanation.first.probe == "step 3"
