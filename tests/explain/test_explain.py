"""`shared.explain` names the mistake: of the reference under other conventions, and of ports."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from shared.explain import explain
from shared.explain.catalogue import FITTED, FIXES, KNOWN_NUMBERS, changes
from shared.explain.observations import Sides
from shared.explain.search import with_change
from shared.interface import LossValues
from shared.reference.adapter import ReferenceImplementation
from shared.reference.optimizers import clipped
from shared.reference.step import Step, settings_of
from shared.spec import Conventions, SystemSpec
from tests.apparatus.explain_accuracy import explain_faults, same_fields
from tests.apparatus.explain_draws import pairs
from tests.apparatus.planted.faults import get_fault
from tests.apparatus.planted.mutate import mutated
from tests.apparatus.planted.outside import OUTSIDE
from tests.conftest import require_framework
from tests.docs.test_porting import rows
from tests.explain.wrong_ports import (
    AdamAlone,
    BiasesAlone,
    Dimmed,
    EightBits,
    Float32Inside,
    ForgetsATenth,
    ForgetsEval,
    GeneratorAlone,
    HelperCalledAdam,
    LossesAlone,
    OfOneBatchSize,
    OwnActivation,
    OwnBetaInD,
    Raises,
    RaisesAtStepThree,
    ScaledGradient,
    WantsProbabilities,
    WithoutLoss,
    narrow,
)
from tests.reference.test_conventions import CASES
from tests.tiers import EAGER_TENSORFLOW, SLOW_IN_TF_AND_JAX, one_in


def spec_that_shows(field: str) -> SystemSpec:
    if field in ("lsgan_scale", "flatten_order"):
        return narrow("dcgan64-lsgan")
    if field == "probability_clipping":
        return narrow("mlp28")
    if field == "image_channels":
        return narrow("conv28", channels=3)
    if field in ("generator_output", "generator_batch", "generator_learning_rate"):
        return narrow()  # conv28 itself has a value of CASES
    return narrow("conv28")


@pytest.mark.parametrize(("field", "value"), one_in(25, CASES))
def test_the_reference_under_another_convention_is_named(field: str, value: object) -> None:
    clipped = {"gradient_clipping": "norm", "gradient_clip": 0.1}  # neither does anything alone
    fields = (clipped if field in clipped else {}) | {field: value}
    port = ReferenceImplementation(Conventions().replace(**fields))
    explanation = explain(port, spec_that_shows(field), steps=1)
    assert explanation.verdict == "named"
    assert explanation.fields == fields
    assert explanation.traps[0].cost > explanation.bound
    assert explanation.first is not None


@pytest.mark.parametrize(
    ("field", "value"),
    one_in(
        5,
        [
            ("leaky_relu_slope", 0.237),
            ("batch_norm_epsilon", 7.3e-4),
            ("batch_norm_momentum", 0.37),
            ("real_label", 0.83),
            ("generator_label", 0.71),
            ("discriminator_loss_scale", 0.61),
            ("adam_beta1", 0.43),
            ("adam_beta2", 0.987),
            ("adam_epsilon", 3.3e-8),
            ("generator_learning_rate", 3.7e-4),
        ],
    ),
)
def test_a_number_in_no_catalogue_is_fitted(field: str, value: float) -> None:
    assert value not in KNOWN_NUMBERS[field]
    port = ReferenceImplementation(Conventions(**{field: value}))
    explanation = explain(port, narrow("conv28"), steps=1)
    assert set(explanation.fields) == {field}
    assert explanation.fields[field] == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(
    "deviation",
    one_in(
        5,
        [
            {"leaky_relu_slope": 0.3, "adam_beta1": 0.9},
            {"batch_norm_epsilon": 1e-3, "batch_norm_running_variance": "biased"},
            {"real_label": 0.0, "fake_label": 1.0},
            {"detach_fake": False, "update_order": "simultaneous"},
            {"batch_norm_momentum": 0.05, "batch_norm_mode": "running_in_generator_step"},
            {"discriminator_loss_scale": 0.5, "adam_epsilon_placement": "before_correction"},
        ],
    ),
)
def test_two_mistakes_are_both_named(deviation: dict[str, object]) -> None:
    port = ReferenceImplementation(Conventions().replace(**deviation))
    assert explain(port, narrow(), steps=1).fields == deviation


@EAGER_TENSORFLOW
@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize(  # float32 of the other two: PLANTED, where nothing else may be named
    ("framework", "dtype"),
    [("pytorch", "float64"), ("pytorch", "float32"), ("tf", "float64"), ("jax", "float64")],
)
def test_a_right_implementation_is_accused_of_nothing(framework: str, dtype: str) -> None:
    explanation = explain(require_framework(framework), narrow(), dtype=dtype, steps=2)
    assert (explanation.verdict, explanation.traps, explanation.findings) == ("rounding", [], [])
    seen = [stage for stage in explanation.stages if stage.difference is not None]
    # Initial weights, four forward stages and twelve of the step for both probes, losses, Adam, two
    # steps.
    assert len(seen) == 1 + 2 * (4 + 12) + 1 + 1 + 1
    assert not explanation.missing


PLANTED = [
    ("pytorch", "fake_not_detached", "float64"),
    ("pytorch", "leaky_slope_0.25", "float32"),
    ("pytorch", "initializer_torch_default", "float64"),
    ("tf", "batches_merged", "float32"),
    ("jax", "statistics_not_in_generator_step", "float32"),
]


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize(("framework", "name", "dtype"), one_in(3, PLANTED))
def test_a_fault_in_a_frameworks_source_is_named(framework: str, name: str, dtype: str) -> None:
    require_framework(framework)
    outcome = explain_faults(framework, [get_fault(name)], dtype, compiled=True)
    assert outcome.right, outcome


def test_pairs_are_drawn_of_which_neither_hides_the_other() -> None:
    drawn = list(pairs(5, seed=1))
    assert len(drawn) == 5
    for _, (first, second) in drawn:
        assert not set(first.deviation) & set(second.deviation)


# --- partial implementations --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "system", "fields"),
    [
        (LossesAlone(), "dcgan64", {}),
        (BiasesAlone(), "mlp28", {}),
        (LossesAlone(real_label=0.9), "dcgan64", {"real_label": 0.9}),
        (LossesAlone(lsgan_scale=1.0), "dcgan64-lsgan", {"lsgan_scale": 1.0}),
        (GeneratorAlone(), "dcgan64", {}),
        (GeneratorAlone(batch_norm_epsilon=1e-3), "dcgan64", {"batch_norm_epsilon": 1e-3}),
        (AdamAlone(), "dcgan64", {}),
        (AdamAlone(adam_epsilon=1e-7), "dcgan64", {"adam_epsilon": 1e-7}),
        (AdamAlone(adam_beta1=0.61), "dcgan64", {"adam_beta1": 0.61}),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_partial_implementation(port: Any, system: str, fields: dict[str, object]) -> None:
    explanation = explain(port, narrow(system))
    assert explanation.fields == pytest.approx(fields)
    assert explanation.verdict == ("named" if fields else "rounding")
    assert explanation.missing  # what it lacks is reported, not passed over


def test_a_helper_of_the_same_name_is_not_called() -> None:
    explanation = explain(HelperCalledAdam(), narrow("mlp28"), steps=1)
    assert explanation.verdict == "rounding"
    assert explanation.missing["Adam alone"] == "adam() takes other arguments"


# --- several stages, each by itself ---------------------------------------------------------------


def test_an_unknown_mistake_hides_no_other() -> None:
    port = ScaledGradient(Conventions(adam_beta1=0.9, generator_output="none", real_label=0.9))
    explanation = explain(port, narrow("mlp28"), steps=1)
    assert explanation.fields == {"adam_beta1": 0.9, "generator_output": "none", "real_label": 0.9}
    assert [place.stage for place in explanation.located] == ["gradients of the discriminator"]
    assert explanation.located[0].note == "0.5 times what is expected"
    data = explanation.to_dict()
    assert data["verdict"] == explanation.verdict == "partly named"
    first = {  # where each shows first
        "generator, running statistics": {"generator_output": "none"},
        "loss functions": {"real_label": 0.9},
        "Adam alone": {"adam_beta1": 0.9},
    }
    assert {n["stage"]: n["fields"] for n in data["named"]} == first
    place = {"stage": "gradients of the discriminator", "note": "0.5 times what is expected"}
    assert [place.items() <= found.items() for found in data["located"]] == [True]


def test_a_network_that_no_convention_explains_runs_by_itself() -> None:
    explanation = explain(OwnActivation(), narrow("mlp28"), steps=1)
    assert not explanation.traps
    assert {place.stage for place in explanation.located} == {
        "discriminator, running statistics",
        "discriminator, batch statistics",
    }
    assert "losses of the generator" not in explanation.missing


def test_one_network_alone_has_it() -> None:
    explanation = explain(OwnBetaInD(), narrow("mlp28"), steps=1)
    (trap,) = explanation.traps
    assert (trap.fields, trap.network) == ({"adam_beta1": 0.9}, "discriminator")


def test_a_forward_pass_of_one_network_is_named_with_it() -> None:
    explanation = explain(ForgetsEval(), narrow("conv28"), steps=1)
    (trap,) = explanation.traps
    assert (trap.fields, trap.network) == ({"batch_norm_passes": "always_batch"}, "generator")
    assert not explanation.located


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_one_optimizer_alone_decays(network: str) -> None:
    class Decays(ReferenceImplementation):
        gradients = None

        def train_step(self, state: Any, real_images: Any, latents: Any) -> dict[str, float]:
            both = {"generator": Conventions(), "discriminator": Conventions()}
            both |= {network: Conventions(adam_weight_decay=0.01)}
            own = Step(state.spec, both["discriminator"], both["generator"])
            step = own.run(state.arrays, real_images, latents)
            state.arrays = step.arrays
            return step.metrics

    found = explain(Decays(), narrow("mlp28"), steps=1)
    assert [(t.fields, t.network) for t in found.traps] == [({"adam_weight_decay": 0.01}, network)]
    assert not found.located


@pytest.mark.parametrize("returns", ["clipped", "as they were"])
def test_gradients_are_returned_clipped_or_as_they_were(returns: str) -> None:
    c = Conventions(gradient_clipping="norm", gradient_clip=1e-3)

    class Clips(WithoutLoss):
        def gradients(self, state: Any, real_images: Any, latents: Any) -> dict[str, Any]:
            found = super().gradients(state, real_images, latents)
            for name in ("generator", "discriminator") if returns == "clipped" else ():
                own = {n: g for n, g in found.items() if n.startswith(name)}
                found |= clipped(own, settings_of(state.spec, name, c))
            return found

    wrong = {"gradient_clipping": "norm", "gradient_clip": 1e-3}
    assert explain(Clips(c), narrow("mlp28"), steps=1).fields == wrong


def test_scaled_gradients_are_not_clipped_too() -> None:
    """A scale of 65536 and a bound make any number the bound: what signs are explained by."""
    scaled = Conventions(generator_gradient_scale=65536.0)
    sides = Sides(scaled, scaled)
    assert with_change(sides, {"gradient_clipping": "value"}, "both") is None
    assert with_change(sides, {"real_label": 0.9}, "both") is not None


def test_a_small_difference_is_not_float32() -> None:
    explanation = explain(Dimmed(), narrow("mlp28"), steps=1)
    assert (explanation.verdict, explanation.traps) == ("unexplained", [])
    assert explanation.located[0].note == "1.00001 times what is expected"


# --- what no convention explains ----------------------------------------------------------------


def test_float32_inside_a_float64_run() -> None:
    explanation = explain(Float32Inside(), narrow("mlp28"), steps=1)
    assert explanation.fields == {"dtype": "float32"}
    assert explanation.traps[0].fix["row"] == "keras-layer-dtype"


def test_eight_bits_are_not_float32() -> None:
    """They lose small changes too."""
    explanation = explain(EightBits(), narrow("mlp28"), steps=1)
    assert (explanation.verdict, explanation.traps) == ("unexplained", [])


def test_a_mistake_in_no_catalogue_is_unexplained_and_located() -> None:
    explanation = explain(ScaledGradient(), narrow("mlp28"))
    assert explanation.verdict == "unexplained"
    assert explanation.first is not None
    assert explanation.first.array == "discriminator/dense_2/kernel"
    assert explanation.first.relative == pytest.approx(0.5)
    assert explanation.tried > 50
    assert not explanation.traps


@pytest.mark.parametrize(("raises", "steps"), [(True, 10), (False, 0)])
def test_what_cannot_be_computed_at_some_numbers_is_named_by_others(
    raises: bool, steps: int
) -> None:
    """Of random scores few batches lie between 0 and 1: a probe is drawn until one does."""
    spec = get_fault("discriminator_output_none").spec
    explanation = explain(WantsProbabilities(raises), spec, steps=steps)
    assert explanation.verdict == "named"
    assert explanation.fields == {"discriminator_output": "none"}


def test_moments_that_are_not_those_of_the_update_name_no_learning_rate() -> None:
    """The move over the moments that are left is 1 / 0.9 of the right one, in every probe."""
    explanation = explain(ForgetsATenth(), narrow("mlp28"), steps=1)
    assert not explanation.traps
    located = [f"Adam's second moments of the {n}" for n in ("discriminator", "generator")]
    assert [place.stage for place in explanation.located] == located


@pytest.mark.parametrize(("size", "is_tried"), [(2, False), (4, True)])
def test_a_half_of_one_image_is_not_tried(size: int, is_tried: bool) -> None:
    """Batch norm has no statistics of it: PyTorch's raises."""
    tried = changes(narrow("conv28").replace(batch_size=size), ["step"])
    assert any("batch_part" in change for change in tried) is is_tried


