"""Pooling of images: the maximum or the mean of each window."""

import math
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers.activation_layer import no_params
from funcnn.layers.convolution import Size
from funcnn.layers.windows import (
    Images,
    Padding,
    Pads,
    Sizes,
    check_extents,
    checked_padding,
    checked_sizes,
    image_array,
    pads_of,
)
from funcnn.types import Layer, LayerSpec


class Pool(NamedTuple):
    """The window's size, its stride, and the positions of padding, along height and width."""

    window: Sizes
    stride: Sizes
    pads: Pads


class MaxPoolResiduals(NamedTuple):
    """The input and the maxima, which show where each maximum comes from, and the windows (``Static(Pool)``)."""

    x: Images
    y: Images
    pool: Static


class AvgPoolResiduals(NamedTuple):
    """Height and width of the input, and the windows (``Static``): a mean is linear, so no array is kept."""

    sizes: Static
    pool: Static


def _pool(name, x, window, stride, padding):
    """Return x as an array, and the checked windows."""
    x = image_array(name, x, 2)
    window = checked_sizes(f"{name}(window)", window, 2)
    stride = window if stride is None else checked_sizes(f"{name}(stride)", stride, 2)
    padding = checked_padding(f"{name}(padding)", padding, 2)
    _check_pads(name, window, padding)
    pads = pads_of(padding, x.shape[1:-1], window, stride)
    check_extents(name, x.shape[1:-1], pads, window)
    return x, Pool(window, stride, pads)


def _check_pads(name, window, padding):
    """Raise where a window could lie in the padding alone, where there is nothing to pool."""
    if not isinstance(padding, str):
        for size, pads in zip(window, padding, strict=True):
            if max(pads) >= size:
                raise ValueError(
                    f"{name}(padding): expected less padding than the window's {size} positions, got {pads}: a window "
                    "in the padding alone has nothing to pool. Pad less, or take a larger window."
                )


def _over_windows(x, start, combine, pool):
    """Return ``combine`` of the entries of each window, ``start`` where there is padding."""
    window, stride, pads = (1, *pool.window, 1), (1, *pool.stride, 1), ((0, 0), *pool.pads, (0, 0))
    return lax.reduce_window(x, start, combine, window, stride, pads)


def max_pool2d_forward(
    x: Float[Array, "batch height width channels"],
    window: Size,
    *,
    stride: Size | None = None,
    padding: Padding = "VALID",
) -> tuple[Float[Array, "batch rows columns channels"], MaxPoolResiduals]:
    """Take the largest entry of each window, y[n, p, c] = maxₖ x[n, p s + k − low, c].

    Args:
        x: images, ``(batch, height, width, channels)``, floating.
        window, stride, padding: as for ``max_pool2d``.

    Returns:
        y, ``(batch, rows, columns, channels)``, and the residuals.

    Raises:
        ValueError: x is empty or has other axes; the window is larger than the padded image; as much padding as window.
        TypeError: x isn't floating.

    Example:
        >>> import jax.numpy as jnp
        >>> y, residuals = max_pool2d_forward(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)
        >>> print(y[0, :, :, 0])
        [[ 5.  7.]
         [13. 15.]]

    Source:
        Ranzato, Huang, Boureau and LeCun, "Unsupervised learning of invariant feature hierarchies with applications
        to object recognition", 2007.
    """
    x, pool = _pool("max_pool2d", x, window, stride, padding)
    y = _over_windows(x, -jnp.inf, lax.max, pool)
    return y, MaxPoolResiduals(x, y, Static(pool))


