"""What the tests of losses share: names, probabilities, and a loss with both of its gradients."""

import jax
import jax.numpy as jnp

from tests.cases import WIDEST

TOLERANCES = {jnp.float64: 1e-13, jnp.float32: 1e-5, jnp.bfloat16: 5e-2}
P = jnp.full((4, 3), 1 / 3, WIDEST)
ALL = ["mean_squared_error", "binary_cross_entropy", "sigmoid_cross_entropy"]
CLASSES = ["categorical_cross_entropy", "softmax_cross_entropy"]


def both(loss, prediction, target, dloss):
    """The value, the hand-written gradient and autodiff's."""
    value, residuals = loss.forward(prediction, target)
    by_autodiff = jax.vjp(lambda p: loss.forward(p, target)[0], prediction)[1](dloss)[0]
    return value, loss.backward(residuals, dloss), by_autodiff
