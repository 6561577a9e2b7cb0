"""One neuron and a hidden layer: the chapter's true figures, and the network that contains all others."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import funcnn as fnn
from experiments import perceptron
from experiments.harness.experiment import Settings
from experiments.shared import xor_network
from experiments.shared.logic_gates import gate_inputs, gate_targets, masked_value_and_grad

SMALLER = {"sigmoid": (fnn.sigmoid, 3), "tanh": (fnn.tanh, 2), "ReLU": (fnn.relu, 8)}


def test_the_chapters_xor_run_has_its_true_losses_and_predictions():
    true = json.loads((Path(__file__).parents[1] / "data" / "chapter.json").read_text())["xor"]["computed"]
    losses, predictions, _ = perceptron.chapter_runs(Settings(), jax.random.split(jax.random.key(0), 1))
    for epoch, loss in true["loss_at_epoch"].items():
        assert float(losses[0, int(epoch) // 50]) == pytest.approx(loss, rel=1e-9)
    assert predictions[0] == pytest.approx(true["predictions_in_last_epoch"], rel=1e-9)


@pytest.mark.parametrize("activation", SMALLER)
def test_a_part_of_the_network_of_all_is_that_smaller_network(activation):
    layer, units = SMALLER[activation]
    params = xor_network.initial_params(jax.random.key(1), xor_network.parameter_mask(activation, units, 0.0))
    branches = (params.inner.inner, params.inner.shortcut, params.shortcut.inner)
    hidden, _, output = branches[list(xor_network.ACTIVATIONS).index(activation)]
    own = (fnn.LinearParams(hidden.kernel[:, :units], hidden.bias[:units]), (),
           fnn.LinearParams(output.kernel[:units], output.bias))  # fmt: skip
    x = gate_inputs()
    whole = fnn.predict(xor_network.EVERY, params, xor_network.EVERY.init(jax.random.key(0))[1], x)
    alone = fnn.predict(fnn.mlp((2, units, 1), layer), own, ((),) * 3, x)
    assert jnp.allclose(whole, alone, rtol=1e-12)


def test_what_a_network_lacks_never_moves():
    present = xor_network.parameter_mask("tanh", 2, 1.0)
    params = xor_network.initial_params(jax.random.key(0), present)
    grad = masked_value_and_grad(fnn.manual_value_and_grad, present)
    trained = fnn.train(
        xor_network.EVERY, fnn.sigmoid_cross_entropy, fnn.adam(0.1), (gate_inputs(), gate_targets("XOR")),
        epochs=3, key=jax.random.key(0), grad=grad, params=params,
    )  # fmt: skip
    moved = jax.tree.map(lambda after, before: after != before, trained.params, params)
    assert jax.tree.all(jax.tree.map(lambda moves, mask: bool((moves == (mask == 1)).all()), moved, present))


def test_the_least_loss_where_patterns_get_the_same_answer():
    assert xor_network.loss_of_equal_answers(4) == pytest.approx(0.6931, abs=1e-4)  # ln 2
    assert xor_network.loss_of_equal_answers(2) == pytest.approx(0.3466, abs=1e-4)  # half of it
