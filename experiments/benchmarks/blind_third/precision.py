"""Mixed precision: products in bfloat16, and a scaled loss with a training step's habits around it."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right
from experiments.benchmarks.catalogue.case import Problem, normal, one_hot

HALF = jnp.bfloat16


def half_product(a, b, dtype):
    """The product of two matrices in bfloat16, returned in the caller's dtype."""
    return (a.astype(HALF) @ b.astype(HALF)).astype(dtype)


def mixed_forward(params, x):
    a = jnp.tanh(half_product(x, params["w"], x.dtype) + params["b"])
    return a, half_product(a, params["v"], x.dtype) + params["c"]


def mixed_loss(params, x, target):
    return mean_square(mixed_forward(params, x)[1], target)


def mixed_gradient(
    back=lambda v: v.T,
    d_bias=lambda dz: dz.sum(axis=0),
    left=lambda x, a: a,
    slope=lambda a: 1 - a**2,
):
    def grad_fn(params, x, target):
        a, y = mixed_forward(params, x)
        dy = mean_square_back(y, target)
        dz = half_product(dy, back(params["v"]), x.dtype) * slope(a)
        return {
            "w": half_product(x.T, dz, x.dtype),
            "b": d_bias(dz),
            "v": half_product(left(x, a).T, dy, x.dtype),
            "c": dy.sum(axis=0),
        }

    return grad_fn


def mixed_make(dtype, dyadic=False):
    w, b, v, c, x, target = normal(dtype, 41, (4, 4), (4,), (4, 4), (4,), (6, 4), (6, 4))
    if dyadic:
        w, v, x = (jnp.round(value * 4) / 4 for value in (w, v, x))
    return {"w": w, "b": b, "v": v, "c": c}, (x, target)


mixed = Problem("precision", mixed_loss, mixed_gradient, mixed_make)

LOSS_SCALE = 1024.0


def scaled_forward(params, x):
    """Embedding in the caller's dtype, one layer in bfloat16, its bias and the scores in the caller's dtype."""
    h = jnp.sin(x @ params["emb"])
    z = half_product(h, params["w"], x.dtype) + params["b"]
    s = jax.nn.softplus(z)
    return h, z, s, s @ params["head"]


def scaled_loss(params, x, target, decay):
    scores = scaled_forward(params, x)[-1]
    data = -jnp.mean(jnp.sum(one_hot(target, scores) * jax.nn.log_softmax(scores), axis=1))
    return data + 0.5 * decay * jnp.sum(params["head"] ** 2)


def scaled_gradient(
    unscale=lambda grads: {name: value / LOSS_SCALE for name, value in grads.items()},
    finish=lambda grads, params: grads,
    penalty=lambda decay, head: decay * head,
    rate=lambda x, h: jnp.cos(x),
):
    """The cotangents are 1024 times too large on the way, an exact power of two, and are divided at the end."""

    def grad_fn(params, x, target, decay):
        h, z, s, scores = scaled_forward(params, x)
        d = LOSS_SCALE * (jax.nn.softmax(scores) - one_hot(target, scores)) / len(x)
        dz = d @ params["head"].T * jax.nn.sigmoid(z)
        dh = half_product(dz, params["w"].T, x.dtype)
        grads = {
            "emb": x.T @ (dh * rate(x @ params["emb"], h)),
            "w": half_product(h.T, dz, x.dtype),
            "b": dz.sum(axis=0),
            "head": s.T @ d,
        }
        grads = unscale(grads)
        return finish({**grads, "head": grads["head"] + penalty(decay, params["head"])}, params)

    return grad_fn


def scaled_make(dtype):
    emb, w, b, head, x = normal(dtype, 42, (3, 4), (4, 5), (5,), (5, 3), (8, 3))
    params = {"emb": emb, "w": w, "b": b, "head": head}
    return params, (x, jnp.array([0, 2, 1, 1, 0, 2, 0, 1]), jnp.asarray(0.3, dtype))


scaled = Problem("precision", scaled_loss, scaled_gradient, scaled_make)


def without_bias(grads):
    return {name: value if name == "b" else value / LOSS_SCALE for name, value in grads.items()}


def clip_entries(grads, params):
    return {name: jnp.clip(value, -0.1, 0.1) for name, value in grads.items()}


def unit_length(grads, params):
    return {name: value / jnp.linalg.norm(value) for name, value in grads.items()}


def with_momentum(grads, params):
    """The step's velocity is given back, which still holds nine tenths of an older gradient."""

    def old(value):
        return jnp.sin(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)

    return {name: 0.9 * 0.2 * old(value) + value for name, value in grads.items()}


BUGS = [
    mixed.bug("mixed_weights_untransposed", {"transposed"}, "['w']", back=lambda v: v),
    mixed.bug("mixed_bias_mean", {"scaled"}, "['b']", d_bias=lambda dz: dz.mean(axis=0)),
    mixed.bug("mixed_second_layer_reads_input", {"wrong_operand"}, "['v']", left=lambda x, a: x),
    mixed.bug("mixed_slope_not_squared", {"activation_derivative"}, "['b']", slope=lambda a: 1 - a),
    scaled.bug("scaled_bias_never_unscaled", {"scaled"}, "['b']", unscale=without_bias),
    scaled.bug("scaled_entries_clipped", {"clipped", "element", "unit"}, "['w']", finish=clip_entries),
    scaled.bug("scaled_each_leaf_unit_length", {"normalized", "scaled"}, "['emb']", finish=unit_length),
    scaled.bug("scaled_momentum_returned", {"accumulated"}, "['w']", finish=with_momentum),
    scaled.bug(
        "scaled_decay_doubled",
        {"offset_by_parameter", "scaled_path"},
        "['head']",
        penalty=lambda decay, head: 2 * decay * head,
    ),
    scaled.bug(
        "scaled_decay_forgotten",
        {"offset_by_parameter", "lost_path", "lost_use"},
        "['head']",
        penalty=lambda decay, head: 0 * head,
    ),
    scaled.bug(
        "scaled_cosine_of_the_sine", {"activation_derivative", "wrong_operand"}, "['emb']", rate=lambda x, h: jnp.cos(h)
    ),
]
RIGHT = [
    right(mixed, "mixed_bfloat16"),
    right(mixed, "mixed_bfloat16_exact_inputs", make=lambda dtype: mixed_make(dtype, dyadic=True)),
    right(scaled, "scaled_loss_1024"),
]
