"""Published mistakes in the derivatives of activations and of elementwise functions."""

import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid, softmax

from experiments.benchmarks.published.report import Report, Rule, UsualTest, named, random_like

THEME = "activations"


def tanh(params):
    return jnp.tanh(params["x"])


def tanh_vjp(params, dy):
    return {"x": dy * (1 - jnp.tanh(params["x"]) ** 2)}


def tanh_without_parentheses(params, dy):
    y = jnp.tanh(params["x"])
    return {"x": dy * jnp.ones_like(y) - y * y}


def matrix_make(dtype):
    return named(dtype, 301, x=(5, 4)), ()


def positive_make(dtype):
    return {"x": jnp.asarray(np.random.default_rng(302).uniform(size=(10, 4)), dtype)}, ()


# x σ(βx), with one β or one for each column.
def swish(params):
    return params["x"] * sigmoid(params["beta"] * params["x"])


def swish_vjp(params, dy, total=lambda terms, beta: terms.sum(axis=0) if beta.ndim else terms.sum()):
    x, beta = params["x"], params["beta"]
    s = sigmoid(beta * x)
    return {
        "x": dy * s * (1 + beta * x * (1 - s)),
        "beta": total(dy * x**2 * s * (1 - s), beta),
    }


def one_sum_for_beta(params, dy):
    """The gradient of β is one number, however many β there are."""
    return swish_vjp(params, dy, total=lambda terms, beta: terms.sum())


def swish_make(dtype):
    return named(dtype, 303, x=(4, 3), beta=(3,)), ()


def one_beta_make(dtype):
    params = named(dtype, 304, x=(5, 3))
    return {"x": 5 * params["x"], "beta": jnp.asarray(1.0, dtype)}, ()


def silu(params):
    return params["x"] * sigmoid(params["x"])


def silu_vjp(params, dy):
    s = sigmoid(params["x"])
    return {"x": dy * s * (1 + params["x"] * (1 - s))}


def sigmoid_from_output(params, dy):
    """σ(x) is recovered as the output divided by the input: 0/0 at zero."""
    x = params["x"]
    s = silu(params) / x
    return {"x": dy * s * (1 + x * (1 - s))}


def with_zero_make(dtype):
    return {"x": jnp.asarray([-2.0, -0.5, 0.0, 0.3, 1.0, 3.0], dtype)}, ()


def softmax_of(params):
    return softmax(params["x"])


def softmax_vjp(params, dy):
    p = softmax(params["x"])
    return {"x": p * (dy - (p * dy).sum(axis=-1, keepdims=True))}


def diagonal_only(params, dy):
    p = softmax(params["x"])
    return {"x": dy * p * (1 - p)}


# A product of complex numbers, in JAX's convention: no conjugate in the rule.
def complex_product(params):
    return params["a"] * params["b"]


def complex_product_vjp(params, dy):
    return {"a": dy * params["b"], "b": dy * params["a"]}


def other_conjugates(params, dy):
    """The conjugates of another convention than the cotangent's."""
    return {"a": dy * params["b"].conj(), "b": dy * params["a"].conj()}


def complex_make(dtype):
    parts = named(dtype, 305, a=(2, 4), b=(2, 4))
    return {name: both[0] + 1j * both[1] for name, both in parts.items()}, ()


# A power whose base may be zero.
def power(params, base):
    return base ** params["exponent"]


def power_vjp(params, dy, base, logarithm=lambda base: jnp.log(jnp.where(base > 0, base, 1))):
    exponent = params["exponent"]
    return {"exponent": dy * base**exponent * logarithm(base.astype(exponent.dtype))}


def logarithm_of_zero(params, dy, base):
    """The derivative 0^y log 0 is computed as 0 times −∞."""
    return power_vjp(params, dy, base, logarithm=jnp.log)


def power_make(*bases):
    def make(dtype):
        return {"exponent": jnp.asarray([1.0, 1.5, 2.0, 0.5], dtype)}, (jnp.asarray(bases),)

    return make


