"""Functions of any output, and rules registered with JAX."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.gradcheck.engine.functions import describe_error
from tests.cases import KEY, WIDEST

X = jax.random.normal(KEY, (4, 3), WIDEST)
Y = jax.random.normal(jax.random.key(3), (4, 3), WIDEST)


def test_what_is_wrong_with_a_vjp_or_a_rule_is_a_sentence(as_for_users):
    x = jnp.ones(2)
    for vjp, message in (
        (
            lambda x: (x, lambda residuals, dy: (dy,)),
            r"check_vjp\(vjp\): its pullback: .* takes \(cotangent\), 1 in all, ",
        ),
        (lambda x: x, r"check_vjp\(vjp\): expected \(output, pullback\) from vjp, got one array \(2,\)\. Return"),
        (lambda x, dy: dy, r"check_vjp\(vjp\): .*with vjp\(\*args\) -> \(output, pullback\)"),
    ):
        with pytest.raises(TypeError, match=message):
            fnn.check_vjp(lambda x: x, vjp, x)
    for kind, rule in ((jax.custom_vjp, "defvjp"), (jax.custom_jvp, "defjvp")):
        without = kind(lambda x: x)
        for function in (without, lambda x, without=without: 2 * without(x)):
            with pytest.raises(TypeError, match=rf"check_custom_vjp\(function\): .*Call function\.{rule}\("):
                fnn.check_custom_vjp(function, x)


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (lambda dy: (dy, dy), r"vjp\): expected a tuple of 1 gradients.*, got \[0\] \(4, 3\), \[1\] \(4, 3\)\. Return"),
        (lambda dy: ((dy, dy),), r"vjp\): its pullback: expected the tree structure of the arguments, \[0\]\['a'\] "),
        (lambda dy: ({"b": dy},), r"got \[0\]\['b'\] \(4, 3\)\. Return a tuple with a gradient for each argument"),
    ],
    ids=["another number", "a tuple for a dictionary", "another name"],
)
def test_gradients_of_another_form_are_an_error_about_the_vjp(gradients, message, as_for_users):
    with pytest.raises(ValueError, match=message) as caught:
        fnn.check_vjp(lambda tree: 2 * tree["a"], lambda tree: (2 * tree["a"], gradients), {"a": X})
    assert "grad_fn" not in str(caught.value)


def test_arguments_that_are_integers_alone_are_refused(as_for_users):
    for args, message in (
        ((2.5,), r"got 2\.5 of type float at the root\. Pass floating arrays, such as jnp\.asarray\(x, float\)"),
        (({"a": jnp.arange(3)},), r"got int.* at \['a'\]\. Make them floating: x = jax\.tree\.map\("),
        ((), r"got \(\)\. Pass them: check_vjp\(…, x\)"),
    ):
        with pytest.raises(TypeError, match=message):
            fnn.check_vjp(lambda *args: args, lambda *args: args, *args)


def test_a_long_error_is_cut_between_words():
    assert describe_error(ValueError("causes of what was attempted\nmore"), 30) == "ValueError: causes of what …"


def product(x, y, power):
    return {"product": x * y**power, "sum": (x + y).sum(axis=1)}


def product_vjp(x, y, power, factor=1.0):
    def pullback(cotangent):
        dproduct, dsum = cotangent["product"], cotangent["sum"][:, None]
        dx = dproduct * y**power + dsum
        dy = factor * power * dproduct * x * y ** (power - 1) + dsum
        return dx, dy, None

    return product(x, y, power), pullback


def test_a_vjp_by_hand_against_a_random_cotangent():
    report = fnn.check_vjp(product, product_vjp, X, Y, 2)
    assert report.ok, str(report)
    assert [leaf.path for leaf in report.leaves] == ["[0]", "[1]"]
    assert [tuple(leaf) for leaf in report.not_compared] == [("[2]", "int", "integers have no gradient")]
    wrong = fnn.check_vjp(product, functools.partial(product_vjp, factor=2.0), X, Y, 2)
    assert [leaf.path for leaf in wrong.leaves if not leaf.ok] == ["[1]"]


def test_a_vjp_that_is_not_linear_is_found_though_its_values_are_right():
    def clipped(x):
        return 3 * x, lambda dy: (3 * jnp.clip(dy, -4, 4),)

    report = fnn.check_vjp(lambda x: 3 * x, clipped, X)
    assert [entry.name for entry in report.properties if not entry.ok] == ["linear in the cotangent"]


def test_an_output_that_is_not_the_function_s():
    report = fnn.check_vjp(lambda x: x * x, lambda x: (x, lambda dy: (2 * x * dy,)), X)
    assert [entry.name for entry in report.properties if not entry.ok] == ["in its output"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fnn.check_vjp(jnp.sin, lambda x: jnp.cos(x), X), TypeError, r"expected \(output, pullback\) from vjp"),
        (
            lambda: fnn.check_vjp(jnp.sin, lambda x: (x, lambda dy: dy), X),
            ValueError,
            "expected a tuple of 1 gradients",
        ),
        (
            lambda: fnn.check_vjp(jnp.sin, jnp.sin, 3),
            TypeError,
            r"got 3 of type int at the root\. Pass floating arrays, such as jnp\.asarray\(x, float\)",
        ),
        (lambda: fnn.check_custom_vjp(square_root()), TypeError, r"Pass them: check_custom_vjp\(…, x\)"),
        (
            lambda: fnn.check_custom_vjp(square_root(), X, X),
            TypeError,
            r"2 in all, .*Pass check_custom_vjp",
        ),
        (lambda: fnn.check_custom_vjp(jnp.sin, X, reference=lambda x: (x, x)), ValueError, "the reference's output"),
        (lambda: fnn.check_custom_vjp("sin", X), TypeError, r"check_custom_vjp\(function\): expected a function"),
    ],
    ids=["no pair", "no tuple", "nothing floating", "nothing", "two arguments", "reference", "no function"],
)
def test_bad_calls_are_errors(call, error, message, as_for_users):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("error", [TypeError("of its own"), AttributeError("of its own")])
def test_an_error_of_the_function_itself_is_not_told_as_a_wrong_call(error):
    def fails(x):
        raise error

    rule = jax.custom_vjp(fails)
    rule.defvjp(lambda x: (fails(x), x), lambda x, dy: (dy,))
    for call in (
        lambda: fnn.check_custom_vjp(rule, X),
        lambda: fnn.check_vjp(fails, lambda x: (x, lambda dy: (dy,)), X),
    ):
        with pytest.raises(type(error), match=r"\Aof its own"):
            call()


def ruled(backward):
    @jax.custom_vjp
    def scaled_sine(x, y, count):
        return jnp.sin(x) * count, x + y

    scaled_sine.defvjp(lambda x, y, count: (scaled_sine(x, y, count), (x, count)), backward)
    return scaled_sine


def test_rules_of_custom_vjp():
    right = ruled(lambda r, dy: (dy[0] * jnp.cos(r[0]) * r[1] + dy[1], dy[1], None))
    report = fnn.check_custom_vjp(right, X, Y, 3)
    assert report.ok, str(report)
    assert {entry.name for entry in report.properties} >= {
        "linear in the cotangent",
        "zero for a zero cotangent",
        "under jit",
        "under vmap",
        "for each argument alone",
        "for each output alone",
    }
    assert all(entry.ok for entry in report.properties), str(report)
    forgetful = ruled(lambda r, dy: (dy[0] * jnp.cos(r[0]) * r[1], dy[1], None))
    report = fnn.check_custom_vjp(forgetful, X, Y, 3)
    assert [leaf.path for leaf in report.leaves if not leaf.ok] == ["[0]"]
    minus = ruled(lambda r, dy: (dy[0] * jnp.cos(r[0]) * r[1] + dy[1], -dy[1], None))
    assert fnn.check_custom_vjp(minus, X, Y, 3).leaves[1].cause == "sign"


def test_a_rule_against_a_reference():
    right = ruled(lambda r, dy: (dy[0] * jnp.cos(r[0]) * r[1] + dy[1], dy[1], None))
    assert fnn.check_custom_vjp(right, X, Y, 3, reference=lambda x, y, n: (jnp.sin(x) * n, x + y)).ok
    other = fnn.check_custom_vjp(right, X, Y, 3, reference=lambda x, y, n: (jnp.cos(x) * n, x + y))
    assert (other.ok, other.verdict, other.leaves) == (False, "undecided", ())
    assert "the reference is another function" in other.reason
    other = fnn.check_custom_vjp(right, X, Y, 3, reference=lambda x, y, n: (jnp.sin(x).sum() * n, x + y))
    assert "gives an output of [0] of shape (4, 3), the reference one of ()" in other.reason


def test_a_wrong_rule_is_explained_by_the_caller_s_own_lines():
    @jax.custom_vjp
    def dense(w, x):
        return jnp.tanh(x @ w)

    def backward(saved, dy):
        w, x, y = saved
        dz = dy * (1 - y)  # and not 1 − y²
        return x.T @ dz, dz @ w.T

    dense.defvjp(lambda w, x: (dense(w, x), (w, x, dense(w, x))), backward)
    diagnosis = fnn.check_custom_vjp(dense, Y.T @ X, X).diagnosis.replace("\n", " ")
    assert re.search(r"in the `tanh` in `return jnp\.tanh\(x @ w\)` \(test_vjp\.py line \d+\)", diagnosis), diagnosis
    # All operations of the reference are JAX's own: the line is that of the check.
    diagnosis = fnn.check_custom_vjp(square_root(), jnp.abs(X) + 1, reference=jnp.sqrt).diagnosis
    assert ".py" not in diagnosis.replace("test_vjp.py", ""), diagnosis


def square_root():
    root = jax.custom_vjp(jnp.sqrt)
    root.defvjp(lambda x: (jnp.sqrt(x), x), lambda x, dy: (dy / jnp.sqrt(x),))
    return root


def test_rules_of_custom_jvp_are_checked_forward_too():
    def softplus(slope):
        @jax.custom_jvp
        def function(x):
            return jnp.log1p(jnp.exp(x))

        function.defjvp(lambda primals, tangents: (function(*primals), tangents[0] * slope(primals[0])))
        return function

    report = fnn.check_custom_vjp(softplus(jax.nn.sigmoid), X)
    assert report.ok, str(report)
    assert "in forward mode" in [entry.name for entry in report.properties]
    assert not fnn.check_custom_vjp(softplus(jnp.tanh), X).ok


def repeated(power):
    """x⁴ by a loop that JAX can't differentiate backward; ``power`` of x in its rule."""

    @jax.custom_vjp
    def fourth(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x))[1]

    fourth.defvjp(lambda x: (fourth(x), x), lambda x, dy: (4 * x**power * dy,))
    return fourth


