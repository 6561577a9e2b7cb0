"""Where a NaN or an infinity comes from: situations in which the line, the operation and the cure are known."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn

F32 = jnp.float32
X = jnp.array([2.0, 0.0, 0.5], F32)
NEGATIVE = jnp.array([1.0, -1.0, 0.5], F32)
LARGE = jnp.array([1.0, 200.0, 0.5], F32)
ONES = jnp.ones(3, F32)


def where_sqrt(x):
    return jnp.where(x > 0, jnp.sqrt(x), F32(0))  # here


def where_log(x):
    return jnp.where(x > 0, jnp.log(x), F32(0))  # here


def where_quotient(x):
    return jnp.where(x == 0, F32(1), jnp.sin(x) / x)  # here


def where_power(x):
    return jnp.where(x > 0, x ** F32(0.5), F32(0))  # here


def where_arccos(x):
    return jnp.where(x < 1, jnp.arccos(x), F32(0))  # here


def norm(x):
    return jnp.sqrt(jnp.sum((x - x) ** 2))  # here


def norm_of_library(x):
    return jnp.linalg.norm(x - x)  # here


def log_of_zero(x):
    return -jnp.sum(jnp.log(x))  # here


def log_of_negative(x):
    return jnp.log(x)  # here


def sqrt_of_negative(x):
    return jnp.sqrt(x)  # here


def zero_by_zero(x):
    return x / x  # here


def reciprocal(x):
    return 1 / x  # here


def naive_softmax(x):
    e = jnp.exp(x)  # here
    return e / e.sum()


def naive_sigmoid_loss(x):
    p = 1 / (1 + jnp.exp(-x))
    return -jnp.log(1 - p)  # here


def masked_row(x):
    scores = jnp.where(x > 5, x, -jnp.inf)
    shifted = scores - scores.max()  # here
    return jnp.exp(shifted)


def entropy(x):
    return -x * jnp.log(x)  # here


def half_overflow(x):
    return (x * 1000).astype(jnp.float16)  # here


def in_a_scan(x):
    def body(carry, each):
        return carry + jnp.log(each), carry  # here

    return jax.lax.scan(body, F32(0), x)[0]


def in_a_branch(x):
    return jax.lax.cond(x[0] > 0, lambda x: jnp.log(x), lambda x: x, x)  # here


def in_jit(x):
    return jax.jit(lambda x: jnp.sqrt(x) * 2)(x)  # here


SITUATIONS = [
    (where_sqrt, X, "backward", "sqrt", "double where"),
    (where_log, X, "backward", "log", "double where"),
    (where_quotient, X, "backward", "div", "double where"),
    (where_power, X, "backward", "pow", "double where"),
    (where_arccos, ONES, "backward", "acos", "double where"),
    (norm, X, "backward", "sqrt", "1e-12"),
    (norm_of_library, X, "backward", "sqrt", "1e-12"),
    (log_of_zero, X, "forward", "log", "log_softmax"),
    (log_of_negative, NEGATIVE, "forward", "log", "xlogy"),
    (sqrt_of_negative, NEGATIVE, "forward", "sqrt", "double where"),
    (zero_by_zero, X, "forward", "div", "denominator"),
    (reciprocal, X, "forward", "div", "denominator"),
    (naive_softmax, LARGE, "forward", "exp", "logsumexp"),
    (naive_sigmoid_loss, LARGE, "forward", "log", "log_sigmoid"),
    (masked_row, X, "forward", "sub", "jnp.finfo"),
    (entropy, X, "forward", "log", "xlogy"),
    (half_overflow, LARGE, "forward", "convert_element_type", "wider dtype"),
    (in_a_scan, X, "forward", "log", "log_softmax"),
    (in_a_branch, X, "forward", "log", "log_softmax"),
    (in_jit, X, "backward", "sqrt", "1e-12"),
]


@pytest.mark.parametrize(
    ("function", "x", "direction", "primitive", "cure"), SITUATIONS, ids=[case[0].__name__ for case in SITUATIONS]
)
def test_the_line_the_operation_and_the_cure(function, x, direction, primitive, cure):
    report = fnn.find_nonfinite(function, x)
    lines, start = inspect.getsourcelines(function)
    marked = start + next(number for number, line in enumerate(lines) if "# here" in line)
    assert (report.direction, report.primitive) == (direction, primitive), str(report)
    assert (report.file, report.line) == ("test_nonfinite.py", marked), str(report)
    assert cure in report.cure, str(report)
    assert not report.ok
    assert str(marked) in str(report)


def test_finite_values_are_right_though_a_mask_is_infinite():
    def masked(x):
        scores = jnp.where(x > 0, x, -jnp.inf)
        return jnp.exp(scores - scores.max())

    report = fnn.find_nonfinite(masked, X)
    assert report.ok
    assert str(report) == "The outputs and the gradients are finite."


def test_the_operands_at_the_place_are_shown():
    report = fnn.find_nonfinite(zero_by_zero, X)
    assert report.place == (1,)
    assert [operand.value for operand in report.operands] == [0.0, 0.0]
    assert report.reason == "0/0"


def test_a_gradient_by_hand_is_a_function_too():
    def gradient(x):
        return x / jnp.sqrt(x * x)  # d|x|

    report = fnn.find_nonfinite(gradient, X)
    assert (report.direction, report.primitive, report.reason) == ("forward", "div", "0/0")


def test_a_function_of_a_library_has_no_line_of_ours():
    report = fnn.find_nonfinite(jnp.linalg.norm, X - X)
    assert (report.direction, report.primitive, report.file) == ("backward", "div", "")


def test_an_argument_that_is_not_finite_is_named():
    report = fnn.find_nonfinite(lambda x: x * 2, jnp.array([1.0, np.nan], F32))
    assert "argument" in report.reason


def test_bad_calls(as_for_users):
    with pytest.raises(TypeError, match=r"find_nonfinite\(function\)"):
        fnn.find_nonfinite(3.0, X)
    with pytest.raises(jax.errors.TracerArrayConversionError):
        fnn.find_nonfinite(lambda x: np.asarray(x), X)
