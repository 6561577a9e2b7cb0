"""The plot of signals: those of a forward and a backward pass."""

import jax
import numpy as np

import funcnn as fnn
from tests.plots.cases import DATA, MODEL, PARAMS, STATE


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
