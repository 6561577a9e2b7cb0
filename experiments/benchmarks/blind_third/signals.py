"""Filters by FFT, a learned piecewise linear function, sorted projections, tied embeddings with positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_third.tools import mean_square, mean_square_back
from experiments.benchmarks.catalogue.case import Problem, normal

LENGTH = 8
TWICE = np.array([1, 2, 2, 2, 1])
"""How often each frequency of a real signal of this length counts."""


def filter_forward(params, x):
    u = jnp.tanh(x * params["gain"])
    response = params["re"] + 1j * params["im"]
    spectrum = jnp.fft.rfft(u, axis=1)
    return u, response, spectrum, jnp.fft.irfft(spectrum * response, n=LENGTH, axis=1)


def filter_loss(params, x, target):
    return mean_square(filter_forward(params, x)[-1], target)


def filter_gradient(
    pull=lambda response: jnp.conj(response),
    against=lambda spectrum, d: jnp.conj(spectrum) * d,
    count=TWICE,
    d_gain=lambda dz, x: (dz * x).sum(axis=0),
    d_im=lambda d: d.imag.at[jnp.array([0, -1])].set(0),
):
    """The imaginary parts at the lowest and the highest frequency have no effect."""

    def grad_fn(params, x, target):
        u, response, spectrum, y = filter_forward(params, x)
        d = jnp.fft.rfft(mean_square_back(y, target), axis=1)
        d_response = against(spectrum, d).sum(axis=0) * count.astype(x.dtype) / LENGTH
        real = response.at[jnp.array([0, -1])].set(response[jnp.array([0, -1])].real)
        du = jnp.fft.irfft(d * pull(real), n=LENGTH, axis=1)
        return {"re": d_response.real, "im": d_im(d_response), "gain": d_gain(du * (1 - u**2), x)}

    return grad_fn


def filter_make(dtype):
    re, im, gain, x, target = normal(dtype, 101, (5,), (5,), (LENGTH,), (3, LENGTH), (3, LENGTH))
    return {"re": re, "im": im, "gain": gain}, (x, target)


fourier = Problem("fourier", filter_loss, filter_gradient, filter_make)


def curve_forward(params, x):
    """Each unit's activation is read from a table of values at seven knots, linear between them."""
    z = jnp.clip(x @ params["w"], -2.9, 2.9)
    place = jnp.floor(z + 3).astype(int)
    part = z + 3 - place
    unit = jnp.arange(z.shape[1])
    low, high = params["table"][unit, place], params["table"][unit, place + 1]
    return z, place, part, unit, low, high, (low * (1 - part) + high * part) @ params["out"]


def curve_loss(params, x, target):
    return mean_square(curve_forward(params, x)[-1], target)


def curve_gradient(
    shares=lambda part: (1 - part, part),
    slope=lambda low, high: high - low,
    inside=lambda z: (z > -2.9) & (z < 2.9),
    right_knot=lambda place: place + 1,
):
    def grad_fn(params, x, target):
        z, place, part, unit, low, high, y = curve_forward(params, x)
        dy = mean_square_back(y, target)
        dh = dy @ params["out"].T
        first, second = shares(part)
        table = jnp.zeros_like(params["table"]).at[unit, place].add(dh * first)
        table = table.at[unit, right_knot(place)].add(dh * second)
        return {
            "w": x.T @ (dh * slope(low, high) * inside(z)),
            "table": table,
            "out": (low * (1 - part) + high * part).T @ dy,
        }

    return grad_fn


def curve_make(dtype):
    w, table, out, x, target = normal(dtype, 102, (2, 3), (3, 7), (3, 2), (8, 2), (8, 2))
    return {"w": w * 1.5, "table": table, "out": out}, (x, target)


curve = Problem("interpolation", curve_loss, curve_gradient, curve_make)

BEST = 3


def sliced_forward(params, x):
    projected = jnp.tanh(x @ params["w"]) @ params["v"]
    order = jnp.argsort(projected, axis=0)
    return projected, order, jnp.take_along_axis(projected, order, axis=0)


def sliced_loss(params, x, y):
    """Squared distance of sorted projections to sorted targets, plus the mean of the three largest projections."""
    projected, _, ordered = sliced_forward(params, x)
    return jnp.mean((ordered - y) ** 2) + jnp.mean(jax.lax.top_k(projected.T, BEST)[0])