def test_a_step_that_raises() -> None:
    explanation = explain(Raises(), narrow("mlp28"))
    assert explanation.verdict == "unexplained"
    assert "train_step() raised RuntimeError: out of luck" in explanation.findings


def test_a_later_step_that_raises_takes_no_name_back() -> None:
    explanation = explain(RaisesAtStepThree(), narrow("mlp28"), steps=5)
    assert (explanation.verdict, explanation.fields) == ("partly named", {"adam_beta1": 0.9})
    assert "train_step() raised RuntimeError: out of luck" in explanation.findings


@pytest.mark.parametrize(("limit", "is_reported"), [(0, True), (300, True), (10**6, False)])
def test_a_search_that_was_ended_is_reported(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_reported: bool
) -> None:
    monkeypatch.setattr("shared.explain.search.MOST_WORK", limit)
    port = AdamAlone(adam_beta1=0.61, adam_epsilon=1e-7, adam_weight_decay=0.3)
    explanation = explain(port, narrow("mlp28"))
    assert (explanation.verdict == "unexplained") == is_reported
    assert any("the search was ended after" in note for note in explanation.findings) == is_reported


def test_half_a_sum_over_the_batch_is_not_twice_the_mean() -> None:
    wrong = {"loss_reduction": "sum", "discriminator_loss_scale": 0.5}
    assert explain(WithoutLoss(Conventions(**wrong)), narrow("mlp28"), steps=1).fields == wrong


