"""Published mistakes in the gradients of pooling, resizing and convolution."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.published.report import Report, Rule, UsualTest, named, random_like

THEME = "pooling, resizing, convolution"


# Max pooling, windows of 2 × 2 that overlap.
WINDOW = tuple((row, column) for row in range(2) for column in range(2))


def windows_of(x):
    """The four entries of every window, ``(4, rows, columns)``."""
    rows, columns = x.shape[0] - 1, x.shape[1] - 1
    return jnp.stack([x[row : row + rows, column : column + columns] for row, column in WINDOW])


def max_pool(params):
    return windows_of(params["x"]).max(axis=0)


def winners(x):
    """The row and the column of every window's maximum."""
    place = windows_of(x).argmax(axis=0)
    row, column = jnp.indices(place.shape)
    return row + place // 2, column + place % 2


def max_pool_vjp(params, dy):
    return {"x": jnp.zeros_like(params["x"]).at[winners(params["x"])].add(dy)}


def one_window_each(params, dy):
    """Every window sets its maximum's gradient, instead of adding to it: one window is left."""
    x = params["x"]
    rows, columns = winners(x)
    dx = jnp.zeros_like(x)
    for row in range(dy.shape[0]):
        for column in range(dy.shape[1]):
            dx = dx.at[rows[row, column], columns[row, column]].set(dy[row, column])
    return {"x": dx}


def max_pool_make(dtype):
    return named(dtype, 501, x=(5, 5)), ()


def in_order_make(dtype):
    return {"x": jnp.arange(1.0, 21.0, dtype=dtype).reshape(4, 5)}, ()


# The maximum of every column.
def column_maxima(params):
    return params["x"].max(axis=0)


def column_maxima_vjp(params, dy):
    is_largest = params["x"] == params["x"].max(axis=0)
    return {"x": is_largest * dy / is_largest.sum(axis=0)}


def whole_for_each(params, dy):
    """Every entry that equals the maximum gets the whole cotangent."""
    return {"x": (params["x"] == params["x"].max(axis=0)) * dy}


def ties_make(dtype):
    x = named(dtype, 502, x=(4, 3))["x"]
    return {"x": x.at[:, 1].set(1)}, ()


def no_ties_make(dtype):
    return named(dtype, 502, x=(4, 3)), ()


# Average pooling of windows of two; the last one overhangs an odd width, and divides by what it holds.
def average_pool(params):
    x = params["x"]
    pairs = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2))).reshape(len(x), -1, 2)
    return pairs.sum(axis=2) / held(x)


def held(x):
    """How many entries every window holds."""
    return jnp.asarray([min(2, x.shape[1] - start) for start in range(0, x.shape[1], 2)], x.dtype)


def average_pool_vjp(params, dy, divisor=held):
    x = params["x"]
    return {"x": jnp.repeat(dy / divisor(x), 2, axis=1)[:, : x.shape[1]]}


def whole_window_divides(params, dy):
    """Every window divides by its whole size."""
    return average_pool_vjp(params, dy, divisor=lambda x: 2)


def average_pool_make(width):
    def make(dtype):
        return named(dtype, 503, x=(3, width)), ()

    return make


# Linear resizing of an axis: out[o] = Σ weights[o, i] in[i].
def linear_weights(size, out, are_corners_aligned):
    if are_corners_aligned:
        source = np.arange(out) * (size - 1) / (out - 1)
    else:
        source = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
    return np.maximum(0, 1 - np.abs(source[:, None] - np.arange(size)))


FIVEFOLD = 5


def resize_aligned(params):
    x = params["x"]
    return x @ jnp.asarray(linear_weights(x.shape[1], FIVEFOLD * x.shape[1], True).T, x.dtype)


def resize_aligned_vjp(params, dy):
    weights = linear_weights(params["x"].shape[1], dy.shape[1], True)
    return {"x": dy @ jnp.asarray(weights, dy.dtype)}


