"""Causes in sums, maxima, orders, look-ups and choices: each is named, and its right twin passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(61)


def normal(*shape):
    return DRAW.normal(size=shape)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda d: d, "by hand that of its own sum alone"),
        (lambda d: jnp.broadcast_to(d.sum(axis=1, keepdims=True), d.shape), "by hand the sum of all"),
    ],
)
def test_sums_up_to_each_entry(wrong, words):
    def loss(p, x, t):
        return ((jnp.cumsum(x * p["w"], axis=1) - t) ** 2).sum()

    def gradient(p, x, t, back):
        d = 2 * (jnp.cumsum(x * p["w"], axis=1) - t)
        return {"w": ((back(d) if back else jnp.flip(jnp.cumsum(jnp.flip(d, 1), 1), 1)) * x).sum(0)}

    given = {"w": normal(5)}, normal(3, 5), normal(3, 5)
    assert_named(loss, gradient, given, "lost_path", words, wrong=wrong)


def test_time_that_is_reversed_once():
    def loss(p, x, t):
        return ((jnp.tanh(x @ p["w"])[:, ::-1] - t) ** 2).sum()

    def gradient(p, x, t, is_wrong):
        h = jnp.tanh(x @ p["w"])
        d = 2 * (h[:, ::-1] - t)
        return {"w": jnp.einsum("bti,bto->io", x, (d if is_wrong else d[:, ::-1]) * (1 - h**2))}

    given = {"w": normal(2, 3)}, normal(2, 4, 2), normal(2, 4, 3)
    assert_named(loss, gradient, given, "kernel_flipped", "is by hand not reversed again")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda d, order: d, "not brought back into the order before the sort"),
        (lambda d, order: jnp.take_along_axis(d, order, 1), "sorted once more: the order is applied and not undone"),
    ],
)
def test_distances_of_sorted_samples(wrong, words):
    def loss(p, x, t):
        return ((jnp.sort(x @ p["w"], axis=1) - t) ** 2).sum()

    def gradient(p, x, t, back):
        z = x @ p["w"]
        order = jnp.argsort(z, axis=1)
        d = 2 * (jnp.sort(z, axis=1) - t)
        return {"w": x.T @ (back(d, order) if back else jnp.take_along_axis(d, jnp.argsort(order, axis=1), 1))}

    given = {"w": normal(3, 5)}, normal(4, 3), normal(4, 5)
    assert_named(loss, gradient, given, "transposed", words, wrong=wrong)


def test_ranks_of_scores_in_reversed_order():
    def loss(p, x, t):
        return ((jnp.sort(x @ p["w"]) - t) ** 2).sum()

    def gradient(p, x, t, is_wrong):
        z = x @ p["w"]
        d = 2 * (jnp.sort(z) - t)
        return {"w": x.T @ (d[::-1] if is_wrong else d[jnp.argsort(jnp.argsort(z))])}

    given = {"w": normal(3)}, normal(6, 3), normal(6)
    assert_named(loss, gradient, given, "transposed", "by hand in reversed order")


@pytest.mark.thorough
def test_a_bias_by_the_bucket_of_a_distance():
    """A bias for each distance between two places, as of attention, summed by the places."""
    buckets = np.array([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]])

    def loss(p, x):
        return (jax.nn.softmax(x + p["b"][buckets]) * x).sum()

    def gradient(p, x, is_wrong):
        s = jax.nn.softmax(x + p["b"][buckets])
        d = s * (x - (s * x).sum(-1, keepdims=True))
        return {"b": d.sum(0) if is_wrong else jnp.zeros(4).at[buckets].add(d)}

    assert_named(loss, gradient, ({"b": normal(4)}, normal(4, 4)), "wrong_axis", "summed by the places of axis 1")


@pytest.mark.parametrize(("wrong", "words"), [("mean", "the mean of all, at every row"), ("sum", "the sum of all")])
def test_the_same_gradient_for_every_row_of_a_table(wrong, words):
    rows = np.array([0, 2, 2, 4, 1])

    def loss(p, t):
        return ((jnp.tanh(p["e"][rows]) - t) ** 2).sum()

    def gradient(p, t, how):
        h = jnp.tanh(p["e"][rows])
        d = 2 * (h - t) * (1 - h**2)
        every = {"mean": d.mean(axis=0), "sum": d.sum(axis=0)}
        return {"e": jnp.broadcast_to(every[how], (5, 3)) if how else jnp.zeros((5, 3)).at[rows].add(d)}

    assert_named(loss, gradient, ({"e": normal(5, 3)}, normal(5, 3)), "wrong_operand", words, wrong=wrong)


def test_pairs_of_a_table_put_back_with_their_places_exchanged():
    rows = np.array([[0, 3, 2], [1, 1, 4], [2, 0, 0]])

    def loss(p, t):
        return (p["e"][rows] * t).sum() ** 2

    def gradient(p, t, is_wrong):
        d = 2 * (p["e"][rows] * t).sum() * t
        return {"e": jnp.zeros((5, 2)).at[rows].add(d.swapaxes(0, 1) if is_wrong else d)}

    given = {"e": normal(5, 2)}, normal(3, 3, 2)
    assert_named(loss, gradient, given, "transposed", "put back with the axes 0 and 1 of what is read exchanged")


def test_an_exponent_that_is_learned():
    def loss(p, x, t):
        return ((p["s"] * x ** p["n"] - t) ** 2).sum()

    def gradient(p, x, t, without_logarithm):
        power = x ** p["n"]
        d = 2 * (p["s"] * power - t)
        dn = d * p["s"] * power * (1 if without_logarithm else jnp.log(x))
        return {"n": dn.sum(axis=0), "s": (d * power).sum(axis=0)}

    given = {"n": 1 + normal(3) ** 2, "s": normal(3)}, 0.5 + normal(5, 3) ** 2, normal(5, 3)
    assert_named(loss, gradient, given, "activation_derivative", "by hand xⁿ: the logarithm of the base is left out")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda d, floor_is_taken: d, "by hand that of both sides"),
        (lambda d, floor_is_taken: d * ~floor_is_taken, "by hand that of the side that is not taken"),
    ],
)
def test_the_larger_of_a_layer_and_a_learned_floor(wrong, words):
    def loss(p, x, t):
        return ((jnp.maximum(x @ p["w"], p["f"]) - t) ** 2).sum()

    def gradient(p, x, t, of_floor):
        floor_is_taken = p["f"] > x @ p["w"]
        d = 2 * (jnp.maximum(x @ p["w"], p["f"]) - t)
        right = d * floor_is_taken
        return {"w": x.T @ (d - right), "f": (of_floor(d, floor_is_taken) if of_floor else right).sum(axis=0)}

    given = {"w": normal(3, 4), "f": normal(4)}, normal(6, 3), normal(6, 4)
    assert_named(loss, gradient, given, "mask", words, wrong=wrong)


def test_values_in_the_order_of_their_scores():
    """No gradient comes to the scores, by which the values are sorted."""

    def loss(p, x, t):
        return ((lax.sort((x @ p["score"], x @ p["value"]), num_keys=1)[1] - t) ** 2).sum()

    def gradient(p, x, t, is_wrong):
        order = jnp.argsort(x @ p["score"])
        d = 2 * ((x @ p["value"])[order] - t)
        return {"score": jnp.zeros(3), "value": x.T @ (d if is_wrong else d[jnp.argsort(order)])}

    given = {"score": normal(3), "value": normal(3)}, normal(6, 3), normal(6)
    assert_named(loss, gradient, given, "transposed", "not brought back into the order before the sort")
