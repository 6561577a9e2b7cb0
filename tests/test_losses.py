"""Losses: gradients against autodiff and closed forms, clipping, stability, and targets that don't fit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from jax.test_util import check_vjp

import funcnn as fnn
from tests.cases import FLOATS, KEY, LOSSES, WIDEST, cast, named, relative_gap

TOLERANCES = {jnp.float64: 1e-13, jnp.float32: 1e-5, jnp.bfloat16: 5e-2}
every_loss = pytest.mark.parametrize(**named(LOSSES))


def both(loss, prediction, target, dloss):
    value, residuals = loss.forward(prediction, target)
    by_autodiff = jax.vjp(lambda p: loss.forward(p, target)[0], prediction)[1](dloss)[0]
    return value, loss.backward(residuals, dloss), by_autodiff


@every_loss
@pytest.mark.parametrize("dtype", FLOATS, ids=[dtype.__name__ for dtype in FLOATS])
def test_backward_is_the_vjp_of_forward(case, dtype):
    prediction, target = cast((case.prediction, case.target), dtype)
    value, by_hand, by_autodiff = jax.jit(both, static_argnums=0)(
        case.loss, prediction, target, jnp.asarray(-1.7, dtype)
    )
    assert relative_gap(by_hand, by_autodiff) <= TOLERANCES[dtype]
    chex.assert_equal_shape([by_hand, prediction])
    assert by_hand.dtype == value.dtype == dtype
    assert value.shape == ()


@every_loss
@pytest.mark.skipif(WIDEST != jnp.float64, reason="finite differences need float64's digits")
def test_backward_agrees_with_finite_differences(case):
    def vjp(prediction):
        value, residuals = case.loss.forward(prediction, case.target)
        return value, lambda dloss: (case.loss.backward(residuals, jnp.asarray(dloss)),)

    forward = jax.jit(lambda prediction: case.loss.forward(prediction, case.target)[0])
    check_vjp(forward, vjp, (case.prediction,), atol=1e-6, rtol=1e-6, eps=1e-6)


@every_loss
def test_the_batch_mean_is_taken_once(case):
    """Twice the same batch is the same loss, with half the gradient for each copy."""
    twice = jax.tree.map(lambda array: jnp.concatenate([array, array]), (case.prediction, case.target))
    value, residuals = case.loss.forward(case.prediction, case.target)
    value_of_two, residuals_of_two = case.loss.forward(*twice)
    one = jnp.ones((), WIDEST)
    np.testing.assert_allclose(value_of_two, value, rtol=1e-6)
    halves = case.loss.backward(residuals_of_two, one)
    np.testing.assert_allclose(2 * halves[: len(case.prediction)], case.loss.backward(residuals, one), rtol=1e-5)


class WithAndWithoutJit(chex.TestCase):
    """The values, by formulas that share nothing with the code."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters((case.name, case) for case in LOSSES)
    def test_value(self, case):
        p, y = np.float64(case.prediction), np.asarray(case.target)
        rows = np.eye(3)[y] if y.ndim == 1 else np.float64(y)
        log_softmax = p - np.log(np.exp(p).sum(axis=1, keepdims=True))
        expected = {
            "mean_squared_error": lambda: np.mean((p - rows) ** 2),
            "binary_cross_entropy": lambda: -np.mean(rows * np.log(p) + (1 - rows) * np.log(1 - p)),
            "categorical_cross_entropy": lambda: -np.mean(np.sum(rows * np.log(p), axis=1)),
            "sigmoid_cross_entropy": lambda: np.mean(np.log1p(np.exp(p)) - p * rows),
            "softmax_cross_entropy": lambda: -np.mean(np.sum(rows * log_softmax, axis=1)),
        }[next(name for name in vars(fnn) if getattr(fnn, name) is case.loss)]()
        value = self.variant(lambda p, y: case.loss.forward(p, y)[0])(case.prediction, case.target)
        np.testing.assert_allclose(value, expected, rtol=1e-5 if WIDEST != jnp.float64 else 1e-13)


