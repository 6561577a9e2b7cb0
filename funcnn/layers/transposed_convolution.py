"""The transposed convolution, which makes images larger: a convolution of the image with zeros between its entries."""

from jaxtyping import Array, Float

from funcnn._checks import positive_integer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers.convolution import (
    ConvParams,
    ConvResiduals,
    Size,
    Slide,
    add_bias,
    checked_image,
    convolution_backward,
    convolve,
)
from funcnn.layers.convolution_layers import convolution_layer
from funcnn.layers.initializers import xavier
from funcnn.layers.windows import Padding, Pads, Sizes, check_extents, checked_padding, checked_sizes, extents
from funcnn.types import KernelInit, Layer


def _transposed_pads(padding: Padding, spans: Sizes, stride: Sizes) -> Pads:
    """Return the padding around the dilated image that ``lax.conv_transpose`` has."""
    if not isinstance(padding, str):
        return padding
    pads = []
    for span, step in zip(spans, stride, strict=True):
        total = span + step - 2 + (max(span - step, 0) if padding == "VALID" else 0)
        is_full = padding == "VALID" or step > span - 1
        low = span - 1 if is_full else -(-total // 2)
        pads.append((low, total - low))
    return tuple(pads)


def conv_transpose2d_forward(
    params: ConvParams,
    x: Float[Array, "batch height width in_channels"],
    *,
    stride: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
) -> tuple[Float[Array, "batch rows columns out_channels"], ConvResiduals]:
    """Convolve images with s − 1 zeros between their entries, which multiplies their height and width by the stride s.

    With x′ for that larger image::

        y[n, p, o] = Σₖ Σ꜀ x′[n, p + k d − low, c] K[k, c, o] + b[o]

    The kernel is not flipped: this is ``lax.conv_transpose`` with ``transpose_kernel=False``, as in Flax's
    ``ConvTranspose``.

    Args:
        params: kernel ``(height, width, in_channels/groups, out_channels)`` and bias ``(out_channels,)``.
        x: images, ``(batch, height, width, in_channels)``, in the parameters' dtype.
        stride, padding, dilation, groups: as for ``conv_transpose2d``.

    Returns:
        y, ``(batch, rows, columns, out_channels)``, and the residuals.

    Raises:
        ValueError, TypeError: as ``conv2d_forward``.

    Example:
        >>> import jax.numpy as jnp
        >>> copies = ConvParams(jnp.ones((2, 2, 1, 1)), jnp.zeros(1))
        >>> y, _ = conv_transpose2d_forward(copies, jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1), stride=2)
        >>> print(y[0, :, :, 0])
        [[1. 1. 2. 2.]
         [1. 1. 2. 2.]]

    Source:
        Zeiler, Krishnan, Taylor and Fergus, "Deconvolutional networks", 2010; Dumoulin and Visin, "A guide to
        convolution arithmetic for deep learning", 2016, chapter 4.
    """
    groups = positive_integer("conv_transpose2d(groups)", groups)
    name, x = checked_image("conv_transpose2d", params, x, 2, groups)
    stride, dilation = (
        checked_sizes(f"conv_transpose2d({argument})", value, 2)
        for argument, value in (("stride", stride), ("dilation", dilation))
    )
    spans = extents(params.kernel.shape[:2], dilation)
    pads = _transposed_pads(checked_padding("conv_transpose2d(padding)", padding, 2), spans, stride)
    check_extents(name, extents(x.shape[1:-1], stride), pads, spans)
    slide = Slide((1, 1), pads, stride, dilation, groups)
    return add_bias(convolve(x, params.kernel, slide), params.bias), ConvResiduals(x, params.kernel, Static(slide))


def conv_transpose2d_backward(
    residuals: ConvResiduals, dy: Float[Array, "batch rows columns out_channels"]
) -> tuple[ConvParams, Float[Array, "batch height width in_channels"]]:
    """Gradients of a transposed convolution, with x′[n, q s, c] = x[n, q, c]::

        y[n, p, o]     = Σₖ Σ꜀ x′[n, p + k d − low, c] K[k, c, o] + b[o]
        ∂L/∂b[o]       = Σₙ Σₚ dy[n, p, o]
        ∂L/∂K[k, c, o] = Σₙ Σₚ x′[n, p + k d − low, c] dy[n, p, o]
        ∂L/∂x[n, q, c] = Σₖ Σₒ dy[n, q s + low − k d, o] K[k, c, o]

    The last is a convolution of dy with the stride s: what was dilated forward is strided backward.

    Args:
        residuals: from ``conv_transpose2d_forward``.
        dy: cotangent of y, ``(batch, rows, columns, out_channels)``.

    Returns:
        The gradients of the parameters, and ``dx``, ``(batch, height, width, in_channels)``.

    Example:
        >>> import jax.numpy as jnp
        >>> copies = ConvParams(jnp.ones((2, 2, 1, 1)), jnp.zeros(1))
        >>> _, residuals = conv_transpose2d_forward(copies, jnp.array([1.0, 2.0]).reshape(1, 1, 2, 1), stride=2)
        >>> print(conv_transpose2d_backward(residuals, jnp.ones((1, 2, 4, 1)))[1].ravel())
        [4. 4.]

    Source:
        Dumoulin and Visin 2016, chapter 4.
    """
    return convolution_backward(residuals, dy)


@memoised
def conv_transpose2d(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    *,
    stride: Size = 1,
    padding: Padding = "SAME",
    dilation: Size = 1,
    groups: int = 1,
    kernel_init: KernelInit = xavier,
) -> Layer:
    """A transposed convolution over images ``(batch, height, width, channels)``, with a bias that starts at zero.

    With x′ for the image with s − 1 zeros between its entries, the stride s, the dilation d and ``low`` positions of
    padding in front::

        y[n, p, o] = Σₖ Σ꜀ x′[n, p + k d − low, c] K[k, c, o] + b[o]

    Args:
        in_channels, out_channels: channels of x and of y.
        kernel_size: positions of the kernel, one number for height and width or a pair.
        stride: by how much the image grows, a number or a pair.
        padding: ``"SAME"``: the output has the image's size times the stride; ``"VALID"``: every place where the
            kernel and the image meet; or pairs, added around the image with its zeros.
        dilation: positions between neighbouring entries of the kernel, a number or a pair.
        groups: runs of channels that do not mix; ``groups=in_channels`` makes a depthwise convolution.
        kernel_init: ``(key, shape) -> kernel``, as for ``linear``; the window counts in both fans.

    Returns:
        The layer. Its parameters are ``ConvParams(kernel, bias)``, the kernel ``(height, width, in_channels/groups,
        out_channels)``; it has no state.

    Raises:
        ValueError, TypeError: as ``conv2d``.

    Example:
        >>> import jax
        >>> layer = conv_transpose2d(8, 1, 3, stride=2)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jax.numpy.ones((2, 7, 7, 8)), train=True)[0].shape
        (2, 14, 14, 1)

    Source:
        Zeiler et al. 2010.
    """
    return convolution_layer(
        conv_transpose2d_forward, conv_transpose2d_backward, "conv_transpose2d", 2, kernel_init,
        in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding,
        dilation=dilation, groups=groups,
    )  # fmt: skip
