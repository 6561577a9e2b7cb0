"""The plot of a history: a panel for each metric."""

import numpy as np

import funcnn as fnn
from tests.plots.cases import history


def test_the_history_has_a_panel_for_each_metric():
    figure = fnn.plot_history(history([3.0, 2.0, 1.0], loss=[3.5, 2.5, 2.0], accuracy=[0.1, 0.5, 0.7]))
    losses, accuracy = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in losses.lines], [[3, 2, 1], [3.5, 2.5, 2]])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [0.1, 0.5, 0.7])
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["training", "validation"]
    assert losses.get_yscale() == "linear"
    assert fnn.plot_history(history([3.0, 0.01])).axes[0].get_yscale() == "log"
