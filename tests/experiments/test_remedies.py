"""The cotangents by layer are those of autodiff."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.remedies import DEPTH, NETWORK_RECIPES, cotangent_sizes, load_samples, network
from experiments.shared.initialization import init_ensemble


def test_the_first_cotangent_is_that_of_autodiff():
    recipe = NETWORK_RECIPES["ReLU + He"]
    params, state = jax.tree.map(lambda leaf: leaf[0], init_ensemble(network(recipe), 1, recipe.draw))
    batch = load_samples()

    def loss_of(hidden):
        middle, last = fnn.repeat(fnn.serial(fnn.linear(32, 32), fnn.relu), DEPTH - 1), fnn.linear(32, 10)
        y, _, _ = middle.forward(params[1], state[1], hidden, train=True)
        y, _, _ = last.forward(params[2], state[2], y, train=True)
        return fnn.softmax_cross_entropy.forward(y, batch.y)[0]

    hidden = jax.nn.relu(fnn.linear_forward(params[0][0], batch.x)[0])
    expected = jnp.abs(jax.grad(loss_of)(hidden)).mean()
    np.testing.assert_allclose(cotangent_sizes(recipe, 1)[0, 0], expected, rtol=1e-5)