@pytest.mark.parametrize("dtype", FLOATS, ids=[dtype.__name__ for dtype in FLOATS])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_certain_and_wrong_is_clipped_and_has_the_clipped_gradient(name, dtype):
    loss = getattr(fnn, name)
    p, y = jnp.array([[0.0, 1.0]], dtype), jnp.array([[1.0, 0.0]], dtype)
    value, by_hand, by_autodiff = both(loss, p, y, jnp.ones((), dtype))
    np.testing.assert_allclose(float(loss.forward(p[:, :1], y[:, :1])[0]), -np.log(1e-7), rtol=1e-2)
    assert bool(jnp.isfinite(value))
    assert not by_hand.any()
    assert not by_autodiff.any()


def test_logits_losses_far_out():
    z = jnp.array([[1e4, -1e4, 0.0]], jnp.float32)
    for loss, target in (
        (fnn.sigmoid_cross_entropy, jnp.array([[0.0, 1.0, 1.0]], jnp.float32)),
        (fnn.softmax_cross_entropy, jnp.array([1])),
    ):
        value, by_hand, by_autodiff = both(loss, z, target, jnp.ones((), jnp.float32))
        assert bool(jnp.isfinite(value) & jnp.isfinite(by_hand).all())
        np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-7)


def test_logits_losses_keep_small_losses():
    """log(1 + e⁻²⁰) is 2e−9: a form that subtracts 20 from 20 + 2e−9 returns 0 in float32."""
    value = fnn.sigmoid_cross_entropy.forward(jnp.array([[20.0]], jnp.float32), jnp.array([[1.0]], jnp.float32))[0]
    np.testing.assert_allclose(value, np.log1p(np.exp(-20.0)), rtol=1e-5)


def test_autodiff_and_hand_agree_at_logit_zero():
    _, by_hand, by_autodiff = both(
        fnn.sigmoid_cross_entropy, jnp.zeros((2, 1), WIDEST), jnp.array([[0.0], [1.0]], WIDEST), jnp.ones((), WIDEST)
    )
    np.testing.assert_array_equal(by_hand, [[0.25], [-0.25]])
    np.testing.assert_array_equal(by_autodiff, by_hand)


def test_losses_on_logits_are_those_on_probabilities():
    z = jax.random.normal(KEY, (6, 3), WIDEST)
    bits, labels = (z.T.reshape(6, 3) > 0).astype(WIDEST), jnp.arange(6) % 3
    pairs = [
        (fnn.sigmoid_cross_entropy, fnn.binary_cross_entropy, fnn.sigmoid_forward, bits),
        (fnn.softmax_cross_entropy, fnn.categorical_cross_entropy, fnn.softmax_forward, labels),
    ]
    for on_logits, on_probabilities, squash, target in pairs:
        expected = on_probabilities.forward(squash(z)[0], target)[0]
        np.testing.assert_allclose(on_logits.forward(z, target)[0], expected, rtol=1e-5)


def test_a_label_outside_the_classes_is_nan_where_it_cannot_be_read():
    loss = jax.jit(lambda labels: fnn.softmax_cross_entropy.forward(jnp.zeros((2, 3), WIDEST), labels)[0])
    assert bool(jnp.isnan(loss(jnp.array([0, 3]))))
    assert bool(jnp.isnan(loss(jnp.array([-1, 0]))))


def test_ten_thousand_classes_build_no_one_hot_array_in_forward():
    logits, labels = jax.ShapeDtypeStruct((8, 10_000), WIDEST), jax.ShapeDtypeStruct((8,), jnp.int32)
    program = str(jax.make_jaxpr(lambda z, y: fnn.softmax_cross_entropy.forward(z, y)[0])(logits, labels))
    assert "10000] = eq" not in program


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32"])
@pytest.mark.parametrize("classes", [3, 128, 256, 300, 400])
def test_narrow_label_dtypes_hold_any_number_of_classes(name, dtype, classes):
    loss = getattr(fnn, name)
    scores = fnn.softmax_forward(jax.random.normal(KEY, (4, classes), WIDEST))[0]
    labels = jnp.array([0, 1, 2, min(classes, 127) - 1])
    one = jnp.ones((), WIDEST)
    expected_value, expected, _ = both(loss, scores, labels, one)
    value, by_hand, by_autodiff = both(loss, scores, labels.astype(dtype), one)
    np.testing.assert_array_equal(value, expected_value)
    np.testing.assert_array_equal(by_hand, expected)
    assert relative_gap(by_hand, by_autodiff) <= TOLERANCES[WIDEST]


