"""Bugs in the backward passes of pooling, and of the normalizations of images."""

from itertools import product

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "pooling and norms of images"
SAMPLES, SIZE = 4, 5
W = "['w']"


def make(dtype, outputs=(3, 3)):
    """Pixels, of which each row's second one is the first one again: they tie in every feature, whatever w is."""
    w, b, x, y = normal(dtype, 311, (2, 3), (3,), (SAMPLES, SIZE, SIZE, 2), (SAMPLES, *outputs, 3))
    return {"w": w, "b": b}, (x.at[:, :, 1].set(x[:, :, 0]), y)


def on_pixels(pool, right_dz, outputs=(3, 3)) -> Problem:
    """A linear map of every pixel, tanh, and pooling; the line is ``da``, a function of dy, the pooled and a."""

    def loss_fn(params, x, y):
        return squared_error(pool(jnp.tanh(x @ params["w"] + params["b"])), y)

    def gradient(da=right_dz):
        def grad_fn(params, x, y):
            a = jnp.tanh(x @ params["w"] + params["b"])
            pooled = pool(a)
            dz = da(squared_error_backward(pooled, y), pooled, a) * (1 - a**2)
            return {"w": jnp.einsum("nhwc,nhwo->co", x, dz), "b": dz.sum(axis=(0, 1, 2))}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, lambda dtype: make(dtype, outputs))


# Windows of 3 × 3 with stride 2 and one position of padding on every side.
PLACES = slice(0, 5, 2), slice(1, 6, 2), slice(2, 7, 2)
OFFSETS = tuple(product(range(3), repeat=2))


def padded(a, value):
    return jnp.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def windows(a, value):
    """``(batch, 3, 3, offset, channels)``."""
    a = padded(a, value)
    return jnp.stack([a[:, PLACES[row], PLACES[column]] for row, column in OFFSETS], axis=3)


def back_from_windows(values, corner=(1, 1), combine="add"):
    """Every entry of the windows goes to its position."""
    dx = jnp.zeros((len(values), SIZE + 2, SIZE + 2, values.shape[-1]), values.dtype)
    for number, (row, column) in enumerate(OFFSETS):
        dx = getattr(dx.at[:, PLACES[row], PLACES[column]], combine)(values[:, :, :, number])
    return dx[:, corner[0] : corner[0] + SIZE, corner[1] : corner[1] + SIZE]


def max_pool(a):
    return windows(a, -jnp.inf).max(axis=3)


def winners(a):
    """One for each window: the first of those that tie."""
    return jnp.arange(9)[:, None] == windows(a, -jnp.inf).argmax(axis=3)[:, :, :, None]


def max_pool_backward(dy, pooled, a, winners=winners, **options):
    return back_from_windows(jnp.where(winners(a), dy[:, :, :, None], 0), **options)


max_pooled = on_pixels(max_pool, max_pool_backward)


def every_winner(a):
    entries = windows(a, -jnp.inf)
    return entries == entries.max(axis=3, keepdims=True)


def winners_of_all_channels(a):
    return winners(a.sum(axis=-1, keepdims=True))


def winners_by_columns(a):
    """The number of the winner, read as if columns came first."""
    return winners(a).reshape(SAMPLES, 3, 3, 3, 3, 3).swapaxes(3, 4).reshape(SAMPLES, 3, 3, 9, 3)


def losers(a):
    return jnp.arange(9)[:, None] == windows(a, jnp.inf).argmin(axis=3)[:, :, :, None]


def to_centres(dy, pooled, a):
    return jnp.zeros_like(a).at[:, ::2, ::2].set(dy)


MAX_POOLING = (
    max_pooled.bug(
        "max_pool2d_ties_given_twice", {"mask"}, W, da=lambda *given: max_pool_backward(*given, winners=every_winner)
    ),
    max_pooled.bug(
        "max_pool2d_overlapping_windows_overwritten", {"lost_path", "mask"}, W,
        # Only where the last window that contains a position chose it does anything arrive.
        da=lambda *given: max_pool_backward(*given, combine="set"),
    ),
    max_pooled.bug(
        "max_pool2d_one_winner_for_all_channels", {"mask", "wrong_operand"}, W,
        da=lambda *given: max_pool_backward(*given, winners=winners_of_all_channels),
    ),
    max_pooled.bug(
        "max_pool2d_index_by_columns", {"mask", "transposed"}, W,
        da=lambda *given: max_pool_backward(*given, winners=winners_by_columns),
    ),
    max_pooled.bug(
        "max_pool2d_smallest_entry", {"mask"}, W, da=lambda *given: max_pool_backward(*given, winners=losers)
    ),
    max_pooled.bug(
        "max_pool2d_padding_not_cut_off", {"shifted"}, W, da=lambda *given: max_pool_backward(*given, corner=(0, 0))
    ),
    max_pooled.bug("max_pool2d_to_the_centres", {"mask"}, W, da=to_centres),
)  # fmt: skip


