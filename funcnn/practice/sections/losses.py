"""Exercises on losses and metrics."""

import numpy as np

from funcnn.practice.sections._builders import SHAPES, batches, predict, repair, write
from funcnn.practice.task import Mistake

SECTION = "Loss functions"

MSE_FORWARD = write(
    "mean-squared-error", "The mean squared error", SECTION,
    "L = the mean of (prediction − target)² over all entries, both (batch, features). Return a number.",
    """
    import numpy as np

    def forward(prediction, target):
        return np.mean((prediction - target) ** 2)
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)))),
    hints=("Three steps.", "Difference, square, mean.", "The mean is over everything."), fact="An error twice as large costs four times as much.",
    outputs=("loss",), example=(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])),
    mistakes=[
        Mistake("scaled", "np.mean((prediction - target) ** 2)", "np.sum((prediction - target) ** 2)", "A sum stands where the mean belongs."),
        Mistake("scaled", "np.mean((prediction - target) ** 2)", "np.sum((prediction - target) ** 2) / prediction.shape[0]", "The mean is over the batch only: the statement has it over all entries."),
        Mistake("wrong_operand", "** 2)", "** 2) ** 0.5", "A root is taken that the statement hasn't."),
        Mistake("wrong_operand", "(prediction - target) ** 2", "np.abs(prediction - target)", "That is the absolute error: the squares are missing."),
    ],
)  # fmt: skip

MSE_BACKWARD = write(
    "mean-squared-error-backward", "The gradient of the mean squared error", SECTION,
    "L = the mean of (prediction − target)² over all entries, both (batch, features). Return ∂L/∂prediction.",
    """
    import numpy as np

    def backward(prediction, target):
        return 2 * (prediction - target) / prediction.size
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)))),
    hints=("Differentiate for a single entry.", "The square brings a factor.", "The mean is over all entries, so it divides by their number."),
    fact="Frameworks differ: some write ½ of the square so that the factor goes; the learning rate then means something else.",
    outputs=("dprediction",), example=(np.array([[1.0, 2.0]]), np.array([[0.0, 4.0]])),
    mistakes=[
        Mistake("scaled", "2 * (", "(", "Your gradient is exactly ½ of the right one on every entry: what does the derivative of a square bring?"),
        Mistake("scaled", " / prediction.size", "", "The mean is not differentiated: the gradient is that of the sum of squares."),
        Mistake("scaled", " / prediction.size", " / prediction.shape[0]", "The gradient is divided by the batch only: over how many entries is the mean?"),
        Mistake("scaled", " / prediction.size", " / prediction.shape[1]", "The gradient is divided by the features only: over how many entries is the mean?"),
        Mistake("sign", "prediction - target", "target - prediction", "Every entry has the other sign: which of the two is differentiated?"),
        Mistake("scaled", "2 * (prediction - target) / prediction.size", "(prediction - target)", "Two constants are missing: that of the square and that of the mean."),
        Mistake("scaled", "2 * (prediction - target) / prediction.size", "(prediction - target) / prediction.shape[0]", "Two constants are off: that of the square, and the number of entries in the mean."),
        Mistake("loss_derivative", "(prediction - target)", "np.sign(prediction - target)", "That is the derivative of an absolute value: a square's depends on the size of the error."),
        Mistake("loss_derivative", "(prediction - target)", "(prediction - target) ** 2", "The square is still there: a derivative of a square is one power lower."),
        Mistake("sign", "2 * (prediction - target) / prediction.size", "2 * (target - prediction) / prediction.shape[0]", "The sign is the other one, and the mean is over the batch only."),
    ],
)  # fmt: skip


def _probabilities(r, n, f):
    return r.uniform(0.05, 0.95, size=(n, f)), r.integers(0, 2, size=(n, f)).astype(float)


