"""Recurrent layers: the equations written out in NumPy, and what they start with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.layers.initializers import orthogonal_blocks
from tests.cases import KEY, WIDEST, LayerCase, drawn

TOLERANCE = 1e-13 if jnp.float64 == WIDEST else 1e-5


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rnn_step(params, x, h, c):
    return np.tanh(x @ params.input_kernel + h @ params.hidden_kernel + params.bias), c


def lstm_step(params, x, h, c):
    z = x @ params.input_kernel + h @ params.hidden_kernel + params.bias
    i, f, g, o = np.split(z, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(params, x, h, c):
    of_x = np.split(x @ params.input_kernel + params.bias, 3, axis=1)
    of_h = np.split(h @ params.hidden_kernel, 3, axis=1)
    r, z = (sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
    n = np.tanh(of_x[2] + r * (of_h[2] + params.hidden_bias))
    return (1 - z) * n + z * h, c


@pytest.mark.parametrize(
    ("layer", "step"), [(fnn.rnn, rnn_step), (fnn.lstm, lstm_step), (fnn.gru, gru_step)], ids=["rnn", "lstm", "gru"]
)
def test_outputs_are_those_of_numpy_step_by_step(layer, step):
    params, state, x = drawn(LayerCase(layer.__name__, layer(4, 3), (5, 4)))
    by_numpy = jax.tree.map(np.asarray, params)
    h = c = np.zeros((len(x), 3))
    expected = []
    for t in range(x.shape[1]):
        h, c = step(by_numpy, np.asarray(x[:, t]), h, c)
        expected.append(h)
    y = jax.jit(lambda: layer(4, 3).forward(params, state, x, train=True)[0])()
    np.testing.assert_allclose(y, np.stack(expected, axis=1), rtol=0, atol=TOLERANCE)


def test_parameters_start_orthogonal_with_an_open_forget_gate():
    params, _ = jax.jit(fnn.lstm(2, 3).init)(KEY)
    np.testing.assert_array_equal(params.bias, [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    kernel = np.asarray(jax.jit(lambda: orthogonal_blocks(KEY, 3, 4))())
    for block in np.split(kernel, 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(3), atol=1e-5)
    shapes = {name: leaf.shape for name, leaf in jax.eval_shape(fnn.gru(2, 3).init, KEY)[0]._asdict().items()}
    assert shapes == {"input_kernel": (2, 9), "hidden_kernel": (3, 9), "bias": (9,), "hidden_bias": (3,)}


PARAMS = fnn.RecurrentParams(jnp.ones((2, 3)), jnp.ones((3, 3)), jnp.ones(3))
X = jnp.ones((4, 5, 2))
BAD = {
    "one step": (
        lambda: fnn.rnn_forward(PARAMS, X[:, 0]),
        r"rnn\(2, 3\): expected sequences of shape \(batch, time, features\), got \(4, 2\).*x\[:, None, :\]",
    ),
    "another width": (
        lambda: fnn.rnn_forward(PARAMS, X[..., :1]),
        r"rnn\(2, 3\): expected x of shape \(batch, \.\.\., 2\), got \(4, 5, 1\)",
    ),
    "the parameters of one gate": (
        lambda: fnn.lstm_forward(PARAMS, X),
        r"lstm: expected an input_kernel of shape \(in_features, 12\) and a hidden_kernel of shape \(3, 12\)",
    ),
    "half a kernel": (
        lambda: fnn.rnn_forward(PARAMS._replace(hidden_kernel=jnp.ones((3, 3), jnp.bfloat16)), X),
        r"rnn: expected hidden_kernel as float\d+, got bfloat16",
    ),
    "a bias that would broadcast": (lambda: fnn.rnn_forward(PARAMS._replace(bias=jnp.ones(1)), X), "expected bias as"),
    "no features": (lambda: fnn.gru(2, 0), r"gru\(features\): expected a positive integer, got 0"),
    "no step": (lambda: fnn.last_step_forward(jnp.ones((4, 2))), "last_step: expected sequences of shape"),
    "no initializer": (lambda: fnn.lstm(2, 3, kernel_init=0.1), r"lstm\(kernel_init\): expected a function"),
    "no forget bias": (lambda: fnn.lstm(2, 3, forget_bias=None), r"lstm\(forget_bias\): expected a Python number"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, message, as_for_users):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
