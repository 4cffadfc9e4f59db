"""Two recordings: right pairs are accused of nothing, planted traps are named."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from shared.explain.catalogue import FIXES
from shared.explain.recordings import format_report
from shared.spec import Conventions
from tests import ROOT
from tests.explain.recorded_loops import Written, explained, fields, normal, pair_of, run
from tests.tiers import one_in


@pytest.mark.parametrize("declared", [True, False], ids=["layouts declared", "layouts found"])
@pytest.mark.parametrize("seed", one_in(10, range(20)))
def test_a_right_pair_is_accused_of_nothing(tmp_path: Path, seed: int, declared: bool) -> None:
    written = run(Conventions(), seed=seed)
    dtype, noise = (("float64", 1e-15), ("float32", 1e-7))[seed % 2]
    report = explained(
        tmp_path, written, written, pytorch=True, declared=declared, dtype=dtype, noise=noise
    )
    assert len(report.pairs) == len(written)
    assert report.first_difference is None
    assert report.traps == ()
    assert report.findings == ()


def test_a_network_that_stands_still_has_no_betas_of_1(tmp_path: Path) -> None:
    written, made = run(Conventions()), ("gradient", "m", "v")
    first = {name: array for step, name, array in written if step == 0}
    kinds = {name: name.rsplit("/", 1)[-1] for _, name, _ in written if name.startswith("g")}
    own = {name: np.zeros(()) if kind in made else first.get(name) for name, kind in kinds.items()}
    still = [
        (step, name, array if own.get(name) is None else own[name] + 0.0 * array)
        for step, name, array in written
    ]
    report = explained(tmp_path, written, still)
    assert not fields(report) & {"adam_beta1", "adam_beta2", "adam_weight_decay"}


@pytest.mark.parametrize(("latents", "is_certain"), [(8, True), (4, False)])
def test_a_factor_is_a_sum_where_one_size_of_batch_is_recorded(
    tmp_path: Path, latents: int, is_certain: bool
) -> None:
    """Twice the sum over a batch of 4 is no sum over 8 images of two batches."""
    shown = {"real_images": normal(8, 2, 2, 3), "latents": normal(latents, 5)}
    one, eight = ({"discriminator_loss": np.array(x)} for x in (0.3, 2.4))
    (trap,) = pair_of(tmp_path, shown | one, shown | eight).traps
    assert (trap.field, trap.certain) == ("loss_reduction", is_certain)


@pytest.mark.parametrize(("factor", "named"), [(8192 / 8191, True), (1.0 + 0.95e-4, False)])
def test_a_factor_near_1_is_that_of_the_biased_variance(
    tmp_path: Path, factor: float, named: bool
) -> None:
    """In float32 both are within four bounds of n / (n - 1); one by chance."""
    x, var = normal(8, 32, 32, 2).astype(np.float32), np.array([0.26845056, 0.28717187])
    sides = ({"d/bn/input": x, "d/bn/var": v.astype(np.float32)} for v in (var, var * factor))
    report = pair_of(tmp_path, *sides)
    assert report.first_difference is not None
    assert fields(report) == ({"batch_norm_running_variance"} if named else set())


# Every deviation of the reference that these recordings can show, and what must be named.
TRAPS = {
    "batch_norm_epsilon": 1e-3,
    "batch_norm_momentum": 0.9,
    "batch_norm_running_variance": "biased",
    "batch_norm_statistics": "never",
    "conv_transpose_kernel": "flipped",
    "padding_alignment": "before",
    "loss_reduction": "sum",
    "adam_beta1": 0.9,
    "adam_beta2": 0.99,
    "adam_epsilon_placement": "before_correction",
    "adam_bias_correction": False,
    "adam_epsilon": 1e-3,
    "generator_learning_rate": 1e-3,
}


# Every pair of field, dtype and side, not every combination.
SIDES = ("first", "second")
TRAP_CASES = [
    (field, dtype, SIDES[(turn + of_dtype) % 2])
    for turn, field in enumerate(TRAPS)
    for of_dtype, dtype in enumerate(("float64", "float32"))
]


@pytest.mark.parametrize(("field", "dtype", "side"), one_in(5, TRAP_CASES))
def test_a_planted_trap_is_named(tmp_path: Path, field: str, dtype: str, side: str) -> None:
    right, wrong = run(Conventions()), run(Conventions().replace(**{field: TRAPS[field]}))
    pair = (wrong, right) if side == "first" else (right, wrong)
    report = explained(tmp_path, *pair, pytorch=True, dtype=dtype)
    if field == "adam_epsilon_placement" and dtype == "float32":
        # The gradients are far above epsilon: float32's rounding may hide the place, not turn it.
        assert fields(report) <= {field}
        return
    named = [trap for trap in report.traps if trap.field == field]
    assert len(named) == 1, format_report(report)
    value = named[0].first if side == "first" else named[0].second
    assert value == str(TRAPS[field])
    assert named[0].anchor == FIXES[field]["row"]
    assert fields(report) == {field}, format_report(report)


def test_statistics_that_stand_still_in_one_network_are_that_networks(tmp_path: Path) -> None:
    never = run(Conventions(batch_norm_statistics="not_of_generator"))
    report = explained(tmp_path, run(Conventions()), never)
    named = [(trap.field, trap.first, trap.second) for trap in report.named]
    assert named == [("batch_norm_statistics", "every_pass", "not_of_generator")]


# --- layout traps ------------------------------------------------------------------------------


def test_a_kernel_reshaped_instead_of_transposed_is_named(tmp_path: Path) -> None:
    oihw = normal(5, 3, 4, 4)
    report = pair_of(tmp_path, {"w/kernel": oihw.reshape(4, 4, 3, 5)}, {"w/kernel": oihw})
    assert [t.second for t in report.traps] == ["reshaped instead of transposed"]


def test_rows_and_columns_exchanged_are_named(tmp_path: Path) -> None:
    oihw = normal(5, 3, 4, 4)
    layouts = {"first": {"w/kernel": "HWIO"}, "second": {"w/kernel": "OIHW"}}
    wrong = pair_of(
        tmp_path, {"w/kernel": oihw.transpose(3, 2, 1, 0)}, {"w/kernel": oihw}, **layouts
    )
    assert [(t.field, t.second) for t in wrong.traps] == [("conv_kernel", "transposed")]
    right = pair_of(
        tmp_path, {"w/kernel": oihw.transpose(2, 3, 1, 0)}, {"w/kernel": oihw}, **layouts
    )
    assert right.traps == ()
    assert right.first_difference is None


def test_features_in_another_order_before_the_same_kernel_are_named(tmp_path: Path) -> None:
    hwc, kernel = normal(3, 4, 4, 8), normal(128, 5, seed=1)
    features, chw = hwc.reshape(3, 128), hwc.transpose(0, 3, 1, 2).reshape(3, 128)
    first = {"d/input": features, "d/kernel": kernel, "d/output": features @ kernel}
    wrong = {"d/input": chw, "d/kernel": kernel, "d/output": chw @ kernel}
    report = pair_of(tmp_path, first, wrong)
    named = [(t.field, t.anchor, t.first, t.second) for t in report.traps]
    assert named == [("flatten_order", "flatten-order", "hwc", "chw")]
    rows = kernel.reshape(4, 4, 8, 5).transpose(2, 0, 1, 3).reshape(128, 5)
    right = {"d/input": chw, "d/kernel": rows}
    assert pair_of(tmp_path, first, right | {"d/output": chw @ rows}).traps == ()
    assert pair_of(tmp_path, first, right).traps == ()


def test_an_image_reshaped_from_the_wrong_order_is_named(tmp_path: Path) -> None:
    flat = normal(2, 60)
    layouts = {"first": {"x": "NHWC"}, "second": {"x": "NCHW"}}
    images = {"x": flat.reshape(2, 3, 4, 5)}, {"x": flat.reshape(2, 5, 3, 4)}
    report = pair_of(tmp_path, *images, **layouts)
    named = [(t.field, t.anchor, t.first, t.second) for t in report.traps]
    assert named == [("flatten_order", "reshape-order", "hwc", "chw")]


# --- factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factor", "expected"),
    [
        ("discriminator/w/gradient", 16.0, {("loss_reduction", "mean", "sum", True)}),
        ("discriminator/w/gradient", 1 / 16, {("loss_reduction", "sum", "mean", True)}),
        (
            "generator/w/gradient",
            2.0,
            {
                ("lsgan_scale", "0.5", "1.0", False),
                ("generator_gradient_scale", "1.0", "2.0", False),
                ("generator_gradient_scale", "0.5", "1.0", False),
            },
        ),
        (
            "discriminator_loss",
            0.5,
            {
                ("lsgan_scale", "1.0", "0.5", False),
                ("discriminator_loss_scale", "1.0", "0.5", False),
            },
        ),
        ("generator_loss", -1.0, {(None, "the sign", "turned", True)}),
        ("generator/w/gradient", 1.7, set()),
        ("generator/w/output", 2.0, set()),  # neither of a loss nor of what follows from it
        ("generator/w/gradient", 12.0, set()),  # not the batch's size
        ("b/var", 16 / 15, {("batch_norm_running_variance", "biased", "unbiased", True)}),
        ("b/var", 15 / 16, {("batch_norm_running_variance", "unbiased", "biased", True)}),
    ],
)
def test_a_constant_factor_is_named(
    tmp_path: Path, name: str, factor: float, expected: set
) -> None:
    numbers = np.abs(normal(3, 5)) if name != "generator_loss" else np.array(0.7)
    x, layouts = normal(16, 5), {"first": {"b/input": "NF"}, "second": {"b/input": "NF"}}
    first, second = {"b/input": x, name: numbers}, {"b/input": x, name: factor * numbers}
    report = pair_of(tmp_path, first, second, **layouts)
    assert {(t.field, t.first, t.second, t.certain) for t in report.traps} == expected
    assert report.first_difference == 1


# --- what explains nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["generator/w/gradient", "generator_loss"])
@pytest.mark.parametrize("value", [0.0, 1e-320, np.inf, np.nan])
def test_a_side_that_is_nothing_or_no_number_has_no_factor(
    tmp_path: Path, name: str, value: float
) -> None:
    numbers, broken = normal(3, 5), np.full((3, 5), value)
    for first, second in ((numbers, broken), (broken, numbers)):
        report = pair_of(tmp_path, {name: first}, {name: second})
        assert report.first_difference == 0
        assert report.traps == ()


PARTS = (*("input", "output", "kernel", "scale", "bias", "mean", "var"), "", "gradient", "m", "v")


@pytest.mark.parametrize("seed", one_in(10, range(100)))
def test_shapes_that_make_no_sense_together_explain_nothing(tmp_path: Path, seed: int) -> None:
    """The names of every trap over tensors of small random shapes, two updates, all different."""
    draw = np.random.default_rng(seed)
    rank = {"input": 4, "output": 4, "kernel": 4} if seed % 2 else {}
    shapes = {p: draw.integers(1, 4, rank.get(p, draw.integers(0, 4))) for p in PARTS}
    if seed % 4 < 2:  # the output has the input's shape, as a normalisation's has
        shapes["output"] = shapes["input"]
    written: list[list[Written]] = [[], []]
    for step, part in itertools.product(range(3), PARTS):
        for side in written:
            name = f"d/layer/{part}".rstrip("/")
            side.append((step, name, draw.standard_normal(shapes[part])))
    report = explained(tmp_path, *written, declared=False)
    assert report.first_difference == 0
    assert report.traps == ()
    assert "no trap that could be checked explains it" in format_report(report)


def test_statistics_of_another_size_explain_nothing(tmp_path: Path) -> None:
    written: list[list[Written]] = [[], []]
    for seed, side in enumerate(written):
        for step, size in ((0, 4), (1, 3)):
            side += [
                (step, "b/mean", normal(4, seed=seed)),
                (step, "b/var", normal(size, seed=seed)),
            ]
        side += [(1, "b/input", normal(8, 4)), (1, "b/output", normal(8, 4, seed=seed))]
    report = explained(tmp_path, *written)
    assert not any(pair.agrees for pair in report.pairs if pair.one.name != "b/input")
    assert report.traps == ()


def test_every_row_that_is_named_is_on_the_porting_page() -> None:
    root = ROOT
    page = (root / "docs" / "porting.md").read_text()
    source = "".join(p.read_text() for p in (root / "shared/explain/recordings").glob("*.py"))
    named = {field for field in FIXES if f'"{field}"' in source} | {"generator_learning_rate"}
    assert named > TRAPS.keys()
    for row in {FIXES[field]["row"] for field in named} | {"generator-objective", "reshape-order"}:
        assert f'id="{row}"' in page, row
