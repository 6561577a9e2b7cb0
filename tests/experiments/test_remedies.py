"""The cotangents by layer are those of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.remedies import DEPTH, RECIPES, cotangents, network, samples
from experiments.shared.initialization import starts


def test_the_first_cotangent_is_that_of_autodiff():
    recipe = RECIPES["ReLU + He"]
    params, state = jax.tree.map(lambda leaf: leaf[0], starts(network(recipe), 1, recipe.draw))
    batch = samples()

    def loss_of(hidden):
        middle, last = fnn.repeat(fnn.serial(fnn.linear(32, 32), fnn.relu), DEPTH - 1), fnn.linear(32, 10)
        y, _, _ = middle.forward(params[1], state[1], hidden, train=True)
        y, _, _ = last.forward(params[2], state[2], y, train=True)
        return fnn.softmax_cross_entropy.forward(y, batch.y)[0]

    hidden = jax.nn.relu(fnn.linear_forward(params[0][0], batch.x)[0])
    expected = jnp.abs(jax.grad(loss_of)(hidden)).mean()
    np.testing.assert_allclose(cotangents(recipe, 1)[0, 0], expected, rtol=1e-5)