BCE_FORWARD = write(
    "binary-cross-entropy", "Binary cross-entropy", SECTION,
    "L = −mean(y log p + (1 − y) log(1 − p)) over all entries, p and y (batch, features), 0 < p < 1. Return a number.",
    """
    import numpy as np

    def forward(p, y):
        return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    """,
    inputs=batches(_probabilities), hints=("Two terms, one for each class.", "Mind the sign in front.", "The mean is over everything."),
    fact="A confident error costs without bound; on logits the same loss needs no logarithm of a probability.",
    outputs=("loss",), example=(np.array([[0.9, 0.1]]), np.array([[1.0, 0.0]])),
    mistakes=[
        Mistake("sign", "-np.mean", "np.mean", "The loss is negative: a logarithm of a probability is below zero."),
        Mistake("lost_path", " + (1 - y) * np.log(1 - p)", "", "Samples of class 0 cost nothing."),
        Mistake("scaled", "np.mean(", "np.sum(", "A sum stands where the mean belongs."),
        Mistake("scaled", "np.log", "np.log2", "The logarithm has another base."),
    ],
)  # fmt: skip

BCE_BACKWARD = write(
    "binary-cross-entropy-backward", "The gradient of binary cross-entropy", SECTION,
    "L = −mean(y log p + (1 − y) log(1 − p)) over all entries, p and y (batch, features), 0 < p < 1. Return ∂L/∂p.",
    """
    import numpy as np

    def backward(p, y):
        return (p - y) / (p * (1 - p)) / p.size
    """,
    inputs=batches(_probabilities), hints=("Differentiate the two logarithms.", "Bring them to one fraction.", "The mean divides by the number of entries."),
    fact="Behind a sigmoid the denominator cancels: with respect to the logit only p − y is left.",
    outputs=("dp",), example=(np.array([[0.9, 0.2]]), np.array([[1.0, 0.0]])),
    mistakes=[
        Mistake("loss_derivative", " / (p * (1 - p))", "", "That is the gradient by the logit, not by the probability."),
        Mistake("sign", "(p - y)", "(y - p)", "Every entry has the other sign."),
        Mistake("scaled", " / p.size", "", "The mean is not differentiated."),
        Mistake("scaled", " / p.size", " / p.shape[0]", "The gradient is divided by the batch only: over how many entries is the mean?"),
        Mistake("lost_path", "(p - y) / (p * (1 - p))", "-y / p", "Samples of class 0 get no gradient."),
        Mistake("loss_derivative", "(p - y) / (p * (1 - p))", "-(y / p + (1 - y) / (1 - p))", "The inner derivative of 1 − p has a sign."),
    ],
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
    (batch,). Return ∂L/∂logits. Logits may be large. (One-hot labels (batch, classes) are accepted in an answer too.)
    """,
    """
    import numpy as np

    def backward(logits, labels):
        exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
        p = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
        onehot = np.eye(logits.shape[1])[labels] if labels.ndim == 1 else labels
        return (p - onehot) / logits.shape[0]
    """,
    inputs=_logits, hints=("Softmax and logarithm together are simpler than each alone.", "The result is a difference of two distributions.", "Divide by what the mean divides by."),
    fact="The rows of the gradient sum to 0. Nothing is divided by a probability, so nothing overflows.",
    outputs=("dlogits",), example=(np.array([[2.0, 1.0, 0.1]]), np.array([0])),
    mistakes=[
        Mistake("scaled", " / logits.shape[0]", "", "The mean over the batch is not differentiated: the factor is the batch size."),
        Mistake("scaled", " / logits.shape[0]", " / logits.size", "The gradient is divided by batch times classes: over what is the mean?"),
        Mistake("scaled", " / logits.shape[0]", " / logits.shape[1]", "The gradient is divided by the classes: over what is the mean?"),
        Mistake("sign", "(p - onehot)", "(onehot - p)", "Every entry has the other sign."),
        Mistake("loss_derivative", "(p - onehot)", "p", "The labels have no effect: which entry of each row does the loss read?"),
        Mistake("activation_derivative", "(p - onehot)", "p * (1 - p) * (p - onehot)", "The derivative of softmax is already in the difference: it is multiplied in once more."),
        Mistake("loss_derivative", "(p - onehot)", "(logits - onehot)", "The logits stand where probabilities belong."),
        Mistake("wrong_axis", "np.sum(exponentials, axis=-1, keepdims=True)", "np.sum(exponentials)", "The softmax runs over the whole batch: each row has to sum to 1."),
        Mistake("wrong_axis", "np.sum(exponentials, axis=-1, keepdims=True)", "np.sum(exponentials, axis=0, keepdims=True)", "The softmax runs over the batch: each row has to sum to 1."),
        Mistake("nonfinite", "logits - np.max(logits, axis=-1, keepdims=True)", "logits", "The exponential overflows for large logits. What may be subtracted from a row?"),
        Mistake("loss_derivative", "(p - onehot)", "(p - onehot) * onehot", "Only the entry of the label has a gradient: the other logits matter through the sum."),
        Mistake("sign", "(p - onehot) / logits.shape[0]", "(onehot - p)", "The sign is the other one, and the mean is not differentiated."),
        Mistake("loss_derivative", "(p - onehot)", "-onehot / np.maximum(p, 1e-300)", "That is the gradient by the probabilities: softmax is still to come."),
    ],
)  # fmt: skip

ACCURACY = write(
    "accuracy", "Accuracy from logits", SECTION,
    "The share of rows whose largest logit is at the label: logits (batch, classes), labels integers (batch,). Of equal logits the first counts.",
    """
    import numpy as np

    def accuracy(logits, labels):
        return np.mean(np.argmax(logits, axis=-1) == labels)
    """,
    inputs=lambda r: ([(r.normal(size=(n, f)), r.integers(0, f, size=n)) for n, f in ((8, 3), (1, 2), (20, 4))]
                      + [(np.zeros((4, 3)), np.array([0, 1, 2, 0]))],),
    hints=("Softmax isn't needed.", "Compare the place of the largest logit with the label.", "A mean of booleans is a share."),
    fact="Softmax keeps the order, so no probability is needed.", outputs=("accuracy",),
    mistakes=[
        Mistake("wrong_axis", "np.mean(np.argmax(logits, axis=-1) == labels)", "np.mean(np.argmax(logits, axis=-1) != labels)", "That is the share of errors."),
        Mistake("scaled", "np.mean(", "np.sum(", "A count stands where a share belongs."),
        Mistake("wrong_operand", "np.argmax", "np.argmin", "The smallest logit is taken."),
    ],
)  # fmt: skip

TASKS = (
    MSE_FORWARD, MSE_BACKWARD, BCE_FORWARD, BCE_BACKWARD, SOFTMAX_CROSS_ENTROPY_BACKWARD, ACCURACY,
    repair("repair-mse-factor", "Half a gradient", MSE_BACKWARD, 0),
    repair("repair-mse-mean", "A mean over the wrong count", MSE_BACKWARD, 2),
    repair("repair-bce-class", "A class that costs nothing", BCE_FORWARD, 1),
    repair("repair-bce-sign", "An inner derivative", BCE_BACKWARD, 5),
    repair("repair-cross-entropy-twice", "Softmax's derivative twice", SOFTMAX_CROSS_ENTROPY_BACKWARD, 5),
    repair("repair-cross-entropy-scale", "A mean over classes", SOFTMAX_CROSS_ENTROPY_BACKWARD, 2),
    repair("repair-cross-entropy-overflow", "Cross-entropy of large logits", SOFTMAX_CROSS_ENTROPY_BACKWARD, 9),
    predict("predict-uniform-loss", "The loss before training", SECTION,
            "A classifier of 10 classes gives every class the same probability. What is its cross-entropy (natural logarithm)?",
            "import numpy as np\n\n\ndef answer():\n    return np.log(10)", fact="A first loss far above it points to an initialization that is too large.",
            hints=("Which probability has the label?", "One tenth.", "Take minus its logarithm.")),
    predict("predict-loss-choice", "Which loss learns faster", SECTION,
            "A sigmoid unit predicts p = 0.01 for a target of 1. Which loss has the larger gradient by its logit, 'mse' ((p − y)²) or 'bce'?",
            """
            def answer():
                p, y = 0.01, 1.0
                gradients = {"mse": abs(2 * (p - y) * p * (1 - p)), "bce": abs(p - y)}
                return max(gradients, key=gradients.get)
            """, fact="By a factor of fifty here: squared error brings the sigmoid's slope along.",
            hints=("Use the chain rule through the sigmoid.", "Its slope is p (1 − p).", "In one of the two losses that slope cancels.")),
)  # fmt: skip
