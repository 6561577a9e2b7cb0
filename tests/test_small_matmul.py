"""Small matrix products, sums and maxima equal NumPy's, in value and in derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnn import _small_matmul

WIDTHS = (1, 2, 4, 5)


@pytest.mark.parametrize("inner", [*WIDTHS, 1000])
def test_small_matmul_is_the_matrix_product(inner):
    a, b = jax.random.normal(jax.random.key(0), (2, 3, inner))
    product, back = jax.vjp(_small_matmul.small_matmul, a, b.T)
    np.testing.assert_allclose(product, np.asarray(a) @ np.asarray(b).T, rtol=1e-5, atol=1e-5)
    da, db = back(jnp.ones((3, 3)))
    np.testing.assert_allclose(da, np.ones((3, 3)) @ np.asarray(b), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(db, np.asarray(a).T @ np.ones((3, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", WIDTHS)
def test_sum_and_max_are_over_the_last_axis(classes):
    scores = jax.random.normal(jax.random.key(1), (2, 3, classes))
    total, back = jax.vjp(_small_matmul.small_sum, scores)
    np.testing.assert_allclose(total, np.asarray(scores).sum(axis=-1, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(back(jnp.full((2, 3, 1), 2.0))[0], jnp.full((2, 3, classes), 2.0))
    np.testing.assert_array_equal(_small_matmul.small_max(scores), np.asarray(scores).max(axis=-1, keepdims=True))


def test_max_of_a_nan_is_nan():
    assert jnp.isnan(_small_matmul.small_max(jnp.array([[1.0, jnp.nan], [jnp.nan, 1.0]]))).all()


def test_half_precision_sums_are_rounded_once():
    # 1 + 3 · 2⁻⁹ lies nearest to 1 + 2⁻⁷ in bfloat16; added one after another each 2⁻⁹ is lost.
    scores = jnp.array([[1.0, 2**-9, 2**-9, 2**-9]], jnp.bfloat16)
    assert _small_matmul.small_sum(scores)[0, 0] == 1 + 2**-7
    assert _small_matmul.small_matmul(scores, jnp.ones((4, 1), jnp.bfloat16))[0, 0] == 1 + 2**-7


def test_half_precision_terms_are_not_rounded():
    large = jnp.array([[300.0, 300.0]], jnp.float16)
    assert _small_matmul.small_matmul(large, jnp.array([[300.0], [-300.0]], jnp.float16))[0, 0] == 0
