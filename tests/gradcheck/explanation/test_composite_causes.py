"""Causes of mistakes in composite networks: loops over time, heads, convolutions, sequences with masks and letters."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import funcnn as fnn

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(11)


def normal(*shape):
    return DRAW.normal(size=shape)


# A gated cell by a scan: a reset gate and an update gate, and the loss of the last state.
def cell(p, h, x):
    r = jax.nn.sigmoid(x @ p["ur"] + h @ p["wr"])
    z = jax.nn.sigmoid(x @ p["uz"] + h @ p["wz"])
    n = jnp.tanh(x @ p["un"] + (r * h) @ p["wn"])
    return h - z * h + z * n, (h, r, z, n)


def gated_loss(p, x):
    h, _ = lax.scan(lambda h, step: (cell(p, h, step)[0], None), jnp.zeros((2, 3)), x)
    return (h**3).sum()


def gated_gradient(
    slope=lambda n, earlier: 1 - n**2,
    read=lambda h, r: r * h,
    reset=lambda d, r: d * r,
    passed=lambda dh, step: dh,
    carry=lambda dh, z: dh * (1 - z),
    inputs=lambda x, step: x[step],
    recurrent=lambda d, w: d @ w.T,
):
    def gradient(p, x):
        h, kept = lax.scan(lambda h, step: cell(p, h, step), jnp.zeros((2, 3)), x)
        states, resets, updates, news = kept
        dh = 3 * h**2
        g = {name: jnp.zeros_like(leaf) for name, leaf in p.items()}
        for step in reversed(range(len(x))):
            h, r, z, n = states[step], resets[step], updates[step], news[step]
            dn = dh * z * slope(n, news[step - 1] if step else n)
            dreset = recurrent(dn, p["wn"])
            dr, dz = dreset * h * r * (1 - r), dh * (n - h) * z * (1 - z)
            for name, d, state in (("r", dr, h), ("z", dz, h), ("n", dn, read(h, r))):
                g["u" + name] += inputs(x, step).T @ d
                g["w" + name] += state.T @ d
            dh = passed(carry(dh, z) + reset(dreset, r) + dr @ p["wr"].T + dz @ p["wz"].T, step)
        return g

    return gradient


# Attention with two heads, and one key and value for both.
def heads(x):
    return x.reshape(2, 3, 2, 4).transpose(0, 2, 1, 3)


def attention_loss(p, x):
    q, (k, v) = heads(x @ p["q"]), jnp.split(x @ p["kv"], 2, axis=-1)
    a = jax.nn.softmax(jnp.einsum("bhsd,btd->bhst", q, k))
    return (jnp.tanh(jnp.einsum("bhst,btd->bhsd", a, v).transpose(0, 2, 1, 3).reshape(2, 3, 8)) ** 2).sum()


def attention_gradient(
    join=lambda d: d.transpose(0, 2, 1, 3).reshape(2, 3, 8),
    over_heads=lambda d: d.sum(axis=1),
    parts=lambda dk, dv: (dk, dv),
):
    def gradient(p, x):
        q, (k, v) = heads(x @ p["q"]), jnp.split(x @ p["kv"], 2, axis=-1)
        a = jax.nn.softmax(jnp.einsum("bhsd,btd->bhst", q, k))
        t = jnp.tanh(jnp.einsum("bhst,btd->bhsd", a, v))
        do = 2 * t * (1 - t**2)
        da = jnp.einsum("bhsd,btd->bhst", do, v)
        ds = a * (da - (a * da).sum(axis=-1, keepdims=True))
        dk, dv = jnp.einsum("bhst,bhsd->btd", ds, q), over_heads(jnp.einsum("bhst,bhsd->bhtd", a, do))
        dkv = jnp.concatenate(parts(dk, dv), axis=-1)
        dq = join(jnp.einsum("bhst,btd->bhsd", ds, k))
        return {"q": jnp.einsum("bsi,bsj->ij", x, dq), "kv": jnp.einsum("bsi,bsj->ij", x, dkv)}

    return gradient


# A convolution over an image with a stride of 2, after an activation.
def convolve(x, w):
    return lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW"))


def image_loss(p, x):
    return (convolve(jnp.tanh(x * p["scale"]), p["w"]) ** 3).sum()


def image_gradient(kernel=lambda w: w, stride=2, padding=1):
    def gradient(p, x):
        h = jnp.tanh(x * p["scale"])
        d = 3 * convolve(h, p["w"]) ** 2
        wide, dwide = jnp.pad(h, ((0, 0), (0, 0), (1, 3), (1, 3))), jnp.zeros((2, 2, 9, 9))
        dw = jnp.zeros_like(p["w"])
        for i in range(3):
            for j in range(3):
                rows, columns = slice(i, i + 2 * stride + 1, stride), slice(j, j + 2 * stride + 1, stride)
                dw = dw.at[:, :, i, j].set(jnp.einsum("nohw,nihw->oi", d, wide[:, :, rows, columns]))
                part = jnp.einsum("nohw,oi->nihw", d, kernel(p["w"])[:, :, i, j])
                dwide = dwide.at[:, :, i : i + 5 : 2, j : j + 5 : 2].add(part)
        dh = dwide[:, :, padding : padding + 5, padding : padding + 5]
        return {"w": dw, "scale": (dh * (1 - h**2) * x).sum(axis=(0, 2, 3), keepdims=True)[0]}

    return gradient


# The next letter, from the mean of the letters' vectors so far kept by a mask.
def letters_loss(p, x, y, mask):
    h = jnp.tanh(p["e"][x])
    mean = (h * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    logp = jax.nn.log_softmax((h + mean[:, None]) @ p["o"])
    return -jnp.take_along_axis(logp, y[..., None], axis=-1).sum()


def letters_gradient(targets=lambda x, y: y, count=lambda mask: mask.sum(axis=1)[:, None]):
    def gradient(p, x, y, mask):
        h = jnp.tanh(p["e"][x])
        mean = (h * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None]
        both = h + mean[:, None]
        d = jax.nn.softmax(both @ p["o"]) - jax.nn.one_hot(targets(x, y), 5)
        dboth = d @ p["o"].T
        dh = dboth + (dboth.sum(axis=1) / count(mask))[:, None] * mask[..., None]
        de = jnp.zeros_like(p["e"]).at[x].add(dh * (1 - h**2))
        return {"e": de, "o": jnp.einsum("bti,btj->ij", both, d)}

    return gradient


GATED = (
    {name: normal(2 if name[0] == "u" else 3, 3) for name in ("ur", "uz", "un", "wr", "wz", "wn")},
    (normal(3, 2, 2),),
)
ATTENTION = {"q": normal(6, 8) / 2, "kv": normal(6, 8) / 2}, (normal(2, 3, 6),)
IMAGE = {"w": normal(3, 2, 3, 3) / 3, "scale": normal(2, 1, 1)}, (normal(2, 2, 5, 5),)
TEXT = DRAW.integers(0, 5, (3, 5))
MASK = 1.0 * (np.arange(4) < np.array([[2], [4], [3]]))
LETTERS = {"e": normal(5, 3), "o": normal(3, 5)}, (jnp.asarray(TEXT[:, :-1]), jnp.asarray(TEXT[:, 1:]), MASK)

NETS = {
    "gated": (gated_loss, gated_gradient, *GATED),
    "attention": (attention_loss, attention_gradient, *ATTENTION),
    "image": (image_loss, image_gradient, *IMAGE),
    "letters": (letters_loss, letters_gradient, *LETTERS),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETS)
def test_right_twins_pass(name):
    loss, gradient, params, args = NETS[name]
    assert fnn.check_gradients(loss, gradient(), params, *args).ok


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "wrong", "cause", "words"),
    [
        pytest.param(
            "gated",
            {"slope": lambda n, earlier: 1 - earlier**2},
            "shifted",
            "of the iteration before, in every iteration",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            *("gated", {"inputs": lambda x, step: x[min(step + 1, 2)]}, "shifted", "of the next iteration"),
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            *("gated", {"read": lambda h, r: h}, "wrong_operand", "by hand it takes .*, in every iteration"),
            marks=pytest.mark.thorough,
        ),
        ("gated", {"reset": lambda d, r: 0}, "lost_path", "is left out by hand, in every iteration"),
        pytest.param(
            *("gated", {"recurrent": lambda d, w: d @ w}, "transposed", "its transpose, in every iteration"),
            marks=pytest.mark.thorough,
        ),
        ("gated", {"passed": lambda dh, step: dh * (step != 1)}, "lost_path", "does not go on by hand"),
        ("attention", {"join": lambda d: d.reshape(2, 3, 8)}, "transposed", "by hand reshaped"),
        ("attention", {"over_heads": lambda d: d[:, 0]}, "lost_use", "entry 0 alone counts"),
        ("attention", {"parts": lambda dk, dv: (dv, dk)}, "swapped", "stand in the order 2, 1"),
        ("image", {"kernel": lambda w: w[:, :, ::-1, ::-1]}, "kernel_flipped", "kernel not flipped"),
        ("image", {"stride": 1}, "wrong_operand", "with the stride left out"),
        ("image", {"padding": 2}, "shifted", "padding off by"),
        ("letters", {"targets": lambda x, y: x}, "wrong_operand", "is read for"),
        ("letters", {"count": lambda mask: 4}, "scaled_path", "takes the number 4 everywhere"),
    ],
)
def test_mistakes_are_named(name, wrong, cause, words):
    loss, gradient, params, args = NETS[name]
    report = fnn.check_gradients(loss, gradient(**wrong), params, *args)
    found = [leaf for leaf in report.leaves if not leaf.ok]
    assert {leaf.cause for leaf in found} == {cause}, [leaf.detail for leaf in found]
    assert re.search(words, found[0].detail)
