"""MNIST-1D: the paper's data, and NumPy's global generator restored."""

import jax
import numpy as np

from experiments.mnist1d import load_signals, network


def test_the_signals_are_the_papers_and_numpys_generator_stays_as_it_was():
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    data = load_signals()
    assert np.random.random() == expected  # noqa: NPY002
    assert data.training.x.shape == (4000, 40)
    assert data.test.x.shape == (1000, 40)
    # The first values and labels of the file that the paper's authors published.
    np.testing.assert_allclose(data.training.x[0, :4], [-0.33200567, -0.47191037, -0.77869708, -1.00974083], atol=1e-7)
    np.testing.assert_array_equal(data.training.y[:10], [2, 6, 4, 5, 6, 6, 6, 0, 3, 1])


def test_the_network_has_as_many_weights_as_the_papers():
    params, _ = jax.eval_shape(network().init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 15_210
