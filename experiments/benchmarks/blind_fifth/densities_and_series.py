"""A robust likelihood, a maxout network, an autoregression and complex least squares."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import digamma, gammaln

from experiments.benchmarks.blind_fifth.attention_and_cells import cast

# Student-t likelihood


def student_loss(params, x, y):
    nu, scale = jnp.exp(params["log_df"]), jnp.exp(params["log_scale"])
    z = (y - x @ params["w"] - params["b"]) / scale
    const = gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * jnp.log(nu * np.pi) - params["log_scale"]
    return -jnp.sum(const - (nu + 1) / 2 * jnp.log1p(z**2 / nu))


def student_grad(params, x, y, limit=None):
    nu, scale = jnp.exp(params["log_df"]), jnp.exp(params["log_scale"])
    z = (y - x @ params["w"] - params["b"]) / scale
    pull = (nu + 1) * z / (nu + z**2)
    dloc = -pull / scale
    dlog_scale = jnp.sum(1 - pull * z)
    dnu = (
        0.5 * digamma(nu / 2)
        - 0.5 * digamma((nu + 1) / 2)
        + 0.5 / nu
        + 0.5 * jnp.log1p(z**2 / nu)
        - 0.5 * pull * z / nu
    )
    grads = {"w": x.T @ dloc, "b": dloc.sum(), "log_scale": dlog_scale, "log_df": nu * dnu.sum()}
    if limit is not None:
        grads = {name: jnp.clip(g, -limit, limit) for name, g in grads.items()}
    return grads


def student_make(dtype):
    rng = np.random.default_rng(211)
    params = {
        "w": rng.normal(size=6),
        "b": np.array(0.3),
        "log_scale": np.array(-0.2),
        "log_df": np.array(1.1),
    }
    args = (rng.normal(size=(10, 6)), rng.standard_t(3, size=10) * 1.5)
    return cast(params, dtype), cast(args, dtype)


# Maxout network


def maxout_loss(params, x, y):
    z = jnp.einsum("nd,dpk->npk", x, params["w"]) + params["b"]
    return jnp.mean((jnp.max(z, axis=1) @ params["out"] - y) ** 2)


def maxout_grad(params, x, y, full_chunks_only=False, chunk=4):
    n = x.shape[0]
    pieces = params["w"].shape[1]
    dw, db, dout = (jnp.zeros_like(params[k]) for k in ("w", "b", "out"))
    n_chunks = n // chunk if full_chunks_only else -(-n // chunk)
    for i in range(n_chunks):
        xs, ys = x[i * chunk : (i + 1) * chunk], y[i * chunk : (i + 1) * chunk]
        z = jnp.einsum("nd,dpk->npk", xs, params["w"]) + params["b"]
        winner = jnp.argmax(z, axis=1)
        h = jnp.max(z, axis=1)
        dpred = 2 * (h @ params["out"] - ys) / y.size
        dout = dout + h.T @ dpred
        dh = dpred @ params["out"].T
        dz = jax.nn.one_hot(winner, pieces, axis=1, dtype=x.dtype) * dh[:, None, :]
        dw = dw + jnp.einsum("nd,npk->dpk", xs, dz)
        db = db + dz.sum(axis=0)
    return {"w": dw, "b": db, "out": dout}


def maxout_make(dtype):
    rng = np.random.default_rng(212)
    params = {
        "w": rng.normal(size=(4, 3, 5)) * 0.6,
        "b": rng.normal(size=(3, 5)) * 0.3,
        "out": rng.normal(size=(5, 2)) * 0.6,
    }
    args = (rng.normal(size=(10, 4)), rng.normal(size=(10, 2)))
    return cast(params, dtype), cast(args, dtype)


# Autoregression by scan: the model runs on its own predictions, driven by an input


def ar_loss(params, drive, y):
    def run(drive_i, y_i):
        def step(lags, inputs):
            u, target = inputs
            s = params["phi"] @ lags + params["gain"] @ u + params["b"]
            return jnp.concatenate([s[None], lags[:-1]]), (s - target) ** 2

        _, errors = lax.scan(step, jnp.zeros_like(params["phi"]), (drive_i, y_i))
        return jnp.mean(errors)

    return jnp.sum(jax.vmap(run)(drive, y))


def ar_grad(params, drive, y, not_cleared=False, unit_norm=False):
    phi, gain, b = params["phi"], params["gain"], params["b"]
    length = y.shape[1]

    def simulate(lags, u):
        s = phi @ lags + gain @ u + b
        return jnp.concatenate([s[None], lags[:-1]]), (lags, s)

    def adjoint(carry, saved):
        dlags, dphi, dgain, db = carry
        lags, s, u, target = saved
        # the new lags are [s, old lags without the last]
        ds = dlags[0] + 2 * (s - target) / length
        dlags = jnp.concatenate([dlags[1:], jnp.zeros_like(dlags[:1])]) + ds * phi
        return (dlags, dphi + ds * lags, dgain + ds * u, db + ds), None

    empty = (jnp.zeros_like(phi), jnp.zeros_like(gain), jnp.zeros_like(b))
    total, acc = empty, empty
    for drive_i, y_i in zip(drive, y, strict=False):
        _, (lags, s) = lax.scan(simulate, jnp.zeros_like(phi), drive_i)
        if not not_cleared:
            acc = empty
        (_, *acc), _ = lax.scan(adjoint, (jnp.zeros_like(phi), *acc), (lags, s, drive_i, y_i), reverse=True)
        total = tuple(t + a for t, a in zip(total, acc, strict=False))
    grads = dict(zip(("phi", "gain", "b"), total, strict=False))
    if unit_norm:
        length = jnp.sqrt(sum(jnp.sum(g**2) for g in grads.values()))
        grads = {name: g / length for name, g in grads.items()}
    return grads


def ar_make(dtype):
    rng = np.random.default_rng(213)
    params = {"phi": np.array([0.6, -0.3, 0.15]), "gain": rng.normal(size=2), "b": np.array(0.25)}
    args = (rng.normal(size=(5, 8, 2)), rng.normal(size=(5, 8)))
    return cast(params, dtype), cast(args, dtype)


# Complex least squares: a channel and a signal, with a penalty on the signal

TIKHONOV = 0.1


def complex_ls_loss(params, a, y):
    r = a @ (params["channel"] * params["signal"]) - y
    return jnp.mean(jnp.abs(r) ** 2) + TIKHONOV * jnp.sum(jnp.abs(params["signal"]) ** 2)


def complex_ls_grad(params, a, y, steepest=False):
    """As jax.grad has it: d/d(real) - i d/d(imaginary)."""
    h, s = params["channel"], params["signal"]
    r = a @ (h * s) - y
    back = 2 * (a.T @ jnp.conj(r)) / y.shape[0]
    grads = {"channel": back * s, "signal": back * h + 2 * TIKHONOV * jnp.conj(s)}
    if steepest:
        grads = {name: jnp.conj(g) for name, g in grads.items()}
    return grads


def complex_ls_make(dtype):
    rng = np.random.default_rng(214)

    def draw(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    params = {"channel": draw(4), "signal": draw(4)}
    args = (draw(7, 4), draw(7))
    return cast(params, dtype), cast(args, dtype)
