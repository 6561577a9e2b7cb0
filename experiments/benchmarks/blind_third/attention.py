"""Attention: causal heads with relative positions, grouped cross attention, linear attention, additive pooling."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, right, softmax_back
from experiments.benchmarks.catalogue.case import Problem, normal, one_hot

STEPS, WIDTH = 4, 3
OFFSETS = np.arange(STEPS)[:, None] - np.arange(STEPS)[None, :]
CAUSAL, DISTANCE = OFFSETS >= 0, np.clip(OFFSETS, 0, None)
SCALE = 1 / math.sqrt(WIDTH)


def causal_forward(params, x):
    """Residual causal self-attention; every intermediate value in a dict."""
    q, k, v = (jnp.einsum("btd,dhk->bhtk", x, params[name]) for name in ("wq", "wk", "wv"))
    scores = jnp.einsum("bhtk,bhsk->bhts", q, k) * SCALE + params["rel"][:, DISTANCE]
    p = jax.nn.softmax(jnp.where(CAUSAL, scores, -1e9), axis=-1)
    o = jnp.einsum("bhts,bhsk->bthk", p, v)
    return {"q": q, "k": k, "v": v, "p": p, "o": o, "y": x + jnp.einsum("bthk,hkd->btd", o, params["wo"])}


def causal_loss(params, x, target):
    return mean_square(causal_forward(params, x)["y"], target)


def causal_gradient(
    d_scores=lambda p, dp, do, o: softmax_back(p, dp),
    d_keys=lambda ds, q: jnp.einsum("bhts,bhtk->bhsk", ds, q) * SCALE,
    d_values=lambda p, do: jnp.einsum("bhts,bthk->bhsk", p, do),
    d_rel=lambda rel, ds: jnp.zeros_like(rel).at[:, DISTANCE].add(ds.sum(axis=0)),
    d_out=lambda o, dy: jnp.einsum("bthk,btd->hkd", o, dy),
):
    def grad_fn(params, x, target):
        f = causal_forward(params, x)
        dy = mean_square_back(f["y"], target)
        do = jnp.einsum("btd,hkd->bthk", dy, params["wo"])
        ds = d_scores(f["p"], jnp.einsum("bthk,bhsk->bhts", do, f["v"]), do, f["o"])
        dq = jnp.einsum("bhts,bhsk->bhtk", ds, f["k"]) * SCALE
        back = {"wq": dq, "wk": d_keys(ds, f["q"]), "wv": d_values(f["p"], do)}
        grads = {name: jnp.einsum("btd,bhtk->dhk", x, value) for name, value in back.items()}
        return {**grads, "wo": d_out(f["o"], dy), "rel": d_rel(params["rel"], ds)}

    return grad_fn


def causal_make(dtype, size=1.0):
    wq, wk, wv, wo, rel, x, target = normal(
        dtype, 1, (6, 2, 3), (6, 2, 3), (6, 2, 3), (2, 3, 6), (2, STEPS), (3, STEPS, 6), (3, STEPS, 6)
    )
    return {"wq": wq * 0.5 * size, "wk": wk * 0.5, "wv": wv, "wo": wo, "rel": rel}, (x, target)


causal = Problem("attention", causal_loss, causal_gradient, causal_make)

QUERY_HEADS, KEY_HEADS, CAP = 4, 2, 2.0


def cross_forward(params, x, memory, keep):
    """Two query heads share a key head; the scores are capped by a tanh, and the padding of the memory is hidden."""
    q = jnp.einsum("btd,dgrk->bgrtk", x, params["wq"])
    k, v = (jnp.einsum("bse,egk->bgsk", memory, params[name]) for name in ("wk", "wv"))
    capped = jnp.tanh(jnp.einsum("bgrtk,bgsk->bgrts", q, k) * SCALE / CAP)
    p = jax.nn.softmax(jnp.where(keep[:, None, None, None, :], CAP * capped, -1e9), axis=-1)
    o = jnp.einsum("bgrts,bgsk->btgrk", p, v)
    y = jnp.einsum("btgrk,grko->bto", o, params["wo"]) + params["bo"]
    return q, k, v, capped, p, o, y


def cross_loss(params, x, memory, keep, target):
    return mean_square(cross_forward(params, x, memory, keep)[-1], target)


def cross_gradient(
    share=lambda per_query_head: per_query_head.sum(axis=2),
    uncap=lambda ds, capped: ds * (1 - capped**2),
    probability=lambda p, capped: p,
    d_bias=lambda dy: dy.sum(axis=(0, 1)),
):
    def grad_fn(params, x, memory, keep, target):
        q, k, v, capped, p, o, y = cross_forward(params, x, memory, keep)
        dy = mean_square_back(y, target)
        do = jnp.einsum("bto,grko->btgrk", dy, params["wo"])
        dv = share(jnp.einsum("bgrts,btgrk->bgrsk", probability(p, capped), do))
        ds = uncap(softmax_back(p, jnp.einsum("btgrk,bgsk->bgrts", do, v)), capped) * SCALE
        dk = share(jnp.einsum("bgrts,bgrtk->bgrsk", ds, q))
        return {
            "wq": jnp.einsum("btd,bgrts,bgsk->dgrk", x, ds, k),
            "wk": jnp.einsum("bse,bgsk->egk", memory, dk),
            "wv": jnp.einsum("bse,bgsk->egk", memory, dv),
            "wo": jnp.einsum("btgrk,bto->grko", o, dy),
            "bo": d_bias(dy),
        }

    return grad_fn


def cross_make(dtype):
    wq, wk, wv, wo, bo, x, memory, target = normal(
        dtype, 2, (4, 2, 2, 3), (5, 2, 3), (5, 2, 3), (2, 2, 3, 3), (3,), (3, 2, 4), (3, 4, 5), (3, 2, 3)
    )
    keep = jnp.arange(4)[None, :] < jnp.array([4, 2, 3])[:, None]
    return {"wq": wq, "wk": wk, "wv": wv, "wo": wo, "bo": bo}, (x, memory, keep, target)


cross = Problem("attention", cross_loss, cross_gradient, cross_make)


def feature(x):
    """elu(x) + 1, which is positive."""
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.minimum(x, 0)))


def linear_forward(params, x):
    """Linear attention over one sequence: a running sum of keys by values, and one of the keys."""
    a, b, v = x @ params["wq"], x @ params["wk"], x @ params["wv"]
    fq, fk = feature(a), feature(b)

    def step(carry, now):
        state = carry[0] + now[1][:, None] * now[2][None, :]
        total = carry[1] + now[1]
        return (state, total), (state, total, now[0] @ state / (now[0] @ total))

    start = (jnp.zeros((fk.shape[1], v.shape[1]), x.dtype), jnp.zeros(fk.shape[1], x.dtype))
    return a, b, v, fq, fk, jax.lax.scan(step, start, (fq, fk, v))[1]


def linear_loss(params, x, target):
    return 0.5 * jnp.sum((linear_forward(params, x)[-1][2] - target) ** 2)


def linear_gradient(
    slope=lambda x: jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0))),
    d_total=lambda dy, y, fq, below: -jnp.sum(dy * y) / below * fq,
    read=lambda states: states,
    keep=lambda d_state, f: d_state,
):
    def grad_fn(params, x, target):
        a, b, v, fq, fk, (states, totals, ys) = linear_forward(params, x)

        def step(carry, now):
            dy, y, q, k, value, _state, seen, total = now
            below = q @ total
            d_state = carry[0] + q[:, None] * dy[None, :] / below
            d_sum = carry[1] + d_total(dy, y, q, below)
            dq = (seen @ dy - jnp.sum(dy * y) * total) / below
            return (keep(d_state, k), d_sum), (dq, d_state @ value + d_sum, k @ d_state)

        zero = (jnp.zeros_like(states[0]), jnp.zeros_like(totals[0]))
        slices = (ys - target, ys, fq, fk, v, states, read(states), totals)
        dfq, dfk, dv = jax.lax.scan(step, zero, slices, reverse=True)[1]
        return {"wq": x.T @ (dfq * slope(a)), "wk": x.T @ (dfk * slope(b)), "wv": x.T @ dv}

    return grad_fn


def linear_make(dtype):
    wq, wk, wv, x, target = normal(dtype, 3, (4, 3), (4, 3), (4, 2), (5, 4), (5, 2))
    return {"wq": wq * 0.6, "wk": wk * 0.6, "wv": wv}, (x, target)


linear = Problem("attention", linear_loss, linear_gradient, linear_make)


def pooled_forward(params, tokens):
    """Additive attention over the embeddings of a sentence; token 0 is padding."""
    e = params["table"][tokens]
    t = jnp.tanh(e @ params["w"] + params["b"])
    alpha = jax.nn.softmax(jnp.where(tokens > 0, t @ params["v"], -1e9), axis=-1)
    context = jnp.sum(alpha[..., None] * e, axis=1)
    return e, t, alpha, context, context @ params["u"]


def pooled_loss(params, tokens, target):
    scores = pooled_forward(params, tokens)[-1]
    return -jnp.mean(jnp.sum(one_hot(target, scores) * jax.nn.log_softmax(scores), axis=1))


def scatter(table, tokens, de):
    return jnp.zeros_like(table).at[tokens].add(de)


def scatter_last(table, tokens, de):
    """Each token writes its row, so that the last one of its kind wins."""
    out = jnp.zeros_like(table)
    for i in range(tokens.shape[0]):
        for j in range(tokens.shape[1]):
            out = out.at[tokens[i, j]].set(de[i, j])
    return out


def pooled_gradient(
    d_logits=lambda scores, target: (jax.nn.softmax(scores) - one_hot(target, scores)) / len(target),
    d_embedding=lambda from_context, from_scores: from_context + from_scores,
    into_table=scatter,
    d_v=lambda t, da: jnp.einsum("bth,bt->h", t, da),
):
    def grad_fn(params, tokens, target):
        e, t, alpha, context, scores = pooled_forward(params, tokens)
        d = d_logits(scores, target)
        dc = d @ params["u"].T
        da = softmax_back(alpha, jnp.einsum("bd,btd->bt", dc, e))
        dz = da[..., None] * params["v"] * (1 - t**2)
        de = d_embedding(alpha[..., None] * dc[:, None, :], dz @ params["w"].T)
        return {
            "table": into_table(params["table"], tokens, de),
            "w": jnp.einsum("btd,bth->dh", e, dz),
            "b": dz.sum(axis=(0, 1)),
            "v": d_v(t, da),
            "u": context.T @ d,
        }

    return grad_fn


def pooled_make(dtype):
    table, w, b, v, u = normal(dtype, 4, (8, 3), (3, 4), (4,), (4,), (3, 3))
    tokens = jnp.array([[1, 2, 1, 3], [4, 5, 0, 0], [2, 6, 6, 0]])
    return {"table": table, "w": w, "b": b, "v": v, "u": u}, (tokens, jnp.array([0, 2, 1]))


pooled = Problem("attention", pooled_loss, pooled_gradient, pooled_make)

BUGS = [
    causal.bug(
        "causal_softmax_sum_over_queries",
        {"wrong_axis", "activation_derivative"},
        "['wq']",
        d_scores=lambda p, dp, do, o: softmax_back(p, dp, axis=-2),
    ),
    causal.bug(
        "causal_keys_unscaled",
        {"scaled", "scaled_path"},
        "['wk']",
        d_keys=lambda ds, q: jnp.einsum("bhts,bhtk->bhsk", ds, q),
    ),
    causal.bug(
        "causal_values_probability_untransposed",
        {"transposed"},
        "['wv']",
        d_values=lambda p, do: jnp.einsum("bhst,bthk->bhsk", p, do),
    ),
    causal.bug(
        "causal_relative_bias_one_late",
        {"shifted"},
        "['rel']",
        d_rel=lambda rel, ds: jnp.zeros_like(rel).at[:, np.clip(OFFSETS + 1, 0, STEPS - 1)].add(ds.sum(0)),
    ),
    causal.bug(
        "causal_relative_bias_batch_mean",
        {"scaled"},
        "['rel']",
        d_rel=lambda rel, ds: jnp.zeros_like(rel).at[:, DISTANCE].add(ds.mean(0)),
    ),
    cross.bug(
        "cross_shared_head_counted_once",
        {"lost_use", "lost_path"},
        "['wk']",
        share=lambda per_query_head: per_query_head[:, :, 0],
    ),
    cross.bug(
        "cross_cap_slope_left_out", {"activation_derivative", "scaled_path"}, "['wk']", uncap=lambda ds, capped: ds
    ),
    cross.bug(
        "cross_padding_seen_by_values",
        {"mask", "wrong_operand"},
        "['wv']",
        probability=lambda p, capped: jax.nn.softmax(CAP * capped, axis=-1),
    ),
    linear.bug(
        "linear_normalizer_detached", {"lost_path"}, "['wk']", d_total=lambda dy, y, fq, below: jnp.zeros_like(fq)
    ),
    linear.bug(
        "linear_state_before_update",
        {"shifted", "wrong_operand"},
        "['wq']",
        read=lambda states: jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]]),
    ),
    linear.bug(
        "linear_feature_slope_of_relu", {"activation_derivative"}, "['wq']", slope=lambda x: (x > 0).astype(x.dtype)
    ),
    pooled.bug(
        "pooled_embedding_without_scores",
        {"lost_path", "lost_use"},
        "['table']",
        d_embedding=lambda from_context, from_scores: from_context,
    ),
    pooled.bug("pooled_last_token_wins", {"lost_use", "lost_path", "unit"}, "['table']", into_table=scatter_last),
    pooled.bug(
        "pooled_loss_not_averaged",
        {"scaled", "loss_derivative"},
        "['u']",
        d_logits=lambda scores, target: jax.nn.softmax(scores) - one_hot(target, scores),
    ),
]
RIGHT = [
    right(causal, "causal_heads"),
    right(
        causal,
        "causal_heads_flash_delta",
        d_scores=lambda p, dp, do, o: p * (dp - jnp.einsum("bthk,bthk->bht", do, o)[..., None]),
    ),
    right(causal, "causal_heads_saturated", make=lambda dtype: causal_make(dtype, 60.0)),
    right(cross, "cross_grouped"),
    right(linear, "linear_scan"),
    right(pooled, "pooled_additive"),
]
