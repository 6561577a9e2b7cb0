"""Causes in windows, rolls, pairs, given statistics, gates and loops: each is named, and its right twin passes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(29)


def normal(*shape):
    return DRAW.normal(size=shape)


# Windows of three entries with a stride of two, each with the same weights.
STARTS = (0, 2, 4)


def windows_loss(p, x):
    h = jnp.tanh(x * p["s"])
    return sum(((h[:, start : start + 3] @ p["k"]) ** 3).sum() for start in STARTS)


def windows_gradient(read=2, put=2, combine="add"):
    def gradient(p, x):
        h = jnp.tanh(x * p["s"])
        dh, dk = jnp.zeros_like(h), 0.0
        for iteration, start in enumerate(STARTS):
            d = 3 * (h[:, start : start + 3] @ p["k"]) ** 2
            dk = dk + h[:, read * iteration : read * iteration + 3].T @ d
            dh = getattr(dh.at[:, put * iteration : put * iteration + 3], combine)(d @ p["k"].T)
        return {"s": (dh * (1 - h**2) * x).sum(axis=0), "k": dk}

    return gradient


# The largest of windows that overlap, of entries of which two are always equal.
def largest_loss(p, x):
    h = jnp.tanh(x * p["s"])[:, np.array([0, 0, 1, 2, 3])]
    return (jnp.stack([h[:, :3], h[:, 2:]], axis=1).max(axis=2) ** 3).sum()


def largest_gradient(combine="add"):
    def gradient(p, x):
        a = jnp.tanh(x * p["s"])
        h = a[:, np.array([0, 0, 1, 2, 3])]
        dh = jnp.zeros_like(h)
        for start in (0, 2):
            window = h[:, start : start + 3]
            part = 3 * window.max(axis=1, keepdims=True) ** 2 * jax.nn.one_hot(window.argmax(axis=1), 3)
            dh = getattr(dh.at[:, start : start + 3], combine)(part)
        da = jnp.stack([dh[:, 0] + dh[:, 1], dh[:, 2], dh[:, 3], dh[:, 4]], axis=1)
        return {"s": (da * (1 - a**2) * x).sum(axis=0)}

    return gradient


# Every entry against the one two places before, around the end.
def rolled_loss(p, x):
    h = jnp.tanh(x * p["s"])
    return (jnp.sin(h) * jnp.roll(h, 2, axis=1) ** 2).sum()


def rolled_gradient(back=-2):
    def gradient(p, x):
        h = jnp.tanh(x * p["s"])
        through = jnp.roll(2 * jnp.sin(h) * jnp.roll(h, 2, axis=1), back, axis=1)
        dh = jnp.cos(h) * jnp.roll(h, 2, axis=1) ** 2 + through
        return {"s": (dh * (1 - h**2) * x).sum(axis=0)}

    return gradient


# The distances of all pairs, weighted.
WEIGHTS = normal(4, 4)


def pairs_loss(p, x):
    h = x @ p["w"]
    return (WEIGHTS * jnp.exp(-((h[:, None] - h[None]) ** 2).sum(axis=-1))).sum()


def pairs_gradient(kept=1.0):
    def gradient(p, x):
        h = x @ p["w"]
        gap = h[:, None] - h[None]
        d = -2 * (WEIGHTS * jnp.exp(-(gap**2).sum(axis=-1)) * kept)[..., None] * gap
        return {"w": x.T @ (d.sum(axis=1) - d.sum(axis=0))}

    return gradient


# Two by three tiles, joined to a row.
TILES = np.array([0.3, -1, 2, 0.7, 1.1, -0.4])


def tiles_loss(p, x):
    return (jnp.tanh(x * p["s"]).reshape(6) * TILES).sum()


def tiles_gradient(order=lambda d: d.reshape(2, 3)):
    def gradient(p, x):
        h = jnp.tanh(x * p["s"])
        return {"s": order(TILES) * (1 - h**2) * x}

    return gradient


# A normalization by statistics that are given, as those of a running mean.
MEAN, VARIANCE = normal(3), 0.5 + DRAW.random(3)


def given_loss(p, x):
    u = (x @ p["w"] - MEAN) / np.sqrt(VARIANCE + 1e-3)
    return (u + u**3).sum()


def given_gradient(is_trained=False):
    def gradient(p, x):
        inverse = 1 / np.sqrt(VARIANCE + 1e-3)
        u = (x @ p["w"] - MEAN) * inverse
        d = 1 + 3 * u**2
        return {"w": x.T @ (inverse * (d - d.mean(axis=0) - u * (d * u).mean(axis=0)) if is_trained else inverse * d)}

    return gradient


# A cell with two gates whose sigmoids are computed together, the loss of the last of its states.
def cell(p, h, x):
    z, r = jnp.split(jax.nn.sigmoid(x @ p["x"] + h @ p["h"]), 2, axis=-1)
    n = jnp.tanh(h + x @ p["n"])
    return (1 - z) * n + z * (h * r), z, r, n


def states(p, x):
    kept, h = [], jnp.zeros((2, 2))
    for given in x:
        after, z, r, n = cell(p, h, given)
        kept.append((h, z, r, n))
        h = after
    return kept, jnp.stack([h for h, *_ in kept[1:]] + [h])


def cell_loss(p, x):
    return (states(p, x)[1][-1] ** 3).sum()


def cell_gradient(
    weights=lambda z: (1 - z, z),
    update=lambda d, z: d * z * (1 - z),
    sign=1,
    given=lambda d: jnp.zeros((4, *d.shape)).at[-1].set(d),
    inputs=lambda x: x,
):
    def gradient(p, x):
        kept, h = states(p, x)
        dh = given(3 * h[-1] ** 2)
        carried, g = jnp.zeros((2, 2)), {name: jnp.zeros_like(leaf) for name, leaf in p.items()}
        for step in reversed(range(4)):
            before, z, r, n = kept[step]
            d = dh[step] + carried
            of_n, of_h = weights(z)
            dn = d * of_n * (1 - n**2)
            gates = jnp.concatenate([sign * update(d * (before * r - n), z), d * of_h * before * r * (1 - r)], axis=-1)
            terms = {"x": inputs(x)[step].T @ gates, "h": before.T @ gates, "n": inputs(x)[step].T @ dn}
            g = {name: g[name] + term for name, term in terms.items()}
            carried = dn + d * of_h * r + gates @ p["h"].T
        return g

    return gradient


# A recurrence that reads a filtered input, which the gradient by hand computes otherwise.
def filtered_loss(p, x):
    h = jnp.zeros(3)
    for given in x:
        h = jnp.tanh(h @ p["u"] + jnp.sin(given * p["v"]) * p["w"])
    return (h**3).sum()


def filtered_gradient(times=1.0):
    def gradient(p, x):
        h = [jnp.zeros(3)]
        for given in x:
            h.append(jnp.tanh(h[-1] @ p["u"] + jnp.sin(given * p["v"]) * p["w"]))
        d, g = 3 * h[-1] ** 2, {name: jnp.zeros_like(leaf) for name, leaf in p.items()}
        for step in (3, 2, 1, 0):
            dz = d * (1 - h[step + 1] ** 2)
            g["w"] += dz * jnp.sin(times * x[step] * p["v"])
            g["v"] += dz * p["w"] * jnp.cos(x[step] * p["v"]) * x[step]
            g["u"] += jnp.outer(h[step], dz)
            d = p["u"] @ dz
        return g

    return gradient


CELL = {"x": normal(3, 4), "h": normal(2, 4), "n": normal(3, 2)}, normal(4, 2, 3)
NETS = {
    "windows": (windows_loss, windows_gradient, {"s": normal(7), "k": normal(3, 2)}, normal(2, 7)),
    "largest": (largest_loss, largest_gradient, {"s": np.array([0.4, 0.7, -1.2, 0.8])}, normal(5, 4)),
    "rolled": (rolled_loss, rolled_gradient, {"s": normal(5)}, normal(2, 5)),
    "pairs": (pairs_loss, pairs_gradient, {"w": normal(3, 2)}, normal(4, 3)),
    "tiles": (tiles_loss, tiles_gradient, {"s": normal(2, 3)}, normal(2, 3)),
    "given": (given_loss, given_gradient, {"w": normal(2, 3)}, normal(5, 2)),
    "cell": (cell_loss, cell_gradient, *CELL),
    "filtered": (filtered_loss, filtered_gradient, {"w": normal(3), "v": normal(3), "u": normal(3, 3)}, normal(4, 3)),
}
ABOVE = np.triu(np.ones((4, 4)))


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETS)
def test_right_twins_pass(name):
    loss, gradient, params, args = NETS[name]
    assert fnn.check_gradients(loss, gradient(), params, args).ok


THOROUGH = {"marks": pytest.mark.thorough}


@pytest.mark.parametrize(
    ("name", "wrong", "cause", "words"),
    [
        ("windows", {"read": 1}, "wrong_operand", "read without that stride"),
        pytest.param("windows", {"put": 1}, "wrong_operand", "put back without that stride", **THOROUGH),
        pytest.param("windows", {"combine": "set"}, "lost_path", "assigned and not added", **THOROUGH),
        ("largest", {"combine": "set"}, "lost_path", "assigned and not added"),
        ("rolled", {"back": 2}, "transposed", "rolled in the same direction"),
        pytest.param("rolled", {"back": 0}, "shifted", "not rolled back", **THOROUGH),
        ("pairs", {"kept": ABOVE}, "lost_path", "above the diagonal alone"),
        ("tiles", {"order": lambda d: d.reshape(3, 2).T}, "wrong_axis", "cut into 3 parts of 2"),
        ("given", {"is_trained": True}, "normalization_term", "formula for training of the given statistics"),
        pytest.param(
            *("cell", {"weights": lambda z: (z, 1 - z)}, "wrong_operand", "are exchanged by hand"), **THOROUGH
        ),
        pytest.param("cell", {"update": lambda d, z: d}, "activation_derivative", "left out in part 1", **THOROUGH),
        pytest.param(
            "cell", {"sign": -1}, "scaled_path", "with the other sign by hand, in every iteration", **THOROUGH
        ),
        pytest.param(
            *("cell", {"given": lambda d: jnp.zeros((4, *d.shape)).at[-2].set(d)}, "shifted", "put into entry 2"),
            **THOROUGH,
        ),
        pytest.param(
            *("cell", {"inputs": lambda x: x[::-1]}, "wrong_operand", "of the iterations in reversed order"), **THOROUGH
        ),
        pytest.param(*("filtered", {"times": 1.1}, "wrong_operand", "computes as"), **THOROUGH),
    ],
)
def test_mistakes_are_named(name, wrong, cause, words):
    loss, gradient, params, args = NETS[name]
    report = fnn.check_gradients(loss, gradient(**wrong), params, args)
    found = [leaf for leaf in report.leaves if not leaf.ok]
    assert {leaf.cause for leaf in found} == {cause}, [leaf.detail for leaf in found]
    assert re.search(words, found[0].detail)
