"""Hand-rolled optimizers beside optax's: one line of each planted wrong, or right though written otherwise."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

tree_map = jax.tree.map

PARAMS = {"w": jnp.array([[0.5, -1.5], [2.0, 0.25], [-0.75, 1.0]]), "b": jnp.array([0.1, -0.3])}
RATE = 1e-2


class OptimizerCase(NamedTuple):
    """An optimizer beside the one that it should be.

    Fields:
        name: in snake_case, unique among optimizers.
        theme: the heading under which it is counted.
        candidate, reference: transformations, or both functions of the learning rate.
        causes: what a diagnosis may call the planted slip, by the facts; empty where the candidate is right.
        unseen: written after the checker, to see what it makes of slips that nobody had in mind.
    """

    name: str
    theme: str
    candidate: Any
    reference: Any
    causes: frozenset[str] = frozenset()
    unseen: bool = False


def cases(theme: str, reference: Any, *rows: tuple[str, Iterable[str], Any], unseen: bool = False):
    """Cases that share a reference: ``(name, causes, candidate)``."""
    return tuple(
        OptimizerCase(name, theme, candidate, reference, frozenset(causes), unseen) for name, causes, candidate in rows
    )


def transformation(init: Callable, update: Callable) -> optax.GradientTransformation:
    return optax.GradientTransformation(init, update)


def zeros(params):
    return tree_map(jnp.zeros_like, params)


# Gradient descent: the update from a gradient and a parameter.
def descent(line: Callable):
    return transformation(
        lambda params: (), lambda grads, state, params: (tree_map(line, grads, params), state)
    )


def clipped_by_norm(tree, bound):
    norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(tree)))
    return tree_map(lambda leaf: leaf * jnp.minimum(1, bound / jnp.maximum(norm, 1e-300)).astype(leaf.dtype), tree)


def after(clip: Callable, optimizer):
    """An optimizer that gets gradients clipped in one way or another."""
    return transformation(
        optimizer.init, lambda grads, state, params: optimizer.update(clip(grads), state, params)
    )


def one_leaf_clipped(leaf, bound):
    return leaf * jnp.minimum(1, bound / jnp.sqrt((leaf**2).sum()))


SGD = optax.sgd(RATE)
DECAYED = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE))
SCHEDULED = optax.exponential_decay(RATE, 3, 0.5)

DESCENT = (
    *cases(
        "sgd",
        SGD,
        ("sgd_climbs", {"sign"}, descent(lambda g, p: RATE * g)),
        ("sgd_rate_of_tenfold_size", {"rate_scaled"}, descent(lambda g, p: -0.1 * g)),
        ("sgd_decays_unasked", {"decay_size"}, descent(lambda g, p: -RATE * (g + 1e-3 * p))),
    ),
    *cases(
        "sgd",
        DECAYED,
        ("decay_forgotten", {"decay_missing"}, descent(lambda g, p: -RATE * g)),
        ("decay_without_the_rate", {"decay_unscaled"}, descent(lambda g, p: -RATE * g - 0.1 * p)),
        ("decay_of_the_square_twice", {"decay_size"}, descent(lambda g, p: -RATE * (g + 2 * 0.1 * p))),
        ("decay_grows_the_weights", {"decay_size"}, descent(lambda g, p: -RATE * (g - 0.1 * p))),
    ),
)


# Momentum: the velocity and the direction, for any learning rate.
def velocity(
    learning_rate,
    gather: Callable = lambda v, g, rate: 0.9 * v + g,
    direction: Callable = lambda v, g, rate: rate * v,
    count: Callable = lambda t: t,
    keep: Callable = lambda old, new: new,
):
    def init(params):
        return {"v": zeros(params), "t": jnp.zeros((), jnp.int32)}

    def update(grads, state, params=None):
        rate = learning_rate(count(state["t"])) if callable(learning_rate) else learning_rate
        v = tree_map(lambda v, g: gather(v, g, jnp.asarray(rate, g.dtype)), state["v"], grads)
        updates = tree_map(lambda v, g: -direction(v, g, jnp.asarray(rate, g.dtype)), v, grads)
        return updates, {"v": keep(state["v"], v), "t": state["t"] + 1}

    return transformation(init, update)


def momentum_by_optax(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


def inside(rate, **lines):
    return velocity(rate, lambda v, g, rate: 0.9 * v + rate * g, lambda v, g, rate: v, **lines)


MOMENTUM, NESTEROV = optax.sgd(RATE, momentum=0.9), optax.sgd(RATE, momentum=0.9, nesterov=True)
AHEAD = {"direction": lambda v, g, rate: rate * (g + 0.9 * v)}

VELOCITIES = (
    *cases(
        "momentum",
        MOMENTUM,
        ("velocity_dampened", {"dampening"}, velocity(RATE, lambda v, g, rate: 0.9 * v + 0.1 * g)),
        ("velocity_not_returned", {"state_reset"}, velocity(RATE, keep=lambda old, new: old)),
        ("velocity_looks_ahead", {"nesterov"}, velocity(RATE, **AHEAD)),
        ("velocity_keeps_99_percent", {"coefficient"}, velocity(RATE, lambda v, g, rate: 0.99 * v + g)),
        ("velocity_used_before_it_is_updated", {"state_late"}, velocity(RATE, direction=lambda v, g, rate: rate * (v - g) / 0.9)),
    ),
    *cases(
        "momentum",
        momentum_by_optax,
        ("rate_inside_the_velocity", {"rate_inside_velocity"}, inside),
        ("schedule_counts_from_one", {"schedule_shifted"}, lambda rate: velocity(rate, count=lambda t: t + 1)),
        ("schedule_stays_at_its_start", {"schedule_shifted"}, lambda rate: velocity(rate, count=lambda t: 0 * t)),
    ),
    *cases(
        "momentum",
        NESTEROV,
        ("nesterov_forgotten", {"nesterov"}, velocity(RATE)),
        ("nesterov_with_a_dampened_gradient", {"nesterov_form"}, velocity(RATE, direction=lambda v, g, rate: rate * (0.1 * g + 0.9 * v))),
        ("nesterov_without_its_share", {"nesterov_form"}, velocity(RATE, direction=lambda v, g, rate: rate * (g + v))),
    ),
)  # fmt: skip


# Adam, RMSprop and Adagrad: each line a function, the textbook's by default.
def adam(
    learning_rate: Any = RATE,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
    *,
    mean: Callable = lambda m, g, b: b * m + (1 - b) * g,
    square: Callable = lambda v, g, b: b * v + (1 - b) * g**2,
    corrected: Callable = lambda m, b, t: m / (1 - b**t),
    corrected_square: Callable | None = None,
    divided: Callable = lambda m, v, eps, t: m / (jnp.sqrt(v) + eps),
    entering: Callable = lambda g, p: g,
    leaving: Callable = lambda u, p, rate: rate * u,
    keep: Callable = lambda old, new: new,
    start: float = 0.0,
):
    corrected_square = corrected_square or corrected

    def init(params):
        return {"t": jnp.zeros((), jnp.int32), "m": zeros(params), "v": tree_map(lambda p: jnp.full_like(p, start), params)}

    def update(grads, state, params):
        grads = tree_map(entering, grads, params)
        t = state["t"] + 1
        m = tree_map(lambda m, g: mean(m, g, b1), state["m"], grads)
        v = tree_map(lambda v, g: square(v, g, b2), state["v"], grads)

        def step(m, v, p):
            hats = corrected(m, b1, t).astype(p.dtype), corrected_square(v, b2, t).astype(p.dtype)
            return -leaving(divided(*hats, eps, t), p, learning_rate).astype(p.dtype)

        return tree_map(step, m, v, params), keep(state, {"t": t, "m": m, "v": v})

    return transformation(init, update)


def uncorrected(moment, b, t):
    return moment


def early(moment, b, t):
    return moment / (1 - b ** (t - 1))


def late(moment, b, t):
    return moment / (1 - b ** (t + 1))


def by_keras(m, v, eps, t):
    return m / (jnp.sqrt(v) + eps / jnp.sqrt(1 - 0.999**t).astype(v.dtype))


ADAM, ADAM_BY_RATE = optax.adam(RATE), optax.adam
ADAMW = optax.adamw(RATE, weight_decay=0.1)

MOMENTS = cases(
    "adam",
    ADAM,
    ("adam_uncorrected", {"bias_correction_missing"}, adam(corrected=uncorrected)),
    ("adam_mean_uncorrected", {"bias_correction_missing"}, adam(corrected=uncorrected, corrected_square=lambda v, b, t: v / (1 - b**t))),
    ("adam_square_uncorrected", {"bias_correction_missing"}, adam(corrected_square=uncorrected)),
    ("adam_count_before_increment", {"bias_correction_shifted"}, adam(corrected=early)),
    ("adam_count_incremented_twice", {"bias_correction_shifted"}, adam(corrected=late)),
    ("adam_square_corrected_late", {"bias_correction_shifted"}, adam(corrected_square=late)),
    ("adam_epsilon_inside_the_root", {"epsilon_inside_root"}, adam(divided=lambda m, v, eps, t: m / jnp.sqrt(v + eps))),
    ("adam_epsilon_as_in_keras", {"epsilon_before_correction"}, adam(divided=by_keras)),
    ("adam_without_epsilon", {"epsilon_size"}, adam(eps=0.0)),
    ("adam_epsilon_of_tensorflow", {"epsilon_size"}, adam(eps=1e-7)),
    ("adam_betas_exchanged", {"betas_exchanged"}, adam(b1=0.999, b2=0.9)),
    ("adam_without_root", {"root_missing"}, adam(divided=lambda m, v, eps, t: m / (v + eps))),
    ("adam_without_square", {"square_missing"}, adam(square=lambda v, g, b: b * v + (1 - b) * jnp.abs(g))),
    ("adam_mean_without_factor", {"factor_missing"}, adam(mean=lambda m, g, b: b * m + g)),
    ("adam_square_without_factor", {"factor_missing"}, adam(square=lambda v, g, b: b * v + g**2)),
    ("adam_factors_exchanged", {"factors_exchanged"}, adam(mean=lambda m, g, b: (1 - b) * m + b * g)),
    ("adam_b2_of_99_percent", {"coefficient"}, adam(b2=0.99)),
    ("adam_state_not_carried", {"state_reset"}, adam(keep=lambda old, new: old)),
    ("adam_moments_not_carried", {"state_reset"}, adam(keep=lambda old, new: old | {"t": new["t"]})),
    ("adam_sums_squares", {"accumulation"}, adam(square=lambda v, g, b: v + g**2)),
    ("adam_climbs", {"sign"}, adam(-RATE)),
    ("adam_half_the_rate", {"rate_scaled"}, adam(RATE / 2)),
    # In bfloat16 it rounds β₂ to 1, and divides by 1 − 1.
    ("adam_with_injected_settings", {"unstable"}, optax.inject_hyperparams(optax.adam)(learning_rate=RATE)),
    ("adam_mean_in_bfloat16", {"unstable"}, adam(mean=lambda m, g, b: (b * m + (1 - b) * g).astype(jnp.bfloat16).astype(g.dtype))),
) + cases(
    "adamw",
    ADAMW,
    ("adamw_decay_in_the_gradient", {"decay_coupling"}, adam(entering=lambda g, p: g + 0.1 * p)),
    ("adamw_decay_forgotten", {"decay_missing"}, adam()),
    ("adamw_decay_without_the_rate", {"decay_unscaled"}, adam(leaving=lambda u, p, rate: rate * u + 0.1 * p)),
    ("adamw_decay_of_another_size", {"decay_size"}, adam(leaving=lambda u, p, rate: rate * (u + 0.03 * p))),
)  # fmt: skip


def rmsprop(**lines):
    """Without a mean and without corrections; optax has ε inside the root."""
    inside = {"divided": lambda m, v, eps, t: m / jnp.sqrt(v + eps)}
    return adam(b1=0.0, b2=0.9, corrected=uncorrected, **(inside | lines))


RMSPROP, ADAGRAD = optax.rmsprop(RATE), optax.adagrad(RATE)
SUMMED = {"square": lambda v, g, b: v + g**2, "eps": 1e-7, "start": 0.1}

SQUARES = cases(
    "rmsprop",
    RMSPROP,
    ("rmsprop_epsilon_outside_the_root", {"epsilon_inside_root"}, rmsprop(divided=lambda m, v, eps, t: m / (jnp.sqrt(v) + eps))),
    ("rmsprop_sums_squares", {"accumulation"}, rmsprop(square=lambda v, g, b: v + g**2)),
    ("rmsprop_corrected_for_bias", {"bias_correction_missing"}, rmsprop(corrected_square=lambda v, b, t: v / (1 - b**t))),
    ("rmsprop_without_root", {"root_missing"}, rmsprop(divided=lambda m, v, eps, t: m / (v + eps))),
) + cases(
    "adagrad",
    ADAGRAD,
    ("adagrad_forgets_squares", {"accumulation"}, rmsprop(**SUMMED | {"square": lambda v, g, b: b * v + (1 - b) * g**2})),
    ("adagrad_begins_at_zero", {"initial_accumulator"}, rmsprop(**SUMMED | {"start": 0.0})),
    ("adagrad_without_square", {"square_missing"}, rmsprop(**SUMMED | {"square": lambda v, g, b: v + jnp.abs(g)})),
)  # fmt: skip

CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(RATE, momentum=0.9))
CLIPPED_ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE))

CLIPPING = cases(
    "clipping",
    CLIPPED,
    ("clipped_by_value", {"clipping_kind"}, after(lambda tree: tree_map(lambda g: jnp.clip(g, -1, 1), tree), velocity(RATE))),
    ("clipped_leaf_by_leaf", {"clipping_kind"}, after(lambda tree: tree_map(lambda g: one_leaf_clipped(g, 1.0), tree), velocity(RATE))),
    ("clipping_forgotten", {"clipping_missing"}, velocity(RATE)),
    ("clipped_at_ten", {"clipping_bound"}, after(lambda tree: clipped_by_norm(tree, 10.0), velocity(RATE))),
) + cases(
    "clipping",
    CLIPPED_ADAM,
    ("adam_clipped_by_value", {"clipping_kind"}, after(lambda tree: tree_map(lambda g: jnp.clip(g, -1, 1), tree), adam())),
    ("adam_clipping_forgotten", {"clipping_missing"}, adam()),
)  # fmt: skip


# Right ones.
def folded(m, v, eps, t):
    """Both corrections in one factor, ε scaled along: what Kingma and Ba's last paragraph of section 2 really means."""
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


