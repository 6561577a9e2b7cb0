"""Where a NaN or an infinity comes from: situations in which the line, the operation and the remedy are known."""

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


def where_exp(x):
    return jnp.where(x > 100, F32(0), jnp.exp(x))  # here


def power_of_negative(x):
    return x ** F32(0.5)  # here


def negative_power(x):
    return x**-2  # here


def beyond_the_edge(x):
    return jnp.arccos(x)  # here


def below_one(x):
    return jnp.arccosh(x)  # here


def no_factors(x):
    return jnp.linalg.cholesky(-jnp.diag(x))  # here


def singular_matrix(x):
    return jnp.linalg.solve(jnp.diag(x), x)  # here


def largest_of_none(x):
    return x[:0].max(initial=-jnp.inf)  # here


def quotient_of_masks(x):
    y = jnp.where(x > 1, x, F32(jnp.inf))
    return y / y.sum()  # here


def product_with_a_mask(x):
    return x * F32(jnp.inf)  # here


def cosine_of_a_mask(x):
    return jnp.cos(jnp.where(x > 1, x, F32(jnp.inf)))  # here


def sum_of_masks(x):
    return jnp.where(x > 1, F32(jnp.inf), F32(-jnp.inf)).sum()  # here


def large_product(x):
    return x * F32(1e38) * F32(1e38)  # here


def in_a_while_loop(x):
    def body(carry):
        number, y = carry
        return number + 1, jnp.log(y)  # here

    return jax.lax.while_loop(lambda carry: carry[0] < 2, body, (0, x))[1]


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
    (where_exp, LARGE, "backward", "exp", "double where"),
    (power_of_negative, NEGATIVE, "forward", "pow", "choose the base before the power"),
    (negative_power, X, "forward", "integer_pow", "choose the base before the power"),
    (beyond_the_edge, X, "forward", "acos", "jnp.clip(x, -1 + 1e-6, 1 - 1e-6)"),
    (below_one, X, "forward", "acosh", "above 1 + 1e-6"),
    (no_factors, X, "forward", "cholesky", "a small multiple of the identity"),
    (singular_matrix, X, "forward", "custom_linear_solve", "a small multiple of the identity"),
    (largest_of_none, X, "forward", "reduce_max", "jnp.finfo"),
    (quotient_of_masks, X, "forward", "div", "logsumexp"),
    (product_with_a_mask, X, "forward", "mul", "choose the factor before the product"),
    (cosine_of_a_mask, X, "forward", "cos", "jnp.finfo"),
    (sum_of_masks, X, "forward", "reduce_sum", "jnp.finfo"),
    (large_product, X, "forward", "mul", "wider dtype"),
    (in_a_while_loop, X, "forward", "log", "log_softmax"),
]


@pytest.mark.parametrize(
    ("function", "x", "direction", "primitive", "remedy"), SITUATIONS, ids=[case[0].__name__ for case in SITUATIONS]
)
def test_the_line_the_operation_and_the_remedy(function, x, direction, primitive, remedy):
    report = fnn.find_nonfinite(function, x)
    lines, start = inspect.getsourcelines(function)
    marked = start + next(number for number, line in enumerate(lines) if "# here" in line)
    assert (report.direction, report.primitive) == (direction, primitive), str(report)
    assert (report.file, report.line) == ("test_nonfinite.py", marked), str(report)
    assert remedy in report.remedy, str(report)
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


def test_a_constant_that_is_not_a_number_is_no_argument():
    report = fnn.find_nonfinite(lambda x: jnp.where(x > 1, x, F32(jnp.nan)), X)
    assert (report.direction, report.primitive) == ("forward", "a constant")
    table = np.array([1.0, 2.0, np.nan], np.float32)
    report = fnn.find_nonfinite(lambda x: jnp.where(x > 1, x * table, F32(0)), X)
    assert (report.direction, report.primitive, report.place) == ("backward", "a constant", (2,))
    assert report.reason == "a constant of the function is not finite itself"
    assert "in its place" in report.remedy


@pytest.mark.parametrize("function", [jnp.argmax, lambda x: {"count": 3}], ids=["a place", "a number"])
def test_without_floating_outputs_there_is_nothing_to_find(function):
    assert fnn.find_nonfinite(function, X).ok


def test_a_long_loop_is_one_operation(monkeypatch):
    monkeypatch.setattr("funcnn.nonfinite_evaluation._MAX_STEPS", 3)

    def function(x, is_on):
        return jax.lax.while_loop(lambda carry: carry[0] < 99, lambda carry: (carry[0] + 1, carry[1] * 1e9, is_on),
                                  (0, x, is_on))[1]  # fmt: skip

    report = fnn.find_nonfinite(function, X, True)
    assert (report.direction, report.value, report.primitive) == ("forward", "infinity", "while")
    assert [operand.value for operand in report.operands if operand.dtype == "bool"] == [""]
    assert "2 in float32[3]" in str(report)


def test_operands_of_another_shape_are_shown_by_their_range():
    report = fnn.find_nonfinite(sum_of_masks, X)
    assert [operand.value for operand in report.operands] == ["from -inf to inf"]
    assert "reduce_sum of float32[3] from -inf to inf" in str(report)


def test_bad_calls(as_for_users):
    with pytest.raises(TypeError, match=r"find_nonfinite\(function\)"):
        fnn.find_nonfinite(3.0, X)
    with pytest.raises(
        TypeError, match=r"find_nonfinite: .* calls NumPy at .*, in <lambda>\. It has to use jax\.numpy"
    ):
        fnn.find_nonfinite(lambda x: np.asarray(x), X)
