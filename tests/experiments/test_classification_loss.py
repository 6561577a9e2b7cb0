"""Squared error against cross-entropy: the push by the error, and losses behind activations."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments import classification_loss
from experiments.classification_loss import CLASS_LOSSES, after, weighted


def test_the_push_on_the_logit_is_the_error_or_twice_its_square_times_the_probability():
    p = np.array([1e-4, 0.01, 0.5, 0.9])
    found = classification_loss.pushes(p)
    np.testing.assert_allclose(found["cross-entropy"], 1 - p, rtol=1e-5)
    np.testing.assert_allclose(found["squared error"], 2 * (1 - p) ** 2 * p, rtol=1e-5)


def test_losses_behind_an_activation_and_their_sum_have_the_right_gradients():
    losses = (*CLASS_LOSSES.values(), after(fnn.softmax, fnn.categorical_cross_entropy))
    model = fnn.linear(3, 4)
    batch = fnn.Batch(jnp.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2]]), jnp.array([[0.0, 1, 0, 0], [0, 0, 0, 1]]))
    report = fnn.check_model(model, weighted(jnp.arange(1.0, 6.0), losses), batch)
    assert report.ok, str(report)


def test_one_weight_chooses_one_loss():
    losses = tuple(CLASS_LOSSES.values())
    logits, rows = jnp.array([[2.0, 1.0, 0.1]]), jnp.array([[0.0, 1.0, 0.0]])
    for choice, loss in enumerate(losses):
        chosen = weighted(jnp.eye(len(losses))[choice], losses)
        (value, residuals), (expected, kept) = chosen.forward(logits, rows), loss.forward(logits, rows)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        one = jnp.ones_like(value)
        np.testing.assert_allclose(chosen.backward(residuals, one), loss.backward(kept, one), rtol=1e-6)


def test_the_two_clouds_are_told_apart_by_their_kernel():
    data, kernel = classification_loss.two_clouds(jax.random.key(3))
    right = ((data.x @ kernel > 0) == (data.y == 1)).mean()
    assert data.x.shape == (classification_loss.SAMPLES, 2)
    assert right > 0.95
