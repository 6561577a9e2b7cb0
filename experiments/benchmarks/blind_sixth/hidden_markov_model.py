"""A hidden Markov model; Points placed so that their distances fit given ones; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_sixth.sliding_window_causal_attention import cast

# A hidden Markov model, by scan


def hmm_loss(params, seqs):
    log_init = jax.nn.log_softmax(params["init"])
    log_trans = jax.nn.log_softmax(params["trans"], axis=1)
    log_emit = jax.nn.log_softmax(params["emit"], axis=1)

    def one(seq):
        def step(alpha, o):
            alpha = jax.nn.logsumexp(alpha[:, None] + log_trans, axis=0) + log_emit[:, o]
            return alpha, None

        last, _ = lax.scan(step, log_init + log_emit[:, seq[0]], seq[1:])
        return jax.nn.logsumexp(last)

    return -jnp.mean(jax.vmap(one)(seqs))


def hmm_grad(params, seqs, skip_init=False):
    init = jax.nn.softmax(params["init"])
    trans = jax.nn.softmax(params["trans"], axis=1)
    emit = jax.nn.softmax(params["emit"], axis=1)

    def expected_counts(seq):
        lik = emit[:, seq].T  # steps by states
        a0 = init * lik[0]
        c0 = a0.sum()

        def forward(a, b):
            a = (a @ trans) * b
            c = a.sum()
            return a / c, (a / c, c)

        _, (rest, scales) = lax.scan(forward, a0 / c0, lik[1:])
        alpha = jnp.concatenate([(a0 / c0)[None], rest])

        def backward(beta, inp):
            b, c = inp
            prev = trans @ (b * beta) / c
            return prev, beta

        beta0, later = lax.scan(backward, jnp.ones_like(init), (lik[1:], scales), reverse=True)
        beta = jnp.concatenate([beta0[None], later])
        gamma = alpha * beta
        xi = alpha[:-1, :, None] * trans * (lik[1:] * later / scales[:, None])[:, None, :]
        symbols = jax.nn.one_hot(seq, emit.shape[1], dtype=gamma.dtype)
        return gamma[0], xi.sum(0), gamma.T @ symbols

    n_init, n_trans, n_emit = (v.mean(0) for v in jax.vmap(expected_counts)(seqs))
    d_init = init * n_init.sum() - n_init
    d_trans = trans * n_trans.sum(1, keepdims=True) - n_trans
    d_emit = emit * n_emit.sum(1, keepdims=True) - n_emit
    if skip_init:
        d_init = jnp.zeros_like(d_init)
    return {"init": d_init, "trans": d_trans, "emit": d_emit}


def make_hmm(dtype):
    rng = np.random.default_rng(777)
    params = {
        "init": rng.normal(size=4),
        "trans": rng.normal(size=(4, 4)),
        "emit": rng.normal(size=(4, 5)),
    }
    seqs = rng.integers(0, 5, size=(6, 7))
    return cast((params, (seqs,)), dtype)


# Points placed so that their distances fit given ones


def stress_loss(params, dissim, weight):
    z = params["points"]
    diff = z[:, None] - z[None, :]
    sq = jnp.sum(diff**2, axis=-1)
    off = ~jnp.eye(z.shape[0], dtype=bool)
    dist = jnp.where(off, jnp.sqrt(jnp.where(off, sq, 1.0)), 0.0)
    fit = params["slope"] * dist + params["shift"]
    w = jnp.where(off, weight, 0.0)
    return jnp.sum(w * (fit - dissim) ** 2) / jnp.sum(w)


def stress_grad(params, dissim, weight, guard=True):
    z = params["points"]
    diff = z[:, None] - z[None, :]
    eye = jnp.eye(z.shape[0], dtype=z.dtype)
    dist = jnp.sqrt(jnp.sum(diff**2, axis=-1))
    w = weight * (1 - eye)
    err = 2 * w * (params["slope"] * dist + params["shift"] - dissim) / w.sum()
    d_dist = params["slope"] * err
    bottom = dist + eye if guard else dist
    pull = (d_dist / bottom)[:, :, None] * diff
    return {
        "points": pull.sum(axis=1) - pull.sum(axis=0),
        "slope": jnp.sum(err * dist),
        "shift": err.sum(),
    }


def make_stress(dtype):
    rng = np.random.default_rng(888)
    n = 6
    params = {
        "points": rng.normal(size=(n, 2)),
        "slope": np.array(1.3),
        "shift": np.array(0.2),
    }
    dissim = rng.uniform(0.5, 3.0, size=(n, n))
    np.fill_diagonal(dissim, 0.0)
    weight = rng.uniform(0.2, 1.0, size=(n, n))
    return cast((params, (dissim, weight)), dtype)


# A smooth curve through points with outliers: bumps, a Huber loss, a roughness penalty

HUBER = 0.6


ROUGH = 0.3


def curve_loss(params, design, y):
    e = design @ params["coef"] + params["level"] - y
    small = 0.5 * e**2
    large = HUBER * (jnp.abs(e) - 0.5 * HUBER)
    rough = jnp.sum((params["coef"][1:] - params["coef"][:-1]) ** 2)
    return jnp.sum(jnp.where(jnp.abs(e) <= HUBER, small, large)) + ROUGH * rough


def curve_grad(params, design, y, wrap=False, limit=None):
    c = params["coef"]
    e = design @ c + params["level"] - y
    psi = jnp.clip(e, -HUBER, HUBER)
    if wrap:
        rough = 2 * c - jnp.roll(c, 1) - jnp.roll(c, -1)
    else:
        step = c[1:] - c[:-1]
        rough = jnp.concatenate([-step[:1], step[:-1] - step[1:], step[-1:]])
    g_coef = design.T @ psi + 2 * ROUGH * rough
    if limit is not None:
        g_coef = jnp.clip(g_coef, -limit, limit)
    return {"coef": g_coef, "level": jnp.sum(psi)}


def make_curve(dtype):
    rng = np.random.default_rng(999)
    t = np.sort(rng.uniform(0, 1, size=10))
    centers = np.linspace(0, 1, 8)
    design = np.exp(-0.5 * ((t[:, None] - centers) / 0.12) ** 2)
    y = np.sin(5 * t) + 0.3 * rng.normal(size=10)
    y[3] += 2.5
    y[7] -= 2.0
    params = {"coef": 0.8 * rng.normal(size=8), "level": np.array(0.3)}
    return cast((params, (design, y)), dtype)


# Ordered classes, with cuts kept in order and an elastic net on the weights

L1, L2 = 0.08, 0.03


def _cuts(raw):
    return jnp.cumsum(jnp.concatenate([raw[:1], jax.nn.softplus(raw[1:])]))


def ordinal_loss(params, x, grade):
    eta = x @ params["w"]
    below = jax.nn.sigmoid(_cuts(params["raw"])[None, :] - eta[:, None])
    n = x.shape[0]
    cdf = jnp.concatenate([jnp.zeros((n, 1), x.dtype), below, jnp.ones((n, 1), x.dtype)], axis=1)
    prob = jnp.take_along_axis(cdf[:, 1:] - cdf[:, :-1], grade[:, None], axis=1)
    nll = -jnp.mean(jnp.log(prob))
    return nll + L1 * jnp.sum(jnp.abs(params["w"])) + 0.5 * L2 * jnp.sum(params["w"] ** 2)


def ordinal_grad(params, x, grade, l1=L1, momentum=0.0):
    def at(p):
        eta = x @ p["w"]
        n, n_cut = x.shape[0], p["raw"].shape[0]
        s = jax.nn.sigmoid(_cuts(p["raw"])[None, :] - eta[:, None])
        ds = s * (1 - s)
        cols = jnp.arange(n_cut)[None, :]
        upper = (cols == grade[:, None]).astype(x.dtype)  # the cut above the grade
        lower = (cols == grade[:, None] - 1).astype(x.dtype)  # the cut below it
        hi = jnp.where(grade < n_cut, jnp.sum(upper * s, axis=1), 1.0)
        lo = jnp.sum(lower * s, axis=1)
        d_z = -(upper - lower) * ds / (hi - lo)[:, None] / n  # by each cut minus eta
        d_w = -x.T @ d_z.sum(axis=1)
        d_cut = d_z.sum(axis=0)
        tail = jnp.cumsum(d_cut[::-1])[::-1]
        d_raw = jnp.concatenate([tail[:1], tail[1:] * jax.nn.sigmoid(p["raw"][1:])])
        return {"w": d_w + l1 * jnp.sign(p["w"]) + L2 * p["w"], "raw": d_raw}

    grads = at(params)
    if momentum:
        # the buffer still holds the gradient at where the last step came from
        last = at({"w": params["w"] + 0.4, "raw": params["raw"] - 0.3})
        grads = {k: grads[k] + momentum * last[k] for k in grads}
    return grads


def make_ordinal(dtype):
    rng = np.random.default_rng(1010)
    params = {"w": rng.normal(size=6) * 0.7, "raw": np.array([-1.2, 0.1, 0.4, -0.2])}
    x = rng.normal(size=(10, 6))
    grade = np.array([0, 3, 2, 4, 1, 2, 0, 4, 3, 1])
    return cast((params, (x, grade)), dtype)


# Phases from intensities


def phase_loss(params, a_re, a_im, intensity):
    z = params["amp"] * jnp.exp(1j * params["phase"])
    u = (a_re + 1j * a_im) @ z
    model = jnp.real(u * jnp.conj(u)) + params["background"]
    return jnp.mean((model - intensity) ** 2)


def phase_grad(params, a_re, a_im, intensity, keep_complex=False):
    rot = jnp.exp(1j * params["phase"])
    z = params["amp"] * rot
    a = a_re + 1j * a_im
    u = a @ z
    res = u.real**2 + u.imag**2 + params["background"] - intensity
    d_model = 2.0 * res / res.size
    g_z = a.conj().T @ (2.0 * d_model * u)
    d_amp = jnp.conj(rot) * g_z
    if not keep_complex:
        d_amp = d_amp.real
    return {
        "amp": d_amp,
        "phase": jnp.imag(jnp.conj(z) * g_z),
        "background": d_model.sum(),
    }


def make_phase(dtype):
    rng = np.random.default_rng(1111)
    n, m = 5, 8
    params = {
        "amp": rng.uniform(0.5, 1.5, size=n),
        "phase": rng.uniform(-2.0, 2.0, size=n),
        "background": np.array(0.1),
    }
    a_re = rng.normal(size=(m, n)) * 0.6
    a_im = rng.normal(size=(m, n)) * 0.6
    intensity = rng.uniform(0.5, 4.0, size=m)
    return cast((params, (a_re, a_im, intensity)), dtype)


# The cases

F32 = ("float32",)


BOTH = ("float64", "float32")
