"""Causes that stand near another one: where the place in the network, or one mistake for all leaves, decides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(47)


def normal(*shape):
    return DRAW.normal(size=shape)


def linear_gradient(x, d):
    return {"w": x.T @ d, "b": d.sum(axis=0)}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("axis", "form"), [(0, "gain first"), (-1, "gain first"), (0, "gain in the scale"), (-1, "gain in the scale")]
)
@pytest.mark.parametrize(("wrong", "words"), [("mean", "without the term of the mean"), ("count", "one less than")])
def test_a_gain_that_is_multiplied_in_before_the_normalization_is_complete(axis, form, wrong, words):
    def normalized(h):
        m = h.mean(axis, keepdims=True)
        return h - m, jax.lax.rsqrt(((h - m) ** 2).mean(axis, keepdims=True) + 1e-5)

    def loss(p, x, t):
        centred, r = normalized(x @ p["w"])
        y = p["g"] * centred * r if form == "gain first" else centred * (r * p["g"])
        return ((y - t) ** 2).sum()

    def gradient(p, x, t, wrong):
        h = x @ p["w"]
        centred, r = normalized(h)
        x_hat, n = centred * r, h.shape[axis]
        dy = 2 * (p["g"] * x_hat - t)
        d = dy * p["g"]
        count = n - 1 if wrong == "count" else n
        mean, product = (v.sum(axis, keepdims=True) / count for v in (0 * d if wrong == "mean" else d, d * x_hat))
        return {"w": x.T @ (r * (d - mean - x_hat * product)), "g": (dy * x_hat).sum(0)}

    given = {"w": normal(4, 6), "g": normal(6)}, normal(8, 4), normal(8, 6)
    assert_named(loss, gradient, given, "normalization_term", words, wrong=wrong)


@pytest.mark.thorough
def test_rows_that_the_loss_leaves_out_get_the_formula_of_the_others():
    labels = jnp.array([0, 2, -1, 1, -1, 2, 0, 1])
    is_valid = labels >= 0
    target = 0.8 * jax.nn.one_hot(labels, 3) + 0.2 / 3

    def loss(p, x):
        each = -(target * jax.nn.log_softmax(x @ p["w"] + p["b"])).sum(axis=1)
        return jnp.where(is_valid, each, 0).sum() / is_valid.sum()

    def gradient(p, x, with_padding):
        d = (jax.nn.softmax(x @ p["w"] + p["b"]) - target) / is_valid.sum()
        return linear_gradient(x, d if with_padding else jnp.where(is_valid[:, None], d, 0))

    given = {"w": normal(4, 3), "b": normal(3)}, normal(8, 4)
    assert_named(loss, gradient, given, "mask", "also for the samples that the loss leaves out")


@pytest.mark.thorough
def test_one_mistake_that_explains_all_leaves_is_preferred_to_several():
    def target_of(labels, others):
        return 0.8 * jax.nn.one_hot(labels, 4) + 0.2 / others

    def loss(p, x, labels):
        each = -(target_of(labels, 4) * jax.nn.log_softmax(x @ p["w"] + p["b"])).sum(axis=1)
        return jnp.where(labels >= 0, each, 0).sum() / (labels >= 0).sum()

    def gradient(p, x, labels, is_wrong):
        d = (jax.nn.softmax(x @ p["w"] + p["b"]) - target_of(labels, 3 if is_wrong else 4)) / (labels >= 0).sum()
        return linear_gradient(x, jnp.where((labels >= 0)[:, None], d, 0))

    labels = np.array([0, 3, -1, 2, 1, 1, -1, 3, 0, 2], np.int32)
    given = {"w": normal(3, 4), "b": normal(4)}, normal(10, 3), labels
    assert_named(loss, gradient, given, "loss_derivative", "the gradient of the loss by")


@pytest.mark.thorough
def test_the_hinge_of_pairs_belongs_to_the_loss():
    def loss(p, x, grade):
        score = jnp.tanh(x @ p["w1"]) @ p["w2"]
        better = 1.0 * (grade[:, None] > grade[None, :])
        return (better * jnp.maximum(1 - score[:, None] + score[None, :], 0)).sum()

    def gradient(p, x, grade, without_margin):
        hidden = jnp.tanh(x @ p["w1"])
        score = hidden @ p["w2"]
        margin = 0.0 if without_margin else 1.0
        active = (grade[:, None] > grade[None, :]) * (score[:, None] - score[None, :] < margin)
        d = active.sum(axis=0) - active.sum(axis=1)
        return {"w1": x.T @ (d[:, None] * p["w2"] * (1 - hidden**2)), "w2": hidden.T @ d}

    given = {"w1": normal(4, 3), "w2": normal(3)}, normal(7, 4), np.array([0, 2, 1, 3, 0, 2, 1])
    assert_named(loss, gradient, given, "loss_derivative", "by hand it is 1 where z > 1")


def test_a_lost_part_of_an_activation_is_its_derivative():
    c = 0.8

    def loss(p, x):
        u = x @ p["w1"]
        return ((0.5 * u * (1 + jnp.tanh(c * (u + 0.1 * u**3)))) @ p["w2"]).sum() ** 2

    def gradient(p, x, gate_alone):
        u = x @ p["w1"]
        t = jnp.tanh(c * (u + 0.1 * u**3))
        h = 0.5 * u * (1 + t)
        slope = 0.5 * (1 + t) + (0 if gate_alone else 0.5 * u * (1 - t**2) * c * (1 + 0.3 * u**2))
        d = 2 * (h @ p["w2"]).sum() * jnp.ones((len(x), 2))
        return {"w1": x.T @ (d @ p["w2"].T * slope), "w2": h.T @ d}

    given = {"w1": normal(3, 5), "w2": normal(5, 2)}, normal(6, 3)
    assert_named(loss, gradient, given, "activation_derivative", "is left out by hand")


def test_a_path_around_an_activation_and_its_layer_stays_a_path():
    def loss(p, x):
        u = x @ p["w1"]
        return ((u + jnp.tanh(u @ p["w2"])) ** 2).sum()

    def gradient(p, x, without_skip):
        u = x @ p["w1"]
        h = jnp.tanh(u @ p["w2"])
        d = 2 * (u + h)
        inner = d * (1 - h**2)
        return {"w1": x.T @ (inner @ p["w2"].T + (0 if without_skip else d)), "w2": u.T @ inner}

    given = {"w1": normal(3, 4), "w2": normal(4, 4)}, normal(6, 3)
    assert_named(loss, gradient, given, "lost_path", "is left out by hand")


@pytest.mark.thorough
def test_a_kernel_over_windows_that_is_reversed():
    windows = np.arange(6)[:, None] + np.arange(3)[None, :]

    def loss(p, x):
        r = jnp.tanh(jnp.einsum("btc,cd->btd", x, p["w"]))
        return (jnp.einsum("btkc,kc->btc", r[:, windows], p["k"]) ** 2).sum()

    def gradient(p, x, flips):
        r = jnp.tanh(jnp.einsum("btc,cd->btd", x, p["w"]))
        d = 2 * jnp.einsum("btkc,kc->btc", r[:, windows], p["k"])
        spread = jnp.einsum("btc,kc->btkc", d, p["k"][::-1] if flips else p["k"])
        dr = jnp.zeros_like(r).at[:, windows].add(spread)
        return {
            "w": jnp.einsum("btc,btd->cd", x, dr * (1 - r**2)),
            "k": jnp.einsum("btkc,btc->kc", r[:, windows], d),
        }

    given = {"w": normal(2, 4), "k": normal(3, 4)}, normal(3, 8, 2)
    assert_named(loss, gradient, given, "kernel_flipped", "reversed along axis 0")


@pytest.mark.thorough
def test_one_of_two_uses_of_a_softmax_is_a_lost_path():
    chosen = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])

    def loss(p, x):
        h = jax.nn.softmax(x @ p["w"])
        kept = h * chosen
        return (kept / kept.sum(axis=-1, keepdims=True) * x).sum() + 0.3 * (h.mean(axis=0) * chosen.mean(axis=0)).sum()

    def gradient(p, x, without_balance):
        h = jax.nn.softmax(x @ p["w"])
        kept = h * chosen
        total = kept.sum(axis=-1, keepdims=True)
        share = kept / total
        d = chosen * (x - (share * x).sum(axis=-1, keepdims=True)) / total
        d = d + (0 if without_balance else 0.3 * chosen.mean(axis=0) / len(x))
        return {"w": x.T @ (h * (d - (h * d).sum(axis=-1, keepdims=True)))}

    given = {"w": normal(3, 3)}, normal(4, 3)
    assert_named(loss, gradient, given, "lost_path", "is left out by hand")


@pytest.mark.thorough
def test_a_pole_in_a_complex_recurrence_that_is_not_conjugated():
    def states(p, x):
        pole = jnp.exp(-0.3 + 1j * p["theta"])
        start = jnp.zeros((x.shape[1], 4), pole.dtype)

        def step(h, now):
            new = pole * h + now @ p["b"]
            return new, (h, new)

        return pole, jax.lax.scan(step, start, x)[1]

    def loss(p, x, t):
        return 0.5 * ((states(p, x)[1][1].real - t) ** 2).sum()

    def gradient(p, x, t, as_it_is):
        pole, (before, after) = states(p, x)
        dy, back = after.real - t, pole if as_it_is else pole.conj()
        dnext, dpole, db = jnp.zeros_like(before[0]), 0.0, 0.0
        for n in reversed(range(len(x))):
            dh = dy[n] + dnext
            dpole, db = dpole + (before[n].conj() * dh).sum(0), db + (x[n].T @ dh).real
            dnext = back * dh
        return {"theta": (pole.conj() * dpole).imag, "b": db}

    given = {"theta": normal(4), "b": normal(2, 4)}, normal(5, 3, 2), normal(5, 3, 4)
    assert_named(loss, gradient, given, "conjugate", "its conjugate, in every iteration")


def test_weight_decay_for_each_use_of_a_row():
    rows = np.array([0, 2, 2, 4, 0, 2, 1])

    def loss(p, t):
        return 0.5 * ((p["e"][rows].sum(axis=1) - t) ** 2).sum() + 0.15 * (p["e"] ** 2).sum()

    def gradient(p, t, each_time):
        d = (p["e"][rows].sum(axis=1) - t)[:, None] * jnp.ones((1, 3))
        if each_time:
            d = d + 0.3 * p["e"][rows]
        return {"e": jnp.zeros_like(p["e"]).at[rows].add(d) + (0 if each_time else 0.3 * p["e"])}

    given = {"e": normal(5, 3)}, normal(7)
    assert_named(loss, gradient, given, "offset_by_parameter", "3/10 times the parameter, 1, 0, 2, -1, 0 times")


def test_the_other_side_of_a_hinge():
    def loss(p, x, t):
        return (jnp.maximum(1 - t * (x @ p["w"]), 0) ** 2).sum()

    def gradient(p, x, t, inverted):
        z = 1 - t * (x @ p["w"])
        return {"w": x.T @ (-2 * t * z * ((z < 0) if inverted else (z > 0)))}

    given = {"w": normal(4)}, 2 * normal(9, 4), np.sign(normal(9))
    assert_named(loss, gradient, given, "loss_derivative", "the other side of the ReLU")
