"""What the fixture ``gradcheck`` finds over a sweep: wrong gradients, their causes, cases that count neither way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.pytest_plugin.cases import Sweep
from funcnn.pytest_plugin.fixture import Gradcheck

pytestmark = pytest.mark.usefixtures("as_in_a_users_tests")

random = np.random.default_rng(0)
X = random.normal(size=(4, 6)).astype(np.float32)
Y = random.normal(size=4).astype(np.float32)
S = random.normal(size=6).astype(np.float32)


def ruled(forward, backward):
    """Return a function with a rule, ``backward(args, dy)``."""

    @jax.custom_vjp
    def function(*args):
        return forward(*args)

    function.defvjp(lambda *args: (forward(*args), args), backward)
    return function


def doubled(change):
    """Return 2 x, whose gradient passes through ``change(x, dx)``."""
    return ruled(lambda x: 2 * x, lambda args, dy: (change(args[0], 2 * dy),))


def outcomes(report):
    """Return what was found in each case, by its name: whether it is right, and the detail."""
    return {entry.name.partition(":")[0]: (entry.ok, entry.detail) for entry in report.properties}


def by_vjp(check, given):
    def vjp(x, s):
        return x * s, lambda dy: (dy * s, (dy * x).reshape(-1, len(s))[:given].sum(0))

    return check.vjp(lambda x, s: x * s, vjp, X, S)


def by_gradients(check, given):
    def loss(w, x, y):
        return ((x @ w - y) ** 2).mean()

    return check.gradients(loss, lambda w, x, y: 2 * x.T @ (x @ w - y) / (given or len(y)), S, X, Y)


def by_tapped_gradients(check, given):
    def loss(w, x, y):
        return (fnn.tap("difference", x @ w - y) ** 2).mean()

    def gradient(w, x, y):
        dz = 2 * (x @ w - y) / (given or len(y))
        return x.T @ dz, {"difference": dz}

    return check.gradients(loss, gradient, S, X, Y)


def by_layer(check, given):
    def backward(residuals, dy):
        params, x = residuals
        return fnn.LinearParams(x.T @ dy, dy[:given].sum(0)), dy @ params.kernel.T

    linear = fnn.linear(6, 3)
    layer = fnn.Layer(
        linear.init, lambda params, state, x, **_: (x @ params.kernel + params.bias, state, (params, x)), backward
    )
    return check.layer(layer, X)


KINDS = {"vjp": by_vjp, "gradients": by_gradients, "tapped": by_tapped_gradients, "layer": by_layer}
FIVE = {"vjp": (5, 6), "layer": (5, 6), "gradients": ((6,), (5, 6), (5,)), "tapped": ((6,), (5, 6), (5,))}


@pytest.mark.parametrize("kind", ["vjp", "gradients"])
def test_a_right_gradient_is_right_in_every_case(kind):
    check = Gradcheck()
    found = outcomes(KINDS[kind](check, None))
    (record,) = check.records
    assert (record["ok"], record["wrong"], record["cause"]) == (True, 0, "")
    assert record["cases"] > 8
    assert found["one more on every axis"][0] is True


def test_cases_that_a_layer_does_not_take_are_rejected():
    found = outcomes(by_layer(Gradcheck(), None))
    assert found["an odd batch"][0] is True
    for case, detail in (
        ("one less on every axis", "the function doesn't take it"),
        ("one more leading axis", "not made for these axes: the backward pass raises"),
    ):
        assert found[case][0] is None
        assert found[case][1].startswith(detail)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_right_for_four_samples_alone_is_wrong_for_five(kind):
    check = Gradcheck(Sweep(shapes=[FIVE[kind]]))
    assert KINDS[kind](check, None).ok
    with pytest.raises(AssertionError, match="Smallest failing case: as marked") as raised:
        KINDS[kind](check, 4)
    right, wrong = check.records
    assert (right["wrong"], wrong["wrong"]) == (0, 1)
    assert raised.value.report.verdict == wrong["verdict"] == "hand-written wrong"


@pytest.mark.parametrize(
    ("is_wrong", "smallest"),
    [
        (lambda x: x.shape[1] % 2, "an axis of 5 in the place of 6, an axis of 2 in the place of 4"),
        (lambda x: len(x) == 5, "an axis of 5 in the place of 4, an axis of 2 in the place of 6"),
    ],
)
def test_the_smallest_failing_case_changes_only_what_matters(is_wrong, smallest):
    with pytest.raises(AssertionError) as raised:
        Gradcheck().rule(doubled(lambda x, dx: -dx if is_wrong(x) else dx), X, reference=lambda x: 2 * x)
    assert f": {smallest}: float32" in raised.value.report.diagnosis.partition(";")[0]


def test_a_gradient_of_another_shape_than_its_argument_is_wrong():
    def vjp(x, s):
        return x * s, lambda dy: (dy * s, (dy * x).sum(0))

    check = Gradcheck(Sweep(shapes=[((2, 4, 6), (6,))]))
    with pytest.raises(AssertionError, match=r"shape \(4, 6\) where the value has \(6,\)"):
        check.vjp(lambda x, s: x * s, vjp, X, S)
    assert check.records[0]["cause"] == "shape"


@pytest.mark.thorough
def test_a_layer_that_draws_is_checked_with_its_key():
    assert Gradcheck(Sweep(shapes=[(5, 6)])).layer(fnn.dropout(0.5), X, key=jax.random.key(1)).ok


def refusing(when, error):
    """Return the identity, which raises for some arguments."""

    def checked(x):
        if when(x):
            raise error
        return x

    return checked


ODD = refusing(lambda x: len(x) % 2, ValueError("an even batch"))
NARROW = refusing(lambda x: x.dtype == jnp.bfloat16, NotImplementedError("no bfloat16"))
FLAT = refusing(lambda x: x.ndim > 2, ValueError("two axes"))


@pytest.mark.parametrize(
    ("function", "reference", "case", "detail"),
    [
        (doubled(lambda x, dx: dx), lambda x: 2 * ODD(x), "an odd batch", "the reference doesn't take it"),
        (ruled(lambda x: 2 * ODD(x), lambda args, dy: (2 * dy,)), lambda x: 2 * x, "an odd batch",
         "the function doesn't take it"),
        (doubled(lambda x, dx: NARROW(dx)), lambda x: 2 * x, "bfloat16", "the function doesn't take it"),
        (doubled(lambda x, dx: FLAT(dx)), lambda x: 2 * x, "one more leading axis", "not made for these axes"),
        (doubled(lambda x, dx: dx), lambda x: 2 * x + 0 * (jnp.arange(3) // (len(x) // 4)).sum().astype(x.dtype),
         "one less on every axis", "the function divides integers by 0"),
    ],
)  # fmt: skip
def test_a_case_that_is_not_taken_counts_neither_way(function, reference, case, detail):
    report = Gradcheck().rule(function, X, reference=reference)
    found = outcomes(report)
    assert report.ok
    assert found[case][0] is None
    assert found[case][1].startswith(detail)


def test_a_function_that_does_not_broadcast_as_the_reference_does_is_rejected_there():
    def of_y(x, y):
        return x[: len(y)] * y

    function = ruled(of_y, lambda args, dy: jax.vjp(of_y, *args)[1](dy))
    ok, detail = outcomes(Gradcheck().rule(function, X, X + 1, reference=lambda x, y: x * y))[
        "array 1 broadcast along its axis 0"
    ]
    assert ok is None
    assert "output" in detail


@pytest.mark.thorough
@pytest.mark.parametrize(
    "reference",
    [
        lambda x: jnp.asarray(2 * np.asarray(x)),
        lambda x: jax.pure_callback(lambda x: 2 * np.asarray(x), jax.ShapeDtypeStruct(x.shape, x.dtype), x),
    ],
    ids=["in NumPy", "a callback"],
)
def test_beside_a_reference_without_autodiff_every_case_is_a_whole_check(reference):
    sweep = Sweep(shapes=[(5, 6)])
    found = outcomes(Gradcheck(sweep).rule(doubled(lambda x, dx: dx), X, reference=reference))
    assert found["as marked"][0] is True
    wrong = doubled(lambda x, dx: dx * len(x) / 4)
    with pytest.raises(AssertionError, match="as marked"):
        Gradcheck(sweep).rule(wrong, X, reference=reference)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda dx: -dx, "sign"),
        (lambda dx: 3 * dx, "scaled"),
        (lambda dx: 0 * dx, "zero"),
        (lambda dx: dx.at[0].set(jnp.nan), "unstable"),
        (lambda dx: dx + 0.05 * jnp.abs(dx).max() * (jnp.arange(6) == 2).astype(dx.dtype), "unstable"),
        (lambda dx: dx[::-1], "unknown"),
    ],
)
def test_what_is_wrong_in_a_narrow_dtype_alone_has_its_cause(change, cause):
    check = Gradcheck(Sweep(dtypes=["bfloat16"]))
    wrong = doubled(lambda x, dx: change(dx).astype(dx.dtype) if x.dtype == jnp.bfloat16 else dx)
    with pytest.raises(AssertionError):
        check.rule(wrong, X, reference=lambda x: 2 * x)
    assert check.records[0]["cause"] == cause


@pytest.mark.thorough
def test_another_choice_at_a_kink_is_right():
    at_kink = np.where(np.arange(24).reshape(4, 6) == 7, 0, X)
    function = ruled(lambda x: jnp.maximum(x, 0), lambda args, dy: (dy * (args[0] >= 0),))
    check = Gradcheck(Sweep(dtypes=["float32"]))
    assert check.rule(function, at_kink, reference=lambda x: jnp.where(x > 0, x, 0)).ok
    assert check.records[0]["wrong"] == 0


def test_a_property_that_does_not_hold_is_the_cause_where_every_number_is_right():
    check = Gradcheck()
    with pytest.raises(AssertionError):
        check.rule(ruled(lambda x: 2 * x, lambda args, dy: (2 * dy + (dy == 0).all(),)), X, reference=lambda x: 2 * x)
    assert check.records[0]["cause"] == "zero for a zero cotangent"


@pytest.mark.thorough
def test_complex_arrays_keep_their_dtype_and_integers_have_no_gradient():
    function = ruled(
        lambda x, s: (x * s, jnp.argmax(s)),
        lambda args, dy: (dy[0] * args[1], (dy[0] * args[0]).real.reshape(-1, len(args[1])).sum(0)),
    )
    check = Gradcheck()
    report = check.rule(function, X + 1j * X[::-1], S, reference=lambda x, s: (x * s, jnp.argmax(s)))
    assert report.ok
    assert "bfloat16" in outcomes(report)
    assert "complex64, bfloat16" in check.records[0]["dtypes"]
    conjugate = ruled(lambda x: x * x, lambda args, dy: (2 * dy * args[0].conj(),))
    with pytest.raises(AssertionError):
        Gradcheck().rule(conjugate, X + 1j * X[::-1], reference=lambda x: x * x)


def test_an_empty_array_has_a_right_gradient():
    assert Gradcheck().rule(doubled(lambda x, dx: dx), X[:0], reference=lambda x: 2 * x).ok
