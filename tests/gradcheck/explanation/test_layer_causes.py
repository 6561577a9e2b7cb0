"""Causes of mistakes in layers: convolutions of every form, pooling, masked attention and its softmax."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import funcnn as fnn

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(17)
SEEN = np.tri(4, dtype=bool)


def normal(*shape):
    return DRAW.normal(size=shape)


# A signal of two channels made longer by a transposed convolution, and then a dilated one of two groups with a bias.
def longer(h, k):
    return lax.conv_general_dilated(h, k, (1,), ((1, 1),), (2,), dimension_numbers=("NCH", "OIH", "NCH"))


def dilated(h, k):
    return lax.conv_general_dilated(
        h, k, (1,), ((2, 2),), rhs_dilation=(2,), dimension_numbers=("NCH", "OIH", "NCH"), feature_group_count=2
    )


def signal_loss(p, x):
    return (jnp.sin(dilated(jnp.tanh(longer(x * p["scale"], p["long"])), p["wide"]) + p["bias"])).sum()


def pull(function, at, d):
    return jax.vjp(function, at)[1](d)[0]


def signal_gradient(
    inner=lambda d, h, k: pull(lambda h: dilated(h, k), h, d),
    kernel=lambda d, h, k: pull(lambda k: dilated(h, k), k, d),
    first=lambda d, h, k: pull(lambda h: longer(h, k), h, d),
    bias=lambda d: d.sum(axis=(0, 2)),
):
    def gradient(p, x):
        h = x * p["scale"]
        a = jnp.tanh(longer(h, p["long"]))
        d = jnp.cos(dilated(a, p["wide"]) + p["bias"])
        dz = inner(d, a, p["wide"]) * (1 - a**2)
        return {
            "scale": (first(dz, h, p["long"]) * x).sum(axis=(0, 2))[:, None],
            "long": pull(lambda k: longer(h, k), p["long"], dz),
            "wide": kernel(d, a, p["wide"]),
            "bias": bias(d)[:, None],
        }

    return gradient


def without_a_tap(d, h, k):
    return pull(lambda h: dilated(h, k * (np.arange(3) != 2)), h, d)


def of_the_other_group(d, h, k):
    return pull(lambda k: dilated(jnp.roll(h, 1, axis=1), k), k, d)


def of_the_first_entries(d, h, k):
    wide = jnp.zeros((2, 2, 9)).at[:, :, ::2].set(h)
    in_full = pull(lambda wide: lax.conv_general_dilated(
        wide, k, (1,), ((1, 1),), dimension_numbers=("NCH", "OIH", "NCH")), wide, d)  # fmt: skip
    return in_full[:, :, :5]


def undilated(d, h, k):
    return pull(lambda k: lax.conv_general_dilated(
        h, k, (1,), ((1, 1),), dimension_numbers=("NCH", "OIH", "NCH"), feature_group_count=2), k, d)  # fmt: skip


# The largest of three neighbours, and the mean of what is padded.
def pooled_loss(p, x):
    h = jnp.tanh(x * p["scale"]).reshape(3, 4, 3)
    padded = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
    means = jnp.stack([padded[:, start : start + 4] for start in range(3)]).mean(axis=0)
    return (h.max(axis=2) ** 2).sum() + (means**3).sum()


def pooled_gradient(winner=lambda h: h.argmax(axis=2), count=3):
    def gradient(p, x):
        h = jnp.tanh(x * p["scale"]).reshape(3, 4, 3)
        dh = 2 * h.max(axis=2)[..., None] * jax.nn.one_hot(winner(h), 3)
        padded = jnp.pad(h, ((0, 0), (1, 1), (0, 0)))
        d = 3 * (sum(padded[:, start : start + 4] for start in range(3)) / 3) ** 2 / count
        back = jnp.zeros_like(padded)
        for start in range(3):
            back = back.at[:, start : start + 4].add(d)
        a = h.reshape(x.shape)
        return {"scale": ((dh + back[:, 1:-1]).reshape(x.shape) * (1 - a**2) * x).sum(axis=0)}

    return gradient


# Causal attention with dropout of its weights.
def attention_loss(p, x, kept):
    q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
    weights = jax.nn.softmax(jnp.where(SEEN, q @ k.swapaxes(1, 2), -jnp.inf))
    return (jnp.tanh((weights * kept) @ v) ** 2).sum()


def attention_gradient(
    weights=lambda z: jax.nn.softmax(jnp.where(SEEN, z, -jnp.inf)),
    read=lambda kept: kept,
    inner=lambda p, dp: (p * dp).sum(axis=-1, keepdims=True),
    outer=lambda p, kept: p,
):
    def gradient(p, x, kept):
        q, k, v = x @ p["q"], x @ p["k"], x @ p["v"]
        z = q @ k.swapaxes(1, 2)
        right = jax.nn.softmax(jnp.where(SEEN, z, -jnp.inf))
        t, a = jnp.tanh((right * kept) @ v), weights(z)
        do = 2 * t * (1 - t**2)
        dp = (do @ v.swapaxes(1, 2)) * kept
        dz = outer(a, kept) * (dp - inner(outer(a, kept), dp))
        parts = {"q": dz @ k, "k": dz.swapaxes(1, 2) @ q, "v": (a * read(kept)).swapaxes(1, 2) @ do}
        return {name: jnp.einsum("nti,ntj->ij", x, part) for name, part in parts.items()}

    return gradient


def blocks_of_two(p, dp):
    return jnp.repeat((p * dp).reshape(3, 4, 2, 2).sum(axis=-1), 2, axis=-1)


SIGNAL = (
    {"scale": normal(2, 1), "long": normal(2, 2, 3), "wide": normal(4, 1, 3) / 2, "bias": normal(4, 1)},
    (normal(2, 2, 5),),
)
POOLED = {"scale": 1 + normal(12) / 5}, (normal(3, 12),)
KEPT = (DRAW.random((3, 4, 4)) > 0.3) / 0.7
ATTENTION = {name: normal(3, 3) for name in ("q", "k", "v")}, (normal(3, 4, 3), KEPT)

NETS = {
    "signal": (signal_loss, signal_gradient, *SIGNAL),
    "pooled": (pooled_loss, pooled_gradient, *POOLED),
    "attention": (attention_loss, attention_gradient, *ATTENTION),
}
INSIDE = np.array([2, 3, 3, 2])[:, None]


@pytest.mark.parametrize("name", NETS)
def test_right_twins_pass(name):
    loss, gradient, params, args = NETS[name]
    assert fnn.check_gradients(loss, gradient(), params, *args).ok


@pytest.mark.parametrize(
    ("name", "wrong", "cause", "words"),
    [
        ("signal", {"inner": without_a_tap}, "lost_path", "without the taps 2"),
        ("signal", {"kernel": of_the_other_group}, "wrong_operand", "channels of the next group"),
        pytest.param(
            *("signal", {"kernel": undilated}, "wrong_operand", "dilation left out, in the padding too"),
            marks=pytest.mark.thorough,
        ),
        ("signal", {"first": of_the_first_entries}, "wrong_operand", "from neighbouring entries"),
        ("signal", {"bias": lambda d: d[:, :, 1:-1].sum(axis=(0, 2))}, "lost_path", "first and the last entry"),
        ("pooled", {"winner": lambda h: h.argmin(axis=2)}, "mask", "the smallest entry"),
        pytest.param(
            *("pooled", {"count": INSIDE}, "scaled_path", "count of entries outside of the padding"),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            *("attention", {"weights": jax.nn.softmax}, "mask", "is ignored by hand"),
            marks=pytest.mark.thorough,
        ),
        ("attention", {"weights": lambda z: jax.nn.softmax(z) * SEEN}, "mask", "is applied by hand after it"),
        ("attention", {"read": lambda kept: kept[::-1]}, "mask", "reversed along axis 0 by hand"),
        pytest.param(
            *("attention", {"outer": lambda p, kept: p * kept}, "wrong_operand", "is taken by hand at the result"),
            marks=pytest.mark.thorough,
        ),
        ("attention", {"inner": blocks_of_two}, "activation_derivative", "each block of 2 entries alone"),
    ],
)
def test_mistakes_are_named(name, wrong, cause, words):
    loss, gradient, params, args = NETS[name]
    report = fnn.check_gradients(loss, gradient(**wrong), params, *args)
    found = [leaf for leaf in report.leaves if not leaf.ok]
    assert {leaf.cause for leaf in found} == {cause}, [leaf.detail for leaf in found]
    assert re.search(words, found[0].detail)
