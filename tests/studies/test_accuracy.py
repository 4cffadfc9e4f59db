"""How accurate the losses are, that stock ones fail the same bounds, and the tables of the docs."""

import copy
import os

import numpy as np
import pytest

from shared.fixtures import LOSS_FIELDS
from shared.fixtures.exact_losses import exact_loss, exact_losses
from shared.interface import Implementation
from shared.reference.comparison import ulp_error
from shared.spec import LOSS_NAMES
from shared.studies import accuracy
from shared.studies.accuracy import (
    DTYPES,
    LOSSES,
    TARGETS,
    batches_of_one,
    measure,
    sweep_scores,
)
from tests import ROOT
from tests.implementations.test_losses import numpy_dtype
from tests.studies import accuracy_tables
from tests.studies.accuracy_tables import END, START, differences, from_markdown
from tests.studies.stock_losses import Formula
from tests.tiers import SLOW_IN_TF_AND_JAX, one_in

DOCS = ROOT / "docs" / "losses.md"

# ULP of value and gradient. Measured over the sweep, the worst of the three in every run:
# bce (and minimax) 1.87 / 1.77, bce_probs 2.14 / 1.87, lsgan 1.78 / 0.50; bfloat16 0.50 / 0.50.
BOUNDS = {"bce": (2.0, 2.0), "bce_probs": (2.6, 2.0), "lsgan": (2.0, 0.51)}
# One rounding of a float32 result is half a ULP, and the float32 error adds 2 / 2¹⁶ to it.
BFLOAT16_BOUND = 0.501


def bounds(loss: str, dtype: str) -> tuple[float, float]:
    return (BFLOAT16_BOUND, BFLOAT16_BOUND) if dtype == "bfloat16" else BOUNDS[loss]


def formulas(implementation: Implementation, loss: str, name: str = "ours") -> list[Formula]:
    """Return one formula of an implementation's framework under every way to run it."""
    loaded = accuracy_tables.load_formulas(implementation.name)
    found = [f for f in loaded if f.loss == loss and f.name == name]
    assert len(found) == (1 if implementation.name == "pytorch" else 2)
    return found


def is_within(formula: Formula, dtype: str, every: int = 1) -> bool:
    errors = measure(formula.loss, formula.evaluate, dtype, every)
    pairs = zip(errors, bounds(formula.loss, dtype), strict=True)
    return all(error.ulp <= bound for error, bound in pairs)


@pytest.mark.parametrize("dtype", one_in(2, DTYPES))
@pytest.mark.parametrize("loss", LOSSES)
def test_ours_are_within_the_bounds(implementation: Implementation, loss: str, dtype: str) -> None:
    for formula in formulas(implementation, loss):
        assert is_within(formula, dtype), formula.run


@SLOW_IN_TF_AND_JAX
@pytest.mark.parametrize("dtype", DTYPES)
def test_batches_of_one_are_within_the_bounds(implementation: Implementation, dtype: str) -> None:
    """Kernels of a framework have another path for the numbers that fill no vector."""
    numpy_dtype(dtype)
    for loss in LOSSES:
        evaluate = batches_of_one(implementation, loss)
        assert is_within(Formula("", loss, "", "", evaluate), dtype, 25), loss


# (framework, formula, dtype, run) that must not pass the assertion that ours pass
STOCK_FAILURES = [
    ("pytorch", "BCEWithLogitsLoss", "float32", "eager"),
    ("pytorch", "F.softplus(±x)", "float64", "eager"),
    ("pytorch", "BCELoss(sigmoid(x))", "bfloat16", "eager"),
    ("tf", "tf.nn.sigmoid_cross_entropy_with_logits", "float32", "tf.function"),
    ("tf", "tf.nn.sigmoid_cross_entropy_with_logits", "bfloat16", "eager"),
    ("tf", "BinaryCrossentropy(from_logits=True)", "float64", "eager"),
    ("tf", "BinaryCrossentropy()(sigmoid(x))", "float32", "eager"),
    ("jax", "optax sigmoid_binary_cross_entropy", "float32", "jax.jit"),
    ("jax", "jax.nn.softplus(±x)", "float64", "eager"),
]


