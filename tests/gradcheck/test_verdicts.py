"""Verdicts where the evidence is weak: low precision, code that isn't JAX's, functions that change, surrogates."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import WIDEST

pytestmark = pytest.mark.skipif(jnp.float64 != WIDEST, reason="the checker judges in float64 whatever JAX is set to")

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(8, 3)), RANDOM.normal(size=(8, 2))
WEIGHTS = {"w1": RANDOM.normal(size=(3, 4)), "w2": RANDOM.normal(size=(4, 2))}
HALF = jnp.bfloat16


@pytest.fixture(autouse=True)
def promotion_as_for_users():
    """JAX's defaults: the functions are written as users write."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def float32(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def mixed_loss(params, x, y):
    hidden = jax.nn.relu(x.astype(HALF) @ params["w1"].astype(HALF))
    return (((hidden @ params["w2"].astype(HALF)).astype(jnp.float32) - y) ** 2).mean()


def mixed_gradient(factor):
    def gradient(params, x, y):
        low = x.astype(HALF)
        hidden = jax.nn.relu(low @ params["w1"].astype(HALF))
        error = (hidden @ params["w2"].astype(HALF)).astype(jnp.float32) - y
        dz = (2 * factor * error / error.size).astype(HALF)
        dhidden = dz @ params["w2"].astype(HALF).T * (hidden > 0)
        return {"w1": (low.T @ dhidden).astype(jnp.float32), "w2": (hidden.T @ dz).astype(jnp.float32)}

    return gradient


def test_products_in_bfloat16_are_judged_without_the_casts():
    arguments = float32((WEIGHTS, X, Y))
    report = fnn.check_gradients(mixed_loss, mixed_gradient(1.0), *arguments)
    assert (report.ok, report.verdict) == (True, "agrees")
    assert "the casts to bfloat16 taken out" in report.precision
    for factor in (1.02, 0.95):  # below and about the rounding of bfloat16
        report = fnn.check_gradients(mixed_loss, mixed_gradient(factor), *arguments)
        assert {leaf.cause for leaf in report.leaves} == {"scaled"}, str(report)


def test_low_precision_that_cannot_be_taken_out_is_undecided():
    """A callback's output has the dtype that it was written for."""

    def product(x):
        shape = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
        return jax.pure_callback(lambda x: np.asarray(np.tanh(np.float32(x))).astype(HALF), shape, x)

    @jax.custom_vjp
    def function(x):
        return product(x).astype(jnp.float32)

    function.defvjp(lambda x: (function(x), x), lambda x, dy: (dy * (1 - jnp.tanh(x) ** 2),))
    report = fnn.check_gradients(
        lambda w: function(w).sum(), lambda w: 1.2 * (1 - jnp.tanh(w) ** 2), jnp.ones(3, jnp.float32)
    )
    assert report.verdict != "agrees"
    assert not report.ok


def course_loss(params, x, labels, decay):
    hidden = np.maximum(0, x.dot(params["w1"]))
    scores = hidden.dot(params["w2"])
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    shares /= shares.sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(len(x)), labels]).mean() + decay * sum((w**2).sum() for w in params.values())


def course_gradient(two):
    def gradient(params, x, labels, decay):
        hidden = np.maximum(0, x.dot(params["w1"]))
        scores = hidden.dot(params["w2"])
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        shares[np.arange(len(x)), labels] -= 1
        shares /= len(x)
        dhidden = shares.dot(params["w2"].T)
        dhidden[hidden <= 0] = 0
        return {
            "w1": x.T.dot(dhidden) + two * decay * params["w1"],
            "w2": hidden.T.dot(shares) + two * decay * params["w2"],
        }

    return gradient


def test_losses_in_numpy_are_checked_by_measured_slopes():
    labels = np.arange(8) % 2
    report = fnn.check_gradients(course_loss, course_gradient(2), WEIGHTS, X, labels, 0.1)
    assert (report.ok, report.verdict) == (True, "agrees"), str(report)
    assert "Autodiff was not asked" in str(report)
    assert [leaf.dtype for leaf in report.leaves] == ["float64", "float64"]
    report = fnn.check_gradients(course_loss, course_gradient(1), WEIGHTS, X, labels, 0.1)
    assert report.verdict == "hand-written wrong"
    assert {leaf.cause for leaf in report.leaves} == {"offset_by_parameter"}
    assert "measured" in str(report)


def test_a_loss_that_ends_in_float_is_checked():
    def loss(w, x):
        return float(((x @ w) ** 2).mean())

    assert fnn.check_gradients(loss, lambda w, x: 2 * x.T @ (x @ w) / len(x), np.ones(3), X).ok
    assert not fnn.check_gradients(loss, lambda w, x: x.T @ (x @ w) / len(x), np.ones(3), X).ok