def max_pool2d_backward(
    residuals: MaxPoolResiduals, dy: Float[Array, "batch rows columns channels"]
) -> Float[Array, "batch height width channels"]:
    """Return the cotangent of each window at its maximum; of several equal maxima at the first one, row by row.

    ∂y[n, p, c]/∂x[n, q, c] is 1 for the chosen place k of the window, q = p s + k − low, and 0 for all others, so::

        ∂L/∂x[n, q, c] = Σₖ dy[n, p, c] 1[k = kₚ],    p s + k − low = q

    with kₚ the place of the first maximum of window p.

    An entry that is the maximum of several windows gets the sum. The first maximum is where ``jax.grad`` of
    ``lax.reduce_window`` sends a tie.

    Args:
        residuals: from ``max_pool2d_forward``.
        dy: cotangent of y, ``(batch, rows, columns, channels)``.

    Returns:
        ``dx``, ``(batch, height, width, channels)``.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = max_pool2d_forward(jnp.array([3.0, 3.0, 1.0, 2.0]).reshape(1, 2, 2, 1), 2)
        >>> print(max_pool2d_backward(residuals, jnp.full((1, 1, 1, 1), 5.0))[0, :, :, 0])
        [[5. 0.]
         [0. 0.]]

    Source:
        Ranzato et al. 2007.
    """
    x, y, pool = residuals.x, residuals.y, residuals.pool.value
    # NaN equals nothing, so that no maximum is found in the padding.
    padded = lax.pad(x, jnp.full((), jnp.nan, x.dtype), ((0, 0, 0), *((*pads, 0) for pads in pool.pads), (0, 0, 0)))
    is_found = jnp.zeros(y.shape, bool)
    dx = jnp.zeros_like(padded)
    for offset in product(*map(range, pool.window)):
        is_first = (_at_offset(padded, offset, pool, y.shape) == y) & ~is_found
        is_found |= is_first
        dx += _back_to_offset(jnp.where(is_first, dy, jnp.zeros_like(dy)), offset, pool, padded.shape)
    (above, _), (left, _) = pool.pads
    return dx[:, above : above + x.shape[1], left : left + x.shape[2]]


def _at_offset(padded, offset, pool, shape):
    """Return the entry at one place of every window."""
    (row, column), (down, across) = offset, pool.stride
    last_row, last_column = row + down * (shape[1] - 1), column + across * (shape[2] - 1)
    return padded[:, row : last_row + 1 : down, column : last_column + 1 : across]


def _back_to_offset(values, offset, pool, shape):
    """Return an array of zeros with the values of every window at one place of it: the transpose of ``_at_offset``."""
    config = [(0, 0, 0)]
    for axis, (start, step) in enumerate(zip(offset, pool.stride, strict=True), start=1):
        behind = shape[axis] - start - step * (values.shape[axis] - 1) - 1
        config.append((start, behind, step - 1))
    return lax.pad(values, jnp.zeros((), values.dtype), (*config, (0, 0, 0)))


def avg_pool2d_forward(
    x: Float[Array, "batch height width channels"],
    window: Size,
    *,
    stride: Size | None = None,
    padding: Padding = "VALID",
) -> tuple[Float[Array, "batch rows columns channels"], AvgPoolResiduals]:
    """Take the mean of each window of m positions, y[n, p, c] = (1/m) Σₖ x[n, p s + k − low, c].

    Padding counts as zeros among the m, as in Flax.

    Args:
        x: images, ``(batch, height, width, channels)``, floating.
        window, stride, padding: as for ``avg_pool2d``.

    Returns:
        y, ``(batch, rows, columns, channels)``, and the residuals.

    Raises:
        ValueError, TypeError: as ``max_pool2d_forward``.

    Example:
        >>> import jax.numpy as jnp
        >>> y, _ = avg_pool2d_forward(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)
        >>> print(y[0, :, :, 0])
        [[ 2.5  4.5]
         [10.5 12.5]]

    Source:
        LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998, section II.
    """
    x, pool = _pool("avg_pool2d", x, window, stride, padding)
    y = _over_windows(x, 0.0, lax.add, pool) / math.prod(pool.window)
    return y, AvgPoolResiduals(Static(x.shape[1:-1]), Static(pool))


