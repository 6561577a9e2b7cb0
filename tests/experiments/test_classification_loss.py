"""Squared error against cross-entropy: the gradient by the error, and the clouds of the recovery."""

import jax
import numpy as np

from experiments import classification_loss


def test_the_push_on_the_logit_is_the_error_or_twice_its_square_times_the_probability():
    p = np.array([1e-4, 0.01, 0.5, 0.9])
    found = classification_loss.logit_gradients(p)
    np.testing.assert_allclose(found["cross-entropy"], 1 - p, rtol=1e-5)
    np.testing.assert_allclose(found["squared error"], 2 * (1 - p) ** 2 * p, rtol=1e-5)


def test_the_two_clouds_are_told_apart_by_their_kernel():
    data, kernel = classification_loss.two_clouds(jax.random.key(3))
    right = ((data.x @ kernel > 0) == (data.y == 1)).mean()
    assert data.x.shape == (classification_loss.SAMPLES, 2)
    assert right > 0.95
