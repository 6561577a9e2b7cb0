"""Bugs in the backward passes of convolutions: strides, padding, dilation, groups, and what makes images larger."""

from itertools import product

import jax.numpy as jnp

import funcnn as fnn
from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "convolutions"


def forward(kernel, bias, x, **settings):
    return fnn.conv2d_forward(fnn.ConvParams(kernel, bias), x, **settings)[0]


def padded(x, pads):
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def window(tap, places, stride=1, dilation=1):
    """The positions that one tap of the kernel reads, along height and width."""
    starts = [dilation * offset for offset in tap]
    return tuple(
        slice(start, start + stride * (count - 1) + 1, stride) for start, count in zip(starts, places, strict=True)
    )


def kernel_gradient(x, dy, size, pads, stride=1, dilation=1):
    x = padded(x, pads)
    taps = [
        jnp.einsum("nhwc,nhwo->co", x[:, *window(tap, dy.shape[1:3], stride, dilation)], dy)
        for tap in product(*map(range, size))
    ]
    return jnp.stack(taps).reshape(*size, x.shape[-1], dy.shape[-1])


def input_gradient(dy, kernel, shape, pads, stride=1, dilation=1):
    """Every tap gives its cotangent back to where it read."""
    dx = padded(jnp.zeros(shape, dy.dtype), pads)
    for tap in product(*map(range, kernel.shape[:2])):
        dx = dx.at[:, *window(tap, dy.shape[1:3], stride, dilation)].add(dy @ kernel[tap].T)
    return cropped(dx, pads, shape)


def cropped(dx, pads, shape):
    (above, _), (left, _) = pads
    return dx[:, above : above + shape[1], left : left + shape[2]]


def sum_over_places(dy):
    return dy.sum(axis=(0, 1, 2))


# A convolution that keeps the size, tanh, and one with stride 2 and padding above and at the left alone.
SAMPLES, SIZE, CHANNELS = 3, 6, 3
SAME, CORNER = ((1, 1), (1, 1)), ((1, 0), (1, 0))
AROUND = {"padding": SAME}
STRIDED = {"padding": CORNER, "stride": 2}
K1, K2, B1 = "['k1']", "['k2']", "['b1']"


def strided_make(dtype):
    k1, b1, k2, b2, x, y = normal(
        dtype, 301, (3, 3, 2, CHANNELS), (CHANNELS,), (3, 3, CHANNELS, CHANNELS), (CHANNELS,),
        (SAMPLES, SIZE, SIZE, 2), (SAMPLES, 3, 3, CHANNELS),
    )  # fmt: skip
    return {"k1": k1 / 3, "b1": b1, "k2": k2 / 3, "b2": b2}, (x, y)


def strided_loss(params, x, y):
    a = jnp.tanh(forward(params["k1"], params["b1"], x, **AROUND))
    return squared_error(forward(params["k2"], params["b2"], a, **STRIDED), y)


def strided_gradient(
    dk1=lambda x, dz: kernel_gradient(x, dz, (3, 3), SAME),
    db1=sum_over_places,
    dk2=lambda a, dy: kernel_gradient(a, dy, (3, 3), CORNER, 2),
    db2=sum_over_places,
    da=lambda dy, kernel, shape: input_gradient(dy, kernel, shape, CORNER, 2),
    slope=lambda z, a: 1 - a**2,
):
    def grad_fn(params, x, y):
        z = forward(params["k1"], params["b1"], x, **AROUND)
        a = jnp.tanh(z)
        dy = squared_error_backward(forward(params["k2"], params["b2"], a, **STRIDED), y)
        dz = da(dy, params["k2"], a.shape) * slope(z, a)
        return {"k1": dk1(x, dz), "b1": db1(dz), "k2": dk2(a, dy), "b2": db2(dy)}

    return grad_fn


strided = Problem(THEME, strided_loss, strided_gradient, strided_make)


def inner_windows_alone(x, dz):
    """The windows that lie in the image."""
    return kernel_gradient(x, dz[:, 1:-1, 1:-1], (3, 3), ((0, 0), (0, 0)))


