"""Convolutions: dilated and grouped in 2-D, strided by im2col, depthwise and transposed in 1-D."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right, sigmoid
from experiments.benchmarks.catalogue.case import Problem, normal, one_hot

TAPS, DILATION, GROUPS, SIDE = 3, 2, 2, 4


def image_forward(params, x):
    """1x1 stem and tanh, a dilated convolution in two groups, softplus, average pooling by 2, a linear head."""
    a = jnp.tanh(x @ params["stem"])
    z = (
        jax.lax.conv_general_dilated(
            a,
            params["kernel"],
            (1, 1),
            "SAME",
            rhs_dilation=(DILATION, DILATION),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=GROUPS,
        )
        + params["bias"]
    )
    s = jnp.logaddexp(z, 0)
    pooled = s.reshape(len(x), 2, 2, 2, 2, -1).mean(axis=(2, 4))
    return a, z, s, pooled, pooled.reshape(len(x), -1) @ params["head"]


def image_loss(params, x, target):
    return mean_square(image_forward(params, x)[-1], target)


def image_gradient(
    tap=lambda kernel, i, j: kernel[i, j],
    unpool=lambda d: jnp.repeat(jnp.repeat(d, 2, axis=1), 2, axis=2) / 4,
    slope=lambda z, s: sigmoid(z),
    d_bias=lambda dz: dz.sum(axis=(0, 1, 2)),
    stem_slope=lambda a: 1 - a**2,
):
    def grad_fn(params, x, target):
        a, z, s, pooled, y = image_forward(params, x)
        dy = mean_square_back(y, target)
        dz = unpool((dy @ params["head"].T).reshape(pooled.shape)) * slope(z, s)
        groups = dz.reshape(*dz.shape[:3], GROUPS, -1)
        padded = jnp.pad(a, ((0, 0), (DILATION, DILATION), (DILATION, DILATION), (0, 0)))
        d_padded, d_kernel = jnp.zeros_like(padded), jnp.zeros_like(params["kernel"])
        for i in range(TAPS):
            for j in range(TAPS):
                rows, columns = slice(i * DILATION, i * DILATION + SIDE), slice(j * DILATION, j * DILATION + SIDE)
                window = padded[:, rows, columns].reshape(*a.shape[:3], GROUPS, -1)
                weights = tap(params["kernel"], i, j).reshape(-1, GROUPS, groups.shape[-1])
                into = jnp.einsum("bhwgi,bhwgo->igo", window, groups)
                d_kernel = d_kernel.at[i, j].set(into.reshape(d_kernel.shape[2:]))
                d_window = jnp.einsum("bhwgo,igo->bhwgi", groups, weights)
                d_padded = d_padded.at[:, rows, columns].add(d_window.reshape(a.shape))
        da = d_padded[:, DILATION:-DILATION, DILATION:-DILATION] * stem_slope(a)
        return {
            "stem": jnp.einsum("bhwc,bhwd->cd", x, da),
            "kernel": d_kernel,
            "bias": d_bias(dz),
            "head": pooled.reshape(len(x), -1).T @ dy,
        }

    return grad_fn


def image_make(dtype):
    stem, kernel, bias, head, x, target = normal(
        dtype, 21, (2, 4), (3, 3, 2, 6), (6,), (24, 2), (2, SIDE, SIDE, 2), (2, 2)
    )
    return {"stem": stem, "kernel": kernel * 0.5, "bias": bias, "head": head}, (x, target)


image = Problem("convolution", image_loss, image_gradient, image_make)

LENGTH, WIDTH, STRIDE = 10, 4, 2
WINDOWS = np.arange(0, LENGTH - WIDTH + 1, STRIDE)[:, None] + np.arange(WIDTH)[None, :]


def strided_forward(params, x):
    """Features, a strided convolution as a product with gathered windows, max pooling over pairs, class scores."""
    h = jnp.tanh(x @ params["inner"])
    columns = h[:, WINDOWS].reshape(len(x), len(WINDOWS), -1)
    z = columns @ params["kernel"] + params["bias"]
    pairs = z.reshape(len(x), 2, 2, -1)
    top = pairs.max(axis=2)
    return h, columns, pairs, top, top.reshape(len(x), -1) @ params["head"]


def strided_loss(params, x, target, weight):
    """Cross entropy with class weights, averaged by the sum of the weights."""
    scores = strided_forward(params, x)[-1]
    each = -jnp.sum(one_hot(target, scores) * jax.nn.log_softmax(scores), axis=1)
    return jnp.sum(weight[target] * each) / jnp.sum(weight[target])


def strided_gradient(
    average=lambda w: w / jnp.sum(w),
    route=lambda pairs, d: (pairs == pairs.max(axis=2, keepdims=True)) * d[:, :, None],
    fold=lambda h, d: jnp.zeros_like(h).at[:, WINDOWS].add(d),
    d_bias=lambda dz: dz.sum(axis=(0, 1)),
):
    def grad_fn(params, x, target, weight):
        h, columns, pairs, top, scores = strided_forward(params, x)
        w = weight[target]
        d = (jax.nn.softmax(scores) - one_hot(target, scores)) * average(w)[:, None]
        d_top = (d @ params["head"].T).reshape(top.shape)
        dz = route(pairs, d_top).reshape(len(x), len(WINDOWS), -1)
        d_columns = (dz @ params["kernel"].T).reshape(len(x), len(WINDOWS), WIDTH, -1)
        dh = fold(h, d_columns) * (1 - h**2)
        return {
            "inner": jnp.einsum("btc,bth->ch", x, dh),
            "kernel": jnp.einsum("btc,bto->co", columns, dz),
            "bias": d_bias(dz),
            "head": top.reshape(len(x), -1).T @ d,
        }

    return grad_fn


def fold_without_overlap(h, d):
    """The windows are written one after the other, so that the later covers what the earlier left."""
    out = jnp.zeros_like(h)
    for window, part in zip(WINDOWS, jnp.moveaxis(d, 1, 0), strict=True):
        out = out.at[:, window].set(part)
    return out


def strided_make(dtype):
    inner, kernel, bias, head, x = normal(dtype, 22, (2, 3), (12, 5), (5,), (10, 3), (3, LENGTH, 2))
    params = {"inner": inner, "kernel": kernel, "bias": bias, "head": head * 0.5}
    return params, (x, jnp.array([2, 0, 1]), jnp.asarray([0.5, 1.5, 3.0], dtype))


strided = Problem("convolution", strided_loss, strided_gradient, strided_make)


def upsample(h, kernel):
    """Transposed convolution by 2: each step adds its row of taps to the output."""
    steps, taps = h.shape[1], len(kernel)
    out = jnp.zeros((len(h), 2 * (steps - 1) + taps, kernel.shape[2]), h.dtype)
    for k in range(taps):
        out = out.at[:, k : k + 2 * steps - 1 : 2].add(h @ kernel[k])
    return out


def decoder_forward(params, z):
    """Causal depthwise convolution, a gate, then upsampling."""
    taps, steps = len(params["depth"]), z.shape[1]
    u = z @ params["enter"]
    padded = jnp.pad(u, ((0, 0), (taps - 1, 0), (0, 0)))
    c = sum(padded[:, k : k + steps] * params["depth"][k] for k in range(taps))
    gate = sigmoid(u @ params["gate"])
    return u, padded, c, gate, upsample(c * gate, params["up"]) + params["shift"]


def decoder_loss(params, z, target):
    return mean_square(decoder_forward(params, z)[-1], target)


def decoder_gradient(
    back_tap=lambda kernel, k: kernel[k].T,
    taps_up=lambda stacked: stacked,
    into_past=lambda dc, k: jnp.pad(dc, ((0, 0), (k, 0), (0, 0)))[:, : dc.shape[1] + k],
    d_content=lambda dh, gate, g_in: dh * gate,
    gate_path=lambda d: d,
    taps_depth=lambda stacked: stacked,
):
    def grad_fn(params, z, target):
        u, padded, c, gate, y = decoder_forward(params, z)
        dy, steps, taps = mean_square_back(y, target), u.shape[1], len(params["depth"])
        pieces = [dy[:, k : k + 2 * steps - 1 : 2] for k in range(len(params["up"]))]
        d_up = jnp.stack([jnp.einsum("btc,bto->co", c * gate, piece) for piece in pieces])
        dh = sum(piece @ back_tap(params["up"], k) for k, piece in enumerate(pieces))
        dc, dg = d_content(dh, gate, u @ params["gate"]), dh * c * gate * (1 - gate)
        d_depth = jnp.stack([jnp.sum(dc * padded[:, k : k + steps], axis=(0, 1)) for k in range(taps)])
        d_padded = jnp.zeros_like(padded)
        for k in range(taps):
            d_padded = d_padded.at[:, : steps + k].add(into_past(dc * params["depth"][k], k))
        du = d_padded[:, taps - 1 :] + gate_path(dg @ params["gate"].T)
        return {
            "enter": jnp.einsum("bti,btc->ic", z, du),
            "depth": taps_depth(d_depth),
            "gate": jnp.einsum("bti,btc->ic", u, dg),
            "up": taps_up(d_up),
            "shift": dy.sum(axis=(0, 1)),
        }

    return grad_fn


def decoder_make(dtype):
    enter, depth, gate, up, shift, z, target = normal(
        dtype, 23, (2, 3), (3, 3), (3, 3), (4, 3, 3), (3,), (2, 4, 2), (2, 10, 3)
    )
    return {"enter": enter, "depth": depth, "gate": gate, "up": up, "shift": shift}, (z, target)


decoder = Problem("convolution", decoder_loss, decoder_gradient, decoder_make)

BUGS = [
    image.bug(
        "image_kernel_flipped_twice",
        {"kernel_flipped"},
        "['stem']",
        tap=lambda kernel, i, j: kernel[TAPS - 1 - i, TAPS - 1 - j],
    ),
    image.bug(
        "image_pooling_not_divided",
        {"scaled", "scaled_path"},
        "['kernel']",
        unpool=lambda d: jnp.repeat(jnp.repeat(d, 2, axis=1), 2, axis=2),
    ),
    image.bug(
        "image_softplus_slope_at_output",
        {"activation_derivative", "wrong_operand"},
        "['kernel']",
        slope=lambda z, s: sigmoid(s),
    ),
    image.bug(
        "image_bias_averaged_over_pixels", {"scaled"}, "['bias']", d_bias=lambda dz: dz.mean(axis=(1, 2)).sum(axis=0)
    ),
    image.bug("image_kernel_axes_exchanged", {"transposed"}, "['stem']", tap=lambda kernel, i, j: kernel[j, i]),
    strided.bug(
        "strided_weights_averaged_by_count", {"loss_derivative", "scaled"}, "['head']", average=lambda w: w / len(w)
    ),
    strided.bug(
        "strided_pool_shared_out",
        {"activation_derivative", "mask"},
        "['kernel']",
        route=lambda pairs, d: jnp.broadcast_to(d[:, :, None] / 2, pairs.shape),
    ),
    strided.bug("strided_windows_overwrite", {"lost_path"}, "['inner']", fold=fold_without_overlap),
    strided.bug(
        "strided_windows_one_late",
        {"shifted"},
        "['inner']",
        fold=lambda h, d: jnp.zeros_like(h).at[:, np.minimum(WINDOWS + 1, LENGTH - 1)].add(d),
    ),
    strided.bug("strided_bias_last_sample", {"subset_of_batch"}, "['bias']", d_bias=lambda dz: dz[-1].sum(axis=0)),
    decoder.bug("decoder_taps_untransposed", {"transposed"}, "['gate']", back_tap=lambda kernel, k: kernel[k]),
    decoder.bug("decoder_taps_reversed", {"kernel_flipped"}, "['up']", taps_up=lambda stacked: stacked[::-1]),
    decoder.bug("decoder_depth_rolled", {"shifted"}, "['depth']", taps_depth=lambda stacked: jnp.roll(stacked, 1, 0)),
    decoder.bug(
        "decoder_gate_before_sigmoid", {"wrong_operand"}, "['depth']", d_content=lambda dh, gate, g_in: dh * g_in
    ),
    decoder.bug("decoder_gate_path_lost", {"lost_path"}, "['enter']", gate_path=jnp.zeros_like),
]
RIGHT = [
    right(image, "image_dilated_groups"),
    right(strided, "strided_im2col"),
    right(decoder, "decoder_depthwise_transposed"),
]
