"""Composed losses: after an activation, summed, and selected by weights."""

import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.shared.classification_loss_networks import CLASS_LOSSES
from experiments.shared.composed_losses import after_activation, weighted_sum


def test_losses_behind_an_activation_and_their_sum_have_the_right_gradients():
    losses = (*CLASS_LOSSES.values(), after_activation(fnn.softmax, fnn.categorical_cross_entropy))
    model = fnn.linear(3, 4)
    batch = fnn.Batch(jnp.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2]]), jnp.array([[0.0, 1, 0, 0], [0, 0, 0, 1]]))
    report = fnn.check_model(model, weighted_sum(jnp.arange(1.0, 6.0), losses), batch)
    assert report.ok, str(report)


def test_one_weight_chooses_one_loss():
    losses = tuple(CLASS_LOSSES.values())
    logits, rows = jnp.array([[2.0, 1.0, 0.1]]), jnp.array([[0.0, 1.0, 0.0]])
    for choice, loss in enumerate(losses):
        chosen = weighted_sum(jnp.eye(len(losses))[choice], losses)
        (value, residuals), (expected, kept) = chosen.forward(logits, rows), loss.forward(logits, rows)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        one = jnp.ones_like(value)
        np.testing.assert_allclose(chosen.backward(residuals, one), loss.backward(kept, one), rtol=1e-6)
