"""Right gradients of unusual trees, dtypes and arguments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import softmax

from experiments.benchmarks.catalogue.case import (
    Case,
    labels,
    normal,
    one_hot,
    squared_error,
    squared_error_backward,
)

THEME = "trees and arguments"
# Both functions round to float32 whatever they are given.
PINNED = {"tolerance": 1e-5}


def right(name, loss_fn, grad_fn, make, **fields) -> Case:
    return Case(name, THEME, loss_fn, grad_fn, make, **fields)


class Layer(NamedTuple):
    kernel: Any
    bias: Any


def linear_loss(layer, x, y):
    return squared_error(x @ layer.kernel + layer.bias, y)


def linear_gradient(layer, x, y):
    dz = squared_error_backward(x @ layer.kernel + layer.bias, y)
    return Layer(x.T @ dz, dz.sum(axis=0))


def make(dtype):
    kernel, bias, x, y = normal(dtype, 141, (5, 3), (3,), (8, 5), (8, 3))
    return Layer(kernel, bias), (x, y)


# Trees: None, empty and scalar leaves, leaves that the loss doesn't use, several dtypes.
def tree_make(dtype):
    layer, (x, y) = make(dtype)
    params = {
        "layers": [layer, None],
        "empty": jnp.zeros((0, 3), dtype),
        "scale": jnp.asarray(1.3, dtype),
        "unused": jnp.ones(4, dtype),
    }
    return params, (x, y)


def tree_loss(params, x, y):
    kernel, bias = params["layers"][0]
    return squared_error(params["scale"] * (x @ kernel + bias), y) + params["empty"].sum()


def tree_gradient(params, x, y):
    layer, scale = params["layers"][0], params["scale"]
    z = x @ layer.kernel + layer.bias
    dy = squared_error_backward(scale * z, y)
    return {
        "layers": [Layer(x.T @ (scale * dy), scale * dy.sum(axis=0)), None],
        "empty": jnp.ones_like(params["empty"]),
        "scale": (dy * z).sum(),
        "unused": jnp.zeros_like(params["unused"]),
    }


def mixed_make(dtype):
    layer, (x, y) = make(dtype)
    return Layer(layer.kernel, layer.bias.astype("float32")), (x, y)


def mixed_gradient(layer, x, y):
    grads = linear_gradient(layer, x, y)
    return Layer(grads.kernel, grads.bias.astype(layer.bias.dtype))


def pinned(tree):
    return jax.tree.map(lambda leaf: leaf.astype("float32"), tree)


def pinned_loss(layer, x, y):
    return linear_loss(pinned(layer), *pinned((x, y)))


def pinned_gradient(layer, x, y):
    grads = linear_gradient(pinned(layer), *pinned((x, y)))
    return jax.tree.map(lambda grad, leaf: grad.astype(leaf.dtype), grads, layer)


def scalar_make(dtype):
    (x,) = normal(dtype, 142, (7,))
    return jnp.asarray(0.3, dtype), (x,)


TREES = (
    right("none_empty_scalar_and_unused_leaves", tree_loss, tree_gradient, tree_make),
    right("mixed_dtypes", linear_loss, mixed_gradient, mixed_make, tolerance=1e-6),
    right("float32_pinned_inside_both", pinned_loss, pinned_gradient, make, **PINNED),
    right("scalar_for_a_tree", lambda a, x: jnp.sin(a * x).sum(), lambda a, x: (x * jnp.cos(a * x)).sum(), scalar_make),
)


# Complex parameters beside real ones, by JAX's convention: the conjugate of the direction of ascent.
def complex_make(dtype):
    a, b, c, d, e, f, scale = normal(dtype, 143, (4, 3), (4, 3), (6, 4), (6, 4), (6, 3), (6, 3), (3,))
    w, x, y = jax.lax.complex(a, b), jax.lax.complex(c, d), jax.lax.complex(e, f)
    return {"w": w, "scale": scale}, (x, y)


def complex_loss(params, x, y):
    error = params["scale"] * (x @ params["w"]) - y
    return (error.real**2 + error.imag**2).sum(axis=1).mean()


def complex_gradient(params, x, y):
    z = x @ params["w"]
    de = squared_error_backward(params["scale"] * z, y).conj()
    return {"w": x.T @ (params["scale"] * de), "scale": (de * z).real.sum(axis=0)}


COMPLEX = (right("complex_beside_real", complex_loss, complex_gradient, complex_make),)


# Keys, labels and masks as arguments.
def with_argument(further):
    def argument_make(dtype):
        layer, (x, y) = make(dtype)
        return layer, (x, y, further())

    return argument_make


def dropout(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0)


def dropout_loss(layer, x, y, key):
    return linear_loss(layer, dropout(x, key), y)


def dropout_gradient(layer, x, y, key):
    return linear_gradient(layer, dropout(x, key), y)


def noisy(x, key):
    # Drawn in x's dtype: other numbers in float32 than in float64.
    return x + jax.random.normal(key, x.shape, x.dtype)


def masked_loss(layer, x, targets, counted):
    z = x @ layer.kernel + layer.bias
    log_likelihood = (jax.nn.log_softmax(z) * one_hot(targets, z)).sum(axis=1)
    return -jnp.where(counted, log_likelihood, 0).sum() / counted.sum()


def masked_gradient(layer, x, targets, counted):
    z = x @ layer.kernel + layer.bias
    dz = jnp.where(counted[:, None], softmax(z) - one_hot(targets, z), 0) / counted.sum()
    return Layer(x.T @ dz, dz.sum(axis=0))


def masked_make(dtype):
    layer, (x, _) = make(dtype)
    return layer, (x, labels(144, 8, 3), jnp.array([True, False, True, True, True, False, True, True]))


def options_loss(layer, x, y, options):
    return options["weight"] * linear_loss(layer, x, y) if options["kind"] == "squared" else 0 * layer.bias.sum()


def options_gradient(layer, x, y, options):
    return jax.tree.map(lambda grad: options["weight"] * grad, linear_gradient(layer, x, y))


def float16_make(dtype):
    layer, (x, y) = make(dtype)
    return layer, (x.astype("float16"), y)


def float16_gradient(layer, x, y):
    return linear_gradient(layer, x.astype(y.dtype), y)


def float16_loss(layer, x, y):
    return linear_loss(layer, x.astype(y.dtype), y)


ARGUMENTS = (
    right("dropout_by_typed_key", dropout_loss, dropout_gradient, with_argument(lambda: jax.random.key(5))),
    right("dropout_by_legacy_key", dropout_loss, dropout_gradient, with_argument(lambda: jax.random.PRNGKey(5))),
    right(
        "noise_drawn_in_the_inputs_dtype",
        lambda layer, x, y, key: linear_loss(layer, noisy(x, key), y),
        lambda layer, x, y, key: linear_gradient(layer, noisy(x, key), y),
        with_argument(lambda: jax.random.key(5)),
        other_in_float32=True,
    ),
    right("integer_labels_and_boolean_mask", masked_loss, masked_gradient, masked_make),
    right(
        "words_and_numbers_as_options",
        options_loss,
        options_gradient,
        with_argument(lambda: {"kind": "squared", "weight": 3}),
    ),
    right("float16_inputs", float16_loss, float16_gradient, float16_make),
)

CASES = TREES + COMPLEX + ARGUMENTS