STRIDES = (
    strided.bug(
        "conv2d_kernel_upside_down_in_the_input_gradient",
        {"kernel_flipped"},
        K1,
        da=lambda dy, kernel, shape: input_gradient(dy, kernel[::-1, ::-1], shape, CORNER, 2),
    ),
    strided.bug(
        "conv2d_channels_not_exchanged",
        {"transposed"},
        K1,
        da=lambda dy, kernel, shape: input_gradient(dy, kernel.swapaxes(2, 3), shape, CORNER, 2),
    ),
    strided.bug(
        "conv2d_stride_forgotten_in_the_input_gradient",
        {"transposed", "wrong_operand"},
        K1,
        da=lambda dy, kernel, shape: input_gradient(dy, kernel, shape, CORNER, 1),
    ),
    strided.bug(
        "conv2d_padding_cut_off_at_the_other_side",
        {"shifted"},
        K1,
        da=lambda dy, kernel, shape: cropped(
            input_gradient(dy, kernel, (SAMPLES, SIZE + 1, SIZE + 1, CHANNELS), ((0, 0), (0, 0)), 2),
            ((0, 1), (0, 1)),
            shape,
        ),
    ),
    strided.bug(
        "conv2d_rows_of_taps_lost", {"lost_path"}, K1,
        da=lambda dy, kernel, shape: input_gradient(dy, kernel[:2], shape, CORNER, 2),
    ),
    strided.bug(
        "conv2d_kernel_gradient_without_stride", {"wrong_operand"}, K2,
        dk2=lambda a, dy: kernel_gradient(a, dy, (3, 3), CORNER, 1),
    ),
    strided.bug(
        "conv2d_kernel_gradient_padded_at_the_other_side", {"shifted", "wrong_operand"}, K2,
        dk2=lambda a, dy: kernel_gradient(a, dy, (3, 3), ((0, 1), (0, 1)), 2),
    ),
    strided.bug(
        "conv2d_kernel_gradient_upside_down", {"kernel_flipped"}, K2,
        dk2=lambda a, dy: kernel_gradient(a, dy, (3, 3), CORNER, 2)[::-1, ::-1],
    ),
    strided.bug(
        "conv2d_height_and_width_exchanged", {"transposed"}, K1,
        dk1=lambda x, dz: kernel_gradient(x, dz, (3, 3), SAME).swapaxes(0, 1),
    ),
    strided.bug(
        "conv2d_windows_in_the_padding_left_out", {"lost_path", "lost_use"}, K1, dk1=inner_windows_alone
    ),
    strided.bug(
        "conv2d_kernel_gradient_summed_over_its_filters", {"wrong_axis"}, K2,
        dk2=lambda a, dy: kernel_gradient(a, jnp.broadcast_to(dy.sum(-1, keepdims=True), dy.shape), (3, 3), CORNER, 2),
    ),
    strided.bug(
        "conv2d_kernel_gradient_divided_by_the_places", {"scaled"}, K1,
        dk1=lambda x, dz: kernel_gradient(x, dz, (3, 3), SAME) / SIZE**2,
    ),
    strided.bug(
        "conv2d_bias_without_the_border", {"lost_path", "lost_use"}, B1,
        db1=lambda dz: sum_over_places(dz[:, 1:-1, 1:-1]),
    ),
    strided.bug("conv2d_bias_mean_over_the_batch", {"scaled"}, B1, db1=lambda dz: dz.mean(axis=0).sum(axis=(0, 1))),
    strided.bug("conv2d_slope_of_the_sum_before", {"activation_derivative"}, K1, slope=lambda z, a: 1 - z**2),
)  # fmt: skip


# Causal convolutions over time, the second one with dilation 2: as in WaveNet, padding in front alone.
STEPS, WIDTH, DILATION = 8, 3, 2


def causal_make(dtype):
    k1, k2, x, y = normal(dtype, 302, (2, 2, WIDTH), (3, WIDTH, WIDTH), (4, STEPS, 2), (4, STEPS, WIDTH))
    return {"k1": k1, "k2": k2 / 2}, (x, y)


def in_time(kernel, x, dilation):
    pads = ((dilation * (len(kernel) - 1), 0),)
    params = fnn.ConvParams(kernel, jnp.zeros(kernel.shape[-1], kernel.dtype))
    return fnn.conv1d_forward(params, x, padding=pads, dilation=dilation)[0]


def causal_loss(params, x, y):
    return squared_error(in_time(params["k2"], jnp.tanh(in_time(params["k1"], x, 1)), DILATION), y)


def time_kernel_gradient(x, dy, taps, dilation, pads=None):
    x = jnp.pad(x, ((0, 0), pads or (dilation * (taps - 1), 0), (0, 0)))
    steps = dy.shape[1]
    return jnp.stack(
        [jnp.einsum("ntc,nto->co", x[:, dilation * tap : dilation * tap + steps], dy) for tap in range(taps)]
    )


def time_input_gradient(dy, kernel, dilation, front=2 * DILATION):
    dx = jnp.zeros((len(dy), 3 * STEPS, kernel.shape[1]), dy.dtype)
    for tap, weights in enumerate(kernel):
        dx = dx.at[:, dilation * tap : dilation * tap + dy.shape[1]].add(dy @ weights.T)
    return dx[:, front : front + STEPS]