def sliced_gradient(
    undo=lambda order: jnp.argsort(order, axis=0),
    d_best=lambda shape: 1 / (shape[1] * BEST),
    join=lambda sorted_part, best_part: sorted_part + best_part,
):
    def grad_fn(params, x, y):
        projected, order, ordered = sliced_forward(params, x)
        d_ordered = jnp.take_along_axis(mean_square_back(ordered, y), undo(order), axis=0)
        limit = ordered[-BEST]
        dp = join(d_ordered, (projected >= limit) * jnp.asarray(d_best(projected.shape), x.dtype))
        a = jnp.tanh(x @ params["w"])
        return {"w": x.T @ (dp @ params["v"].T * (1 - a**2)), "v": a.T @ dp}

    return grad_fn


def sliced_make(dtype):
    w, v, x, y = normal(dtype, 103, (3, 4), (4, 2), (6, 3), (6, 2))
    return {"w": w, "v": v}, (x, jnp.sort(y, axis=0))


sliced = Problem("sorting", sliced_loss, sliced_gradient, sliced_make)

WORDS, WIDE, SOFT = 7, 4, 0.1
WIDE_ROOT = math.sqrt(WIDE)


def waves(steps, dtype):
    """Sines and cosines of the position."""
    angle = np.arange(steps)[:, None] / 100 ** (np.arange(0, WIDE, 2) / WIDE)
    return jnp.asarray(np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(steps, WIDE), dtype)


def language_forward(params, tokens):
    """The same table embeds, scaled by √width, and makes the scores; a running mean of the past is in between."""
    table = params["table"]
    e = table[tokens] * WIDE_ROOT + waves(tokens.shape[1], table.dtype) * params["loud"]
    count = jnp.arange(1, tokens.shape[1] + 1, dtype=table.dtype)[:, None]
    past = jnp.cumsum(e, axis=1) / count
    h = jnp.tanh(past @ params["w"])
    return count, past, h, h @ table.T


def smooth(target, dtype):
    return (1 - SOFT) * jax.nn.one_hot(target, WORDS, dtype=dtype) + SOFT / WORDS


def language_loss(params, tokens, target, keep):
    """Cross entropy with smoothed labels, averaged over the tokens that are kept."""
    scores = language_forward(params, tokens)[-1]
    each = -jnp.sum(smooth(target, scores.dtype) * jax.nn.log_softmax(scores), axis=2)
    return jnp.sum(keep * each) / jnp.sum(keep)


def language_gradient(
    join=lambda embedded, scored: embedded + scored,
    labels=smooth,
    weigh=lambda keep: keep / jnp.sum(keep),
    into_past=lambda d: jnp.cumsum(d[:, ::-1], axis=1)[:, ::-1],
    grow=lambda d: d * WIDE_ROOT,
    d_loud=lambda de, wave: (de * wave).sum(),
):
    def grad_fn(params, tokens, target, keep):
        count, past, h, scores = language_forward(params, tokens)
        table = params["table"]
        d = (jax.nn.softmax(scores) - labels(target, scores.dtype)) * weigh(keep)[..., None]
        dz = d @ table * (1 - h**2)
        de = into_past(dz @ params["w"].T / count)
        embedded = jnp.zeros_like(table).at[tokens].add(grow(de))
        return {
            "table": join(embedded, jnp.einsum("btv,btd->vd", d, h)),
            "w": jnp.einsum("bti,btj->ij", past, dz),
            "loud": d_loud(de, waves(tokens.shape[1], table.dtype)),
        }

    return grad_fn


def language_make(dtype):
    table, w = normal(dtype, 104, (WORDS, WIDE), (WIDE, WIDE))
    tokens, target = (jnp.asarray(np.random.default_rng(k).integers(6, size=(3, 4))) for k in (105, 106))
    keep = (jnp.arange(4)[None, :] < jnp.array([4, 2, 3])[:, None]).astype(dtype)
    return {"table": table, "w": w, "loud": jnp.asarray(0.8, dtype)}, (tokens, target, keep)


language = Problem("language", language_loss, language_gradient, language_make)
