"""Right gradients at kinks that are met exactly: any value between the two one-sided derivatives is one.

``autodiff_differs`` wherever JAX's convention is another one than the hand's, and where JAX returns NaN.
"""

import jax
import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Case, normal, squared_error, squared_error_backward

THEME = "kinks"


def right(name, loss_fn, grad_fn, make, **fields) -> Case:
    return Case(name, THEME, loss_fn, grad_fn, make, **fields)


# ReLU at 0: integers, so that z = x w + b is 0 exactly, at five of the twelve entries.
def integer_make(dtype):
    w = jnp.array([[1, -1, 2], [2, 1, -1]], dtype)
    b = jnp.array([0, 1, -1], dtype)
    x = jnp.array([[2, -1], [1, 0], [0, 1], [-2, 1]], dtype)
    (weight,) = normal(dtype, 111, (4, 3))
    return {"w": w, "b": b}, (x, weight)


RELU = {
    "maximum": lambda z: jnp.maximum(z, 0),
    "jax_nn": jax.nn.relu,
    "where": lambda z: jnp.where(z > 0, z, 0),
    "where_at_least": lambda z: jnp.where(z >= 0, z, 0),
}
AUTODIFF_SLOPE = {"maximum": 0.5, "jax_nn": 0.0, "where": 0.0, "where_at_least": 1.0}


def piecewise_layer(activation):
    return lambda params, x, weight: (weight * activation(x @ params["w"] + params["b"])).sum()


def piecewise_gradient(below, at_zero, above=1.0, kink=0.0):
    def grad_fn(params, x, weight):
        z = x @ params["w"] + params["b"]
        dz = weight * jnp.where(z > kink, above, jnp.where(z < kink, below, at_zero)).astype(z.dtype)
        return {"w": x.T @ dz, "b": dz.sum(axis=0)}

    return grad_fn


RELUS = tuple(
    right(
        f"relu_by_{form}_hand_{word}",
        piecewise_layer(RELU[form]),
        piecewise_gradient(0.0, slope),
        integer_make,
        autodiff_differs=slope != AUTODIFF_SLOPE[form],
    )
    for form in RELU
    for word, slope in (("zero", 0.0), ("half", 0.5), ("one", 1.0))
)


# The first network that everyone writes: XOR with zero biases. At x = (0, 0) all hidden units stand at the kink, and
# the output, a probability of one half, still sends a gradient back.
def xor_make(dtype):
    w1, w2 = normal(dtype, 112, (2, 6), (6, 1))
    x = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype)
    params = {"w1": w1, "b1": jnp.zeros(6, dtype), "w2": w2, "b2": jnp.zeros(1, dtype)}
    return params, (x, jnp.array([[0], [1], [1], [0]], dtype))


def xor_loss(activation):
    def loss_fn(params, x, y):
        z = activation(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]
        return (jax.nn.softplus(z) - y * z).mean()

    return loss_fn


def xor_gradient(at_zero):
    def grad_fn(params, x, y):
        z = x @ params["w1"] + params["b1"]
        a = jax.nn.relu(z)
        dy = (jax.nn.sigmoid(a @ params["w2"] + params["b2"]) - y) / len(y)
        slope = jnp.where(z > 0, 1.0, jnp.where(z < 0, 0.0, at_zero)).astype(z.dtype)
        dz = dy @ params["w2"].T * slope
        return {"w1": x.T @ dz, "b1": dz.sum(axis=0), "w2": a.T @ dy, "b2": dy.sum(axis=0)}

    return grad_fn


NETWORKS = (
    right("xor_with_zero_biases", xor_loss(jax.nn.relu), xor_gradient(0.0), xor_make),
    right(
        "xor_with_zero_biases_by_maximum", xor_loss(RELU["maximum"]), xor_gradient(0.0), xor_make, autodiff_differs=True
    ),
    right("xor_with_zero_biases_hand_one", xor_loss(jax.nn.relu), xor_gradient(1.0), xor_make, autodiff_differs=True),
)


# |x|, leaky ReLU, clips and hinges.
def leaky(z):
    return jnp.where(z > 0, z, 0.1 * z)


