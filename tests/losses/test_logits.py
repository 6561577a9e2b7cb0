"""Losses on logits: stable far out and near 0, the losses on probabilities elsewhere, and labels that are no class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST
from tests.losses.shared import both


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


@pytest.mark.parametrize("rows", [(2,), (1, 2)], ids=["batch", "sequences"])
def test_under_jit_a_label_that_is_no_class_adds_nothing_by_hand_and_by_autodiff(rows):
    logits = jax.random.normal(KEY, (*rows, 3), WIDEST)
    _, by_hand, by_autodiff = jax.jit(both, static_argnums=0)(
        fnn.softmax_cross_entropy, logits, jnp.array([0, 3]).reshape(rows), jnp.ones((), WIDEST)
    )
    assert not by_hand.reshape(2, 3)[1].any()
    np.testing.assert_allclose(by_hand, by_autodiff, atol=1e-7)


def test_labels_pass_where_jax_stops_at_every_nan():
    with jax.debug_nans(True):
        fnn.softmax_cross_entropy.forward(jnp.zeros((2, 3), WIDEST), jnp.array([0, 2]))