class CountingMomentum:
    """Its velocity on itself, not in the state: nothing that JAX could trace."""

    def init(self, params):
        self.velocity = zeros(params)
        return ()

    def update(self, grads, state, params=None):
        self.velocity = tree_map(lambda v, g: 0.9 * v + g, self.velocity, grads)
        return tree_map(lambda v: -RATE * v, self.velocity), state


def dictionary_of_arrays():
    """Takes a flat dictionary and nothing else."""

    def init(params):
        return {name: jnp.zeros(params[name].shape, params[name].dtype) for name in params}

    def update(grads, state, params=None):
        state = {name: 0.9 * state[name] + grads[name] for name in state}
        return {name: -RATE * state[name] for name in state}, state

    return transformation(init, update)


def pinned_velocity():
    """In float32, whatever the parameters are."""

    def init(params):
        return tree_map(lambda p: jnp.zeros(p.shape, jnp.float32), params)

    def update(grads, state, params=None):
        state = tree_map(lambda v, g: 0.9 * v + g.astype(jnp.float32), state, grads)
        return tree_map(lambda v, g: (-RATE * v).astype(g.dtype), state, grads), state

    return transformation(init, update)


def new_minus_old():
    """The new parameters less the old ones."""

    def update(grads, v, params):
        v = tree_map(lambda v, g: 0.9 * v + g, v, grads)
        new = tree_map(lambda p, v: p - RATE * v, params, v)
        return tree_map(lambda new, old: new - old, new, params), v

    return transformation(zeros, update)


