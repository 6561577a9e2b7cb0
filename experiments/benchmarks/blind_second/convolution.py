"""Convolution: strided, dilated, depthwise, transposed, pooled, upsampled and grouped."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import maker, right
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "convolution"

# Two dimensions with a stride


def windows(x, stride):
    """The nine shifted views of ``x`` padded by one, in the order of the taps."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    size = (x.shape[1] - 1) // stride * stride + 1
    return {(i, j): padded[:, i : i + size : stride, j : j + size : stride] for i in range(3) for j in range(3)}


def convolve(x, w, stride):
    return sum(window @ w[tap] for tap, window in windows(x, stride).items())


def kernel_backward(x, dy, stride):
    taps = [jnp.einsum("nhwc,nhwo->co", window, dy) for window in windows(x, stride).values()]
    return jnp.stack(taps).reshape(3, 3, x.shape[-1], dy.shape[-1])


def crop(padded):
    return padded[:, 1:-1, 1:-1]


def input_backward(x, w, dy, stride, remove_padding):
    padded = jnp.zeros((x.shape[0], x.shape[1] + 2, x.shape[2] + 2, x.shape[3]), x.dtype)
    size = (x.shape[1] - 1) // stride * stride + 1
    for i in range(3):
        for j in range(3):
            padded = padded.at[:, i : i + size : stride, j : j + size : stride].add(dy @ w[i, j].T)
    return remove_padding(padded)


def strided_loss(params, x, target):
    h = jnp.tanh(convolve(x, params["w1"], 1) + params["b1"])
    return squared_error(convolve(h, params["w2"], 2), target)


def strided_gradient(
    remove_padding=crop,
    d_kernel=lambda h, dy: kernel_backward(h, dy, 2),
    d_bias=lambda dz: dz.sum((0, 1, 2)),
):
    def grad_fn(params, x, target):
        h = jnp.tanh(convolve(x, params["w1"], 1) + params["b1"])
        dy = squared_error_backward(convolve(h, params["w2"], 2), target)
        dz = input_backward(h, params["w2"], dy, 2, remove_padding) * (1 - h**2)
        return {"w1": kernel_backward(x, dz, 1), "b1": d_bias(dz), "w2": d_kernel(h, dy)}

    return grad_fn


def kernel_without_stride(h, dy):
    taps = [jnp.einsum("nhwc,nhwo->co", window[:, :3, :3], dy) for window in windows(h, 1).values()]
    return jnp.stack(taps).reshape(3, 3, h.shape[-1], dy.shape[-1])


STRIDED = Problem(
    THEME,
    strided_loss,
    strided_gradient,
    maker(301, {"w1": (3, 3, 2, 2), "b1": (2,), "w2": (3, 3, 2, 2)}, (2, 5, 5, 2), (2, 3, 3, 2)),
)

# One dimension, causal and dilated, after a layer on each position


def dilated_forward(params, x):
    h = x @ params["w0"]
    padded = jnp.pad(h, ((4, 0), (0, 0)))
    return padded, sum(padded[2 * k : 2 * k + 6] @ params["w"][k] for k in range(3))


def dilated_loss(params, x, target):
    return squared_error(dilated_forward(params, x)[1], target)


def dilated_gradient(order=lambda taps: taps, dilation=2):
    def grad_fn(params, x, target):
        padded, y = dilated_forward(params, x)
        dy = squared_error_backward(y, target)
        dw = jnp.stack([padded[2 * k : 2 * k + 6].T @ dy for k in range(3)])
        d_padded = jnp.zeros((6 + 2 * dilation, 3), x.dtype)
        for k in range(3):
            d_padded = d_padded.at[dilation * k : dilation * k + 6].add(dy @ params["w"][k].T)
        return {"w0": x.T @ d_padded[2 * dilation :], "w": order(dw)}

    return grad_fn


DILATED = Problem(THEME, dilated_loss, dilated_gradient, maker(302, {"w0": (4, 3), "w": (3, 3, 3)}, (6, 4), (6, 3)))

# Depthwise, then a layer on each position


def depthwise_forward(params, x):
    views = jnp.stack([x[:, k : k + 4] for k in range(3)])
    return views, (views * params["w"][:, None, None]).sum(0)


