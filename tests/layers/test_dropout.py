"""Dropout: how much is dropped, what is kept, and which mask backward uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST

ONES = jnp.ones((100, 100), WIDEST)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_is_the_share_that_is_dropped_and_the_mean_stays(rate):
    y, _, _ = fnn.dropout(rate).forward((), (), ONES, train=True, key=KEY)
    assert abs(float((y == 0).mean()) - rate) < 0.02
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)


def test_the_same_units_are_dropped_in_both_directions():
    y, _, residuals = fnn.dropout(0.5).forward((), (), ONES, train=True, key=KEY)
    np.testing.assert_array_equal(fnn.dropout(0.5).backward(residuals, ONES)[1], y)


def test_prediction_and_rate_zero_are_the_identity_and_need_no_key():
    for layer, train in ((fnn.dropout(0.5), False), (fnn.dropout(0.0), True)):
        y, _, residuals = layer.forward((), (), ONES, train=train)
        np.testing.assert_array_equal(y, ONES)
        np.testing.assert_array_equal(layer.backward(residuals, 3 * ONES)[1], 3 * ONES)


def test_another_key_drops_other_units_and_the_same_key_the_same():
    forward = fnn.dropout(0.5).forward
    first = forward((), (), ONES, train=True, key=KEY)[0]
    assert bool((forward((), (), ONES, train=True, key=KEY)[0] == first).all())
    assert bool((forward((), (), ONES, train=True, key=jax.random.key(1))[0] != first).any())


def test_layers_of_one_model_drop_different_units():
    model = fnn.skip(fnn.dropout(0.5), fnn.dropout(0.5))
    y, _, _ = model.forward(*model.init(KEY), ONES, train=True, key=KEY)
    assert set(np.unique(y)) == {0, 2, 4}
