"""Losses: gradients against autodiff and closed forms, clipping, stability, any rank, and targets that don't fit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import funcnn as fnn
from funcnn.losses import loss_spec
from tests.cases import FLOATS, KEY, LOSSES, WIDEST, cast, named, relative_gap

TOLERANCES = {jnp.float64: 1e-13, jnp.float32: 1e-5, jnp.bfloat16: 5e-2}
EPSILON = 1e-6
every_loss = pytest.mark.parametrize(**named(LOSSES))


def both(loss, prediction, target, dloss):
    """The value, the hand-written gradient and autodiff's."""
    value, residuals = loss.forward(prediction, target)
    by_autodiff = jax.vjp(lambda p: loss.forward(p, target)[0], prediction)[1](dloss)[0]
    return value, loss.backward(residuals, dloss), by_autodiff


def concatenated_twice(tree):
    return jax.tree.map(lambda array: jnp.concatenate([array, array]), tree)


@functools.cache
def results(name):
    """Every figure of a row, from one compiled program: compiling takes nearly all of the time."""
    case = next(case for case in LOSSES if case.name == name)

    @jax.jit
    def program(prediction, target):
        one, classes = jnp.ones((), WIDEST), prediction.shape[-1]
        flat_target = target.reshape(-1) if target.ndim < prediction.ndim else target.reshape(-1, classes)
        steps = EPSILON * jnp.eye(prediction.size, dtype=WIDEST).reshape(-1, *prediction.shape)

        def rise(step):
            return case.loss.forward(prediction + step, target)[0] - case.loss.forward(prediction - step, target)[0]

        return {
            "dtypes": [
                both(case.loss, *cast((prediction, target), dtype), jnp.asarray(-1.7, dtype)) for dtype in FLOATS
            ],
            "once": both(case.loss, prediction, target, one)[:2],
            "twice": both(case.loss, *concatenated_twice((prediction, target)), one)[:2],
            "flat": both(case.loss, prediction.reshape(-1, classes), flat_target, one)[:2],
            "numerical": jax.vmap(rise)(steps).reshape(prediction.shape) / (2 * EPSILON),
        }

    return program(case.prediction, case.target)


@every_loss
@pytest.mark.parametrize("dtype", FLOATS, ids=[dtype.__name__ for dtype in FLOATS])
def test_backward_is_the_vjp_of_forward(case, dtype):
    value, by_hand, by_autodiff = results(case.name)["dtypes"][FLOATS.index(dtype)]
    assert relative_gap(by_hand, by_autodiff) <= TOLERANCES[dtype]
    chex.assert_equal_shape([by_hand, case.prediction])
    assert by_hand.dtype == value.dtype == dtype
    assert value.shape == ()


@every_loss
@pytest.mark.skipif(WIDEST != jnp.float64, reason="finite differences need float64's digits")
def test_backward_agrees_with_finite_differences(case):
    _, by_hand = results(case.name)["once"]
    np.testing.assert_allclose(by_hand, results(case.name)["numerical"], atol=1e-6, rtol=1e-6)


@every_loss
def test_the_batch_mean_is_taken_once(case):
    """Twice the same batch is the same loss, with half the gradient for each copy."""
    value, gradient = results(case.name)["once"]
    value_of_two, halves = results(case.name)["twice"]
    np.testing.assert_allclose(value_of_two, value, rtol=1e-6)
    np.testing.assert_allclose(2 * halves[: len(case.prediction)], gradient, rtol=1e-5)


@pytest.mark.parametrize(**named([case for case in LOSSES if case.prediction.ndim > 2]))
def test_axes_between_batch_and_classes_are_a_larger_batch(case):
    value, gradient = results(case.name)["once"]
    flat_value, flat_gradient = results(case.name)["flat"]
    np.testing.assert_allclose(value, flat_value, rtol=TOLERANCES[WIDEST])
    np.testing.assert_allclose(gradient.reshape(flat_gradient.shape), flat_gradient, rtol=TOLERANCES[WIDEST])


