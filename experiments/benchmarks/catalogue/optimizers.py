"""Hand-written optimizers and their optax references: ones with one planted mistake, and right ones in other forms."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from experiments.benchmarks.catalogue.hand_rolled import (
    RATE,
    InPlaceAdam,
    MomentumOnItself,
    adagrad,
    adam,
    after,
    by_leaf,
    by_norm,
    by_value,
    cs231n,
    descent,
    folded,
    inside,
    momentum_of_a_flat_dictionary,
    new_less_old,
    pinned_velocity,
    rmsprop,
    tree_map,
    uncorrected,
    velocity,
)

PARAMS = {"w": jnp.array([[0.5, -1.5], [2.0, 0.25], [-0.75, 1.0]]), "b": jnp.array([0.1, -0.3])}


class OptimizerCase(NamedTuple):
    """A candidate optimizer and its reference.

    Fields:
        name: in snake_case, unique among optimizers.
        theme: the heading under which it is counted.
        candidate, reference: transformations, or both functions of the learning rate.
        causes: the right diagnoses of the planted mistake; empty if the candidate is right.
    """

    name: str
    theme: str
    candidate: Any
    reference: Any
    causes: frozenset[str] = frozenset()


def cases(theme: str, reference: Any, rows: dict[str, tuple[Iterable[str], Any]]) -> tuple[OptimizerCase, ...]:
    """Return cases that share a reference, which JAX compiles once. ``rows`` maps names to ``(causes, candidate)``."""
    return tuple(
        OptimizerCase(name, theme, candidate, reference, frozenset(causes))
        for name, (causes, candidate) in rows.items()
    )


def momentum_by_optax(learning_rate):
    return optax.sgd(learning_rate, momentum=0.9)


SGD = optax.sgd(RATE)
DECAYED = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(RATE))
MOMENTUM, NESTEROV = optax.sgd(RATE, momentum=0.9), optax.sgd(RATE, momentum=0.9, nesterov=True)
ADAM, ADAMW = optax.adam(RATE), optax.adamw(RATE, weight_decay=0.1)
RMSPROP, ADAGRAD, LION = optax.rmsprop(RATE), optax.adagrad(RATE), optax.lion(RATE)
CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(RATE, momentum=0.9))
CLIPPED_ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(RATE))
MASKED = optax.masked(optax.adam(RATE), {"w": True, "b": False})
MASKED_DECAY = optax.adamw(RATE, weight_decay=0.1, mask=lambda params: tree_map(lambda p: jnp.ndim(p) > 1, params))


def every_two_steps():
    return optax.MultiSteps(momentum_by_optax(RATE), every_k_schedule=2).gradient_transformation()


WRONG_OPTIMIZERS = (
    *cases(
        "sgd",
        SGD,
        {
            "sgd_climbs": ({"sign"}, descent(lambda g, p: RATE * g)),
            "sgd_rate_of_tenfold_size": ({"rate_scaled"}, descent(lambda g, p: -0.1 * g)),
            "sgd_decays_unasked": ({"decay_added"}, descent(lambda g, p: -RATE * (g + 1e-3 * p))),
        },
    ),
    *cases(
        "sgd",
        DECAYED,
        {
            "decay_forgotten": ({"decay_missing"}, descent(lambda g, p: -RATE * g)),
            "decay_without_the_rate": ({"decay_unscaled"}, descent(lambda g, p: -RATE * g - 0.1 * p)),
            "decay_of_the_square_twice": ({"decay_size"}, descent(lambda g, p: -RATE * (g + 2 * 0.1 * p))),
            "decay_grows_the_weights": ({"decay_size"}, descent(lambda g, p: -RATE * (g - 0.1 * p))),
        },
    ),
    *cases(
        "momentum",
        MOMENTUM,
        {
            "velocity_dampened": ({"dampening"}, velocity(gather=lambda v, g, rate: 0.9 * v + 0.1 * g)),
            "velocity_not_returned": ({"state_reset"}, velocity(keep=lambda old, new: old)),
            "velocity_looks_ahead": ({"nesterov"}, velocity(direction=lambda v, g, rate: rate * (g + 0.9 * v))),
            "velocity_keeps_99_percent": ({"coefficient"}, velocity(gather=lambda v, g, rate: 0.99 * v + g)),
            "velocity_of_the_step_before": (
                {"state_late"},
                velocity(direction=lambda v, g, rate: rate * (v - g) / 0.9),
            ),
        },
    ),
    *cases(
        "momentum",
        momentum_by_optax,
        {
            "rate_inside_the_velocity": ({"rate_inside_velocity"}, inside),
            "schedule_from_one": ({"schedule_shifted"}, lambda rate: velocity(rate, count=lambda t: t + 1)),
            "schedule_at_its_start": ({"schedule_shifted"}, lambda rate: velocity(rate, count=lambda t: 0 * t)),
        },
    ),
    *cases(
        "nesterov",
        NESTEROV,
        {
            "nesterov_forgotten": ({"nesterov"}, velocity()),
            "nesterov_with_a_dampened_gradient": (
                {"nesterov_form"},
                velocity(direction=lambda v, g, rate: rate * (0.1 * g + 0.9 * v)),
            ),
            "nesterov_without_its_share": ({"nesterov_form"}, velocity(direction=lambda v, g, rate: rate * (g + v))),
        },
    ),
    *cases(
        "adam",
        ADAM,
        {
            "adam_uncorrected": ({"bias_correction_missing"}, adam(mean_hat=uncorrected, square_hat=uncorrected)),
            "adam_mean_uncorrected": ({"bias_correction_missing"}, adam(mean_hat=uncorrected)),
            "adam_square_uncorrected": ({"bias_correction_missing"}, adam(square_hat=uncorrected)),
            "adam_count_before_increment": (
                {"bias_correction_shifted"},
                adam(
                    mean_hat=lambda m, b, t: m / (1 - b ** (t - 1)), square_hat=lambda v, b, t: v / (1 - b ** (t - 1))
                ),
            ),
            "adam_count_incremented_twice": (
                {"bias_correction_shifted"},
                adam(
                    mean_hat=lambda m, b, t: m / (1 - b ** (t + 1)), square_hat=lambda v, b, t: v / (1 - b ** (t + 1))
                ),
            ),
            "adam_square_corrected_late": (
                {"bias_correction_shifted"},
                adam(square_hat=lambda v, b, t: v / (1 - b ** (t + 1))),
            ),
            "adam_epsilon_inside_the_root": (
                {"epsilon_inside_root"},
                adam(divided=lambda m, v, eps, t: m / jnp.sqrt(v + eps)),
            ),
            "adam_epsilon_as_in_keras": (
                {"epsilon_before_correction"},
                adam(divided=lambda m, v, eps, t: m / (jnp.sqrt(v) + eps / jnp.sqrt(1 - 0.999**t).astype(v.dtype))),
            ),
            "adam_without_epsilon": ({"epsilon_size"}, adam(eps=0.0)),
            "adam_epsilon_of_tensorflow": ({"epsilon_size"}, adam(eps=1e-7)),
            "adam_betas_exchanged": ({"betas_exchanged"}, adam(b1=0.999, b2=0.9)),
            "adam_without_root": ({"root_missing"}, adam(divided=lambda m, v, eps, t: m / (v + eps))),
            "adam_without_square": ({"square_missing"}, adam(square=lambda v, g, b: b * v + (1 - b) * jnp.abs(g))),
            "adam_mean_without_factor": ({"factor_missing"}, adam(mean=lambda m, g, b: b * m + g)),
            "adam_square_without_factor": ({"factor_missing"}, adam(square=lambda v, g, b: b * v + g**2)),
            "adam_factors_exchanged": ({"factors_exchanged"}, adam(mean=lambda m, g, b: (1 - b) * m + b * g)),
            "adam_b2_of_99_percent": ({"coefficient"}, adam(b2=0.99)),
            "adam_state_not_carried": ({"state_reset"}, adam(keep=lambda old, new: old)),
            "adam_moments_not_carried": ({"state_reset"}, adam(keep=lambda old, new: old | {"t": new["t"]})),
            "adam_sums_squares": ({"accumulation"}, adam(square=lambda v, g, b: v + g**2)),
            "adam_climbs": ({"sign"}, adam(-RATE)),
            "adam_half_the_rate": ({"rate_scaled"}, adam(RATE / 2)),
            "adam_mean_in_bfloat16": (
                {"unstable"},
                adam(mean=lambda m, g, b: (b * m + (1 - b) * g).astype(jnp.bfloat16).astype(g.dtype)),
            ),
            # In bfloat16 β₂ rounds to 1, and 1 − β₂ᵗ to 0.
            "adam_with_injected_settings": ({"unstable"}, optax.inject_hyperparams(optax.adam)(learning_rate=RATE)),
        },
    ),
    *cases(
        "adamw",
        ADAMW,
        {
            "adamw_decay_in_the_gradient": ({"decay_coupling"}, adam(entering=lambda g, p: g + 0.1 * p)),
            "adamw_decay_forgotten": ({"decay_missing"}, adam()),
            "adamw_decay_without_the_rate": ({"decay_unscaled"}, adam(leaving=lambda u, p, rate: rate * u + 0.1 * p)),
            "adamw_decay_of_another_size": ({"decay_size"}, adam(leaving=lambda u, p, rate: rate * (u + 0.03 * p))),
        },
    ),
    *cases(
        "adamw",
        MASKED_DECAY,
        {"adamw_decays_biases_too": ({"decay_masking"}, adam(leaving=lambda u, p, rate: rate * (u + 0.1 * p)))},
    ),
    *cases(
        "rmsprop",
        RMSPROP,
        {
            "rmsprop_epsilon_outside_the_root": (
                {"epsilon_inside_root"},
                rmsprop(divided=lambda m, v, eps, t: m / (jnp.sqrt(v) + eps)),
            ),
            "rmsprop_sums_squares": ({"accumulation"}, rmsprop(square=lambda v, g, b: v + g**2)),
            "rmsprop_corrected": ({"bias_correction_missing"}, rmsprop(square_hat=lambda v, b, t: v / (1 - b**t))),
            "rmsprop_without_root": ({"root_missing"}, rmsprop(divided=lambda m, v, eps, t: m / (v + eps))),
        },
    ),
    *cases(
        "adagrad",
        ADAGRAD,
        {
            "adagrad_forgets_squares": ({"accumulation"}, adagrad(square=lambda v, g, b: b * v + (1 - b) * g**2)),
            "adagrad_begins_at_zero": ({"initial_accumulator"}, adagrad(start=0.0)),
            "adagrad_without_square": ({"square_missing"}, adagrad(square=lambda v, g, b: v + jnp.abs(g))),
        },
    ),
    *cases(
        "clipping",
        CLIPPED,
        {
            "clipped_by_value": ({"clipping_kind"}, after(by_value, velocity())),
            "clipped_leaf_by_leaf": ({"clipping_kind"}, after(by_leaf, velocity())),
            "clipping_forgotten": ({"clipping_missing"}, velocity()),
            "clipped_at_ten": ({"clipping_bound"}, after(lambda tree: by_norm(tree, 10.0), velocity())),
        },
    ),
    *cases(
        "clipping",
        CLIPPED_ADAM,
        {
            "adam_clipped_by_value": ({"clipping_kind"}, after(by_value, adam())),
            "adam_clipping_forgotten": ({"clipping_missing"}, adam()),
        },
    ),
)

RIGHT_OPTIMIZERS = (
    *cases("right", SGD, {"sgd_by_hand": ((), descent(lambda g, p: -RATE * g))}),
    *cases("right", DECAYED, {"decay_multiplied": ((), descent(lambda g, p: -RATE * g - RATE * 0.1 * p))}),
    *cases(
        "right",
        MOMENTUM,
        {
            "rate_inside_under_a_constant_rate": ((), inside()),
            "velocity_in_float32": ((), pinned_velocity()),
            "velocity_on_the_object": ((), MomentumOnItself()),
            "velocity_in_a_flat_dictionary": ((), momentum_of_a_flat_dictionary()),
            "new_parameters_less_the_old": ((), new_less_old()),
        },
    ),
    *cases(
        "right",
        NESTEROV,
        {
            "nesterov_of_cs231n": ((), cs231n()),
            "nesterov_by_hand": ((), velocity(direction=lambda v, g, rate: rate * (g + 0.9 * v))),
        },
    ),
    *cases("right", momentum_by_optax, {"momentum_of_the_rate": ((), velocity)}),
    *cases(
        "right",
        ADAM,
        {
            "adam_by_hand": ((), adam()),
            "adam_with_folded_corrections": ((), adam(mean_hat=uncorrected, square_hat=uncorrected, divided=folded)),
            "adam_by_increments": ((), adam(mean=lambda m, g, b: m + (1 - b) * (g - m))),
            "adam_in_place_in_numpy": ((), InPlaceAdam()),
            "adam_in_a_chain": ((), optax.chain(optax.scale_by_adam(), optax.scale(-RATE))),
            "adam_flattened": ((), optax.flatten(optax.adam(RATE))),
        },
    ),
    *cases("right", optax.adam, {"adam_that_takes_no_schedule": ((), lambda rate: InPlaceAdam(float(rate)))}),
    *cases("right", ADAMW, {"adamw_by_hand": ((), adam(leaving=lambda u, p, rate: rate * (u + 0.1 * p)))}),
    *cases("right", RMSPROP, {"rmsprop_by_hand": ((), rmsprop())}),
    *cases("right", ADAGRAD, {"adagrad_by_hand": ((), adagrad())}),
    *cases("right", CLIPPED, {"clipped_by_hand": ((), after(by_norm, velocity()))}),
    *cases("right", MASKED, {"masked_again": ((), optax.masked(optax.adam(RATE), {"w": True, "b": False}))}),
    *cases(
        "right",
        MASKED_DECAY,
        {"masked_decay_by_hand": ((), adam(leaving=lambda u, p, rate: rate * (u + (p.ndim > 1) * 0.1 * p)))},
    ),
    *cases("right", every_two_steps(), {"every_two_steps_again": ((), every_two_steps())}),
)
