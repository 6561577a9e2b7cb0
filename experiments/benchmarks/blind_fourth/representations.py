"""Distances, two views, a state space and linear attention, with gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.benchmarks.blind_fourth.sequences import draw

# Siamese pairs with a margin

MARGIN = 1.5


def siamese_forward(params, x1, x2):
    f1, f2 = (jnp.tanh(x @ params["w"] + params["b"]) for x in (x1, x2))
    return f1, f2, jnp.sqrt(((f1 - f2) ** 2).sum(-1) + 1e-6)


def siamese_loss(params, x1, x2, same):
    """Squared distance of equal pairs, squared shortfall from the margin of the others."""
    d = siamese_forward(params, x1, x2)[-1]
    return jnp.mean(jnp.where(same, d**2, jax.nn.relu(MARGIN - d) ** 2))


def siamese_grad(params, x1, x2, same, bug=None):
    f1, f2, d = siamese_forward(params, x1, x2)
    active = d > MARGIN if bug == "hinge_inverted" else d < MARGIN
    dd = jnp.where(same, 2 * d, jnp.where(active, -2 * (MARGIN - d), 0.0)) / d.shape[0]
    df = (dd / d)[:, None] * (f1 - f2)
    g1, g2 = df * (1 - f1**2), -df * (1 - f2**2)
    return {"w": x1.T @ g1 + x2.T @ g2, "b": (g1 + g2).sum(0)}


def siamese_make(dtype):
    rng = np.random.default_rng(113)
    params = draw(rng, dtype, 0.7, w=(4, 3), b=(3,))
    args = draw(rng, dtype, 1.0, x1=(8, 4), x2=(8, 4))
    return params, (args["x1"], args["x2"], jnp.arange(8) % 3 == 0)


# A predictor of the other view, whose own branch is stopped


def views_forward(params, x1, x2):
    f1, f2 = jnp.tanh(x1 @ params["w"]), jnp.tanh(x2 @ params["w"])
    return f1, f2, f1 @ params["p"]


def views_loss(params, x1, x2):
    """Squared error between the prediction and the stopped features of the other view."""
    _, f2, y = views_forward(params, x1, x2)
    return 0.5 * jnp.mean((y - lax.stop_gradient(f2)) ** 2)


def views_grad(params, x1, x2, bug=None):
    f1, f2, y = views_forward(params, x1, x2)
    dy = (y - f2) / y.size
    dw = x1.T @ ((dy @ params["p"].T) * (1 - f1**2))
    if bug == "through_target":
        dw = dw - x2.T @ (dy * (1 - f2**2))
    return {"w": dw, "p": f1.T @ dy}


def views_make(dtype):
    rng = np.random.default_rng(114)
    params = draw(rng, dtype, 0.7, w=(5, 3), p=(3, 3))
    args = draw(rng, dtype, 1.0, x1=(6, 5), x2=(6, 5))
    return params, (args["x1"], args["x2"])


# A diagonal state space with complex poles


def ssm_forward(params, x):
    pole = jnp.exp(-jnp.exp(params["log_nu"]) + 1j * params["theta"])
    read = params["c_re"] + 1j * params["c_im"]

    def step(h, xt):
        new = pole * h + xt @ params["b"]
        return new, (h, new)

    start = jnp.zeros((x.shape[0], pole.shape[0]), pole.dtype)
    _, (before, after) = lax.scan(step, start, x.swapaxes(0, 1))
    return pole, read, before, after, (after @ read).real


def ssm_loss(params, x, target):
    """Real part of what a complex linear recurrence gives at each step, squared error."""
    return 0.5 * jnp.mean((ssm_forward(params, x)[-1].swapaxes(0, 1) - target) ** 2)


def ssm_grad(params, x, target, bug=None):
    """Gradients as (by real part) + i (by imaginary part), so that factors come conjugated."""
    pole, read, before, after, y = ssm_forward(params, x)
    dy = (y - target.swapaxes(0, 1)) / y.size
    back = pole if bug == "pole_not_conjugated" else pole.conj()

    def step(carry, at):
        dnext, dpole, db = carry
        dyt, h, xt = at
        dh = dyt @ read.conj().T + dnext
        return (back * dh, dpole + (h.conj() * dh).sum(0), db + (xt.T @ dh).real), None

    start = (jnp.zeros_like(before[0]), jnp.zeros_like(pole), jnp.zeros_like(params["b"]))
    (_, dpole, db), _ = lax.scan(step, start, (dy, before, x.swapaxes(0, 1)), reverse=True)
    dexponent = pole.conj() * dpole
    dread = jnp.einsum("tbn,tbo->no", after.conj(), dy)
    return {
        "log_nu": -jnp.exp(params["log_nu"]) * dexponent.real,
        "theta": dexponent.imag,
        "b": db,
        "c_re": dread.real,
        "c_im": dread.imag,
    }


def ssm_make(dtype):
    rng = np.random.default_rng(115)
    params = draw(rng, dtype, 0.7, log_nu=(4,), theta=(4,), b=(2, 4), c_re=(4, 3), c_im=(4, 3))
    params["log_nu"] = params["log_nu"] - 1.0
    args = draw(rng, dtype, 1.0, x=(3, 6, 2), target=(3, 6, 3))
    return params, (args["x"], args["target"])


# Linear attention as a recurrence with decay

FORGET = 0.9


def feature(x):
    return jax.nn.elu(x) + 1


def feature_slope(x):
    return jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0.0)))


def linear_forward(params, x):
    q, k, v = (x @ params[name] for name in ("wq", "wk", "wv"))
    s = jnp.zeros((x.shape[0], k.shape[-1], v.shape[-1]), x.dtype)
    z = jnp.zeros((x.shape[0], k.shape[-1]), x.dtype)
    states, outs = [], []
    for t in range(x.shape[1]):
        fk = feature(k[:, t])
        s = FORGET * s + fk[:, :, None] * v[:, t, None, :]
        z = FORGET * z + fk
        fq = feature(q[:, t])
        den = (fq * z).sum(-1, keepdims=True)
        outs.append(jnp.einsum("bk,bkv->bv", fq, s) / den)
        states.append((s, z, den))
    return q, k, v, states, jnp.stack(outs, 1)


def linear_loss(params, x, target):
    """Linear attention with positive features and a running denominator, squared error."""
    return 0.5 * jnp.mean((linear_forward(params, x)[-1] - target) ** 2)


def linear_grad(params, x, target, bug=None):
    q, k, v, states, y = linear_forward(params, x)
    dy = (y - target) / y.size
    ds, dz = jnp.zeros_like(states[0][0]), jnp.zeros_like(states[0][1])
    dwq, dwk, dwv = (jnp.zeros_like(params[name]) for name in ("wq", "wk", "wv"))
    for t in reversed(range(x.shape[1])):
        s, z, den = states[t]
        fq, fk = feature(q[:, t]), feature(k[:, t])
        dnum = dy[:, t] / den
        dden = -(dnum * y[:, t]).sum(-1, keepdims=True)
        if bug == "denominator_constant":
            dden = jnp.zeros_like(dden)
        dfq = jnp.einsum("bv,bkv->bk", dnum, s) + dden * z
        ds = ds + fq[:, :, None] * dnum[:, None, :]
        dz = dz + dden * fq
        dfk = jnp.einsum("bkv,bv->bk", ds, v[:, t]) + dz
        dwv = dwv + x[:, t].T @ jnp.einsum("bkv,bk->bv", ds, fk)
        dwq = dwq + x[:, t].T @ (dfq * feature_slope(q[:, t]))
        dwk = dwk + x[:, t].T @ (dfk * feature_slope(k[:, t]))
        ds, dz = FORGET * ds, FORGET * dz
    return {"wq": dwq, "wk": dwk, "wv": dwv}


def linear_make(dtype):
    rng = np.random.default_rng(116)
    params = draw(rng, dtype, 0.7, wq=(4, 3), wk=(4, 3), wv=(4, 2))
    args = draw(rng, dtype, 1.0, x=(3, 5, 4), target=(3, 5, 2))
    return params, (args["x"], args["target"])
