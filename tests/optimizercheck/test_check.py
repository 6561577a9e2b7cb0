"""The report of ``check_optimizer``, its identification of references, its errors, and the caller's configuration."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks.catalogue.hand_rolled import (
    adam,
    after,
    by_leaf,
    descent,
    transformation,
    tree_map,
    velocity,
    zeros,
)
from experiments.benchmarks.catalogue.optimizers import ADAM, MOMENTUM, PARAMS, RATE, SGD
from funcnn._numerics.precision import enable_x64
from funcnn.optimizercheck import check_optimizer
from funcnn.optimizercheck.identification import Observations, identify, moments
from funcnn.optimizercheck.sequences import STEPS, flatten, make_problem
from funcnn.optimizercheck.trajectories import compute_trajectory, single_phase
from funcnn.optimizercheck.update_rules import describe_rule, simulate


@pytest.fixture(scope="module")
def dampened():
    return check_optimizer(velocity(gather=lambda v, g, rate: 0.9 * v + 0.1 * g), MOMENTUM, PARAMS)


def test_rows_hold_the_first_difference(dampened):
    row = dampened.sequences[0]
    assert (row.name, row.ok, row.step) == ("constant", False, 1)
    assert row.candidate == pytest.approx(0.1 * row.reference, rel=1e-12)
    assert row.difference == pytest.approx(abs(row.candidate - row.reference))
    assert 0 < row.tolerance < 1e-10
    zero = next(row for row in dampened.sequences if row.name == "zero")
    assert (zero.ok, zero.step, zero.difference) == (True, None, 0.0)


def test_the_report_as_text(dampened):
    text = dampened.to_text()
    for words in (
        "constant",
        "step",
        "tolerance",
        "dampening: v ← μ v + (1−μ) g",
        "The reference is momentum with μ = 0.9",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 110
    assert str(dampened) == text


def test_the_report_as_json(dampened):
    record = json.loads(dampened.to_json())
    assert record == dampened.to_dict()
    assert record["cause"] == "dampening"
    assert record["sequences"][0]["step"] == 1
    assert set(record) == {"ok", "sequences", "cause", "detail", "diagnosis", "properties", "tolerance", "seconds"}
    nothing = check_optimizer(adam(eps=0.0), ADAM, PARAMS)
    assert "nan" in [row["candidate"] for row in json.loads(nothing.to_json())["sequences"]]


def test_the_report_of_built_optimizers_lists_what_was_not_checked(dampened):
    [found] = [item for item in dampened.properties if item.name == "a changing learning rate"]
    assert found.ok is None
    assert "pass optax.adam, not optax.adam(1e-3)" in found.detail


def settings():
    return jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion, jax.config.jax_numpy_rank_promotion


def test_the_caller_s_configuration_is_the_same_afterwards():
    before = settings()
    assert check_optimizer(SGD, SGD, jnp.ones(2, jnp.float32)).ok
    assert settings() == before
    with pytest.raises(ValueError, match="raised ZeroDivisionError"):
        check_optimizer(transformation(zeros, lambda g, s, p: 1 / 0), SGD, PARAMS)
    assert settings() == before


def test_a_state_with_a_wider_dtype_is_wrong():
    def update(grads, v, params=None):
        v = tree_map(lambda v, g: 0.9 * v + g.astype(jnp.promote_types(g.dtype, jnp.float32)), v, grads)
        return tree_map(lambda v, g: (-RATE * v).astype(g.dtype), v, grads), v

    report = check_optimizer(transformation(zeros, update), MOMENTUM, {"w": jnp.ones(3, jnp.bfloat16)})
    assert (report.ok, report.cause) == (False, "dtype")
    assert "state: float32" in report.detail


def test_empty_leaves_are_ignored():
    params = {"empty": jnp.zeros((0, 2)), "w": jnp.ones(3), "z": None}
    report = check_optimizer(after(by_leaf, adam()), optax.chain(optax.clip_by_global_norm(1.0), ADAM), params)
    assert report.cause == "clipping_kind"
    assert "empty" not in report.to_text()


def test_large_leaves_are_cut_to_their_corners():
    params = {"kernel": jnp.ones((300, 100)), "bias": jnp.zeros(100)}
    problem = make_problem(params, extra_leaves=False)
    assert problem.params.shape[1] == 4 * 4 + 4
    assert problem.params.all(axis=1).any()
    assert np.isfinite(problem.gradients).all()


# The description of a reference, and the reference.
UPDATE_RULES = {
    "Adam with β₁ = 0.8, β₂ = 0.99, ε = 1e-06, α = 0.01": optax.adam(RATE, b1=0.8, b2=0.99, eps=1e-6),
    "Adam with β₁ = 0.9, β₂ = 0.999, ε = 1e-05, ε inside the root = 1e-06, α = 0.01": optax.adam(
        RATE, eps=1e-5, eps_root=1e-6
    ),
    "Nesterov's Adam with β₁ = 0.9, β₂ = 0.999, ε = 1e-08, α = 0.01": optax.nadam(RATE),
    "Adamax with β₁ = 0.9, β₂ = 0.999, ε = 1e-08, α = 0.01": optax.adamax(RATE),
    "RMSprop with β₂ = 0.9, ε inside the root = 1e-08, μ of the velocity = 0.5, α = 0.01": optax.rmsprop(
        RATE, momentum=0.5
    ),
    "Lion with β₁ = 0.9, β₂ = 0.99, α = 0.01, decoupled weight decay = 0.001": optax.lion(RATE),
    "momentum with μ = 0.9, α = 0.01, coupled weight decay = 0.1, clipping by value at = 2": optax.chain(
        optax.clip(2.0), optax.add_decayed_weights(0.1), optax.sgd(RATE, momentum=0.9)
    ),
    "Nesterov's momentum with μ = 0.9": optax.sgd(lambda t: RATE / (1 + 0.1 * t), momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize(("words", "optimizer"), UPDATE_RULES.items(), ids=[words.split()[0] for words in UPDATE_RULES])
def test_references_are_identified(words, optimizer):
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        problem = make_problem(PARAMS, extra_leaves=False)
        phases = single_phase(optimizer, STEPS)
        found = compute_trajectory("reference", phases, *problem.trees(np.float64), with_states=True)
    entries = problem.params.shape[1]
    before, after = moments(found.initial, entries, 1), moments(found.states, entries, 2)
    updates = flatten(found.updates)
    groups = np.zeros(len(updates), int)
    rule = identify(Observations(problem, updates, groups, before, after, found.spacing))
    assert describe_rule(rule) == words
    scale = np.maximum(np.abs(updates).max(axis=(1, 2), keepdims=True), 1e-300)
    np.testing.assert_allclose(simulate(rule, problem).updates / scale, updates / scale, rtol=0, atol=1e-12)


def test_an_unidentified_reference_has_no_known_cause():
    report = check_optimizer(optax.lamb(RATE), optax.lars(RATE), PARAMS)
    assert (report.ok, report.cause) == (False, "unknown")
    assert "the reference follows no known update rule" in report.detail


def test_a_multiple_of_an_unidentified_reference_is_diagnosed():
    report = check_optimizer(optax.chain(optax.amsgrad(RATE), optax.scale(-2.0)), optax.amsgrad(RATE), PARAMS)
    assert (report.cause, report.detail) == ("sign", "every update is -2 times the reference's")


def another_tree(grads, state, params=None):
    return {"w": grads["w"]}, state


def fails_later(grads, state, params=None):
    if int(state["t"]) == 2:
        raise RuntimeError("out of luck")
    return grads, {"t": state["t"] + 1}


class StatefulMomentum:
    """Momentum with the velocity in an attribute, which ``init`` doesn't reset."""

    velocity = 0.0

    def init(self, params):
        return ()

    def update(self, grads, state, params=None):
        self.velocity = tree_map(lambda g: 0.9 * self.velocity + g, grads)["b"].sum()
        return tree_map(lambda g: -RATE * self.velocity * g, grads), state


