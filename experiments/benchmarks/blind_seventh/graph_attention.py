"""Graph attention; Selective state space with input dependent step; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf


def cast(tree, dtype):
    def one(a):
        a = np.asarray(a)
        if a.dtype == bool:
            return jnp.asarray(a)
        if np.issubdtype(a.dtype, np.integer):
            return jnp.asarray(a, jnp.int32)
        return jnp.asarray(a, dtype)

    return jax.tree_util.tree_map(one, tree)


# graph attention, second version: edge softmax over the incoming edges of each node


def gat_forward(params, x, src, dst):
    n = x.shape[0]
    h = x @ params["w"]
    s = h[src] + h[dst]
    e = jnp.where(s > 0, s, 0.2 * s) @ params["att"]
    top = lax.stop_gradient(jax.ops.segment_max(e, dst, n))
    ex = jnp.exp(e - top[dst])
    alpha = ex / jax.ops.segment_sum(ex, dst, n)[dst]
    m = jax.ops.segment_sum(alpha[:, None] * h[src], dst, n)
    act = jnp.where(m > 0, m, jnp.expm1(m))
    return h, s, alpha, m, act, act @ params["out"]


def gat_loss(params, x, src, dst, label):
    logits = gat_forward(params, x, src, dst)[-1]
    logp = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logp, label[:, None], 1))


def gat_grad(params, x, src, dst, label, group_by_source=False, forget_target_score=False):
    n = x.shape[0]
    h, s, alpha, m, act, logits = gat_forward(params, x, src, dst)
    dlogits = (jax.nn.softmax(logits) - jax.nn.one_hot(label, logits.shape[1], dtype=x.dtype)) / n
    d_out = act.T @ dlogits
    dm = (dlogits @ params["out"].T) * jnp.where(m > 0, 1.0, jnp.exp(m))

    # messages alpha_ij h_j
    dmsg = dm[dst]
    dalpha = jnp.sum(dmsg * h[src], axis=1)
    dh = jnp.zeros_like(h).at[src].add(alpha[:, None] * dmsg)

    # softmax over the edges of a node
    group = src if group_by_source else dst
    inner = jax.ops.segment_sum(alpha * dalpha, group, n)
    de = alpha * (dalpha - inner[group])
    slope = jnp.where(s > 0, 1.0, 0.2)
    datt = (s * slope).T @ de
    ds = de[:, None] * params["att"] * slope
    dh = dh.at[src].add(ds)
    if not forget_target_score:
        dh = dh.at[dst].add(ds)
    return {"w": x.T @ dh, "att": datt, "out": d_out}


def gat_make(dtype):
    r = np.random.default_rng(101)
    n = 7
    src = np.array([1, 2, 3, 0, 4, 5, 6, 2, 0, 1, 3, 5, 6, 4, 2, 0])
    dst = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6, 3])
    params = {"w": r.normal(size=(n - 2, 4)) * 0.8, "att": r.normal(size=4), "out": r.normal(size=(4, 3))}
    args = (r.normal(size=(n, n - 2)), src, dst, r.integers(0, 3, size=n))
    return cast(params, dtype), cast(args, dtype)


# selective state space with input dependent step, B and C


def ssm_forward(params, x):
    pre = x @ params["w_delta"] + params["b_delta"]
    delta = jax.nn.softplus(pre)
    a = -jnp.exp(params["a_log"])
    b_t = x @ params["w_b"]
    c_t = x @ params["w_c"]
    decay = jnp.exp(delta[..., None] * a)
    drive = (delta * x)[..., None] * b_t[:, :, None, :]

    def step(h, inp):
        dec, drv = inp
        h = dec * h + drv
        return h, h

    h0 = jnp.zeros_like(decay[:, 0])
    _, hs = lax.scan(step, h0, (decay.swapaxes(0, 1), drive.swapaxes(0, 1)))
    hs = hs.swapaxes(0, 1)
    y = jnp.einsum("btdn,btn->btd", hs, c_t) + params["d"] * x
    return pre, delta, a, b_t, c_t, decay, hs, y


def ssm_loss(params, x, target):
    return jnp.mean((ssm_forward(params, x)[-1] - target) ** 2)


def ssm_grad(params, x, target, state_after=False, softplus_of_output=False):
    pre, delta, a, b_t, c_t, decay, hs, y = ssm_forward(params, x)
    dy = 2.0 * (y - target) / y.size
    dd = jnp.sum(dy * x, axis=(0, 1))
    dc = jnp.einsum("btd,btdn->btn", dy, hs)
    dh_out = dy[..., None] * c_t[:, :, None, :]

    def step(carry, inp):
        dec, g = inp
        dh = g + carry
        return dh * dec, dh

    _, dh = lax.scan(step, jnp.zeros_like(decay[:, 0]), (decay.swapaxes(0, 1), dh_out.swapaxes(0, 1)), reverse=True)
    dh = dh.swapaxes(0, 1)
    h_prev = hs if state_after else jnp.concatenate([jnp.zeros_like(hs[:, :1]), hs[:, :-1]], axis=1)
    dexpo = dh * h_prev * decay  # by delta * a
    da = jnp.einsum("btdn,btd->dn", dexpo, delta)
    ddelta = jnp.sum(dexpo * a, axis=-1)
    ddelta = ddelta + x * jnp.einsum("btdn,btn->btd", dh, b_t)
    db = jnp.einsum("btdn,btd->btn", dh, delta * x)
    dpre = ddelta * jax.nn.sigmoid(delta if softplus_of_output else pre)
    return {
        "w_delta": jnp.einsum("btd,bte->de", x, dpre),
        "b_delta": dpre.sum((0, 1)),
        "a_log": da * a,
        "w_b": jnp.einsum("btd,btn->dn", x, db),
        "w_c": jnp.einsum("btd,btn->dn", x, dc),
        "d": dd,
    }


def ssm_make(dtype):
    r = np.random.default_rng(102)
    b, t, d, n = 4, 6, 3, 5
    params = {
        "w_delta": r.normal(size=(d, d)) * 0.5,
        "b_delta": r.normal(size=d) * 0.5 - 0.5,
        "a_log": r.normal(size=(d, n)) * 0.5 - 0.4,
        "w_b": r.normal(size=(d, n)),
        "w_c": r.normal(size=(d, n)),
        "d": r.normal(size=d),
    }
    args = (r.normal(size=(b, t, d)), r.normal(size=(b, t, d)))
    return cast(params, dtype), cast(args, dtype)


# mixture of experts, two experts a token, a balance term with stopped load

BALANCE = 0.5


def moe_forward(params, x):
    n, n_exp = x.shape[0], params["gate"].shape[1]
    p = jax.nn.softmax(x @ params["gate"])
    top, idx = lax.top_k(p, 2)
    total = top.sum(1, keepdims=True)
    wt = top / total
    z = jnp.einsum("bd,bkdh->bkh", x, params["w1"][idx])
    a = jax.nn.relu(z) ** 2
    yk = jnp.einsum("bkh,bkho->bko", a, params["w2"][idx])
    out = jnp.einsum("bk,bko->bo", wt, yk)
    load = jnp.zeros(n_exp, x.dtype).at[idx].add(wt) / n
    return p, idx, total, wt, z, a, yk, out, load


def moe_loss(params, x, target):
    p, _, _, _, _, _, _, out, load = moe_forward(params, x)
    balance = p.shape[1] * jnp.sum(lax.stop_gradient(load) * p.mean(0))
    return jnp.mean((out - target) ** 2) + BALANCE * balance


def moe_grad(params, x, target, through_load=False, constant_total=False):
    p, idx, total, wt, z, a, yk, out, load = moe_forward(params, x)
    n, n_exp = p.shape
    dout = 2.0 * (out - target) / out.size
    dwt = jnp.einsum("bo,bko->bk", dout, yk)
    dyk = wt[:, :, None] * dout[:, None, :]

    # experts
    dw2 = jnp.zeros_like(params["w2"]).at[idx].add(jnp.einsum("bkh,bko->bkho", a, dyk))
    da = jnp.einsum("bko,bkho->bkh", dyk, params["w2"][idx])
    dz = da * 2.0 * jax.nn.relu(z)
    dw1 = jnp.zeros_like(params["w1"]).at[idx].add(jnp.einsum("bd,bkh->bkdh", x, dz))

    # router
    if through_load:
        dload = BALANCE * n_exp * p.mean(0)
        dwt = dwt + dload[idx] / n
    dtop = dwt / total if constant_total else (dwt - jnp.sum(dwt * wt, axis=1, keepdims=True)) / total
    dp = jnp.zeros_like(p).at[jnp.arange(n)[:, None], idx].add(dtop)
    dp = dp + BALANCE * n_exp * load / n
    dlogits = p * (dp - jnp.sum(dp * p, axis=1, keepdims=True))
    return {"gate": x.T @ dlogits, "w1": dw1, "w2": dw2}


def moe_make(dtype):
    r = np.random.default_rng(103)
    params = {
        "gate": r.normal(size=(5, 4)) * 0.3,
        "w1": r.normal(size=(4, 5, 6)) * 0.4,
        "w2": r.normal(size=(4, 6, 3)) * 0.15,
    }
    args = (r.normal(size=(8, 5)), r.normal(size=(8, 3)))
    return cast(params, dtype), cast(args, dtype)


# attention with grouped keys and rotary positions


def rotate(x, cos, sin):
    x1, x2 = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)


def rotary_table(length, half, dtype):
    freq = 1.0 / 10.0 ** (jnp.arange(half, dtype=dtype) / half)
    angle = jnp.arange(length, dtype=dtype)[:, None, None] * freq
    return jnp.cos(angle), jnp.sin(angle)


def gqa_forward(params, x):
    t = x.shape[1]
    heads, dim = params["wq"].shape[1:]
    rep = heads // params["wk"].shape[1]
    cos, sin = rotary_table(t, dim // 2, x.dtype)
    q = rotate(jnp.einsum("btd,dhk->bthk", x, params["wq"]), cos, sin)
    k = rotate(jnp.einsum("btd,dgk->btgk", x, params["wk"]), cos, sin)
    v = jnp.einsum("btd,dgk->btgk", x, params["wv"])
    k = jnp.repeat(k, rep, axis=2)
    v = jnp.repeat(v, rep, axis=2)
    scores = jnp.einsum("bthk,bshk->bhts", q, k) / dim**0.5
    causal = jnp.tril(jnp.ones((t, t), bool))
    p = jax.nn.softmax(jnp.where(causal, scores, -1e9))
    o = jnp.einsum("bhts,bshk->bthk", p, v)
    return q, k, v, p, o, jnp.einsum("bthk,hko->bto", o, params["wo"])


def gqa_loss(params, x, target):
    return jnp.mean((gqa_forward(params, x)[-1] - target) ** 2)


def gqa_grad(params, x, target, rotate_same_way=False, groups_last=False):
    q, k, v, p, o, out = gqa_forward(params, x)
    b, t, heads, dim = q.shape
    groups = params["wk"].shape[1]
    rep = heads // groups
    cos, sin = rotary_table(t, dim // 2, x.dtype)

    dout = 2.0 * (out - target) / out.size
    dwo = jnp.einsum("bthk,bto->hko", o, dout)
    do = jnp.einsum("bto,hko->bthk", dout, params["wo"])
    dv = jnp.einsum("bhts,bthk->bshk", p, do)
    dp = jnp.einsum("bthk,bshk->bhts", do, v)
    ds = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True)) / dim**0.5
    dq = jnp.einsum("bhts,bshk->bthk", ds, k)
    dk = jnp.einsum("bhts,bthk->bshk", ds, q)

    def fold(g):
        if groups_last:
            return g.reshape(b, t, rep, groups, dim).sum(2)
        return g.reshape(b, t, groups, rep, dim).sum(3)

    dk, dv = fold(dk), fold(dv)
    back = sin if rotate_same_way else -sin
    dq = rotate(dq, cos, back)
    dk = rotate(dk, cos, back)
    return {
        "wq": jnp.einsum("btd,bthk->dhk", x, dq),
        "wk": jnp.einsum("btd,btgk->dgk", x, dk),
        "wv": jnp.einsum("btd,btgk->dgk", x, dv),
        "wo": dwo,
    }


def gqa_make(dtype):
    r = np.random.default_rng(104)
    params = {
        "wq": r.normal(size=(7, 6, 4)) * 0.5,
        "wk": r.normal(size=(7, 2, 4)) * 0.5,
        "wv": r.normal(size=(7, 2, 4)) * 0.5,
        "wo": r.normal(size=(6, 4, 3)) * 0.5,
    }
    args = (r.normal(size=(8, 5, 7)), r.normal(size=(8, 5, 3)))
    return cast(params, dtype), cast(args, dtype)


# convolution block: depthwise conv, layer norm, pointwise GELU network, layer scale


def depthwise(x, kernel):
    return lax.conv_general_dilated(
        x, kernel[:, None, :], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"), feature_group_count=x.shape[-1]
    )


def cnx_forward(params, x):
    u = x @ params["stem"]
    c = depthwise(u, params["dw"])
    mu = c.mean(-1, keepdims=True)
    rstd = 1.0 / jnp.sqrt(((c - mu) ** 2).mean(-1, keepdims=True) + 1e-5)
    hat = (c - mu) * rstd
    n = hat * params["ln_g"] + params["ln_b"]
    z = n @ params["w1"]
    cdf = 0.5 * (1.0 + erf(z / 2.0**0.5))
    a = z * cdf
    f = a @ params["w2"]
    return u, rstd, hat, n, z, cdf, a, f, u + params["scale"] * f


def cnx_loss(params, x, target):
    return jnp.mean((cnx_forward(params, x)[-1] - target) ** 2)


def cnx_grad(params, x, target, keep_kernel=False, constant_variance=False):
    u, rstd, hat, n, z, cdf, a, f, y = cnx_forward(params, x)
    width = params["dw"].shape[0]
    t = x.shape[1]
    dy = 2.0 * (y - target) / y.size
    dscale = jnp.sum(dy * f, axis=(0, 1))
    df = dy * params["scale"]
    dw2 = jnp.einsum("bth,btc->hc", a, df)
    da = df @ params["w2"].T
    dz = da * (cdf + z * jnp.exp(-0.5 * z * z) / (2.0 * np.pi) ** 0.5)
    dw1 = jnp.einsum("btc,bth->ch", n, dz)
    dn = dz @ params["w1"].T

    # layer norm over the channels
    dln_g = jnp.sum(dn * hat, axis=(0, 1))
    dln_b = jnp.sum(dn, axis=(0, 1))
    dhat = dn * params["ln_g"]
    dc = dhat - dhat.mean(-1, keepdims=True)
    if not constant_variance:
        dc = dc - hat * (dhat * hat).mean(-1, keepdims=True)
    dc = dc * rstd

    # depthwise convolution
    pad = jnp.pad(u, ((0, 0), (width // 2, width // 2), (0, 0)))
    ddw = jnp.stack([jnp.sum(pad[:, i : i + t] * dc, axis=(0, 1)) for i in range(width)])
    kernel = params["dw"] if keep_kernel else params["dw"][::-1]
    du = dy + depthwise(dc, kernel)
    return {
        "stem": jnp.einsum("btd,btc->dc", x, du),
        "dw": ddw,
        "ln_g": dln_g,
        "ln_b": dln_b,
        "w1": dw1,
        "w2": dw2,
        "scale": dscale,
    }


def cnx_make(dtype):
    r = np.random.default_rng(105)
    params = {
        "stem": r.normal(size=(2, 4)),
        "dw": r.normal(size=(5, 4)),
        "ln_g": 1 + 0.4 * r.normal(size=4),
        "ln_b": r.normal(size=4) * 0.3,
        "w1": r.normal(size=(4, 6)) * 0.6,
        "w2": r.normal(size=(6, 4)) * 0.6,
        "scale": r.normal(size=4),
    }
    args = (r.normal(size=(5, 7, 2)), r.normal(size=(5, 7, 4)))
    return cast(params, dtype), cast(args, dtype)
