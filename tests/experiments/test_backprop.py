"""One step of backpropagation: the chapter's figures, and the names of parameters."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.flatten_util import ravel_pytree

import funcnn as fnn
from experiments.shared import backprop_step


def test_the_chapters_step_number_by_number():
    example = json.loads((Path(__file__).parents[1] / "data" / "chapter.json").read_text())["backpropagation_step"]
    given = {name: jnp.asarray(value, float) for name, value in example["inputs"].items()}
    params = (fnn.LinearParams(given["W1"], given["b1"]), (), fnn.LinearParams(given["W2"], given["b2"]))
    layers = (fnn.linear(2, 2), fnn.relu, fnn.linear(2, 1))
    one = backprop_step.forward_and_backward(layers, fnn.sigmoid_cross_entropy, params, given["X"], given["y"])
    hidden, _, output = one.gradients
    found = {
        "z1": one.values[1], "a1": one.values[2], "z2": one.values[3], "loss": one.loss, "dz2": one.cotangents[3],
        "da1": one.cotangents[2], "dz1": one.cotangents[1], "dW1": hidden.kernel, "db1": hidden.bias,
        "dW2": output.kernel, "db2": output.bias,
    }  # fmt: skip
    for name, value in found.items():
        assert jnp.allclose(value, jnp.asarray(example["computed"][name]), rtol=1e-12, atol=0), name


def test_names_stand_beside_their_parameters():
    sizes = (3, 2, 2)
    params, _ = backprop_step.sigmoid_network(sizes).init(jax.random.key(0))
    names, values = backprop_step.parameter_names(sizes), ravel_pytree(params)[0]
    assert len(names) == len(values)
    assert values[names.index("W1[3, 1]")] == params[0].kernel[2, 0]
    assert values[names.index("b1[2]")] == params[0].bias[1]
    assert values[names.index("W2[1, 2]")] == params[2].kernel[0, 1]


def test_central_differences_of_a_square():
    point = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    slopes = backprop_step.central_differences(lambda tree: (tree["a"] ** 2).sum() + tree["b"] ** 2, point)
    assert jnp.allclose(slopes["a"], 2 * point["a"], rtol=1e-9)
    assert float(slopes["b"]) == pytest.approx(6.0, rel=1e-9)
