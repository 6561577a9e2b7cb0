"""A selective state space with a low-rank step size; and more."""

from functools import partial

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_seventh.grouped_query_attention import maker

# a selective state space with a low-rank step size


def ssm_loss(params, x, target):
    a = -jnp.exp(params["a_log"])
    dt = jax.nn.softplus(x @ params["dt_down"] @ params["dt_up"] + params["dt_bias"])
    b_in, c_out = x @ params["w_b"], x @ params["w_c"]

    def step(h, inp):
        x_t, dt_t, b_t, c_t = inp
        h = jnp.exp(dt_t[..., None] * a) * h + (dt_t * x_t)[..., None] * b_t[:, None, :]
        return h, jnp.einsum("bdn,bn->bd", h, c_t)

    h0 = jnp.zeros((x.shape[0], *a.shape), x.dtype)
    xs = jax.tree_util.tree_map(lambda v: jnp.swapaxes(v, 0, 1), (x, dt, b_in, c_out))
    _, y = jax.lax.scan(step, h0, xs)
    y = jnp.swapaxes(y, 0, 1) + params["skip"] * x
    return 0.5 * jnp.mean((y - target) ** 2)


def ssm_grad(params, x, target, sigmoid_of_output=False):
    B, T, _D = x.shape
    a = -jnp.exp(params["a_log"])
    low = x @ params["dt_down"]
    dt_pre = low @ params["dt_up"] + params["dt_bias"]
    dt = jax.nn.softplus(dt_pre)
    b_in, c_out = x @ params["w_b"], x @ params["w_c"]
    decay = jnp.exp(dt[..., None] * a)  # (B, T, D, N)
    states = [jnp.zeros((B, *a.shape), x.dtype)]
    for t in range(T):
        drive = (dt[:, t] * x[:, t])[..., None] * b_in[:, t, None, :]
        states.append(decay[:, t] * states[-1] + drive)
    y = jnp.stack([jnp.einsum("bdn,bn->bd", states[t + 1], c_out[:, t]) for t in range(T)], axis=1)
    y = y + params["skip"] * x

    dy = (y - target) / y.size
    dskip = jnp.sum(dy * x, axis=(0, 1))
    da = jnp.zeros_like(a)
    ddt, db, dc = [None] * T, [None] * T, [None] * T
    dh = jnp.zeros_like(states[0])
    for t in reversed(range(T)):
        dc[t] = jnp.einsum("bd,bdn->bn", dy[:, t], states[t + 1])
        dh = dh + dy[:, t, :, None] * c_out[:, t, None, :]
        dexponent = dh * states[t] * decay[:, t]
        da = da + jnp.sum(dexponent * dt[:, t, :, None], axis=0)
        dh_b = jnp.sum(dh * b_in[:, t, None, :], axis=-1)
        ddt[t] = jnp.sum(dexponent * a, axis=-1) + dh_b * x[:, t]
        db[t] = jnp.einsum("bdn,bd->bn", dh, dt[:, t] * x[:, t])
        dh = dh * decay[:, t]
    ddt, db, dc = (jnp.stack(v, axis=1) for v in (ddt, db, dc))

    dpre = ddt * jax.nn.sigmoid(dt if sigmoid_of_output else dt_pre)
    dlow = dpre @ params["dt_up"].T
    return {
        "a_log": da * a,
        "dt_down": jnp.einsum("btd,btr->dr", x, dlow),
        "dt_up": jnp.einsum("btr,btd->rd", low, dpre),
        "dt_bias": dpre.sum((0, 1)),
        "w_b": jnp.einsum("btd,btn->dn", x, db),
        "w_c": jnp.einsum("btd,btn->dn", x, dc),
        "skip": dskip,
    }


@maker(105)
def ssm_make(rng):
    params = {
        "a_log": 0.4 * rng.normal(size=(5, 3)),
        "dt_down": 0.6 * rng.normal(size=(5, 2)),
        "dt_up": 0.6 * rng.normal(size=(2, 5)),
        "dt_bias": -1 + 0.5 * rng.normal(size=5),
        "w_b": rng.normal(size=(5, 3)),
        "w_c": rng.normal(size=(5, 3)),
        "skip": rng.normal(size=5),
    }
    return params, (rng.normal(size=(4, 6, 5)), rng.normal(size=(4, 6, 5)))