def vector_make(dtype):
    (weight,) = normal(dtype, 113, (6,))
    return jnp.array([0, 1, -1, 0, 2.5, -0.5], dtype), (weight,)


def absolute_loss(x, weight):
    return (weight * jnp.abs(x)).sum()


def absolute_gradient(at_zero):
    return lambda x, weight: weight * jnp.where(x == 0, jnp.asarray(at_zero, x.dtype), jnp.sign(x))


def clip_loss(x, weight):
    return (weight * jnp.clip(x, -1, 1)).sum()


def margin_make(dtype):
    # y x w is 1 exactly for the first two samples.
    w, x = jnp.array([2, -1], dtype), jnp.array([[1, 1], [0, 1], [3, 1], [-1, 2], [0.5, 1]], dtype)
    return w, (x, jnp.array([1, -1, 1, 1, -1], dtype))


def hinge_loss(w, x, y):
    return jnp.maximum(0, 1 - y * (x @ w)).mean()


def lasso_make(dtype):
    _, x, y = normal(dtype, 114, (4,), (8, 4), (8,))
    return jnp.array([0, 0.7, 0, -1.3], dtype), (x, y)


def lasso_loss(w, x, y):
    return squared_error(x @ w, y) + 0.1 * jnp.abs(w).sum()


def lasso_gradient(w, x, y):
    return x.T @ squared_error_backward(x @ w, y) + 0.1 * jnp.sign(w)


PIECEWISE = (
    right("absolute_at_zero_hand_zero", absolute_loss, absolute_gradient(0), vector_make, autodiff_differs=True),
    right("absolute_at_zero_hand_plus_one", absolute_loss, absolute_gradient(1), vector_make, autodiff_differs=True),
    right("absolute_at_zero_hand_minus_one", absolute_loss, absolute_gradient(-1), vector_make, autodiff_differs=True),
    right("lasso_at_zero", lasso_loss, lasso_gradient, lasso_make, autodiff_differs=True),
    right("leaky_relu_at_zero_hand_alpha", piecewise_layer(leaky), piecewise_gradient(0.1, 0.1), integer_make),
    right(
        "leaky_relu_at_zero_hand_one",
        piecewise_layer(leaky),
        piecewise_gradient(0.1, 1.0),
        integer_make,
        autodiff_differs=True,
    ),
    right(
        "clip_edges_hand_zero",
        clip_loss,
        lambda x, weight: weight * (jnp.abs(x) < 1),
        vector_make,
        autodiff_differs=True,
    ),
    right(
        "clip_edges_hand_one",
        clip_loss,
        lambda x, weight: weight * (jnp.abs(x) <= 1),
        vector_make,
        autodiff_differs=True,
    ),
    right(
        "hinge_at_the_margin_hand_zero",
        hinge_loss,
        lambda w, x, y: -(x.T @ jnp.where(y * (x @ w) < 1, y, 0)) / len(y),
        margin_make,
        autodiff_differs=True,
    ),
    right(
        "hinge_at_the_margin_hand_one",
        hinge_loss,
        lambda w, x, y: -(x.T @ jnp.where(y * (x @ w) <= 1, y, 0)) / len(y),
        margin_make,
        autodiff_differs=True,
    ),
)


# Ties of a maximum, of a sort, and of two leaves.
def tied_make(dtype):
    z = jnp.array([[1, 3, 3, 0], [2, 2, 2, 2], [0, -1, -2, 5]], dtype)
    (weight,) = normal(dtype, 115, (3,))
    return z, (weight,)


def maximum_loss(z, weight):
    return (weight * z.max(axis=1)).sum()


def winners(z):
    return (z == z.max(axis=1, keepdims=True)).astype(z.dtype)


def all_to_the_first(z, weight):
    first = jnp.arange(z.shape[1]) == z.argmax(axis=1, keepdims=True)
    return weight[:, None] * first.astype(z.dtype)


def split_evenly(z, weight):
    return weight[:, None] * winners(z) / winners(z).sum(axis=1, keepdims=True)