def test_a_kink_of_a_loss_in_numpy_may_have_either_side():
    def loss(w):
        return float(np.abs(w).sum())

    at = np.array([0.0, 1.0])
    assert fnn.check_gradients(loss, lambda w: np.sign(w), at).ok
    assert fnn.check_gradients(loss, lambda w: np.where(w >= 0, 1.0, -1.0), at).ok
    assert not fnn.check_gradients(loss, lambda w: 2 * np.sign(w), at).ok


def test_one_wrong_entry_among_more_than_are_measured_alone():
    w = RANDOM.normal(size=1500)

    def gradient(w):
        right = 3 * w**2
        right[1234] *= 1.5
        return right

    assert fnn.check_gradients(lambda w: float((w * w * w).sum()), lambda w: 3 * w**2, w).ok
    assert not fnn.check_gradients(lambda w: float((w * w * w).sum()), gradient, w).ok


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


def test_a_property_that_the_function_lacks_is_not_asked_of_its_rule():
    @jax.custom_vjp
    def sine(x):
        return jax.pure_callback(lambda x: np.sin(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, dy: (dy * jnp.cos(x),))
    report = fnn.check_custom_vjp(sine, jnp.ones(3))
    assert report.ok, str(report)
    under_vmap = next(entry for entry in report.properties if entry.name == "under vmap")
    assert under_vmap.ok is None
    assert "not asked" in under_vmap.detail
    report = fnn.check_gradients(lambda w: sine(w).sum(), jnp.cos, jnp.ones(3), also=("vmap",))
    assert report.ok, str(report)


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


def centred_loss(params, x):
    z = x @ params["w"]
    return ((z - z.mean(axis=0)) ** 2).mean() / 1e-4


def by_squares(params, x):
    """Right by its formula, and a difference of large numbers: E[z x] − E[z] E[x]."""
    z = x @ params["w"]
    return {"w": 2 * (x.T @ z / len(x) - x.mean(axis=0)[:, None] * z.mean(axis=0)) / z.shape[1] / 1e-4}


def test_a_gradient_that_loses_digits_is_unstable():
    x, params = jnp.asarray(1 + 0.01 * X, jnp.float32), {"w": jnp.asarray(WEIGHTS["w1"], jnp.float32)}
    report = fnn.check_gradients(centred_loss, by_squares, params, x)
    assert (report.ok, report.verdict, report.leaves[0].cause) == (True, "unstable", "unstable"), str(report)
    assert "digits" in report.diagnosis
    with pytest.warns(UserWarning, match="digits"):
        fnn.assert_gradients(centred_loss, by_squares, params, x)
    report = fnn.check_gradients(centred_loss, by_squares, params, x, stability="fail")
    assert (report.ok, report.verdict) == (False, "hand-written wrong")
    with pytest.raises(AssertionError, match="unstable"):
        fnn.assert_gradients(centred_loss, by_squares, params, x, stability="fail")

    def centred(params, x):
        z = x @ params["w"]
        return {"w": 2 * (x - x.mean(axis=0)).T @ (z - z.mean(axis=0)) / z.size / 1e-4}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fnn.assert_gradients(centred_loss, centred, params, x, stability="fail")


@jax.custom_vjp
def rounded(x):
    return jnp.round(x)


rounded.defvjp(lambda x: (jnp.round(x), None), lambda _, dy: (dy,))


def test_a_straight_through_rule_is_checked_against_its_surrogate():
    x = jnp.array([0.3, -1.7, 2.6])
    report = fnn.check_custom_vjp(rounded, x)
    assert (report.ok, report.verdict) == (False, "undecided")
    suggestion = "x + jax.lax.stop_gradient(function(x) - x)"
    assert suggestion in report.diagnosis
    surrogate = eval(f"lambda x: {suggestion}", {"jax": jax, "function": rounded})
    assert fnn.check_custom_vjp(rounded, x, reference=surrogate).ok
    report = fnn.check_custom_vjp(rounded, x, reference=lambda x: x)
    assert (report.ok, report.verdict) == (False, "undecided")
    assert "the reference is another function" in report.reason


def test_a_reversed_gradient_is_checked_against_its_surrogate():
    @jax.custom_vjp
    def reversed_(x):
        return x

    reversed_.defvjp(lambda x: (x, None), lambda _, dy: (-0.5 * dy,))
    report = fnn.check_custom_vjp(reversed_, jnp.array([0.3, -1.7, 2.6]))
    assert report.verdict == "hand-written wrong"
    assert "reference=lambda x: -1/2 * x + jax.lax.stop_gradient(function(x) - -1/2 * x)" in report.diagnosis


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
        (lambda w: ((w**2).sum(), w), lambda w: 2 * w, r"\(loss, auxiliary\)\. Pass lambda \*args: .*\[0\]"),
        (lambda w: w, lambda w: (w**2).sum(), "were loss_fn and grad_fn exchanged"),
        (lambda w: w.sum() > 0, lambda w: w, "expected a function that returns a scalar"),
    ],
    ids=["value and gradient", "auxiliary", "exchanged", "truth"],
)
def test_results_in_another_form_are_recognized(loss, gradient, message):
    with pytest.raises(ValueError, match=message):
        fnn.check_gradients(loss, gradient, jnp.ones(2))


