"""Recurrent nets: a peephole LSTM in a loop, a GRU in a scan, a masked bidirectional unit, a complex recurrence."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back, sigmoid
from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward


def lstm_forward(params, xs):
    """Time is the first axis; the input and forget gates see the old cell, the output gate the new one."""
    size = params["peep"].shape[1]
    h = c = jnp.zeros((xs.shape[1], size), xs.dtype)
    tape = []
    for x in xs:
        before = (h, c)
        zi, zf, zg, zo = jnp.split(x @ params["w"] + h @ params["u"] + params["b"], 4, axis=1)
        i, f, g = sigmoid(zi + params["peep"][0] * c), sigmoid(zf + params["peep"][1] * c), jnp.tanh(zg)
        c = f * c + i * g
        o = sigmoid(zo + params["peep"][2] * c)
        h = o * jnp.tanh(c)
        tape.append((x, *before, i, f, g, o, c, h))
    return tape, jnp.stack([entry[-1] for entry in tape]) @ params["out"]


def lstm_loss(params, xs, target):
    return mean_square(lstm_forward(params, xs)[1], target)


def lstm_gradient(
    d_hidden=lambda from_output, from_next: from_output + from_next,
    d_cell=lambda dc, dh, o, tc, dzo, peep: dc + dh * o * (1 - tc**2) + dzo * peep[2],
    d_forget=lambda dc, c_old, c: dc * c_old,
    candidate=lambda g: 1 - g**2,
    d_peep=lambda dzi, dzf, dzo, c_old, c: jnp.stack([(dzi * c_old).sum(0), (dzf * c_old).sum(0), (dzo * c).sum(0)]),
    d_recurrent=lambda h_old, h, dz: h_old.T @ dz,
):
    def grad_fn(params, xs, target):
        tape, ys = lstm_forward(params, xs)
        dys = mean_square_back(ys, target)
        grads = {name: jnp.zeros_like(value) for name, value in params.items()}
        dh_next, dc_next, peep = 0.0, 0.0, params["peep"]
        for (x, h_old, c_old, i, f, g, o, c, h), dy in zip(tape[::-1], dys[::-1], strict=True):
            tc = jnp.tanh(c)
            dh = d_hidden(dy @ params["out"].T, dh_next)
            dzo = dh * tc * o * (1 - o)
            dc = d_cell(dc_next, dh, o, tc, dzo, peep)
            dzi, dzf = dc * g * i * (1 - i), d_forget(dc, c_old, c) * f * (1 - f)
            dz = jnp.concatenate([dzi, dzf, dc * i * candidate(g), dzo], axis=1)
            dc_next = dc * f + dzi * peep[0] + dzf * peep[1]
            dh_next = dz @ params["u"].T
            step = {
                "w": x.T @ dz,
                "u": d_recurrent(h_old, h, dz),
                "b": dz.sum(axis=0),
                "peep": d_peep(dzi, dzf, dzo, c_old, c),
                "out": h.T @ dy,
            }
            grads = {name: grads[name] + step[name] for name in grads}
        return grads

    return grad_fn


def lstm_make(dtype):
    w, u, b, peep, out, xs, target = normal(dtype, 11, (2, 12), (3, 12), (12,), (3, 3), (3, 2), (4, 3, 2), (4, 3, 2))
    return {"w": w, "u": u * 0.7, "b": b, "peep": peep, "out": out}, (xs, target)


lstm = Problem("recurrent", lstm_loss, lstm_gradient, lstm_make)


def gru_scan(params, xs):
    """A GRU whose first state is learned; gives what each step needs later."""

    def step(h, x):
        ax, ah = x @ params["wx"] + params["bx"], h @ params["wh"] + params["bh"]
        xz, xr, xn = jnp.split(ax, 3, axis=-1)
        hz, hr, hn = jnp.split(ah, 3, axis=-1)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        n = jnp.tanh(xn + r * hn)
        return (1 - z) * n + z * h, (x, h, z, r, n, hn)

    start = jnp.broadcast_to(params["h0"], (xs.shape[1], len(params["h0"])))
    return jax.lax.scan(step, start, xs)


def gru_loss(params, xs, target):
    return squared_error(gru_scan(params, xs)[0] @ params["out"], target)


def gru_gradient(
    d_update=lambda dh, h, n: dh * (h - n),
    carry=lambda dh, z, back: dh * z + back,
    d_hidden_bias=lambda dx, dh: dh.sum(axis=(0, 1)),
    d_start=lambda dh: dh.sum(axis=0),
    d_reset=lambda dn, hn, h: dn * hn,
):
    def grad_fn(params, xs, target):
        last, tape = gru_scan(params, xs)
        dy = squared_error_backward(last @ params["out"], target)

        def step(dh, now):
            _x, h, z, r, n, hn = now
            dn = dh * (1 - z) * (1 - n**2)
            dz, dr = d_update(dh, h, n) * z * (1 - z), d_reset(dn, hn, h) * r * (1 - r)
            dx, dhid = jnp.concatenate([dz, dr, dn], -1), jnp.concatenate([dz, dr, dn * r], -1)
            return carry(dh, z, dhid @ params["wh"].T), (dx, dhid)

        first, (dx, dh) = jax.lax.scan(step, dy @ params["out"].T, tape, reverse=True)
        return {
            "wx": jnp.einsum("tbd,tbh->dh", xs, dx),
            "wh": jnp.einsum("tbd,tbh->dh", tape[1], dh),
            "bx": dx.sum(axis=(0, 1)),
            "bh": d_hidden_bias(dx, dh),
            "h0": d_start(first),
            "out": last.T @ dy,
        }

    return grad_fn


def gru_make(dtype):
    wx, wh, bx, bh, h0, out, xs, target = normal(
        dtype, 12, (3, 12), (4, 12), (12,), (12,), (4,), (4, 2), (5, 3, 3), (3, 2)
    )
    return {"wx": wx, "wh": wh * 0.6, "bx": bx, "bh": bh, "h0": h0, "out": out}, (xs, target)


gru = Problem("recurrent", gru_loss, gru_gradient, gru_make)


def unit_run(w, u, b, xs, keep):
    """A minimal gated unit in one direction over (time, batch, features); padded steps keep the state."""
    h = jnp.zeros((xs.shape[1], u.shape[0]), xs.dtype)
    size, tape = u.shape[0], []
    for x, m in zip(xs, keep, strict=True):
        f = sigmoid(x @ w[:, :size] + h @ u[:, :size] + b[:size])
        n = jnp.tanh(x @ w[:, size:] + (f * h) @ u[:, size:] + b[size:])
        tape.append((x, m, h, f, n))
        h = m * ((1 - f) * h + f * n) + (1 - m) * h
    return h, tape


def both_ways(params, xs, keep):
    runs = [
        unit_run(params["w"][k], params["u"][k], params["b"][k], xs[:: 1 - 2 * k], keep[:: 1 - 2 * k]) for k in (0, 1)
    ]
    return runs, jnp.concatenate([run[0] for run in runs], axis=1)


def two_way_loss(params, xs, keep, target):
    return mean_square(both_ways(params, xs, keep)[1] @ params["out"], target)


def two_way_gradient(
    into_step=lambda m, dh: m * dh,
    d_gate=lambda dh, h, n, d_gated: dh * (n - h) + d_gated * h,
    d_old=lambda dh, f, d_gated: dh * (1 - f) + d_gated * f,
    inputs=lambda tape: [entry[0] for entry in tape],
):
    def back(w, u, tape, dh):
        size = u.shape[0]
        dw, du, db = jnp.zeros_like(w), jnp.zeros_like(u), jnp.zeros(2 * size, u.dtype)
        for (_, m, h, f, n), x in zip(tape[::-1], inputs(tape)[::-1], strict=True):
            through = into_step(m, dh)
            dzn = through * f * (1 - n**2)
            d_gated = dzn @ u[:, size:].T
            dzf = d_gate(through, h, n, d_gated) * f * (1 - f)
            dz = jnp.concatenate([dzf, dzn], axis=1)
            dw += x.T @ dz
            du += jnp.concatenate([h.T @ dzf, (f * h).T @ dzn], axis=1)
            db += dz.sum(axis=0)
            dh = (1 - m) * dh + d_old(through, f, d_gated) + dzf @ u[:, :size].T
        return dw, du, db

    def grad_fn(params, xs, keep, target):
        runs, h = both_ways(params, xs, keep)
        dy = mean_square_back(h @ params["out"], target)
        halves = jnp.split(dy @ params["out"].T, 2, axis=1)
        parts = [back(params["w"][k], params["u"][k], runs[k][1], halves[k]) for k in (0, 1)]
        dw, du, db = (jnp.stack(pair) for pair in zip(*parts, strict=True))
        return {"w": dw, "u": du, "b": db, "out": h.T @ dy}

    return grad_fn


def two_way_make(dtype):
    w, u, b, out, xs, target = normal(dtype, 13, (2, 2, 6), (2, 3, 6), (2, 6), (6, 2), (4, 3, 2), (3, 2))
    keep = (jnp.arange(4)[:, None] < jnp.array([4, 2, 3])[None, :]).astype(dtype)[..., None]
    return {"w": w, "u": u, "b": b, "out": out}, (xs, keep, target)


two_way = Problem("recurrent", two_way_loss, two_way_gradient, two_way_make)


def wave_forward(params, x):
    """h_t = λ h_{t-1} + γ B x_t with complex λ inside the unit circle, and y = Re(C h)."""
    rate = jnp.exp(params["nu"])
    lam = jnp.exp(-rate + 1j * params["theta"])
    gamma = jnp.sqrt(1 - jnp.exp(-2 * rate))
    b, c = params["b_re"] + 1j * params["b_im"], params["c_re"] + 1j * params["c_im"]
    driven = x @ b

    def step(h, now):
        h = lam * h + gamma * now
        return h, h

    hs = jax.lax.scan(step, jnp.zeros_like(driven[0]), driven)[1]
    return rate, lam, gamma, b, c, driven, hs, (hs @ c).real


def wave_loss(params, x, target):
    return mean_square(wave_forward(params, x)[-1], target)


def wave_gradient(
    pull=lambda lam, dh: jnp.conj(lam) * dh,
    earlier=lambda hs: jnp.concatenate([jnp.zeros_like(hs[:1]), hs[:-1]]),
    d_nu=lambda from_lam, from_gamma: from_lam + from_gamma,
    d_output=lambda hs, dy: jnp.conj(hs).T @ dy,
):
    def grad_fn(params, x, target):
        rate, lam, gamma, _b, c, driven, hs, y = wave_forward(params, x)
        dy = mean_square_back(y, target)

        def step(carry, now):
            dh = carry + now
            return pull(lam, dh), dh

        dhs = jax.lax.scan(step, jnp.zeros_like(hs[0]), dy @ jnp.conj(c).T, reverse=True)[1]
        d_log = jnp.sum(dhs * jnp.conj(earlier(hs)), axis=0) * jnp.conj(lam)
        d_gamma = jnp.sum(dhs * jnp.conj(driven), axis=0).real
        db, dc = x.T @ (gamma * dhs), d_output(hs, dy)
        return {
            "nu": d_nu(-rate * d_log.real, d_gamma * jnp.exp(-2 * rate) * rate / gamma),
            "theta": d_log.imag,
            "b_re": db.real,
            "b_im": db.imag,
            "c_re": dc.real,
            "c_im": dc.imag,
        }

    return grad_fn


def wave_make(dtype):
    nu, theta, b_re, b_im, c_re, c_im, x, target = normal(
        dtype, 14, (3,), (3,), (2, 3), (2, 3), (3, 2), (3, 2), (6, 2), (6, 2)
    )
    params = {"nu": nu * 0.4 - 1, "theta": theta, "b_re": b_re, "b_im": b_im, "c_re": c_re, "c_im": c_im}
    return params, (x, target)


wave = Problem("recurrent", wave_loss, wave_gradient, wave_make)