def all_to_the_last(z, weight):
    last = z.shape[1] - 1 - jnp.argmax(winners(z)[:, ::-1], axis=1, keepdims=True)
    return weight[:, None] * (jnp.arange(z.shape[1]) == last).astype(z.dtype)


def pooling_loss(z, weight):
    return (weight * z.reshape(3, 2, 2).max(axis=2).sum(axis=1)).sum()


def pooling_gradient(z, weight):
    pairs = z.reshape(3, 2, 2)
    first = jnp.arange(2) == pairs.argmax(axis=2, keepdims=True)
    return (weight[:, None, None] * first.astype(z.dtype)).reshape(z.shape)


def two_leaves_make(dtype):
    (weight,) = normal(dtype, 116, (4,))
    return {"first": jnp.array([1, 2, 3, 4], dtype), "second": jnp.array([1, 0, 3, 5], dtype)}, (weight,)


def minimum_loss(params, weight):
    return (weight * jnp.minimum(params["first"], params["second"])).sum()


def minimum_gradient(params, weight):
    first = (params["first"] <= params["second"]).astype(weight.dtype)
    return {"first": weight * first, "second": weight * (1 - first)}


def sorted_loss(z, weight):
    return (jnp.arange(4, dtype=z.dtype) * jnp.sort(z, axis=1) * weight[:, None]).sum()


def sorted_gradient(z, weight):
    ranks = jnp.argsort(jnp.argsort(z, axis=1), axis=1).astype(z.dtype)
    return ranks * weight[:, None]


TIES = (
    right("max_tie_all_to_the_first", maximum_loss, all_to_the_first, tied_make, autodiff_differs=True),
    right("max_tie_all_to_the_last", maximum_loss, all_to_the_last, tied_make, autodiff_differs=True),
    right("max_tie_split", maximum_loss, split_evenly, tied_make),
    right("max_pool_tie_first", pooling_loss, pooling_gradient, tied_make, autodiff_differs=True),
    right("minimum_of_two_leaves_tied", minimum_loss, minimum_gradient, two_leaves_make, autodiff_differs=True),
    right("sort_with_ties", sorted_loss, sorted_gradient, tied_make),
)


# Where autodiff returns NaN and the function has a derivative, or a kink.
def zeros_make(dtype):
    return jnp.zeros(5, dtype), ()


def some_zeros_make(dtype):
    return jnp.array([0, 0.5, -2, 0, 1], dtype), ()


def sinc_loss(x):
    return jnp.where(x == 0, 1, jnp.sin(x) / x).sum()


def sinc_gradient(x):
    safe = jnp.where(x == 0, 1, x)
    return jnp.where(x == 0, 0, jnp.cos(safe) / safe - jnp.sin(safe) / safe**2)


def root_branch_loss(x):
    return jnp.where(x > 0, x * jnp.sqrt(x), 0).sum()


def root_branch_gradient(x):
    return 1.5 * jnp.sqrt(jnp.maximum(x, 0))


def pairwise_loss(points):
    return jnp.linalg.norm(points[:, None] - points[None], axis=-1).sum()


def pairwise_gradient(points):
    differences = points[:, None] - points[None]
    distances = jnp.sqrt((differences**2).sum(axis=-1, keepdims=True))
    return 2 * jnp.where(distances > 0, differences / jnp.where(distances > 0, distances, 1), 0).sum(axis=1)


def points_make(dtype):
    (points,) = normal(dtype, 117, (5, 3))
    return points, ()


TRAPS = (
    right("norm_at_zero_hand_zero", lambda x: jnp.linalg.norm(x), jnp.zeros_like, zeros_make, autodiff_differs=True),
    right("where_trap_of_sinc", sinc_loss, sinc_gradient, some_zeros_make, autodiff_differs=True),
    right("where_trap_of_a_root", root_branch_loss, root_branch_gradient, some_zeros_make, autodiff_differs=True),
    right(
        "pairwise_distances_with_zero_diagonal", pairwise_loss, pairwise_gradient, points_make, autodiff_differs=True
    ),
)

CASES = RELUS + NETWORKS + PIECEWISE + TIES + TRAPS