@every_loss
@pytest.mark.parametrize("mode", ["with_jit", "without_jit"])
def test_value(case, mode):
    """The values, by formulas that share nothing with the code."""
    p, y = np.float64(case.prediction), np.asarray(case.target)
    rows = np.eye(3)[y] if y.ndim < p.ndim else np.float64(y)
    is_counted = y[..., None] >= 0 if y.ndim < p.ndim else np.ones((*y.shape[:-1], 1))
    smoothed = (0.8 * rows + 0.2 / 3) * is_counted
    size = np.abs(p - rows)
    log_softmax = p - np.log(np.exp(p).sum(axis=-1, keepdims=True))
    expected = {
        "mean_squared_error": lambda: np.mean((p - rows) ** 2),
        "binary_cross_entropy": lambda: -np.mean(rows * np.log(p) + (1 - rows) * np.log(1 - p)),
        "categorical_cross_entropy": lambda: -np.mean(np.sum(rows * np.log(p), axis=-1)),
        "sigmoid_cross_entropy": lambda: np.mean(np.log1p(np.exp(p)) - p * rows),
        "softmax_cross_entropy": lambda: -np.mean(np.sum(rows * log_softmax, axis=-1)),
        "absolute_error": lambda: np.mean(size),
        "huber": lambda: np.mean(np.where(size <= 0.7, size**2 / 2, 0.7 * (size - 0.35))),
        "hinge": lambda: np.mean(np.maximum(0, 1 - rows * p)),
        "kl_divergence": lambda: special.rel_entr(rows, np.exp(p)).sum(axis=-1).mean(),
        "softmax_cross_entropy_with": lambda: -np.sum(smoothed * log_softmax) / np.sum(is_counted),
    }[loss_spec(case.loss).name]()
    jitted = mode == "with_jit"
    value = results(case.name)["once"][0] if jitted else case.loss.forward(case.prediction, case.target)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-5 if WIDEST != jnp.float64 else 1e-13)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_certain_and_wrong_is_clipped_and_has_the_clipped_gradient(name):
    loss = getattr(fnn, name)

    def figures(dtype):
        p, y = jnp.array([[0.0, 1.0]], dtype), jnp.array([[1.0, 0.0]], dtype)
        return loss.forward(p[:, :1], y[:, :1])[0], both(loss, p, y, jnp.ones((), dtype))

    for clipped, (value, by_hand, by_autodiff) in jax.jit(lambda: [figures(dtype) for dtype in FLOATS])():
        np.testing.assert_allclose(float(clipped), -np.log(1e-7), rtol=1e-2)
        assert bool(jnp.isfinite(value))
        assert not by_hand.any()
        assert not by_autodiff.any()


@jax.jit
def far_out():
    z, one = jnp.array([[1e4, -1e4, 0.0]], jnp.float32), jnp.ones((), jnp.float32)
    bits = jnp.array([[0.0, 1.0, 1.0]], jnp.float32)
    return both(fnn.sigmoid_cross_entropy, z, bits, one), both(fnn.softmax_cross_entropy, z, jnp.array([1]), one)


def test_logits_losses_far_out():
    for value, by_hand, by_autodiff in far_out():
        assert bool(jnp.isfinite(value) & jnp.isfinite(by_hand).all())
        np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-7)


def test_logits_losses_keep_small_losses():
    """log(1 + e⁻²⁰) is 2e−9: a form that subtracts 20 from 20 + 2e−9 returns 0 in float32."""
    value = fnn.sigmoid_cross_entropy.forward(jnp.array([[20.0]], jnp.float32), jnp.array([[1.0]], jnp.float32))[0]
    np.testing.assert_allclose(value, np.log1p(np.exp(-20.0)), rtol=1e-5)


