"""Convolutions over sequences and images, and the two convolutions that are their gradients.

As in ``jax.lax`` and Flax, the kernel is not flipped (a cross-correlation), and channels are the last axis. With the
stride s, the dilation d and ``low`` positions of padding in front, along each axis of positions::

    y[n, p, o] = Σₖ Σ꜀ x[n, p s + k d − low, c] K[k, c, o] + b[o]

With g groups the channels of x and of y are divided into g equal runs, and a run of y depends on the same run of x
alone. With as many groups as channels the convolution is depthwise.
"""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_key, check_vectors, positive_integer
from funcnn._static import Static
from funcnn.layers.windows import (
    Images,
    Padding,
    Pads,
    Sizes,
    check_channels,
    check_extents,
    checked_padding,
    checked_sizes,
    extents,
    pads_of,
)
from funcnn.types import KernelInit, State

Size: TypeAlias = int | tuple[int, ...]


class ConvParams(NamedTuple):
    """``kernel``: ``(*window, in_channels/groups, out_channels)``; ``bias``: ``(out_channels,)``; or gradients."""

    kernel: Float[Array, "*window in_channels out_channels"]
    bias: Float[Array, " out_channels"]


class Slide(NamedTuple):
    """How a kernel slides over an image: the arguments of ``lax.conv_general_dilated``.

    Fields:
        stride: positions between neighbouring places of the kernel.
        pads: positions in front of and behind each axis of the image, once it is dilated.
        image_dilation: positions between neighbouring entries of the image; more than 1 in a transposed convolution.
        kernel_dilation: positions between neighbouring entries of the kernel.
        groups: runs of channels that do not mix.
    """

    stride: Sizes
    pads: Pads
    image_dilation: Sizes
    kernel_dilation: Sizes
    groups: int = 1


class ConvResiduals(NamedTuple):
    """The input and the kernel, each in the other's gradient, and how the kernel slides (``Static(Slide)``)."""

    x: Images
    kernel: Float[Array, "*window in_channels out_channels"]
    slide: Static


def convolve(x: Array, kernel: Array, slide: Slide) -> Array:
    """Return x convolved by a kernel, without a bias."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=slide.stride,
        padding=slide.pads,
        lhs_dilation=slide.image_dilation,
        rhs_dilation=slide.kernel_dilation,
        dimension_numbers=_in_order(x),
        feature_group_count=slide.groups,
    )


def _in_order(x: Array) -> tuple[str, str, str]:
    """Return the axes of an image, a kernel and a result: samples and positions first, channels last."""
    positions = "HW"[: x.ndim - 2]
    return f"N{positions}C", f"{positions}IO", f"N{positions}C"


def convolution_backward(residuals: ConvResiduals, dy: Array) -> tuple[ConvParams, Array]:
    """Return the gradients of y = x ∗ K + b by the parameters and by x, for any way to slide. Each is a convolution.

    ``conv2d_backward`` has the derivation.
    """
    x, kernel, slide = residuals.x, residuals.kernel, residuals.slide.value
    dbias = dy.sum(axis=tuple(range(dy.ndim - 1)))
    return ConvParams(_kernel_gradient(x, kernel, slide, dy), dbias), _input_gradient(x, kernel, slide, dy)


def _spans(x, kernel, slide, dy):
    """Return, for each axis, the extents of the dilated image, kernel and cotangent."""
    between = slice(1, -1)
    return (
        extents(x.shape[between], slide.image_dilation),
        extents(kernel.shape[:-2], slide.kernel_dilation),
        extents(dy.shape[between], slide.stride),
    )


def _input_gradient(x, kernel, slide, dy):
    """dx[n, q, c] = Σₖ Σₒ dy[n, (q + low − k d)/s, o] K[k, c, o]: the flipped kernel over dy, dilated by s."""
    across = zip(slide.pads, *_spans(x, kernel, slide, dy), strict=True)
    # In front, the padding is the kernel's extent less one; behind, it is what gives x's own size.
    pads = tuple((span - 1 - low, size + low - dilated) for (low, _), size, span, dilated in across)
    back = Slide(slide.image_dilation, pads, slide.stride, slide.kernel_dilation, slide.groups)
    return convolve(dy, _with_channels_exchanged(kernel, slide.groups), back)


def _with_channels_exchanged(kernel, groups):
    """Return the kernel flipped, from the channels of y to those of x: ``(*window, out/groups, in)``."""
    *window, in_channels, out_channels = kernel.shape
    flipped = lax.rev(kernel, tuple(range(len(window))))
    by_group = flipped.reshape(*window, in_channels, groups, out_channels // groups)
    return jnp.swapaxes(by_group, -3, -1).reshape(*window, out_channels // groups, groups * in_channels)


def _kernel_gradient(x, kernel, slide, dy):
    """dK[k, c, o] = Σₙ Σₚ x[n, p s + k d − low, c] dy[n, p, o]: the cotangent, dilated by s, slides over x in steps d.

    Samples take the place of the channels that are summed over, and x's channels that of the samples.
    """
    across = zip(slide.pads, *_spans(x, kernel, slide, dy), strict=True)
    # Behind, the padding gives the cotangent a place for each entry of the kernel.
    pads = tuple((low, dilated + span - 1 - size - low) for (low, _), size, span, dilated in across)
    # XLA's compiler for CPUs brings axes into the order that its library takes, but not inside a loop, where a
    # convolution in another order is many times as slow.
    gradient = lax.conv_general_dilated(
        jnp.swapaxes(x, 0, -1),
        jnp.moveaxis(dy, 0, -2),
        window_strides=slide.kernel_dilation,
        padding=pads,
        lhs_dilation=slide.image_dilation,
        rhs_dilation=slide.stride,
        dimension_numbers=_in_order(x),
        batch_group_count=slide.groups,
    )
    return jnp.moveaxis(gradient, 0, -2)


def conv_init(
    key: PRNGKeyArray, *, name: str, shape: tuple[int, ...], kernel_init: KernelInit
) -> tuple[ConvParams, State]:
    """Draw a kernel of a shape with ``kernel_init``, and a bias of zeros, both in the dtype that it draws.

    Example:
        >>> import jax
        >>> from funcnn.layers.initializers import xavier
        >>> params, _ = conv_init(jax.random.key(0), name="conv2d", shape=(3, 3, 1, 8), kernel_init=xavier)
        >>> params.kernel.shape, params.bias.shape
        ((3, 3, 1, 8), (8,))
    """
    check_key(f"{name}: init(key)", key)
    kernel = kernel_init(key, shape)
    if getattr(kernel, "shape", None) != shape:
        raise ValueError(
            f"{name}(kernel_init): expected a function that draws a kernel of shape {shape}, got {kernel!r}. "
            "Initializers are made by a call: jax.nn.initializers.he_normal()."
        )
    kernel = jnp.asarray(kernel)
    return ConvParams(kernel=kernel, bias=jnp.zeros(shape[-1], kernel.dtype)), ()


def checked_image(constructor: str, params: ConvParams, x: Any, axes: int, groups: int = 1) -> tuple[str, Array]:
    """Return the layer's name in errors, and x as an array; raise where parameters or x have other shapes."""
    kernel, bias = params
    if kernel.ndim != axes + 2:
        raise ValueError(
            f"{constructor}: expected a kernel with {axes + 2} axes, the window's {axes}, in_channels/groups and "
            f"out_channels, got shape {kernel.shape}. Use what init of this very layer returned."
        )
    in_channels, out_channels = groups * kernel.shape[-2], kernel.shape[-1]
    name = f"{constructor}({in_channels}, {out_channels})"
    check_groups(constructor, in_channels, out_channels, groups)
    check_vectors(name, kernel.dtype, out_channels, bias=bias)
    return name, check_channels(name, x, axes, in_channels, kernel.dtype)