@pytest.mark.thorough
@pytest.mark.skipif(jnp.float64 != WIDEST, reason="measured slopes need float64")
def test_code_that_autodiff_cannot_take_is_measured():
    x = X[0]
    assert fnn.check_custom_vjp(repeated(3), x).ok
    report = fnn.check_custom_vjp(repeated(2), x)
    assert not report.ok
    assert fnn.check_custom_vjp(repeated(3), x, reference=lambda x: x**4).ok
    # Of more entries some are measured alone, and all of them together along random directions.
    many = jnp.linspace(0.5, 1.5, 2000, dtype=WIDEST)
    report = fnn.check_custom_vjp(repeated(3), many)
    assert report.ok
    assert "JAX can't differentiate the loss" in report.no_autodiff
    assert "Autodiff was not evaluated" in str(report)

    def fourth(x):
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * x), (0, x))[1]

    def with_one_entry_doubled(x):
        return fourth(x), lambda dy: (4 * x**3 * dy.at[77].multiply(2.0),)

    assert not fnn.check_vjp(fourth, with_one_entry_doubled, many).ok


def test_more_that_is_asked_of_a_gradient(as_for_users):
    def loss(w):
        return jnp.tanh(w).sum()

    def gradient(w):
        return 1 - jnp.tanh(w) ** 2

    report = fnn.check_gradients(loss, gradient, X, also=("jit", "vmap", "second_order"))
    assert report.ok, str(report)
    assert len(report.properties) == 4

    def by_numpy(w):
        return np.asarray(gradient(np.asarray(w)))

    report = fnn.check_gradients(loss, by_numpy, X, also=("jit",))
    assert [(entry.name, entry.ok) for entry in report.properties] == [("the same twice", True), ("under jit", False)]
    with pytest.raises(ValueError, match=r"check_gradients\(also\): expected some of"):
        fnn.check_gradients(loss, gradient, X, also=("hessian",))


