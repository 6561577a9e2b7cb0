"""Convolutions, linear attention, gated blocks and a dense block in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_fifth.attention_and_recurrence import cast, normals

# Dilated causal convolutions

CONV_LAYOUT = ("NWC", "WIO", "NWC")


def causal_conv(x, kernel, dilation):
    reach = (kernel.shape[0] - 1) * dilation
    return lax.conv_general_dilated(
        x, kernel, (1,), [(reach, 0)], rhs_dilation=(dilation,), dimension_numbers=CONV_LAYOUT
    )


def causal_conv_loss(params, x, target):
    h = jax.nn.relu(causal_conv(x, params["k1"], 1) + params["b1"])
    out = causal_conv(h, params["k2"], 2) + params["b2"]
    return jnp.mean((out - target) ** 2)


def causal_kernel_grad(x, dout, taps, dilation):
    length = x.shape[1]
    reach = (taps - 1) * dilation
    padded = jnp.pad(x, ((0, 0), (reach, 0), (0, 0)))
    rows = []
    for tap in range(taps):
        window = padded[:, tap * dilation : tap * dilation + length]
        rows.append(jnp.einsum("bti,bto->io", window, dout))
    return jnp.stack(rows)


def causal_conv_grad(params, x, target, kernel_as_in_forward=False):
    k1, k2 = params["k1"], params["k2"]
    pre = causal_conv(x, k1, 1) + params["b1"]
    h = jnp.maximum(pre, 0.0)
    out = causal_conv(h, k2, 2) + params["b2"]

    dout = 2.0 * (out - target) / target.size
    dk2 = causal_kernel_grad(h, dout, k2.shape[0], 2)
    db2 = dout.sum(axis=(0, 1))
    # the gradient by the input is an anticausal convolution with the kernel turned round
    back = k2.transpose(0, 2, 1)
    if not kernel_as_in_forward:
        back = back[::-1]
    reach = 2 * (k2.shape[0] - 1)
    dh = lax.conv_general_dilated(dout, back, (1,), [(0, reach)], rhs_dilation=(2,), dimension_numbers=CONV_LAYOUT)
    dpre = jnp.where(pre > 0, dh, 0.0)
    dk1 = causal_kernel_grad(x, dpre, k1.shape[0], 1)
    return {"k1": dk1, "b1": dpre.sum(axis=(0, 1)), "k2": dk2, "b2": db2}


def causal_conv_make(dtype):
    _, n = normals(105)
    b, t, ci, ch, co = 4, 8, 3, 5, 2
    params = {
        "k1": n(4, ci, ch, scale=0.5),
        "b1": n(ch, scale=0.3),
        "k2": n(3, ch, co, scale=0.5),
        "b2": n(co, scale=0.3),
    }
    return cast((params, (n(b, t, ci), n(b, t, co))), dtype)


# Squeeze and excitation


def squeeze_excite_loss(params, image, target):
    feat = jax.nn.relu(image @ params["conv"] + params["bias"])
    squeezed = feat.mean(axis=(1, 2))
    hidden = jax.nn.relu(squeezed @ params["down"] + params["bdown"])
    gate = jax.nn.sigmoid(hidden @ params["up"] + params["bup"])
    return jnp.mean(jnp.sum((feat * gate[:, None, None, :] - target) ** 2, axis=(1, 2, 3)))


def squeeze_excite_grad(params, image, target, pool_not_divided=False):
    n, height, width, _ = image.shape
    pre = image @ params["conv"] + params["bias"]
    feat = jnp.maximum(pre, 0.0)
    squeezed = feat.mean(axis=(1, 2))
    hidden_pre = squeezed @ params["down"] + params["bdown"]
    hidden = jnp.maximum(hidden_pre, 0.0)
    gate = jax.nn.sigmoid(hidden @ params["up"] + params["bup"])
    scaled = feat * gate[:, None, None, :]

    dscaled = 2.0 * (scaled - target) / n
    dgate = jnp.sum(dscaled * feat, axis=(1, 2))
    dgate_pre = dgate * gate * (1.0 - gate)
    dhidden = (dgate_pre @ params["up"].T) * (hidden_pre > 0)
    dsqueezed = dhidden @ params["down"].T
    spread = dsqueezed[:, None, None, :]
    if not pool_not_divided:
        spread = spread / (height * width)
    dfeat = dscaled * gate[:, None, None, :] + spread
    dpre = dfeat * (pre > 0)
    return {
        "conv": jnp.einsum("nhwi,nhwo->io", image, dpre),
        "bias": dpre.sum(axis=(0, 1, 2)),
        "down": squeezed.T @ dhidden,
        "bdown": dhidden.sum(axis=0),
        "up": hidden.T @ dgate_pre,
        "bup": dgate_pre.sum(axis=0),
    }


def squeeze_excite_make(dtype):
    _, n = normals(106)
    b, h, w, ci, c, r = 6, 3, 4, 2, 5, 7
    params = {
        "conv": n(ci, c),
        "bias": n(c, scale=0.3),
        "down": n(c, r, scale=0.8),
        "bdown": n(r, scale=0.3),
        "up": n(r, c, scale=0.8),
        "bup": n(c, scale=0.3),
    }
    return cast((params, (n(b, h, w, ci), n(b, h, w, c))), dtype)


# Causal linear attention


def positive(a):
    return jnp.where(a > 0, a + 1.0, jnp.exp(jnp.minimum(a, 0.0)))


def linear_attention_loss(params, x, target):
    q, k, v = positive(x @ params["wq"]), positive(x @ params["wk"]), x @ params["wv"]

    def body(carry, qkv):
        state, norm = carry
        qt, kt, vt = qkv
        state = state + kt[:, :, None] * vt[:, None, :]
        norm = norm + kt
        num = jnp.einsum("bk,bkv->bv", qt, state)
        return (state, norm), num / jnp.sum(qt * norm, axis=-1, keepdims=True)

    start = (jnp.zeros((x.shape[0], k.shape[-1], v.shape[-1]), x.dtype), jnp.zeros_like(k[:, 0]))
    _, heads = lax.scan(body, start, tuple(a.swapaxes(0, 1) for a in (q, k, v)))
    out = heads.swapaxes(0, 1) @ params["wo"]
    return jnp.mean((out - target) ** 2)


def linear_attention_grad(params, x, target, sums_run_forward=False):
    aq, ak, v = x @ params["wq"], x @ params["wk"], x @ params["wv"]
    q, k = positive(aq), positive(ak)
    state = jnp.cumsum(k[..., :, None] * v[..., None, :], axis=1)
    norm = jnp.cumsum(k, axis=1)
    num = jnp.einsum("btk,btkv->btv", q, state)
    den = jnp.sum(q * norm, axis=-1, keepdims=True)
    heads = num / den
    out = heads @ params["wo"]

    def from_the_end(a):
        if sums_run_forward:
            return jnp.cumsum(a, axis=1)
        return jnp.flip(jnp.cumsum(jnp.flip(a, axis=1), axis=1), axis=1)

    dout = 2.0 * (out - target) / out.size
    dwo = jnp.einsum("btv,bto->vo", heads, dout)
    dheads = dout @ params["wo"].T
    dnum = dheads / den
    dden = -jnp.sum(dheads * heads, axis=-1, keepdims=True) / den
    dq = jnp.einsum("btv,btkv->btk", dnum, state) + dden * norm
    dstate = from_the_end(q[..., :, None] * dnum[..., None, :])
    dnorm = from_the_end(dden * q)
    dk = jnp.einsum("btkv,btv->btk", dstate, v) + dnorm
    dv = jnp.einsum("btkv,btk->btv", dstate, k)

    def slope(a):
        return jnp.where(a > 0, 1.0, jnp.exp(jnp.minimum(a, 0.0))).astype(a.dtype)

    return {
        "wq": jnp.einsum("btd,btk->dk", x, dq * slope(aq)),
        "wk": jnp.einsum("btd,btk->dk", x, dk * slope(ak)),
        "wv": jnp.einsum("btd,btv->dv", x, dv),
        "wo": dwo,
    }


def linear_attention_make(dtype):
    _, n = normals(107)
    b, t, d, k, v, o = 4, 6, 5, 3, 7, 2
    params = {"wq": n(d, k, scale=0.6), "wk": n(d, k, scale=0.6), "wv": n(d, v, scale=0.6), "wo": n(v, o, scale=0.6)}
    return cast((params, (n(b, t, d), n(b, t, o))), dtype)


# Pre-norm block with RMS norm and a tied embedding

EPS = 1e-5
GELU_C = (2.0 / 3.141592653589793) ** 0.5


def rms_norm(x, gain):
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + EPS) * gain


def gelu(a):
    return 0.5 * a * (1.0 + jnp.tanh(GELU_C * (a + 0.044715 * a**3)))


def gelu_slope(a):
    th = jnp.tanh(GELU_C * (a + 0.044715 * a**3))
    return 0.5 * (1.0 + th) + 0.5 * a * (1.0 - th**2) * GELU_C * (1.0 + 3 * 0.044715 * a**2)


def tied_block_loss(params, tokens, targets):
    x = params["emb"][tokens]
    hidden = gelu(rms_norm(x, params["gain_in"]) @ params["w1"] + params["b1"])
    x = x + hidden @ params["w2"]
    logits = rms_norm(x, params["gain_out"]) @ params["emb"].T
    logp = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(jnp.take_along_axis(logp, targets[..., None], axis=-1))


def rms_norm_backward(dy, x, gain, without_mean_term):
    inv = 1.0 / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + EPS)
    unit = x * inv
    dgain = jnp.sum(dy * unit, axis=(0, 1))
    dunit = dy * gain
    if without_mean_term:
        return dunit * inv, dgain
    return inv * (dunit - unit * jnp.mean(dunit * unit, axis=-1, keepdims=True)), dgain


def tied_block_grad(params, tokens, targets, without_mean_term=False, rows_overwritten=False):
    emb = params["emb"]
    x0 = emb[tokens]
    n0 = rms_norm(x0, params["gain_in"])
    a = n0 @ params["w1"] + params["b1"]
    hidden = gelu(a)
    x1 = x0 + hidden @ params["w2"]
    n1 = rms_norm(x1, params["gain_out"])
    probs = jax.nn.softmax(n1 @ emb.T, axis=-1)

    dlogits = (probs - jax.nn.one_hot(targets, emb.shape[0], dtype=probs.dtype)) / targets.size
    demb_out = jnp.einsum("btv,btd->vd", dlogits, n1)
    dx1, dgain_out = rms_norm_backward(dlogits @ emb, x1, params["gain_out"], without_mean_term)
    dw2 = jnp.einsum("bth,btd->hd", hidden, dx1)
    da = (dx1 @ params["w2"].T) * gelu_slope(a)
    dw1 = jnp.einsum("btd,bth->dh", n0, da)
    dnorm, dgain_in = rms_norm_backward(da @ params["w1"].T, x0, params["gain_in"], without_mean_term)
    dx0 = dx1 + dnorm
    rows = tokens.reshape(-1)
    flat = dx0.reshape(rows.shape[0], -1)
    demb_in = jnp.zeros_like(emb).at[rows].set(flat) if rows_overwritten else jnp.zeros_like(emb).at[rows].add(flat)
    return {
        "emb": demb_out + demb_in,
        "gain_in": dgain_in,
        "w1": dw1,
        "b1": da.sum(axis=(0, 1)),
        "w2": dw2,
        "gain_out": dgain_out,
    }


def tied_block_make(dtype):
    _, n = normals(108)
    v, d, h = 8, 5, 7
    params = {
        "emb": n(v, d),
        "gain_in": 1 + n(d, scale=0.3),
        "w1": n(d, h, scale=0.6),
        "b1": n(h, scale=0.3),
        "w2": n(h, d, scale=0.6),
        "gain_out": 1 + n(d, scale=0.3),
    }
    tokens = np.array([[0, 3, 5], [3, 1, 6], [5, 3, 3], [2, 5, 7]])
    targets = np.array([[3, 5, 4], [1, 6, 0], [3, 3, 2], [5, 7, 1]])
    return cast((params, (tokens, targets)), dtype)


# Two gated MLP blocks, gradients by micro-batches


def gated_block(x, wg, wu, wd):
    return x + (jax.nn.silu(x @ wg) * (x @ wu)) @ wd


def gated_mlp_loss(params, x, target):
    for i in ("1", "2"):
        x = gated_block(x, params["wg" + i], params["wu" + i], params["wd" + i])
    return 0.5 * jnp.mean(jnp.sum((x - target) ** 2, axis=-1))


def gated_mlp_grad(params, x, target, last_piece_dropped=False, up_not_cleared=False):
    total, size = x.shape[0], 4
    grads = {name: jnp.zeros_like(p) for name, p in params.items()}
    stop = total - size + 1 if last_piece_dropped else total
    for start in range(0, stop, size):
        h = x[start : start + size]
        kept = []
        for i in ("1", "2"):
            kept.append(h)
            h = gated_block(h, params["wg" + i], params["wu" + i], params["wd" + i])
        dh = (h - target[start : start + size]) / total
        dwu = 0.0
        for i in ("2", "1"):
            wg, wu, wd = params["wg" + i], params["wu" + i], params["wd" + i]
            h_in = kept.pop()
            a, up = h_in @ wg, h_in @ wu
            sig = jax.nn.sigmoid(a)
            act = a * sig
            dprod = dh @ wd.T
            dact, dup = dprod * up, dprod * act
            da = dact * (sig + act * (1.0 - sig))
            if not up_not_cleared:
                dwu = 0.0
            dwu = dwu + h_in.T @ dup
            grads["wd" + i] += (act * up).T @ dh
            grads["wu" + i] += dwu
            grads["wg" + i] += h_in.T @ da
            dh = dh + da @ wg.T + dup @ wu.T
    return grads


def gated_mlp_make(dtype):
    _, n = normals(109)
    b, d, h = 10, 5, 7
    params = {}
    for i in ("1", "2"):
        params["wg" + i] = n(d, h, scale=0.6)
        params["wu" + i] = n(d, h, scale=0.5)
        params["wd" + i] = n(h, d, scale=0.4)
    return cast((params, (n(b, d), n(b, d))), dtype)


# Dense block that multiplies in bfloat16

# Under jax.jit, XLA may leave out roundings to bfloat16, and not the same ones in the loss's gradient and in this one:
# they agree exactly as they stand, and to 2e-3 when each is compiled as a whole.
HALF = jnp.bfloat16


def half_dense_loss(params, x, y):
    w1, w2 = params["w1"].astype(HALF), params["w2"].astype(HALF)
    h = jnp.tanh((x.astype(HALF) @ w1).astype(x.dtype) + params["b1"])
    level = lax.stop_gradient(jnp.mean(jnp.abs(h), axis=-1, keepdims=True))
    out = ((h / level).astype(HALF) @ w2).astype(x.dtype) + params["b2"]
    return jnp.mean(jnp.sum((out - y) ** 2, axis=-1))


def half_dense_grad(params, x, y, through_level=False, limited=False):
    full = x.dtype
    x16, w1, w2 = x.astype(HALF), params["w1"].astype(HALF), params["w2"].astype(HALF)
    h = jnp.tanh((x16 @ w1).astype(full) + params["b1"])
    level = jnp.mean(jnp.abs(h), axis=-1, keepdims=True)
    even = h / level
    even16 = even.astype(HALF)
    out = (even16 @ w2).astype(full) + params["b2"]

    dout = 2.0 * (out - y) / x.shape[0]
    dout16 = dout.astype(HALF)
    dw2 = (even16.T @ dout16).astype(full)
    deven = (dout16 @ w2.T).astype(full)
    dh = deven / level
    if through_level:
        dlevel = -jnp.sum(deven * even, axis=-1, keepdims=True) / level
        dh = dh + dlevel * jnp.sign(h) / h.shape[-1]
    da = dh * (1.0 - h**2)
    dw1 = (x16.T @ da.astype(HALF)).astype(full)
    if limited:
        dw2 = jnp.clip(dw2, -2.0, 2.0)  # keep the half precision part from overflowing
    return {"w1": dw1, "b1": da.sum(axis=0), "w2": dw2, "b2": dout.sum(axis=0)}


def half_dense_make(dtype):
    _, n = normals(110)
    b, d, h, o = 8, 3, 5, 4
    params = {"w1": n(d, h, scale=0.8), "b1": n(h, scale=0.3), "w2": n(h, o, scale=0.8), "b2": n(o, scale=0.3)}
    return cast((params, (n(b, d), n(b, o))), dtype)