def test_a_wrong_signature_of_a_vjp_is_named():
    with pytest.raises(TypeError, match=r"check_vjp\(vjp\): expected a function that takes \(\*args\), 1 in all"):
        fnn.check_vjp(jnp.sin, lambda x, y: (x, lambda dz: (dz,)), jnp.ones(2))


def low_product(a, b):
    return (a.astype(HALF) @ b.astype(HALF)).astype(jnp.float32)


def low_product_vjp(factor):
    def vjp(a, b):
        def pullback(dy):
            low = (factor * dy).astype(HALF)
            return (low @ b.astype(HALF).T).astype(a.dtype), (a.astype(HALF).T @ low).astype(b.dtype)

        return low_product(a, b), pullback

    return vjp


def test_a_rule_in_bfloat16_has_its_properties_by_the_digits_of_bfloat16():
    a, b = float32((X, WEIGHTS["w1"]))
    report = fnn.check_vjp(low_product, low_product_vjp(1.0), a, b)
    assert report.ok, str(report)
    assert not fnn.check_vjp(low_product, low_product_vjp(1.1), a, b).ok
    rule = jax.custom_vjp(low_product)
    rule.defvjp(lambda a, b: (low_product(a, b), (a, b)), lambda kept, dy: low_product_vjp(1.0)(*kept)[1](dy))
    assert fnn.check_custom_vjp(rule, a, b).ok
    # A reference of more digits has the same values but for the rounding.
    report = fnn.check_custom_vjp(rule, a, b, reference=lambda a, b: a @ b)
    assert report.ok, str(report)


def test_a_loss_that_ends_in_item_is_measured():
    def loss(w, x):
        return ((x @ w) ** 2).mean().item()

    report = fnn.check_gradients(loss, lambda w, x: 2 * x.T @ (x @ w) / len(x), jnp.ones(3), X)
    assert (report.ok, report.verdict) == (True, "agrees"), str(report)
    assert "isn't traced" in report.no_autodiff
    assert not fnn.check_gradients(loss, lambda w, x: x.T @ (x @ w) / len(x), jnp.ones(3), X).ok


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: float((w.astype(np.float16) ** 2).sum()),
        lambda w: np.float32(1e4) + np.float32((w.astype(np.float32) ** 2).sum()),
        lambda w: float(np.float32(1.0) * (w.astype(np.float32) ** 2).sum(dtype=np.float32)),
    ],
    ids=["float16", "offset", "float32"],
)
def test_a_loss_in_numpy_of_few_digits_makes_no_right_gradient_wrong(loss):
    at = np.array([0.7, -1.3, 0.4])
    assert fnn.check_gradients(loss, lambda w: 2 * w, at).verdict in ("agrees", "undecided")
    assert fnn.check_gradients(loss, lambda w: 5 * w, at).verdict != "agrees"


def test_a_gradient_that_overflows_without_autodiff_is_wrong():
    def loss(w):
        return float(np.logaddexp(0, w).sum())

    with np.errstate(all="ignore"):
        report = fnn.check_gradients(loss, lambda w: np.exp(w) / (1 + np.exp(w)), np.array([100, 1], np.float32))
    assert (report.ok, report.verdict) == (False, "hand-written wrong"), str(report)


def test_where_the_loss_is_not_a_number_nothing_is_decided():
    report = fnn.check_gradients(
        lambda w: (w**2).sum(), lambda w: jnp.where(jnp.isnan(w), 0.0, 2 * w), jnp.array([jnp.nan, 2.0])
    )
    assert report.verdict == "undecided"


def test_a_vjp_of_a_function_in_numpy():
    def function(x):
        return np.tanh(np.asarray(x))

    def vjp(slope):
        return lambda x: (function(x), lambda dy: (dy * slope(np.tanh(np.asarray(x))),))

    x = np.array([0.3, -1.0, 2.0])
    assert fnn.check_vjp(function, vjp(lambda y: 1 - y**2), x).ok
    assert not fnn.check_vjp(function, vjp(lambda y: 1 - y), x).ok


