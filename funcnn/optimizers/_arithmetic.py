"""Arithmetic over trees of gradients, and the two transformations that several optimizers use."""

import functools

import jax
import jax.numpy as jnp
import optax


def transformation(init, update):
    """Return ``optax.GradientTransformation(init, update)`` whose update uses JAX's standard dtype promotion.

    Optax's semantics combine dtypes: gradients with an accumulator of another dtype, |g|² with complex zeros. Strict
    promotion, if the caller enables it, rejects these.
    """

    @functools.wraps(update)
    def update_with_standard_promotion(gradients, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return update(gradients, state, params)

    return optax.GradientTransformation(init, update_with_standard_promotion)


def map_leaves(function, tree, *others):
    """Apply ``jax.tree.map`` and keep a ``None`` in place of a gradient, as optax does."""
    return jax.tree.map(
        lambda leaf, *rest: None if leaf is None else function(leaf, *rest),
        tree,
        *others,
        is_leaf=lambda leaf: leaf is None,
    )


def zeros_like(params, dtype=None):
    """Return zeros of every parameter's shape, in its dtype unless one is given."""
    return full_like(params, 0, dtype)


def full_like(params, value, dtype=None):
    """Return arrays of every parameter's shape filled with a value, in its dtype unless one is given."""
    dtype = None if dtype is None else jax.dtypes.canonicalize_dtype(dtype)
    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=dtype), params)


def cast(tree, dtype):
    """Cast a tree to a dtype; ``None`` keeps it."""
    return tree if dtype is None else jax.tree.map(lambda leaf: leaf.astype(jax.dtypes.canonicalize_dtype(dtype)), tree)


def start_count():
    """Return a step count of 0 as an array. For a Python number ``jit`` compiles a second time."""
    return jnp.zeros((), jnp.int32)


def squared_size(g):
    """Return |g|², which is real also for complex g."""
    return (g * jnp.conj(g)).real


def moving_average(gradients, mean, decay):
    """Return the exponential moving average (1 − β) g + β m."""
    return map_leaves(lambda g, m: (1 - decay) * g + decay * m, gradients, mean)


def moving_average_of_squares(gradients, mean, decay):
    """Return the exponential moving average (1 − β) |g|² + β v."""
    return map_leaves(lambda g, v: (1 - decay) * squared_size(g) + decay * v, gradients, mean)


def sum_of_weights(decay, count):
    """Return 1 − βᵗ, the sum of the weights (1 − β) βᵗ⁻ⁱ in a moving average that starts at 0.

    The power is computed in the default precision, because 0.999 rounds to 1 in bfloat16.
    """
    return 1 - decay**count


def bias_correction(mean, decay, count):
    """Return a moving average that starts at 0 divided by 1 − βᵗ.

    It is multiplied by the inverse, because a division of every entry takes as long as the rest of Adam's arithmetic.
    """
    inverse = 1 / sum_of_weights(decay, count)
    return map_leaves(lambda m: m * inverse.astype(m.dtype), mean)


def velocity(decay, nesterov, accumulator_dtype=None):
    """Return the transformation v ← g + μ v whose update is v, or g + μ v for Nesterov's momentum."""

    def init(params):
        return optax.TraceState(trace=zeros_like(params, accumulator_dtype))

    def update(gradients, state, params=None):
        trace = map_leaves(lambda g, v: g + decay * v, gradients, state.trace)
        updates = map_leaves(lambda g, v: g + decay * v, gradients, trace) if nesterov else trace
        return updates, optax.TraceState(trace=cast(trace, accumulator_dtype))

    return transformation(init, update)


def scale_by_learning_rate(learning_rate):
    """Return the transformation u = −α g, where α is a number or a function of the step count."""

    def init(params):
        return optax.ScaleByScheduleState(count=start_count()) if callable(learning_rate) else optax.EmptyState()

    def update(gradients, state, params=None):
        if not callable(learning_rate):
            return map_leaves(lambda g: -learning_rate * g, gradients), state
        rate = learning_rate(state.count)
        updates = map_leaves(lambda g: jnp.asarray(-rate, g.dtype) * g, gradients)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return transformation(init, update)