# sin(x) y, of JAX's own documentation.
def sine_times(params):
    return jnp.sin(params["x"]) * params["y"]


def sine_times_vjp(params, dy, sign=1):
    return {"x": jnp.cos(params["x"]) * dy * params["y"], "y": sign * jnp.sin(params["x"]) * dy}


def negative_sine(params, dy):
    return sine_times_vjp(params, dy, sign=-1)


def sine_make(dtype):
    return named(dtype, 306, x=(4,), y=(4,)), ()


REPORTS = (
    Report(
        Rule(
            "tanh_without_parentheses",
            THEME,
            tanh,
            tanh_without_parentheses,
            tanh_vjp,
            matrix_make,
            frozenset({"activation_derivative", "scaled_path"}),
            "['x']",
        ),
        "apache/tvm#7340",
        "[Relay][Training] Fix tanh gradient and update tests to use downstream gradient",
        UsualTest("numbers in (0, 1), cotangent of ones, rtol 0.01", "thread", positive_make, rtol=1e-2, atol=0.0),
    ),
    Report(
        Rule(
            "swish_one_sum_for_beta",
            THEME,
            swish,
            one_sum_for_beta,
            swish_vjp,
            swish_make,
            frozenset({"shape"}),
            "['beta']",
        ),
        "tensorflow/tensorflow#127690",
        "SiLU/Swish returns incorrect gradients for broadcasted Tensor beta",
        UsualTest(
            "β = 1, the gradient of x alone, float64, absolute error below 1e-4",
            "test file",
            one_beta_make,
            dtype="float64",
            cotangent=random_like,
            rtol=0.0,
            atol=1e-4,
            leaves=("x",),
        ),
    ),
    Report(
        Rule(
            "silu_sigmoid_from_output",
            THEME,
            silu,
            sigmoid_from_output,
            silu_vjp,
            with_zero_make,
            frozenset({"nonfinite"}),
            "['x']",
        ),
        "huggingface/candle#2083",
        "Fix the silu gradient issue on 0.",
        UsualTest(
            "x = (3, 1, 4, 0.15), cotangent of ones, four digits",
            "test file",
            lambda dtype: ({"x": jnp.asarray([3.0, 1.0, 4.0, 0.15], dtype)}, ()),
            rtol=0.0,
            atol=5e-5,
        ),
    ),
    Report(
        Rule(
            "softmax_diagonal_only",
            THEME,
            softmax_of,
            diagonal_only,
            softmax_vjp,
            matrix_make,
            frozenset({"activation_derivative", "lost_path"}),
            "['x']",
        ),
        "deeplearning4j/libnd4j#440",
        "Softmax derivative implementation incorrect",
    ),
    Report(
        Rule(
            "complex_product_other_conjugates",
            THEME,
            complex_product,
            other_conjugates,
            complex_product_vjp,
            complex_make,
            frozenset({"conjugate"}),
        ),
        "ml-explore/mlx#2178",
        "Fix some complex vjps",
    ),
    Report(
        Rule(
            "power_logarithm_of_zero",
            THEME,
            power,
            logarithm_of_zero,
            power_vjp,
            power_make(0, 2, 3, 1),
            frozenset({"nonfinite"}),
            "['exponent']",
        ),
        "ml-explore/mlx#628",
        "Unexpected result from mlx.core.vjp",
        UsualTest("positive bases, cotangent of ones", "assumed", power_make(4, 2, 3, 1)),
    ),
    Report(
        Rule(
            "documented_rule_negative_sine",
            THEME,
            sine_times,
            negative_sine,
            sine_times_vjp,
            sine_make,
            frozenset({"sign"}),
            "['y']",
            is_registered=True,
        ),
        "jax-ml/jax#3213",
        "Sign error in jax.custom_jvp and jax.custom_vjp docs",
    ),
)