def test_autodiff_and_hand_agree_at_logit_zero():
    _, by_hand, by_autodiff = jax.jit(both, static_argnums=0)(
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
    compared = jax.jit(
        lambda z: [
            (on_logits.forward(z, target)[0], on_probabilities.forward(squash(z)[0], target)[0])
            for on_logits, on_probabilities, squash, target in pairs
        ]
    )
    for value, expected in compared(z):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_label_outside_the_classes_is_nan_where_it_cannot_be_read():
    loss = jax.jit(lambda labels: fnn.softmax_cross_entropy.forward(jnp.zeros((2, 3), WIDEST), labels)[0])
    assert bool(jnp.isnan(loss(jnp.array([0, 3]))))
    assert bool(jnp.isnan(loss(jnp.array([-1, 0]))))


@pytest.mark.parametrize("rows", [(8,), (8, 4)], ids=["batch", "sequences"])
def test_ten_thousand_classes_build_no_one_hot_array_in_forward(rows):
    logits, labels = jax.ShapeDtypeStruct((*rows, 10_000), WIDEST), jax.ShapeDtypeStruct(rows, jnp.int32)
    program = str(jax.make_jaxpr(lambda z, y: fnn.softmax_cross_entropy.forward(z, y)[0])(logits, labels))
    assert "10000] = eq" not in program


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("classes", [3, 128, 256, 300, 400])
def test_narrow_label_dtypes_hold_any_number_of_classes(name, classes):
    """The labels are constants of the program, so that their values are checked too."""
    labels = jnp.array([0, 1, 2, min(classes, 127) - 1])
    narrow = [labels.astype(dtype) for dtype in ("uint8", "int8", "int16", "uint32")]
    loss, one = getattr(fnn, name), jnp.ones((), WIDEST)
    compared = jax.jit(lambda scores: [both(loss, scores, labels, one) for labels in (labels, *narrow)])
    scores = jax.nn.softmax(jax.random.normal(KEY, (4, classes), WIDEST))
    (expected_value, expected, _), *others = compared(scores)
    for value, by_hand, by_autodiff in others:
        np.testing.assert_array_equal(value, expected_value)
        np.testing.assert_array_equal(by_hand, expected)
        assert relative_gap(by_hand, by_autodiff) <= TOLERANCES[WIDEST]


@pytest.mark.parametrize("rows", [(2,), (1, 2)], ids=["batch", "sequences"])
def test_under_jit_a_label_that_is_no_class_adds_nothing_by_hand_and_by_autodiff(rows):
    logits = jax.random.normal(KEY, (*rows, 3), WIDEST)
    _, by_hand, by_autodiff = jax.jit(both, static_argnums=0)(
        fnn.softmax_cross_entropy, logits, jnp.array([0, 3]).reshape(rows), jnp.ones((), WIDEST)
    )
    assert not by_hand.reshape(2, 3)[1].any()
    np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-7)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_under_jit_a_probability_outside_0_1_is_nan_and_not_clipped(name, wrong):
    p = jnp.asarray(np.where(np.arange(12).reshape(4, 3) == 0, wrong, 1 / 3), WIDEST)
    target = jnp.eye(4, 3, dtype=WIDEST)
    assert bool(jnp.isnan(jax.jit(getattr(fnn, name).forward)(p, target)[0]))


@pytest.mark.parametrize("name", ["mean_squared_error", "binary_cross_entropy", "sigmoid_cross_entropy"])
def test_float16_gradients_of_more_entries_than_it_can_count(name):
    p, y = jnp.full((70_000, 1), 0.25, jnp.float16), jnp.ones((70_000, 1), jnp.float16)
    gradient = jax.jit(both, static_argnums=0)(getattr(fnn, name), p, y, jnp.ones((), jnp.float16))[1]
    assert bool((gradient < 0).all())


def test_labels_pass_where_jax_stops_at_every_nan():
    with jax.debug_nans(True):
        fnn.softmax_cross_entropy.forward(jnp.zeros((2, 3), WIDEST), jnp.array([0, 2]))


