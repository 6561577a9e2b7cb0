"""Sequences of unequal length, convolutions, experts, a language model, bfloat16 and pairs, with gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_fourth.sequences import draw, softmax_back

# Plain recurrence over sequences of unequal length


def rnn_forward(params, x, alive):
    def step(h, at):
        xt, m = at
        new = jnp.tanh(xt @ params["wx"] + h @ params["wh"])
        return jnp.where(m[:, None], new, h), (h, new)

    start = jnp.zeros((x.shape[0], params["wh"].shape[0]), x.dtype)
    last, (before, new) = lax.scan(step, start, (x.swapaxes(0, 1), alive.T))
    return before, new, last, last @ params["wo"]


def rnn_loss(params, x, alive, target):
    """Recurrence that keeps its state where a sequence has ended, squared error from the last state."""
    return 0.5 * jnp.mean((rnn_forward(params, x, alive)[-1] - target) ** 2)


def rnn_grad(params, x, alive, target, bug=None):
    before, new, last, y = rnn_forward(params, x, alive)
    dy = (y - target) / y.size
    steps = x.shape[1]

    def step(carry, at):
        dh, dwx, dwh = carry
        s, xt, m, h, n = at
        if bug == "truncated":
            dh = jnp.where(s < steps - 4, 0.0, dh)
        da = jnp.where(m[:, None], dh * (1 - n**2), 0.0)
        through = jnp.zeros_like(dh) if bug == "ended_lost" else jnp.where(m[:, None], 0.0, dh)
        return (through + da @ params["wh"].T, dwx + xt.T @ da, dwh + h.T @ da), None

    start = (dy @ params["wo"].T, jnp.zeros_like(params["wx"]), jnp.zeros_like(params["wh"]))
    at = (jnp.arange(steps), x.swapaxes(0, 1), alive.T, before, new)
    (_, dwx, dwh), _ = lax.scan(step, start, at, reverse=True)
    return {"wx": dwx, "wh": dwh, "wo": last.T @ dy}


def rnn_make(dtype):
    rng = np.random.default_rng(106)
    params = draw(rng, dtype, 0.6, wx=(3, 4), wh=(4, 4), wo=(4, 2))
    args = draw(rng, dtype, 1.0, x=(5, 7, 3), target=(5, 2))
    alive = jnp.arange(7)[None, :] < jnp.array([7, 4, 6, 5, 7])[:, None]
    return params, (args["x"], alive, args["target"])


# Convolution: strided, batch norm, depthwise and dilated, average pooling


def windows(count, taps, stride, dilation):
    """Index (position, tap) of each entry that a convolution reads."""
    return stride * jnp.arange(count)[:, None] + dilation * jnp.arange(taps)[None, :]


def conv_forward(params, x):
    patches = x[:, windows(7, 3, 2, 1)]
    a = jnp.einsum("btkc,kco->bto", patches, params["w1"])
    inv = lax.rsqrt(a.var((0, 1)) + 1e-5)
    n = (a - a.mean((0, 1))) * inv
    z = n * params["gamma"] + params["beta"]
    r = jax.nn.relu(z)
    d = jnp.einsum("btkc,kc->btc", r[:, windows(4, 2, 1, 3)], params["wd"])
    pool = d.reshape(d.shape[0], 2, 2, -1).mean(2).reshape(d.shape[0], -1)
    return patches, inv, n, z, r, pool, pool @ params["wo"]


def conv_loss(params, x, target):
    """Strided convolution, batch norm, ReLU, dilated depthwise convolution, pooling, linear; squared error."""
    return 0.5 * jnp.mean((conv_forward(params, x)[-1] - target) ** 2)


def conv_grad(params, x, target, bug=None):
    patches, inv, n, z, r, pool, y = conv_forward(params, x)
    b = x.shape[0]
    dy = (y - target) / y.size
    dpool = (dy @ params["wo"].T).reshape(b, 2, 1, -1)
    dd = jnp.broadcast_to(dpool / 2, (b, 2, 2, dpool.shape[-1])).reshape(b, 4, -1)
    read = windows(4, 2, 1, 1 if bug == "dilation_ignored" else 3)
    dwd = jnp.einsum("btkc,btc->kc", r[:, read], dd)
    taps = params["wd"][::-1] if bug == "depthwise_flipped" else params["wd"]
    dr = jnp.zeros_like(r).at[:, windows(4, 2, 1, 3)].add(dd[:, :, None] * taps)
    dz = jnp.where(z > 0, dr, 0.0)
    dn = dz * params["gamma"]
    axes = (0,) if bug == "norm_over_batch_only" else (0, 1)
    da = inv * (dn - dn.mean(axes) - n * (dn * n).mean(axes))
    return {
        "w1": jnp.einsum("btkc,bto->kco", patches, da),
        "gamma": (dz * n).sum((0, 1)),
        "beta": dz.sum((0, 1)),
        "wd": dwd,
        "wo": pool.T @ dy,
    }


def conv_make(dtype):
    rng = np.random.default_rng(107)
    params = draw(rng, dtype, 0.7, w1=(3, 2, 4), gamma=(4,), beta=(4,), wd=(2, 4), wo=(8, 3))
    args = draw(rng, dtype, 1.0, x=(5, 15, 2), target=(5, 3))
    return params, (args["x"], args["target"])


# An autoencoder over time: max pooling, then a transposed convolution


def upsample_forward(params, x):
    h = jnp.tanh(x @ params["wi"])
    cells = h.reshape(h.shape[0], 4, 2, -1)
    pool = cells.max(2)
    parts = jnp.einsum("btc,kco->btko", pool, params["wt"])
    full = jnp.zeros((x.shape[0], 9, parts.shape[-1]), x.dtype).at[:, windows(4, 3, 2, 1)].add(parts)
    return h, cells, pool, full[:, 1:] + params["bias"]


def upsample_loss(params, x):
    """Max pooling by two and back by a transposed convolution cut by one at the left; squared error."""
    return 0.5 * jnp.mean((upsample_forward(params, x)[-1] - x) ** 2)


def upsample_grad(params, x, bug=None):
    h, cells, pool, y = upsample_forward(params, x)
    dy = (y - x) / y.size
    side = (0, 1) if bug == "cut_at_other_end" else (1, 0)
    dfull = jnp.pad(dy, ((0, 0), side, (0, 0)))
    dparts = dfull[:, windows(4, 3, 2, 1)]
    dpool = jnp.einsum("btko,kco->btc", dparts, params["wt"])
    winner = jax.nn.one_hot(cells.argmax(2), 2, axis=2, dtype=x.dtype)
    if bug == "pool_to_all":
        winner = jnp.ones_like(winner)
    dh = (dpool[:, :, None] * winner).reshape(h.shape)
    return {
        "wi": jnp.einsum("bti,btc->ic", x, dh * (1 - h**2)),
        "wt": jnp.einsum("btc,btko->kco", pool, dparts),
        "bias": dy.sum((0, 1)),
    }


def upsample_make(dtype):
    rng = np.random.default_rng(108)
    params = draw(rng, dtype, 0.7, wi=(2, 5), wt=(3, 5, 2), bias=(2,))
    return params, (draw(rng, dtype, 1.0, x=(3, 8, 2))["x"],)


# Mixture of experts: the best two of three, with a loss for balance


def moe_forward(params, x):
    p = jax.nn.softmax(x @ params["gate"], -1)
    chosen = (p >= jnp.sort(p, -1)[:, -2:-1]).astype(x.dtype)
    total = (p * chosen).sum(-1, keepdims=True)
    g = p * chosen / total
    e = jnp.tanh(jnp.einsum("bd,edo->beo", x, params["experts"]))
    return p, chosen, total, g, e, jnp.einsum("be,beo->bo", g, e)


def moe_loss(params, x, target):
    """Two experts by renormalized gates, squared error plus the load balance."""
    p, chosen, _, _, _, y = moe_forward(params, x)
    share = lax.stop_gradient(chosen.mean(0))
    return 0.5 * jnp.mean((y - target) ** 2) + 0.3 * (share * p.mean(0)).sum()


def moe_grad(params, x, target, bug=None):
    p, chosen, total, g, e, y = moe_forward(params, x)
    dy = (y - target) / y.size
    de = g[:, :, None] * dy[:, None, :] * (1 - e**2)
    dg = jnp.einsum("bo,beo->be", dy, e)
    mean = 0.0 if bug == "total_constant" else (dg * g).sum(-1, keepdims=True)
    dp = chosen * (dg - mean) / total
    if bug != "balance_lost":
        dp = dp + 0.3 * chosen.mean(0) / x.shape[0]
    return {"gate": x.T @ softmax_back(p, dp), "experts": jnp.einsum("bd,beo->edo", x, de)}


def moe_make(dtype):
    rng = np.random.default_rng(109)
    params = draw(rng, dtype, 0.7, gate=(4, 3), experts=(3, 4, 2))
    args = draw(rng, dtype, 1.0, x=(7, 4), target=(7, 2))
    return params, (args["x"], args["target"])


# A language model with tied embeddings and padding

DECAY = 0.05


def lm_forward(params, tokens):
    lookup = params["emb"][tokens[:, :-1]]
    a = jnp.tanh(lookup @ params["w"])
    h = a @ params["u"]
    return lookup, a, h, h @ params["emb"].T


def lm_loss(params, tokens, kept):
    """Cross-entropy of the next token over what isn't padding, with decay of the embeddings."""
    logits = lm_forward(params, tokens)[-1]
    each = -jnp.take_along_axis(jax.nn.log_softmax(logits, -1), tokens[:, 1:, None], -1)[..., 0]
    nll = jnp.where(kept[:, 1:], each, 0.0).sum() / kept[:, 1:].sum()
    return nll + 0.5 * DECAY * (params["emb"] ** 2).sum()


