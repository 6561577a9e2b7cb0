"""Mistakes in optimizers that were added after the checker was written, and that it was not designed for."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.catalogue.hand_rolled import (
    RATE,
    adagrad,
    adam,
    after,
    by_norm,
    corrected,
    descent,
    rmsprop,
    transformation,
    tree_map,
    velocity,
    zeros,
)
from experiments.benchmarks.catalogue.optimizers import (
    ADAGRAD,
    ADAM,
    ADAMW,
    CLIPPED,
    DECAYED,
    LION,
    MOMENTUM,
    NESTEROV,
    RMSPROP,
    cases,
)


def first_gradient_undampened():
    """PyTorch's dampening: the first velocity is the whole first gradient."""

    def init(params):
        return {"v": zeros(params), "started": jnp.zeros((), bool)}

    def update(grads, state, params=None):
        v = tree_map(lambda v, g: jnp.where(state["started"], 0.9 * v + 0.1 * g, g), state["v"], grads)
        return tree_map(lambda v: -RATE * v, v), {"v": v, "started": jnp.ones((), bool)}

    return transformation(init, update)


def count_of_every_leaf():
    """Adam with a step count that increases at every leaf."""

    def init(params):
        return {"t": jnp.zeros((), jnp.int32), "m": zeros(params), "v": zeros(params)}

    def update(grads, state, params=None):
        leaves, structure = jax.tree.flatten(grads)
        moments = zip(leaves, jax.tree.leaves(state["m"]), jax.tree.leaves(state["v"]), strict=True)
        t, rows = state["t"], []
        for g, m, v in moments:
            t = t + 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            root = jnp.sqrt(corrected(v, 0.999, t)) + 1e-8
            rows.append(((-RATE * corrected(m, 0.9, t) / root).astype(g.dtype), m, v))
        updates, m, v = (jax.tree.unflatten(structure, column) for column in zip(*rows, strict=True))
        return updates, {"t": t, "m": m, "v": v}

    return transformation(init, update)


def largest_square():
    """AMSGrad: the direction is divided by the root of the largest v̂ so far."""

    def init(params):
        return {"t": jnp.zeros((), jnp.int32), "m": zeros(params), "v": zeros(params), "top": zeros(params)}

    def update(grads, state, params=None):
        t = state["t"] + 1
        m = tree_map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], grads)
        v = tree_map(lambda v, g: 0.999 * v + 0.001 * g**2, state["v"], grads)
        top = tree_map(lambda top, v: jnp.maximum(top, corrected(v, 0.999, t).astype(v.dtype)), state["top"], v)
        updates = tree_map(lambda m, top: -RATE * corrected(m, 0.9, t).astype(m.dtype) / (jnp.sqrt(top) + 1e-8), m, top)
        return updates, {"t": t, "m": m, "v": v, "top": top}

    return transformation(init, update)


def mean_of_squared_means():
    """Adam whose v accumulates m² instead of g²."""

    def init(params):
        return {"t": jnp.zeros((), jnp.int32), "m": zeros(params), "v": zeros(params)}

    def update(grads, state, params=None):
        t = state["t"] + 1
        m = tree_map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], grads)
        v = tree_map(lambda v, m: 0.999 * v + 0.001 * m**2, state["v"], m)
        hats = tree_map(lambda m, v: (corrected(m, 0.9, t), corrected(v, 0.999, t)), m, v)
        updates = tree_map(lambda g, hat: (-RATE * hat[0] / (jnp.sqrt(hat[1]) + 1e-8)).astype(g.dtype), grads, hats)
        return updates, {"t": t, "m": m, "v": v}

    return transformation(init, update)


