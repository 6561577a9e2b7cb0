"""Verdicts on functions that change or write into their arguments, and on arguments and results of many forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST
from tests.gradcheck.numpy_data import X

pytestmark = [
    pytest.mark.skipif(jnp.float64 != WIDEST, reason="the checker judges in float64 whatever JAX is set to"),
    pytest.mark.usefixtures("promotion_as_for_users"),
]


def test_functions_that_write_into_their_arguments_get_copies():
    def loss(params, x):
        params["w"] -= 1.0
        x *= 2.0
        return float(((x @ params["w"]) ** 2).sum())

    def gradient(params, x):
        params["w"] -= 1.0
        x *= 2.0
        return {"w": 2 * x.T @ (x @ params["w"])}

    params, x = {"w": np.arange(3.0)}, X.copy()
    assert fnn.check_gradients(loss, gradient, params, x).ok
    np.testing.assert_array_equal(params["w"], np.arange(3.0))
    np.testing.assert_array_equal(x, X)


def test_nothing_is_said_of_the_gradient_of_a_loss_that_changes():
    drawn = np.random.default_rng(3)

    def loss(w, x):
        return (((x * jnp.asarray(drawn.random(x.shape) > 0.5)) @ w) ** 2).mean()

    report = fnn.check_gradients(loss, lambda w, x: 0 * w, jnp.ones(3), X)
    assert (report.ok, report.verdict, report.leaves) == (False, "undecided", ())
    assert "isn't a function of its arguments" in report.reason
    assert "key" in report.diagnosis


def test_nothing_is_said_of_a_gradient_that_changes_slightly():
    drawn = np.random.default_rng(4)

    def gradient(w):
        return 2 * w * (1 + 1e-4 * float(drawn.random()))

    report = fnn.check_gradients(lambda w: (w**2).sum(), gradient, jnp.ones(3))
    assert (report.ok, report.verdict, report.leaves) == (False, "undecided", ())
    assert "gradient by hand isn't a function" in report.reason


@pytest.mark.thorough
def test_an_argument_whose_influence_dies_out_is_nil():
    def steps(count):
        def function(params):
            state = params["start"]
            for _ in range(count):
                state = jnp.tanh(0.1 * params["w"] * state + params["b"])
            return state.sum()

        return function

    def gradient(params):
        return {**jax.grad(steps(25))(params), "start": jnp.zeros(2)}

    params = {"w": jnp.array([0.5, -0.3]), "b": jnp.array([0.2, 0.1]), "start": jnp.ones(2)}
    report = fnn.check_gradients(steps(25), gradient, params)
    assert report.ok, str(report)
    assert not fnn.check_gradients(steps(3), gradient, params).ok


def activation(name):
    return {"tanh": jnp.tanh}[name]


def test_counters_words_and_functions_among_the_parameters_are_passed_on():
    params = {"w": jnp.ones(3), "step": 3, "activation": "tanh", "apply": jnp.sin, "none": None}

    def loss(params, x):
        assert params["step"] == 3
        return params["apply"](activation(params["activation"])(x @ params["w"])).sum()

    def gradient(params, x):
        h = jnp.tanh(x @ params["w"])
        return {"w": x.T @ (jnp.cos(h) * (1 - h**2)), "step": 0, "activation": None, "apply": None, "none": None}

    report = fnn.check_gradients(loss, gradient, params, X)
    assert report.ok, str(report)
    assert [leaf.path for leaf in report.leaves] == ["['w']"]
    with pytest.raises(ValueError, match=r"\['w'\]"):
        fnn.check_gradients(loss, lambda params, x: {"v": params["w"]}, params, X)


@pytest.mark.parametrize(
    ("loss", "gradient", "message"),
    [
        (lambda w: (w**2).sum(), lambda w: ((w**2).sum(), 2 * w), r"\(loss, gradients\)\. Pass lambda \*args: .*\[1\]"),
        (lambda w: (w**2).sum(), lambda w: (2 * w, (w**2).sum()), r"\(gradients, loss\)\. Pass lambda \*args: .*\[0\]"),
        (lambda w: (w**2).sum(), lambda w: (1.0, (w, w)), "expected the tree structure of the parameters"),
        (lambda w: ((w**2).sum(), w), lambda w: 2 * w, r"\(loss, auxiliary\)\. Pass lambda \*args: .*\[0\]"),
        (lambda w: w, lambda w: (w**2).sum(), "were loss_fn and grad_fn exchanged"),
        (lambda w: w.sum() > 0, lambda w: w, "expected a function that returns a scalar"),
    ],
    ids=["value and gradient", "gradient and value", "another pair", "auxiliary", "exchanged", "truth"],
)
def test_results_in_another_form_are_recognized(loss, gradient, message):
    with pytest.raises(ValueError, match=message):
        fnn.check_gradients(loss, gradient, jnp.ones(2))


def test_numbers_of_python_are_parameters():
    params = {"w": X[0], "b": 2.0}
    report = fnn.check_gradients(
        lambda p: (p["b"] * p["w"]).sum(), lambda p: {"w": jnp.full(3, p["b"]), "b": -p["w"].sum()}, params
    )
    assert [(leaf.path, leaf.shape, leaf.cause) for leaf in report.leaves] == [
        ("['b']", (), "sign"), ("['w']", (3,), None),
    ]  # fmt: skip


def test_a_function_without_a_signature_raises_its_own_error():
    """``max`` is written in C, and takes other forms of arguments than any signature tells."""
    with pytest.raises(TypeError, match="iteration over a 0-d array"):
        fnn.check_gradients(max, lambda w: w, jnp.ones(()))


def test_a_wrong_signature_of_a_vjp_is_named():
    with pytest.raises(TypeError, match=r"check_vjp\(vjp\): expected a function that takes \(\*args\), 1 in all"):
        fnn.check_vjp(jnp.sin, lambda x, y: (x, lambda dz: (dz,)), jnp.ones(2))


def test_where_the_loss_is_not_a_number_nothing_is_decided():
    report = fnn.check_gradients(
        lambda w: (w**2).sum(), lambda w: jnp.where(jnp.isnan(w), 0.0, 2 * w), jnp.array([jnp.nan, 2.0])
    )
    assert report.verdict == "undecided"
    report = fnn.check_gradients(lambda w: jnp.log(-(w**2).sum()), lambda w: 3 * w, jnp.array([1.0, 2.0]))
    assert (report.verdict, report.reason) == ("undecided", "the loss is nan there, and has no slope")


def test_values_that_a_loss_leaves_for_its_gradient_are_found():
    kept = {}

    def loss(w, x):
        kept["error"] = x @ w
        return (kept["error"] ** 2).mean()

    def gradient(w, x):
        return x.T @ kept["error"] / len(x)

    report = fnn.check_gradients(loss, gradient, jnp.ones(3, jnp.float32), jnp.asarray(X, jnp.float32))
    assert not report.ok


def test_a_gradient_may_leave_out_what_cannot_be_differentiated():
    params = {"w": jnp.ones(3), "step": 3}
    assert fnn.check_gradients(lambda p: (p["w"] ** 2).sum(), lambda p: {"w": 2 * p["w"]}, params).ok


def test_a_loss_that_changes_after_two_calls_is_no_function():
    calls = []

    def loss(w):
        calls.append(w)
        return (w**2).sum() * (1.1 if len(calls) > 2 else 1.0)

    report = fnn.check_gradients(loss, lambda w: 2 * w, jnp.arange(3.0, dtype=jnp.float32))
    assert report.verdict == "undecided"
    assert "isn't a function of its arguments" in report.reason


@pytest.mark.thorough
def test_gradients_of_flax_modules_and_their_states():
    nnx = pytest.importorskip("flax.nnx")
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    x = jnp.asarray(X, jnp.float32)

    def loss(module, x):
        return (module(x) ** 2).mean()

    def gradient(factor):
        def by_hand(module, x):
            dy = 2 * module(x) / (2 * len(x))
            return nnx.State({"kernel": factor * x.T @ dy, "bias": dy.sum(axis=0)})

        return by_hand

    assert fnn.check_gradients(loss, nnx.grad(loss), module, x).verdict == "agrees"
    assert fnn.check_gradients(loss, gradient(1.0), module, x).verdict == "agrees"
    assert [leaf.ok for leaf in fnn.check_gradients(loss, gradient(2.0), module, x).leaves] == [True, False]

    def loss_of_state(state, graph, x):
        return loss(nnx.merge(graph, state), x)

    def gradient_of_state(state, graph, x):
        return gradient(1.0)(nnx.merge(graph, state), x)

    assert fnn.check_gradients(loss_of_state, gradient_of_state, state, graph, x).verdict == "agrees"

    normalized = nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0))  # its statistics are no parameters
    assert len(fnn.check_gradients(loss, nnx.grad(loss), normalized, x).leaves) == 2


@pytest.mark.parametrize("is_numpy", [False, True], ids=["JAX", "NumPy"])
def test_a_loss_that_rejects_all_other_parameters_has_no_slope_to_measure(is_numpy):
    """Probabilities above 1, for example."""
    w = np.array([0.25, 1.0])

    def loss(w):
        if not bool(np.all(w == [0.25, 1.0]) if is_numpy else (w[1] <= 1) & (w[1] >= 1)):
            raise ValueError("expected probabilities")
        return np.square(np.asarray(w)).sum() if is_numpy else (w**2).sum()

    report = fnn.check_gradients(loss, lambda w: 2 * w, w if is_numpy else jnp.asarray(w))
    if is_numpy:
        assert (report.ok, report.verdict) == (False, "undecided")
        assert "its slope can't be measured" in report.reason
    else:
        assert (report.ok, report.verdict) == (True, "agrees")
        assert "the loss can't be measured there" in report.reason


def test_a_gradient_whose_shape_changes_from_call_to_call_is_not_the_same_twice():
    calls = []

    def gradient(w):
        calls.append(w)
        return 2 * w if len(calls) == 1 else (2 * w)[:2]

    report = fnn.check_gradients(lambda w: (w**2).sum(), gradient, jnp.arange(3.0))
    assert not report.ok
    assert next(entry.name for entry in report.properties if not entry.ok) == "the same twice"
