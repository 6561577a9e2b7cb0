"""Stopped gradients, quantized codes, ties, sizes far apart, and sums that cancel."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right
from experiments.benchmarks.catalogue.case import Problem, normal

stop = jax.lax.stop_gradient


def teacher_forward(params, x, other):
    a = jnp.tanh(x @ params["online"])
    b = jnp.tanh(other @ params["teacher"])
    return a, b, a @ params["predictor"]


def teacher_loss(params, x, other):
    """The student predicts what the teacher sees in another view; the teacher isn't trained."""
    _, b, y = teacher_forward(params, x, other)
    return mean_square(y, stop(b))


def teacher_gradient(
    d_teacher=lambda dy, b, other: jnp.zeros((other.shape[1], b.shape[1]), b.dtype),
    read=lambda predictor, update: predictor,
    finish=lambda grads: grads,
):
    def grad_fn(params, x, other):
        a, b, y = teacher_forward(params, x, other)
        dy = mean_square_back(y, b)
        d_predictor = a.T @ dy
        da = dy @ read(params["predictor"], d_predictor).T * (1 - a**2)
        return finish({"online": x.T @ da, "predictor": d_predictor, "teacher": d_teacher(dy, b, other)})

    return grad_fn


def teacher_make(dtype):
    online, predictor, teacher, x, other = normal(dtype, 111, (4, 4), (4, 4), (4, 4), (5, 4), (5, 4))
    return {"online": online, "predictor": predictor, "teacher": teacher}, (x, other)


teacher = Problem("stopped", teacher_loss, teacher_gradient, teacher_make)


def codes_forward(params, x):
    z = x @ params["enc"]
    nearest = jnp.argmin(jnp.sum((z[:, None] - params["codes"][None]) ** 2, axis=2), axis=1)
    q = params["codes"][nearest]
    return z, nearest, q, (z + stop(q - z)) @ params["dec"]


def codes_loss(params, x, target):
    """The decoder reads the nearest code; the gradient goes past the choice. Code and encoder attract each other."""
    z, _, q, y = codes_forward(params, x)
    return mean_square(y, target) + mean_square(stop(z), q) + 0.25 * mean_square(z, stop(q))


def codes_gradient(
    d_code=lambda z, q: mean_square_back(q, z),
    d_encoder=lambda straight, z, q: straight + 0.25 * mean_square_back(z, q),
    d_decoder=lambda z, q, dy: q.T @ dy,
):
    def grad_fn(params, x, target):
        z, nearest, q, y = codes_forward(params, x)
        dy = mean_square_back(y, target)
        dz = d_encoder(dy @ params["dec"].T, z, q)
        codes = jnp.zeros_like(params["codes"]).at[nearest].add(d_code(z, q))
        return {"enc": x.T @ dz, "codes": codes, "dec": d_decoder(z, q, dy)}

    return grad_fn


def codes_make(dtype):
    enc, codes, dec, x, target = normal(dtype, 112, (3, 2), (5, 2), (2, 4), (7, 3), (7, 4))
    return {"enc": enc, "codes": codes, "dec": dec}, (x, target)


codes = Problem("stopped", codes_loss, codes_gradient, codes_make)


def ties_loss(params, x, target):
    """The largest of the rectified features over time, where several are equal; and absolute errors, some zero.

    Equal entries share alike, and the absolute value at zero counts as rising.
    """
    top = jnp.max(jax.nn.relu(jnp.einsum("btd,dh->bth", x, params["w"]) + params["b"]), axis=1)
    return jnp.sum(jnp.abs(top @ params["out"] - target))


def ties_gradient(share=lambda best: best / best.sum(axis=1, keepdims=True), above=lambda z: z > 0):
    def grad_fn(params, x, target):
        z = jnp.einsum("btd,dh->bth", x, params["w"]) + params["b"]
        r = jnp.maximum(z, 0)
        top = r.max(axis=1)
        d = jnp.where(top @ params["out"] >= target, 1.0, -1.0).astype(x.dtype)
        best = (r == top[:, None]).astype(x.dtype)
        dz = share(best) * (d @ params["out"].T)[:, None] * above(z)
        return {"w": jnp.einsum("btd,bth->dh", x, dz), "b": dz.sum(axis=(0, 1)), "out": top.T @ d}

    return grad_fn


def ties_make(dtype):
    """Small whole numbers, so that sums are exact; steps are repeated, and the second target is met."""
    drawn = normal(dtype, 113, (2, 4), (4,), (4, 2), (3, 4, 2), (3, 2))
    w, b, out, x, target = (jnp.round(value * 2) for value in drawn)
    x = x.at[:, 2].set(x[:, 0])
    params = {"w": w, "b": b.at[0].set(0), "out": out}
    top = jnp.max(jax.nn.relu(jnp.einsum("btd,dh->bth", x, w) + params["b"]), axis=1)
    return params, (x, target.at[1].set((top @ out)[1]))


