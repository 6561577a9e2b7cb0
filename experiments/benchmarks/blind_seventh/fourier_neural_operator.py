"""Fourier neural operator: a layer that multiplies the low modes by complex weights; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import i0e, i1e, logsumexp

from experiments.benchmarks.blind_seventh.graph_attention import cast

# Fourier neural operator: a layer that multiplies the low modes by complex weights


def fno_forward(params, x):
    t = x.shape[1]
    modes = params["re"].shape[0]
    h = x @ params["lift"]
    spec = jnp.fft.rfft(h, axis=1)[:, :modes]
    w = params["re"] + 1j * params["im"]
    mixed = jnp.einsum("bmi,mio->bmo", spec, w)
    full = jnp.pad(mixed, ((0, 0), (0, t // 2 + 1 - modes), (0, 0)))
    z = jnp.fft.irfft(full, n=t, axis=1) + h @ params["skip"]
    a = z * jax.nn.sigmoid(z)
    return h, spec, w, z, a, a @ params["head"]


def fno_loss(params, x, target):
    out = fno_forward(params, x)[-1]
    return jnp.mean(jnp.sum((out - target) ** 2, (1, 2)) / jnp.sum(target**2, (1, 2)))


def fno_grad(params, x, target, plain_product=False, one_sided=False):
    h, spec, w, z, a, out = fno_forward(params, x)
    b, t, _ = h.shape
    modes = params["re"].shape[0]
    dout = 2.0 * (out - target) / (b * jnp.sum(target**2, (1, 2), keepdims=True))
    dhead = jnp.einsum("bto,btk->ok", a, dout)
    sig = jax.nn.sigmoid(z)
    dz = (dout @ params["head"].T) * (sig + a * (1.0 - sig))
    dskip = jnp.einsum("bti,bto->io", h, dz)
    dh = dz @ params["skip"].T

    # irfft counts each mode but the first for its mirror image too
    twice = jnp.where(jnp.arange(modes) == 0, 1.0, 2.0).astype(h.dtype)[:, None]
    dmixed = jnp.fft.rfft(dz, axis=1)[:, :modes] / t
    if not one_sided:
        dmixed = dmixed * twice
    left = spec if plain_product else jnp.conj(spec)
    dw = jnp.einsum("bmi,bmo->mio", left, dmixed)
    dspec = jnp.einsum("bmo,mio->bmi", dmixed, jnp.conj(w))
    dspec = jnp.pad(dspec / twice, ((0, 0), (0, t // 2 + 1 - modes), (0, 0)))
    dh = dh + t * jnp.fft.irfft(dspec, n=t, axis=1)
    return {"lift": jnp.einsum("bti,btc->ic", x, dh), "re": dw.real, "im": dw.imag, "skip": dskip, "head": dhead}


def fno_make(dtype):
    r = np.random.default_rng(106)
    params = {
        "lift": r.normal(size=(2, 3)),
        "re": r.normal(size=(4, 3, 5)) * 0.5,
        "im": r.normal(size=(4, 3, 5)) * 0.5,
        "skip": r.normal(size=(3, 5)) * 0.5,
        "head": r.normal(size=(5, 2)),
    }
    args = (r.normal(size=(6, 8, 2)), r.normal(size=(6, 8, 2)))
    return cast(params, dtype), cast(args, dtype)


# fused RMS norm and gated linear unit; the gain's gradient is summed by blocks of rows

BLOCK_ROWS = 4


def glu_forward(params, x):
    inv = lax.rsqrt(jnp.mean(x * x, axis=1, keepdims=True) + 1e-6)
    hat = x * inv
    n = hat * params["gain"]
    g = n @ params["w_gate"]
    u = n @ params["w_up"]
    a = g * jax.nn.sigmoid(g) * u
    return hat, n, g, u, a, a @ params["w_down"]


def glu_loss(params, x, target):
    out = glu_forward(params, x)[-1]
    return jnp.mean(jnp.log(jnp.cosh(out - target)))


def glu_grad(params, x, target, full_blocks_only=False):
    hat, n, g, u, a, out = glu_forward(params, x)
    rows, _width = x.shape
    dout = jnp.tanh(out - target) / out.size
    dw_down = a.T @ dout
    da = dout @ params["w_down"].T
    sig = jax.nn.sigmoid(g)
    du = da * g * sig
    dg = da * u * sig * (1.0 + g * (1.0 - sig))
    dw_gate = n.T @ dg
    dw_up = n.T @ du
    dn = dg @ params["w_gate"].T + du @ params["w_up"].T

    # each program writes one partial sum
    n_blocks = rows // BLOCK_ROWS if full_blocks_only else -(-rows // BLOCK_ROWS)
    partial_sums = []
    for i in range(n_blocks):
        block = slice(i * BLOCK_ROWS, min((i + 1) * BLOCK_ROWS, rows))
        partial_sums.append(jnp.sum(dn[block] * hat[block], axis=0))
    dgain = jnp.stack(partial_sums).sum(0)
    return {"gain": dgain, "w_gate": dw_gate, "w_up": dw_up, "w_down": dw_down}


def glu_make(dtype):
    r = np.random.default_rng(107)
    params = {
        "gain": 1 + 0.3 * r.normal(size=6),
        "w_gate": r.normal(size=(6, 5)),
        "w_up": r.normal(size=(6, 5)),
        "w_down": r.normal(size=(5, 3)),
    }
    args = (r.normal(size=(10, 6)), r.normal(size=(10, 3)))
    return cast(params, dtype), cast(args, dtype)


# flash attention: capped scores, a sliding window, the backward pass recomputes p from logsumexp

CAP = 3.0


WINDOW = 3


def window_mask(t, first_key=0):
    rel = jnp.arange(t)[:, None] - (jnp.arange(t)[None, :] + first_key)
    return (rel >= 0) & (rel < WINDOW)


def capped_scores(q, k):
    raw = jnp.einsum("btk,bsk->bts", q, k) / q.shape[-1] ** 0.5
    return CAP * jnp.tanh(raw / CAP)


def flash_forward(params, x):
    q, k, v = x @ params["wq"], x @ params["wk"], x @ params["wv"]
    s = jnp.where(window_mask(x.shape[1]), capped_scores(q, k), -jnp.inf)
    lse = logsumexp(s, axis=-1)
    o = jnp.exp(s - lse[..., None]) @ v
    return q, k, v, lse, o


def flash_loss(params, x, target):
    o = flash_forward(params, x)[-1]
    return 0.5 * jnp.mean(jnp.sum((o - target) ** 2, axis=-1))


def flash_grad(params, x, target, key_offset_one=False):
    q, k, v, lse, o = flash_forward(params, x)
    b, t, _ = x.shape
    do = (o - target) / (b * t)
    delta = jnp.sum(do * o, axis=-1)

    # recompute
    s = capped_scores(q, k)
    inside = window_mask(t, 1 if key_offset_one else 0)
    p = jnp.where(inside, jnp.exp(s - lse[..., None]), 0.0)
    dv = jnp.einsum("bts,btk->bsk", p, do)
    dp = jnp.einsum("btk,bsk->bts", do, v)
    ds = p * (dp - delta[..., None])
    draw = ds * (1.0 - (s / CAP) ** 2) / q.shape[-1] ** 0.5
    dq = jnp.einsum("bts,bsk->btk", draw, k)
    dk = jnp.einsum("bts,btk->bsk", draw, q)
    return {name: jnp.einsum("btd,btk->dk", x, g) for name, g in (("wq", dq), ("wk", dk), ("wv", dv))}


def flash_make(dtype):
    r = np.random.default_rng(108)
    params = {"wq": r.normal(size=(5, 3)) * 0.8, "wk": r.normal(size=(5, 3)) * 0.8, "wv": r.normal(size=(5, 2))}
    args = (r.normal(size=(4, 8, 5)), r.normal(size=(4, 8, 2)))
    return cast(params, dtype), cast(args, dtype)


# mixed precision: products in bfloat16, norm and loss in float32, the backward pass scaled

LOSS_SCALE = 256.0


def amp_forward(params, x):
    half = jnp.bfloat16
    mu = x.mean(1, keepdims=True)
    hat = (x - mu) * lax.rsqrt(((x - mu) ** 2).mean(1, keepdims=True) + 1e-5)
    n = (hat * params["gain"]).astype(half)
    z = n @ params["w1"].astype(half)
    a = jnp.maximum(z, 0)
    out = (a @ params["w2"].astype(half)).astype(jnp.float32) + params["b2"]
    return hat, n, z, a, out


def amp_loss(params, x, label):
    logp = jax.nn.log_softmax(amp_forward(params, x)[-1])
    return -jnp.mean(jnp.take_along_axis(logp, label[:, None], 1))


def amp_grad(params, x, label, forget_unscale_norm=False):
    half, full = jnp.bfloat16, jnp.float32
    hat, n, z, a, out = amp_forward(params, x)
    dout = (jax.nn.softmax(out) - jax.nn.one_hot(label, out.shape[1], dtype=full)) / x.shape[0] * LOSS_SCALE
    dout_half = dout.astype(half)
    dw2 = (a.T @ dout_half).astype(full)
    da = dout_half @ params["w2"].astype(half).T
    dz = jnp.where(z > 0, da, jnp.zeros_like(da))
    dw1 = (n.T @ dz).astype(full)
    dn = (dz @ params["w1"].astype(half).T).astype(full)
    dgain = jnp.sum(dn * hat, axis=0)
    grads = {"gain": dgain, "w1": dw1, "w2": dw2, "b2": dout.sum(0)}
    # the norms are kept in float32 by their own optimizer group
    keep = ("gain",) if forget_unscale_norm else ()
    return {name: g if name in keep else g / LOSS_SCALE for name, g in grads.items()}


def amp_make(dtype):
    r = np.random.default_rng(109)
    params = {
        "gain": 1 + 0.3 * r.normal(size=6),
        "w1": r.normal(size=(6, 5)),
        "w2": r.normal(size=(5, 3)),
        "b2": r.normal(size=3),
    }
    args = (r.normal(size=(8, 6)), r.integers(0, 3, size=8))
    return cast(params, dtype), cast(args, dtype)


# continuous filter convolution on molecules; atoms of one element share an embedding


def ssp(x):
    return jax.nn.softplus(x) - float(np.log(2.0))


def schnet_forward(params, z, rbf, cut, src, dst, mol):
    h = params["embed"][z]
    pre = rbf @ params["filter"]
    filt = ssp(pre) * cut[:, None]
    v = h.at[dst].add(h[src] * filt)
    q = v @ params["w"]
    u = ssp(q)
    energy = jax.ops.segment_sum(u @ params["readout"], mol, 4)
    return h, pre, filt, v, q, u, energy


def schnet_loss(params, z, rbf, cut, src, dst, mol, target):
    energy = schnet_forward(params, z, rbf, cut, src, dst, mol)[-1]
    return jnp.mean((energy - target) ** 2)


def schnet_grad(params, z, rbf, cut, src, dst, mol, target, write_rows=False):
    h, pre, filt, v, q, u, energy = schnet_forward(params, z, rbf, cut, src, dst, mol)
    denergy = 2.0 * (energy - target) / energy.size
    datom = denergy[mol]
    dreadout = u.T @ datom
    dq = datom[:, None] * params["readout"] * jax.nn.sigmoid(q)
    dw = v.T @ dq
    dv = dq @ params["w"].T
    dfilt = dv[dst] * h[src]
    dpre = dfilt * cut[:, None] * jax.nn.sigmoid(pre)
    dh = dv.at[src].add(dv[dst] * filt)
    table = jnp.zeros_like(params["embed"])
    dembed = table.at[z].set(dh) if write_rows else table.at[z].add(dh)
    return {"embed": dembed, "filter": rbf.T @ dpre, "w": dw, "readout": dreadout}


def schnet_make(dtype):
    r = np.random.default_rng(110)
    z = np.array([0, 1, 1, 0, 2, 1, 0, 3, 2, 1])
    mol = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
    src = np.array([0, 1, 0, 2, 1, 2, 3, 4, 4, 5, 3, 6, 7, 8, 9])
    dst = np.array([1, 0, 2, 0, 2, 1, 4, 3, 5, 4, 5, 7, 6, 9, 8])
    dist = r.uniform(0.9, 2.5, size=15)
    rbf = np.exp(-2.0 * (dist[:, None] - np.linspace(0.8, 2.6, 6)) ** 2)
    cut = 0.5 * (np.cos(np.pi * dist / 3.0) + 1.0)
    params = {
        "embed": r.normal(size=(4, 5)),
        "filter": r.normal(size=(6, 5)),
        "w": r.normal(size=(5, 3)),
        "readout": r.normal(size=3),
    }
    args = (z, rbf, cut, src, dst, mol, r.normal(size=4))
    return cast(params, dtype), cast(args, dtype)


# Cox partial likelihood of a small network; patients sorted by falling time


def cox_forward(params, x):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    return h, h @ params["w2"]


def cox_loss(params, x, event):
    eta = cox_forward(params, x)[1]
    log_risk = jnp.log(jnp.cumsum(jnp.exp(eta)))
    return -jnp.sum(event * (eta - log_risk)) / event.sum()


def cox_grad(params, x, event, all_are_events=False, step_first=False):
    h, eta = cox_forward(params, x)
    risk = jnp.cumsum(jnp.exp(eta))
    inverse = 1.0 / risk if all_are_events else event / risk
    later = jnp.cumsum(inverse[::-1])[::-1]
    deta = (jnp.exp(eta) * later - event) / event.sum()
    dw2 = h.T @ deta
    w2 = params["w2"]
    if step_first:
        w2 = w2 - 0.5 * dw2
    dz = deta[:, None] * w2 * (1.0 - h * h)
    return {"w1": x.T @ dz, "b1": dz.sum(0), "w2": dw2}


def cox_make(dtype):
    r = np.random.default_rng(201)
    params = {"w1": r.normal(size=(5, 4)) * 0.6, "b1": r.normal(size=4) * 0.3, "w2": r.normal(size=4)}
    event = np.array([1.0, 0, 1, 0, 1, 1, 0, 1, 0])
    return cast(params, dtype), cast((r.normal(size=(9, 5)), event), dtype)


# von Mises regression of a wind direction, with the concentration predicted too


def wind_forward(params, x):
    s = x @ params["w_sin"]
    c = x @ params["w_cos"]
    pre = x @ params["w_kappa"]
    return s, c, pre, jnp.arctan2(s, c), jax.nn.softplus(pre)


def wind_loss(params, x, direction):
    _, _, _, mu, kappa = wind_forward(params, x)
    log_i0 = jnp.log(i0e(kappa)) + kappa
    return jnp.mean(log_i0 - kappa * jnp.cos(direction - mu))


def wind_grad(params, x, direction, plus_in_arctan=False):
    s, c, pre, mu, kappa = wind_forward(params, x)
    n = x.shape[0]
    dmu = -kappa * jnp.sin(direction - mu) / n
    dkappa = (i1e(kappa) / i0e(kappa) - jnp.cos(direction - mu)) / n
    square = s * s + c * c
    ds = dmu * c / square
    dc = dmu * s / square if plus_in_arctan else -dmu * s / square
    return {"w_sin": x.T @ ds, "w_cos": x.T @ dc, "w_kappa": x.T @ (dkappa * jax.nn.sigmoid(pre))}


def wind_make(dtype):
    r = np.random.default_rng(202)
    params = {"w_sin": r.normal(size=5), "w_cos": r.normal(size=5), "w_kappa": r.normal(size=5) * 0.5}
    return cast(params, dtype), cast((r.normal(size=(8, 5)), r.uniform(-3, 3, size=8)), dtype)
