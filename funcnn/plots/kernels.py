"""The kernels of a layer as pictures."""

import math
from typing import Any

import numpy as np

from funcnn._checks import positive_integer
from funcnn.plots._style import INK, Canvas, new_canvas


def plot_kernels(
    kernel: Any,
    *,
    shape: tuple[int, int] | None = None,
    channel: int = 0,
    units: int = 64,
    columns: int = 8,
    figure: Canvas | None = None,
) -> Canvas:
    """Plot the kernel of each unit as a picture: blue below 0, white at 0, red above, all on one scale.

    Args:
        kernel: of a linear layer, ``(in_features, out_features)``, or of a convolution,
            ``(height, width, in_channels, out_channels)``.
        shape: height and width of the pictures that a linear layer takes; square by default.
        channel: the input channel of a convolution that is shown.
        units: the most units that are shown, from the first one.
        columns: pictures in a row.
        figure: a matplotlib figure or subfigure to draw in; a new one by default.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib isn't installed.
        ValueError, TypeError: a kernel of another rank, features that aren't a picture of this shape, a channel that
            the kernel doesn't have.

    Example:
        >>> import jax, funcnn as fnn
        >>> params, _ = fnn.linear(64, 10).init(jax.random.key(0))
        >>> figure = plot_kernels(params.kernel)
        >>> [axes.get_title(loc="left") for axes in figure.axes[:1]]
        ['kernels of units 0 to 9']
    """
    pictures = _pictures(np.asarray(kernel, float), shape, channel)
    shown = min(positive_integer("plot_kernels(units)", units), len(pictures))
    columns = min(positive_integer("plot_kernels(columns)", columns), shown)
    sheet = _sheet(pictures[:shown], columns)
    bound = float(np.nanmax(np.abs(sheet))) or 1.0
    canvas = new_canvas("plot_kernels", figure, (6.0, max(1.6, 5.2 * sheet.shape[0] / sheet.shape[1] + 0.4)))
    axes = canvas.subplots()
    image = axes.imshow(sheet, cmap="RdBu_r", vmin=-bound, vmax=bound, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"kernels of units 0 to {shown - 1}", loc="left", fontsize=10, color=INK)
    canvas.colorbar(image, ax=axes, shrink=0.8, label="weight")
    return canvas


def _pictures(kernel: np.ndarray, shape: tuple[int, int] | None, channel: int) -> np.ndarray:
    """Return the kernel as ``(units, height, width)``."""
    if kernel.ndim == 4:
        if not 0 <= channel < kernel.shape[2]:
            raise ValueError(
                f"plot_kernels(channel): expected a channel from 0 to {kernel.shape[2] - 1}, got {channel}. "
                "Pass one of these."
            )
        return np.moveaxis(kernel[:, :, channel], -1, 0)
    if kernel.ndim != 2:
        raise ValueError(
            "plot_kernels(kernel): expected (in_features, out_features) or (height, width, in_channels, out_channels), "
            f"got {kernel.shape}. Pass the kernel of one layer, params[0].kernel."
        )
    features = kernel.shape[0]
    height, width = shape if shape is not None else (math.isqrt(features),) * 2
    if height * width != features:
        raise ValueError(
            f"plot_kernels(shape): expected a height and a width with the product {features}, got {(height, width)}. "
            "Pass the shape of the layer's input pictures, shape=(height, width)."
        )
    return kernel.T.reshape(-1, height, width)


def _sheet(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Return the pictures in rows on one sheet, with gaps of NaN, which are drawn in white."""
    count, height, width = pictures.shape
    gap = max(1, round(0.08 * width))
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet
