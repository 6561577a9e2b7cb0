"""Causes that the numbers of the two gradients show: in whole leaves, in units, and in samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(67)


def normal(*shape):
    return DRAW.normal(size=shape)


# A layer and its mean squared error.
def layer_loss(p, x, t):
    return ((jnp.tanh(x @ p["w"] + p["b"]) - t) ** 2).sum(axis=1).mean()


def layer_gradient(change=lambda d: d, weight=lambda g: g):
    def gradient(p, x, t):
        h = jnp.tanh(x @ p["w"] + p["b"])
        dz = change(2 * (h - t) * (1 - h**2) / len(x))
        return weight({"w": x.T @ dz, "b": dz.sum(axis=0)})

    return gradient


LAYER = {"w": normal(3, 4), "b": normal(4)}, normal(6, 3), normal(6, 4)
NOISE = normal(6)


def moved(g):
    return {**g, "w": jnp.roll(g["w"], 1, axis=1)}


def reshaped(g):
    return {**g, "w": g["w"].T.reshape(3, 4)}


@pytest.mark.parametrize(
    ("wrong", "causes", "words"),
    [
        ({"weight": moved}, {"w": "shifted"}, "autodiff's gradient moved by 1 along axis 1"),
        ({"weight": reshaped}, {"w": "transposed"}, "transposed, and then reshaped to the shape of the parameter"),
        (
            {"weight": lambda g: jax.tree.map(lambda leaf: 0.01 * leaf, g)},
            {"w": "scaled", "b": "scaled"},
            "is it the learning rate? It belongs to the optimizer",
        ),
        (
            {"change": lambda d: d.at[:, 2].multiply(NOISE)},
            {"w": "unit", "b": "unit"},
            "entry 2 is wrong, as the same units of ['w'] are",
        ),
    ],
)
def test_whole_leaves_and_units(wrong, causes, words):
    assert fnn.check_gradients(layer_loss, layer_gradient(), *LAYER).ok
    report = fnn.check_gradients(layer_loss, layer_gradient(**wrong), *LAYER)
    assert {leaf.path[2:-2]: leaf.cause for leaf in report.leaves if not leaf.ok} == causes
    assert words in " ".join(report.diagnosis.split()), str(report)


# Two biases of a shape, one behind the other.
def biases_loss(p, x, t):
    return ((jnp.tanh(x + p["first"]) + p["second"] - t) ** 2).sum()


def biases_gradient(p, x, t, combine):
    h = jnp.tanh(x + p["first"])
    d = 2 * (h + p["second"] - t)
    first, second = (d * (1 - h**2)).sum(axis=0), d.sum(axis=0)
    return combine(first, second) if combine else {"first": first, "second": second}


@pytest.mark.parametrize(
    ("wrong", "cause", "words"),
    [
        (lambda a, b: {"first": a + b, "second": a + b}, "accumulated", "is added: do both have one array?"),
        (lambda a, b: {"first": b, "second": a}, "swapped", "the gradient of ['second']: were the two exchanged?"),
    ],
)
def test_gradients_of_two_biases_in_one_array_or_exchanged(wrong, cause, words):
    given = {"first": normal(3), "second": normal(3)}, normal(5, 3), normal(5, 3)
    assert_named(biases_loss, biases_gradient, given, cause, words, wrong=wrong)


def test_a_weight_of_the_loss_that_is_left_out():
    def loss(p, x, weight):
        return weight * (jnp.sin(x @ p["w"])).sum()

    def gradient(p, x, weight, is_wrong):
        return {"w": x.T @ jnp.cos(x @ p["w"]) * (1 if is_wrong else weight)}

    given = {"w": normal(3)}, normal(5, 3), np.asarray(0.37)
    assert_named(loss, gradient, given, "scaled", "is it left out?")


# A linear model and the mean of its squared errors, of which some samples count otherwise.
def line_loss(p, x, t):
    return ((x @ p["w"] - t) ** 2).mean()


def line_gradient(p, x, t, weights):
    weights = np.ones(len(x)) if weights is False else np.asarray(weights)
    return {"w": 2 * x.T @ (weights * (x @ p["w"] - t)) / len(x)}


@pytest.mark.parametrize(
    ("features", "weights", "words"),
    [
        (3, [1, 1, 1, 2, 1, 1, 1, 1], "sample 3 of 8 is counted twice"),
        (3, [2, 0, 2, 0, 2, 0, 2, 0], "only samples 0, 2, 4, 6 of 8 in it"),
        (9, [0.8, 0.8, 0.8, 0.8, 0.8, 4 / 3, 4 / 3, 4 / 3], "samples 5, 6, 7 with the weight 4/3"),
    ],
)
def test_samples_that_count_otherwise(features, weights, words):
    given = {"w": normal(features)}, normal(8, features), normal(8)
    assert_named(line_loss, line_gradient, given, "subset_of_batch", words, wrong=weights)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda g: 1, "every column is divided by its entry of ['g']: was that factor left out?"),
        (lambda g: g**2, "every column is multiplied by its entry of ['g']: was that factor put in twice?"),
    ],
)
def test_factors_of_columns_where_the_loss_has_no_program(wrong, words):
    def loss(p, x, t):
        return sum(entry**2 for row in ((x @ p["w"]) * p["g"] - t).tolist() for entry in row)

    def gradient(p, x, t, factor):
        z = x @ p["w"]
        d = 2 * (z * p["g"] - t)
        return {"w": x.T @ d * (factor(p["g"]) if factor else p["g"]), "g": (d * z).sum(axis=0)}

    given = {"w": normal(3, 4), "g": 1 + normal(4) ** 2}, normal(5, 3), normal(5, 4)
    assert_named(loss, gradient, given, "unknown", words, wrong=wrong)


def test_one_sample_of_the_gradient_by_the_input():
    layer = fnn.linear(3, 4)

    def backward(residuals, dy):
        dparams, dx = layer.backward(residuals, dy)
        return dparams, dx.at[2].set(dx[0])

    report = fnn.check_layer(layer._replace(backward=backward), normal(5, 3))
    assert {leaf.path: leaf.cause for leaf in report.leaves if not leaf.ok} == {"x": "subset_of_batch"}, str(report)
    assert "sample 2 is wrong, the rest right" in report.diagnosis


def test_a_row_that_is_right_because_its_input_is_zero():
    """The other rows are wrong for no common reason, and that they are all but one means nothing."""
    factors = normal(4, 3)

    def loss(p, x):
        return jnp.sin(x @ p["w"]).sum()

    def gradient(p, x, is_wrong):
        return {"w": x.T @ jnp.cos(x @ p["w"]) * (factors if is_wrong else 1)}

    given = {"w": normal(4, 3)}, normal(5, 4) * np.array([1, 0, 1, 1])
    assert_named(loss, gradient, given, "unknown", "by hand and")