def test_specs_say_what_the_losses_are():
    for name in (*ALL, *CLASSES):
        loss = getattr(fnn, name)
        assert (repr(loss), loss.spec.name) == (name, name)
    assert loss_spec(fnn.Loss(fnn.mean_squared_error_forward, fnn.mean_squared_error_backward)).targets is None
    assert loss_spec(object()) == fnn.types.LossSpec()


def test_the_constant_loss_is_the_loss_of_the_mean_row():
    rows = np.random.default_rng(0).dirichlet(np.ones(3), 6)
    mean = np.tile(rows.mean(axis=0), (6, 1))
    from_probabilities = {
        ("values", "values"): lambda p: p,
        ("probabilities", "binary"): lambda p: p,
        ("probabilities", "classes"): lambda p: p,
        ("logits", "binary"): lambda p: jnp.log(p / (1 - p)),
        ("logits", "classes"): jnp.log,
    }

    @jax.jit
    def losses(rows, *probabilities):
        every = [(getattr(fnn, name), p) for name in (*ALL, *CLASSES) for p in probabilities]
        return [
            loss.forward(from_probabilities[loss.spec.prediction, loss.spec.targets](p), rows)[0] for loss, p in every
        ]

    expected = np.reshape(losses(*cast(tuple(map(jnp.asarray, (rows, mean, rows))), WIDEST)), (-1, 2))
    for name, constant_and_lowest in zip((*ALL, *CLASSES), expected, strict=True):
        spec = getattr(fnn, name).spec
        np.testing.assert_allclose(spec.constant_loss(rows), constant_and_lowest, rtol=1e-5, atol=1e-7)
        assert np.isnan(spec.constant_loss(2 * rows - 1)[0]) == (spec.targets != "values")


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
    with pytest.raises(
        ValueError,
        match=f"{name}: expected class labels of shape .*(3 outputs, one for each class|Take the last axis away)",
    ):
        getattr(fnn, name).forward(P, jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("shape", [(4,), (5, 4), (4, 5, 1), (4, 5, 2), (20,), (4, 5, 3, 1)])
def test_class_targets_of_sequences_of_another_shape_are_refused(name, shape, as_for_users):
    expected = rf"{name}: expected class labels of shape \(4, 5\) or one-hot targets of shape \(4, 5, 3\)"
    with pytest.raises(ValueError, match=expected):
        getattr(fnn, name).forward(jnp.full((4, 5, 3), 1 / 3, WIDEST), jnp.zeros(shape, WIDEST))


@pytest.mark.parametrize("name", CLASSES)
def test_scores_without_a_batch_are_refused(name, as_for_users):
    with pytest.raises(
        ValueError, match=rf"{name}: expected a prediction of shape \(batch, ..., classes\), got \(3,\)"
    ):
        getattr(fnn, name).forward(P[0], jnp.array(0))


@pytest.mark.parametrize("name", CLASSES)
def test_labels_of_sequences_outside_the_classes_are_refused(name, as_for_users):
    with pytest.raises(ValueError, match=r"expected class labels from 0 to 2, got 3 at index \(0, 1\)"):
        getattr(fnn, name).forward(P[None], jnp.array([[0, 3, 1, 2]]))


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
    with pytest.raises(
        TypeError, match=r"expected targets in the prediction's dtype .*y = jnp\.asarray\(y, jnp\.float"
    ):
        getattr(fnn, name).forward(P, jnp.zeros((4, 3), dtype))


@pytest.mark.parametrize("name", [*ALL, *CLASSES])
def test_integer_and_empty_predictions_are_refused(name, as_for_users):
    with pytest.raises(TypeError, match=rf"{name}\(prediction\): expected a floating dtype, got int32"):
        getattr(fnn, name).forward(jnp.zeros((4, 3), jnp.int32), jnp.zeros((4, 3), WIDEST))
    with pytest.raises(ValueError, match=f"{name}: expected a batch of at least one prediction"):
        getattr(fnn, name).forward(jnp.zeros((0, 3), WIDEST), jnp.zeros((0, 3), WIDEST))