def check_groups(constructor: str, in_channels: int, out_channels: int, groups: int) -> None:
    """Raise where the groups don't divide the channels."""
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{constructor}(groups): expected a divisor of in_channels={in_channels} and of "
            f"out_channels={out_channels}, got {groups}. For a depthwise convolution pass groups=in_channels, and a "
            "multiple of it as out_channels."
        )


def _forward(constructor, axes, params, x, stride, padding, dilation, groups):
    """Compute a convolution over 1 or 2 axes of positions, and its residuals."""
    groups = positive_integer(f"{constructor}(groups)", groups)
    name, x = checked_image(constructor, params, x, axes, groups)
    stride, dilation = (
        checked_sizes(f"{constructor}({argument})", value, axes)
        for argument, value in (("stride", stride), ("dilation", dilation))
    )
    sizes, spans = x.shape[1:-1], extents(params.kernel.shape[:axes], dilation)
    pads = pads_of(checked_padding(f"{constructor}(padding)", padding, axes), sizes, spans, stride)
    check_extents(name, sizes, pads, spans)
    slide = Slide(stride, pads, (1,) * axes, dilation, groups)
    return add_bias(convolve(x, params.kernel, slide), params.bias), ConvResiduals(x, params.kernel, Static(slide))


def add_bias(y: Images, bias: Array) -> Images:
    """Return y + b, the bias of each channel at every position."""
    return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def conv1d_forward(
    params: ConvParams,
    x: Float[Array, "batch time in_channels"],
    *,
    stride: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
) -> tuple[Float[Array, "batch places out_channels"], ConvResiduals]:
    """Compute a convolution over time::

        y[n, p, o] = Σₖ Σ꜀ x[n, p s + k d − low, c] K[k, c, o] + b[o]

    Args:
        params: kernel ``(size, in_channels/groups, out_channels)`` and bias ``(out_channels,)``.
        x: sequences, ``(batch, time, in_channels)``, in the parameters' dtype.
        stride, padding, dilation, groups: as for ``conv1d``.

    Returns:
        y, ``(batch, places, out_channels)``, and the residuals.

    Raises:
        ValueError, TypeError: as ``conv2d_forward``.

    Example:
        >>> import jax.numpy as jnp
        >>> difference = ConvParams(jnp.array([-1.0, 1.0]).reshape(2, 1, 1), jnp.zeros(1))
        >>> print(conv1d_forward(difference, jnp.array([1.0, 4.0, 9.0]).reshape(1, 3, 1), padding="VALID")[0].ravel())
        [3. 5.]

    Source:
        Waibel, Hanazawa, Hinton, Shikano and Lang, "Phoneme recognition using time-delay neural networks", 1989.
    """
    return _forward("conv1d", 1, params, x, stride, padding, dilation, groups)


