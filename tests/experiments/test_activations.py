"""Measurements of the topics on activation functions, on known cases."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from experiments.activations import LIFTED_TANH, unexplained_by_linear_fit, value_and_derivative
from experiments.activations_dying import revived_share, silent_units, with_hidden_bias

CHAPTER = json.loads((Path(__file__).parent.parent / "data" / "chapter.json").read_text())["activation_table"]


@pytest.mark.parametrize(
    ("name", "layer"), [("sigmoid", fnn.sigmoid), ("relu", fnn.relu), ("leaky_relu", fnn.leaky_relu(0.01))]
)
def test_values_and_slopes_are_the_chapters(name, layer):
    value, slope = value_and_derivative(layer, jnp.array(CHAPTER["inputs"]["z"]))
    np.testing.assert_allclose(value, CHAPTER["computed"][name], rtol=1e-6)
    np.testing.assert_allclose(slope, CHAPTER["computed"][f"{name}_derivative"], rtol=1e-6)


def test_the_lifted_tanh_has_the_slope_of_tanh():
    z = jnp.linspace(-3, 3, 7)
    value, slope = value_and_derivative(LIFTED_TANH, z)
    np.testing.assert_allclose(value, 1 + np.tanh(z), rtol=1e-6)
    np.testing.assert_array_equal(slope, value_and_derivative(fnn.tanh, z)[1])


def test_a_matrix_and_bias_leave_nothing_of_what_a_matrix_and_bias_made():
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(50, 3)), random.normal(size=(3, 2))
    assert unexplained_by_linear_fit(x, x @ kernel + 7) < 1e-12
    assert unexplained_by_linear_fit(x, np.abs(x)) > 0.5


def test_units_are_silent_where_their_bias_drowns_every_sample():
    model = fnn.mlp((3, 4, 4, 2))
    layers = [fnn.LinearParams(jnp.ones(shape), jnp.zeros(shape[1])) for shape in ((3, 4), (4, 4), (4, 2))]
    layers[0] = layers[0]._replace(bias=jnp.array([-100.0, 0.0, 0.0, 0.0]))
    params = (layers[0], (), layers[1], (), layers[2])
    assert silent_units(model, params, jnp.ones((6, 3))).tolist() == [[True, False, False, False], [False] * 4]
    started = with_hidden_bias(params, -2.0)
    assert [part.bias.tolist() for part in started[::2]] == [[-2.0] * 4, [-2.0] * 4, [0.0] * 2]
    assert silent_units(model, with_hidden_bias(params, -100.0), jnp.ones((6, 3))).all()


def test_revived_counts_the_dead_that_live_at_the_end_by_seed():
    stays, returns, lives = [True, True, True], [True, True, False], [False, False, False]
    dead = np.array([[stays, returns], [lives, returns], [lives, lives]])  # (seeds, units, times)
    assert revived_share(dead.swapaxes(-1, -2)).tolist() == [0.5, 1.0, 0.0]