def test_a_port_of_one_batch_size() -> None:
    port = OfOneBatchSize(Conventions(real_label=0.9))
    assert explain(port, narrow("mlp28"), steps=1).fields == {"real_label": 0.9}


def test_three_mistakes_in_one_stage() -> None:
    wrong = {"loss_reduction": "sum", "real_label": 0.9, "discriminator_loss_scale": 0.5}
    assert explain(WithoutLoss(Conventions(**wrong)), narrow("mlp28"), steps=1).fields == wrong


def test_betas_that_are_exchanged_are_one_mistake() -> None:
    found = explain(AdamAlone(adam_beta1=0.999, adam_beta2=0.5), narrow("mlp28"))
    assert found.named == ["Adam's betas exchanged: 0.999 and 0.5"]


def test_what_is_left_to_a_framework_is_one_finding() -> None:
    keras = AdamAlone(adam_beta1=0.9, adam_epsilon=1e-7, adam_epsilon_placement="before_correction")
    found = explain(keras, narrow("mlp28"))
    together = "defaults of Keras: adam_epsilon, adam_epsilon_placement, adam_beta1"
    assert found.left_alone == found.to_dict()["findings"] == [together]
    assert not explain(AdamAlone(adam_beta1=0.9), narrow("mlp28")).left_alone


