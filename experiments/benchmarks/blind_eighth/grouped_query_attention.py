"""Grouped-query attention; RMSNorm; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def _cast(value, dtype):
    value = np.asarray(value)
    if value.dtype.kind == "f":
        return jnp.asarray(value.astype(dtype))
    if value.dtype.kind in "iu":
        return jnp.asarray(value.astype(np.int32))
    return jnp.asarray(value)


def make(build, seed, dtype):
    params, args = build(np.random.default_rng(seed))
    return {k: _cast(v, dtype) for k, v in params.items()}, tuple(_cast(a, dtype) for a in args)


# Grouped-query attention, as in the kernels: probabilities kept, causal mask


def build_gqa(rng):
    dim, kv, group, head = 7, 2, 3, 4
    params = {
        "wq": rng.normal(size=(dim, kv, group, head)) * 0.6,
        "wk": rng.normal(size=(dim, kv, head)) * 0.6,
        "wv": rng.normal(size=(dim, kv, head)) * 0.6,
        "wo": rng.normal(size=(kv, group, head, dim)) * 0.4,
    }
    return params, (rng.normal(size=(5, 6, dim)), rng.normal(size=(5, 6, dim)))


def gqa_forward(params, x):
    q = jnp.einsum("btd,dkge->bkgte", x, params["wq"])
    k = jnp.einsum("bsd,dke->bkse", x, params["wk"])
    v = jnp.einsum("bsd,dke->bkse", x, params["wv"])
    steps = x.shape[1]
    causal = jnp.tril(jnp.ones((steps, steps), bool))
    scale = q.shape[-1] ** -0.5
    scores = jnp.einsum("bkgte,bkse->bkgts", q, k) * scale
    scores = jnp.where(causal, scores, -1e9)
    probs = jax.nn.softmax(scores, axis=-1)
    heads = jnp.einsum("bkgts,bkse->bkgte", probs, v)
    out = jnp.einsum("bkgte,kged->btd", heads, params["wo"])
    return q, k, v, probs, heads, out


def gqa_loss(params, x, target):
    out = gqa_forward(params, x)[-1]
    return jnp.mean((out - target) ** 2)


def gqa_grad(params, x, target, without_delta=False, first_of_group=False):
    q, k, v, probs, heads, out = gqa_forward(params, x)
    scale = q.shape[-1] ** -0.5
    dout = 2.0 * (out - target) / out.size
    dwo = jnp.einsum("bkgte,btd->kged", heads, dout)
    dheads = jnp.einsum("btd,kged->bkgte", dout, params["wo"])
    # values and probabilities
    dv_per_head = jnp.einsum("bkgts,bkgte->bkgse", probs, dheads)
    dprobs = jnp.einsum("bkgte,bkse->bkgts", dheads, v)
    if without_delta:
        dscores = probs * dprobs
    else:
        delta = jnp.sum(dheads * heads, axis=-1, keepdims=True)
        dscores = probs * (dprobs - delta)
    dscores = dscores * scale
    dq = jnp.einsum("bkgts,bkse->bkgte", dscores, k)
    dk_per_head = jnp.einsum("bkgts,bkgte->bkgse", dscores, q)
    # the key and value heads are shared by the query heads of a group
    if first_of_group:
        dk, dv = dk_per_head[:, :, 0], dv_per_head[:, :, 0]
    else:
        dk, dv = dk_per_head.sum(axis=2), dv_per_head.sum(axis=2)
    return {
        "wq": jnp.einsum("btd,bkgte->dkge", x, dq),
        "wk": jnp.einsum("bsd,bkse->dke", x, dk),
        "wv": jnp.einsum("bsd,bkse->dke", x, dv),
        "wo": dwo,
    }


# RMSNorm, SwiGLU, residual, classifier


def build_swiglu(rng):
    params = {
        "gain": 1.0 + 0.3 * rng.normal(size=5),
        "w_embed": rng.normal(size=(4, 5)) * 0.7,
        "w_gate": rng.normal(size=(5, 7)) * 0.6,
        "w_up": rng.normal(size=(5, 7)) * 0.6,
        "w_down": rng.normal(size=(7, 5)) * 0.6,
        "w_head": rng.normal(size=(5, 3)) * 0.6,
    }
    return params, (rng.normal(size=(8, 4)), rng.integers(0, 3, size=8))


def swiglu_forward(params, features):
    x = features @ params["w_embed"]
    inv_rms = 1.0 / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-5)
    xhat = x * inv_rms
    normed = xhat * params["gain"]
    gate = normed @ params["w_gate"]
    up = normed @ params["w_up"]
    sig = jax.nn.sigmoid(gate)
    act = gate * sig
    hidden = act * up
    stream = x + hidden @ params["w_down"]
    logits = stream @ params["w_head"]
    return x, inv_rms, xhat, normed, gate, up, sig, act, hidden, stream, logits


def swiglu_loss(params, features, labels):
    logits = swiglu_forward(params, features)[-1]
    logp = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(logp[jnp.arange(labels.shape[0]), labels])


def swiglu_grad(params, features, labels, rms_constant=False):
    _x, inv_rms, xhat, normed, gate, up, sig, act, hidden, stream, logits = swiglu_forward(params, features)
    n = labels.shape[0]
    dlogits = (jax.nn.softmax(logits, axis=-1) - jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)) / n
    dw_head = stream.T @ dlogits
    dstream = dlogits @ params["w_head"].T
    dw_down = hidden.T @ dstream
    dhidden = dstream @ params["w_down"].T
    dup = dhidden * act
    dgate = dhidden * up * (sig * (1.0 + gate * (1.0 - sig)))
    dw_gate = normed.T @ dgate
    dw_up = normed.T @ dup
    dnormed = dgate @ params["w_gate"].T + dup @ params["w_up"].T
    dgain = jnp.sum(dnormed * xhat, axis=0)
    dxhat = dnormed * params["gain"]
    if rms_constant:
        dx_norm = dxhat * inv_rms
    else:
        dx_norm = inv_rms * (dxhat - xhat * jnp.mean(dxhat * xhat, axis=-1, keepdims=True))
    dx = dstream + dx_norm
    return {
        "gain": dgain,
        "w_embed": features.T @ dx,
        "w_gate": dw_gate,
        "w_up": dw_up,
        "w_down": dw_down,
        "w_head": dw_head,
    }


# Two layers with products in bfloat16, master weights in float32, and a loss scale


def build_amp(rng):
    params = {
        "w1": rng.normal(size=(5, 7)) * 0.5,
        "b1": rng.normal(size=7) * 0.3,
        "w2": rng.normal(size=(7, 3)) * 0.5,
        "b2": rng.normal(size=3) * 0.3,
    }
    return params, (rng.normal(size=(6, 5)), rng.normal(size=(6, 3)))


def amp_linear(x, w):
    return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)


def amp_loss(params, x, y):
    hidden = jnp.tanh(amp_linear(x, params["w1"]) + params["b1"])
    out = amp_linear(hidden, params["w2"]) + params["b2"]
    return jnp.mean((out - y) ** 2)


def amp_grad(params, x, y, bias_left_scaled=False):
    loss_scale = 128.0
    hidden = jnp.tanh(amp_linear(x, params["w1"]) + params["b1"])
    out = amp_linear(hidden, params["w2"]) + params["b2"]
    dout = loss_scale * 2.0 * (out - y) / out.size
    half = dout.astype(jnp.bfloat16)
    dw2 = hidden.astype(jnp.bfloat16).T @ half
    db2 = dout.sum(axis=0)
    dhidden = (half @ params["w2"].astype(jnp.bfloat16).T).astype(jnp.float32)
    dpre = dhidden * (1.0 - hidden**2)
    dw1 = x.astype(jnp.bfloat16).T @ dpre.astype(jnp.bfloat16)
    db1 = dpre.sum(axis=0)
    grads = {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2}
    grads = {name: g.astype(jnp.float32) for name, g in grads.items()}
    for name in grads:
        if bias_left_scaled and name == "b1":
            continue
        grads[name] = grads[name] / loss_scale
    return grads


# GRU that forecasts a series


def build_gru(rng):
    inp, hid = 3, 5
    params = {
        "w_z": rng.normal(size=(inp + hid, hid)) * 0.6,
        "w_r": rng.normal(size=(inp + hid, hid)) * 0.6,
        "w_n": rng.normal(size=(inp, hid)) * 0.8,
        "u_n": rng.normal(size=(hid, hid)) * 0.8,
        "w_out": rng.normal(size=(hid, 2)) * 0.8,
    }
    return params, (rng.normal(size=(6, 4, inp)), rng.normal(size=(4, 2)))


def gru_cell(params, h, x):
    both = jnp.concatenate([x, h], axis=1)
    z = jax.nn.sigmoid(both @ params["w_z"])
    r = jax.nn.sigmoid(both @ params["w_r"])
    n = jnp.tanh(x @ params["w_n"] + (r * h) @ params["u_n"])
    return z * h + (1.0 - z) * n, (both, z, r, n)


def gru_loss(params, series, target):
    h0 = jnp.zeros((series.shape[1], params["u_n"].shape[0]), series.dtype)
    h, _ = lax.scan(lambda h, x: (gru_cell(params, h, x)[0], None), h0, series)
    return 0.5 * jnp.mean(jnp.sum((h @ params["w_out"] - target) ** 2, axis=1))


def gru_grad(params, series, target, reset_has_no_state=False, update_turned=False):
    steps, batch, inp = series.shape
    h = jnp.zeros((batch, params["u_n"].shape[0]), series.dtype)
    tape = []
    for t in range(steps):
        h_next, kept = gru_cell(params, h, series[t])
        tape.append((h, *kept))
        h = h_next
    grads = {name: jnp.zeros_like(p) for name, p in params.items()}
    dout = (h @ params["w_out"] - target) / batch
    grads["w_out"] = h.T @ dout
    dh = dout @ params["w_out"].T
    for t in reversed(range(steps)):
        h_prev, both, z, r, n = tape[t]
        dz = dh * (n - h_prev) if update_turned else dh * (h_prev - n)
        dn_pre = dh * (1.0 - z) * (1.0 - n * n)
        grads["w_n"] += series[t].T @ dn_pre
        grads["u_n"] += (r * h_prev).T @ dn_pre
        drh = dn_pre @ params["u_n"].T
        dz_pre = dz * z * (1.0 - z)
        dr_pre = drh * h_prev * r * (1.0 - r)
        grads["w_z"] += both.T @ dz_pre
        grads["w_r"] += both.T @ dr_pre
        dboth = dz_pre @ params["w_z"].T + dr_pre @ params["w_r"].T
        dh_prev = dh * z + dboth[:, inp:]
        if not reset_has_no_state:
            dh_prev = dh_prev + drh * r
        dh = dh_prev
    return grads


# Segmentation: convolution, group normalization, ReLU, convolution

GROUPS = 2


def build_seg(rng):
    params = {
        "k1": rng.normal(size=(3, 3, 3, 4)) * 0.4,
        "gamma": 1.0 + 0.3 * rng.normal(size=4),
        "beta": 0.3 * rng.normal(size=4),
        "k2": rng.normal(size=(3, 3, 4, 2)) * 0.4,
    }
    return params, (rng.normal(size=(4, 6, 5, 3)), rng.normal(size=(4, 6, 5, 2)))


def conv_same(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def seg_forward(params, image):
    c = conv_same(image, params["k1"])
    b, hgt, wid, ch = c.shape
    grouped = c.reshape(b, hgt, wid, GROUPS, ch // GROUPS)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    var = ((grouped - mean) ** 2).mean(axis=(1, 2, 4), keepdims=True)
    inv = 1.0 / jnp.sqrt(var + 1e-5)
    chat = (grouped - mean) * inv
    a = chat.reshape(c.shape) * params["gamma"] + params["beta"]
    relu = jnp.maximum(a, 0.0)
    out = conv_same(relu, params["k2"])
    return inv, chat, a, relu, out


def seg_loss(params, image, target):
    return jnp.mean((seg_forward(params, image)[-1] - target) ** 2)


def conv_kernel_grad(x, dout):
    hgt, wid = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = []
    for i in range(3):
        rows.append(
            jnp.stack([jnp.einsum("bhwi,bhwo->io", padded[:, i : i + hgt, j : j + wid], dout) for j in range(3)])
        )
    return jnp.stack(rows)


def seg_grad(params, image, target, kernel_as_is=False, stats_per_channel=False):
    inv, chat, a, relu, out = seg_forward(params, image)
    dout = 2.0 * (out - target) / out.size
    dk2 = conv_kernel_grad(relu, dout)
    back = params["k2"].transpose(0, 1, 3, 2)
    if not kernel_as_is:
        back = back[::-1, ::-1]
    drelu = conv_same(dout, back)
    da = drelu * (a > 0)
    dgamma = jnp.sum(da * chat.reshape(a.shape), axis=(0, 1, 2))
    dbeta = jnp.sum(da, axis=(0, 1, 2))
    dchat = (da * params["gamma"]).reshape(chat.shape)
    axes = (1, 2) if stats_per_channel else (1, 2, 4)
    dmean = dchat.mean(axis=axes, keepdims=True)
    dproj = (dchat * chat).mean(axis=axes, keepdims=True)
    dc = inv * (dchat - dmean - chat * dproj)
    return {"k1": conv_kernel_grad(image, dc.reshape(a.shape)), "gamma": dgamma, "beta": dbeta, "k2": dk2}
