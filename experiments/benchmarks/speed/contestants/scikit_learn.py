"""scikit-learn's ``MLPClassifier``, and ``MLPRegressor`` for the squared error.

``fit`` with ``warm_start``, whole epochs a call, is several times as fast as ``partial_fit`` on every batch. Its losses
are means over an epoch. Differences from the others: ε is added before the second moment is corrected; two classes have
one logistic output; the squared error is halved, which Adam takes no notice of, and doubled here for the comparison.
"""

import warnings
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor

from experiments.benchmarks.speed.contestants import BEFORE_UNDERFLOW, Contestant
from experiments.benchmarks.speed.networks import (
    EPSILON,
    LEARNING_RATE,
    MEAN_DECAY,
    SQUARE_DECAY,
    Network,
    rows,
)


def contestant(network: Network, x, y, start) -> Contestant | None:
    """Normalization and skip connections aren't to be had."""
    if not network.is_plain:
        return None
    warnings.simplefilter("ignore", ConvergenceWarning)
    is_squared = network.loss == "mean_squared_error"
    estimator = (MLPRegressor if is_squared else MLPClassifier)(
        hidden_layer_sizes=network.sizes[1:-1], activation={"relu": "relu", "sigmoid": "logistic"}[network.activation],
        solver="adam", alpha=0.0, batch_size=network.batch_size, learning_rate_init=LEARNING_RATE, beta_1=MEAN_DECAY,
        beta_2=SQUARE_DECAY, epsilon=EPSILON, shuffle=False, tol=0.0, n_iter_no_change=10**9, max_iter=1,
    )  # fmt: skip
    # Parameters exist after a first fit only; then ours take their place.
    estimator.fit(x, y)
    restart = partial(_put, estimator, start, is_binary=network.sizes[-1] == 2 and not is_squared)
    restart()
    estimator.set_params(warm_start=True)
    ask = estimator.predict if is_squared else estimator.predict_proba

    def fit(epochs, shuffle):
        estimator.set_params(max_iter=epochs, shuffle=shuffle).fit(x, y)
        return np.array(estimator.loss_curve_[-epochs:]) * (2 if is_squared else 1)

    return Contestant(
        train=lambda steps: fit(steps // network.batches, shuffle=False),
        epochs=lambda number: fit(number, shuffle=network.batches > 1),
        predict=lambda: np.concatenate([ask(x[rows(network, k)]) for k in range(network.batches)]),
        restart=restart,
        most=BEFORE_UNDERFLOW,
        block=network.batches,
        averaged=network.batches,
        uncorrected_epsilon=True,
        # With one output a step of Adam moves half as far as with two.
        checked=1 if network.sizes[-1] == 2 else network.batches,
    )


def _put(estimator, start, is_binary):
    """Our parameters, for every fit begins its optimizer anew; one logistic output is the difference of two columns."""
    for layer, (kernel, bias) in enumerate(start):
        if is_binary and layer == len(start) - 1:
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        estimator.coefs_[layer][...] = kernel
        estimator.intercepts_[layer][...] = bias
