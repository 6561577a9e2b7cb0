"""The spirals' data, their network with shortcuts, and quickprop."""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.two_spirals import concatenate_output, network, quickprop, spirals


def test_the_spirals_are_the_benchmarks():
    x, y = map(np.asarray, spirals())
    assert x.shape == (194, 2)
    np.testing.assert_allclose(x[0], [0, 6.5], atol=1e-7)
    np.testing.assert_allclose(x[16], [0, -6.5 * 88 / 104], atol=1e-6)  # half a turn further in
    np.testing.assert_array_equal(x[97:], -x[:97])
    np.testing.assert_array_equal(y.ravel(), np.repeat([1, 0], 97))


def test_with_shortcuts_there_are_the_papers_138_weights():
    params, _ = jax.eval_shape(network(shortcuts=True).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 138


def test_the_shortcuts_backward_is_their_forwards_derivative():
    x = jax.random.normal(jax.random.key(0), (4, 2))
    assert fnn.check_layer(concatenate_output(fnn.serial(fnn.linear(2, 3), fnn.sigmoid), 3), x).ok


def test_quickprop_jumps_to_a_parabolas_minimum():
    lowest = jnp.array([3.0, -2.0])
    method = quickprop(1e-3, growth=1e9, decay=0.0)
    params = jnp.zeros(2)
    state = method.init(params)
    for _ in range(2):
        updates, state = method.update(params - lowest, state, params)
        params = params + updates
    # The second step is the jump, and the plain step of 0.001 times the slope that is added to it.
    np.testing.assert_allclose(params, lowest + 1e-3 * (1 - 1e-3) * lowest, rtol=1e-6)