@pytest.mark.parametrize(("framework", "name", "dtype", "run"), STOCK_FAILURES)
def test_a_stock_loss_fails_the_same_bounds(
    implementation: Implementation, framework: str, name: str, dtype: str, run: str
) -> None:
    if implementation.name == framework:
        (formula,) = [f for f in formulas(implementation, "bce", name) if f.run == run]
        assert not is_within(formula, dtype)


def test_only_tf_function_spoils_the_gradient_of_the_stock_op(
    implementation: Implementation,
) -> None:
    """The reason why tf_impl/losses.py writes the gradient of this op itself."""
    if implementation.name != "tf":
        return
    eager, compiled = formulas(implementation, "bce", "tf.nn.sigmoid_cross_entropy_with_logits")
    score = np.array([18.0])
    gradients = [f.evaluate(score, 1.0, "float32")[1][0] for f in (eager, compiled)]
    assert ulp_error(gradients[0], exact_loss("bce", 18.0, 1.0)[1], "float32") <= 2.6
    assert gradients[1] == 0.0


# Gradients by a score of 0, or a probability of 0.5: exact in every dtype.
AT_ZERO = {
    "bce": (-0.5, 0.5, -0.5),
    "minimax": (-0.5, 0.5, -0.5),
    "bce_probs": (-2.0, 2.0, -2.0),
    "lsgan": (-1.0, 0.0, -1.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_gradients_at_zero(implementation: Implementation, loss: str, dtype: str) -> None:
    score = np.array([0.5 if loss == "bce_probs" else 0.0], numpy_dtype(dtype))
    for scores in (score, -score if loss != "bce_probs" else score):  # also at -0
        values = implementation.loss(loss, scores, scores)
        received = [getattr(values, name) for name in LOSS_FIELDS if name.endswith("gradient")]
        assert [float(x[0]) for x in received] == list(AT_ZERO[loss])


def test_a_loss_written_out_has_a_wrong_gradient_at_zero(implementation: Implementation) -> None:
    for formula in formulas(implementation, "bce", "relu(±x) + log1p(exp(-abs(x)))"):
        gradients = [float(formula.evaluate(np.zeros(1), y, "float32")[1][0]) for y in TARGETS]
        assert gradients == ([-0.5, -0.5] if implementation.name == "jax" else [0.0, 0.0])


# (framework, loss, score, target) whose value is nan instead of the truth: docs/losses.md.
DECLARED = {("tf", "bce", np.inf, 1.0), ("tf", "bce", np.inf, 0.0), ("tf", "bce", -np.inf, 0.0)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["bce", "lsgan"])
def test_infinite_scores_and_nan(implementation: Implementation, loss: str, dtype: str) -> None:
    for formula in formulas(implementation, loss):
        for score in (np.inf, -np.inf, np.nan):
            for target in TARGETS:
                results = [r[0] for r in formula.evaluate(np.array([score]), target, dtype)]
                expected = [float(x) for x in exact_loss(loss, score, target)]
                if (implementation.name, loss, score, target) in DECLARED:
                    expected[0] = float("nan")
                np.testing.assert_array_equal(results, expected, f"{score} {target}")


def test_no_probability(implementation: Implementation) -> None:
    """torch.nn.BCELoss raises; the others return nan."""
    for formula in formulas(implementation, "bce_probs"):
        for p in (np.nan, -0.1, 1.1):
            if implementation.name == "pytorch":
                with pytest.raises(RuntimeError, match="between 0 and 1"):
                    formula.evaluate(np.array([p]), 1.0, "float32")
            else:
                assert np.isnan(formula.evaluate(np.array([p]), 0.5, "float32")[0])


@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_a_batch_of_bfloat16_is_rounded_once(implementation: Implementation, loss: str) -> None:
    """Whatever its size: in bfloat16, the 1/n of the mean and the sum of two halves would round."""
    random = np.random.default_rng(0)
    for size in (7, 100, 128):
        draw = random.random if loss == "bce_probs" else lambda s: 3 * random.standard_normal(s)
        scores = draw((2, size)).astype(numpy_dtype("bfloat16"))
        values = implementation.loss(loss, *scores)
        for field, truth in exact_losses(loss, {}, *scores.astype(float).tolist()).items():
            actual = getattr(values, field)
            assert actual.dtype == scores.dtype
            errors = [
                ulp_error(a, t, "bfloat16")
                for a, t in zip(np.atleast_1d(actual), truth, strict=True)
            ]
            assert max(errors) <= BFLOAT16_BOUND, (field, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_scores_of_a_sweep_are_numbers_of_its_dtype(loss: str, dtype: str) -> None:
    scores = sweep_scores(loss, dtype)
    np.testing.assert_array_equal(scores.astype(numpy_dtype(dtype)).astype(np.float64), scores)
    assert len(scores) > 500
    if loss == "bce_probs":
        assert (scores * (1 - scores) > 1e-12).all()


@pytest.fixture(scope="module")
def tables(implementation: Implementation) -> dict[str, accuracy_tables.Table]:
    return accuracy_tables.make_tables(accuracy_tables.load_formulas(implementation.name))


@SLOW_IN_TF_AND_JAX
@pytest.mark.skipif(
    os.environ.get("GAN_TEST_DEVICE", "cpu") != "cpu", reason="the tables are those of a CPU"
)
def test_the_tables_of_the_docs_are_what_is_measured(
    tables: dict[str, accuracy_tables.Table],
) -> None:
    text = DOCS.read_text("utf-8")
    assert text.count(START) == text.count(END) == 1
    wrong = differences(from_markdown(text), tables)
    assert not wrong, "\n".join(wrong)


@SLOW_IN_TF_AND_JAX
def test_the_comparison_with_the_docs_catches_a_planted_fault(
    tables: dict[str, accuracy_tables.Table],
) -> None:
    title = accuracy_tables.TITLES["bce"]
    assert differences(from_markdown(accuracy_tables.to_markdown(tables)), tables) == []
    single_title = f"{title}: single scores, value / gradient"
    key = next(key for key in tables[title] if key[1] == "ours")
    for column, text in ((0, "7.00 (x = 3, y = 1)"), (3, "inf (x = 3, y = 1; inf ε)")):
        faulty = copy.deepcopy(tables)
        faulty[title][key][column] = text
        assert text in differences(faulty, tables)[0]
    missing, renamed, single = (copy.deepcopy(tables) for _ in range(3))
    del missing[title][key]
    renamed[title][key[0], "theirs", key[2]] = renamed[title].pop(key)
    single[single_title][key][0] = "0.6931 / 0"
    for faulty in (missing, renamed, single):
        assert differences(faulty, tables)


def test_the_command_measures_any_implementation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that they are set back at the end
    monkeypatch.setattr(accuracy, "DTYPES", ("float32", "float64"))
    assert accuracy.main(["reference"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["implementation", "loss", "dtype"]
    assert [row.split()[:3] for row in rows] == [
        ["reference", loss, dtype] for loss in LOSSES for dtype in ("float32", "float64")
    ]
    of_float32 = [row for row in rows if " float32 " in row]
    # float64 held against float32's ULP: its own error is a billionth of one.
    assert all(row.split()[3] == "0.00" for row in of_float32)
    assert accuracy.main(["no_such_module"]) == 2
    assert "unknown implementation 'no_such_module'" in capsys.readouterr().err


def test_an_exploded_error_is_shown_in_both_units() -> None:
    assert accuracy.shown(accuracy.Error(1.5, 0.5, 3.0, 1.0)) == "1.50 (score 3, target 1)"
    far = accuracy.Error(2e7, 0.5, 3.0, 0.0)
    assert accuracy.shown(far) == "2.0e+07 (score 3, target 0; 0.5 ε)"
