"""Losses between samples: two-sided contrast with a temperature, triplets, quantiles, focal and dice together."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import right, sigmoid
from experiments.benchmarks.catalogue.case import Problem, normal


def unit(x):
    length = jnp.linalg.norm(x, axis=1, keepdims=True)
    return x / length, length


def pairs_forward(params, xa, xb):
    (za, la), (zb, lb) = unit(xa @ params["wa"]), unit(xb @ params["wb"])
    cosine = za @ zb.T
    return za, la, zb, lb, cosine, cosine * jnp.exp(params["tau"])


def pairs_loss(params, xa, xb):
    """The mean of the cross entropies by row and by column; the pairs are on the diagonal."""
    scores = pairs_forward(params, xa, xb)[-1]
    rows, columns = jax.nn.log_softmax(scores, axis=1), jax.nn.log_softmax(scores, axis=0)
    return -0.5 * jnp.mean(jnp.diag(rows) + jnp.diag(columns))


def pairs_gradient(
    columns=lambda scores: jax.nn.softmax(scores, axis=0),
    unit_back=lambda dz, z, length: (dz - z * jnp.sum(dz * z, axis=1, keepdims=True)) / length,
    other_side=lambda ds, za: ds.T @ za,
    d_tau=lambda ds, cosine, tau: jnp.sum(ds * cosine) * jnp.exp(tau),
):
    def grad_fn(params, xa, xb):
        za, la, zb, lb, cosine, scores = pairs_forward(params, xa, xb)
        n, warm = len(xa), jnp.exp(params["tau"])
        ds = (jax.nn.softmax(scores, axis=1) + columns(scores) - 2 * jnp.eye(n, dtype=xa.dtype)) / (2 * n)
        return {
            "wa": xa.T @ unit_back(ds @ zb * warm, za, la),
            "wb": xb.T @ unit_back(other_side(ds, za) * warm, zb, lb),
            "tau": d_tau(ds, cosine, params["tau"]),
        }

    return grad_fn


def pairs_make(dtype, tau=0.7):
    wa, wb, xa, xb = normal(dtype, 61, (3, 4), (5, 4), (4, 3), (4, 5))
    return {"wa": wa, "wb": wb, "tau": jnp.asarray(tau, dtype)}, (xa, xb)


pairs = Problem("contrast", pairs_loss, pairs_gradient, pairs_make)

MARGIN = 1.0


def embed(params, x):
    a = jnp.tanh(x @ params["w1"])
    return a, a @ params["w2"]


def triplet_loss(params, anchor, positive, negative):
    """Hinge on the difference of Euclidean distances; one net embeds all three."""
    ea, ep, en = (embed(params, x)[1] for x in (anchor, positive, negative))
    near, far = jnp.linalg.norm(ea - ep, axis=1), jnp.linalg.norm(ea - en, axis=1)
    return jnp.mean(jnp.maximum(near - far + MARGIN, 0))


def triplet_gradient(
    active=lambda gap: (gap > 0).astype(gap.dtype),
    direction=lambda difference, length: difference / length,
    d_anchor=lambda near, far: near - far,
    d_negative=lambda far: far,
    total=sum,
):
    def grad_fn(params, anchor, positive, negative):
        (aa, ea), (ap, ep), (an, en) = (embed(params, x) for x in (anchor, positive, negative))
        near, far = (jnp.linalg.norm(ea - e, axis=1, keepdims=True) for e in (ep, en))
        on = active(near - far + MARGIN) / len(anchor)
        toward, away = on * direction(ea - ep, near), on * direction(ea - en, far)
        sides = [(anchor, aa, d_anchor(toward, away)), (positive, ap, -toward), (negative, an, d_negative(away))]
        w1 = [x.T @ (d @ params["w2"].T * (1 - a**2)) for x, a, d in sides]
        return {"w1": total(w1), "w2": total([a.T @ d for _, a, d in sides])}

    return grad_fn


def triplet_make(dtype):
    w1, w2, anchor, positive, negative = normal(dtype, 62, (3, 5), (5, 3), (6, 3), (6, 3), (6, 3))
    return {"w1": w1, "w2": w2 * 0.6}, (anchor, positive, negative)


triplet = Problem("contrast", triplet_loss, triplet_gradient, triplet_make)

LEVELS = (0.1, 0.5, 0.8)


def quantile_forward(params, x):
    a = jnp.maximum(x @ params["w"] + params["b"], 0)
    return a, a @ params["out"] + params["c"]


def quantile_loss(params, x, target):
    error = target[:, None] - quantile_forward(params, x)[1]
    level = jnp.asarray(LEVELS, x.dtype)
    return jnp.mean(jnp.sum(jnp.maximum(level * error, (level - 1) * error), axis=1))


def quantile_gradient(
    slope=lambda error, level: jnp.where(error > 0, -level, jnp.where(error < 0, 1 - level, 0.5 - level)),
    relu_back=lambda a, x: a > 0,
    average=lambda d: d / len(d),
):
    """At an error of zero the middle of both slopes counts, and a ReLU at zero passes half, as ``maximum`` does."""

    def grad_fn(params, x, target):
        a, y = quantile_forward(params, x)
        d = average(slope(target[:, None] - y, jnp.asarray(LEVELS, x.dtype)))
        z = x @ params["w"] + params["b"]
        dz = d @ params["out"].T * jnp.where(z == 0, 0.5, relu_back(a, x).astype(x.dtype))
        return {"w": x.T @ dz, "b": dz.sum(axis=0), "out": a.T @ d, "c": d.sum(axis=0)}

    return grad_fn


def quantile_make(dtype, kinks=False, dead=False):
    w, b, out, c, x, target = normal(dtype, 63, (3, 4), (4,), (4, 3), (3,), (7, 3), (7,))
    if kinks:
        x, b = x.at[0].set(0), b.at[:2].set(0)
        b = jnp.round(4 * b) / 4
        out, c = out.at[2:].set(0.5), c.at[1].set(0.25)
        level = jnp.maximum(b[2], 0) * 0.5 + jnp.maximum(b[3], 0) * 0.5 + c[1]
        target = target.at[0].set(level)
    if dead:
        b = b - 60
    return {"w": w, "b": b, "out": out, "c": c}, (x, target)


quantile = Problem("losses", quantile_loss, quantile_gradient, quantile_make)

POWER, ALPHA, SMOOTH = 2, 0.7, 1.0


def segment_forward(params, x):
    h = jnp.sin(x @ params["w"])
    z = jnp.einsum("bnh,h->bn", h, params["v"]) + params["c"]
    return h, z, sigmoid(z)


def segment_loss(params, x, mask):
    """Focal loss over all pixels plus one minus the dice coefficient of each image."""
    p = segment_forward(params, x)[-1]
    focal = -ALPHA * mask * (1 - p) ** POWER * jnp.log(p) - (1 - ALPHA) * (1 - mask) * p**POWER * jnp.log(1 - p)
    dice = (2 * jnp.sum(p * mask, axis=1) + SMOOTH) / (jnp.sum(p + mask, axis=1) + SMOOTH)
    return jnp.mean(focal) + jnp.mean(1 - dice)


def segment_gradient(
    d_positive=lambda p: 2 * (1 - p) * jnp.log(p) - (1 - p) ** 2 / p,
    d_dice=lambda top, below, mask: -(2 * mask * below - top) / below**2,
    join=lambda focal, dice: focal + dice,
    slope=lambda p: p * (1 - p),
    d_constant=lambda dz: dz.sum(),
):
    def grad_fn(params, x, mask):
        h, _z, p = segment_forward(params, x)
        d_negative = -2 * p * jnp.log(1 - p) + p**2 / (1 - p)
        focal = (ALPHA * mask * d_positive(p) + (1 - ALPHA) * (1 - mask) * d_negative) / p.size
        top = 2 * jnp.sum(p * mask, axis=1, keepdims=True) + SMOOTH
        below = jnp.sum(p + mask, axis=1, keepdims=True) + SMOOTH
        dz = join(focal, d_dice(top, below, mask) / len(p)) * slope(p)
        dh = dz[..., None] * params["v"] * jnp.cos(x @ params["w"])
        return {
            "w": jnp.einsum("bni,bnh->ih", x, dh),
            "v": jnp.einsum("bnh,bn->h", h, dz),
            "c": d_constant(dz),
        }

    return grad_fn


def segment_make(dtype):
    w, v, c, x, raw = normal(dtype, 64, (2, 4), (4,), (), (2, 6, 2), (2, 6))
    return {"w": w, "v": v, "c": c}, (x, (raw > 0).astype(dtype))


segment = Problem("losses", segment_loss, segment_gradient, segment_make)

BUGS = [
    pairs.bug(
        "pairs_columns_by_row",
        {"wrong_axis", "loss_derivative"},
        "['wb']",
        columns=lambda scores: jax.nn.softmax(scores, axis=1),
    ),
    pairs.bug("pairs_length_detached", {"lost_path"}, "['wa']", unit_back=lambda dz, z, length: dz / length),
    pairs.bug("pairs_scores_untransposed", {"transposed"}, "['wb']", other_side=lambda ds, za: ds @ za),
    pairs.bug(
        "pairs_temperature_not_exponentiated",
        {"scaled", "activation_derivative", "scaled_path"},
        "['tau']",
        d_tau=lambda ds, cosine, tau: jnp.sum(ds * cosine),
    ),
    triplet.bug(
        "triplet_inactive_count_too",
        {"mask", "loss_derivative", "activation_derivative"},
        "['w2']",
        active=jnp.ones_like,
    ),
    triplet.bug(
        "triplet_distance_taken_squared",
        {"loss_derivative", "activation_derivative"},
        "['w2']",
        direction=lambda difference, length: 2 * difference,
    ),
    triplet.bug("triplet_anchor_without_negative", {"lost_path"}, "['w1']", d_anchor=lambda near, far: near),
    triplet.bug("triplet_anchor_only", {"lost_use", "lost_path"}, "['w1']", total=lambda parts: parts[0]),
    triplet.bug("triplet_negative_sign", {"scaled_path"}, "['w2']", d_negative=lambda far: -far),
    quantile.bug(
        "quantile_levels_exchanged",
        {"loss_derivative"},
        "['c']",
        slope=lambda error, level: jnp.where(error > 0, level - 1, level),
    ),
    quantile.bug(
        "quantile_sign",
        {"sign", "scaled", "loss_derivative"},
        "['out']",
        slope=lambda error, level: jnp.where(error > 0, level, level - 1),
    ),
    quantile.bug(
        "quantile_relu_passes_all", {"activation_derivative", "mask"}, "['b']", relu_back=lambda a, x: jnp.ones_like(a)
    ),
    quantile.bug("quantile_averaged_over_levels", {"scaled", "loss_derivative"}, "['c']", average=lambda d: d / d.size),
    segment.bug(
        "segment_focal_without_power_term",
        {"loss_derivative", "activation_derivative", "lost_path"},
        "['v']",
        d_positive=lambda p: -((1 - p) ** 2) / p,
    ),
    segment.bug(
        "segment_dice_denominator_constant",
        {"loss_derivative", "lost_path"},
        "['v']",
        d_dice=lambda top, below, mask: -2 * mask / below,
    ),
    segment.bug("segment_dice_forgotten", {"lost_path", "loss_derivative"}, "['w']", join=lambda focal, dice: focal),
    segment.bug(
        "segment_sigmoid_slope_left_out", {"activation_derivative", "scaled_path"}, "['v']", slope=jnp.ones_like
    ),
    segment.bug(
        "segment_constant_of_first_image", {"subset_of_batch", "scaled"}, "['c']", d_constant=lambda dz: dz[0].sum()
    ),
]
RIGHT = [
    right(pairs, "pairs_two_sided"),
    right(pairs, "pairs_cold", make=lambda dtype: pairs_make(dtype, tau=4.0)),
    right(triplet, "triplet_hinge"),
    right(quantile, "quantile_levels"),
    right(quantile, "quantile_on_kinks", make=lambda dtype: quantile_make(dtype, kinks=True)),
    right(quantile, "quantile_dead_layer", make=lambda dtype: quantile_make(dtype, dead=True)),
    right(segment, "segment_focal_dice"),
]
