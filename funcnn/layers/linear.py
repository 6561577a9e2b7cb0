"""The linear (fully connected, affine) layer."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_callable, check_features, check_vectors, positive_integer
from funcnn._draw import drawn_in_line
from funcnn._memoise import memoised
from funcnn._tiny import product
from funcnn.types import Layer, State

KernelInit: TypeAlias = Callable[[PRNGKeyArray, tuple[int, int]], Array]
"""``(key, (in_features, out_features)) -> kernel``; those of ``jax.nn.initializers`` are such."""

_DEVIATION_WITHIN_TWO = 0.87962566103423978
"""The standard deviation of the normal distribution cut at ±2."""


def xavier(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "in_features out_features"]:
    """``jax.nn.initializers.glorot_uniform()``, compiled sooner: uniform in ±√(6 / (in_features + out_features)).

    Source:
        Glorot and Bengio 2010, equation 16: for sigmoid, tanh and linear outputs.
    """
    variance = jnp.asarray(2 / sum(shape), float)
    return drawn_in_line(jax.random.uniform, key, shape, minval=-1) * jnp.sqrt(3 * variance)


def he(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "in_features out_features"]:
    """``jax.nn.initializers.he_normal()``, compiled sooner: normal, cut at two deviations, of variance 2 / in_features.

    Source:
        He, Zhang, Ren and Sun 2015, equation 10: for the ReLU family.
    """
    deviation = jnp.sqrt(jnp.asarray(2 / shape[0], float)) / _DEVIATION_WITHIN_TWO
    return drawn_in_line(jax.random.truncated_normal, key, shape, lower=-2, upper=2) * deviation


class LinearParams(NamedTuple):
    """``kernel``: ``(in_features, out_features)``; ``bias``: ``(out_features,)``. Also the type of their gradients."""

    kernel: Float[Array, "in_features out_features"]
    bias: Float[Array, " out_features"]


class LinearResiduals(NamedTuple):
    """The input and the kernel, which each appear in the other's gradient. Keeping a kernel copies nothing."""

    x: Float[Array, "batch in_features"]
    kernel: Float[Array, "in_features out_features"]


def linear_init(
    key: PRNGKeyArray, *, in_features: int, out_features: int, kernel_init: KernelInit
) -> tuple[LinearParams, State]:
    """Draw a kernel with ``kernel_init``, ``(in_features, out_features)``, and a bias of zeros, ``(out_features,)``.

    Both are in the dtype that ``kernel_init`` draws, JAX's default floating dtype.

    Example:
        >>> import jax
        >>> params, state = linear_init(jax.random.key(0), in_features=3, out_features=2, kernel_init=xavier)
        >>> print(params.kernel.shape, params.bias, state)
        (3, 2) [0. 0.] ()
    """
    kernel = kernel_init(key, (in_features, out_features))
    if getattr(kernel, "shape", None) == (in_features, out_features):
        kernel = jnp.asarray(kernel)
    else:
        raise ValueError(
            f"linear(kernel_init): expected a function that draws a kernel of shape {(in_features, out_features)}, "
            f"got {kernel!r}. Initializers are made by a call: jax.nn.initializers.he_normal()."
        )
    return LinearParams(kernel=kernel, bias=jnp.zeros(out_features, kernel.dtype)), ()