def cs231n(rate=RATE):
    """Nesterov as −μ v_before + (1+μ) v, the rate inside."""

    def update(grads, v, params=None):
        new = tree_map(lambda v, g: 0.9 * v - rate * g, v, grads)
        return tree_map(lambda old, new: -0.9 * old + 1.9 * new, v, new), new

    return transformation(zeros, update)


MASKED = optax.masked(optax.adam(RATE), {"w": True, "b": False})
MASKED_DECAY = optax.adamw(RATE, weight_decay=0.1, mask=lambda params: tree_map(lambda p: jnp.ndim(p) > 1, params))
EVERY_TWO = optax.MultiSteps(optax.adam(RATE), every_k_schedule=2).gradient_transformation()

RIGHT_OPTIMIZERS = (
    *cases("right", SGD, ("sgd_by_hand", (), descent(lambda g, p: -RATE * g))),
    *cases("right", DECAYED, ("decay_multiplied", (), descent(lambda g, p: -RATE * g - RATE * 0.1 * p))),
    *cases(
        "right",
        MOMENTUM,
        ("rate_inside_under_a_constant_rate", (), inside(RATE)),
        ("velocity_in_float32", (), pinned_velocity()),
        ("velocity_on_the_object", (), CountingMomentum()),
        ("velocity_in_a_flat_dictionary", (), dictionary_of_arrays()),
        ("new_parameters_less_the_old", (), new_minus_old()),
    ),
    *cases("right", NESTEROV, ("nesterov_of_cs231n", (), cs231n()), ("nesterov_by_hand", (), velocity(RATE, **AHEAD))),
    *cases("right", momentum_by_optax, ("momentum_of_the_rate", (), velocity)),
    *cases(
        "right",
        ADAM,
        ("adam_by_hand", (), adam()),
        ("adam_with_folded_corrections", (), adam(corrected=uncorrected, divided=folded)),
        ("adam_by_increments", (), adam(mean=lambda m, g, b: m + (1 - b) * (g - m))),
        ("adam_in_place_in_numpy", (), InPlaceAdam()),
        ("adam_in_a_chain", (), optax.chain(optax.scale_by_adam(), optax.scale(-RATE))),
        ("adam_in_a_flat_wrapper", (), optax.flatten(optax.adam(RATE))),
    ),
    *cases("right", ADAM_BY_RATE, ("adam_without_schedules", (), lambda rate: InPlaceAdam(float(rate)))),
    *cases("right", ADAMW, ("adamw_by_hand", (), adam(leaving=lambda u, p, rate: rate * (u + 0.1 * p)))),
    *cases("right", RMSPROP, ("rmsprop_by_hand", (), rmsprop())),
    *cases("right", ADAGRAD, ("adagrad_by_hand", (), rmsprop(**SUMMED))),
    *cases("right", CLIPPED, ("clipped_by_hand", (), after(lambda tree: clipped_by_norm(tree, 1.0), velocity(RATE)))),
    *cases("right", MASKED, ("masked", (), optax.masked(optax.adam(RATE), {"w": True, "b": False}))),
    *cases("right", MASKED_DECAY, ("masked_decay", (), adam(leaving=lambda u, p, rate: rate * (u + (0.1 * p if p.ndim > 1 else 0 * p))))),
    *cases("right", EVERY_TWO, ("every_two_steps", (), optax.MultiSteps(optax.adam(RATE), every_k_schedule=2).gradient_transformation())),
)  # fmt: skip

SLIPS = (*DESCENT, *VELOCITIES, *MOMENTS, *SQUARES, *CLIPPING)
OPTIMIZERS = (*SLIPS, *RIGHT_OPTIMIZERS)