def short_window(params, dy, times=FIVEFOLD):
    """Every entry collects from a window whose size is that of corners that are not aligned."""
    size, out = params["x"].shape[1], dy.shape[1]
    weights = linear_weights(size, out, True)
    centre = np.arange(size) * (out - 1) // (size - 1)
    inside = np.abs(np.arange(out)[:, None] - centre) <= times + 2
    return {"x": dy @ jnp.asarray(weights * inside, dy.dtype)}


def twofold(params):
    x = params["x"]
    return x @ jnp.asarray(linear_weights(x.shape[1], 2 * x.shape[1], True).T, x.dtype)


def resize_make(width):
    def make(dtype):
        return named(dtype, 504, x=(2, width)), ()

    return make


# Bilinear resizing of an image to twice its size.
def double(params):
    x = params["x"]
    over_rows, over_columns = (jnp.asarray(linear_weights(size, 2 * size, False), x.dtype) for size in x.shape)
    return over_rows @ x @ over_columns.T


def double_vjp(params, dy, extent=lambda rows, columns: columns):
    rows, columns = params["x"].shape
    over_rows, over_columns = (jnp.asarray(linear_weights(size, 2 * size, False), dy.dtype) for size in (rows, columns))
    # The first output column that reads from an input column, and the column where the loop starts.
    first = np.arange(columns) * 2 - 1
    start = -(-((2 * np.arange(columns) - 1) * 2 * columns - extent(rows, columns)) // (2 * columns))
    dx = []
    for column in range(columns):
        terms = [
            over_columns[true, column] * dy[:, np.clip(true + start[column] - first[column], 0, 2 * columns - 1)]
            for true in range(max(0, first[column]), min(2 * columns, first[column] + 4))
        ]
        dx.append(over_rows.T @ sum(terms))
    return {"x": jnp.stack(dx, axis=1)}


def rows_for_columns(params, dy):
    """The number of rows stands where the number of columns belongs."""
    return double_vjp(params, dy, extent=lambda rows, columns: rows)


def image_make(rows, columns):
    def make(dtype):
        return named(dtype, 505, x=(rows, columns)), ()

    return make


# Transposed convolution with a kernel of one tap and a stride of two.
def spread_out(params):
    x = params["x"]
    return jnp.zeros((len(x), 2 * x.shape[1] - 1), x.dtype).at[:, ::2].set(params["kernel"] * x)


def spread_out_vjp(params, dy, read=lambda dy: dy[:, ::2]):
    taken = read(dy)
    return {"x": params["kernel"] * taken, "kernel": (params["x"] * dy[:, ::2]).sum()}


def neighbours_read(params, dy):
    """Backward reads consecutive entries, as if the stride were one."""
    return spread_out_vjp(params, dy, read=lambda dy: dy[:, : (dy.shape[1] + 1) // 2])


def spread_out_make(dtype):
    return named(dtype, 506, x=(2, 4), kernel=()), ()


# Convolution of images (batch, height, width, channels), without padding.
def convolve(params):
    x, kernel = params["x"], params["kernel"]
    rows, columns = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
    return sum(
        x[:, row : row + rows, column : column + columns] @ kernel[row, column]
        for row in range(kernel.shape[0])
        for column in range(kernel.shape[1])
    )


def convolve_vjp(params, dy, divisor=lambda dy: 1):
    x, kernel = params["x"], params["kernel"]
    rows, columns = dy.shape[1:3]
    dx, dkernel = jnp.zeros_like(x), jnp.zeros_like(kernel)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            window = (slice(None), slice(row, row + rows), slice(column, column + columns))
            dx = dx.at[window].add(dy @ kernel[row, column].T)
            dkernel = dkernel.at[row, column].set(jnp.einsum("nhwi,nhwo->io", x[window], dy) / divisor(dy))
    return {"x": dx, "kernel": dkernel}


def averaged_over_places(params, dy):
    """The kernel's gradient is averaged over the samples and the places, instead of summed."""
    return convolve_vjp(params, dy, divisor=lambda dy: dy[..., 0].size)


def convolve_make(dtype):
    return named(dtype, 507, x=(2, 5, 4, 2), kernel=(3, 2, 2, 3)), ()


REPORTS = (
    Report(
        Rule(
            "max_pool_one_window_each",
            THEME,
            max_pool,
            one_window_each,
            max_pool_vjp,
            max_pool_make,
            frozenset({"lost_use", "lost_path"}),
            "['x']",
        ),
        "FluxML/NNlib.jl#205",
        "Wrong MaxPool gradient",
        UsualTest(
            "x = 1, 2, …, 20, where nothing is the maximum of two windows; cotangent y; exact",
            "test file",
            in_order_make,
            dtype="float64",
            cotangent=lambda output: output,
            rtol=0.0,
            atol=0.0,
        ),
    ),
    Report(
        Rule(
            "maximum_whole_for_each_tie",
            THEME,
            column_maxima,
            whole_for_each,
            column_maxima_vjp,
            ties_make,
            # Ties share the cotangent: its division among them is the maximum's mask.
            frozenset({"unit", "scaled", "mask"}),
            "['x']",
            autodiff_differs=True,
        ),
        "apache/mxnet#18563",
        "The gradient of a tensor whose elements are all the same is wrong when the tensor pass to nd.max",
        UsualTest("random numbers without ties, cotangent of ones", "thread", no_ties_make),
    ),
    Report(
        Rule(
            "average_pool_whole_window_divides",
            THEME,
            average_pool,
            whole_window_divides,
            average_pool_vjp,
            average_pool_make(5),
            # The path through the division takes 2 everywhere.
            frozenset({"unit", "scaled", "scaled_path"}),
            "['x']",
        ),
        "tracel-ai/burn#5604",
        "burn-flex: avg_pool2d_backward divisor disagrees with forward in ceil_mode with count_include_pad",
        UsualTest("widths without an overhanging window, cotangent of ones", "thread", average_pool_make(6)),
    ),
    Report(
        Rule(
            "linear_resize_short_window",
            THEME,
            resize_aligned,
            short_window,
            resize_aligned_vjp,
            resize_make(2),
            frozenset({"lost_path", "lost_use"}),
            "['x']",
        ),
        "flagos-ai/FlagGems#5218",
        "upsample_linear1d_backward drops gradient terms when align_corners=True",
        UsualTest(
            "factors up to 4, random cotangent, atol 1e-4",
            "test file",
            resize_make(4),
            cotangent=random_like,
            rtol=1.3e-6,
            atol=1e-4,
            function=twofold,
            gradient=lambda params, dy: short_window(params, dy, times=2),
        ),
    ),
    Report(
        Rule(
            "bilinear_resize_rows_for_columns",
            THEME,
            double,
            rows_for_columns,
            double_vjp,
            image_make(9, 3),
            frozenset({"shifted"}),
            "['x']",
        ),
        "intel/torch-xpu-ops#4380",
        "Fix output column index in upsample bilinear2d NotAlign backward",
        UsualTest("square images, cotangent of ones, torch.allclose", "thread", image_make(4, 4), atol=1e-5),
    ),
    Report(
        Rule(
            "transposed_convolution_neighbours_read",
            THEME,
            spread_out,
            neighbours_read,
            spread_out_vjp,
            spread_out_make,
            frozenset({"shifted", "wrong_operand", "unit"}),
            "['x']",
        ),
        "pytorch/pytorch#63314",
        "Incorrect computation of gradients for transposed 2d convolution when stride=2 on CPU",
    ),
    Report(
        Rule(
            "convolution_averaged_over_places",
            THEME,
            convolve,
            averaged_over_places,
            convolve_vjp,
            convolve_make,
            frozenset({"scaled"}),
            "['kernel']",
        ),
        "sebgao/cTensor#3",
        "Questions about the `batch_conv2d_weight_backward_f` function",
    ),
)
