"""Networks with products in 16 bits between arrays of 32 bits, as in training with mixed precision."""

import math

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind.model import Model, jax_normal

# What 8 bits of a mantissa explain, relative to a leaf's largest entry.
ROUNDING = {"tolerance": 0.02}
SAMPLES, INPUTS, HIDDEN, CLASSES = 8, 6, 6, 4


def product(a, b, half=jnp.bfloat16):
    """Return the matrix product of both in 16 bits, summed in the dtype of ``a``."""
    return jnp.matmul(a.astype(half), b.astype(half), preferred_element_type=jnp.float32).astype(a.dtype)


def cross_entropy(logits, y):
    """Return the mean cross-entropy of integer labels."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


# A classifier with products in bfloat16, its gradient with a scaled loss and in two accumulated halves


LOSS_SCALE = 64.0


def classifier_loss(params, x, y):
    """Return the cross-entropy of two layers with a residual connection, products in bfloat16."""
    hidden = x + jax.nn.relu(product(x, params["w1"]) + params["b1"])
    return cross_entropy(product(hidden, params["w2"]) + params["b2"], y)


def scaled_gradient(params, x, y):
    """Return the gradient of ``classifier_loss``, by a scaled loss."""
    w1, b1, w2, b2 = (params[name] for name in ("w1", "b1", "w2", "b2"))
    z = product(x, w1) + b1
    hidden = x + jax.nn.relu(z)
    logits = product(hidden, w2) + b2
    dlogits = LOSS_SCALE * (jax.nn.softmax(logits) - jax.nn.one_hot(y, CLASSES, dtype=x.dtype)) / len(y)
    dw2 = product(hidden.T, dlogits)
    db2 = dlogits.sum(0)
    dhidden = product(dlogits, w2.T)
    dz = jnp.where(z > 0, dhidden, 0)
    dw1 = product(x.T, dz)
    db1 = dz.sum(0)
    return {"w1": dw1 / LOSS_SCALE, "b1": db1 / LOSS_SCALE, "w2": dw2 / LOSS_SCALE, "b2": db2 / LOSS_SCALE}


def accumulated_gradient(params, x, y):
    """Return the gradient of ``classifier_loss``, accumulated over two halves of the batch."""
    w1, b1, w2, b2 = (params[name] for name in ("w1", "b1", "w2", "b2"))
    total = {name: jnp.zeros_like(value) for name, value in params.items()}
    parts = 2
    for start in range(0, len(x), len(x) // parts):
        xs, ys = x[start : start + len(x) // parts], y[start : start + len(x) // parts]
        z = product(xs, w1) + b1
        hidden = xs + jax.nn.relu(z)
        logits = product(hidden, w2) + b2
        dlogits = (jax.nn.softmax(logits) - jax.nn.one_hot(ys, CLASSES, dtype=x.dtype)) / len(ys)
        dz = jnp.where(z > 0, product(dlogits, w2.T), 0)
        part = {"w1": product(xs.T, dz), "b1": dz.sum(0), "w2": product(hidden.T, dlogits), "b2": dlogits.sum(0)}
        total = {name: total[name] + part[name] / parts for name in total}
    return total


def make_classifier(dtype):
    """Return the parameters of two layers, eight samples and their labels."""
    shapes = [(INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,), (SAMPLES, INPUTS)]
    w1, b1, w2, b2, x = jax_normal(dtype, 51, *shapes)
    params = {"w1": w1 / 2, "b1": b1 / 2, "w2": w2 / 2, "b2": b2}
    return params, (x, jnp.array([0, 3, 1, 2, 2, 0, 1, 3]))


SCALED = Model("mixed precision", classifier_loss, scaled_gradient, make_classifier, ROUNDING)
ACCUMULATED = SCALED._replace(grad_fn=accumulated_gradient)


# Attention with products in bfloat16 and a softmax in full precision


TIME, WIDTH = 5, 6


def attention_loss(params, x, y):
    """Return the cross-entropy, at each position, of causal attention with a residual connection."""
    q, k, v = (product(x, params[name]) for name in ("wq", "wk", "wv"))
    scores = product(q, k.T) / math.sqrt(WIDTH)
    attention = jax.nn.softmax(jnp.where(jnp.tri(TIME, dtype=bool), scores, -1e9))
    return cross_entropy(product(x + product(attention, v), params["wo"]), y)


def attention_gradient(params, x, y):
    """Return the gradient of ``attention_loss``."""
    q, k, v = (product(x, params[name]) for name in ("wq", "wk", "wv"))
    scores = product(q, k.T) / math.sqrt(WIDTH)
    attention = jax.nn.softmax(jnp.where(jnp.tri(TIME, dtype=bool), scores, -1e9))
    h = x + product(attention, v)
    logits = product(h, params["wo"])
    dlogits = (jax.nn.softmax(logits) - jax.nn.one_hot(y, logits.shape[1], dtype=x.dtype)) / len(y)
    dwo = product(h.T, dlogits)
    dh = product(dlogits, params["wo"].T)
    dattention = product(dh, v.T)
    dv = product(attention.T, dh)
    dscores = attention * (dattention - (dattention * attention).sum(1, keepdims=True)) / math.sqrt(WIDTH)
    dq = product(dscores, k)
    dk = product(dscores.T, q)
    return {"wq": product(x.T, dq), "wk": product(x.T, dk), "wv": product(x.T, dv), "wo": dwo}


def make_attention(dtype):
    """Return the weights, one sequence and a label for each position."""
    wq, wk, wv, wo, x = jax_normal(dtype, 52, *[(WIDTH, WIDTH)] * 3, (WIDTH, CLASSES), (TIME, WIDTH))
    params = {"wq": wq / 2, "wk": wk / 2, "wv": wv / 2, "wo": wo / 2}
    return params, (x, jnp.array([0, 3, 1, 2, 2]))


ATTENTION = Model("mixed precision", attention_loss, attention_gradient, make_attention, ROUNDING)


# A recurrent network in float16


LARGE_SCALE = 2.0**10


def product16(a, b):
    """Return the matrix product of both in float16, summed in the dtype of ``a``."""
    return product(a, b, jnp.float16)


def recurrent_loss(params, x, y):
    """Return the cross-entropy of the last state, products in float16."""
    h = jnp.zeros((x.shape[1], HIDDEN), x.dtype)
    for inputs in x:
        h = jnp.tanh(product16(inputs, params["w"]) + product16(h, params["u"]) + params["b"])
    return cross_entropy(product16(h, params["v"]), y)


def recurrent_gradient(params, x, y):
    """Return the gradient of ``recurrent_loss``, by a scaled loss."""
    w, u, b, v = (params[name] for name in ("w", "u", "b", "v"))
    states = [jnp.zeros((x.shape[1], HIDDEN), x.dtype)]
    for inputs in x:
        states.append(jnp.tanh(product16(inputs, w) + product16(states[-1], u) + b))
    logits = product16(states[-1], v)
    scale = LARGE_SCALE
    dlogits = scale * (jax.nn.softmax(logits) - jax.nn.one_hot(y, CLASSES, dtype=x.dtype)) / len(y)
    dv = product16(states[-1].T, dlogits)
    dh = product16(dlogits, v.T)
    dw, du, db = jnp.zeros_like(w), jnp.zeros_like(u), jnp.zeros_like(b)
    for t in reversed(range(len(x))):
        dz = dh * (1 - states[t + 1] ** 2)
        dw = dw + product16(x[t].T, dz)
        du = du + product16(states[t].T, dz)
        db = db + dz.sum(0)
        dh = product16(dz, u.T)
    return {"w": dw / scale, "u": du / scale, "b": db / scale, "v": dv / scale}


def make_recurrent(dtype):
    """Return the parameters, three steps of eight sequences and their labels."""
    shapes = [(INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (3, SAMPLES, INPUTS)]
    w, u, b, v, x = jax_normal(dtype, 53, *shapes)
    params = {"w": w / 3, "u": u / 3, "b": b / 3, "v": v / 2}
    return params, (x, jnp.array([0, 3, 1, 2, 2, 0, 1, 3]))


RECURRENT = Model("mixed precision", recurrent_loss, recurrent_gradient, make_recurrent, ROUNDING)


BUGS = (
    SCALED.bug("half_bias_keeps_the_loss_scale", "scaled", "['b1']", '"b1": db1 / LOSS_SCALE', '"b1": db1'),
    SCALED.bug(
        "half_relu_passes_everything",
        "activation_derivative",
        "['b1']",
        "dz = jnp.where(z > 0, dhidden, 0)",
        "dz = dhidden",
    ),
    SCALED.bug(
        "half_gradient_in_bfloat16",
        "dtype",
        "['w2']",
        '"w2": dw2 / LOSS_SCALE',
        '"w2": (dw2 / LOSS_SCALE).astype(jnp.bfloat16)',
    ),
    SCALED.bug(
        "half_weights_after_their_step",
        "updated_weights",
        "['b1']",
        "dhidden = product(dlogits, w2.T)",
        "dhidden = product(dlogits, (w2 - dw2 / LOSS_SCALE).T)",
    ),
    SCALED.bug(
        "half_skip_in_the_weights_forgotten",
        "wrong_operand lost_path",
        "['w2']",
        "dw2 = product(hidden.T, dlogits)",
        "dw2 = product(jax.nn.relu(z).T, dlogits)",
    ),
    ACCUMULATED.bug(
        "half_last_part_alone",
        "subset_of_batch",
        "['b2']",
        "total = {name: total[name] + part[name] / parts for name in total}",
        "total = {name: part[name] for name in total}",
    ),
    ACCUMULATED.bug(
        "half_parts_summed",
        "scaled",
        "['b2']",
        "total = {name: total[name] + part[name] / parts for name in total}",
        "total = {name: total[name] + part[name] for name in total}",
    ),
    ATTENTION.bug(
        "half_attention_scale_forgotten",
        "scaled scaled_path",
        "['wk']",
        "(dattention * attention).sum(1, keepdims=True)) / math.sqrt(WIDTH)",
        "(dattention * attention).sum(1, keepdims=True))",
    ),
    ATTENTION.bug(
        "half_attention_keys_untransposed",
        "transposed wrong_operand",
        "['wk']",
        "dk = product(dscores.T, q)",
        "dk = product(dscores, q)",
    ),
    ATTENTION.bug(
        "half_attention_softmax_a_constant",
        "zero lost_path",
        "['wq']",
        "dq = product(dscores, k)",
        "dq = product(0 * dscores, k)",
    ),
    ATTENTION.bug(
        "half_attention_mask_inverted",
        "mask transposed",
        None,
        "attention = jax.nn.softmax(jnp.where(jnp.tri(TIME, dtype=bool), scores, -1e9))",
        "attention = jax.nn.softmax(jnp.where(jnp.tri(TIME, dtype=bool).T, scores, -1e9))",
    ),
    RECURRENT.bug(
        "half_gradient_overflows",
        "nonfinite unstable",
        "['v']",
        "scale = LARGE_SCALE",
        "scale = 2.0**20",
    ),
    RECURRENT.bug(
        "half_recurrence_without_its_past",
        "lost_path lost_use",
        "['u']",
        "dh = product16(dz, u.T)",
        "dh = jnp.zeros_like(dh)",
    ),
)
RIGHT = (
    SCALED.right("half_scaled_loss"),
    ACCUMULATED.right("half_accumulated"),
    ATTENTION.right("half_attention"),
    RECURRENT.right("half_recurrent"),
)
