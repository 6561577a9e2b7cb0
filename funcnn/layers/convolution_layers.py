"""The layers ``conv1d`` and ``conv2d``, whose passes are in ``convolution``."""

from functools import partial
from typing import Any

from funcnn._checks import check_callable, positive_integer
from funcnn._memoise import memoised
from funcnn.layers.convolution import (
    Size,
    check_groups,
    conv1d_backward,
    conv1d_forward,
    conv2d_backward,
    conv2d_forward,
    conv_init,
)
from funcnn.layers.initializers import xavier
from funcnn.layers.windows import Padding, checked_padding, checked_sizes
from funcnn.types import KernelInit, Layer, LayerSpec


def _layer_forward(forward, slide, params, state, x, *, train, key=None):
    y, residuals = forward(params, x, **slide)
    return y, state, residuals


def convolution_layer(forward, backward, constructor: str, axes: int, kernel_init: KernelInit, **given: Any) -> Layer:
    """Return the layer of a plain pair, its settings checked: those of ``conv2d`` with 1 or 2 axes of positions."""
    check_callable(f"{constructor}(kernel_init)", kernel_init, "Pass one of jax.nn.initializers: he_normal(), zeros.")
    checked: dict[str, Any] = {}
    for argument, value in given.items():
        name = f"{constructor}({argument})"
        if argument == "padding":
            checked[argument] = checked_padding(name, value, axes)
        elif argument in ("kernel_size", "stride", "dilation"):
            checked[argument] = checked_sizes(name, value, axes)
        else:
            checked[argument] = positive_integer(name, value)
    in_channels, out_channels, groups = checked["in_channels"], checked["out_channels"], checked.get("groups", 1)
    check_groups(constructor, in_channels, out_channels, groups)
    shape = (*checked["kernel_size"], in_channels // groups, out_channels)
    slide = {name: value for name, value in checked.items() if name in ("stride", "padding", "dilation", "groups")}
    return Layer(
        partial(conv_init, name=constructor, shape=shape, kernel_init=kernel_init),
        partial(_layer_forward, forward, slide),
        backward,
        LayerSpec(constructor, settings=(*checked.items(), ("kernel_init", kernel_init))),
    )


@memoised
def conv1d(
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
    """A convolution over sequences ``(batch, time, channels)``, with a bias that starts at zero.

    With the stride s, the dilation d and ``low`` positions of padding in front, along each axis of positions::

        y[n, p, o] = Σₖ Σ꜀ x[n, p s + k d − low, c] K[k, c, o] + b[o]

    Args:
        in_channels, out_channels: channels of x and of y.
        kernel_size: positions of the kernel.
        stride: positions between neighbouring places of the kernel.
        padding: ``"SAME"``, ``"VALID"``, or a pair in a tuple: ``((kernel_size − 1, 0),)`` makes a causal convolution,
            whose output at a time depends on nothing later.
        dilation: positions between neighbouring entries of the kernel.
        groups: runs of channels that do not mix; ``groups=in_channels`` makes a depthwise convolution.
        kernel_init: ``(key, shape) -> kernel``, as for ``linear``; the window counts in both fans.

    Returns:
        The layer. Its parameters are ``ConvParams(kernel, bias)``, the kernel ``(kernel_size, in_channels/groups,
        out_channels)``; it has no state.

    Raises:
        ValueError, TypeError: as ``conv2d``.

    Example:
        >>> import jax
        >>> layer = conv1d(3, 8, 5, stride=2)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jax.numpy.ones((2, 10, 3)), train=True)[0].shape
        (2, 5, 8)

    Source:
        Waibel et al. 1989.
    """
    return convolution_layer(
        conv1d_forward, conv1d_backward, "conv1d", 1, kernel_init, in_channels=in_channels,
        out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation,
        groups=groups,
    )  # fmt: skip


@memoised
def conv2d(
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
    """A convolution over images ``(batch, height, width, channels)``, with a bias that starts at zero.

    With the stride s, the dilation d and ``low`` positions of padding in front, along each axis of positions::

        y[n, p, o] = Σₖ Σ꜀ x[n, p s + k d − low, c] K[k, c, o] + b[o]

    Args:
        in_channels, out_channels: channels of x and of y.
        kernel_size: positions of the kernel, one number for height and width or a pair.
        stride: positions between neighbouring places of the kernel, a number or a pair.
        padding: ``"SAME"``: with stride 1 the output has the image's size; ``"VALID"``: none; or a pair for the height
            and a pair for the width, ``((above, below), (left, right))``.
        dilation: positions between neighbouring entries of the kernel, a number or a pair.
        groups: runs of channels that do not mix; ``groups=in_channels`` makes a depthwise convolution.
        kernel_init: ``(key, shape) -> kernel``, as for ``linear``; the window counts in both fans.

    Returns:
        The layer. Its parameters are ``ConvParams(kernel, bias)``, the kernel ``(height, width, in_channels/groups,
        out_channels)``; it has no state.

    Raises:
        ValueError, TypeError: a count or size that isn't a positive integer, another padding, groups that don't divide
            the channels, a kernel_init that isn't a function or (in init) draws a kernel of another shape.

    Example:
        >>> import jax
        >>> layer = conv2d(1, 8, 3)
        >>> params, state = layer.init(jax.random.key(0))
        >>> params.kernel.shape
        (3, 3, 1, 8)
        >>> layer.forward(params, state, jax.numpy.ones((2, 28, 28, 1)), train=True)[0].shape
        (2, 28, 28, 8)

    Source:
        LeCun et al. 1989; Howard et al., "MobileNets", 2017, for depthwise convolutions.
    """
    return convolution_layer(
        conv2d_forward, conv2d_backward, "conv2d", 2, kernel_init, in_channels=in_channels,
        out_channels=out_channels, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation,
        groups=groups,
    )  # fmt: skip
