"""Right gradients in unusual code, and of losses that do something unusual."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from experiments.benchmarks.catalogue.case import Case, normal, one_hot, squared_error, squared_error_backward
from experiments.benchmarks.catalogue.trees_and_arguments import Layer, linear_gradient, linear_loss, make

THEME = "code and formulas"


def right(name, loss_fn, grad_fn, make, **fields) -> Case:
    return Case(name, THEME, loss_fn, grad_fn, make, **fields)


# The gradient in NumPy, in plain Python, by scan and by vmap.
def numpy_gradient(layer, x, y):
    kernel, bias, x, y = map(np.asarray, (*layer, x, y))
    dz = 2 * (np.dot(x, kernel) + bias - y) / len(y)
    return Layer(np.dot(x.T, dz), np.add.reduce(dz))


def numpy_make(dtype):
    return jax.tree.map(np.asarray, make(dtype))


def python_gradient(layer, x, y):
    dw, db = np.zeros_like(layer.kernel), np.zeros_like(layer.bias)
    for inputs, dz in zip(
        np.asarray(x), np.asarray(squared_error_backward(x @ layer.kernel + layer.bias, y)), strict=True
    ):
        for unit in range(len(db)):
            if float(dz[unit]) == 0.0:
                continue
            dw[:, unit] += dz[unit] * inputs
            db[unit] += dz[unit]
    return Layer(dw, db)


def gradient_by_vmap(layer, x, y):
    def of_sample(x, y):
        return linear_gradient(layer, x[None], y[None])

    return jax.tree.map(lambda grads: grads.mean(axis=0), jax.vmap(of_sample)(x, y))


CODE = (
    right("gradient_in_numpy", linear_loss, numpy_gradient, make),
    right("everything_in_numpy", linear_loss, numpy_gradient, numpy_make),
    right("gradient_in_python_loops", linear_loss, python_gradient, make),
    right("gradient_by_vmap_over_samples", linear_loss, gradient_by_vmap, make),
    right("both_under_jit", jax.jit(linear_loss), jax.jit(linear_gradient), make),
)


# Where autodiff computes something else than the mathematics: a wrong rule in the loss, and one on purpose.
@jax.custom_jvp
def logarithm_of_cosh(x):
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


@logarithm_of_cosh.defjvp
def logarithm_of_cosh_rule(primals, tangents):
    (x,), (dx,) = primals, tangents
    # The planted mistake of this loss, not of the hand-written gradient: the derivative is tanh x.
    return logarithm_of_cosh(x), dx * jnp.tanh(x) ** 2


def cosh_loss(layer, x, y):
    return logarithm_of_cosh(x @ layer.kernel + layer.bias - y).sum(axis=1).mean()


def cosh_gradient(layer, x, y):
    dz = jnp.tanh(x @ layer.kernel + layer.bias - y) / len(y)
    return Layer(x.T @ dz, dz.sum(axis=0))


def target_loss(layer, x, y):
    target = jax.lax.stop_gradient(jnp.tanh(y @ layer.kernel.T @ layer.kernel))
    return linear_loss(layer, x, target)


def target_gradient(layer, x, y):
    return linear_gradient(layer, x, jnp.tanh(y @ layer.kernel.T @ layer.kernel))


RULES = (
    right("wrong_rule_in_the_loss", cosh_loss, cosh_gradient, make, autodiff_differs=True),
    right("stop_gradient_honoured", target_loss, target_gradient, make),
)


# Formulas and sizes.
def gelu_loss(layer, x, y):
    return squared_error(jax.nn.gelu(x @ layer.kernel + layer.bias, approximate=False), y)


def gelu_gradient(layer, x, y):
    z = x @ layer.kernel + layer.bias
    dz = squared_error_backward(z * norm.cdf(z), y) * (norm.cdf(z) + z * norm.pdf(z))
    return Layer(x.T @ dz, dz.sum(axis=0))


def embedding_make(dtype):
    table, y = normal(dtype, 145, (9, 4), (12, 4))
    return table, (jnp.array([1, 1, 1, 7, 0, 1, 3, 3, 8, 1, 7, 1]), y)


def embedding_loss(table, ids, y):
    return squared_error(table[ids], y)


def embedding_gradient(table, ids, y):
    return one_hot(ids, table.T).T @ squared_error_backward(table[ids], y)


def vector_make(dtype):
    x, y = normal(dtype, 146, (9,), (9,))
    return x, (y,)


def median_gradient(x, y):
    return jnp.zeros_like(x).at[jnp.argsort(x)[len(x) // 2]].set(2 * jnp.median(x))


def cumulative_gradient(x, y):
    return jnp.cumsum((2 * y * jnp.cumsum(x))[::-1])[::-1]


def recurrent_make(dtype):
    u, w, start, x, y = normal(dtype, 148, (3, 5), (5, 5), (4, 5), (20, 4, 3), (4, 5))
    return {"u": u / 2, "w": w / 3}, (start, x, y)


def recurrent_loss(params, start, x, y):
    def step(h, x):
        return jnp.tanh(x @ params["u"] + h @ params["w"]), None

    return squared_error(jax.lax.scan(step, start, x)[0], y)


def recurrent_gradient(params, start, x, y):
    def forward(h, x):
        following = jnp.tanh(x @ params["u"] + h @ params["w"])
        return following, (h, following)

    def backward(carry, saved):
        dh, grads = carry
        x, before, after = saved
        dz = dh * (1 - after**2)
        return (dz @ params["w"].T, {"u": grads["u"] + x.T @ dz, "w": grads["w"] + before.T @ dz}), None

    last, (before, after) = jax.lax.scan(forward, start, x)
    carry = squared_error_backward(last, y), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(backward, carry, (x, before, after), reverse=True)[0][1]


def large_make(dtype):
    kernel, bias, x, y = normal(dtype, 149, (200, 200), (200,), (32, 200), (32, 200))
    return Layer(kernel / 14, bias), (x, y)


FORMULAS = (
    right("gelu", gelu_loss, gelu_gradient, make),
    right("embedding_of_repeated_ids", embedding_loss, embedding_gradient, embedding_make),
    right("median", lambda x, y: jnp.median(x) ** 2, median_gradient, vector_make),
    right("cumulative_sum", lambda x, y: (y * jnp.cumsum(x) ** 2).sum(), cumulative_gradient, vector_make),
    right("recurrent_network_by_scan", recurrent_loss, recurrent_gradient, recurrent_make),
    right("kernel_of_200_by_200", linear_loss, linear_gradient, large_make),
    right(
        "loss_through_partial",
        partial(lambda layer, x, y, power: linear_loss(layer, x, y) ** power, power=2),
        lambda layer, x, y: jax.tree.map(
            lambda grad: 2 * linear_loss(layer, x, y) * grad, linear_gradient(layer, x, y)
        ),
        make,
    ),
)

CASES = CODE + RULES + FORMULAS
