"""Mixture of experts; Temporal block: dilated causal depthwise convolution; and more."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_sixth.grouped_query_attention import cast

# Mixture of experts, the best two, with a balancing term and a term on the logits

BALANCE, Z_COEF = 0.4, 0.05


def _top_two(probs):
    _, idx = jax.lax.top_k(probs, 2)
    return jax.nn.one_hot(idx, probs.shape[1], dtype=probs.dtype).sum(axis=1)


def moe_loss(params, x, y):
    n_exp = params["router"].shape[1]
    logits = x @ params["router"]
    probs = jax.nn.softmax(logits, axis=-1)
    kept = probs * _top_two(probs)
    gates = kept / kept.sum(axis=-1, keepdims=True)
    hidden = jax.nn.silu(jnp.einsum("bd,edh->beh", x, params["w1"]) + params["b1"])
    outs = jnp.einsum("beh,eho->beo", hidden, params["w2"])
    y_hat = jnp.einsum("be,beo->bo", gates, outs)
    load = jax.lax.stop_gradient(gates.mean(axis=0))
    balance = n_exp * jnp.sum(load * probs.mean(axis=0))
    lse = jax.nn.logsumexp(logits, axis=-1)
    return jnp.mean((y_hat - y) ** 2) + BALANCE * balance + Z_COEF * jnp.mean(lse**2)


def moe_grad(params, x, y, load_is_differentiable=False):
    batch, n_exp = x.shape[0], params["router"].shape[1]
    logits = x @ params["router"]
    probs = jax.nn.softmax(logits, axis=-1)
    chosen = _top_two(probs)
    norm = jnp.sum(probs * chosen, axis=-1, keepdims=True)
    gates = probs * chosen / norm
    pre = jnp.einsum("bd,edh->beh", x, params["w1"]) + params["b1"]
    sig = jax.nn.sigmoid(pre)
    hidden = pre * sig
    outs = jnp.einsum("beh,eho->beo", hidden, params["w2"])
    y_hat = jnp.einsum("be,beo->bo", gates, outs)

    dy = 2.0 * (y_hat - y) / y.size
    # experts
    douts = gates[:, :, None] * dy[:, None, :]
    dw2 = jnp.einsum("beh,beo->eho", hidden, douts)
    dhidden = jnp.einsum("beo,eho->beh", douts, params["w2"])
    dpre = dhidden * (sig + pre * sig * (1 - sig))
    # router
    dgates = jnp.einsum("bo,beo->be", dy, outs)
    load, importance = gates.mean(axis=0), probs.mean(axis=0)
    if load_is_differentiable:
        dgates = dgates + BALANCE * n_exp * importance / batch
    dkept = (dgates - jnp.sum(dgates * gates, axis=-1, keepdims=True)) / norm
    dprobs = dkept * chosen + BALANCE * n_exp * load / batch
    dlogits = probs * (dprobs - jnp.sum(dprobs * probs, axis=-1, keepdims=True))
    lse = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    dlogits = dlogits + Z_COEF * 2.0 * lse * probs / batch
    return {"router": x.T @ dlogits, "w1": jnp.einsum("bd,beh->edh", x, dpre), "b1": dpre.sum(axis=0), "w2": dw2}


def moe_make(dtype):
    rng = np.random.default_rng(105)
    b, d, e, h, o = 8, 3, 5, 4, 2
    params = {
        "router": rng.normal(size=(d, e)),
        "w1": rng.normal(size=(e, d, h)),
        "b1": rng.normal(size=(e, h)) * 0.3,
        "w2": rng.normal(size=(e, h, o)) * 0.6,
    }
    args = (rng.normal(size=(b, d)), rng.normal(size=(b, o)))
    return cast(params, dtype), cast(args, dtype)


# Temporal block: dilated causal depthwise convolution, group norm, residual, pooled classes

DILATION, GROUPS, SMOOTH, GN_EPS = 2, 2, 0.1, 1e-5


def tcn_loss(params, x, labels):
    h = x @ params["w_in"] + params["b_in"]
    width, channels = params["taps"].shape
    u = jax.lax.conv_general_dilated(
        h,
        params["taps"][:, None, :],
        window_strides=(1,),
        padding=[((width - 1) * DILATION, 0)],
        rhs_dilation=(DILATION,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
    )
    b, length, _ = u.shape
    grouped = u.reshape(b, length, GROUPS, channels // GROUPS)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    var = grouped.var(axis=(1, 3), keepdims=True)
    normed = ((grouped - mean) / jnp.sqrt(var + GN_EPS)).reshape(u.shape)
    n = normed * params["gain"] + params["shift"]
    pooled = jnp.mean(h + jax.nn.silu(n), axis=1)
    logp = jax.nn.log_softmax(pooled @ params["w_out"], axis=-1)
    n_cls = logp.shape[-1]
    soft = jax.nn.one_hot(labels, n_cls, dtype=logp.dtype) * (1 - SMOOTH) + SMOOTH / n_cls
    return -jnp.mean(jnp.sum(soft * logp, axis=-1))


def tcn_grad(params, x, labels, unflipped_input_kernel=False, no_variance_term=False):
    taps = params["taps"]
    width, channels = taps.shape
    b, length, _ = x.shape
    pad = (width - 1) * DILATION
    h = x @ params["w_in"] + params["b_in"]
    h_pad = jnp.pad(h, ((0, 0), (pad, 0), (0, 0)))
    u = sum(taps[k] * h_pad[:, k * DILATION : k * DILATION + length] for k in range(width))
    grouped = u.reshape(b, length, GROUPS, channels // GROUPS)
    inv = 1.0 / jnp.sqrt(grouped.var(axis=(1, 3), keepdims=True) + GN_EPS)
    xhat = (grouped - grouped.mean(axis=(1, 3), keepdims=True)) * inv
    n = xhat.reshape(u.shape) * params["gain"] + params["shift"]
    sig = jax.nn.sigmoid(n)
    pooled = jnp.mean(h + n * sig, axis=1)
    probs = jax.nn.softmax(pooled @ params["w_out"], axis=-1)

    n_cls = probs.shape[-1]
    soft = jax.nn.one_hot(labels, n_cls, dtype=probs.dtype) * (1 - SMOOTH) + SMOOTH / n_cls
    dlogits = (probs - soft) / b
    dpooled = dlogits @ params["w_out"].T
    dres = jnp.broadcast_to(dpooled[:, None, :] / length, h.shape)
    dn = dres * (sig + n * sig * (1 - sig))
    dxhat = (dn * params["gain"]).reshape(grouped.shape)
    centered = dxhat - dxhat.mean(axis=(1, 3), keepdims=True)
    if not no_variance_term:
        centered = centered - xhat * jnp.mean(dxhat * xhat, axis=(1, 3), keepdims=True)
    du = (centered * inv).reshape(u.shape)

    dtaps = jnp.stack([jnp.sum(du * h_pad[:, k * DILATION : k * DILATION + length], axis=(0, 1)) for k in range(width)])
    # transposed convolution: correlate with the reversed taps over du padded at the end
    du_pad = jnp.pad(du, ((0, 0), (0, pad), (0, 0)))
    kernel = taps if unflipped_input_kernel else taps[::-1]
    dh = sum(kernel[k] * du_pad[:, k * DILATION : k * DILATION + length] for k in range(width))
    dh = dh + dres
    return {
        "w_in": jnp.einsum("bti,btc->ic", x, dh),
        "b_in": dh.sum(axis=(0, 1)),
        "taps": dtaps,
        "gain": jnp.sum(dn * xhat.reshape(u.shape), axis=(0, 1)),
        "shift": dn.sum(axis=(0, 1)),
        "w_out": pooled.T @ dlogits,
    }


def tcn_make(dtype):
    rng = np.random.default_rng(106)
    b, length, n_in, c, k, cls = 4, 8, 2, 6, 3, 5
    params = {
        "w_in": rng.normal(size=(n_in, c)) * 0.4,
        "b_in": rng.normal(size=c) * 0.3,
        "taps": rng.normal(size=(k, c)),
        "gain": 1.0 + 0.4 * rng.normal(size=c),
        "shift": rng.normal(size=c) * 0.5,
        "w_out": rng.normal(size=(c, cls)),
    }
    args = (rng.normal(size=(b, length, n_in)), rng.integers(0, cls, size=b))
    return cast(params, dtype), cast(args, dtype)


# Tied embeddings in mixed precision (float32 parameters, bfloat16 products)


def _mixing(length, dtype):
    tril = jnp.tril(jnp.ones((length, length), dtype))
    return tril / tril.sum(axis=1, keepdims=True)


def tied_loss(params, tokens, targets):
    f32, b16 = params["emb"].dtype, jnp.bfloat16
    scale = float(np.sqrt(params["emb"].shape[1]))
    x = params["emb"][tokens] * scale + params["pos"]
    mixed = jnp.einsum("ts,bsd->btd", _mixing(tokens.shape[1], f32), x)
    inv = jax.lax.rsqrt(jnp.mean(mixed**2, axis=-1, keepdims=True) + 1e-6)
    n = (mixed * inv * params["gain"]).astype(b16)
    a = jax.nn.relu(n @ params["w1"].astype(b16))
    h = x + ((a * a) @ params["w2"].astype(b16)).astype(f32)
    logits = (h.astype(b16) @ params["emb"].astype(b16).T).astype(f32)
    logp = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(jnp.take_along_axis(logp, targets[..., None], axis=-1))


def tied_grad(params, tokens, targets, forget_embedding_scale=False, overwrite_rows=False):
    f32, b16 = params["emb"].dtype, jnp.bfloat16
    scale = float(np.sqrt(params["emb"].shape[1]))
    w1, w2, emb = (params[k].astype(b16) for k in ("w1", "w2", "emb"))
    mix = _mixing(tokens.shape[1], f32)
    x = params["emb"][tokens] * scale + params["pos"]
    mixed = jnp.einsum("ts,bsd->btd", mix, x)
    inv = jax.lax.rsqrt(jnp.mean(mixed**2, axis=-1, keepdims=True) + 1e-6)
    xhat = mixed * inv
    n = (xhat * params["gain"]).astype(b16)
    a = jax.nn.relu(n @ w1)
    sq = a * a
    h = (x + (sq @ w2).astype(f32)).astype(b16)
    probs = jax.nn.softmax((h @ emb.T).astype(f32), axis=-1)

    onehot = jax.nn.one_hot(targets, probs.shape[-1], dtype=f32)
    dlogits = ((probs - onehot) / targets.size).astype(b16)
    demb_out = jnp.einsum("btv,btd->vd", dlogits, h).astype(f32)
    dh = (dlogits @ emb).astype(f32)
    dm = dh.astype(b16)
    dw2 = jnp.einsum("bth,btd->hd", sq, dm).astype(f32)
    dsq = dm @ w2.T
    da = 2 * a * dsq  # zero where the relu is
    dw1 = jnp.einsum("btd,bth->dh", n, da).astype(f32)
    dn = (da @ w1.T).astype(f32)
    dgain = jnp.sum(dn * xhat, axis=(0, 1))
    dxhat = dn * params["gain"]
    dmixed = inv * (dxhat - xhat * jnp.mean(dxhat * xhat, axis=-1, keepdims=True))
    dx = dh + jnp.einsum("ts,btd->bsd", mix, dmixed)

    rows = dx if forget_embedding_scale else dx * scale
    if overwrite_rows:
        demb_in = jnp.zeros_like(params["emb"])
        for b in range(tokens.shape[0]):
            for t in range(tokens.shape[1]):
                demb_in = demb_in.at[tokens[b, t]].set(rows[b, t])
    else:
        demb_in = jnp.zeros_like(params["emb"]).at[tokens].add(rows)
    return {"emb": demb_in + demb_out, "pos": dx.sum(axis=0), "gain": dgain, "w1": dw1, "w2": dw2}


def tied_make(dtype):
    rng = np.random.default_rng(107)
    b, t, v, d, h = 6, 5, 7, 4, 8
    params = {
        "emb": rng.normal(size=(v, d)) * 0.5,
        "pos": rng.normal(size=(t, d)) * 0.3,
        "gain": 1.0 + 0.2 * rng.normal(size=d),
        "w1": rng.normal(size=(d, h)) * 0.5,
        "w2": rng.normal(size=(h, d)) * 0.4,
    }
    # two of the seven tokens stand but once among the inputs
    tokens = np.concatenate([rng.integers(0, 5, size=b * t - 2), [5, 6]])
    rng.shuffle(tokens)
    args = (tokens.reshape(b, t), rng.integers(0, v, size=(b, t)))
    return cast(params, dtype), cast(args, dtype)


# Fourier operator block: complex weights on the lowest frequencies


def fourier_loss(params, x, y):
    length, modes = x.shape[1], params["spectral"].shape[2]
    h = x @ params["lift"]  # (batch, space, channel)
    low = jnp.fft.rfft(h, axis=1)[:, :modes]
    mixed = jnp.einsum("bmc,com->bmo", low, params["spectral"])
    smooth = jnp.fft.irfft(mixed, n=length, axis=1)
    z = jnp.tanh(smooth + h @ params["local"])
    return jnp.mean((z @ params["head"] - y) ** 2)


def fourier_grad(params, x, y, real_weights=False, conjugate_on_the_way=False):
    length, modes = x.shape[1], params["spectral"].shape[2]
    h = x @ params["lift"]
    low = jnp.fft.rfft(h, axis=1)[:, :modes]
    mixed = jnp.einsum("bmc,com->bmo", low, params["spectral"])
    z = jnp.tanh(jnp.fft.irfft(mixed, n=length, axis=1) + h @ params["local"])
    out = z @ params["head"]

    dout = 2.0 * (out - y) / y.size
    dhead = jnp.einsum("bso,bsy->oy", z, dout)
    dz = (dout @ params["head"].T) * (1 - z**2)
    dlocal = jnp.einsum("bsc,bso->co", h, dz)
    # irfft: all frequencies but the zeroth stand for two (Nyquist isn't among the modes)
    twice = jnp.where(jnp.arange(modes) == 0, 1.0, 2.0).astype(x.dtype)
    dmixed = jnp.conj(jnp.fft.rfft(dz, axis=1)[:, :modes]) * (twice / length)[None, :, None]
    dspectral = jnp.einsum("bmc,bmo->com", low, dmixed)
    weights = jnp.conj(params["spectral"]) if conjugate_on_the_way else params["spectral"]
    dlow = jnp.einsum("bmo,com->bmc", dmixed, weights)
    # rfft: real part of the same sum over frequencies
    dh = jnp.real(jnp.fft.fft(jnp.pad(dlow, ((0, 0), (0, length - modes), (0, 0))), axis=1))
    dh = dh + dz @ params["local"].T
    if real_weights:
        dspectral = dspectral.real
    return {"lift": jnp.einsum("bsi,bsc->ic", x, dh), "spectral": dspectral, "local": dlocal, "head": dhead}


def fourier_make(dtype):
    rng = np.random.default_rng(108)
    b, s, i, c, o, m, y = 6, 8, 2, 3, 5, 4, 1
    params = {
        "lift": rng.normal(size=(i, c)),
        "spectral": (rng.normal(size=(c, o, m)) + 1j * rng.normal(size=(c, o, m))) * 0.4,
        "local": rng.normal(size=(c, o)) * 0.5,
        "head": rng.normal(size=(o, y)),
    }
    args = (rng.normal(size=(b, s, i)), rng.normal(size=(b, s, y)))
    return cast(params, dtype), cast(args, dtype)


# Graph attention over an edge list (the second version: attention after the nonlinearity)

SLOPE = 0.2


def _edge_softmax(e, dst, n):
    top = jax.ops.segment_max(e, dst, n)
    w = jnp.exp(e - jax.lax.stop_gradient(top)[dst])
    return w / jax.ops.segment_sum(w, dst, n)[dst]


def graph_loss(params, x, src, dst, labels, train):
    n = x.shape[0]
    left, right = x @ params["w_src"], x @ params["w_dst"]
    e = jax.nn.leaky_relu(left[src] + right[dst], SLOPE) @ params["att"]
    alpha = _edge_softmax(e, dst, n)
    agg = jax.ops.segment_sum(alpha[:, None] * left[src], dst, n) + params["bias"]
    logp = jax.nn.log_softmax(jnp.tanh(agg) @ params["w_out"], axis=-1)
    picked = jnp.take_along_axis(logp, labels[:, None], axis=1)[:, 0]
    return -jnp.sum(train * picked) / jnp.sum(train)


def graph_grad(params, x, src, dst, labels, train, clip_norm=None):
    n = x.shape[0]
    left, right = x @ params["w_src"], x @ params["w_dst"]
    s = left[src] + right[dst]
    act = jnp.where(s > 0, s, SLOPE * s)
    alpha = _edge_softmax(act @ params["att"], dst, n)
    z = jnp.tanh(jax.ops.segment_sum(alpha[:, None] * left[src], dst, n) + params["bias"])
    probs = jax.nn.softmax(z @ params["w_out"], axis=-1)

    onehot = jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    dlogits = (probs - onehot) * (train / jnp.sum(train))[:, None]
    dagg = (dlogits @ params["w_out"].T) * (1 - z**2)
    dmsg = dagg[dst]
    dalpha = jnp.sum(dmsg * left[src], axis=1)
    centre = jax.ops.segment_sum(alpha * dalpha, dst, n)
    de = alpha * (dalpha - centre[dst])
    ds = de[:, None] * params["att"] * jnp.where(s > 0, 1.0, SLOPE)
    dleft = jax.ops.segment_sum(alpha[:, None] * dmsg + ds, src, n)
    dright = jax.ops.segment_sum(ds, dst, n)
    grads = {
        "w_src": x.T @ dleft,
        "w_dst": x.T @ dright,
        "att": act.T @ de,
        "bias": dagg.sum(axis=0),
        "w_out": z.T @ dlogits,
    }
    if clip_norm is not None:
        total = jnp.sqrt(sum(jnp.sum(g**2) for g in grads.values()))
        grads = {k: g * jnp.minimum(1.0, clip_norm / total) for k, g in grads.items()}
    return grads


def graph_make(dtype):
    rng = np.random.default_rng(109)
    n, d, h, cls = 8, 3, 5, 4
    src = np.concatenate([np.arange(n), rng.integers(0, n, size=15)])
    dst = np.concatenate([np.arange(n), rng.integers(0, n, size=15)])
    params = {
        "w_src": rng.normal(size=(d, h)) * 0.8,
        "w_dst": rng.normal(size=(d, h)) * 0.8,
        "att": rng.normal(size=h),
        "bias": rng.normal(size=h) * 0.2,
        "w_out": rng.normal(size=(h, cls)),
    }
    args = (rng.normal(size=(n, d)), src, dst, rng.integers(0, cls, size=n), np.array([1, 1, 0, 1, 0, 1, 1, 0], float))
    return cast(params, dtype), cast(args, dtype)