def avg_pool2d_backward(
    residuals: AvgPoolResiduals, dy: Float[Array, "batch rows columns channels"]
) -> Float[Array, "batch height width channels"]:
    """Share the cotangent of each window among its m entries: dx[n, q, c] = (1/m) Σₚ dy[n, p, c].

    The sum is over the windows p that contain q, those with p s + k − low = q for a k of the window.

    Args:
        residuals: from ``avg_pool2d_forward``.
        dy: cotangent of y, ``(batch, rows, columns, channels)``.

    Returns:
        ``dx``, ``(batch, height, width, channels)``.

    Example:
        >>> import jax.numpy as jnp
        >>> _, residuals = avg_pool2d_forward(jnp.arange(4.0).reshape(1, 2, 2, 1), 2)
        >>> print(avg_pool2d_backward(residuals, jnp.full((1, 1, 1, 1), 4.0)).ravel())
        [1. 1. 1. 1.]

    Source:
        LeCun et al. 1998, section II.
    """
    pool, sizes = residuals.pool.value, residuals.sizes.value
    # A window over the cotangent, s − 1 zeros between its entries, sums the windows that contain a position.
    pads = tuple(
        (size - 1 - low, whole + low - step * (places - 1) - 1)
        for (low, _), whole, size, step, places in zip(
            pool.pads, sizes, pool.window, pool.stride, dy.shape[1:-1], strict=True
        )
    )
    spread = lax.reduce_window(
        dy,
        0.0,
        lax.add,
        (1, *pool.window, 1),
        (1, 1, 1, 1),
        ((0, 0), *pads, (0, 0)),
        base_dilation=(1, *pool.stride, 1),
    )
    return spread / math.prod(pool.window)


def _layer_forward(forward, settings, params, state, x, *, train, key=None):
    y, residuals = forward(x, **settings)
    return y, state, residuals


def _layer_backward(backward, residuals, dy):
    return (), backward(residuals, dy)


def _pooling_layer(forward, backward, name: str, window, stride, padding) -> Layer:
    """Return the layer of a plain pair, its settings checked."""
    window = checked_sizes(f"{name}(window)", window, 2)
    settings: dict[str, Any] = {
        "window": window,
        "stride": window if stride is None else checked_sizes(f"{name}(stride)", stride, 2),
        "padding": checked_padding(f"{name}(padding)", padding, 2),
    }
    _check_pads(name, window, settings["padding"])
    return Layer(
        no_params,
        partial(_layer_forward, forward, settings),
        partial(_layer_backward, backward),
        LayerSpec(name, settings=tuple(settings.items())),
    )


@memoised
def max_pool2d(window: Size, *, stride: Size | None = None, padding: Padding = "VALID") -> Layer:
    """Max pooling of images ``(batch, height, width, channels)``: the largest entry of each window.

    With the stride s and ``low`` positions of padding in front::

        y[n, p, c] = maxₖ x[n, p s + k − low, c]

    Args:
        window: positions of the window, one number for height and width or a pair.
        stride: positions between neighbouring windows, a number or a pair; ``None`` for the window's size, so that
            windows don't overlap.
        padding: ``"VALID"``: none; ``"SAME"``; or pairs, ``((above, below), (left, right))``. Padding is never the
            maximum.

    Returns:
        The layer, without parameters or state.

    Raises:
        ValueError, TypeError: a size that isn't a positive integer, another padding, or as much padding as window.

    Example:
        >>> import jax.numpy as jnp
        >>> max_pool2d(2).forward((), (), jnp.ones((5, 28, 28, 8)), train=True)[0].shape
        (5, 14, 14, 8)

    Source:
        Ranzato et al. 2007.
    """
    return _pooling_layer(max_pool2d_forward, max_pool2d_backward, "max_pool2d", window, stride, padding)


@memoised
def avg_pool2d(window: Size, *, stride: Size | None = None, padding: Padding = "VALID") -> Layer:
    """Average pooling of images ``(batch, height, width, channels)``: the mean of each window.

    With the stride s, ``low`` positions of padding in front and m entries of a window::

        y[n, p, c] = Σₖ x[n, p s + k − low, c]/m

    Args:
        window: positions of the window, one number for height and width or a pair.
        stride: positions between neighbouring windows, a number or a pair; ``None`` for the window's size, so that
            windows don't overlap.
        padding: ``"VALID"``: none; ``"SAME"``; or pairs, ``((above, below), (left, right))``. Padding counts as zeros.

    Returns:
        The layer, without parameters or state.

    Raises:
        ValueError, TypeError: a size that isn't a positive integer, another padding, or as much padding as window.

    Example:
        >>> import jax.numpy as jnp
        >>> avg_pool2d(2).forward((), (), jnp.ones((5, 28, 28, 8)), train=True)[0].shape
        (5, 14, 14, 8)

    Source:
        LeCun et al. 1998.
    """
    return _pooling_layer(avg_pool2d_forward, avg_pool2d_backward, "avg_pool2d", window, stride, padding)