# a linear recurrent unit: complex diagonal recurrence, normalized input


def lru_loss(params, x, target):
    lam = jnp.exp(-jnp.exp(params["nu_log"]) + 1j * jnp.exp(params["theta_log"]))
    gamma = jnp.sqrt(1 - jnp.exp(-2 * jnp.exp(params["nu_log"])))
    b = params["b_re"] + 1j * params["b_im"]
    c = params["c_re"] + 1j * params["c_im"]
    u = gamma * jnp.einsum("tbd,nd->tbn", x, b)

    def step(s, u_t):
        s = lam * s + u_t
        return s, s

    _, s = jax.lax.scan(step, jnp.zeros_like(u[0]), u)
    y = jnp.tanh(jnp.einsum("tbn,on->tbo", s, c).real + jnp.einsum("tbd,od->tbo", x, params["d"]))
    return jnp.mean(jnp.sum((y - target) ** 2, -1))


def lru_grad(params, x, target, no_conjugate=False, gamma_constant=False):
    # cotangents of complex values are kept as d/dRe + i d/dIm
    nu, theta = jnp.exp(params["nu_log"]), jnp.exp(params["theta_log"])
    lam = jnp.exp(-nu + 1j * theta)
    modulus2 = jnp.exp(-2 * nu)
    gamma = jnp.sqrt(1 - modulus2)
    b = params["b_re"] + 1j * params["b_im"]
    c = params["c_re"] + 1j * params["c_im"]
    T = x.shape[0]
    bx = jnp.einsum("tbd,nd->tbn", x, b)
    states = [jnp.zeros_like(bx[0])]
    for t in range(T):
        states.append(lam * states[-1] + gamma * bx[t])
    s = jnp.stack(states[1:])
    y = jnp.tanh(jnp.einsum("tbn,on->tbo", s, c).real + jnp.einsum("tbd,od->tbo", x, params["d"]))

    dpre = 2 * (y - target) / (x.shape[0] * x.shape[1]) * (1 - y**2)
    dc = jnp.einsum("tbo,tbn->on", dpre, s.conj())
    dlam = jnp.zeros_like(lam)
    du = [None] * T
    ds = jnp.zeros_like(states[0])
    carry = lam if no_conjugate else lam.conj()
    for t in reversed(range(T)):
        ds = ds + dpre[t] @ c.conj()
        du[t] = ds
        dlam = dlam + jnp.sum(ds * states[t].conj(), axis=0)
        ds = carry * ds
    du = jnp.stack(du)
    dgamma = jnp.sum((du * bx.conj()).real, axis=(0, 1))
    db = jnp.einsum("tbn,tbd->nd", gamma * du, x)

    dexponent = dlam * lam.conj()
    dnu = -dexponent.real
    if not gamma_constant:
        dnu = dnu + dgamma * modulus2 / gamma
    return {
        "nu_log": dnu * nu,
        "theta_log": dexponent.imag * theta,
        "b_re": db.real,
        "b_im": db.imag,
        "c_re": dc.real,
        "c_im": dc.imag,
        "d": jnp.einsum("tbo,tbd->od", dpre, x),
    }


@maker(106)
def lru_make(rng):
    params = {
        "nu_log": -1.2 + 0.3 * rng.normal(size=4),
        "theta_log": 0.4 * rng.normal(size=4),
        "b_re": 0.5 * rng.normal(size=(4, 3)),
        "b_im": 0.5 * rng.normal(size=(4, 3)),
        "c_re": 0.4 * rng.normal(size=(2, 4)),
        "c_im": 0.4 * rng.normal(size=(2, 4)),
        "d": 0.4 * rng.normal(size=(2, 3)),
    }
    return params, (rng.normal(size=(6, 5, 3)), 0.8 * rng.normal(size=(6, 5, 2)))


# a mixture of experts: two experts a token, limited capacity, balance term

CAPACITY, BALANCE = 4, 0.05


def _dispatch(probs):
    """Which (token, expert) pairs were chosen, and which of those fit into the experts' capacity."""
    n_experts = probs.shape[1]
    _, top = jax.lax.top_k(probs, 2)
    chosen = jax.nn.one_hot(top, n_experts, dtype=probs.dtype)  # (N, 2, E)
    by_rank = jnp.swapaxes(chosen, 0, 1).reshape(-1, n_experts)  # first choices of all tokens come first
    position = jnp.cumsum(by_rank, axis=0) * by_rank
    kept = by_rank * (position <= CAPACITY)
    kept = kept.reshape(2, -1, n_experts).sum(0)
    return chosen.sum(1), kept, chosen[:, 0].mean(0)