def test_values_that_a_loss_leaves_for_its_gradient_are_found():
    kept = {}

    def loss(w, x):
        kept["error"] = x @ w
        return (kept["error"] ** 2).mean()

    def gradient(w, x):
        return x.T @ kept["error"] / len(x)

    report = fnn.check_gradients(loss, gradient, jnp.ones(3, jnp.float32), jnp.asarray(X, jnp.float32))
    assert not report.ok


def test_a_gradient_of_nothing_but_rounding_beside_a_flat_loss():
    report = fnn.check_gradients(lambda w: 0 * w.sum(), lambda w: (w + 1) - 1 - w, jnp.full(3, 2.0**-30, jnp.float32))
    assert report.verdict in ("agrees", "unstable", "undecided")


def test_a_gradient_may_leave_out_what_cannot_be_differentiated():
    params = {"w": jnp.ones(3), "step": 3}
    assert fnn.check_gradients(lambda p: (p["w"] ** 2).sum(), lambda p: {"w": 2 * p["w"]}, params).ok


def loss_with(function):
    return lambda w, x, y: ((x @ function(w) - y) ** 2).mean()


def gradient_of_rounded(w, x, y):
    return 2 * x.T @ (x @ jnp.round(w) - y) / len(y)


def test_a_straight_through_rule_inside_a_loss_is_checked_as_a_surrogate():
    w, x, y = float32((np.array([0.3, -1.7, 2.6]), X, Y[:, 0]))
    report = fnn.check_gradients(loss_with(rounded), gradient_of_rounded, w, x, y)
    assert (report.verdict, report.leaves[0].ok) == ("undecided", True)
    assert "the rule of rounded (test_verdicts.py:" in report.reason
    assert "the function's slope is zero everywhere" in report.reason
    assert "returns its cotangent" in report.reason
    suggestion = "x + jax.lax.stop_gradient(f(x) - x)"
    assert f"rounded(x) = {suggestion}" in report.diagnosis
    surrogate = eval(f"lambda x: {suggestion}", {"jax": jax, "f": jnp.round})
    assert fnn.check_gradients(loss_with(surrogate), gradient_of_rounded, w, x, y).verdict == "agrees"
    doubled = fnn.check_gradients(loss_with(surrogate), lambda *args: 2 * gradient_of_rounded(*args), w, x, y)
    assert doubled.verdict == "hand-written wrong"
    report = fnn.check_gradients(loss_with(jnp.round), gradient_of_rounded, w, x, y)
    assert report.verdict == "hand-written wrong"
    assert "Behind round the slope of the loss is zero" in report.diagnosis


def test_a_rule_that_clips_its_cotangent_is_named():
    @jax.custom_vjp
    def clipped(x):
        return x

    clipped.defvjp(lambda x: (x, None), lambda _, dy: (jnp.clip(dy, -0.1, 0.1),))

    def gradient(w, x, y):
        return jnp.clip(2 * x.T @ (x @ w - y) / len(y), -0.1, 0.1)

    report = fnn.check_gradients(loss_with(clipped), gradient, *float32((np.array([0.3, -1.7, 2.6]), X, Y[:, 0])))
    assert report.verdict == "undecided"
    assert "isn't linear in its cotangent" in report.reason
    assert "without its rule" in report.diagnosis


def test_a_wrong_rule_inside_a_loss_is_named_and_excuses_nobody():
    @jax.custom_jvp
    def bent(z):
        return jnp.tanh(z)

    bent.defjvp(lambda primals, tangents: (jnp.tanh(*primals), tangents[0] * (1 - primals[0] ** 2)))

    def loss(w, x):
        return bent(x @ w).sum()

    w, x = float32((np.array([0.3, -0.7, 0.6]), X))
    same = fnn.check_gradients(loss, lambda w, x: x.T @ (1 - (x @ w) ** 2), w, x)
    assert same.verdict == "hand-written wrong"
    assert "the rule of bent (test_verdicts.py:" in same.reason
    right = fnn.check_gradients(loss, lambda w, x: x.T @ (1 - jnp.tanh(x @ w) ** 2), w, x)
    assert right.verdict == "autodiff wrong"
    assert "the rule of bent" in right.reason


def test_a_function_without_a_rule_is_refused():
    with pytest.raises(ValueError, match="There is nothing to check"):
        fnn.check_custom_vjp(jnp.sin, jnp.ones(2))
    assert fnn.check_custom_vjp(jnp.sin, jnp.ones(2), reference=jnp.sin).ok