def test_nothing_to_compare() -> None:
    explanation = explain(object(), narrow())
    assert explanation.verdict == "unexplained"
    assert "there was nothing to compare" in explanation.findings


# --- the catalogue ------------------------------------------------------------------------------


def test_every_field_has_a_fix_and_its_row() -> None:
    assert {field.name for field in dataclasses.fields(Conventions)} | {"dtype"} == set(FIXES)
    assert {fix["row"] for fix in FIXES.values()} <= set(rows())


def test_every_number_is_fitted_but_the_counter() -> None:
    numbers = {
        field.name
        for field in dataclasses.fields(Conventions)
        if isinstance(getattr(Conventions(), field.name), float | None)
        and field.name != "initializer"
    }
    assert set(FITTED) == numbers
    assert set(KNOWN_NUMBERS) == numbers | {"adam_step_offset", "batch_norm_replicas"}


@pytest.mark.slow
def test_a_wrong_value_counts_as_wrong() -> None:
    explanation = explain(
        ReferenceImplementation(Conventions(leaky_relu_slope=0.3)), narrow(), steps=1
    )
    assert same_fields(explanation, {"leaky_relu_slope": 0.3})
    assert not same_fields(explanation, {"leaky_relu_slope": 0.31})
    assert not same_fields(explanation, {"leaky_relu_slope": 0.3, "adam_beta1": 0.9})
    assert not same_fields(explanation, {})


