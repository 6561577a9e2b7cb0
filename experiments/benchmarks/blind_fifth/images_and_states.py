"""Convolutions, a state space, experts and a tied language model."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_fifth.attention_and_cells import cast

# Convolution over patches, group norm, ReLU, average over the image, linear

GROUPS = 2
GN_EPS = 1e-4


def patches_of(x, kh, kw):
    rows, cols = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    pieces = [x[:, i : i + rows, j : j + cols, :] for i in range(kh) for j in range(kw)]
    stacked = jnp.stack(pieces, axis=3)
    return stacked.reshape(x.shape[0], rows * cols, kh * kw * x.shape[3])


def gn_conv_loss(params, x, y):
    z = lax.conv_general_dilated(x, params["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    n, c = z.shape[0], z.shape[3]
    z = z.reshape(n, -1, GROUPS, c // GROUPS)
    mean = z.mean(axis=(1, 3), keepdims=True)
    var = ((z - mean) ** 2).mean(axis=(1, 3), keepdims=True)
    zn = ((z - mean) / jnp.sqrt(var + GN_EPS)).reshape(n, -1, c)
    a = jax.nn.relu(zn * params["gamma"] + params["beta"])
    return jnp.mean((a.mean(axis=1) @ params["w"] - y) ** 2)


def gn_conv_grad(params, x, y, stats_per_channel=False):
    kernel, gamma, beta, w = params["kernel"], params["gamma"], params["beta"], params["w"]
    kh, kw, _c_in, c = kernel.shape
    n = x.shape[0]
    cols = patches_of(x, kh, kw)
    z = (cols @ kernel.reshape(-1, c)).reshape(n, -1, GROUPS, c // GROUPS)
    mean = z.mean(axis=(1, 3), keepdims=True)
    inv = 1.0 / jnp.sqrt(z.var(axis=(1, 3), keepdims=True) + GN_EPS)
    zhat = (z - mean) * inv
    zflat = zhat.reshape(n, -1, c)
    pre = zflat * gamma + beta
    a = jnp.maximum(pre, 0)
    pooled = a.mean(axis=1)
    dpred = 2 * (pooled @ w - y) / y.size
    dw = pooled.T @ dpred
    da = jnp.broadcast_to((dpred @ w.T)[:, None, :] / a.shape[1], a.shape)
    dpre = jnp.where(pre > 0, da, 0)
    dgamma = jnp.sum(dpre * zflat, axis=(0, 1))
    dbeta = jnp.sum(dpre, axis=(0, 1))
    dzhat = (dpre * gamma).reshape(z.shape)
    axes = (1,) if stats_per_channel else (1, 3)
    dz = inv * (dzhat - dzhat.mean(axis=axes, keepdims=True) - zhat * (dzhat * zhat).mean(axis=axes, keepdims=True))
    dkernel = jnp.einsum("npk,npc->kc", cols, dz.reshape(n, -1, c)).reshape(kernel.shape)
    return {"kernel": dkernel, "gamma": dgamma, "beta": dbeta, "w": dw}


def gn_conv_make(dtype):
    rng = np.random.default_rng(105)
    params = {
        "kernel": rng.normal(size=(3, 2, 4, 6)) * 0.4,
        "gamma": 1 + 0.4 * rng.normal(size=6),
        "beta": 0.4 * rng.normal(size=6),
        "w": rng.normal(size=(6, 5)) * 0.7,
    }
    args = (rng.normal(size=(4, 7, 5, 4)), rng.normal(size=(4, 5)))
    return cast(params, dtype), cast(args, dtype)


# Depthwise-separable convolution in time


def separable_loss(params, x, y):
    u = x @ params["proj"]
    channels = u.shape[2]
    z = lax.conv_general_dilated(
        u,
        params["depth"][:, None, :],
        (1,),
        "SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
    )
    a = jax.nn.silu(z @ params["point"] + params["bias"])
    return jnp.mean((a - y) ** 2)


def separable_grad(params, x, y, same_kernel=False):
    proj, depth, point, bias = params["proj"], params["depth"], params["point"], params["bias"]
    width = depth.shape[0]
    half = width // 2
    t = x.shape[1]

    def slide(v, kernel):
        padded = jnp.pad(v, ((0, 0), (half, half), (0, 0)))
        return sum(padded[:, j : j + t, :] * kernel[j] for j in range(width))

    u = x @ proj
    z = slide(u, depth)
    pre = z @ point + bias
    sig = jax.nn.sigmoid(pre)
    a = pre * sig
    da = 2 * (a - y) / y.size
    dpre = da * (sig + pre * sig * (1 - sig))
    dpoint = jnp.einsum("ntc,ntm->cm", z, dpre)
    dbias = dpre.sum(axis=(0, 1))
    dz = dpre @ point.T
    padded = jnp.pad(u, ((0, 0), (half, half), (0, 0)))
    ddepth = jnp.stack([jnp.sum(padded[:, j : j + t] * dz, axis=(0, 1)) for j in range(width)])
    du = slide(dz, depth) if same_kernel else slide(dz, depth[::-1])
    dproj = jnp.einsum("ntd,ntc->dc", x, du)
    return {"proj": dproj, "depth": ddepth, "point": dpoint, "bias": dbias}


def separable_make(dtype):
    rng = np.random.default_rng(106)
    params = {
        "proj": rng.normal(size=(2, 4)),
        "depth": rng.normal(size=(3, 4)),
        "point": rng.normal(size=(4, 6)) * 0.6,
        "bias": rng.normal(size=6) * 0.3,
    }
    args = (rng.normal(size=(5, 8, 2)), rng.normal(size=(5, 8, 6)))
    return cast(params, dtype), cast(args, dtype)


# Diagonal state space by scan


def ssm_loss(params, x, y):
    decay = jnp.exp(-jnp.exp(params["log_rate"]))

    def step(h, x_t):
        h = decay * h + x_t @ params["b"]
        return h, jax.nn.gelu(h @ params["c"], approximate=True) + x_t * params["d"]

    h0 = jnp.zeros((x.shape[1], decay.shape[0]), x.dtype)
    _, out = lax.scan(step, h0, x)
    return 0.5 * jnp.mean((out - y) ** 2)


def gelu_slope(v):
    k = float(np.sqrt(2 / np.pi))
    th = jnp.tanh(k * (v + 0.044715 * v**3))
    return 0.5 * (1 + th) + 0.5 * v * (1 - th**2) * k * (1 + 3 * 0.044715 * v**2)


def ssm_grad(params, x, y, late_state=False):
    rate = jnp.exp(params["log_rate"])
    decay = jnp.exp(-rate)
    drive = x @ params["b"]

    def forward(h, u):
        h = decay * h + u
        return h, h

    _, states = lax.scan(forward, jnp.zeros_like(drive[0]), drive)
    mixed = states @ params["c"]
    out = jax.nn.gelu(mixed, approximate=True) + x * params["d"]
    dout = (out - y) / y.size
    dd = jnp.sum(dout * x, axis=(0, 1))
    dmixed = dout * gelu_slope(mixed)
    dc = jnp.einsum("tbn,tbd->nd", states, dmixed)
    dstates = dmixed @ params["c"].T

    def backward(adj, g):
        adj = g + decay * adj
        return adj, adj

    _, adjoints = lax.scan(backward, jnp.zeros_like(drive[0]), dstates, reverse=True)
    db = jnp.einsum("tbd,tbn->dn", x, adjoints)
    before = states if late_state else jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])
    ddecay = jnp.sum(adjoints * before, axis=(0, 1))
    return {"log_rate": -ddecay * decay * rate, "b": db, "c": dc, "d": dd}


def ssm_make(dtype):
    rng = np.random.default_rng(107)
    params = {
        "log_rate": rng.uniform(-2.5, 0.0, size=5),
        "b": rng.normal(size=(3, 5)) * 0.6,
        "c": rng.normal(size=(5, 3)) * 0.6,
        "d": rng.normal(size=3),
    }
    args = (rng.normal(size=(8, 4, 3)), rng.normal(size=(8, 4, 3)))
    return cast(params, dtype), cast(args, dtype)


# Mixture of experts with soft routing; the importance that weights the balance term is stopped

BALANCE = 0.8


def moe_loss(params, x, y):
    p = jax.nn.softmax(x @ params["gate"], axis=-1)
    hidden = jnp.tanh(jnp.einsum("nd,edm->nem", x, params["w1"]))
    outs = jnp.einsum("nem,emo->neo", hidden, params["w2"])
    pred = jnp.einsum("ne,neo->no", p, outs)
    importance = p.mean(axis=0)
    balance = p.shape[1] * jnp.sum(lax.stop_gradient(importance) * importance)
    return 0.5 * jnp.mean(jnp.sum((pred - y) ** 2, axis=1)) + BALANCE * balance


def moe_grad(params, x, y, through_stop=False):
    n = x.shape[0]
    p = jax.nn.softmax(x @ params["gate"], axis=-1)
    n_experts = p.shape[1]
    hidden = jnp.tanh(jnp.einsum("nd,edm->nem", x, params["w1"]))
    outs = jnp.einsum("nem,emo->neo", hidden, params["w2"])
    pred = jnp.einsum("ne,neo->no", p, outs)
    dpred = (pred - y) / n
    # experts
    douts = p[:, :, None] * dpred[:, None, :]
    dw2 = jnp.einsum("nem,neo->emo", hidden, douts)
    dhidden = jnp.einsum("neo,emo->nem", douts, params["w2"])
    dw1 = jnp.einsum("nd,nem->edm", x, dhidden * (1 - hidden**2))
    # router
    dp = jnp.einsum("no,neo->ne", dpred, outs)
    importance = p.mean(axis=0)
    dimportance = BALANCE * n_experts * importance
    if through_stop:
        dimportance = 2 * dimportance
    dp = dp + dimportance / n
    dgate_logits = p * (dp - jnp.sum(p * dp, axis=1, keepdims=True))
    return {"gate": x.T @ dgate_logits, "w1": dw1, "w2": dw2}


def moe_make(dtype):
    rng = np.random.default_rng(108)
    params = {
        "gate": rng.normal(size=(5, 3)),
        "w1": rng.normal(size=(3, 5, 4)) * 0.6,
        "w2": rng.normal(size=(3, 4, 2)) * 0.6,
    }
    args = (rng.normal(size=(8, 5)) + 0.4, rng.normal(size=(8, 2)))
    return cast(params, dtype), cast(args, dtype)


# Language model with the embedding tied to the output


def tied_loss(params, tokens, targets):
    e = params["embed"][tokens]
    t = tokens.shape[1]
    context = jnp.cumsum(e, axis=1) / jnp.arange(1, t + 1, dtype=e.dtype)[:, None]
    h = e + jnp.tanh(context @ params["w"] + params["b"])
    logp = jax.nn.log_softmax(h @ params["embed"].T, axis=-1)
    return -jnp.mean(jnp.take_along_axis(logp, targets[..., None], axis=-1))


def tied_grad(params, tokens, targets, scatter_set=False):
    embed, w, b = params["embed"], params["w"], params["b"]
    vocab = embed.shape[0]
    t = tokens.shape[1]
    e = embed[tokens]
    counts = jnp.arange(1, t + 1, dtype=e.dtype)[:, None]
    context = jnp.cumsum(e, axis=1) / counts
    u = jnp.tanh(context @ w + b)
    h = e + u
    probs = jax.nn.softmax(h @ embed.T, axis=-1)
    dlogits = (probs - jax.nn.one_hot(targets, vocab, dtype=e.dtype)) / targets.size
    dembed_out = jnp.einsum("btv,btd->vd", dlogits, h)
    dh = dlogits @ embed
    du = dh * (1 - u**2)
    dw = jnp.einsum("btd,bte->de", context, du)
    db = du.sum(axis=(0, 1))
    dcontext = (du @ w.T) / counts
    de = dh + jnp.flip(jnp.cumsum(jnp.flip(dcontext, axis=1), axis=1), axis=1)
    table = jnp.zeros_like(embed)
    table = table.at[tokens].set(de) if scatter_set else table.at[tokens].add(de)
    return {"embed": dembed_out + table, "w": dw, "b": db}


def tied_make(dtype):
    rng = np.random.default_rng(109)
    params = {
        "embed": rng.normal(size=(8, 5)) * 0.8,
        "w": rng.normal(size=(5, 5)) * 0.5,
        "b": rng.normal(size=5) * 0.2,
    }
    tokens = np.array([[0, 1, 2], [3, 1, 4], [1, 5, 2], [6, 2, 1]])
    targets = np.array([[1, 2, 7], [1, 4, 3], [5, 2, 0], [2, 1, 6]])
    return cast(params, dtype), cast((tokens, targets), dtype)
