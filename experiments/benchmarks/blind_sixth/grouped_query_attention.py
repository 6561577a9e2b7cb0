"""Grouped-query attention with rotary positions; and more."""

import jax
import jax.numpy as jnp
import numpy as np


def cast(tree, dtype):
    """The same numbers in another precision; integers stay int32."""
    cdtype = {"float64": "complex128", "float32": "complex64"}[dtype]

    def one(a):
        a = np.asarray(a)
        if a.dtype.kind == "c":
            return jnp.asarray(a, cdtype)
        if a.dtype.kind == "f":
            return jnp.asarray(a, dtype)
        if a.dtype.kind == "b":
            return jnp.asarray(a)
        return jnp.asarray(a, jnp.int32)

    return jax.tree_util.tree_map(one, tree)


# Grouped-query attention with rotary positions, causal


def _rope_tables(length, dim, dtype):
    inv_freq = 1.0 / (10.0 ** (jnp.arange(dim // 2, dtype=dtype) * 2 / dim))
    angle = jnp.arange(length, dtype=dtype)[:, None] * inv_freq[None, :]
    return jnp.cos(angle), jnp.sin(angle)


def _rotate(x, cos, sin):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


def gqa_loss(params, x, y):
    length, dim = x.shape[1], params["wq"].shape[-1]
    cos, sin = _rope_tables(length, dim, x.dtype)
    q = _rotate(jnp.einsum("btd,dhge->bhgte", x, params["wq"]), cos, sin)
    k = _rotate(jnp.einsum("btd,dhe->bhte", x, params["wk"]), cos, sin)
    v = jnp.einsum("btd,dhe->bhte", x, params["wv"])
    scores = jnp.einsum("bhgte,bhse->bhgts", q, k) / float(np.sqrt(dim))
    causal = jnp.tril(jnp.ones((length, length), bool))
    probs = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
    heads = jnp.einsum("bhgts,bhse->bhgte", probs, v)
    out = jnp.einsum("bhgte,hged->btd", heads, params["wo"])
    return jnp.mean((out - y) ** 2)


def gqa_grad(params, x, y, rotate_forward=False, one_head_per_group=False):
    wq, wk, wv, wo = params["wq"], params["wk"], params["wv"], params["wo"]
    length, dim = x.shape[1], wq.shape[-1]
    scale = 1.0 / float(np.sqrt(dim))
    cos, sin = _rope_tables(length, dim, x.dtype)
    q = _rotate(jnp.einsum("btd,dhge->bhgte", x, wq), cos, sin)
    k = _rotate(jnp.einsum("btd,dhe->bhte", x, wk), cos, sin)
    v = jnp.einsum("btd,dhe->bhte", x, wv)
    # repeat keys and values for each query head of the group
    groups = wq.shape[2]
    k_rep = jnp.repeat(k[:, :, None], groups, axis=2)
    v_rep = jnp.repeat(v[:, :, None], groups, axis=2)
    scores = jnp.einsum("bhgte,bhgse->bhgts", q, k_rep) * scale
    causal = jnp.tril(jnp.ones((length, length), bool))
    probs = jax.nn.softmax(jnp.where(causal, scores, -1e30), axis=-1)
    heads = jnp.einsum("bhgts,bhgse->bhgte", probs, v_rep)
    out = jnp.einsum("bhgte,hged->btd", heads, wo)

    dout = 2.0 * (out - y) / out.size
    dwo = jnp.einsum("bhgte,btd->hged", heads, dout)
    dheads = jnp.einsum("btd,hged->bhgte", dout, wo)
    dprobs = jnp.einsum("bhgte,bhgse->bhgts", dheads, v_rep)
    dv_rep = jnp.einsum("bhgts,bhgte->bhgse", probs, dheads)
    dscores = probs * (dprobs - jnp.sum(dprobs * probs, axis=-1, keepdims=True))
    dq = jnp.einsum("bhgts,bhgse->bhgte", dscores, k_rep) * scale
    dk_rep = jnp.einsum("bhgts,bhgte->bhgse", dscores, q) * scale
    if one_head_per_group:
        dk, dv = dk_rep[:, :, 0], dv_rep[:, :, 0]
    else:
        dk, dv = dk_rep.sum(axis=2), dv_rep.sum(axis=2)
    back = sin if rotate_forward else -sin
    dq = _rotate(dq, cos, back)
    dk = _rotate(dk, cos, back)
    return {
        "wq": jnp.einsum("btd,bhgte->dhge", x, dq),
        "wk": jnp.einsum("btd,bhte->dhe", x, dk),
        "wv": jnp.einsum("btd,bhte->dhe", x, dv),
        "wo": dwo,
    }


def gqa_make(dtype):
    rng = np.random.default_rng(101)
    b, t, d, h, g, e = 5, 6, 8, 2, 3, 4
    params = {
        "wq": rng.normal(size=(d, h, g, e)) * 0.6,
        "wk": rng.normal(size=(d, h, e)) * 0.6,
        "wv": rng.normal(size=(d, h, e)) * 0.5,
        "wo": rng.normal(size=(h, g, e, d)) * 0.4,
    }
    args = (rng.normal(size=(b, t, d)), rng.normal(size=(b, t, d)))
    return cast(params, dtype), cast(args, dtype)


# Cross attention to a padded memory: normalized queries and keys, capped logits

CAP = 1.4


def _rms(x, eps=1e-5):
    return x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def capped_loss(params, x, memory, lengths, y):
    q = _rms(x @ params["wq"]) * params["q_gain"]
    k = _rms(memory @ params["wk"]) * params["k_gain"]
    v = memory @ params["wv"]
    raw = jnp.einsum("bte,bse->bts", q, k) / float(np.sqrt(q.shape[-1]))
    logits = CAP * jnp.tanh(raw / CAP)
    valid = jnp.arange(memory.shape[1])[None, :] < lengths[:, None]
    logits = jnp.where(valid[:, None, :], logits, -1e30)
    out = jnp.einsum("bts,bsf->btf", jax.nn.softmax(logits, axis=-1), v) + params["bias"]
    diff = out - y
    return jnp.mean(jnp.logaddexp(diff, -diff) - float(np.log(2.0)))


def _rms_backward(dn, x, eps=1e-5):
    inv = 1.0 / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
    n = x * inv
    return inv * (dn - n * jnp.mean(dn * n, axis=-1, keepdims=True))


def capped_grad(params, x, memory, lengths, y, no_cap_derivative=False, padding_in_backward=False):
    q_lin, k_lin = x @ params["wq"], memory @ params["wk"]
    qn, kn = _rms(q_lin), _rms(k_lin)
    q, k = qn * params["q_gain"], kn * params["k_gain"]
    v = memory @ params["wv"]
    scale = 1.0 / float(np.sqrt(q.shape[-1]))
    th = jnp.tanh(jnp.einsum("bte,bse->bts", q, k) * scale / CAP)
    valid = (jnp.arange(memory.shape[1])[None, :] < lengths[:, None])[:, None, :]
    attn = jax.nn.softmax(jnp.where(valid, CAP * th, -1e30), axis=-1)
    out = jnp.einsum("bts,bsf->btf", attn, v) + params["bias"]

    dout = jnp.tanh(out - y) / out.size
    if padding_in_backward:  # the kernel recomputes the probabilities from the saved logits
        attn = jax.nn.softmax(CAP * th, axis=-1)
    dv = jnp.einsum("bts,btf->bsf", attn, dout)
    dattn = jnp.einsum("btf,bsf->bts", dout, v)
    dlogits = attn * (dattn - jnp.sum(attn * dattn, axis=-1, keepdims=True))
    draw = dlogits if no_cap_derivative else dlogits * (1.0 - th**2)
    dq = jnp.einsum("bts,bse->bte", draw, k) * scale
    dk = jnp.einsum("bts,bte->bse", draw, q) * scale
    dq_lin = _rms_backward(dq * params["q_gain"], q_lin)
    dk_lin = _rms_backward(dk * params["k_gain"], k_lin)
    return {
        "wq": jnp.einsum("btd,bte->de", x, dq_lin),
        "q_gain": jnp.sum(dq * qn, axis=(0, 1)),
        "wk": jnp.einsum("bsc,bse->ce", memory, dk_lin),
        "k_gain": jnp.sum(dk * kn, axis=(0, 1)),
        "wv": jnp.einsum("bsc,bsf->cf", memory, dv),
        "bias": jnp.sum(dout, axis=(0, 1)),
    }


def capped_make(dtype):
    rng = np.random.default_rng(102)
    b, t, s, d, c, e, f = 4, 3, 7, 6, 5, 8, 2
    params = {
        "wq": rng.normal(size=(d, e)),
        "q_gain": 1.0 + 0.3 * rng.normal(size=e),
        "wk": rng.normal(size=(c, e)),
        "k_gain": 1.0 + 0.3 * rng.normal(size=e),
        "wv": rng.normal(size=(c, f)),
        "bias": rng.normal(size=f) * 0.2,
    }
    args = (
        rng.normal(size=(b, t, d)),
        rng.normal(size=(b, s, c)),
        np.array([7, 4, 2, 5]),
        rng.normal(size=(b, t, f)) * 1.5,
    )
    return cast(params, dtype), cast(args, dtype)


# Selective state space (the step, the input and the output depend on the token)


def ssm_loss(params, u, target):
    dt = jax.nn.softplus(u @ params["dt_down"] @ params["dt_up"] + params["dt_bias"])
    a = -jnp.exp(params["a_log"])
    b, c = u @ params["w_b"], u @ params["w_c"]

    def step(h, inputs):
        u_t, dt_t, b_t, c_t = inputs
        h = jnp.exp(dt_t[:, :, None] * a) * h + (dt_t * u_t)[:, :, None] * b_t[:, None, :]
        return h, jnp.einsum("bdn,bn->bd", h, c_t)

    h0 = jnp.zeros((u.shape[0], *a.shape), u.dtype)
    _, ys = jax.lax.scan(step, h0, tuple(jnp.moveaxis(z, 1, 0) for z in (u, dt, b, c)))
    y = jnp.moveaxis(ys, 0, 1) + params["skip"] * u
    return jnp.mean((y - target) ** 2)


def ssm_grad(params, u, target, input_without_step=False, step_only_in_decay=False):
    low = u @ params["dt_down"]
    z = low @ params["dt_up"] + params["dt_bias"]
    dt = jax.nn.softplus(z)
    a = -jnp.exp(params["a_log"])
    b, c = u @ params["w_b"], u @ params["w_c"]
    decay = jnp.exp(dt[..., None] * a)  # (batch, time, channel, state)
    drive = (dt * u)[..., None] * b[:, :, None, :]

    h = jnp.zeros_like(decay[:, 0])
    before, after = [], []
    for t in range(u.shape[1]):
        before.append(h)
        h = decay[:, t] * h + drive[:, t]
        after.append(h)
    y = jnp.einsum("btdn,btn->btd", jnp.stack(after, 1), c) + params["skip"] * u
    dy = 2.0 * (y - target) / y.size

    dh = jnp.zeros_like(h)
    ddt, db, dc = [], [], []
    da = jnp.zeros_like(a)
    for t in reversed(range(u.shape[1])):
        dc.append(jnp.einsum("bd,bdn->bn", dy[:, t], after[t]))
        dh = dh + dy[:, t, :, None] * c[:, t, None, :]
        ddecay = dh * before[t] * decay[:, t]  # by the exponent dt * a
        da = da + jnp.einsum("bdn,bd->dn", ddecay, dt[:, t])
        ddt_t = jnp.einsum("bdn,dn->bd", ddecay, a)
        if not step_only_in_decay:
            ddt_t = ddt_t + jnp.einsum("bdn,bn->bd", dh, b[:, t]) * u[:, t]
        ddt.append(ddt_t)
        source = u[:, t] if input_without_step else dt[:, t] * u[:, t]
        db.append(jnp.einsum("bdn,bd->bn", dh, source))
        dh = dh * decay[:, t]
    ddt, db, dc = (jnp.stack(list_[::-1], axis=1) for list_ in (ddt, db, dc))

    dz = ddt * jax.nn.sigmoid(z)
    dlow = jnp.einsum("btd,rd->btr", dz, params["dt_up"])
    return {
        "a_log": da * a,
        "dt_down": jnp.einsum("btd,btr->dr", u, dlow),
        "dt_up": jnp.einsum("btr,btd->rd", low, dz),
        "dt_bias": dz.sum(axis=(0, 1)),
        "w_b": jnp.einsum("btd,btn->dn", u, db),
        "w_c": jnp.einsum("btd,btn->dn", u, dc),
        "skip": jnp.sum(dy * u, axis=(0, 1)),
    }


def ssm_make(dtype):
    rng = np.random.default_rng(103)
    b, t, d, n, r = 4, 7, 5, 3, 2
    params = {
        "a_log": rng.normal(size=(d, n)) * 0.5 - 0.3,
        "dt_down": rng.normal(size=(d, r)) * 0.6,
        "dt_up": rng.normal(size=(r, d)) * 0.6,
        "dt_bias": rng.normal(size=d) * 0.4 - 0.2,
        "w_b": rng.normal(size=(d, n)) * 0.5,
        "w_c": rng.normal(size=(d, n)) * 0.5,
        "skip": rng.normal(size=d) * 0.5 + 0.5,
    }
    args = (rng.normal(size=(b, t, d)), rng.normal(size=(b, t, d)))
    return cast(params, dtype), cast(args, dtype)


# LSTM with peepholes and a projection, initial state learned


def peephole_loss(params, x, y):
    hidden = params["c0"].shape[0]
    r = jnp.broadcast_to(params["h0"], (x.shape[0], *params["h0"].shape))
    c = jnp.broadcast_to(params["c0"], (x.shape[0], hidden))
    total = 0.0
    for t in range(x.shape[1]):
        pre = jnp.concatenate([x[:, t], r], axis=1) @ params["w"] + params["b"]
        ai, af, ag, ao = jnp.split(pre, 4, axis=1)
        i = jax.nn.sigmoid(ai + params["peep"][0] * c)
        f = jax.nn.sigmoid(af + params["peep"][1] * c)
        c = f * c + i * jnp.tanh(ag)
        o = jax.nn.sigmoid(ao + params["peep"][2] * c)
        r = (o * jnp.tanh(c)) @ params["proj"]
        total = total + jnp.sum((r - y[:, t]) ** 2)
    return total / y.size


def peephole_grad(params, x, y, gate_order_ifog=False, frozen_start=False):
    w, peep, proj = params["w"], params["peep"], params["proj"]
    batch, length, n_in = x.shape
    r = jnp.tile(params["h0"], (batch, 1))
    c = jnp.tile(params["c0"], (batch, 1))
    tape = []
    for t in range(length):
        inp = jnp.concatenate([x[:, t], r], axis=1)
        ai, af, ag, ao = jnp.split(inp @ w + params["b"], 4, axis=1)
        c_prev = c
        i, f = jax.nn.sigmoid(ai + peep[0] * c_prev), jax.nn.sigmoid(af + peep[1] * c_prev)
        g = jnp.tanh(ag)
        c = f * c_prev + i * g
        o = jax.nn.sigmoid(ao + peep[2] * c)
        tc = jnp.tanh(c)
        r = (o * tc) @ proj
        tape.append((inp, c_prev, c, i, f, g, o, tc, r))

    dw, db = jnp.zeros_like(w), jnp.zeros_like(params["b"])
    dpeep, dproj = jnp.zeros_like(peep), jnp.zeros_like(proj)
    dr_next = jnp.zeros_like(r)
    dc = jnp.zeros_like(c)
    for t in reversed(range(length)):
        inp, c_prev, c, i, f, g, o, tc, r = tape[t]
        dr = 2.0 * (r - y[:, t]) / y.size + dr_next
        dproj = dproj + (o * tc).T @ dr
        dm = dr @ proj.T
        dao = dm * tc * o * (1 - o)
        dc = dc + dm * o * (1 - tc**2) + dao * peep[2]
        dai = dc * g * i * (1 - i)
        daf = dc * c_prev * f * (1 - f)
        dag = dc * i * (1 - g**2)
        dpeep = dpeep + jnp.stack([jnp.sum(dai * c_prev, 0), jnp.sum(daf * c_prev, 0), jnp.sum(dao * c, 0)])
        parts = [dai, daf, dao, dag] if gate_order_ifog else [dai, daf, dag, dao]
        dpre = jnp.concatenate(parts, axis=1)
        dw = dw + inp.T @ dpre
        db = db + dpre.sum(axis=0)
        dr_next = dpre @ w[n_in:].T
        dc = dc * f + dai * peep[0] + daf * peep[1]
    dh0 = jnp.zeros_like(params["h0"]) if frozen_start else dr_next.sum(axis=0)
    return {"w": dw, "b": db, "peep": dpeep, "proj": dproj, "h0": dh0, "c0": dc.sum(axis=0)}


def peephole_make(dtype):
    rng = np.random.default_rng(104)
    b, t, n, h, p = 5, 4, 3, 6, 2
    params = {
        "w": rng.normal(size=(n + p, 4 * h)) * 0.6,
        "b": rng.normal(size=4 * h) * 0.3,
        "peep": rng.normal(size=(3, h)) * 0.5,
        "proj": rng.normal(size=(h, p)) * 0.7,
        "h0": rng.normal(size=p) * 0.5,
        "c0": rng.normal(size=h) * 0.5,
    }
    args = (rng.normal(size=(b, t, n)), rng.normal(size=(b, t, p)))
    return cast(params, dtype), cast(args, dtype)