ties = Problem("ties", ties_loss, ties_gradient, ties_make)


def sizes_forward(params, x):
    a = jnp.tanh(x @ params["w"] + params["faint"] * 1e-6)
    return a, a @ params["out"]


def sizes_loss(params, x, target):
    """One parameter hardly matters and another a lot."""
    return mean_square(sizes_forward(params, x)[1], target) + 1e4 * jnp.sum((params["loud"] - 1) ** 2)


def sizes_gradient(
    d_faint=lambda dz: dz.sum(axis=0) * 1e-6,
    d_loud=lambda loud: 2e4 * (loud - 1),
    slope=lambda a: 1 - a**2,
):
    def grad_fn(params, x, target):
        a, y = sizes_forward(params, x)
        dy = mean_square_back(y, target)
        dz = dy @ params["out"].T * slope(a)
        return {"w": x.T @ dz, "faint": d_faint(dz), "out": a.T @ dy, "loud": d_loud(params["loud"])}

    return grad_fn


def sizes_make(dtype):
    w, faint, out, loud, x, target = normal(dtype, 114, (3, 4), (4,), (4, 2), (3,), (6, 3), (6, 2))
    return {"w": w, "faint": faint, "out": out, "loud": loud}, (x, target)


sizes = Problem("sizes", sizes_loss, sizes_gradient, sizes_make)


def moment_loss(params, x, target):
    """Variances as the mean square less the squared mean, of outputs around a big number."""
    y = jnp.sin(x @ params["w"]) + params["level"]
    return jnp.sum((jnp.mean(y**2, axis=0) - jnp.mean(y, axis=0) ** 2 - target) ** 2) + jnp.mean(params["level"])


def moment_gradient(center=lambda s: s - s.mean(axis=0), count=lambda s: len(s)):
    """The level cancels in the variance, and is left out from the start."""

    def grad_fn(params, x, target):
        s = jnp.sin(x @ params["w"])
        gap = jnp.var(s, axis=0) - target
        ds = 2 * gap * 2 * center(s) / count(s)
        level = params["level"]
        return {"w": x.T @ (ds * jnp.cos(x @ params["w"])), "level": jnp.full_like(level, 1 / level.size)}

    return grad_fn


def moment_make(dtype):
    w, level, x, target = normal(dtype, 115, (3, 2), (2,), (6, 3), (2,))
    return {"w": w, "level": 30 + level}, (x, target)


moment = Problem("cancellation", moment_loss, moment_gradient, moment_make)


def exchange(grads):
    return {**grads, "online": grads["predictor"], "predictor": grads["online"]}


BUGS = [
    teacher.bug(
        "teacher_trained_too",
        {"stop_gradient"},
        "['teacher']",
        d_teacher=lambda dy, b, other: other.T @ (-dy * (1 - b**2)),
    ),
    teacher.bug(
        "teacher_predictor_updated_first",
        {"updated_weights", "wrong_operand"},
        "['online']",
        read=lambda predictor, update: predictor - 0.5 * update,
    ),
    teacher.bug("teacher_leaves_exchanged", {"swapped"}, "['online']", finish=exchange),
    codes.bug(
        "codes_get_the_commitment",
        {"stop_gradient", "scaled"},
        "['codes']",
        d_code=lambda z, q: 1.25 * mean_square_back(q, z),
    ),
    codes.bug("codes_never_moved", {"zero", "lost_path"}, "['codes']", d_code=lambda z, q: jnp.zeros_like(q)),
    codes.bug(
        "codes_encoder_without_straight_path",
        {"lost_path"},
        "['enc']",
        d_encoder=lambda straight, z, q: 0.25 * mean_square_back(z, q),
    ),
    codes.bug("codes_decoder_reads_encoding", {"wrong_operand"}, "['dec']", d_decoder=lambda z, q, dy: z.T @ dy),
    ties.bug("ties_every_winner_in_full", {"scaled_path", "activation_derivative"}, "['w']", share=lambda best: best),
    sizes.bug("sizes_faint_mean", {"scaled"}, "['faint']", d_faint=lambda dz: dz.mean(axis=0) * 1e-6),
    sizes.bug("sizes_slope_left_out", {"activation_derivative", "scaled_path"}, "['w']", slope=jnp.ones_like),
    moment.bug("moment_not_centered", {"lost_path"}, "['w']", center=lambda s: s),
    moment.bug("moment_sample_count", {"scaled", "scaled_path"}, "['w']", count=lambda s: len(s) - 1),
]
RIGHT = [
    right(teacher, "teacher_stopped"),
    right(codes, "codes_straight_through"),
    right(ties, "ties_met"),
    right(sizes, "sizes_far_apart"),
    right(moment, "moment_cancels"),
]
