"""Causes in the uses of a value: lost ones, other operands, penalties, and what a gradient reads on its way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(71)


def normal(*shape):
    return DRAW.normal(size=shape)


@pytest.mark.thorough
def test_a_tied_table_whose_rows_are_written_over():
    """The table embeds and gives the logits; the rows are set where they must be added."""
    tokens = np.array([0, 3, 1])

    def loss(p, t):
        return ((jnp.tanh(p["e"][tokens]) @ p["e"].T - t) ** 2).sum()

    def gradient(p, t, is_wrong):
        h = jnp.tanh(p["e"][tokens])
        d = 2 * (h @ p["e"].T - t)
        of_logits, of_rows = d.T @ h, d @ p["e"] * (1 - h**2)
        place = of_logits.at[tokens]
        return {"e": place.set(of_rows) if is_wrong else place.add(of_rows)}

    given = {"e": normal(5, 4)}, normal(3, 5)
    assert_named(loss, gradient, given, "lost_use", "is written by hand over that of its other uses")


def test_a_penalty_on_the_bias_as_well():
    """The weight of the penalty is no simple fraction, and the bias one number."""

    def loss(p, x, t):
        return ((x @ p["w"] + p["b"] - t) ** 2).sum() + 0.0137 * (p["w"] ** 2).sum()

    def gradient(p, x, t, also):
        d = 2 * (x @ p["w"] + p["b"] - t)
        return {"w": x.T @ d + 0.0274 * p["w"], "b": d.sum() + (0.0274 * p["b"] if also else 0)}

    given = {"w": normal(3), "b": np.asarray(0.83)}, normal(6, 3), normal(6)
    assert_named(loss, gradient, given, "offset_by_parameter", "is put on ['b'] by hand as well")


@pytest.mark.parametrize(
    ("factor", "words"), [(-1.0, "is read after its own update by a step of"), (1.0, "with the wrong sign")]
)
def test_weights_read_after_a_step_of_a_length_that_is_computed(factor, words):
    def loss(p, x, t):
        return ((jnp.tanh(x @ p["w"]) @ p["v"] - t) ** 2).sum()

    def gradient(p, x, t, factor):
        h = jnp.tanh(x @ p["w"])
        d = 2 * (h @ p["v"] - t)
        dv = h.T @ d
        step = factor * dv / jnp.linalg.norm(dv) if factor else 0
        return {"w": x.T @ (d @ (p["v"] + step).T * (1 - h**2)), "v": dv}

    given = {"w": normal(3, 4), "v": normal(4, 2)}, normal(6, 3), normal(6, 2)
    assert_named(loss, gradient, given, "updated_weights", words, wrong=factor)


def convolve(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


@pytest.mark.thorough
def test_a_convolution_with_its_channels_in_reversed_order():
    def loss(p, x):
        return (convolve(jnp.tanh(convolve(x, p["a"])), p["b"]) ** 2).sum()

    def gradient(p, x, is_wrong):
        h, through = jax.vjp(lambda a: convolve(x, a), p["a"])
        a = jnp.tanh(h)
        d = 2 * convolve(a, p["b"])
        kernel = jnp.flip(p["b"], 0).swapaxes(1, 2)
        da = convolve(d, jnp.flip(kernel, 2) if is_wrong else kernel)
        (db,) = jax.vjp(lambda b: convolve(a, b), p["b"])[1](d)
        return {"a": through(da * (1 - a**2))[0], "b": db}

    given = {"a": normal(3, 2, 4), "b": normal(3, 4, 2)}, normal(2, 6, 2)
    assert_named(loss, gradient, given, "wrong_operand", "it reversed along axis")


@pytest.mark.parametrize("move", [1.0, -1.0])
def test_positions_that_are_read_one_step_further(move):
    positions = np.arange(5.0)[:, None]

    def loss(p, x):
        return (x * jnp.sin(positions * p["f"])).sum()

    def gradient(p, x, by):
        there = positions + by
        return {"f": (x * there * jnp.cos(there * p["f"])).sum(axis=0)}

    assert_named(loss, gradient, ({"f": normal(3)}, normal(5, 3)), "shifted", "is read one step further", wrong=move)


@pytest.mark.thorough
def test_a_rotation_of_the_keys_alone_by_the_next_position():
    angles = np.arange(4.0)[:, None] * np.array([0.9, 0.3])
    tables = np.cos(angles), np.sin(angles), np.cos(angles), np.sin(angles)

    def turn(h, c, s):
        a, b = h[:, :2], h[:, 2:]
        return jnp.concatenate([a * c - b * s, a * s + b * c], axis=1)

    def forward(p, x, cq, sq, ck, sk):
        h = x @ p["w"]
        return h, turn(h @ p["q"], cq, sq), turn(h @ p["k"], ck, sk)

    def loss(p, x, *tables):
        _, q, k = forward(p, x, *tables)
        return ((q @ k.T) ** 2).sum()

    def gradient(p, x, cq, sq, ck, sk, is_wrong):
        h, q, k = forward(p, x, cq, sq, ck, sk)
        d = 2 * q @ k.T
        if is_wrong:
            z = (ck + 1j * sk) * np.exp(1j * np.array([0.9, 0.3]))
            ck, sk = z.real, z.imag
        dq, dk = turn(d @ k, cq, -sq), turn(d.T @ q, ck, -sk)
        return {"w": x.T @ (dq @ p["q"].T + dk @ p["k"].T), "q": h.T @ dq, "k": h.T @ dk}

    given = {"w": normal(2, 3), "q": normal(3, 4), "k": normal(3, 4)}, normal(4, 2), *tables
    assert_named(loss, gradient, given, "shifted", "that of the next position along axis 0")


@pytest.mark.thorough
def test_another_mask_that_the_gradient_computes():
    """Dropout by hand of what is small, and not of what was drawn."""
    keys = jax.random.split(jax.random.key(3), 2)

    def forward(p, x):
        a = jnp.tanh(x @ p["w"])
        kept = jax.random.bernoulli(keys[1], 0.7, a.shape)
        return a, kept, a * kept

    def loss(p, x):
        y = forward(p, x)[2] @ p["v"]
        return y @ y

    def gradient(p, x, is_wrong):
        a, kept, h = forward(p, x)
        y = h @ p["v"]
        mask = jnp.abs(a) > 0.4 if is_wrong else kept
        return {"w": x.T @ (2 * jnp.outer(y, p["v"]) * mask * (1 - a**2)), "v": 2 * h.T @ y}

    given = {"w": normal(3, 4), "v": normal(4)}, normal(5, 3)
    assert_named(loss, gradient, given, "mask", "in the place of the mask in")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("inverted", "is inverted by hand"), ("left out", "it is the gradient of the loss without the mask")],
)
def test_masks_of_a_bias_that_all_rows_share(wrong, words):
    kept = normal(5, 4) > -0.4

    def loss(p, x):
        return ((jnp.tanh(x @ p["w"]) + kept * p["b"]) ** 3).sum()

    def gradient(p, x, wrong):
        a = jnp.tanh(x @ p["w"])
        mask = np.ones_like(kept) if wrong == "left out" else kept
        d = 3 * (a + mask * p["b"]) ** 2
        return {
            "w": x.T @ (d * (1 - a**2)),
            "b": (d * (~kept if wrong == "inverted" else mask)).sum(axis=0, keepdims=True),
        }

    given = {"w": normal(3, 4), "b": normal(1, 4)}, normal(5, 3)
    assert_named(loss, gradient, given, "mask", words, wrong=wrong)


@pytest.mark.thorough
def test_a_softmax_derivative_times_a_number():
    def loss(p, x):
        return (jax.nn.softmax(x @ p["w"]) * x).sum() ** 2

    def gradient(p, x, is_wrong):
        s = jax.nn.softmax(x @ p["w"])
        d = 2 * (s * x).sum() * x
        right = s * (d - (s * d).sum(axis=1, keepdims=True))
        return {"w": x.T @ (0.5 * s * (1 - s) * d if is_wrong else right)}

    assert_named(loss, gradient, ({"w": normal(3, 3)}, normal(5, 3)), "activation_derivative", "1/2 times")


def elu(z):
    return jnp.where(z > 0, z, 0.7 * (jnp.exp(z) - 1))


def clip(z):
    return lax.clamp(-1.0, z, 1.0)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("activation", "right", "wrong", "words"),
    [
        (elu, lambda z, h: jnp.where(z > 0, 1.0, h + 0.7), lambda z, h: jnp.where(z > 0, 1.0, h), "ELU (α = 0.7)"),
        (clip, lambda z, h: 1.0 * (jnp.abs(z) < 1), lambda z, h: 1.0, "the clip to [-1, 1]"),
    ],
)
def test_activations_in_pieces(activation, right, wrong, words):
    def loss(p, x, t):
        return ((activation(x @ p["w"]) - t) ** 2).sum()

    def gradient(p, x, t, slope):
        z = x @ p["w"]
        h = activation(z)
        return {"w": x.T @ (2 * (h - t) * (slope or right)(z, h))}

    given = {"w": normal(3, 4)}, normal(6, 3), normal(6, 4)
    assert_named(loss, gradient, given, "activation_derivative", words, wrong=wrong)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("share", "cause", "words"),
    [
        (-1.0, "conjugate", "the imaginary part has the other sign by hand"),
        (0.5, "scaled_path", "through the `imag` in"),
    ],
)
def test_the_imaginary_part_of_a_layer(share, cause, words):
    def loss(p, x):
        z = x @ (p["a"] + 1j * p["b"])
        return (z.real**2).sum() + (z.imag**3).sum()

    def gradient(p, x, share):
        z = x @ (p["a"] + 1j * p["b"])
        real, imag = 2 * z.real, 3 * z.imag**2 * (share or 1)
        return {"a": x.real.T @ real + x.imag.T @ imag, "b": x.real.T @ imag - x.imag.T @ real}

    given = {"a": normal(3, 2), "b": normal(3, 2)}, normal(5, 3) + 1j * normal(5, 3)
    assert_named(loss, gradient, given, cause, words, wrong=share)


@pytest.mark.thorough
def test_a_stop_in_the_last_iteration_that_is_an_iteration_earlier_by_hand():
    def states(p, x):
        h = [jnp.zeros((2, 3))]
        for n in range(4):
            before = lax.stop_gradient(h[-1]) if n == 3 else h[-1]
            h.append(jnp.tanh(before @ p["u"] + x[n]))
        return h

    def loss(p, x):
        return sum((h**3).sum() for h in states(p, x)[1:])

    def gradient(p, x, is_wrong):
        h, stopped = states(p, x), 2 if is_wrong else 3
        d, du = 0.0, 0.0
        for n in (3, 2, 1, 0):
            dz = (3 * h[n + 1] ** 2 + d) * (1 - h[n + 1] ** 2)
            du = du + h[n].T @ dz
            d = 0.0 if n == stopped else dz @ p["u"].T
        return {"u": du}

    given = {"u": normal(3, 3)}, normal(4, 2, 3)
    assert_named(loss, gradient, given, "stop_gradient", "by hand an iteration earlier")


@pytest.mark.thorough
def test_a_masked_softmax_whose_mask_is_computed_twice():
    """The mask hides scores, and keeps them out of the sum; by hand it is the softmax of all."""
    lengths = np.array([2, 4, 3])[:, None]

    def masked(z):
        return jnp.where(jnp.arange(4) < lengths, z, -1e9)

    def loss(p, x, v):
        z = masked(x @ p["w"])
        e = jnp.where(jnp.arange(4) <= lengths - 1, jnp.exp(z - z.max(axis=1, keepdims=True)), 0)
        return (e / e.sum(axis=1, keepdims=True) * v).sum()

    def gradient(p, x, v, is_wrong):
        z = x @ p["w"]
        s = jax.nn.softmax(z if is_wrong else masked(z))
        return {"w": x.T @ (s * (v - (s * v).sum(axis=1, keepdims=True)))}

    given = {"w": normal(3, 4)}, normal(3, 3), normal(3, 4)
    assert_named(loss, gradient, given, "mask", "is ignored by hand, wherever it chooses")
