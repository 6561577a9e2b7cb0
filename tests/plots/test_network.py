"""The drawing of a network: weights and gradients on the edges, and no label over another."""

import itertools

import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from tests.plots.cases import KEY


def test_the_network_has_its_weights_and_gradients_on_the_edges():
    model = fnn.perceptron(2, fnn.sigmoid)
    params, state = model.init(KEY)
    params = (fnn.LinearParams(jnp.array([[0.5], [-2.0]]), jnp.array([0.25])), *params[1:])
    x, target = jnp.array([1.0, 0.5]), jnp.array([1.0])
    figure = fnn.draw_network(model, params, state, x, target=target, loss=fnn.mean_squared_error)
    (_, _), grads = fnn.manual_value_and_grad(model, fnn.mean_squared_error)(params, state, (x[None], target[None]))
    texts = [text.get_text() for text in figure.axes[0].texts]
    for weight, gradient in zip(("0.50", "−2.00"), np.ravel(grads[0].kernel), strict=True):
        assert f"{weight}\n{gradient:.1g}".replace("-", "−") in texts
    output = float(fnn.predict(model, params, state, x[None])[0, 0])
    assert f"{output:.2f}" in texts
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "--"]


def test_labels_of_edges_do_not_cover_each_other():
    model = fnn.mlp((2, 4, 2), activation=fnn.tanh)
    x, y = fnn.datasets.xor()
    figure = fnn.draw_network(model, *model.init(KEY), x[1], target=y[1], loss=fnn.softmax_cross_entropy)
    figure.canvas.draw()
    boxes = [text.get_window_extent().padded(-4) for text in figure.axes[0].texts]
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
