"""Exercises on losses and metrics."""

import jax.numpy as jnp
import numpy as np

from funcnn.losses import mean_squared_error, softmax_cross_entropy
from funcnn.practice.builders import SHAPES, batches, predict, repair, write

SECTION = "Loss functions"

MSE_FORWARD = write(
    "mean-squared-error", "The mean squared error", SECTION,
    "L = the mean of (prediction − target)² over all entries, both (batch, features). Return a number.",
    "forward(prediction, target)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)))),
    hints=("Three steps.", "Difference, square, mean.", "The mean is over everything."), fact="An error twice as large costs four times as much.",
    outputs=("loss",), example=(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])),
)  # fmt: skip

MSE_BACKWARD = write(
    "mean-squared-error-backward", "The gradient of the mean squared error", SECTION,
    "L = the mean of (prediction − target)² over all entries, both (batch, features). Return ∂L/∂prediction.",
    "backward(prediction, target)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)))),
    hints=("Differentiate for a single entry.", "The square brings a factor.", "The mean is over all entries, so it divides by their number."),
    fact="Frameworks differ: some write ½ of the square so that the factor goes; the learning rate then means something else.",
    outputs=("dprediction",), example=(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])),
    reference=lambda prediction, target: (lambda p: mean_squared_error.forward(p, jnp.asarray(target))[0], prediction),
)  # fmt: skip


def _probabilities(r, n, f):
    return r.uniform(0.05, 0.95, size=(n, f)), r.integers(0, 2, size=(n, f)).astype(float)


BCE_FORWARD = write(
    "binary-cross-entropy", "Binary cross-entropy", SECTION,
    "L = −mean(y log p + (1 − y) log(1 − p)) over all entries, p and y (batch, features), 0 < p < 1. Return a number.",
    "forward(p, y)",
    inputs=batches(_probabilities), hints=("Two terms, one for each class.", "Mind the sign in front.", "The mean is over everything."),
    fact="A confident error costs without bound; on logits the same loss needs no logarithm of a probability.",
    outputs=("loss",), example=(np.array([[0.9, 0.1]]), np.array([[1.0, 0.0]])),
)  # fmt: skip

BCE_BACKWARD = write(
    "binary-cross-entropy-backward", "The gradient of binary cross-entropy", SECTION,
    "L = −mean(y log p + (1 − y) log(1 − p)) over all entries, p and y (batch, features), 0 < p < 1. Return ∂L/∂p.",
    "backward(p, y)",
    inputs=batches(_probabilities), hints=("Differentiate the two logarithms.", "Bring them to one fraction.", "The mean divides by the number of entries."),
    fact="Behind a sigmoid the denominator cancels: with respect to the logit only p − y is left.",
    outputs=("dp",), example=(np.array([[0.9, 0.2]]), np.array([[1.0, 0.0]])),
    reference=lambda p, y: (lambda p: -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)), p),
)  # fmt: skip


def _logits(random):
    inputs = [(3 * random.normal(size=(n, f)), random.integers(0, f, size=n)) for n, f in SHAPES]
    inputs.append((np.array([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]]), np.array([1, 2])))
    one_hot = [(logits, np.eye(logits.shape[1])[labels]) for logits, labels in inputs]
    return inputs, one_hot


SOFTMAX_CROSS_ENTROPY_BACKWARD = write(
    "softmax-cross-entropy-backward", "The gradient of cross-entropy on logits", SECTION,
    """
    L = −(1 / batch) Σ_n log p[n, labels[n]] with p = softmax(logits) over each row: logits (batch, classes), labels integers
    (batch,). Return ∂L/∂logits. Logits may be large. An answer for one-hot labels (batch, classes) is right too.
    """,
    "backward(logits, labels)",
    inputs=_logits, hints=("Softmax and logarithm together are simpler than each alone.", "The result is a difference of two distributions.", "Divide by what the mean divides by."),
    fact="The rows of the gradient sum to 0. Nothing is divided by a probability, so nothing overflows.",
    outputs=("dlogits",), example=(np.array([[2.0, 1.0, 0.1]]), np.array([0])),
    reference=lambda logits, labels: (lambda z: softmax_cross_entropy.forward(z, jnp.asarray(labels))[0], logits),
)  # fmt: skip

ACCURACY = write(
    "accuracy", "Accuracy from logits", SECTION,
    "The share of rows whose largest logit is at the label: logits (batch, classes), labels integers (batch,). Of equal logits the first counts.",
    "accuracy(logits, labels)",
    inputs=lambda r: ([(r.normal(size=(n, f)), r.integers(0, f, size=n)) for n, f in ((8, 3), (1, 2), (20, 4))]
                      + [(np.zeros((4, 3)), np.array([0, 1, 2, 0]))],),
    hints=("Softmax isn't needed.", "Compare the place of the largest logit with the label.", "A mean of booleans is a share."),
    fact="Softmax keeps the order, so no probability is needed.", outputs=("accuracy",), example=(np.array([[2.0, 1.0], [0.5, 3.0], [1.0, 0.0]]), np.array([0, 1, 1])),
)  # fmt: skip

TASKS = (
    MSE_FORWARD, MSE_BACKWARD, BCE_FORWARD, BCE_BACKWARD, SOFTMAX_CROSS_ENTROPY_BACKWARD, ACCURACY,
    repair("repair-mse-factor", "Half a gradient", MSE_BACKWARD, 0),
    repair("repair-mse-mean", "A mean over the wrong count", MSE_BACKWARD, 2),
    repair("repair-bce-class", "Binary cross-entropy of one class", BCE_FORWARD, 1),
    repair("repair-bce-sign", "An inner derivative", BCE_BACKWARD, 5),
    repair("repair-cross-entropy-twice", "Softmax's derivative twice", SOFTMAX_CROSS_ENTROPY_BACKWARD, 5),
    repair("repair-cross-entropy-scale", "A mean over classes", SOFTMAX_CROSS_ENTROPY_BACKWARD, 2),
    repair("repair-cross-entropy-overflow", "Cross-entropy of large logits", SOFTMAX_CROSS_ENTROPY_BACKWARD, 9),
    predict("predict-uniform-loss", "The loss before training", SECTION,
            "A classifier of 10 classes gives every class the same probability. What is its cross-entropy (natural logarithm)?",
            fact="A first loss far above it points to an initialization that is too large.",
            hints=("Which probability has the label?", "One tenth.", "Take minus its logarithm.")),
    predict("predict-loss-choice", "Which loss learns faster", SECTION,
            "A sigmoid unit predicts p = 0.01 for a target of 1. Which loss has the larger gradient by its logit, 'mse' ((p − y)²) or 'bce'?",
            fact="By a factor of fifty here: squared error brings the sigmoid's slope along.",
            hints=("Use the chain rule through the sigmoid.", "Its slope is p (1 − p).", "In one of the two losses that slope cancels.")),
)  # fmt: skip
