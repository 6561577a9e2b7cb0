"""Every loss: gradients against autodiff and finite differences, values, any rank, and specs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import funcnn as fnn
from funcnn.losses import loss_spec
from tests.cases import FLOATS, LOSSES, WIDEST, cast, named, relative_gap
from tests.losses.shared import ALL, CLASSES, TOLERANCES, both

EPSILON = 1e-6
every_loss = pytest.mark.parametrize(**named(LOSSES))


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


@pytest.mark.parametrize("name", ["mean_squared_error", "binary_cross_entropy", "sigmoid_cross_entropy"])
def test_float16_gradients_of_more_entries_than_it_can_count(name):
    p, y = jnp.full((70_000, 1), 0.25, jnp.float16), jnp.ones((70_000, 1), jnp.float16)
    gradient = jax.jit(both, static_argnums=0)(getattr(fnn, name), p, y, jnp.ones((), jnp.float16))[1]
    assert bool((gradient < 0).all())


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