def corrected_means_kept():
    """Adam whose state stores m̂ and v̂ instead of m and v."""

    def init(params):
        return {"t": jnp.zeros((), jnp.int32), "m": zeros(params), "v": zeros(params)}

    def update(grads, state, params=None):
        t = state["t"] + 1
        m = tree_map(lambda m, g: corrected(0.9 * m + 0.1 * g, 0.9, t).astype(g.dtype), state["m"], grads)
        v = tree_map(lambda v, g: corrected(0.999 * v + 0.001 * g**2, 0.999, t).astype(g.dtype), state["v"], grads)
        updates = tree_map(lambda m, v: -RATE * m / (jnp.sqrt(v) + 1e-8), m, v)
        return updates, {"t": t, "m": m, "v": v}

    return transformation(init, update)


def last_gradient_ahead():
    """Nesterov's momentum that uses the gradient of the previous step."""

    def update(grads, state, params=None):
        v = tree_map(lambda v, g: 0.9 * v + g, state["v"], grads)
        return tree_map(lambda v, g: -RATE * (g + 0.9 * v), v, state["g"]), {"v": v, "g": grads}

    return transformation(lambda params: {"v": zeros(params), "g": zeros(params)}, update)


def centered_rmsprop():
    """RMSprop divided by the standard deviation, √(v − m²)."""

    def update(grads, state, params=None):
        m = tree_map(lambda m, g: 0.9 * m + 0.1 * g, state["m"], grads)
        v = tree_map(lambda v, g: 0.9 * v + 0.1 * g**2, state["v"], grads)
        updates = tree_map(lambda g, m, v: -RATE * g / jnp.sqrt(v - m**2 + 1e-8), grads, m, v)
        return updates, {"m": m, "v": v}

    return transformation(lambda params: {"m": zeros(params), "v": zeros(params)}, update)


def signs_of_momentum():
    """Lion whose direction is the sign of its stored momentum."""

    def update(grads, m, params=None):
        m = tree_map(lambda m, g: 0.99 * m + 0.01 * g, m, grads)
        return tree_map(lambda m, p: -RATE * (jnp.sign(m) + 1e-3 * p), m, params), m

    return transformation(zeros, update)


def by_norm_of_the_first_leaf(tree):
    norm = jnp.sqrt((jax.tree.leaves(tree)[0] ** 2).sum())
    return tree_map(lambda leaf: leaf * jnp.where(norm > 1, 1 / norm, 1).astype(leaf.dtype), tree)


def by_norm_as_in_pytorch(tree):
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))
    return tree_map(lambda leaf: leaf * jnp.minimum(1, 1 / (norm + 1e-6)).astype(leaf.dtype), tree)