def conv1d_backward(
    residuals: ConvResiduals, dy: Float[Array, "batch places out_channels"]
) -> tuple[ConvParams, Float[Array, "batch time in_channels"]]:
    """Gradients of a convolution over time: those of ``conv2d_backward`` with one axis of positions.

    Args:
        residuals: from ``conv1d_forward``.
        dy: cotangent of y, ``(batch, places, out_channels)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, time, in_channels)``.

    Example:
        >>> import jax.numpy as jnp
        >>> difference = ConvParams(jnp.array([-1.0, 1.0]).reshape(2, 1, 1), jnp.zeros(1))
        >>> _, residuals = conv1d_forward(difference, jnp.array([1.0, 4.0, 9.0]).reshape(1, 3, 1), padding="VALID")
        >>> dparams, dx = conv1d_backward(residuals, jnp.ones((1, 2, 1)))
        >>> print(dparams.kernel.ravel(), dx.ravel())
        [ 5. 13.] [-1.  0.  1.]

    Source:
        LeCun et al. 1989.
    """
    return convolution_backward(residuals, dy)


def conv2d_forward(
    params: ConvParams,
    x: Float[Array, "batch height width in_channels"],
    *,
    stride: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
) -> tuple[Float[Array, "batch rows columns out_channels"], ConvResiduals]:
    """Compute a convolution over images::

        y[n, p, o] = Σₖ Σ꜀ x[n, p s + k d − low, c] K[k, c, o] + b[o]

    p and k are pairs, of a row and a column; outside of the image x is 0.

    Args:
        params: kernel ``(height, width, in_channels/groups, out_channels)`` and bias ``(out_channels,)``.
        x: images, ``(batch, height, width, in_channels)``, in the parameters' dtype.
        stride, padding, dilation, groups: as for ``conv2d``.

    Returns:
        y, ``(batch, rows, columns, out_channels)``, and the residuals.

    Raises:
        ValueError: x is empty, or has other axes or another number of channels; the kernel is larger than the padded
            image; groups that don't divide the channels; a bias that doesn't fit.
        TypeError: x isn't floating, or not in the parameters' dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> sums = ConvParams(jnp.ones((2, 2, 1, 1)), jnp.zeros(1))
        >>> y, residuals = conv2d_forward(sums, jnp.arange(9.0).reshape(1, 3, 3, 1), padding="VALID")
        >>> print(y[0, :, :, 0])
        [[ 8. 12.]
         [20. 24.]]

    Source:
        LeCun, Boser, Denker, Henderson, Howard, Hubbard and Jackel, "Backpropagation applied to handwritten zip code
        recognition", 1989.
    """
    return _forward("conv2d", 2, params, x, stride, padding, dilation, groups)


def conv2d_backward(
    residuals: ConvResiduals, dy: Float[Array, "batch rows columns out_channels"]
) -> tuple[ConvParams, Float[Array, "batch height width in_channels"]]:
    """Gradients of a convolution, each of them a convolution::

        y[n, p, o] = Σₖ Σ꜀ x[n, p s + k d − low, c] K[k, c, o] + b[o]

    An entry of the kernel is used at every place p of every sample, so its gradients add up. An entry x[n, q, c] is
    used at the places p for which a k has p s + k d − low = q::

        ∂L/∂b[o]       = Σₙ Σₚ dy[n, p, o]
        ∂L/∂K[k, c, o] = Σₙ Σₚ x[n, p s + k d − low, c] dy[n, p, o]
        ∂L/∂x[n, q, c] = Σₖ Σₒ dy[n, (q + low − k d)/s, o] K[k, c, o]     where s divides q + low − k d

    The second is x convolved by dy: the cotangent is the kernel, its dilation is s and its stride d. The third is dy
    with s − 1 zeros between its entries, convolved by the kernel flipped (k enters with a minus) and with its
    channels exchanged.

    Args:
        residuals: from ``conv2d_forward``.
        dy: cotangent of y, ``(batch, rows, columns, out_channels)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, height, width, in_channels)``.

    Example:
        >>> import jax.numpy as jnp
        >>> sums = ConvParams(jnp.ones((2, 2, 1, 1)), jnp.zeros(1))
        >>> _, residuals = conv2d_forward(sums, jnp.arange(9.0).reshape(1, 3, 3, 1), padding="VALID")
        >>> dparams, dx = conv2d_backward(residuals, jnp.ones((1, 2, 2, 1)))
        >>> print(dparams.bias, dx[0, :, :, 0])
        [4.] [[1. 2. 1.]
         [2. 4. 2.]
         [1. 2. 1.]]

    Source:
        LeCun et al. 1989; Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.
    """
    return convolution_backward(residuals, dy)