@pytest.mark.parametrize("d_steps", [1, 2])
@pytest.mark.parametrize("order", ["simultaneous", "generator_first"])
def test_orders_that_cannot_be_told_apart_are_said_to_be_so(order: str, d_steps: int) -> None:
    """Where no statistics move in G's step, both let G learn from the old D; two updates differ."""
    fields = {"update_order": order, "batch_norm_statistics": "not_in_generator_step"}
    spec = narrow(discriminator_steps=d_steps)
    found = explain(ReferenceImplementation(Conventions(**fields)), spec, steps=1)
    (title,) = (trap.title for trap in found.traps if "update_order" in trap.fields)
    others = {"simultaneous", "generator first"} if d_steps == 1 else {order.replace("_", " ")}
    assert {o for o in ("simultaneous", "generator first") if o in title} == others
    assert ("; or " in title) == (d_steps == 1)
    if d_steps > 1:
        assert found.fields == fields


def test_losses_in_float32() -> None:
    """A loss of Keras that was made in float32 casts scores; the rest of a float64 run does not."""

    class Rounded(ReferenceImplementation):
        def train_step(self, state: Any, real: Any, z: Any) -> dict[str, float]:
            losses = super().train_step(state, real, z)
            return {name: float(np.float32(value)) for name, value in losses.items()}

    slope = {"leaky_relu_slope": 0.2 + 1e-8}  # which float32 would hide
    found = explain(Rounded(Conventions(**slope)), narrow(), steps=1)
    assert [t.title for t in found.traps][1:] == ["it computes its losses in float32"]
    assert found.fields["leaky_relu_slope"] == pytest.approx(0.2 + 1e-8, rel=1e-9)
    assert not found.located


def test_a_factor_of_one_size_of_batch_is_no_scale() -> None:
    """A mean over one more than there are, of which 4 / 5 of one half is 0.4."""

    class OneMore(ReferenceImplementation):
        def loss(self, loss: str, real: Any, fake: Any, **labels: float) -> Any:
            found = vars(super().loss(loss, real, fake, **labels))
            n = len(real)
            return LossValues(**{name: x * n / (n + 1) for name, x in found.items()})

    found = explain(OneMore(), narrow("mlp28").replace(loss="lsgan"), steps=1)
    assert not found.traps
    assert [place.stage for place in found.located] == ["loss functions"]


def test_what_goes_back_through_an_unknown_network_has_no_name() -> None:
    """Scores times 0.7 scale the gradient too, of which two updates of D are made."""
    require_framework("pytorch")
    spec = narrow("mlp28").replace(loss="lsgan", discriminator_steps=2)
    (fault,) = (fault for fault in OUTSIDE if fault.name == "outside_scores_with_temperature")
    with mutated("pytorch", [fault]) as implementation:
        found = explain(implementation, spec, steps=1)
    assert not found.traps
    assert {place.stage.split(",")[0] for place in found.located} == {"discriminator"}
    assert "not judged" in found.missing["updated parameters of the discriminator"]


def test_losses_that_are_float32_numbers_by_chance_are_not_in_float32() -> None:
    class Quarters(ReferenceImplementation):
        def loss(self, *given: Any, **labels: float) -> Any:
            found = vars(super().loss(*given, **labels))
            return LossValues(**{name: np.round(4.0 * x) / 4.0 for name, x in found.items()})

    found = explain(Quarters(), narrow("mlp28").replace(loss="lsgan"), steps=1)
    assert not found.traps
    assert [place.stage for place in found.located] == ["loss functions"]
