"""Optimizers as people write them: plain functions with a line to replace, objects, NumPy, dictionaries."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

RATE = 1e-2
tree_map = jax.tree.map
transformation = optax.GradientTransformation


def zeros(params):
    return tree_map(jnp.zeros_like, params)


def descent(line: Callable):
    """Without a state: an update from a gradient and a parameter."""
    return transformation(lambda params: (), lambda grads, state, params: (tree_map(line, grads, params), state))


def velocity(
    learning_rate: Any = RATE,
    gather: Callable = lambda v, g, rate: 0.9 * v + g,
    direction: Callable = lambda v, g, rate: rate * v,
    count: Callable = lambda t: t,
    keep: Callable = lambda old, new: new,
):
    """Momentum for a learning rate or a schedule."""

    def init(params):
        return {"v": zeros(params), "t": jnp.zeros((), jnp.int32)}

    def update(grads, state, params=None):
        rate = learning_rate(count(state["t"])) if callable(learning_rate) else learning_rate
        v = tree_map(lambda v, g: gather(v, g, jnp.asarray(rate, g.dtype)), state["v"], grads)
        updates = tree_map(lambda v, g: -direction(v, g, jnp.asarray(rate, g.dtype)), v, grads)
        return updates, {"v": keep(state["v"], v), "t": state["t"] + 1}

    return transformation(init, update)


def inside(learning_rate: Any = RATE, **lines):
    """Momentum whose velocity gathers α g."""
    return velocity(learning_rate, lambda v, g, rate: 0.9 * v + rate * g, lambda v, g, rate: v, **lines)


def corrected(moment, b, t):
    return moment / (1 - b**t)


def uncorrected(moment, b, t):
    return moment


def adam(
    learning_rate: Any = RATE,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    start: float = 0.0,
    *,
    mean: Callable = lambda m, g, b: b * m + (1 - b) * g,
    square: Callable = lambda v, g, b: b * v + (1 - b) * g**2,
    mean_hat: Callable = corrected,
    square_hat: Callable = corrected,
    divided: Callable = lambda m, v, eps, t: m / (jnp.sqrt(v) + eps),
    entering: Callable = lambda g, p: g,
    leaving: Callable = lambda u, p, rate: rate * u,
    keep: Callable = lambda old, new: new,
):
    """Adam, every line of which may be another."""

    def init(params):
        second = tree_map(lambda p: jnp.full_like(p, start), params)
        return {"t": jnp.zeros((), jnp.int32), "m": zeros(params), "v": second}

    def update(grads, state, params):
        grads = tree_map(entering, grads, params)
        t = state["t"] + 1
        m = tree_map(lambda m, g: mean(m, g, b1), state["m"], grads)
        v = tree_map(lambda v, g: square(v, g, b2), state["v"], grads)

        def step(m, v, p):
            hats = mean_hat(m, b1, t).astype(p.dtype), square_hat(v, b2, t).astype(p.dtype)
            return -leaving(divided(*hats, eps, t), p, learning_rate).astype(p.dtype)

        return tree_map(step, m, v, params), keep(state, {"t": t, "m": m, "v": v})

    return transformation(init, update)


def rmsprop(**lines):
    """Without a mean and without corrections, ε inside the root as optax has it."""
    plain = {"b1": 0.0, "b2": 0.9, "mean_hat": uncorrected, "square_hat": uncorrected}
    return adam(**(plain | {"divided": lambda m, v, eps, t: m / jnp.sqrt(v + eps)} | lines))


def adagrad(**lines):
    """As optax has it: squares are summed up from 0.1."""
    return rmsprop(**({"square": lambda v, g, b: v + g**2, "eps": 1e-7, "start": 0.1} | lines))


def after(clip: Callable, optimizer):
    """An optimizer that gets clipped gradients."""
    return transformation(optimizer.init, lambda grads, state, params: optimizer.update(clip(grads), state, params))


def by_value(tree):
    return tree_map(lambda g: jnp.clip(g, -1, 1), tree)


def by_leaf(tree):
    return tree_map(lambda g: g * jnp.minimum(1, 1 / jnp.sqrt((g**2).sum())), tree)


def by_norm(tree, bound=1.0, power=0.5):
    squares = sum((leaf**2).sum() for leaf in jax.tree.leaves(tree))
    norm = jnp.where(squares > 0, squares, 1) ** power
    return tree_map(lambda leaf: leaf * jnp.minimum(1, bound / norm).astype(leaf.dtype), tree)


def folded(m, v, eps, t):
    """Both corrections in one factor, and ε scaled along."""
    root = jnp.sqrt(1 - 0.999**t)
    return (root / (1 - 0.9**t)).astype(m.dtype) * m / (jnp.sqrt(v) + eps * root.astype(m.dtype))


class InPlaceAdam:
    """NumPy, with its state in arrays that it changes in place."""

    def __init__(self, rate=RATE):
        self.rate = rate

    def init(self, params):
        return {"t": 0} | {name: [np.zeros(p.shape) for p in jax.tree.leaves(params)] for name in "mv"}

    def update(self, grads, state, params=None):
        state["t"] += 1
        leaves, structure = jax.tree.flatten(grads)
        updates = []
        for g, m, v in zip((np.asarray(leaf, np.float64) for leaf in leaves), state["m"], state["v"], strict=True):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            m_hat, v_hat = m / (1 - 0.9 ** state["t"]), v / (1 - 0.999 ** state["t"])
            updates.append(np.asarray(-self.rate * m_hat / (np.sqrt(v_hat) + 1e-8)))
        return jax.tree.unflatten(structure, updates), state


class MomentumOnItself:
    """Its velocity is on the object, not in the state: nothing that JAX could trace."""

    def init(self, params):
        self.velocity = zeros(params)
        return ()

    def update(self, grads, state, params=None):
        self.velocity = tree_map(lambda v, g: 0.9 * v + g, self.velocity, grads)
        return tree_map(lambda v: -RATE * v, self.velocity), state


def momentum_of_a_flat_dictionary():
    """Takes a dictionary of arrays and nothing else."""

    def update(grads, state, params=None):
        state = {name: 0.9 * state[name] + grads[name] for name in state}
        return {name: -RATE * state[name] for name in state}, state

    return transformation(lambda params: {name: jnp.zeros(p.shape, p.dtype) for name, p in params.items()}, update)


def pinned_velocity():
    """In float32, whatever the parameters are."""

    def update(grads, state, params=None):
        state = tree_map(lambda v, g: 0.9 * v + g.astype(jnp.float32), state, grads)
        return tree_map(lambda v, g: (-RATE * v).astype(g.dtype), state, grads), state

    return transformation(lambda params: tree_map(lambda p: jnp.zeros(p.shape, jnp.float32), params), update)


def new_less_old():
    """The new parameters less the old ones."""

    def update(grads, v, params):
        v = tree_map(lambda v, g: 0.9 * v + g, v, grads)
        new = tree_map(lambda p, v: p - RATE * v, params, v)
        return tree_map(lambda new, old: new - old, new, params), v

    return transformation(zeros, update)


def cs231n():
    """Nesterov's momentum as −μ v_before + (1+μ) v, the rate inside."""

    def update(grads, v, params=None):
        new = tree_map(lambda v, g: 0.9 * v - RATE * g, v, grads)
        return tree_map(lambda old, new: -0.9 * old + 1.9 * new, v, new), new

    return transformation(zeros, update)
