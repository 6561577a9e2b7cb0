"""The plot of a decision boundary: the predicted classes, and the samples."""

import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from tests.plots.cases import DATA, KEY, MODEL, PARAMS, STATE, boundary


def test_the_boundary_shows_the_predicted_classes():
    figure = fnn.plot_decision_boundary(MODEL, PARAMS, STATE, DATA, resolution=12)
    (axes,) = figure.axes
    mesh = next(child for child in axes.collections if hasattr(child, "get_coordinates"))
    grid = np.asarray(mesh.get_coordinates(), float)
    centres = (grid[:-1, :-1] + grid[1:, 1:]) / 2
    logits = fnn.predict(MODEL, PARAMS, STATE, jnp.asarray(centres.reshape(-1, 2), DATA.x.dtype))
    np.testing.assert_array_equal(np.ravel(mesh.get_array()), logits.argmax(axis=1))
    points = [child for child in axes.collections if len(child.get_offsets()) == 10]
    assert [tuple(np.asarray(point.get_offsets())[0]) for point in points] == [
        tuple(DATA.x[i].tolist()) for i in range(3)
    ]


def test_one_output_has_its_boundary_in_the_middle_of_its_range():
    params, data = ((fnn.LinearParams(jnp.array([[1.0], [0.0]]), jnp.array([0.0])),), fnn.datasets.xor())
    for model in (fnn.mlp((2, 1)), fnn.perceptron(2, fnn.sigmoid), fnn.perceptron(2, fnn.tanh)):
        whole, state = (*params, ())[: len(model.spec.parts)], model.init(KEY)[1]
        for targets in (data.y, data.y[:, None].astype(float), 2.0 * data.y[:, None].astype(float) - 1):
            figure = fnn.plot_decision_boundary(model, whole, state, (data.x - 0.5, targets), resolution=8)
            mesh = figure.axes[0].collections[0]
            np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(8, 8)[0], [0] * 4 + [1] * 4)


def test_one_hot_targets_are_plotted_as_their_classes():
    rows = jnp.eye(3)[DATA.y]
    offsets = [
        [collection.get_offsets().tolist() for collection in boundary(DATA.x, y).axes[0].collections]
        for y in (DATA.y, rows)
    ]
    assert offsets[0] == offsets[1]
