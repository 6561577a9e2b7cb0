"""The networks of 1986: their rule, their tasks and the weights that they printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from experiments.shared import networks_of_1986 as history
from experiments.shared.logic_gates import is_correct


def test_eight_of_the_64_inputs_are_symmetric():
    network = history.mirror_network()
    assert network.x.shape == (64, 6)
    symmetric = network.x[network.y[:, 0] == 1].tolist()
    assert len(symmetric) == 8
    assert all(row == row[::-1] for row in symmetric)


@pytest.mark.parametrize(
    ("network", "params"),
    [
        (history.direct_network(), history.direct_params(*history.PUBLISHED_XOR)),
        (history.mirror_network(), history.published_mirror_params()),
    ],
    ids=["XOR", "mirror"],
)
def test_the_published_weights_solve_their_task(network, params):
    state = network.model.init(jax.random.key(0))[1]
    answers = fnn.predict(network.model, params, state, network.x)
    assert is_correct(answers - 0.5, network.y).all()


def test_the_published_mirror_weights_are_1_2_4_opposite_and_twins():
    kernel = np.asarray(history.published_mirror_params()[0].kernel)[None]
    found = history.mirror_weights(kernel)
    assert found.from_ratios[0] < 0.03
    assert found.from_opposite[0] == found.from_twins[0] == 0


def test_two_sweeps_are_those_of_the_papers_rule():
    network, protocol = history.direct_network(), history.Protocol(0.5)
    present = history.direct_params(*history.ONE_AND_DIRECT)
    key = jax.random.key(3)
    runs = history.train_runs(
        network, fnn.manual_value_and_grad, history.repeat_trees([present], [1]), history.repeat_trees([protocol], [1]),
        jnp.zeros(1), key[None], 2,
    )  # fmt: skip
    state = network.model.init(key)[1]

    def half_squares(params):
        answers = network.model.forward(params, state, network.x, train=True)[0]
        return ((answers - history.scale_targets(network.y, 0.1)) ** 2).sum() / 2

    params = history.initial_params(network.model, key, 0.3, present)
    step = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        slope = jax.tree.map(jnp.multiply, jax.grad(half_squares)(params), present)
        step = jax.tree.map(lambda slope, step: -0.5 * slope + 0.9 * step, slope, step)
        params = jax.tree.map(jnp.add, params, step)
    for ours, theirs in zip(jax.tree.leaves(runs.params), jax.tree.leaves(params), strict=True):
        assert jnp.allclose(ours[0], theirs, rtol=1e-12)
