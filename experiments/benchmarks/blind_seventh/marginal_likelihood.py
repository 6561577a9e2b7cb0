"""Marginal likelihood of a Gaussian process with a length for each input; and more."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp

from experiments.benchmarks.blind_seventh.graph_attention import cast

# marginal likelihood of a Gaussian process with a length for each input


def gp_kernel(params, x):
    length = jnp.exp(params["log_len"])
    diff = x[:, None, :] - x[None, :, :]
    k = jnp.exp(2.0 * params["log_amp"] - 0.5 * jnp.sum((diff / length) ** 2, -1))
    return length, diff, k, k + jnp.exp(2.0 * params["log_noise"]) * jnp.eye(x.shape[0], dtype=x.dtype)


def gp_loss(params, x, y):
    ky = gp_kernel(params, x)[-1]
    r = y - params["mean"]
    chol = jnp.linalg.cholesky(ky)
    half = jax.scipy.linalg.solve_triangular(chol, r, lower=True)
    return 0.5 * half @ half + jnp.sum(jnp.log(jnp.diag(chol)))


def gp_grad(params, x, y, by_length=False):
    length, diff, k, ky = gp_kernel(params, x)
    inv = jnp.linalg.inv(ky)
    alpha = inv @ (y - params["mean"])
    dk = 0.5 * (inv - jnp.outer(alpha, alpha))
    weight = dk * k
    dlength = jnp.einsum("ij,ijd->d", weight, diff**2) / length**3
    return {
        "log_len": dlength if by_length else dlength * length,
        "log_amp": 2.0 * jnp.sum(weight),
        "log_noise": 2.0 * jnp.exp(2.0 * params["log_noise"]) * jnp.trace(dk),
        "mean": -jnp.sum(alpha),
    }


def gp_make(dtype):
    r = np.random.default_rng(203)
    params = {
        "log_len": np.array([-0.6, 0.5, 0.9]),
        "log_amp": np.array(0.2),
        "log_noise": np.array(-0.7),
        "mean": np.array(0.3),
    }
    x = r.normal(size=(7, 3))
    return cast(params, dtype), cast((x, np.sin(x.sum(1)) + 0.3 * r.normal(size=7)), dtype)


# tuning the feedback of a pendulum with an actuator, by the adjoint of the simulation

DT = 0.2


STEPS = 7


COST = np.array([2.0, 0.3, 0.1])


INPUT = np.array([[0.0, 0.4], [0.0, 0.7], [1.5, 0.2]])  # state by control


def pend_control(params, x):
    return jnp.tanh(x @ params["gain"].T + params["trim"])


def pend_step(x, u):
    th, om, ac = x[:, 0], x[:, 1], x[:, 2]
    rate = jnp.stack([om, 2.0 * jnp.sin(th) - 0.1 * om + ac, -1.5 * ac], axis=1)
    return x + DT * (rate + u @ jnp.asarray(INPUT, x.dtype).T)


def pend_loss(params, x0):
    cost = jnp.asarray(COST, x0.dtype)

    def step(x, _):
        u = pend_control(params, x)
        x = pend_step(x, u)
        return x, jnp.sum(cost * x * x) + 0.05 * jnp.sum(u * u)

    _, costs = lax.scan(step, x0, None, length=STEPS)
    return jnp.sum(costs) / x0.shape[0]


def pend_grad(params, x0, jacobian_as_is=False, limit=None):
    n = x0.shape[0]
    cost = jnp.asarray(COST, x0.dtype)
    inp = jnp.asarray(INPUT, x0.dtype)

    def forward(x, _):
        return pend_step(x, pend_control(params, x)), x

    last, xs = lax.scan(forward, x0, None, length=STEPS)
    after = jnp.concatenate([xs[1:], last[None]])

    def backward(lam, inp_t):
        x, x_next = inp_t
        u = pend_control(params, x)
        lam = lam + 2.0 * cost * x_next / n
        zero, one = jnp.zeros(n, x.dtype), jnp.ones(n, x.dtype)
        rows = [
            jnp.stack([one, DT * one, zero], 1),
            jnp.stack([2.0 * DT * jnp.cos(x[:, 0]), (1 - 0.1 * DT) * one, DT * one], 1),
            jnp.stack([zero, zero, (1 - 1.5 * DT) * one], 1),
        ]
        jac = jnp.stack(rows, axis=1)  # batch, to, from
        du = DT * lam @ inp + 0.1 * u / n
        dv = du * (1.0 - u * u)
        grads = (dv.T @ x, dv.sum(0))
        lam = jnp.einsum("bij,bj->bi", jac, lam) if jacobian_as_is else jnp.einsum("bji,bj->bi", jac, lam)
        return lam + dv @ params["gain"], grads

    _, (dgain, dtrim) = lax.scan(backward, jnp.zeros_like(x0), (xs, after), reverse=True)
    grads = {"gain": dgain.sum(0), "trim": dtrim.sum(0)}
    if limit is not None:
        grads = {name: jnp.clip(g, -limit, limit) for name, g in grads.items()}
    return grads


def pend_make(dtype):
    r = np.random.default_rng(204)
    params = {"gain": r.normal(size=(2, 3)) * 0.6, "trim": r.normal(size=2) * 0.3}
    return cast(params, dtype), cast((r.normal(size=(6, 3)) * 0.8,), dtype)


# GARCH likelihood of several series


def garch_variances(params, ret, start):
    def step(var, r):
        new = params["omega"] + params["alpha"] * r * r + params["beta"] * var
        return new, new

    _, rest = lax.scan(step, start, ret[:-1])
    return jnp.concatenate([start[None], rest])


def garch_loss(params, ret, start):
    var = garch_variances(params, ret, start)
    return 0.5 * jnp.mean(jnp.log(var) + ret**2 / var)


def garch_grad(params, ret, start, todays_return=False):
    var = garch_variances(params, ret, start)
    direct = 0.5 * (1.0 / var - ret**2 / var**2) / ret.size

    def step(carry, g):
        lam = g + params["beta"] * carry
        return lam, lam

    _, lam = lax.scan(step, jnp.zeros_like(start), direct[1:], reverse=True)
    shock = ret[1:] if todays_return else ret[:-1]
    return {
        "omega": lam.sum(0),
        "alpha": jnp.sum(lam * shock**2, axis=0),
        "beta": jnp.sum(lam * var[:-1], axis=0),
    }


def garch_make(dtype):
    r = np.random.default_rng(205)
    params = {
        "omega": r.uniform(0.1, 0.4, size=5),
        "alpha": r.uniform(0.1, 0.4, size=5),
        "beta": r.uniform(0.3, 0.7, size=5),
    }
    return cast(params, dtype), cast((r.normal(size=(8, 5)) * 1.2, r.uniform(0.5, 1.5, size=5)), dtype)


# hidden Markov model of marker sequences


def hmm_tables(params):
    return (
        jax.nn.log_softmax(params["init"]),
        jax.nn.log_softmax(params["trans"], axis=1),
        jax.nn.log_softmax(params["emit"], axis=1),
    )


def hmm_forward(params, obs):
    log_i, log_t, log_e = hmm_tables(params)
    emitted = log_e.T[obs]  # batch, time, state

    def step(a, e):
        a = logsumexp(a[:, :, None] + log_t, axis=1) + e
        return a, a

    first = log_i + emitted[:, 0]
    _, rest = lax.scan(step, first, emitted[:, 1:].swapaxes(0, 1))
    return emitted, jnp.concatenate([first[None], rest])


def hmm_loss(params, obs):
    return -jnp.mean(logsumexp(hmm_forward(params, obs)[1][-1], axis=1))


def hmm_grad(params, obs, columns=False):
    n = obs.shape[0]
    log_i, log_t, log_e = hmm_tables(params)
    emitted, alpha = hmm_forward(params, obs)
    loglik = logsumexp(alpha[-1], axis=1)

    def step(b, e):
        b = logsumexp(log_t + (b + e)[:, None, :], axis=2)
        return b, b

    last = jnp.zeros_like(alpha[-1])
    later = emitted[:, 1:].swapaxes(0, 1)
    _, rest = lax.scan(step, last, later, reverse=True)
    beta = jnp.concatenate([rest, last[None]])

    gamma = jnp.exp(alpha + beta - loglik[:, None])
    xi = jnp.exp(alpha[:-1, :, :, None] + log_t + (later + beta[1:])[:, :, None, :] - loglik[:, None, None])
    count_i = gamma[0].sum(0)
    count_t = xi.sum((0, 1))
    seen = jax.nn.one_hot(obs, log_e.shape[1], dtype=alpha.dtype)
    count_e = jnp.einsum("tbs,btv->sv", gamma, seen)

    d_init = count_i - jnp.exp(log_i) * count_i.sum()
    d_trans = count_t - jnp.exp(log_t) * count_t.sum(0 if columns else 1, keepdims=True)
    d_emit = count_e - jnp.exp(log_e) * count_e.sum(1, keepdims=True)
    return {"init": -d_init / n, "trans": -d_trans / n, "emit": -d_emit / n}


def hmm_make(dtype):
    r = np.random.default_rng(206)
    params = {"init": r.normal(size=3), "trans": r.normal(size=(3, 3)), "emit": r.normal(size=(3, 4))}
    return cast(params, dtype), cast((r.integers(0, 4, size=(5, 7)),), dtype)


# Bayesian personalized ranking

RIDGE = 0.06


def bpr_margin(params, user, good, bad):
    taste = params["item"][good] - params["item"][bad]
    return taste, jnp.sum(params["user"][user] * taste, 1) + params["bias"][good] - params["bias"][bad]


def bpr_loss(params, user, good, bad):
    margin = bpr_margin(params, user, good, bad)[1]
    ridge = jnp.sum(params["user"] ** 2) + jnp.sum(params["item"] ** 2)
    return jnp.mean(jax.nn.softplus(-margin)) + RIDGE * ridge


def bpr_grad(params, user, good, bad, free_items=False):
    taste, margin = bpr_margin(params, user, good, bad)
    dmargin = -jax.nn.sigmoid(-margin)[:, None] / user.shape[0]
    ditem_row = dmargin * params["user"][user]
    duser = jnp.zeros_like(params["user"]).at[user].add(dmargin * taste)
    ditem = jnp.zeros_like(params["item"]).at[good].add(ditem_row).at[bad].add(-ditem_row)
    dbias = jnp.zeros_like(params["bias"]).at[good].add(dmargin[:, 0]).at[bad].add(-dmargin[:, 0])
    duser = duser + 2.0 * RIDGE * params["user"]
    if not free_items:
        ditem = ditem + 2.0 * RIDGE * params["item"]
    return {"user": duser, "item": ditem, "bias": dbias}


def bpr_make(dtype):
    r = np.random.default_rng(207)
    params = {"user": r.normal(size=(5, 3)), "item": r.normal(size=(6, 3)), "bias": r.normal(size=6) * 0.3}
    user = np.array([0, 1, 2, 3, 4, 0, 2, 4])
    good = np.array([0, 1, 2, 3, 4, 5, 0, 2])
    bad = np.array([1, 2, 3, 4, 5, 2, 4, 1])
    return cast(params, dtype), cast((user, good, bad), dtype)


# Lennard-Jones energy in a periodic box, with positions restrained

BOX = 4.0


def lj_pairs(params, kind, i, j):
    d = params["pos"][i] - params["pos"][j]
    d = d - BOX * jnp.round(d / BOX)
    r2 = jnp.sum(d * d, axis=1)
    log_eps = 0.5 * (params["log_eps"][kind[i]] + params["log_eps"][kind[j]])
    return d, r2, jnp.exp(log_eps), 1.0 / r2**3


def lj_loss(params, kind, i, j, ref):
    _, _, eps, s6 = lj_pairs(params, kind, i, j)
    energy = jnp.sum(4.0 * eps * (s6 * s6 - s6))
    return energy / ref.shape[0] + 0.5 * jnp.mean((params["pos"] - ref) ** 2)


def lj_grad(params, kind, i, j, ref, no_reaction=False):
    n = ref.shape[0]
    d, r2, eps, s6 = lj_pairs(params, kind, i, j)
    pair = 4.0 * eps * (s6 * s6 - s6) / n
    # dE/d(r^2) = 4 eps (-6 s12 + 3 s6) / r^2
    push = 4.0 * eps * (3.0 * s6 - 6.0 * s6 * s6) / r2 / n
    f = 2.0 * push[:, None] * d
    dpos = (params["pos"] - ref) / ref.size
    dpos = dpos.at[i].add(f)
    if not no_reaction:
        dpos = dpos.at[j].add(-f)
    deps = jnp.zeros_like(params["log_eps"]).at[kind[i]].add(0.5 * pair).at[kind[j]].add(0.5 * pair)
    return {"pos": dpos, "log_eps": deps}


def lj_make(dtype):
    r = np.random.default_rng(208)
    grid = np.array([[0, 0, 0], [1.3, 0, 0.2], [0, 1.35, 0], [0.1, 0, 1.3], [1.4, 1.3, 0], [1.3, 0.1, 1.5]]) + 0.3
    pos = grid + 0.08 * r.normal(size=(6, 3))
    i, j = np.triu_indices(6, 1)
    params = {"pos": pos, "log_eps": np.array([0.2, -0.4])}
    return cast(params, dtype), cast((np.array([0, 1, 0, 0, 1, 1]), i, j, grid), dtype)


# volume rendering of rays


def render(params, feat, step):
    pre = feat @ params["w_sigma"]
    rgb = jax.nn.sigmoid(feat @ params["w_rgb"] + params["b_rgb"])
    tau = jax.nn.softplus(pre) * step
    after = jnp.exp(-jnp.cumsum(tau, axis=1))
    before = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)
    weight = before - after
    colour = jnp.einsum("rs,rsc->rc", weight, rgb) + after[:, -1:] * params["sky"]
    return pre, rgb, after, weight, colour


def render_loss(params, feat, step, target):
    return jnp.mean((render(params, feat, step)[-1] - target) ** 2)


def render_grad(params, feat, step, target, blue_first=False):
    pre, rgb, after, weight, colour = render(params, feat, step)
    dcolour = 2.0 * (colour - target) / colour.size
    dsky = jnp.sum(after[:, -1:] * dcolour, axis=0)
    dlogit = weight[..., None] * dcolour[:, None, :] * rgb * (1.0 - rgb)
    dw_rgb = jnp.einsum("rsf,rsc->fc", feat, dlogit)
    db_rgb = dlogit.sum((0, 1))
    if blue_first:
        dw_rgb = dw_rgb[:, ::-1]

    # a denser sample hides what lies behind it
    gain = jnp.einsum("rc,rsc->rs", dcolour, rgb)
    seen = gain * weight
    behind = jnp.cumsum(seen[:, ::-1], axis=1)[:, ::-1] - seen
    sky = jnp.sum(dcolour * params["sky"], axis=1, keepdims=True) * after[:, -1:]
    dtau = gain * after - behind - sky
    dpre = dtau * step * jax.nn.sigmoid(pre)
    return {"w_sigma": jnp.einsum("rsf,rs->f", feat, dpre), "w_rgb": dw_rgb, "b_rgb": db_rgb, "sky": dsky}


def render_make(dtype):
    r = np.random.default_rng(209)
    params = {
        "w_sigma": r.normal(size=4),
        "w_rgb": r.normal(size=(4, 3)),
        "b_rgb": r.normal(size=3) * 0.5,
        "sky": r.uniform(0, 1, size=3),
    }
    args = (r.normal(size=(5, 7, 4)), r.uniform(0.1, 0.5, size=(5, 7)), r.uniform(0, 1, size=(5, 3)))
    return cast(params, dtype), cast(args, dtype)