def causal_gradient(
    dk2=lambda a, dy: time_kernel_gradient(a, dy, 3, DILATION),
    da=lambda dy, kernel: time_input_gradient(dy, kernel, DILATION),
):
    def grad_fn(params, x, y):
        a = jnp.tanh(in_time(params["k1"], x, 1))
        dy = squared_error_backward(in_time(params["k2"], a, DILATION), y)
        return {"k1": time_kernel_gradient(x, da(dy, params["k2"]) * (1 - a**2), 2, 1), "k2": dk2(a, dy)}

    return grad_fn


causal = Problem(THEME, causal_loss, causal_gradient, causal_make)

CAUSAL = (
    causal.bug(
        "conv1d_dilation_ignored_in_the_input_gradient", {"shifted", "transposed"}, K1,
        da=lambda dy, kernel: time_input_gradient(dy, kernel, 1, front=2),
    ),
    causal.bug(
        "conv1d_dilation_ignored_in_the_kernel_gradient", {"unit", "wrong_operand"}, K2,
        dk2=lambda a, dy: time_kernel_gradient(a, dy, 3, 1),
    ),
    causal.bug(
        "conv1d_causal_padding_taken_for_same", {"shifted"}, K1,
        da=lambda dy, kernel: time_input_gradient(dy, kernel, DILATION, front=DILATION),
    ),
    causal.bug(
        "conv1d_kernel_gradient_of_the_future", {"shifted", "wrong_operand"}, K2,
        dk2=lambda a, dy: time_kernel_gradient(a, dy, 3, DILATION, pads=(0, 2 * DILATION)),
    ),
    causal.bug(
        "conv1d_last_step_left_out", {"lost_path", "lost_use"}, K2,
        dk2=lambda a, dy: time_kernel_gradient(a, dy[:, :-1], 3, DILATION),
    ),
    causal.bug(
        "conv1d_taps_in_reverse", {"kernel_flipped"}, K1,
        da=lambda dy, kernel: time_input_gradient(dy, kernel[::-1], DILATION),
    ),
    causal.bug(
        "conv1d_oldest_tap_lost", {"lost_path"}, K1,
        da=lambda dy, kernel: time_input_gradient(dy, kernel.at[0].set(0), DILATION),
    ),
)  # fmt: skip


# A depthwise convolution, tanh, and one of two groups.
GROUPS, INSIDE = 2, ((0, 0), (0, 0))


def grouped_make(dtype):
    k1, b1, k2, b2, x, y = normal(dtype, 303, (2, 2, 1, 4), (4,), (2, 2, 2, 4), (4,), (3, 4, 4, 4), (3, 2, 2, 4))
    return {"k1": k1, "b1": b1, "k2": k2 / 2, "b2": b2}, (x, y)


def grouped_loss(params, x, y):
    a = jnp.tanh(forward(params["k1"], params["b1"], x, padding="VALID", groups=4))
    return squared_error(forward(params["k2"], params["b2"], a, padding="VALID", groups=GROUPS), y)


def by_group(array):
    """Neighbouring channels belong together."""
    return jnp.split(array, GROUPS, axis=-1)


def grouped_kernel_gradient(a, dy, order=(0, 1)):
    parts = by_group(a)
    parts = [kernel_gradient(parts[n], dz, (2, 2), INSIDE) for n, dz in zip(order, by_group(dy), strict=True)]
    return jnp.concatenate(parts, axis=-1)


def grouped_input_gradient(dy, kernel, split=by_group):
    shape = (*dy.shape[:1], 3, 3, 2)
    parts = [input_gradient(dz, k, shape, INSIDE) for dz, k in zip(split(dy), split(kernel), strict=True)]
    return jnp.concatenate(parts, axis=-1)


def depthwise_kernel_gradient(x, dz, terms="nhwc,nhwc->c"):
    taps = [jnp.einsum(terms, x[:, *window(tap, (3, 3))], dz) for tap in product(range(2), repeat=2)]
    return jnp.stack(taps).reshape(2, 2, 1, 4)


def grouped_gradient(dk1=depthwise_kernel_gradient, dk2=grouped_kernel_gradient, da=grouped_input_gradient):
    def grad_fn(params, x, y):
        a = jnp.tanh(forward(params["k1"], params["b1"], x, padding="VALID", groups=4))
        y_hat = forward(params["k2"], params["b2"], a, padding="VALID", groups=GROUPS)
        dy = squared_error_backward(y_hat, y)
        dz = da(dy, params["k2"]) * (1 - a**2)
        return {"k1": dk1(x, dz), "b1": sum_over_places(dz), "k2": dk2(a, dy), "b2": sum_over_places(dy)}

    return grad_fn


grouped = Problem(THEME, grouped_loss, grouped_gradient, grouped_make)