def lm_grad(params, tokens, kept, bug=None):
    lookup, a, h, logits = lm_forward(params, tokens)
    emb = params["emb"]
    answer = tokens[:, :-1] if bug == "target_not_shifted" else tokens[:, 1:]
    dl = jax.nn.softmax(logits, -1) - jax.nn.one_hot(answer, emb.shape[0], dtype=emb.dtype)
    dl = jnp.where(kept[:, 1:, None], dl, 0.0) / kept[:, 1:].sum()
    dh = dl @ emb
    da = (dh @ params["u"].T) * (1 - a**2)
    demb = jnp.zeros_like(emb).at[tokens[:, :-1]].add(da @ params["w"].T)
    if bug != "tied_output_lost":
        demb = demb + jnp.einsum("btv,btd->vd", dl, h)
    if bug != "decay_lost":
        demb = demb + DECAY * emb
    return {"emb": demb, "w": jnp.einsum("btd,btf->df", lookup, da), "u": jnp.einsum("btf,btd->fd", a, dh)}


def lm_make(dtype):
    rng = np.random.default_rng(110)
    params = draw(rng, dtype, 0.7, emb=(7, 4), w=(4, 6), u=(6, 4))
    tokens = rng.integers(1, 7, size=(3, 6))
    kept = np.arange(6)[None, :] < np.array([6, 4, 5])[:, None]
    return params, (jnp.asarray(np.where(kept, tokens, 0)), jnp.asarray(kept))


