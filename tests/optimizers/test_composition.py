"""Composition with optax: funcnn's transformations inside optax's, and chained with optax's."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest

import funcnn as fnn
from tests.cases import WIDEST, relative_gap
from tests.optimizers.cases import FALLING, PAIRS, SCHEDULE, TIGHT, assert_close

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0], WIDEST), "b": jnp.array(0.5, WIDEST)}
NOT_NUMBERS = {"mask", "mu_dtype", "accumulator_dtype"}


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax's transformations rely on dtype promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def compositions(adam, sgd):
    return {
        "masked": optax.masked(adam(1e-2), {"w": True, "b": False}),
        "several": optax.multi_transform({"a": adam(SCHEDULE), "s": sgd(0.1, momentum=0.9)}, {"w": "a", "b": "s"}),
        "MultiSteps": optax.MultiSteps(adam(1e-2), every_k_schedule=2).gradient_transformation(),
        "apply_if_finite": optax.apply_if_finite(adam(1e-2), 2),
        "inject_hyperparams": optax.inject_hyperparams(adam)(learning_rate=SCHEDULE, b1=0.8),
    }


def chains(adam, sgd, clip, decay):
    return {
        "chain": optax.chain(clip(0.5), decay(0.1), adam(1e-2)),
        "inject_hyperparams of a bound": optax.chain(optax.inject_hyperparams(clip)(max_norm=FALLING), sgd(0.1)),
        "inject_hyperparams of a decay": optax.chain(optax.inject_hyperparams(decay)(weight_decay=FALLING), sgd(0.1)),
    }


def three_steps(optimizers):
    """Return updates and states of all optimizers, computed in one program."""

    def step(states, scale):
        gradients = {name: scale * jnp.cos(p) for name, p in PARAMS.items()}
        taken = [
            optimizer.update(gradients, state, PARAMS) for optimizer, state in zip(optimizers, states, strict=True)
        ]
        return [state for _, state in taken], taken

    start = [optimizer.init(PARAMS) for optimizer in optimizers]
    return jax.jit(lambda scales: jax.lax.scan(step, start, scales)[1])(jnp.array([1.0, -0.1, 3.0], WIDEST))


def test_they_compose_with_optax():
    adam_and_sgd, theirs_adam_and_sgd = (fnn.adam, fnn.sgd), (optax.adam, optax.sgd)
    links = fnn.clip_by_global_norm, fnn.add_decayed_weights
    theirs_links = optax.clip_by_global_norm, optax.add_decayed_weights
    ours = three_steps([*compositions(*adam_and_sgd).values(), *chains(*adam_and_sgd, *links).values()])
    theirs = three_steps(
        [*compositions(*theirs_adam_and_sgd).values(), *chains(*theirs_adam_and_sgd, *theirs_links).values()]
    )
    ours_after_theirs = chains(*adam_and_sgd, *theirs_links)
    theirs_after_ours = chains(*theirs_adam_and_sgd, *links)
    mixed = three_steps([*ours_after_theirs.values(), *theirs_after_ours.values()])
    for result, expected in ((ours, theirs), (mixed, 2 * theirs[-len(ours_after_theirs) :])):
        assert jax.tree.structure(result) == jax.tree.structure(expected)
        assert_close(result, expected, TIGHT)


def program(pair):
    """The constructor and the settings that change its program if all numbers are tracers."""
    parameters = inspect.signature(pair.constructors[0]).parameters
    settings = {
        name: value if name in NOT_NUMBERS or isinstance(value, bool) else "number"
        for name, value in pair.settings.items()
        if name in NOT_NUMBERS or isinstance(value, bool) or parameters[name].default is None
    }
    return pair.constructors[0], *sorted(settings.items(), key=lambda item: item[0])


@pytest.mark.thorough
def test_every_number_may_be_a_tracer():
    pairs = [
        pair
        for pair in {program(pair): pair for pair in PAIRS}.values()
        # With both, the first variance is only rounding error, and dividing by an ε of 1e-8 amplifies it.
        if not (pair.settings.get("centered") and pair.settings.get("bias_correction"))
    ]

    def injected(side):
        return [
            optax.inject_hyperparams(
                constructor, static_args=NOT_NUMBERS & {*inspect.signature(constructor).parameters}
            )(**pair.settings)
            for pair in pairs
            for constructor in [pair.constructors[side]]
        ]

    ours, theirs = three_steps(injected(0)), three_steps(injected(1))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert_close(ours, theirs, TIGHT)


def test_under_vmap_and_grad():
    """Several learning rates at once, and the derivative of the final loss with respect to the learning rate."""

    def loss_after(rate):
        optimizer = fnn.adamw(rate, weight_decay=0.1, eps_root=1e-8)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), length=3)
        return sum(jnp.sum(p**2) for p in params.values())

    rates, h = jnp.array([0.01, 0.1], WIDEST), 1e-3
    slopes, above, below = jax.jit(
        lambda rates: (
            jax.vmap(jax.grad(loss_after))(rates),
            jax.vmap(loss_after)(rates + h),
            jax.vmap(loss_after)(rates - h),
        )
    )(rates)
    # The error of a central difference is of order h², and in float32 also 1e-7/h.
    assert relative_gap(slopes, (above - below) / (2 * h)) <= 1e-3


def test_a_scheduled_weight_decay_counts_the_steps():
    decay = fnn.add_decayed_weights(lambda count: 0.5 * count)
    state = decay.init(PARAMS)
    for share in (0.0, 0.5, 1.0):
        updates, state = decay.update(jax.tree.map(jnp.zeros_like, PARAMS), state, PARAMS)
        assert_close(updates, jax.tree.map(lambda p, share=share: share * p, PARAMS), TIGHT)
    assert state.count == 3