UNFORESEEN = (
    *cases(
        "unforeseen",
        MOMENTUM,
        {
            "velocity_and_gradient_both_decay": (
                {"rate_scaled"},
                velocity(gather=lambda v, g, rate: 0.9 * (v + g)),
            ),
            "velocity_begins_undampened": ({"dampening"}, first_gradient_undampened()),
            "velocity_subtracts": ({"coefficient"}, velocity(gather=lambda v, g, rate: g - 0.9 * v)),
        },
    ),
    *cases(
        "unforeseen",
        NESTEROV,
        {"nesterov_looks_back": ({"nesterov_form"}, velocity(direction=lambda v, g, rate: rate * (g - 0.9 * v)))},
    ),
    *cases(
        "unforeseen",
        ADAM,
        {
            "adam_both_corrected_by_b1": (
                {"bias_correction_shifted"},
                adam(square_hat=lambda v, b, t: v / (1 - 0.9**t)),
            ),
            "adam_counts_every_leaf": ({"bias_correction_shifted"}, count_of_every_leaf()),
            "adam_of_the_largest_square": ({"accumulation"}, largest_square()),
            "adam_squares_its_mean": ({"squared_otherwise"}, mean_of_squared_means()),
            "adam_epsilon_as_a_floor": (
                {"epsilon_floor"},
                adam(divided=lambda m, v, eps, t: m / jnp.maximum(jnp.sqrt(v), eps)),
            ),
            "adam_uncorrected_and_epsilon_inside": (
                {"several"},
                adam(mean_hat=lambda m, b, t: m, divided=lambda m, v, eps, t: m / jnp.sqrt(v + eps)),
            ),
            "adam_of_a_clipped_gradient": ({"clipping_added"}, after(by_norm, adam())),
        },
    ),
    *cases(
        "unforeseen",
        ADAMW,
        {
            "adamw_decays_by_the_sign": (
                {"decay_form"},
                adam(leaving=lambda u, p, rate: rate * (u + 0.1 * jnp.sign(p))),
            ),
        },
    ),
    *cases(
        "unforeseen",
        DECAYED,
        {
            "decay_of_the_new_parameters": (
                {"unknown", "several"},
                descent(lambda g, p: -RATE * (g + 0.1 * (p - RATE * g))),
            )
        },
    ),
    *cases(
        "unforeseen",
        RMSPROP,
        {
            "rmsprop_leaf_by_leaf": (
                {"squared_otherwise"},
                rmsprop(square=lambda v, g, b: b * v + (1 - b) * (g**2).mean()),
            )
        },
    ),
    *cases(
        "unforeseen",
        CLIPPED,
        {
            "clipped_by_mean_square": (
                {"clipping_bound", "clipping_kind"},
                after(lambda tree: by_norm(tree, sum(leaf.size for leaf in jax.tree.leaves(tree)) ** 0.5), velocity()),
            ),
        },
    ),
    *cases(
        "unforeseen, later",
        MOMENTUM,
        {
            "velocity_decays_twice": (
                {"coefficient"},
                velocity(keep=lambda old, new: tree_map(lambda v: 0.9 * v, new)),
            ),
            "velocity_updates_in_float32": (
                {"dtype"},
                velocity(direction=lambda v, g, rate: (rate * v).astype(jnp.promote_types(v.dtype, jnp.float32))),
            ),
        },
    ),
    *cases("unforeseen, later", NESTEROV, {"nesterov_of_the_last_gradient": ({"unknown"}, last_gradient_ahead())}),
    *cases(
        "unforeseen, later",
        ADAM,
        {
            "adam_first_step_uncorrected": (
                {"bias_correction_shifted"},
                adam(
                    mean_hat=lambda m, b, t: m / jnp.where(t > 1, 1 - b ** (t - 1), 1),
                    square_hat=lambda v, b, t: v / jnp.where(t > 1, 1 - b ** (t - 1), 1),
                ),
            ),
            "adam_corrects_by_the_root_of_nothing": (
                {"bias_correction_shifted"},
                adam(square_hat=lambda v, b, t: v / (1 - b**t) ** 2),
            ),
            "adam_keeps_corrected_means": ({"unknown"}, corrected_means_kept()),
        },
    ),
    *cases(
        "unforeseen, later",
        ADAMW,
        {
            "adamw_decay_times_the_rate_squared": (
                {"decay_size"},
                adam(leaving=lambda u, p, rate: rate * (u + rate * 0.1 * p)),
            ),
        },
    ),
    *cases("unforeseen, later", LION, {"lion_of_its_momentum": ({"coefficient"}, signs_of_momentum())}),
    *cases("unforeseen, later", RMSPROP, {"rmsprop_centered": ({"unknown"}, centered_rmsprop())}),
    *cases(
        "unforeseen, later",
        ADAGRAD,
        {"adagrad_decays_its_sum": ({"accumulation", "factor_missing"}, adagrad(square=lambda v, g, b: b * v + g**2))},
    ),
    *cases(
        "unforeseen, later",
        CLIPPED,
        {
            "clipped_by_the_first_leaf": ({"clipping_kind"}, after(by_norm_of_the_first_leaf, velocity())),
            "clipped_as_in_pytorch": ({"clipping_kind"}, after(by_norm_as_in_pytorch, velocity())),
        },
    ),
)