# Means over the same windows: with the zeros of the padding among the nine, and of what lies in the image alone.
def avg_pool(a):
    return windows(a, 0).mean(axis=3)


COUNTS = np.multiply.outer((2, 3, 2), (2, 3, 2))[:, :, None]


def avg_pool_inside(a):
    return windows(a, 0).sum(axis=3) / jnp.asarray(COUNTS, a.dtype)


def avg_pool_backward(dy, pooled, a, **options):
    return back_from_windows(jnp.broadcast_to((dy / 9)[:, :, :, None], (SAMPLES, 3, 3, 9, 3)), **options)


avg_pooled = on_pixels(avg_pool, avg_pool_backward)
avg_pooled_inside = on_pixels(
    avg_pool_inside, lambda dy, pooled, a: avg_pool_backward(9 * dy / jnp.asarray(COUNTS, a.dtype), pooled, a)
)

AVG_POOLING = (
    avg_pooled.bug(
        "avg_pool2d_divided_by_the_positions_inside", {"scaled_path"}, W,
        da=lambda dy, pooled, a: avg_pool_backward(9 * dy / jnp.asarray(COUNTS, a.dtype), pooled, a),
    ),
    avg_pooled.bug(
        "avg_pool2d_divided_by_the_stride", {"scaled"}, W,
        da=lambda dy, pooled, a: avg_pool_backward(9 / 4 * dy, pooled, a),
    ),
    avg_pooled.bug(
        "avg_pool2d_overlap_counted_once", {"lost_path"}, W,
        da=lambda *given: avg_pool_backward(*given, combine="set"),
    ),
    avg_pooled.bug(
        "avg_pool2d_one_row_up", {"shifted"}, W, da=lambda *given: avg_pool_backward(*given, corner=(2, 1))
    ),
    avg_pooled.bug(
        "avg_pool2d_to_the_centres", {"lost_path"}, W, da=lambda dy, pooled, a: to_centres(dy / 9, pooled, a),
    ),
    avg_pooled_inside.bug("avg_pool2d_divisor_at_the_edges", {"scaled_path"}, W, da=avg_pool_backward),
)  # fmt: skip


def global_backward(dy, pooled, a):
    return jnp.broadcast_to(dy[:, None, None] / SIZE**2, a.shape)


# All pixels in one row, as before a dense layer.
global_pooled = on_pixels(lambda a: a.mean(axis=(1, 2)), global_backward, ())


def flattened_loss(params, x, y):
    return squared_error(jnp.tanh(x @ params["w"] + params["b"]).reshape(SAMPLES, -1), y)


def flattened_gradient(back=lambda dy, shape: dy.reshape(shape)):
    def grad_fn(params, x, y):
        a = jnp.tanh(x @ params["w"] + params["b"])
        dz = back(squared_error_backward(a.reshape(SAMPLES, -1), y), a.shape) * (1 - a**2)
        return {"w": jnp.einsum("nhwc,nhwo->co", x, dz), "b": dz.sum(axis=(0, 1, 2))}

    return grad_fn


def flattened_make(dtype):
    params, (x, y) = make(dtype, (SIZE, SIZE))
    return params, (x, y.reshape(SAMPLES, -1))


flattened = Problem(THEME, flattened_loss, flattened_gradient, flattened_make)

WHOLE_IMAGES = (
    global_pooled.bug(
        "global_avg_pool_divided_by_the_height", {"scaled"}, W,
        da=lambda dy, pooled, a: SIZE * global_backward(dy, pooled, a),
    ),
    global_pooled.bug(
        "global_avg_pool_to_one_position", {"lost_path"}, W,
        da=lambda dy, pooled, a: jnp.zeros_like(a).at[:, 2, 2].set(dy),
    ),
    flattened.bug(
        "flatten_with_channels_first", {"transposed", "wrong_axis"}, W,
        back=lambda dy, shape: dy.reshape(SAMPLES, 3, SIZE, SIZE).transpose(0, 2, 3, 1),
    ),
    flattened.bug(
        "flatten_of_the_batch_last", {"transposed", "wrong_axis"}, W,
        back=lambda dy, shape: dy.T.reshape(shape),
    ),
)  # fmt: skip