def moe_loss(params, x, target):
    probs = jax.nn.softmax(x @ params["router"])
    _, kept, load = _dispatch(jax.lax.stop_gradient(probs))
    combine = probs * kept
    hidden = jnp.tanh(jnp.einsum("nd,edf->enf", x, params["w_in"]) + params["b_in"][:, None])
    expert_out = jnp.einsum("enf,efo->eno", hidden, params["w_out"])
    y = jnp.einsum("ne,eno->no", combine, expert_out)
    balance = probs.shape[1] * jnp.sum(load * probs.mean(0))
    return jnp.mean((y - target) ** 2) + BALANCE * balance


def moe_grad(params, x, target, forget_capacity=False, gated_output=False):
    n_tokens = x.shape[0]
    n_experts = params["router"].shape[1]
    probs = jax.nn.softmax(x @ params["router"])
    chosen, kept, load = _dispatch(probs)
    combine = probs * kept
    hidden = jnp.tanh(jnp.einsum("nd,edf->enf", x, params["w_in"]) + params["b_in"][:, None])
    expert_out = jnp.einsum("enf,efo->eno", hidden, params["w_out"])
    weighted = combine.T[:, :, None] * expert_out
    y = weighted.sum(axis=0)

    d_y = 2.0 * (y - target) / y.size
    # experts
    d_expert = combine.T[:, :, None] * d_y[None]
    d_hidden = jnp.einsum("eno,efo->enf", d_expert, params["w_out"]) * (1.0 - hidden**2)
    # router
    d_combine = jnp.einsum("no,eno->ne", d_y, weighted if gated_output else expert_out)
    d_probs = d_combine * (chosen if forget_capacity else kept)
    d_probs = d_probs + BALANCE * n_experts * load[None, :] / n_tokens
    d_router_logits = probs * (d_probs - jnp.sum(probs * d_probs, axis=1, keepdims=True))
    return {
        "router": x.T @ d_router_logits,
        "w_in": jnp.einsum("nd,enf->edf", x, d_hidden),
        "b_in": d_hidden.sum(axis=1),
        "w_out": jnp.einsum("enf,eno->efo", hidden, d_expert),
    }


@maker(107)
def moe_make(rng):
    params = {
        "router": rng.normal(size=(4, 5)),
        "w_in": rng.normal(size=(5, 4, 6)) * 0.6,
        "b_in": rng.normal(size=(5, 6)) * 0.3,
        "w_out": rng.normal(size=(5, 6, 3)) * 0.7,
    }
    return params, (rng.normal(size=(10, 4)), rng.normal(size=(10, 3)))


# a small language model whose output layer is the embedding

SMOOTH = 0.2


def tied_loss(params, tokens):
    emb = params["emb"]
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    T = inputs.shape[1]
    h = emb[inputs] + params["pos"][:T]
    mix = jnp.tril(jnp.ones((T, T), h.dtype))
    mix = mix / mix.sum(1, keepdims=True)
    h = h + jnp.tanh(jnp.einsum("ts,bsd->btd", mix, h) @ params["w1"]) @ params["w2"]
    h = h * jax.lax.rsqrt(jnp.mean(h**2, -1, keepdims=True) + 1e-6) * params["gain"]
    logp = jax.nn.log_softmax(h @ emb.T)
    nll = -jnp.take_along_axis(logp, labels[..., None], -1)[..., 0]
    uniform = -logp.mean(-1)
    return jnp.mean((1 - SMOOTH) * nll + SMOOTH * uniform)