def linear_forward(
    params: LinearParams, x: Float[Array, "batch in_features"]
) -> tuple[Float[Array, "batch out_features"], LinearResiduals]:
    """Weigh and sum the features of every sample: y = x K + b.

    Args:
        params: kernel ``(in_features, out_features)`` and bias ``(out_features,)``.
        x: features, ``(batch, in_features)``, in the parameters' dtype.

    Returns:
        ``y``, ``(batch, out_features)``, and the residuals.

    Raises:
        ValueError: x is empty, has no batch axis, or another number of features; the bias doesn't fit the kernel.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> params = LinearParams(kernel=jnp.array([[2.0], [3.0]]), bias=jnp.array([1.0]))
        >>> y, residuals = linear_forward(params, jnp.array([[1.0, 10.0]]))
        >>> print(y)
        [[33.]]
    """
    kernel, bias = params
    if kernel.ndim != 2:
        raise ValueError(f"linear: expected a kernel of shape (in_features, out_features), got {kernel.shape}.")
    name, (in_features, out_features) = f"linear{kernel.shape}", kernel.shape
    check_vectors(name, kernel.dtype, out_features, bias=bias)
    x = check_features(name, x, in_features, kernel.dtype)
    y = product(x, kernel) + bias[None, :]
    return y, LinearResiduals(x, kernel)


def linear_backward(
    residuals: LinearResiduals, dy: Float[Array, "batch out_features"]
) -> tuple[LinearParams, Float[Array, "batch in_features"]]:
    """Gradients of y = x K + b.

    With y[n,j] = Σᵢ x[n,i] K[i,j] + b[j] and dy[n,j] = ∂L/∂y[n,j]::

        ∂L/∂K[i,j] = Σₙ x[n,i] dy[n,j]      dK = xᵀ dy
        ∂L/∂b[j]   = Σₙ dy[n,j]             every sample adds the same bias, so its gradients add up
        ∂L/∂x[n,i] = Σⱼ dy[n,j] K[i,j]      dx = dy Kᵀ

    Args:
        residuals: from ``linear_forward``.
        dy: cotangent of y, ``(batch, out_features)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, in_features)``.

    Example:
        >>> import jax.numpy as jnp
        >>> params = LinearParams(kernel=jnp.array([[2.0], [3.0]]), bias=jnp.array([1.0]))
        >>> _, residuals = linear_forward(params, jnp.array([[1.0, 10.0]]))
        >>> dparams, dx = linear_backward(residuals, jnp.array([[1.0]]))
        >>> print(dparams.kernel.ravel(), dparams.bias, dx)
        [ 1. 10.] [1.] [[2. 3.]]

    Source:
        Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986, equations 6 and 7.
    """
    x, kernel = residuals
    dkernel = product(x.T, dy)
    dbias = dy.sum(axis=0)
    dx = product(dy, kernel.T)
    return LinearParams(dkernel, dbias), dx


def _layer_forward(params, state, x, *, train, key=None):
    y, residuals = linear_forward(params, x)
    return y, state, residuals


@memoised
def linear(in_features: int, out_features: int, kernel_init: KernelInit = xavier) -> Layer:
    """A linear layer, y = x K + b, with a bias that starts at zero.

    Args:
        in_features: features of x.
        out_features: units, features of y.
        kernel_init: ``(key, shape) -> kernel``, for example one of ``jax.nn.initializers``: ``he_normal()``,
            ``glorot_uniform()`` (Xavier, the default), ``lecun_normal()``, ``zeros``, ``normal(0.01)``. JAX makes a
            new function at every such call: keep it in a variable for layers that are to be equal.

    Returns:
        The layer. Its parameters are ``LinearParams(kernel, bias)``; it has no state.

    Raises:
        ValueError, TypeError: a feature count isn't a positive integer; kernel_init isn't a function, or (in init)
            doesn't draw a kernel of the right shape.

    Example:
        >>> import jax
        >>> layer = linear(3, 2)
        >>> params, state = layer.init(jax.random.key(0))
        >>> y, state, residuals = layer.forward(params, state, jax.numpy.ones((5, 3)), train=True)
        >>> y.shape
        (5, 2)
    """
    check_callable("linear(kernel_init)", kernel_init, "Pass one of jax.nn.initializers: he_normal(), zeros.")
    init = partial(
        linear_init,
        in_features=positive_integer("linear(in_features)", in_features),
        out_features=positive_integer("linear(out_features)", out_features),
        kernel_init=kernel_init,
    )
    return Layer(init, _layer_forward, linear_backward)
