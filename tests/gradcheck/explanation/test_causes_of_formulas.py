"""Causes confirmed by what the gradient by hand computes in the place of the right value: formulas, masks, factors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.gradcheck.explanation.naming import assert_named

pytestmark = pytest.mark.usefixtures("defaults")
DRAW = np.random.default_rng(61)
EVENT = jnp.array([1.0, 0, 1, 1, 0, 1, 0, 1, 1])
GROUP = jnp.array([0, 1, 2, 0, 1, 2, 1, 0, 2])


def normal(*shape):
    return DRAW.normal(size=shape)


def survival_loss(p, x, log_time):
    log_k, u = p["log_k"][GROUP], log_time - x @ p["w"] - p["b"]
    log_hazard = log_k + jnp.exp(log_k) * u
    return -jnp.mean(EVENT * log_hazard - jnp.exp(jnp.exp(log_k) * u))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("wrong", "cause", "words"),
    [("censored", "mask", "and differs where an input of shape (9,) is 0"), ("shape", "scaled_path", "the factor")],
)
def test_a_mask_and_a_factor_of_a_long_likelihood(wrong, cause, words):
    def gradient(p, x, log_time, wrong):
        k, u = jnp.exp(p["log_k"])[GROUP], log_time - x @ p["w"] - p["b"]
        cumulative, n = jnp.exp(k * u), len(x)
        du = k * ((1.0 if wrong == "censored" else EVENT) - cumulative) / n
        dk = -(EVENT * (1 / k + u) - u * cumulative) / n
        dlog_k = dk if wrong == "shape" else dk * k
        return {"w": x.T @ du, "b": du.sum(), "log_k": jnp.zeros(3).at[GROUP].add(dlog_k)}

    given = (
        {"w": 0.3 * normal(4), "b": jnp.float64(0.2), "log_k": jnp.array([0.5, -0.6, 0.9])},
        normal(9, 4),
        0.5 * normal(9),
    )
    assert_named(survival_loss, gradient, given, cause, words, wrong=wrong)


@pytest.mark.thorough
def test_a_derivative_in_which_samples_meet_is_no_formula_of_one_sample():
    def loss(p, x):
        y = x @ p["w"] + p["b"]
        return jnp.mean(y**4) - jnp.mean(y**2) ** 2

    def gradient(p, x, is_wrong):
        y, n = x @ p["w"] + p["b"], len(x)
        dy = 4 * y**3 / n - 4 * jnp.mean(y**2) * (jnp.sinh(y) if is_wrong else y) / n
        return {"w": x.T @ dy, "b": dy.sum()}

    given = {"w": normal(5), "b": jnp.float64(0.3)}, normal(8, 5)
    assert_named(loss, gradient, given, "unknown", "the backward pass from there to the parameters is right")


@pytest.mark.thorough
@pytest.mark.parametrize("wrong", ["not smoothed", "by the other classes"])
def test_data_of_the_loss_make_its_formula(wrong):
    labels, share = jnp.array([0, 2, 1, 1, 3, 2, 0, 1]), 0.2
    own = jax.nn.one_hot(labels, 4)

    def loss(p, x):
        target = (1 - share) * jax.nn.one_hot(labels, 4) + share / 4
        return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(jnp.tanh(x @ p["w"]) @ p["v"]), axis=1))

    def gradient(p, x, wrong):
        h = jnp.tanh(x @ p["w"])
        others = own * (1 - share) + (1 - own) * share / 3
        target = own if wrong == "not smoothed" else others if wrong else (1 - share) * own + share / 4
        dz = (target.sum(axis=1, keepdims=True) * jax.nn.softmax(h @ p["v"]) - target) / len(x)
        return {"v": h.T @ dz, "w": x.T @ (dz @ p["v"].T * (1 - h**2))}

    given = {"w": normal(3, 5), "v": normal(5, 4)}, normal(8, 3)
    assert_named(loss, gradient, given, "loss_derivative", "by hand", wrong=wrong)


def test_labels_of_two_classes_belong_to_the_formula_of_a_loss():
    labels = jnp.array([1.0, -1, 1, -1, -1, 1, 1])

    def loss(p, x):
        return jax.nn.relu(1 - labels * (x @ p["w"])).mean()

    def gradient(p, x, is_wrong):
        is_inside = labels * (x @ p["w"]) < 1
        return {"w": x.T @ (-(1.0 if is_wrong else labels) * is_inside / len(x))}

    assert_named(loss, gradient, ({"w": 0.1 * normal(4)}, normal(7, 4)), "loss_derivative", "by hand")


def test_one_part_between_constants_is_shifted_and_not_exchanged():
    places = jnp.array([0, 2, 1, 3, 4, 2, 5, 1])

    def loss(p, y):
        edge = jnp.zeros(1)
        return jnp.sum((jnp.concatenate([edge - 1, p["cuts"], edge + 1])[places] - y) ** 2)

    def gradient(p, y, is_wrong):
        cuts = jnp.concatenate([-jnp.ones(1), p["cuts"], jnp.ones(1)])
        d = jnp.zeros(6).at[places].add(2 * (cuts[places] - y))
        return {"cuts": d[:-2] if is_wrong else d[1:-1]}

    assert_named(loss, gradient, ({"cuts": normal(4)}, normal(8)), "shifted", "read from entry 0 on")


def test_an_axis_that_is_not_reversed_again():
    def loss(p, x):
        return jnp.sum(jnp.cumsum(jnp.tanh(x @ p["w"])[::-1], axis=0) ** 2 * jnp.arange(1.0, 7)[:, None])

    def gradient(p, x, is_wrong):
        h = jnp.tanh(x @ p["w"])
        d = 2 * jnp.cumsum(h[::-1], axis=0) * jnp.arange(1.0, 7)[:, None]
        d = jnp.cumsum(d[::-1], axis=0)[::-1]
        return {"w": x.T @ ((d if is_wrong else d[::-1]) * (1 - h**2))}

    assert_named(loss, gradient, ({"w": normal(3, 2)}, normal(6, 3)), "kernel_flipped", "not reversed again")


@pytest.mark.thorough
def test_a_value_under_a_mask_of_the_gradients_own():
    right, ahead = (jnp.tril(jnp.ones((5, 5)), by).astype(bool) for by in (0, 1))

    def weights(p, x, seen):
        scores = x @ p["q"] @ x.T
        shifted = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        return jnp.where(seen, shifted, 0) / jnp.where(right, shifted, 0).sum(axis=1, keepdims=True)

    def loss(p, x, y):
        seen = jax.nn.softmax(jnp.where(right, x @ jax.lax.stop_gradient(p["q"]) @ x.T, -jnp.inf))
        return ((seen @ (x @ p["v"]) - y) ** 2).sum() + (p["q"] ** 2).sum()

    def gradient(p, x, y, is_wrong):
        dy = 2 * (weights(p, x, right) @ (x @ p["v"]) - y)
        return {"v": x.T @ (weights(p, x, ahead if is_wrong else right).T @ dy), "q": 2 * p["q"]}

    given = {"q": 0.3 * normal(3, 3), "v": normal(3, 2)}, normal(5, 3), normal(5, 2)
    assert_named(loss, gradient, given, "mask", "")


@pytest.mark.parametrize("file", ["ipykernel_17/2484152409.py", "<ipython-input-3-ab12cd34>"])
def test_a_place_in_a_notebook_has_no_name_that_jupyter_makes_up(file):
    source = "def loss(p, x):\n    return jnp.mean(jnp.tanh(x @ p) ** 2)\n"
    names = {"jnp": jnp}
    exec(compile(source, file, "exec"), names)

    def gradient(p, x):
        h = jnp.tanh(x @ p)
        return x.T @ (2 * h / h.size)

    report = fnn.check_gradients(names["loss"], gradient, normal(3), normal(6, 3))
    assert "in notebook cell line 2" in report.leaves[0].detail


@pytest.mark.parametrize(("parts", "words"), [(2, "2 parts of the batch, of 4"), (8, "8 parts of the batch, of 1")])
def test_parts_that_count_again_come_from_a_buffer_that_was_not_cleared(parts, words):
    def loss(p, x, y):
        return ((jnp.tanh(x @ p["w"] + p["b"]) - y) ** 2).mean()

    def gradient(p, x, y, is_wrong):
        total = buffer = {"w": 0.0, "b": 0.0}
        for some in jnp.split(jnp.arange(len(x)), parts):
            h = jnp.tanh(x[some] @ p["w"] + p["b"])
            d = 2 * (h - y[some]) * (1 - h**2) / y.size
            buffer = buffer if is_wrong else {"w": 0.0, "b": 0.0}
            buffer = {"w": buffer["w"] + x[some].T @ d, "b": buffer["b"] + d.sum()}
            total = {name: total[name] + buffer[name] for name in total}
        return total

    given = {"w": normal(3), "b": jnp.float64(0.1)}, normal(8, 3), normal(8)
    assert_named(loss, gradient, given, "accumulated", words)


@pytest.mark.parametrize("coef", [normal(9), jnp.array([0.31, 0.1, 0.4, 0.6, 0.2, -0.5, -0.1, 0.5, 0.72])])
def test_a_penalty_around_the_ends_is_no_derivative(coef):
    def loss(p):
        return jnp.sum((p["coef"][1:] - p["coef"][:-1]) ** 2)

    def gradient(p, is_wrong):
        step = 2 * (p["coef"][1:] - p["coef"][:-1])
        d = jnp.zeros(9).at[1:].add(step).at[:-1].add(-step)
        around = 2 * (p["coef"][0] - p["coef"][-1])
        return {"coef": d.at[0].add(around).at[-1].add(-around) if is_wrong else d}

    assert_named(loss, gradient, ({"coef": coef},), "element", "2 of 9 entries")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("wrong", "cause", "words"),
    [("kept", "accumulated", "counted by hand again"), ("overwritten", "lost_path", "the last alone counts")],
)
def test_losses_of_parts_that_a_buffer_holds(wrong, cause, words):
    def loss(p, xs, ys):
        return sum(jnp.mean((jnp.tanh(x @ p["w"]) @ p["v"] - y) ** 2) for x, y in zip(xs, ys, strict=True)) / 3

    def gradient(p, xs, ys, wrong):
        total = buffer = {"w": 0.0, "v": 0.0}
        for x, y in zip(xs, ys, strict=True):
            h = jnp.tanh(x @ p["w"])
            d = 2 * (h @ p["v"] - y) / y.size / 3
            grads = {"v": h.T @ d, "w": x.T @ (d @ p["v"].T * (1 - h**2))}
            buffer = {name: buffer[name] + grads[name] for name in p} if wrong == "kept" else grads
            total = grads if wrong == "overwritten" else {name: total[name] + buffer[name] for name in p}
        return total

    given = {"w": normal(3, 4), "v": normal(4, 2)}, normal(3, 5, 3), normal(3, 5, 2)
    assert_named(loss, gradient, given, cause, words, wrong=wrong)