def tied_grad(params, tokens, hard_targets=False):
    emb = params["emb"]
    V, D = emb.shape
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    T = inputs.shape[1]
    h0 = emb[inputs] + params["pos"][:T]
    mix = jnp.tril(jnp.ones((T, T), h0.dtype))
    mix = mix / mix.sum(1, keepdims=True)
    mixed = jnp.einsum("ts,bsd->btd", mix, h0)
    act = jnp.tanh(mixed @ params["w1"])
    h1 = h0 + act @ params["w2"]
    rinv = jax.lax.rsqrt(jnp.mean(h1**2, -1, keepdims=True) + 1e-6)
    unit = h1 * rinv
    h2 = unit * params["gain"]
    p = jax.nn.softmax(h2 @ emb.T)

    target = jax.nn.one_hot(labels, V, dtype=p.dtype)
    if not hard_targets:
        target = (1 - SMOOTH) * target + SMOOTH / V
    dlogits = (p - target) / labels.size
    demb = jnp.einsum("btv,btd->vd", dlogits, h2)
    dh2 = dlogits @ emb
    dgain = jnp.sum(dh2 * unit, (0, 1))
    dunit = dh2 * params["gain"]
    dh1 = rinv * (dunit - unit * jnp.mean(dunit * unit, -1, keepdims=True))
    dw2 = jnp.einsum("btf,btd->fd", act, dh1)
    dact = (dh1 @ params["w2"].T) * (1 - act**2)
    dw1 = jnp.einsum("btd,btf->df", mixed, dact)
    dh0 = dh1 + jnp.einsum("ts,btd->bsd", mix, dact @ params["w1"].T)
    demb = demb.at[inputs.reshape(-1)].add(dh0.reshape(-1, D))
    dpos = jnp.zeros_like(params["pos"]).at[:T].set(dh0.sum(0))
    return {"emb": demb, "pos": dpos, "w1": dw1, "w2": dw2, "gain": dgain}


@maker(108)
def tied_make(rng):
    params = {
        "emb": rng.normal(size=(8, 5)) * 0.7,
        "pos": rng.normal(size=(6, 5)) * 0.5,
        "w1": rng.normal(size=(5, 7)) * 0.5,
        "w2": rng.normal(size=(7, 5)) * 0.5,
        "gain": 1 + 0.2 * rng.normal(size=5),
    }
    return params, (rng.integers(0, 8, size=(4, 7)),)


# bfloat16 products inside float32 code, two microbatches a step


def _half(v):
    return v.astype(jnp.bfloat16)


def amp_loss(params, xs, ys):
    total = 0.0
    for x, y in zip(xs, ys, strict=False):
        pre = (_half(x) @ _half(params["w1"])).astype(jnp.float32) + params["b1"]
        h = jnp.tanh(pre)
        out = (_half(h) @ _half(params["w2"])).astype(jnp.float32) + params["b2"]
        total = total + 0.5 * jnp.mean(jnp.square(out - y))
    return total / xs.shape[0]


def _amp_backward(params, x, y, n_micro, half_sums):
    flat = _half(x).reshape(-1, x.shape[-1])
    w1, w2 = _half(params["w1"]), _half(params["w2"])
    pre = (flat @ w1).astype(jnp.float32) + params["b1"]
    h = jnp.tanh(pre)
    out = (_half(h) @ w2).astype(jnp.float32) + params["b2"]
    d_out = (out - y.reshape(out.shape)) / out.size / n_micro
    d_out16 = _half(d_out)
    d_w2 = (_half(h).T @ d_out16).astype(jnp.float32)
    d_h = (d_out16 @ w2.T).astype(jnp.float32)
    d_pre = d_h * (1.0 - h * h)
    d_w1 = (flat.T @ _half(d_pre)).astype(jnp.float32)

    def rows(d):
        if not half_sums:
            return d.sum(axis=0)
        total = jnp.zeros(d.shape[1], jnp.bfloat16)
        for row in _half(d):
            total = total + row
        return total

    return {"w1": d_w1, "b1": rows(d_pre), "w2": d_w2, "b2": rows(d_out)}


def amp_grad(params, xs, ys, half_sums=False, keep_buffer=False):
    add = partial(jax.tree_util.tree_map, jnp.add)
    total, buffer = None, None
    for x, y in zip(xs, ys, strict=False):
        g = _amp_backward(params, x, y, xs.shape[0], half_sums)
        buffer = add(buffer, g) if (keep_buffer and buffer is not None) else g
        total = buffer if total is None else add(total, buffer)
    return total


@maker(303)
def amp_make(rng):
    params = {
        "w1": rng.normal(size=(4, 6)),
        "b1": 0.3 * rng.normal(size=6),
        "w2": 0.6 * rng.normal(size=(6, 3)),
        "b2": 0.05 * rng.normal(size=3),
    }
    return params, (rng.normal(size=(2, 5, 8, 4)), rng.normal(size=(2, 5, 8, 3)))
