"""The linear (fully connected, affine) layer."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_callable, check_features, check_key, check_vectors, positive_integer
from funcnn._memoise import memoised
from funcnn._small_matmul import small_matmul
from funcnn.layers.initializers import xavier
from funcnn.types import KernelInit, Layer, LayerSpec, State


class LinearParams(NamedTuple):
    """``kernel``: ``(in_features, out_features)``; ``bias``: ``(out_features,)``. Also the type of their gradients."""

    kernel: Float[Array, "in_features out_features"]
    bias: Float[Array, " out_features"]


class LinearResiduals(NamedTuple):
    """The input and the kernel: each is in the other's gradient. Keeping a kernel copies nothing."""

    x: Float[Array, "*batch in_features"]
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
    check_key("linear: init(key)", key)
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
    params: LinearParams, x: Float[Array, "*batch in_features"]
) -> tuple[Float[Array, "*batch out_features"], LinearResiduals]:
    """Compute weighted sums of the features, y = x K + b, of every sample and at every position.

    Args:
        params: kernel ``(in_features, out_features)`` and bias ``(out_features,)``.
        x: features, ``(batch, ..., in_features)``, in the parameters' dtype.

    Returns:
        ``y``, ``(batch, ..., out_features)``, and the residuals.

    Raises:
        ValueError: x is empty, has no batch axis, or another number of features; the bias doesn't fit the kernel.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> params = LinearParams(kernel=jnp.array([[2.0], [3.0]]), bias=jnp.array([1.0]))
        >>> y, residuals = linear_forward(params, jnp.array([[1.0, 10.0]]))
        >>> print(y)
        [[33.]]

    Source:
        Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986, equation 1.
    """
    kernel, bias = params
    if kernel.ndim != 2:
        raise ValueError(
            f"linear: expected a kernel of shape (in_features, out_features), got {kernel.shape}. "
            "Pass the parameters of linear(...), as its init returns them."
        )
    name, (in_features, out_features) = f"linear{kernel.shape}", kernel.shape
    check_vectors(name, kernel.dtype, out_features, bias=bias)
    x = check_features(name, x, in_features, kernel.dtype)
    y = small_matmul(_rows(x), kernel) + bias[None, :]
    return y.reshape(*x.shape[:-1], out_features) if x.ndim > 2 else y, LinearResiduals(x, kernel)


def linear_backward(
    residuals: LinearResiduals, dy: Float[Array, "*batch out_features"]
) -> tuple[LinearParams, Float[Array, "*batch in_features"]]:
    """Gradients of y = x K + b.

    With y[n,j] = Σᵢ x[n,i] K[i,j] + b[j] and dy[n,j] = ∂L/∂y[n,j], where n counts samples and positions::

        ∂L/∂K[i,j] = Σₙ x[n,i] dy[n,j]      dK = xᵀ dy
        ∂L/∂b[j]   = Σₙ dy[n,j]
        ∂L/∂x[n,i] = Σⱼ dy[n,j] K[i,j]      dx = dy Kᵀ

    Every sample adds the same bias, so its gradients add up.

    Args:
        residuals: from ``linear_forward``.
        dy: cotangent of y, ``(batch, ..., out_features)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, ..., in_features)``.

    Example:
        >>> import jax.numpy as jnp
        >>> params = LinearParams(kernel=jnp.array([[2.0], [3.0]]), bias=jnp.array([1.0]))
        >>> _, residuals = linear_forward(params, jnp.array([[1.0, 10.0]]))
        >>> dparams, dx = linear_backward(residuals, jnp.array([[1.0]]))
        >>> print(dparams.kernel.ravel(), dparams.bias, dx)
        [ 1. 10.] [1.] [[2. 3.]]

    Source:
        Rumelhart, Hinton and Williams 1986, equations 6 and 7.
    """
    x, kernel = residuals
    dy = _rows(dy)
    dkernel = small_matmul(_rows(x).T, dy)
    dbias = dy.sum(axis=0)
    dx = small_matmul(dy, kernel.T)
    return LinearParams(dkernel, dbias), dx.reshape(x.shape) if x.ndim > 2 else dx


def _rows(array: Float[Array, "*batch features"]) -> Float[Array, "rows features"]:
    """Return samples and positions as the rows of a matrix."""
    return array if array.ndim == 2 else array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


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
            new function at every such call: keep it in a variable to make equal layers.

    Returns:
        The layer. Its parameters are ``LinearParams(kernel, bias)``; it has no state.

    Raises:
        ValueError, TypeError: a feature count isn't a positive integer; kernel_init isn't a function, or (in init)
            doesn't draw a kernel of the right shape.

    Example:
        >>> import jax
        >>> layer = linear(3, 2)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jax.numpy.ones((5, 3)), train=True)[0].shape
        (5, 2)
        >>> layer.forward(params, state, jax.numpy.ones((5, 7, 3)), train=True)[0].shape
        (5, 7, 2)

    Source:
        Rumelhart, Hinton and Williams 1986, equation 1; Glorot and Bengio 2010 for the default initialization.
    """
    check_callable("linear(kernel_init)", kernel_init, "Pass one of jax.nn.initializers: he_normal(), zeros.")
    settings: dict[str, Any] = {
        "in_features": positive_integer("linear(in_features)", in_features),
        "out_features": positive_integer("linear(out_features)", out_features),
        "kernel_init": kernel_init,
    }
    spec = LayerSpec("linear", settings=tuple(settings.items()), decoding="alone")
    return Layer(partial(linear_init, **settings), _layer_forward, linear_backward, spec)
