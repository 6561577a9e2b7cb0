"""Batch sizes: gradients of batches, and epochs to the goal."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments import descent
from experiments.harness.experiment import Settings


def test_a_batchs_gradient_is_the_weighted_mean_of_its_samples():
    model, loss = fnn.mlp((3, 4, 2)), fnn.softmax_cross_entropy
    params, state = model.init(jax.random.key(0))
    data = fnn.Batch(jax.random.normal(jax.random.key(1), (6, 3)), jnp.array([0, 1, 1, 0, 1, 0]))
    gradient = Settings().value_and_grad(model, loss)
    order, size = jnp.array([4, 1, 1, 5, 0, 2]), 3
    expected = gradient(params, state, fnn.Batch(data.x[order[:size]], data.y[order[:size]]))[1]
    found = descent.batch_weights(order, size) @ descent.sample_gradients(gradient, params, state, data)
    np.testing.assert_allclose(found, jax.flatten_util.ravel_pytree(expected)[0], atol=1e-7)


def test_the_goal_is_reached_at_the_first_epoch_below_it_or_not_at_all():
    losses = np.array([[1.0, 0.3, 0.1, 0.5], [1.0, 0.9, np.nan, np.nan]])
    np.testing.assert_array_equal(descent.epochs_to_goal(losses), [2, 4])
    np.testing.assert_allclose(descent.rising_share(losses), [1 / 3, 2 / 3])