# Mixed precision: operands rounded to bfloat16, sums and the loss in the dtype of the parameters

LOSS_SCALE, SATURATION = 1024.0, 448.0


def rounded(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


def mixed_forward(params, x):
    h = jax.nn.relu(rounded(x) @ rounded(params["w1"]))
    return h, rounded(h) @ rounded(params["w2"])


def mixed_loss(params, x, target):
    """Two layers with operands in bfloat16, squared error, decay of the unrounded first weights."""
    y = mixed_forward(params, x)[-1]
    return jnp.mean((y - target) ** 2) + 0.05 * (params["w1"] ** 2).sum()


def mixed_grad(params, x, target, bug=None):
    """Gradients of the scaled loss, rounded wherever an operand was, scaled back at the end."""
    h, y = mixed_forward(params, x)
    dy = LOSS_SCALE * 2 * (y - target) / y.size
    dw2 = rounded(rounded(h).T @ dy)
    dh = rounded(dy @ rounded(params["w2"]).T)
    dw1 = rounded(rounded(x).T @ jnp.where(h > 0, dh, 0.0))
    if bug == "saturated":
        dw2 = jnp.clip(dw2, -SATURATION, SATURATION)
    if bug == "rounding_is_flat":
        dw1 = jnp.zeros_like(dw1)
    grads = {"w1": dw1 / LOSS_SCALE + 0.1 * params["w1"], "w2": dw2 / LOSS_SCALE}
    if bug == "left_in_bfloat16":
        grads["w1"] = grads["w1"].astype(jnp.bfloat16)
    return grads


def mixed_make(dtype):
    rng = np.random.default_rng(111)
    params = draw(rng, dtype, 0.9, w1=(4, 5), w2=(5, 2))
    args = draw(rng, dtype, 1.0, x=(6, 4), target=(6, 2))
    return params, (args["x"], args["target"])


# Contrastive loss over pairs, with a learned temperature


def unit(x):
    length = jnp.sqrt((x**2).sum(-1, keepdims=True))
    return x / length, length


def pairs_forward(params, x, y):
    a, la = unit(x @ params["wa"])
    b, lb = unit(y @ params["wb"])
    return a, la, b, lb, a @ b.T


def pairs_loss(params, x, y):
    """Cross-entropy over the rows and over the columns of the similarities, each with its temperature."""
    sim = pairs_forward(params, x, y)[-1]
    t = jnp.exp(params["log_t"])
    rows, columns = jax.nn.log_softmax(t[0] * sim, 1), jax.nn.log_softmax(t[1] * sim, 0)
    return -0.5 * jnp.mean(jnp.diagonal(rows + columns))


def pairs_grad(params, x, y, bug=None):
    a, la, b, lb, sim = pairs_forward(params, x, y)
    t = jnp.exp(params["log_t"])
    eye = jnp.eye(x.shape[0], dtype=x.dtype)
    drows = (jax.nn.softmax(t[0] * sim, 1) - eye) / (2 * x.shape[0])
    dcolumns = (jax.nn.softmax(t[1] * sim, 1 if bug == "rows_twice" else 0) - eye) / (2 * x.shape[0])
    dt = jnp.stack([(drows * sim).sum(), (dcolumns * sim).sum()])
    dlog = dt if bug == "temperature_not_log" else dt * t
    dsim = t[0] * drows + t[1] * dcolumns
    da, db = dsim @ b, dsim.T @ a
    dua = (da - a * (da * a).sum(-1, keepdims=True)) / la
    dub = (db - b * (db * b).sum(-1, keepdims=True)) / lb
    return {"wa": x.T @ dua, "wb": y.T @ dub, "log_t": dlog}


def pairs_make(dtype):
    rng = np.random.default_rng(112)
    params = draw(rng, dtype, 0.7, wa=(3, 4), wb=(5, 4))
    params["log_t"] = jnp.asarray([0.9, 0.4], dtype)
    args = draw(rng, dtype, 1.0, x=(6, 3), y=(6, 5))
    return params, (args["x"], args["y"])