@pytest.mark.parametrize("size", [1e-9, 1e-13])
def test_a_leaf_far_below_the_others_is_measured_on_its_own(size):
    """The slopes are measured to a share of the leaf, or nothing is said of it."""
    params = {"large": RANDOM.normal(size=3), "small": RANDOM.normal(size=3)}

    def loss(params):
        return float((params["large"] ** 2).sum() + size * (params["small"] ** 2).sum())

    def gradient(factor):
        return lambda params: {"large": 2 * params["large"], "small": 2 * factor * size * params["small"]}

    assert not fnn.check_gradients(loss, gradient(2.0), params).ok
    assert fnn.check_gradients(loss, gradient(1.0), params).verdict in ("agrees", "undecided")


def test_a_kernel_that_rounds_to_few_digits_makes_its_rule_neither_right_nor_wrong():
    """The jumps of the loss are the resolution of its slopes, wherever its terms cancel."""

    def kernel(x):
        shape = jax.ShapeDtypeStruct(x.shape, HALF)
        return jax.pure_callback(lambda x: np.tanh(np.float32(x)).astype(HALF), shape, x).astype(x.dtype)

    def rule(factor):
        function = jax.custom_vjp(kernel)
        function.defvjp(lambda x: (kernel(x), x), lambda x, dy: (factor * dy * (1 - jnp.tanh(x) ** 2),))
        return function

    x = jnp.array([0.3, -0.7, 1.6, -0.2], jnp.float32)
    assert fnn.check_custom_vjp(rule(1.0), x).verdict == "undecided"
    assert fnn.check_custom_vjp(rule(1.5), x).verdict != "agrees"
    assert fnn.check_custom_vjp(rule(1.0), x, reference=jnp.tanh).verdict == "agrees"
    assert fnn.check_custom_vjp(rule(1.02), x, reference=jnp.tanh).verdict == "hand-written wrong"


def test_a_loss_that_changes_after_two_calls_is_no_function():
    calls = []

    def loss(w):
        calls.append(w)
        return (w**2).sum() * (1.1 if len(calls) > 2 else 1.0)

    report = fnn.check_gradients(loss, lambda w: 2 * w, jnp.arange(3.0, dtype=jnp.float32))
    assert report.verdict == "undecided"
    assert "isn't a function of its arguments" in report.reason


def test_a_loop_with_its_dtypes_written_out_is_judged_in_float64():
    """JAX refuses float64 in a carry of float32; the program in the caller's dtypes is rewritten."""

    def means(w, x):
        low = x.astype(HALF)

        def add(total, row):
            return total + jnp.square((row * w.astype(HALF)).astype(jnp.float32)), row

        return jax.lax.scan(add, jnp.zeros(3, jnp.float32), low)[0] / len(x)

    def gradient(factor):
        return lambda w, x: factor * 2 * w * jnp.square(x.astype(HALF).astype(jnp.float32)).mean(axis=0)

    w, x = float32((np.array([0.3, -1.7, 2.6]), X))
    report = fnn.check_gradients(lambda w, x: means(w, x).sum(), gradient(1.0), w, x)
    assert (report.verdict, report.precision) == ("agrees", "float64, the casts to bfloat16 taken out"), str(report)
    report = fnn.check_gradients(lambda w, x: means(w, x).sum(), gradient(1.02), w, x)
    assert (report.verdict, report.leaves[0].cause) == ("hand-written wrong", "scaled"), str(report)


def test_normal_numbers_by_a_key_are_the_callers_in_float64_too():
    key = jax.random.key(3)

    def noisy(x):
        return x + 0.1 * jax.random.normal(key, x.shape, x.dtype)

    def gradient(factor):
        return lambda w, x: factor * 2 * noisy(x).T @ (noisy(x) @ w) / len(x)

    w, x = float32((np.array([0.3, -1.7, 2.6]), X))
    for factor, verdict in ((1.0, "agrees"), (1.001, "hand-written wrong")):
        assert fnn.check_gradients(lambda w, x: ((noisy(x) @ w) ** 2).mean(), gradient(factor), w, x).verdict == verdict


def test_a_gradient_that_overflows_as_autodiff_does_is_not_to_blame():
    """10 w² doesn't fit in float16, by either way."""
    for stability in ("report", "fail"):
        report = fnn.check_gradients(
            lambda w: (w**3).sum() / 10, lambda w: 3 * w**2 / 10, jnp.full(4, 300.0, jnp.float16), stability=stability
        )
        assert (report.ok, report.leaves[0].cause) == (True, "unstable"), str(report)


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
