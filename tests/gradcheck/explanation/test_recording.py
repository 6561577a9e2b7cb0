"""The program of a loss in NumPy: the same value and gradient, no program for what isn't recorded, and named causes."""

import math
import re

import jax
import numpy as np
import pytest
import scipy

import funcnn as fnn
from funcnn.gradcheck.explanation.forward_pass import record
from funcnn.gradcheck.explanation.recording import record_numpy

pytestmark = pytest.mark.usefixtures("defaults")


DRAW = np.random.default_rng(3)
X, LABELS = DRAW.normal(size=(6, 3)), np.array([0, 2, 1, 3, 2, 0])
PARAMS = {"w1": DRAW.normal(size=(3, 4)), "w2": DRAW.normal(size=(4, 4)), "u": DRAW.normal(size=(4, 4)) / 2}


def softmax(z):
    """Return the probabilities of each row, computed in place."""
    p = z - z.max(axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= p.sum(axis=1, keepdims=True)
    return p


def classifier(params, x, labels):
    """Return the mean cross-entropy of a ReLU network."""
    h = x @ params["w1"]
    np.maximum(h, 0, out=h)
    return float(-np.log(softmax(h @ params["w2"])[np.arange(len(labels)), labels]).mean())


def classifier_gradient(params, x, labels, relu=lambda d, h: d * (h > 0), count=6):
    """Return its gradient."""
    h = np.maximum(x @ params["w1"], 0)
    d = softmax(h @ params["w2"])
    d[np.arange(len(labels)), labels] -= 1
    d /= count
    dh = relu(d @ params["w2"].T, h)
    return {"w1": x.T @ dh, "w2": h.T @ d, "u": 0 * params["u"]}


def windows(params, x, labels):
    """Return a loss of rows that are written one by one, one of them only where a branch is taken."""
    rows = np.zeros((6, 4))
    rows += 1.0
    for i in range(6):
        rows[i] += x[i] @ params["w1"]
        if rows[i].sum() > 0:
            rows[i, 1:] *= 2
    first = rows[:, 0]
    first -= 3
    rows[rows < -1] = 0
    np.add.at(rows, labels, x @ params["w1"])
    return (rows**2).sum() + rows.std() + np.einsum("ij,ij->", rows, rows @ params["u"])


def recurrent(params, x, labels):
    """Return the squared states of a recurrent network, and letters as rows of a table."""
    h, total = np.zeros(4), 0.0
    for step, letter in zip(x, labels, strict=True):
        h = np.tanh(step @ params["w1"] + params["u"] @ h + params["w2"][:, letter])
        total += (h**2).sum() / math.sqrt(len(x))
    return total


def converted(params, x, labels):
    """Return a loss of arrays that are made from others, of look-ups by whole numbers, and of NumPy's reductions."""
    names = {0: 1.0, 1: 0.5, 2: 2.0, 3: 1.5}
    rows = np.array([row @ params["w1"] for row in x])
    rows[0] = np.asarray(rows[1]) * names[labels[0]]
    copied = np.array(rows)
    copied[int(labels[1])] *= 2
    order = [0.5, 1.0, 2.0, 4.0][labels[3]]
    largest = np.maximum.reduce(rows) + np.add.reduce(copied, axis=0) * np.linalg.norm(params["w2"])
    return (largest**2).sum() * order + (rows[np.flatnonzero(labels == 2)] ** 3).sum()


def make_nested():
    """Return a loss of a function that calls itself."""

    def state(params, x, depth):
        if depth == 0:
            return x[0] @ params["w1"]
        return np.tanh(params["u"] @ state(params, x, depth - 1) + params["w2"][depth])

    return lambda params, x, labels: (state(params, x, 3) ** 2).sum()


BUFFER = np.zeros((6, 4))


def scaled_in_a_buffer(z):
    """Return twice an array, in an array that is kept from call to call."""
    return np.multiply(z, 2, out=BUFFER)


def after_many_steps(z):
    """Return an array after thousands of operations."""
    for _ in range(2001):
        z = z + 1e-4
    return z


def lost_in_numbers(params, x, labels):
    """Return a loss through numbers of Python's."""
    return math.exp(float((params["w1"] ** 2).sum()) / 100) + (params["w2"] ** 2).sum()


def slope(loss, params, name, index, step=1e-6):
    """Return the slope of a loss by one entry."""

    def at(distance):
        moved = {key: value.copy() for key, value in params.items()}
        moved[name][index] += distance
        return loss(moved, X.copy(), LABELS.copy())

    return (at(step) - at(-step)) / (2 * step)


@pytest.mark.parametrize("loss", [classifier, windows, recurrent, converted, make_nested()])
def test_the_program_has_the_value_and_the_slopes_of_the_loss(loss):
    program = record_numpy(loss, PARAMS, (X, LABELS))
    assert program is not None
    tape = record(program, PARAMS)
    assert tape is not None
    np.testing.assert_allclose(tape.values[tape.result], loss(PARAMS, X.copy(), LABELS), rtol=1e-12)
    gradient = dict(zip(sorted(PARAMS), tape.right_gradient, strict=True))
    for name, index in (("u", (1, 2)), ("w1", (2, 0)), ("w1", (0, 3)), ("w2", (3, 2))):
        np.testing.assert_allclose(gradient[name][index], slope(loss, PARAMS, name, index), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "step",
    [
        scaled_in_a_buffer,
        after_many_steps,
        lambda z: z.tolist(),
        lambda z: BUFFER.dot(z.T),
        np.add.accumulate,
        np.unique,
        scipy.special.j0,
    ],
)
def test_a_loss_with_what_is_not_recorded_has_no_program(step):
    def loss(params, x, labels):
        return np.square(step(x @ params["w1"])).sum() + (params["w2"] ** 2).sum()

    assert np.isfinite(loss(PARAMS, X, LABELS))
    assert record_numpy(loss, PARAMS, (X, LABELS)) is None


def test_what_is_given_is_not_changed():
    copies = jax.tree.map(np.copy, (PARAMS, X, LABELS))
    record_numpy(classifier, PARAMS, (X, LABELS))
    jax.tree.map(np.testing.assert_array_equal, (PARAMS, X, LABELS), copies)


def test_a_program_with_another_gradient_than_the_measured_one_is_not_believed():
    def gradient(params, x, labels):
        outer = math.exp(float((params["w1"] ** 2).sum()) / 100) / 50
        return {"w1": outer * np.tanh(params["w1"]), "w2": 2 * params["w2"], "u": 0 * params["u"]}

    report = fnn.check_gradients(lost_in_numbers, gradient, PARAMS, X, LABELS)
    assert {leaf.path: leaf.cause for leaf in report.leaves if not leaf.ok} == {"['w1']": "unknown"}


@pytest.mark.parametrize(
    ("wrong", "cause", "words"),
    [
        ({"relu": lambda d, h: d}, "activation_derivative", "of ReLU in the maximum in .*; by hand it is left out"),
        ({"relu": lambda d, h: d * (d > 0)}, "activation_derivative", "only what is positive of the incoming"),
        ({"count": 5}, "scaled", "6/5"),
    ],
)
def test_mistakes_in_numpy_are_named(wrong, cause, words):
    report = fnn.check_gradients(
        classifier, lambda *args: classifier_gradient(*args, **wrong), {**PARAMS, "u": np.zeros((4, 4))}, X, LABELS
    )
    found = [leaf for leaf in report.leaves if not leaf.ok]
    assert {leaf.cause for leaf in found} == {cause}
    assert re.search(words, found[0].detail), found[0].detail


def test_a_right_gradient_in_numpy_passes():
    assert fnn.check_gradients(classifier, classifier_gradient, PARAMS, X, LABELS).ok