def depthwise_loss(params, x, target):
    return squared_error(depthwise_forward(params, x)[1] @ params["point"], target)


def depthwise_gradient(d_kernel=lambda views, dh: (views * dh).sum((1, 2))):
    def grad_fn(params, x, target):
        views, h = depthwise_forward(params, x)
        dy = squared_error_backward(h @ params["point"], target)
        return {"w": d_kernel(views, dy @ params["point"].T), "point": jnp.einsum("ntc,nto->co", h, dy)}

    return grad_fn


DEPTHWISE = Problem(
    THEME,
    depthwise_loss,
    depthwise_gradient,
    maker(303, {"w": (3, 4), "point": (4, 3)}, (3, 6, 4), (3, 4, 3)),
)

# Transposed, with stride two


def transposed_loss(params, x, target):
    h = jnp.tanh(x @ params["w0"])
    y = jnp.zeros((9, 3), x.dtype)
    for k in range(3):
        y = y.at[k : k + 7 : 2].add(h @ params["w"][k])
    return squared_error(y, target)


def transposed_gradient(d_tap=lambda h, d: h.T @ d, read=lambda dy, k: dy[k : k + 7 : 2]):
    def grad_fn(params, x, target):
        h = jnp.tanh(x @ params["w0"])
        y = jnp.zeros((9, 3), x.dtype)
        for k in range(3):
            y = y.at[k : k + 7 : 2].add(h @ params["w"][k])
        dy = squared_error_backward(y, target)
        dw = jnp.stack([d_tap(h, dy[k : k + 7 : 2]) for k in range(3)])
        dh = sum(read(dy, k) @ params["w"][k].T for k in range(3))
        return {"w0": x.T @ (dh * (1 - h**2)), "w": dw}

    return grad_fn


TRANSPOSED = Problem(
    THEME, transposed_loss, transposed_gradient, maker(304, {"w0": (4, 3), "w": (3, 3, 3)}, (4, 4), (9, 3))
)

# Maximum over overlapping windows


def maximum_forward(params, x):
    h = x @ params["w"]
    return h, jnp.stack([h[i : i + 3] for i in range(4)])


def maximum_loss(params, x, target):
    return squared_error(maximum_forward(params, x)[1].max(1), target)


def maximum_gradient(put=lambda part, chosen, d: part + chosen * d):
    def grad_fn(params, x, target):
        h, parts = maximum_forward(params, x)
        dy = squared_error_backward(parts.max(1), target)
        dh = jnp.zeros_like(h)
        for i in range(4):
            chosen = parts[i] == parts[i].max(0)
            dh = dh.at[i : i + 3].set(put(dh[i : i + 3], chosen, dy[i]))
        return {"w": x.T @ dh}

    return grad_fn


MAXIMUM = Problem(THEME, maximum_loss, maximum_gradient, maker(305, {"w": (3, 4)}, (6, 3), (4, 4)))

# Average over windows, without the padding

COUNTS = np.array([2.0, 3.0, 3.0, 3.0, 2.0])


def average_loss(params, x, target, counts):
    padded = jnp.pad(jnp.tanh(x @ params["w"]), ((1, 1), (0, 0)))
    return squared_error(sum(padded[k : k + 5] for k in range(3)) / counts[:, None], target)


def average_gradient(divide=lambda dy, counts: dy / counts[:, None]):
    def grad_fn(params, x, target, counts):
        h = jnp.tanh(x @ params["w"])
        padded = jnp.pad(h, ((1, 1), (0, 0)))
        y = sum(padded[k : k + 5] for k in range(3)) / counts[:, None]
        d = divide(squared_error_backward(y, target), counts)
        d_padded = jnp.zeros_like(padded)
        for k in range(3):
            d_padded = d_padded.at[k : k + 5].add(d)
        return {"w": x.T @ (d_padded[1:-1] * (1 - h**2))}

    return grad_fn


AVERAGE = Problem(THEME, average_loss, average_gradient, maker(306, {"w": (3, 4)}, (5, 3), (5, 4), extra=(COUNTS,)))

# Upsampled by two


def upsampled_loss(params, x, target):
    return squared_error(jnp.repeat(jnp.tanh(x @ params["w"]), 2, axis=0) @ params["wo"], target)