def test_a_gradient_that_changes_from_call_to_call():
    calls = []

    def gradient(w):
        calls.append(w)
        return (2 + 1e-3 * len(calls)) * w

    report = fnn.check_gradients(lambda w: (w**2).sum(), gradient, X)
    assert "the same twice" in [entry.name for entry in report.properties if not entry.ok]


def test_a_pullback_s_own_error_and_a_traced_check_are_errors_of_the_call(as_for_users):
    def vjp(x):
        def pullback(dy):
            raise TypeError("mine")

        return x, pullback

    with pytest.raises(TypeError, match=r"^mine$"):
        fnn.check_vjp(lambda x: x, vjp, X)
    with pytest.raises(TypeError, match=r"check_vjp\(args\): expected arrays, got tracers\. Call it outside jit"):
        jax.jit(lambda x: fnn.check_vjp(jnp.sin, lambda x: (x, lambda dy: (dy,)), x).ok)(X)


def test_outputs_that_are_integers_alone_are_refused(as_for_users):
    def count(x):
        return (x > 0).sum()

    with pytest.raises(
        TypeError, match=r"check_vjp\(function\): expected at least one floating output to differentiate"
    ):
        fnn.check_vjp(count, lambda x: (count(x), lambda dy: (jnp.zeros_like(x),)), X)


@pytest.mark.parametrize(("factor", "ok"), [(1.0, True), (1.5, False)])
def test_outputs_that_are_integers_or_complex_have_their_cotangents(factor, ok):
    """∂z/∂x of z = x² + i x³ pulls dz back to Re(dz (2x + 3i x²)), by JAX's convention; a count has no gradient."""

    def function(x):
        return jax.lax.complex(x**2, x**3), (x > 0).sum()

    def vjp(x):
        return function(x), lambda dy: (factor * (dy[0] * jax.lax.complex(2 * x, 3 * x**2)).real,)

    report = fnn.check_vjp(function, vjp, X[0])
    assert report.ok == ok, str(report)