# Normalizations of h, pixels by a linear map: axes of (batch, height, width, groups, features of a group).
EPSILON, FEATURES, GROUPS, PIXELS = 0.05, 6, 2, 3
GAMMA, BETA = "['gamma']", "['beta']"
GROUP_AXES, BATCH_AXES = (1, 2, 4), (0, 1, 2)


def norm_make(dtype):
    w, gamma, beta, x, y = normal(
        dtype, 312, (2, FEATURES), (FEATURES,), (FEATURES,), (SAMPLES, PIXELS, PIXELS, 2),
        (SAMPLES, PIXELS, PIXELS, FEATURES),
    )  # fmt: skip
    return {"w": w, "gamma": 1.5 + gamma / 2, "beta": beta}, (x + 0.5, y)


def split(h):
    return h.reshape(*h.shape[:-1], GROUPS, FEATURES // GROUPS)


def mean(values, axes):
    return values.mean(axis=axes, keepdims=True)


def standardized(h, axes):
    inverse = 1 / jnp.sqrt(h.var(axis=axes, keepdims=True) + EPSILON)
    return (h - mean(h, axes)) * inverse, inverse


def root_mean_square(h, axes):
    inverse = 1 / jnp.sqrt(mean(h**2, axes) + EPSILON)
    return h * inverse, inverse


def standardized_backward(dx_hat, x_hat, inverse, axes):
    return inverse * (dx_hat - mean(dx_hat, axes) - x_hat * mean(dx_hat * x_hat, axes))


def root_mean_square_backward(dx_hat, x_hat, inverse, axes):
    return inverse * (dx_hat - x_hat * mean(dx_hat * x_hat, axes))


def normalized(scheme, right_dh, axes) -> Problem:
    """Its lines: ``dh``, of dx̂, x̂ and 1/σ by group, and the axes; ``dx_hat``, ``dgamma`` and ``dbeta``."""

    def apply(params, x):
        x_hat, inverse = scheme(split(x @ params["w"]), axes)
        y = params["gamma"] * x_hat.reshape(*x.shape[:-1], FEATURES) + params["beta"]
        return jnp.tanh(y), x_hat, inverse

    def loss_fn(params, x, y):
        return squared_error(apply(params, x)[0], y)

    def gradient(
        dh=right_dh,
        dgamma=lambda dy, x_hat, h: (dy * x_hat).sum(axis=(0, 1, 2)),
        dbeta=lambda dy: dy.sum(axis=(0, 1, 2)),
    ):
        def grad_fn(params, x, y):
            h = x @ params["w"]
            a, x_hat, inverse = apply(params, x)
            dy = squared_error_backward(a, y) * (1 - a**2)
            dh_by_hand = dh(split(dy * params["gamma"]), x_hat, inverse, axes)
            dw = jnp.einsum("nhwc,nhwo->co", x, dh_by_hand.reshape(h.shape))
            return {"w": dw, "gamma": dgamma(dy, x_hat.reshape(h.shape), h), "beta": dbeta(dy)}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, norm_make)


def over(axes):
    return lambda dx_hat, x_hat, inverse, _: standardized_backward(dx_hat, x_hat, inverse, axes)