def test_under_jit_a_label_that_is_no_class_adds_nothing_by_hand_and_by_autodiff():
    logits = jax.random.normal(KEY, (2, 3), WIDEST)
    _, by_hand, by_autodiff = jax.jit(both, static_argnums=0)(
        fnn.softmax_cross_entropy, logits, jnp.array([0, 3]), jnp.ones((), WIDEST)
    )
    assert not by_hand[1].any()
    np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-7)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_under_jit_a_probability_outside_0_1_is_nan_and_not_clipped(name, wrong):
    p = jnp.full((4, 3), 1 / 3, WIDEST).at[0, 0].set(wrong)
    target = jnp.eye(4, 3, dtype=WIDEST)
    assert bool(jnp.isnan(jax.jit(getattr(fnn, name).forward)(p, target)[0]))


@pytest.mark.parametrize("name", ["mean_squared_error", "binary_cross_entropy", "sigmoid_cross_entropy"])
def test_float16_gradients_of_more_entries_than_it_can_count(name):
    p, y = jnp.full((70_000, 1), 0.25, jnp.float16), jnp.ones((70_000, 1), jnp.float16)
    residuals = getattr(fnn, name).forward(p, y)[1]
    assert bool((getattr(fnn, name).backward(residuals, jnp.ones((), jnp.float16)) < 0).all())


def test_labels_pass_where_jax_stops_at_every_nan():
    with jax.debug_nans(True):
        fnn.softmax_cross_entropy.forward(jnp.zeros((2, 3), WIDEST), jnp.array([0, 2]))


P = jnp.full((4, 3), 1 / 3, WIDEST)
ALL = ["mean_squared_error", "binary_cross_entropy", "sigmoid_cross_entropy"]
CLASSES = ["categorical_cross_entropy", "softmax_cross_entropy"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 3), (3,), (4, 3, 1)])
def test_targets_that_would_broadcast_are_refused(name, shape, as_for_users):
    with pytest.raises(ValueError, match=f"{name}: expected targets of the prediction's shape .* would broadcast"):
        getattr(fnn, name).forward(P, jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shape", [(4, 2), (4, 1), (3, 3), (3,), ()])
def test_class_targets_of_another_shape_are_refused(name, shape, as_for_users):
    with pytest.raises(ValueError, match=f"{name}: expected class labels of shape .*3 outputs, one for each class"):
        getattr(fnn, name).forward(P, jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_outside_the_classes_are_refused(name, wrong, as_for_users):
    with pytest.raises(ValueError, match=rf"expected class labels from 0 to 2, got {wrong} at index \(1,\)"):
        getattr(fnn, name).forward(P, jnp.array([0, wrong, 1, 2]))


@pytest.mark.parametrize("name", CLASSES)
def test_labels_that_are_not_integers_are_refused(name, as_for_users):
    with pytest.raises(TypeError, match="expected class labels of an integer dtype, got float"):
        getattr(fnn, name).forward(P, jnp.zeros(4, WIDEST))


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, jnp.nan])
def test_probabilities_outside_0_1_are_refused(name, wrong, as_for_users):
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\], got .* at index \(0, 0\).*loss on logits"):
        getattr(fnn, name).forward(P.at[0, 0].set(wrong), jnp.zeros((4, 3), WIDEST))


@pytest.mark.parametrize("name", [*ALL[1:], *CLASSES])
def test_targets_outside_0_1_are_refused(name, as_for_users):
    with pytest.raises(ValueError, match=r"\(target\): expected values in \[0, 1\], got 2.0"):
        getattr(fnn, name).forward(P, jnp.full((4, 3), 2.0, WIDEST))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16])
def test_targets_of_another_dtype_are_refused(name, dtype, as_for_users):
    with pytest.raises(TypeError, match=r"expected targets in the prediction's dtype .*y\.astype"):
        getattr(fnn, name).forward(P, jnp.zeros((4, 3), dtype))


@pytest.mark.parametrize("name", [*ALL, *CLASSES])
def test_integer_and_empty_predictions_are_refused(name, as_for_users):
    with pytest.raises(TypeError, match=rf"{name}\(prediction\): expected a floating dtype, got int32"):
        getattr(fnn, name).forward(jnp.zeros((4, 3), jnp.int32), jnp.zeros((4, 3), WIDEST))
    with pytest.raises(ValueError, match=f"{name}: expected a batch of at least one prediction"):
        getattr(fnn, name).forward(jnp.zeros((0, 3), WIDEST), jnp.zeros((0, 3), WIDEST))
