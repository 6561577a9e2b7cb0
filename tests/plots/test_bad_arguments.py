"""What bad arguments of the plots raise."""

import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.plots.cases import DATA, KEY, MODEL, PARAMS, STATE, history


def _forward_of_sequences(params, state, x, *, train, key=None):
    y, new_state, residuals = MODEL.forward(params, state, x, train=train, key=key)
    return y[:, None], new_state, residuals


SEQUENCES = MODEL._replace(forward=_forward_of_sequences)


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fnn.plot_history([1.0]), r"expected a History, got \[1.0\]. Pass trained.history"),
        (lambda: fnn.plot_history(history([1.0]), figure=3), r"plot_history\(figure\): expected a matplotlib figure"),
        (
            lambda: fnn.plot_decision_boundary(MODEL, PARAMS, STATE, (jnp.ones((3, 4)), DATA.y[:3])),
            r"\(samples, 2\), got",
        ),
        (
            lambda: fnn.plot_decision_boundary(MODEL, PARAMS, STATE, (DATA.x, DATA.y[:3])),
            "a target for each of 30 samples",
        ),
        (lambda: fnn.plot_decision_boundary(MODEL, PARAMS, STATE, (DATA.x, DATA.x[:, :1])), "expected class labels"),
        (
            lambda: fnn.plot_decision_boundary(MODEL, PARAMS, STATE, (DATA.x, np.arange(30)), resolution=2),
            r"plot_decision_boundary: expected at most \d+ classes, got 30\. Plot fewer",
        ),
        (
            lambda: fnn.plot_decision_boundary(SEQUENCES, PARAMS, STATE, DATA, resolution=2),
            r"plot_decision_boundary\(model\): expected outputs of shape \(samples, outputs\), got \(4, 1, 3\)",
        ),
        (lambda: fnn.plot_kernels(np.ones((6, 2))), r"the product 6, got \(2, 2\)"),
        (lambda: fnn.plot_kernels(np.ones(6)), r"got \(6,\)"),
        (lambda: fnn.plot_kernels(np.ones((2, 2, 1, 3)), channel=1), "expected a channel from 0 to 0, got 1"),
        (lambda: fnn.draw_network(MODEL, PARAMS, STATE, DATA.x), r"expected one sample, .* got shape \(30, 2\)"),
        (lambda: fnn.draw_network(MODEL, PARAMS, STATE, DATA.x[0], target=1), "expected both target and loss"),
        (lambda: draw(fnn.mlp((2, 3, 3), skip=True), DATA.x[0]), "got outputs that are added, as in skip connections"),
        (
            lambda: fnn.draw_network(fnn.mlp((2, 3)), PARAMS, STATE, DATA.x[0]),
            r"params: expected 1 entries for 1 layers, got 3\. Use what init of this very model returned",
        ),
        (lambda: draw(fnn.mlp((2, 30, 3)), DATA.x[0]), "at most 24 units in a layer, got 30"),
    ],
)
def test_bad_arguments_raise(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def draw(model, x):
    return fnn.draw_network(model, *model.init(KEY), x)