def sums_over_features_alone(dx_hat, x_hat, inverse, axes):
    def too_large(values):
        return values.sum(axis=axes, keepdims=True) / (FEATURES // GROUPS)

    return inverse * (dx_hat - too_large(dx_hat) - x_hat * too_large(dx_hat * x_hat))


def every_other_feature(dx_hat, x_hat, inverse, axes):
    """Groups of features that aren't neighbours."""

    def mixed(values):
        flat = values.reshape(*values.shape[:3], FEATURES // GROUPS, GROUPS).swapaxes(3, 4)
        means = jnp.broadcast_to(mean(flat, axes), flat.shape)
        return means.swapaxes(3, 4).reshape(values.shape)

    return inverse * (dx_hat - mixed(dx_hat) - x_hat * mixed(dx_hat * x_hat))


group_norm = normalized(standardized, standardized_backward, GROUP_AXES)
image_batch_norm = normalized(standardized, standardized_backward, BATCH_AXES)
image_rms_norm = normalized(root_mean_square, root_mean_square_backward, (3, 4))

GROUP_NORM = (
    group_norm.bug("group_norm_means_over_features_alone", {"normalization_term", "wrong_axis"}, W, dh=over((4,))),
    group_norm.bug("group_norm_means_over_positions_alone", {"normalization_term", "wrong_axis"}, W, dh=over((1, 2))),
    group_norm.bug("group_norm_means_over_all_groups", {"normalization_term", "wrong_axis"}, W, dh=over((1, 2, 3, 4))),
    group_norm.bug(
        "group_norm_means_over_the_batch_too", {"normalization_term", "wrong_axis"}, W, dh=over((0, 1, 2, 4)),
    ),
    group_norm.bug(
        "group_norm_groups_of_every_other_feature", {"normalization_term", "wrong_axis"}, W, dh=every_other_feature
    ),
    group_norm.bug("group_norm_positions_not_in_the_divisor", {"normalization_term"}, W, dh=sums_over_features_alone),
    group_norm.bug(
        "group_norm_variance_taken_for_constant", {"normalization_term"}, W,
        dh=lambda dx_hat, x_hat, inverse, axes: inverse * (dx_hat - mean(dx_hat, axes)),
    ),
    group_norm.bug(
        "group_norm_scale_mean_over_positions", {"scaled"}, GAMMA,
        dgamma=lambda dy, x_hat, h: (dy * x_hat).mean(axis=(1, 2)).sum(axis=0),
    ),
)  # fmt: skip

BATCH_NORM = (
    image_batch_norm.bug(
        "batch_norm_of_images_over_the_samples_alone", {"normalization_term", "wrong_axis"}, W, dh=over((0,))
    ),
    image_batch_norm.bug(
        "batch_norm_of_images_over_the_positions_alone", {"normalization_term", "wrong_axis"}, W, dh=over((1, 2))
    ),
    image_batch_norm.bug(
        "batch_norm_of_images_divided_by_the_samples", {"normalization_term"}, W,
        dh=lambda dx_hat, x_hat, inverse, axes: inverse
        * (dx_hat - PIXELS**2 * (mean(dx_hat, axes) + x_hat * mean(dx_hat * x_hat, axes))),
    ),
    image_batch_norm.bug(
        "batch_norm_of_images_bias_mean_over_positions", {"scaled"}, BETA,
        dbeta=lambda dy: dy.mean(axis=(1, 2)).sum(axis=0),
    ),
)  # fmt: skip

RMS_NORM = (
    image_rms_norm.bug(
        "rms_norm_of_images_taken_for_constant", {"normalization_term"}, W,
        dh=lambda dx_hat, x_hat, inverse, axes: inverse * dx_hat,
    ),
    image_rms_norm.bug("rms_norm_with_the_mean_of_layer_norm", {"normalization_term"}, W, dh=over((3, 4))),
    image_rms_norm.bug(
        "rms_norm_of_images_sum_for_mean", {"normalization_term"}, W,
        dh=lambda dx_hat, x_hat, inverse, axes: inverse * (dx_hat - FEATURES * x_hat * mean(dx_hat * x_hat, axes)),
    ),
    image_rms_norm.bug(
        "rms_norm_term_added", {"normalization_term"}, W,
        dh=lambda dx_hat, x_hat, inverse, axes: inverse * (dx_hat + x_hat * mean(dx_hat * x_hat, axes)),
    ),
    image_rms_norm.bug(
        "rms_norm_square_for_root", {"normalization_term", "scaled_path"}, W,
        dh=lambda dx_hat, x_hat, inverse, axes: root_mean_square_backward(dx_hat, x_hat, inverse**2, axes),
    ),
    image_rms_norm.bug(
        "rms_norm_scale_by_what_is_not_normalized", {"wrong_operand"}, GAMMA,
        dgamma=lambda dy, x_hat, h: (dy * h).sum(axis=(0, 1, 2)),
    ),
)  # fmt: skip

CASES = MAX_POOLING + AVG_POOLING + WHOLE_IMAGES + GROUP_NORM + BATCH_NORM + RMS_NORM