GROUPED = (
    grouped.bug(
        "conv2d_groups_crossed", {"wrong_operand"}, K2, dk2=lambda a, dy: grouped_kernel_gradient(a, dy, order=(1, 0))
    ),
    grouped.bug(
        "conv2d_first_group_for_both", {"unit", "wrong_operand"}, K2,
        dk2=lambda a, dy: grouped_kernel_gradient(a, dy, order=(0, 0)),
    ),
    grouped.bug(
        "conv2d_groups_of_every_other_filter", {"transposed", "wrong_operand"}, K1,
        da=lambda dy, kernel: grouped_input_gradient(dy, kernel, lambda array: (array[..., ::2], array[..., 1::2])),
    ),
    grouped.bug(
        "conv2d_second_group_not_handed_back", {"lost_path", "unit"}, K1,
        da=lambda dy, kernel: grouped_input_gradient(dy, kernel).at[..., 2:].set(0),
    ),
    grouped.bug(
        "depthwise_kernel_gradient_over_all_channels", {"wrong_axis"}, K1,
        dk1=lambda x, dz: depthwise_kernel_gradient(x, dz, "nhwd,nhwc->c"),
    ),
    grouped.bug(
        "depthwise_channel_of_the_neighbour", {"shifted", "wrong_operand"}, K1,
        dk1=lambda x, dz: depthwise_kernel_gradient(jnp.roll(x, 1, axis=-1), dz),
    ),
)  # fmt: skip


# Images made larger: features of each pixel, and a transposed convolution with stride 2 of them.
LARGER = {"stride": 2, "padding": "SAME"}
W, K = "['w']", "['k']"


def larger_make(dtype):
    w, k, b, x, y = normal(dtype, 304, (2, 3), (3, 3, 3, 3), (3,), (3, 3, 3, 2), (3, 6, 6, 3))
    return {"w": w, "k": k / 2, "b": b}, (x, y)


def larger_forward(params, a):
    return fnn.conv_transpose2d_forward(fnn.ConvParams(params["k"], params["b"]), a, **LARGER)[0]


def larger_loss(params, x, y):
    return squared_error(larger_forward(params, jnp.tanh(x @ params["w"])), y)


# In the larger image, with a zero behind every entry, tap k of place p reads position p + k − 2.
def spread_out(a):
    return jnp.zeros((len(a), 6, 6, a.shape[-1]), a.dtype).at[:, ::2, ::2].set(a)


def larger_gradient(
    dk=lambda a, dy: kernel_gradient(spread_out(a), dy, (3, 3), ((2, 0), (2, 0))),
    da=lambda dy, kernel: input_gradient(dy, kernel, (3, 6, 6, 3), ((2, 0), (2, 0)))[:, ::2, ::2],
):
    def grad_fn(params, x, y):
        a = jnp.tanh(x @ params["w"])
        dy = squared_error_backward(larger_forward(params, a), y)
        dz = da(dy, params["k"]) * (1 - a**2)
        return {"w": jnp.einsum("nhwc,nhwo->co", x, dz), "k": dk(a, dy), "b": sum_over_places(dy)}

    return grad_fn


larger = Problem(THEME, larger_loss, larger_gradient, larger_make)


def full_input_gradient(dy, kernel):
    return input_gradient(dy, kernel, (3, 6, 6, 3), ((2, 0), (2, 0)))


TRANSPOSED = (
    larger.bug(
        "conv_transpose_stride_forgotten", {"transposed", "wrong_operand"}, W,
        da=lambda dy, kernel: full_input_gradient(dy, kernel)[:, :3, :3],
    ),
    larger.bug(
        "conv_transpose_zeros_between_taken_for_entries", {"shifted"}, W,
        da=lambda dy, kernel: full_input_gradient(dy, kernel)[:, 1::2, 1::2],
    ),
    larger.bug(
        "conv_transpose_kernel_of_the_other_convention", {"kernel_flipped"}, W,
        da=lambda dy, kernel: full_input_gradient(dy, kernel[::-1, ::-1])[:, ::2, ::2],
    ),
    larger.bug(
        "conv_transpose_channels_of_the_other_convention", {"transposed"}, K,
        dk=lambda a, dy: kernel_gradient(spread_out(a), dy, (3, 3), ((2, 0), (2, 0))).swapaxes(2, 3),
    ),
    larger.bug(
        "conv_transpose_entries_repeated", {"wrong_operand"}, K,
        dk=lambda a, dy: kernel_gradient(a.repeat(2, axis=1).repeat(2, axis=2), dy, (3, 3), ((2, 0), (2, 0))),
    ),
    larger.bug(
        "conv_transpose_padding_behind", {"shifted", "wrong_operand"}, K,
        dk=lambda a, dy: kernel_gradient(spread_out(a), dy, (3, 3), ((1, 1), (1, 1))),
    ),
)  # fmt: skip

CASES = STRIDES + CAUSAL + GROUPED + TRANSPOSED