def upsampled_gradient(gather=lambda d: d.reshape(-1, 2, d.shape[1]).sum(1)):
    def grad_fn(params, x, target):
        h = jnp.tanh(x @ params["w"])
        large = jnp.repeat(h, 2, axis=0)
        dy = squared_error_backward(large @ params["wo"], target)
        return {"w": x.T @ (gather(dy @ params["wo"].T) * (1 - h**2)), "wo": large.T @ dy}

    return grad_fn


UPSAMPLED = Problem(THEME, upsampled_loss, upsampled_gradient, maker(307, {"w": (3, 4), "wo": (4, 3)}, (3, 3), (6, 3)))

# Two groups of channels, shuffled


def shuffle(x, rows, columns):
    return x.reshape(-1, rows, columns).swapaxes(1, 2).reshape(len(x), -1)


def shuffled_forward(params, x):
    groups = jnp.concatenate([x[:, :3] @ params["w1"], x[:, 3:] @ params["w2"]], 1)
    return jnp.tanh(shuffle(groups, 2, 3))


def shuffled_loss(params, x, target):
    return squared_error(shuffled_forward(params, x) @ params["w3"], target)


def shuffled_gradient(unshuffle=lambda d: shuffle(d, 3, 2)):
    def grad_fn(params, x, target):
        h = shuffled_forward(params, x)
        dy = squared_error_backward(h @ params["w3"], target)
        d = unshuffle(dy @ params["w3"].T * (1 - h**2))
        return {"w1": x[:, :3].T @ d[:, :3], "w2": x[:, 3:].T @ d[:, 3:], "w3": h.T @ dy}

    return grad_fn


SHUFFLED = Problem(
    THEME,
    shuffled_loss,
    shuffled_gradient,
    maker(308, {"w1": (3, 3), "w2": (3, 3), "w3": (6, 4)}, (4, 6), (4, 4)),
)

BUGS = (
    STRIDED.bug(
        "strided_padding_cut_at_one_end", ("shifted",), "['w1']", remove_padding=lambda padded: padded[:, :-2, :-2]
    ),
    STRIDED.bug("strided_kernel_without_stride", ("wrong_operand",), "['w2']", d_kernel=kernel_without_stride),
    STRIDED.bug("strided_bias_averaged_over_image", ("scaled",), "['b1']", d_bias=lambda dz: dz.sum(0).mean((0, 1))),
    DILATED.bug("dilated_taps_flipped", ("kernel_flipped",), "['w']", order=lambda taps: taps[::-1]),
    DILATED.bug("dilated_input_without_dilation", ("shifted", "wrong_operand"), "['w0']", dilation=1),
    DEPTHWISE.bug(
        "depthwise_product_of_sums",
        ("wrong_operand",),
        "['w']",
        d_kernel=lambda views, dh: views.sum((1, 2)) * dh.sum((0, 1)),
    ),
    TRANSPOSED.bug("transposed_kernel_channels_swapped", ("transposed",), "['w']", d_tap=lambda h, d: d.T @ h),
    TRANSPOSED.bug("transposed_input_with_stride_one", ("wrong_operand",), "['w0']", read=lambda dy, k: dy[k : k + 4]),
    MAXIMUM.bug(
        "maximum_overlap_overwritten", ("lost_path",), "['w']", put=lambda part, chosen, d: jnp.where(chosen, d, part)
    ),
    AVERAGE.bug("average_counts_the_padding", ("scaled_path",), "['w']", divide=lambda dy, counts: dy / 3),
    UPSAMPLED.bug("upsampled_every_other_row", ("lost_path",), "['w']", gather=lambda d: d[::2]),
    SHUFFLED.bug("shuffled_twice_the_same_way", ("transposed",), "['w1']", unshuffle=lambda d: shuffle(d, 2, 3)),
)
RIGHT = (
    right(STRIDED, "strided_right"),
    right(DILATED, "dilated_right"),
    right(DEPTHWISE, "depthwise_right"),
    right(TRANSPOSED, "transposed_right"),
    right(MAXIMUM, "maximum_right"),
    right(AVERAGE, "average_right"),
    right(UPSAMPLED, "upsampled_right"),
    right(SHUFFLED, "shuffled_right"),
)
