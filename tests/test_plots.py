"""The plots: what they draw, in which colours, and what bad arguments raise."""

import ast
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import pytest

import funcnn as fnn
from funcnn.plots import _style

KEY = jax.random.key(0)
DATA = fnn.datasets.spirals(30, classes=3, key=KEY)
MODEL = fnn.mlp((2, 4, 3))
PARAMS, STATE = MODEL.init(KEY)
# To the linear RGB that a reader without one kind of cones sees; Machado, Oliveira and Fernandes 2009, table 1.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LEAST_DIFFERENCE = 9.0
"""In CIELAB. 2.3 is just noticeable side by side; marks on a page are apart."""


def lab_of(rgb):
    """CIELAB of linear RGB, for the white of sRGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ rgb / to_xyz.sum(axis=1)
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def linear_rgb(colour):
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_ten_colours_differ_for_every_reader(blindness):
    assert len(_style.COLOURS) == len(_style.MARKERS) == 10
    seen = [lab_of(np.clip(BLINDNESS[blindness] @ linear_rgb(colour), 0, 1)) for colour in _style.COLOURS]
    least = min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2))
    assert least > LEAST_DIFFERENCE


def history(loss, /, **validation):
    loss = jnp.asarray(loss, jnp.float32)
    found = {name: jnp.asarray(values) for name, values in validation.items()}
    return fnn.History(loss, loss[:, None], found, jnp.arange(1, len(loss) + 1) if found else jnp.zeros(0, int))


def test_the_history_has_a_panel_for_each_metric():
    figure = fnn.plot_history(history([3.0, 2.0, 1.0], loss=[3.5, 2.5, 2.0], accuracy=[0.1, 0.5, 0.7]))
    losses, accuracy = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in losses.lines], [[3, 2, 1], [3.5, 2.5, 2]])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [0.1, 0.5, 0.7])
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "validation"]
    assert losses.get_yscale() == "linear"
    assert fnn.plot_history(history([3.0, 0.01])).axes[0].get_yscale() == "log"


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


def test_signals_are_those_of_the_pass():
    signals = fnn.plots.signals.measured_signals(MODEL, PARAMS, STATE, fnn.softmax_cross_entropy, DATA, None)
    assert [signal.name for signal in signals] == ["layers[0] linear", "layers[1] relu", "layers[2] linear"]
    logits = fnn.predict(MODEL, PARAMS, STATE, DATA.x)
    np.testing.assert_allclose(signals[-1].y, logits, rtol=1e-6)
    expected = jax.grad(lambda logits: fnn.softmax_cross_entropy.forward(logits, DATA.y)[0])(logits)
    np.testing.assert_allclose(signals[-1].dy, expected, rtol=1e-5, atol=1e-9)
    figure = fnn.plot_signals(MODEL, PARAMS, STATE, fnn.softmax_cross_entropy, DATA)
    zeros = figure.axes[2].lines[0].get_ydata()
    np.testing.assert_allclose(zeros, [(signal.y == 0).mean() for signal in signals])
    assert zeros[1] > 0.2


def test_kernels_have_gaps_and_one_scale():
    kernel = np.arange(12.0).reshape(4, 3) - 5
    image = fnn.plot_kernels(kernel, columns=2).axes[0].images[0]
    sheet = np.ma.filled(image.get_array(), np.nan)
    assert sheet.shape == (5, 5)
    np.testing.assert_array_equal(sheet[:2, :2], kernel[:, 0].reshape(2, 2))
    np.testing.assert_array_equal(sheet[:2, 3:], kernel[:, 1].reshape(2, 2))
    assert np.isnan(sheet[2]).all()
    assert np.isnan(sheet[:, 2]).all()
    assert image.get_clim() == (-6, 6)
    convolution = kernel.reshape(2, 2, 1, 3)
    again = np.ma.filled(fnn.plot_kernels(convolution, columns=2).axes[0].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(again, sheet)


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


def test_plots_draw_in_the_figure_that_is_given_and_show_in_notebooks():
    whole = matplotlib.figure.Figure()
    left, right = whole.subfigures(1, 2)
    assert fnn.plot_history(history([2.0, 1.0]), figure=left) is left
    assert fnn.plot_kernels(np.eye(4), figure=right) is right
    assert len(whole.axes) == 3
    assert fnn.plot_history(history([2.0]))._repr_png_().startswith(b"\x89PNG")


def test_matplotlib_is_imported_by_the_plots_alone_and_missed_with_advice(monkeypatch):
    for file in Path(fnn.__file__).parent.rglob("*.py"):
        imported = [
            node for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not [node for node in imported if "matplotlib" in ast.unparse(node)], file
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"plot_history: expected matplotlib.*pip install 'funcnn\[plots\]'"):
        fnn.plot_history(history([1.0]))


def _forward_of_sequences(params, state, x, *, train, key=None):
    y, new_state, residuals = MODEL.forward(params, state, x, train=train, key=key)
    return y[:, None], new_state, residuals


SEQUENCES = MODEL._replace(forward=_forward_of_sequences)


def test_one_hot_targets_are_plotted_as_their_classes():
    rows = jnp.eye(3)[DATA.y]
    offsets = [
        [collection.get_offsets().tolist() for collection in boundary(DATA.x, y).axes[0].collections]
        for y in (DATA.y, rows)
    ]
    assert offsets[0] == offsets[1]


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
        (lambda: draw(fnn.mlp((2, 3, 3), skip=True), DATA.x[0]), "got skip connections"),
        (lambda: draw(fnn.mlp((2, 30, 3)), DATA.x[0]), "at most 24 units in a layer, got 30"),
    ],
)
def test_bad_arguments_raise(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def draw(model, x):
    return fnn.draw_network(model, *model.init(KEY), x)


def boundary(*data):
    return fnn.plot_decision_boundary(MODEL, PARAMS, STATE, data)
