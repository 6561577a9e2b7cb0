"""Validation of hyperparameters, and memoisation of constructors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from tests.cases import WIDEST

pytestmark = pytest.mark.usefixtures("as_for_users")

OPTIMIZERS = (fnn.sgd, fnn.rmsprop, fnn.adagrad, fnn.adam, fnn.adamw, fnn.nadam, fnn.adamax, fnn.lion)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_learning_rates(optimizer):
    for bad in (-0.1, float("nan"), float("inf"), np.float64(-1)):
        with pytest.raises(ValueError, match=r"\w+\(learning_rate\): expected a (finite )?number"):
            optimizer(bad)
    for bad in (None, "0.1", True, 1j):
        with pytest.raises(TypeError, match=r"\w+\(learning_rate\): expected a Python number, got"):
            optimizer(bad)
    for good in (0, 0.0, 1e-3, np.float32(0.1), np.array(0.1), jnp.array(-0.1), optax.constant_schedule(0.1)):
        optimizer(good)


BAD_DECAYS = {
    "sgd momentum": lambda value: fnn.sgd(0.1, momentum=value),
    "momentum": lambda value: fnn.momentum(0.1, value),
    "nesterov": lambda value: fnn.nesterov(0.1, value),
    "rmsprop decay": lambda value: fnn.rmsprop(0.1, value),
    "rmsprop momentum": lambda value: fnn.rmsprop(0.1, momentum=value),
    **{
        f"{optimizer.__name__} {name}": lambda value, optimizer=optimizer, name=name: optimizer(0.1, **{name: value})
        for optimizer in (fnn.adam, fnn.adamw, fnn.nadam, fnn.adamax, fnn.lion)
        for name in ("b1", "b2")
    },
}


@pytest.mark.parametrize("construct", BAD_DECAYS.values(), ids=BAD_DECAYS)
def test_decays(construct):
    for bad in (1.0, 1, -0.1, 9):
        with pytest.raises(ValueError, match=rf"\w+\(\w+\): expected a decay in \[0, 1\), got {bad}. It is the share"):
            construct(bad)
    with pytest.raises(TypeError, match="expected a Python number, got <function"):
        construct(optax.constant_schedule(0.9))
    for good in (0, 0.0, 0.999, jnp.array(0.9)):
        construct(good)


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: fnn.adam(0.1, eps=-1e-8), r"adam\(eps\): .*isn't negative, got -1e-08. .*denominator"),
        (lambda: fnn.adamw(0.1, eps_root=-1.0), r"adamw\(eps_root\): .*isn't negative, got -1.0"),
        (lambda: fnn.adamw(0.1, weight_decay=-1e-4), r"adamw\(weight_decay\): .*isn't negative, got -0.0001"),
        (lambda: fnn.lion(0.1, weight_decay=-1e-4), r"lion\(weight_decay\): .*isn't negative"),
        (lambda: fnn.add_decayed_weights(-1), r"add_decayed_weights\(weight_decay\): .*isn't negative, got -1"),
        (lambda: fnn.adamax(0.1, eps=-1), r"adamax\(eps\): .*isn't negative"),
        (lambda: fnn.adagrad(0.1, -0.1), r"adagrad\(initial_accumulator_value\): .*isn't negative.*sum of squares"),
        (lambda: fnn.adagrad(0.1, eps=-0.1), r"adagrad\(eps\): .*isn't negative"),
        (lambda: fnn.rmsprop(0.1, eps=-0.1), r"rmsprop\(eps\): .*isn't negative"),
        (lambda: fnn.rmsprop(0.1, initial_scale=-1), r"rmsprop\(initial_scale\): .*isn't negative"),
        (lambda: fnn.clip_by_value(0.0), r"clip_by_value\(max_delta\): expected a positive number, got 0.0"),
        (lambda: fnn.clip_by_global_norm(-1), r"clip_by_global_norm\(max_norm\): expected a positive number, got -1"),
        (lambda: fnn.clip_by_global_norm(float("nan")), r"clip_by_global_norm\(max_norm\): expected a finite number"),
    ],
)
def test_other_numbers(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


def test_an_infinite_bound_clips_nothing():
    gradients = jnp.array([3.0, -1e30], WIDEST)
    for clip in (fnn.clip_by_value, fnn.clip_by_global_norm):
        updates, _ = clip(float("inf")).update(gradients, optax.EmptyState())
        # In float32 the norm of these gradients is infinite.
        if WIDEST is jnp.float64 or clip is fnn.clip_by_value:
            np.testing.assert_array_equal(updates, gradients)


def test_invalid_updates():
    with pytest.raises(TypeError, match=r"clip_by_value: expected real gradients, got complex ones.*global_norm"):
        fnn.clip_by_value(1.0).update(jnp.ones(2, jnp.complex64), optax.EmptyState())
    for optimizer in (fnn.adamw(0.1), fnn.lion(0.1), fnn.add_decayed_weights(0.1)):
        with pytest.raises(ValueError, match=r"expected params, which are what decays, got None. Pass them to update"):
            jax.eval_shape(optimizer.update, jnp.ones(2), optimizer.init(jnp.ones(2)))


def test_equal_calls_return_the_same_optimizer():
    assert fnn.momentum(0.1, decay=0.8) is fnn.sgd(0.1, momentum=0.8)
    assert fnn.nesterov(0.1) is fnn.sgd(0.1, 0.9, nesterov=True)
    assert fnn.nadam(0.1, 0.8) is fnn.adam(learning_rate=0.1, b1=0.8, nesterov=True)
    for optimizer in OPTIMIZERS:
        assert optimizer(0.1) is optimizer(learning_rate=0.1)
        assert optimizer(0.1) is not optimizer(0.2)
    for transformation in (fnn.clip_by_value, fnn.clip_by_global_norm, fnn.add_decayed_weights):
        assert transformation(0.5) is transformation(0.5)
