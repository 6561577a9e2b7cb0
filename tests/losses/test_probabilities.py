"""Losses on probabilities: values are clipped near 0 and 1, and refused outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import FLOATS, WIDEST
from tests.losses.shared import P, both


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


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_under_jit_a_probability_outside_0_1_is_nan_and_not_clipped(name, wrong):
    p = jnp.asarray(np.where(np.arange(12).reshape(4, 3) == 0, wrong, 1 / 3), WIDEST)
    target = jnp.eye(4, 3, dtype=WIDEST)
    assert bool(jnp.isnan(jax.jit(getattr(fnn, name).forward)(p, target)[0]))


@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, jnp.nan])
def test_probabilities_outside_0_1_are_refused(name, wrong, as_for_users):
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\], got .* at index \(0, 0\).*loss on logits"):
        getattr(fnn, name).forward(P.at[0, 0].set(wrong), jnp.zeros((4, 3), WIDEST))
