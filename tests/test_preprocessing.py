"""Input scaling against scikit-learn's definitions, by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn._numerics.precision import enable_x64
from tests.cases import WIDEST

TRAINING = jnp.array([[1.0, 100.0, 7.0], [2.0, 300.0, 7.0], [6.0, 200.0, 7.0]], WIDEST)
OTHER = jnp.array([[0.0, 0.0, 8.0]], WIDEST)


def test_standard_scaling():
    scaling = fnn.standard_scaler.fit(TRAINING)
    scaled = np.asarray(fnn.standard_scaler.apply(scaling, TRAINING))
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-6)


def test_min_max_scaling():
    scaling = fnn.min_max_scaler.fit(TRAINING)
    scaled = np.asarray(fnn.min_max_scaler.apply(scaling, TRAINING))
    np.testing.assert_allclose(scaled, [[0, 0, 0], [0.2, 1, 0], [1, 0.5, 0]], rtol=1e-6)


def test_other_data_are_scaled_with_the_training_set_s_statistics():
    scaling = fnn.standard_scaler.fit(TRAINING)
    expected = (np.asarray(OTHER) - [3, 200, 7]) / [np.std([1, 2, 6]), np.std([100, 200, 300]), 1]
    np.testing.assert_allclose(fnn.standard_scaler.apply(scaling, OTHER), expected, rtol=1e-5)


def test_a_constant_feature_stays_finite():
    for scaler in (fnn.standard_scaler, fnn.min_max_scaler):
        assert scaler.apply(scaler.fit(TRAINING), OTHER)[0, 2] == 1


@pytest.mark.parametrize("value", [0.1, 7.0, -1e-30])
def test_a_constant_that_is_not_exact_in_binary_has_divisor_one(value):
    """The mean of equal numbers may differ from them by rounding."""
    scaling = fnn.standard_scaler.fit(jnp.full((999, 1), value, jnp.float32))
    assert scaling.divisor[0] == 1
    assert scaling.offset[0] == np.float32(value)


def test_large_deviations_do_not_overflow():
    scaling = fnn.standard_scaler.fit(jnp.array([[-1e30], [1e30]], jnp.float32))
    np.testing.assert_allclose(scaling.divisor, [1e30], rtol=1e-6)


def test_scaling_of_sequences_is_that_of_all_positions():
    x = jax.random.normal(jax.random.key(0), (4, 5, 3)) * 7 + 2
    for scaler in (fnn.standard_scaler, fnn.min_max_scaler):
        scaling = scaler.fit(x)
        assert scaling.offset.shape == (3,)
        scaled = scaler.apply(scaling, x)
        expected = scaler.apply(scaler.fit(x.reshape(20, 3)), x.reshape(20, 3))
        assert (scaled.reshape(20, 3) == expected).all()


def test_time_stamps_keep_their_digits():
    """Beside an offset of 1.7e9, float32 has steps of 128."""
    seconds = 1.7e9 + np.arange(100.0)[:, None]
    with enable_x64(False):
        standard, unit = (
            np.asarray(scaler.apply(scaler.fit(seconds), seconds))
            for scaler in (fnn.standard_scaler, fnn.min_max_scaler)
        )
    assert standard.dtype == unit.dtype == np.float32
    np.testing.assert_allclose([standard.mean(), standard.std()], [0, 1], atol=1e-5)
    np.testing.assert_allclose(unit[:, 0], np.arange(100) / 99, atol=1e-6)


def test_a_scaling_of_float64_applies_to_narrower_arrays():
    x = np.arange(6.0).reshape(3, 2)
    with enable_x64(False):
        scaling = fnn.standard_scaler.fit(x)
        under_jit = jax.jit(lambda x: fnn.standard_scaler.apply(scaling, x))(jnp.asarray(x))
        np.testing.assert_allclose(under_jit, fnn.standard_scaler.apply(scaling, x), atol=1e-6)


def scaled_exactly(x):
    """Return what both scalers give in NumPy's float64."""
    x = np.asarray(x, np.float64)
    return (x - x.mean(axis=0)) / x.std(axis=0), (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))


NARROW = {
    "a step beside a large offset": np.array([[1e8], [1e8 + 8]], np.float32),
    "days in seconds": (1.7e9 + 86400 * np.arange(5.0)[:, None]).astype(np.float32),
    "float16 near its top": np.array([[65504.0], [-65504.0], [65000.0]], np.float16),
    "bfloat16": np.asarray(jnp.array([[256.0], [258.0], [264.0]], jnp.bfloat16)),
    "float32 near its top": np.array([[3e38, 1.0], [-3e38, 2.0], [1e38, 4.0]], np.float32),
}


@pytest.mark.parametrize("x", NARROW.values(), ids=NARROW)
def test_the_offset_is_subtracted_before_it_is_narrowed(x):
    """From NumPy's arrays, from JAX's, and under ``jit``, where XLA could add the parts of the offset."""
    digits = float(jnp.finfo(x.dtype).eps)
    for scaler, expected in zip((fnn.standard_scaler, fnn.min_max_scaler), scaled_exactly(x), strict=True):
        scaling = scaler.fit(jnp.asarray(x))
        np.testing.assert_array_equal(scaling.divisor, scaler.fit(x).divisor)
        results = [scaler.apply(scaling, x), scaler.apply(scaling, jnp.asarray(x))]
        results.append(jax.jit(lambda x, scaler=scaler, scaling=scaling: scaler.apply(scaling, x))(jnp.asarray(x)))
        for result in results:
            assert result.dtype == x.dtype
            np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=2 * digits, atol=2 * digits)


def test_scaling_is_fitted_mapped_and_differentiated_under_transformations():
    x = jax.random.normal(jax.random.key(0), (6, 3)) + 4

    def scaled(x):
        return fnn.standard_scaler.apply(fnn.standard_scaler.fit(x), x)

    np.testing.assert_allclose(jax.jit(scaled)(x), scaled(x), atol=1e-5)
    scaling = fnn.standard_scaler.fit(x)
    slopes = jax.vmap(jax.grad(lambda row: fnn.standard_scaler.apply(scaling, row[None, :]).sum()))(x)
    np.testing.assert_allclose(slopes, np.broadcast_to(1 / scaling.divisor, (6, 3)), rtol=1e-5)


def test_what_overflows_is_an_error_with_its_place():
    little = fnn.standard_scaler.fit(np.array([[1.0, 0.0], [2.0, 1e-30]], np.float32))
    for x in (np.array([[1.0, 1e30]], np.float32), jnp.array([[1.0, 1e30]], jnp.float32)):
        with pytest.raises(
            ValueError, match=r"scale: expected .* float32 holds, got 1e\+30 at index \(0, 1\).*leave it"
        ):
            fnn.standard_scaler.apply(little, x)
    for scaler, name in ((fnn.standard_scaler, "standard"), (fnn.min_max_scaler, "min_max")):
        x = np.array([[1.7e308], [-1.7e308], [1.7e308]])
        with enable_x64(True):
            with pytest.raises(ValueError, match=rf"{name}_scaler: .*larger ones in feature 0.*: x / 2\*\*64"):
                scaler.fit(x)
            assert np.isfinite(scaler.apply(scaler.fit(x / 2**64), x / 2**64)).all()
