"""The race of the optimizers: the chapter's run, the surfaces, and the selection of an optimizer."""

import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnn as fnn
from experiments import optimizers
from experiments.shared.optimizer_choice import select_optimizer

CHAPTER = json.loads(Path(__file__).parents[1].joinpath("data", "chapter.json").read_text())["optimizers"]


def test_the_three_ways_over_the_bowl_are_those_of_the_chapters_arithmetic():
    rates = jnp.full(3, CHAPTER["inputs"]["learning_rate"])
    ways = optimizers.walk_paths(jnp.arange(3), rates, optimizers.example_starts())[:, :21, 0]
    for way, name in zip(ways, ("sgd", "momentum", "adam"), strict=True):
        losses = jax.vmap(lambda point: optimizers.SURFACES["bowl"].height(*point))(way)
        np.testing.assert_allclose(losses, CHAPTER["computed"][name]["losses"], rtol=1e-4)


def test_every_surface_is_lowest_at_zero_and_begins_above_its_goal():
    lowest = {"Rosenbrock valley": (1.0, 1.0), "saddle": (0.0, 1.0)}
    for name, surface in optimizers.SURFACES.items():
        assert surface.height(*jnp.array(lowest.get(name, (0.0, 0.0)))) == 0
        assert surface.height(*jnp.array(surface.example, float)) > surface.goal


def test_the_chosen_optimizer_steps_as_it_does_alone():
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}
    makers = (fnn.momentum, fnn.adam)
    for choice, make in enumerate(makers):
        pair, alone = select_optimizer(jnp.array(choice), [each(0.1) for each in makers]), make(0.1)
        both, state, other = params, pair.init(params), alone.init(params)
        single = params
        for _ in range(3):
            updates, state = pair.update(both, state, both)
            expected, other = alone.update(single, other, single)
            both, single = optax.apply_updates(both, updates), optax.apply_updates(single, expected)
        chex.assert_trees_all_close(both, single)