BAD_CALLS = {
    "no state": (ValueError, "candidate.*goes in and comes out", lambda: (StatefulMomentum(), SGD, PARAMS)),
    "no update": (TypeError, "candidate.*init and update", lambda: ("adam", SGD, PARAMS)),
    "two kinds": (TypeError, "two of a kind", lambda: (optax.adam, SGD, PARAMS)),
    "a function of something else": (TypeError, "returns an optimizer", lambda: (math.sqrt, optax.sgd, PARAMS)),
    "a function that fails": (ValueError, "of the learning rate, but it raised", lambda: (list, optax.sgd, PARAMS)),
    "integers": (TypeError, "floating parameters", lambda: (SGD, SGD, {"w": jnp.arange(3)})),
    "complex numbers": (TypeError, "real floating", lambda: (SGD, SGD, jnp.ones(2, jnp.complex64))),
    "nothing": (ValueError, "at least one number", lambda: (SGD, SGD, {})),
    "another tree": (
        ValueError,
        "candidate.*tree structure",
        lambda: (transformation(zeros, another_tree), SGD, PARAMS),
    ),
    "another shape": (ValueError, "candidate.*expected", lambda: (descent(lambda g, p: g.sum()), SGD, PARAMS)),
    "one output": (
        ValueError,
        "return .updates, state",
        lambda: (transformation(zeros, lambda g, s, p: g), SGD, PARAMS),
    ),
    "raises": (
        ValueError,
        r"candidate.*update, at step 3 raised RuntimeError: out of luck",
        lambda: (transformation(lambda params: {"t": 0}, fails_later), SGD, PARAMS),
    ),
    "arguments": (ValueError, "reference.*raised TypeError", lambda: (SGD, optax.polyak_sgd(), PARAMS)),
}


@pytest.mark.parametrize(("error", "words", "call"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls_raise(error, words, call):
    with pytest.raises(error, match=words):
        check_optimizer(*call())
