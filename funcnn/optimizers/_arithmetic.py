"""What several optimizers share: arithmetic over trees of gradients, the velocity, the learning rate."""

import functools

import jax
import jax.numpy as jnp
import optax


def transformation(init, update):
    """``init`` and ``update`` as optax packs them, under JAX's usual promotion whatever the caller's.

    Optax's contract has dtypes meet: an accumulator of a dtype of its own with the gradients, |g|² with the complex
    zeros it is added to. Strict promotion would refuse what the settings ask for.
    """

    @functools.wraps(update)
    def update_under_usual_promotion(gradients, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return update(gradients, state, params)

    return optax.GradientTransformation(init, update_under_usual_promotion)


def map_leaves(function, tree, *others):
    """``jax.tree.map`` that leaves a ``None`` in the place of a gradient alone, as optax does."""
    return jax.tree.map(
        lambda leaf, *rest: None if leaf is None else function(leaf, *rest),
        tree,
        *others,
        is_leaf=lambda leaf: leaf is None,
    )


def zeros_like(params, dtype=None):
    """Zeros in the place of every parameter, in a dtype of their own if one is given."""
    return full_like(params, 0, dtype)


def full_like(params, value, dtype=None):
    """``value`` in the place of every parameter, in a dtype of its own if one is given."""
    dtype = None if dtype is None else jax.dtypes.canonicalize_dtype(dtype)
    return jax.tree.map(lambda p: jnp.full_like(p, value, dtype=dtype), params)


def cast(tree, dtype):
    """A tree in the dtype that a setting asks for, if it does."""
    return tree if dtype is None else jax.tree.map(lambda leaf: leaf.astype(jax.dtypes.canonicalize_dtype(dtype)), tree)


def start_count():
    """No step taken yet, as an array: ``jit`` would compile a second time for a Python number."""
    return jnp.zeros((), jnp.int32)


def squared_size(g):
    """|g|², real where g is complex."""
    return (g * jnp.conj(g)).real


def moving_mean(gradients, mean, decay):
    """m ← (1 − β) g + β m."""
    return map_leaves(lambda g, m: (1 - decay) * g + decay * m, gradients, mean)


def moving_mean_of_squares(gradients, mean, decay):
    """v ← (1 − β) |g|² + β v."""
    return map_leaves(lambda g, v: (1 - decay) * squared_size(g) + decay * v, gradients, mean)


def weight_seen(decay, count):
    """1 − βᵗ, the sum of the weights (1 − β) βᵗ⁻ⁱ of what a moving mean that started at 0 has seen.

    The power is taken in the default precision: in bfloat16, 0.999 is 1, and the sum 0.
    """
    return 1 - decay**count


def correct(mean, decay, count):
    """A moving mean that started at 0, over the weight of what it has seen.

    The inverse is taken once: a division of every entry costs as much as the rest of Adam's arithmetic.
    """
    inverse = 1 / weight_seen(decay, count)
    return map_leaves(lambda m: m * inverse.astype(m.dtype), mean)


def velocity(decay, nesterov, accumulator_dtype=None):
    """v ← g + μ v; passes v on, or g + μ v once more, looking ahead along it."""

    def init(params):
        return optax.TraceState(trace=zeros_like(params, accumulator_dtype))

    def update(gradients, state, params=None):
        trace = map_leaves(lambda g, v: g + decay * v, gradients, state.trace)
        updates = map_leaves(lambda g, v: g + decay * v, gradients, trace) if nesterov else trace
        return updates, optax.TraceState(trace=cast(trace, accumulator_dtype))

    return transformation(init, update)


def scale_by_learning_rate(learning_rate):
    """u = −α g, with α a number or a function of the steps taken so far."""

    def init(params):
        return optax.ScaleByScheduleState(count=start_count()) if callable(learning_rate) else optax.EmptyState()

    def update(gradients, state, params=None):
        if not callable(learning_rate):
            return map_leaves(lambda g: -learning_rate * g, gradients), state
        rate = learning_rate(state.count)
        updates = map_leaves(lambda g: jnp.asarray(-rate, g.dtype) * g, gradients)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return transformation(init, update)
