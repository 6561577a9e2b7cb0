"""Selective scan; Mixture of experts; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Selective scan


def build_scan(rng):
    params = {
        "w_delta": rng.normal(size=(3, 3)) * 0.5,
        "b_delta": rng.normal(size=3) * 0.5,
        "a_log": rng.normal(size=(3, 5)) * 0.5,
        "b": rng.normal(size=5),
        "c": rng.normal(size=5),
        "skip": rng.normal(size=3),
    }
    return params, (rng.normal(size=(4, 6, 3)), rng.normal(size=(4, 6, 3)))


def scan_loss(params, u, target):
    delta = jax.nn.softplus(u @ params["w_delta"] + params["b_delta"])
    a = -jnp.exp(params["a_log"])

    def step(h, inputs):
        u_t, d_t = inputs
        h = jnp.exp(d_t[..., None] * a) * h + (d_t * u_t)[..., None] * params["b"]
        return h, h @ params["c"] + params["skip"] * u_t

    h0 = jnp.zeros((u.shape[0], *a.shape), u.dtype)
    _, ys = lax.scan(step, h0, (u.swapaxes(0, 1), delta.swapaxes(0, 1)))
    return jnp.mean((ys.swapaxes(0, 1) - target) ** 2)


def scan_grad(params, u, target, state_after=False, delta_linear=False):
    pre = u @ params["w_delta"] + params["b_delta"]
    delta = jax.nn.softplus(pre)
    a = -jnp.exp(params["a_log"])
    batch, steps, _dim = u.shape
    decay = jnp.exp(delta[..., None] * a)  # B T D N
    states = [jnp.zeros((batch, *a.shape), u.dtype)]
    for t in range(steps):
        states.append(decay[:, t] * states[-1] + (delta[:, t] * u[:, t])[..., None] * params["b"])
    y = jnp.stack([h @ params["c"] for h in states[1:]], axis=1) + params["skip"] * u
    dy = 2.0 * (y - target) / y.size
    dskip = jnp.sum(dy * u, axis=(0, 1))
    da, db, dc = jnp.zeros_like(a), jnp.zeros_like(params["b"]), jnp.zeros_like(params["c"])
    ddelta = []
    dh = jnp.zeros_like(states[0])
    for t in reversed(range(steps)):
        dh = dh + dy[:, t, :, None] * params["c"]
        dc += jnp.einsum("bd,bdn->n", dy[:, t], states[t + 1])
        h_in = states[t + 1] if state_after else states[t]
        dexpo = dh * h_in * decay[:, t]
        da += jnp.sum(dexpo * delta[:, t, :, None], axis=0)
        db += jnp.einsum("bdn,bd->n", dh, delta[:, t] * u[:, t])
        ddelta.append(jnp.sum(dexpo * a, axis=-1) + (dh @ params["b"]) * u[:, t])
        dh = dh * decay[:, t]
    dpre = jnp.stack(ddelta[::-1], axis=1)
    if not delta_linear:
        dpre = dpre * jax.nn.sigmoid(pre)
    return {
        "w_delta": jnp.einsum("bti,btj->ij", u, dpre),
        "b_delta": dpre.sum(axis=(0, 1)),
        "a_log": da * a,
        "b": db,
        "c": dc,
        "skip": dskip,
    }


# Mixture of experts, two of four for each token, with the router's z loss

Z_COEF = 0.1


def build_moe(rng):
    params = {
        "router": rng.normal(size=(5, 4)),
        "w1": rng.normal(size=(4, 5, 3)) * 0.6,
        "w2": rng.normal(size=(4, 3, 2)) * 0.8,
    }
    return params, (rng.normal(size=(9, 5)), rng.normal(size=(9, 2)))


def moe_route(params, x):
    logits = x @ params["router"]
    top, chosen = lax.top_k(logits, 2)
    gates = jax.nn.softmax(top, axis=-1)
    return logits, chosen, gates


def moe_loss(params, x, target):
    logits, chosen, gates = moe_route(params, x)
    hidden = jax.nn.relu(jnp.einsum("ti,tkih->tkh", x, params["w1"][chosen]))
    outs = jnp.einsum("tkh,tkho->tko", hidden, params["w2"][chosen])
    y = jnp.einsum("tk,tko->to", gates, outs)
    z = jax.nn.logsumexp(logits, axis=-1)
    return 0.5 * jnp.mean(jnp.sum((y - target) ** 2, axis=-1)) + Z_COEF * jnp.mean(z**2)


def moe_grad(params, x, target, gates_twice=False, last_expert_skipped=False):
    logits, chosen, gates = moe_route(params, x)
    tokens, n_experts = logits.shape
    hidden = jax.nn.relu(jnp.einsum("ti,tkih->tkh", x, params["w1"][chosen]))
    outs = jnp.einsum("tkh,tkho->tko", hidden, params["w2"][chosen])
    y = jnp.einsum("tk,tko->to", gates, outs)
    dy = (y - target) / tokens
    # router: the gates, then the z loss
    dgates = jnp.einsum("to,tko->tk", dy, outs)
    dtop = gates * (dgates - jnp.sum(gates * dgates, axis=-1, keepdims=True))
    z = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    dlogits = 2.0 * Z_COEF * z * jax.nn.softmax(logits, axis=-1) / tokens
    dlogits = dlogits.at[jnp.arange(tokens)[:, None], chosen].add(dtop)
    # experts
    weight = gates * gates if gates_twice else gates
    douts = weight[..., None] * dy[:, None, :]
    dhidden = jnp.einsum("tko,tkho->tkh", douts, params["w2"][chosen]) * (hidden > 0)
    dw1, dw2 = jnp.zeros_like(params["w1"]), jnp.zeros_like(params["w2"])
    for e in range(n_experts - 1 if last_expert_skipped else n_experts):
        mine = (chosen == e).astype(x.dtype)
        dw1 = dw1.at[e].set(jnp.einsum("tk,ti,tkh->ih", mine, x, dhidden))
        dw2 = dw2.at[e].set(jnp.einsum("tk,tkh,tko->ho", mine, hidden, douts))
    return {"router": x.T @ dlogits, "w1": dw1, "w2": dw2}


# Language model with one table for the input and the output, padded targets

PAD = 0


def build_tied(rng):
    ids = rng.integers(1, 7, size=(5, 4))
    nxt = rng.integers(1, 7, size=(5, 4))
    nxt[1, 3] = nxt[2, 2] = nxt[2, 3] = nxt[4, 3] = PAD
    params = {
        "table": rng.normal(size=(8, 3)),
        "w": rng.normal(size=(3, 6)) * 0.7,
        "v": rng.normal(size=(6, 3)) * 0.7,
        "bias": rng.normal(size=8) * 0.3,
    }
    return params, (ids, nxt)


def tied_forward(params, ids):
    emb = params["table"][ids.reshape(-1)]
    hidden = jnp.tanh(emb @ params["w"])
    final = emb + hidden @ params["v"]
    logits = final @ params["table"].T + params["bias"]
    return emb, hidden, final, logits


def tied_loss(params, ids, nxt):
    logits = tied_forward(params, ids)[-1]
    flat = nxt.reshape(-1)
    keep = flat != PAD
    logp = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), flat[:, None], axis=1)[:, 0]
    return -jnp.sum(jnp.where(keep, logp, 0.0)) / jnp.sum(keep)


def tied_grad(params, ids, nxt, rows_set=False, padding_counts=False):
    emb, hidden, final, logits = tied_forward(params, ids)
    flat_ids, flat = ids.reshape(-1), nxt.reshape(-1)
    keep = (flat != PAD).astype(logits.dtype)
    dlogits = jax.nn.softmax(logits, axis=-1) - jax.nn.one_hot(flat, logits.shape[-1], dtype=logits.dtype)
    dlogits = dlogits / jnp.sum(keep)
    if not padding_counts:
        dlogits = dlogits * keep[:, None]
    dbias = dlogits.sum(axis=0)
    dtable_out = dlogits.T @ final
    dfinal = dlogits @ params["table"]
    dv = hidden.T @ dfinal
    dpre = (dfinal @ params["v"].T) * (1.0 - hidden**2)
    dw = emb.T @ dpre
    demb = dfinal + dpre @ params["w"].T
    dtable_in = jnp.zeros_like(params["table"])
    if rows_set:
        for i in range(flat_ids.shape[0]):
            dtable_in = dtable_in.at[flat_ids[i]].set(demb[i])
    else:
        dtable_in = dtable_in.at[flat_ids].add(demb)
    return {"table": dtable_in + dtable_out, "w": dw, "v": dv, "bias": dbias}


# Conformer's convolution module: gated linear unit, causal depthwise convolution, swish


def build_conformer(rng):
    params = {
        "w_in": rng.normal(size=(3, 10)) * 0.7,
        "depthwise": rng.normal(size=(4, 5)) * 0.6,
        "bias": rng.normal(size=5) * 0.3,
        "w_out": rng.normal(size=(5, 3)) * 0.7,
    }
    return params, (rng.normal(size=(4, 7, 3)), rng.normal(size=(4, 7, 3)))


def conformer_forward(params, x):
    value, gate = jnp.split(x @ params["w_in"], 2, axis=-1)
    glu = value * jax.nn.sigmoid(gate)
    taps, steps = params["depthwise"].shape[0], x.shape[1]
    padded = jnp.pad(glu, ((0, 0), (taps - 1, 0), (0, 0)))
    conv = sum(padded[:, i : i + steps] * params["depthwise"][i] for i in range(taps)) + params["bias"]
    act = conv * jax.nn.sigmoid(conv)
    return value, gate, padded, conv, act, x + act @ params["w_out"]


def conformer_loss(params, x, target):
    return jnp.mean((conformer_forward(params, x)[-1] - target) ** 2)


def conformer_grad(params, x, target, halves_exchanged=False):
    value, gate, padded, conv, act, out = conformer_forward(params, x)
    taps, steps = params["depthwise"].shape[0], x.shape[1]
    dout = 2.0 * (out - target) / out.size
    dw_out = jnp.einsum("bti,bto->io", act, dout)
    dact = dout @ params["w_out"].T
    s = jax.nn.sigmoid(conv)
    dconv = dact * (s + conv * s * (1.0 - s))
    ddepth = jnp.stack([jnp.sum(padded[:, i : i + steps] * dconv, axis=(0, 1)) for i in range(taps)])
    dpadded = jnp.zeros_like(padded)
    for i in range(taps):
        dpadded = dpadded.at[:, i : i + steps].add(dconv * params["depthwise"][i])
    dglu = dpadded[:, taps - 1 :]
    g = jax.nn.sigmoid(gate)
    dvalue = dglu * g
    dgate = dglu * value * g * (1.0 - g)
    pieces = [dgate, dvalue] if halves_exchanged else [dvalue, dgate]
    dproj = jnp.concatenate(pieces, axis=-1)
    return {
        "w_in": jnp.einsum("bti,bto->io", x, dproj),
        "depthwise": ddepth,
        "bias": dconv.sum(axis=(0, 1)),
        "w_out": dw_out,
    }


# Fourier layer: a product for each low mode, a skip, tanh, a readout


def build_fourier(rng):
    params = {
        "w_re": rng.normal(size=(4, 3, 2)),
        "w_im": rng.normal(size=(4, 3, 2)),
        "w_skip": rng.normal(size=(3, 2)) * 0.5,
        "readout": rng.normal(size=2),
    }
    return params, (rng.normal(size=(5, 10, 3)) * 0.6, rng.normal(size=(5, 10)))


def fourier_forward(params, x):
    n = x.shape[1]
    modes = params["w_re"].shape[0]
    spectrum = jnp.fft.rfft(x, axis=1)[:, :modes]
    weight = params["w_re"] + 1j * params["w_im"]
    mixed = jnp.einsum("bmi,mio->bmo", spectrum, weight)
    full = jnp.pad(mixed, ((0, 0), (0, n // 2 + 1 - modes), (0, 0)))
    hidden = jnp.tanh(jnp.fft.irfft(full, n=n, axis=1) + x @ params["w_skip"])
    return spectrum, hidden, hidden @ params["readout"]


def fourier_loss(params, x, target):
    return 0.5 * jnp.mean((fourier_forward(params, x)[-1] - target) ** 2)


def fourier_grad(params, x, target, spectrum_plain=False):
    n = x.shape[1]
    modes = params["w_re"].shape[0]
    spectrum, hidden, out = fourier_forward(params, x)
    dout = (out - target) / out.size
    dreadout = jnp.einsum("bt,bto->o", dout, hidden)
    dpre = dout[..., None] * params["readout"] * (1.0 - hidden**2)
    dskip = jnp.einsum("bti,bto->io", x, dpre)
    # adjoint of irfft: each mode but the first stands for two
    weight = jnp.where(jnp.arange(modes) == 0, 1.0, 2.0).astype(x.dtype) / n
    dmixed = jnp.fft.rfft(dpre, axis=1)[:, :modes] * weight[:, None]
    left = spectrum if spectrum_plain else jnp.conj(spectrum)
    dweight = jnp.einsum("bmi,bmo->mio", left, dmixed)
    return {"w_re": dweight.real, "w_im": dweight.imag, "w_skip": dskip, "readout": dreadout}


# Survival: Cox's partial likelihood behind a hidden layer


def build_cox(rng):
    event = np.array([1, 0, 1, 1, 0, 1, 0, 1], bool)
    params = {"w1": rng.normal(size=(3, 5)) * 0.7, "w2": rng.normal(size=5)}
    return params, (rng.normal(size=(8, 3)), rng.exponential(size=8), event)


def cox_loss(params, x, time, event):
    eta = jnp.tanh(x @ params["w1"]) @ params["w2"]
    at_risk = time[None, :] >= time[:, None]
    log_risk = jax.nn.logsumexp(jnp.where(at_risk, eta[None, :], -1e9), axis=1)
    return -jnp.sum(jnp.where(event, eta - log_risk, 0.0)) / jnp.sum(event)


def cox_grad(params, x, time, event, censored_die=False):
    hidden = jnp.tanh(x @ params["w1"])
    eta = hidden @ params["w2"]
    at_risk = (time[None, :] >= time[:, None]).astype(eta.dtype)
    hazard = jnp.exp(eta - jnp.max(eta))
    share = at_risk * hazard[None, :]
    share = share / share.sum(axis=1, keepdims=True)
    died = event.astype(eta.dtype)
    counted = jnp.ones_like(died) if censored_die else died
    deta = (counted @ share - counted) / jnp.sum(died)
    dw2 = hidden.T @ deta
    dhidden = deta[:, None] * params["w2"][None, :]
    dw1 = x.T @ (dhidden * (1.0 - hidden**2))
    return {"w1": dw1, "w2": dw2}


# Survival: Weibull accelerated failure time, a shape for each stratum


def build_weibull(rng):
    event = np.array([1, 1, 0, 1, 0, 1, 1, 1, 0, 1], bool)
    stratum = np.array([0, 1, 2, 0, 1, 2, 1, 2, 0, 0])
    params = {"beta": rng.normal(size=4) * 0.4, "intercept": np.array(0.3), "log_shape": np.array([0.5, -0.6, 0.9])}
    return params, (rng.normal(size=(10, 4)), rng.exponential(size=10) + 0.1, event, stratum)


def weibull_loss(params, x, time, event, stratum):
    mu = x @ params["beta"] + params["intercept"]
    log_k = params["log_shape"][stratum]
    z = jnp.exp(log_k) * (jnp.log(time) - mu)
    loglik = event * (log_k + z - jnp.log(time)) - jnp.exp(z)
    return -jnp.mean(loglik)


def weibull_grad(params, x, time, event, stratum, shape_not_log=False):
    n = time.shape[0]
    mu = x @ params["beta"] + params["intercept"]
    k = jnp.exp(params["log_shape"])[stratum]
    gap = jnp.log(time) - mu
    z = k * gap
    died = event.astype(z.dtype)
    dz = (jnp.exp(z) - died) / n
    dmu = -k * dz
    dk = dz * gap
    dlog_k = dk - died / n if shape_not_log else dk * k - died / n
    dshape = jnp.zeros_like(params["log_shape"]).at[stratum].add(dlog_k)
    return {"beta": x.T @ dmu, "intercept": dmu.sum(), "log_shape": dshape}
