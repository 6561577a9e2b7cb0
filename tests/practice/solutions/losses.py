"""Solutions of the exercises on losses, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "mean-squared-error": Answers(
        """\
import numpy as np

def forward(prediction, target):
    return np.mean((prediction - target) ** 2)
""",
        (
            Mistake(
                "scaled",
                "np.mean((prediction - target) ** 2)",
                "np.sum((prediction - target) ** 2)",
                "A sum stands where the mean belongs.",
            ),
            Mistake(
                "scaled",
                "np.mean((prediction - target) ** 2)",
                "np.sum((prediction - target) ** 2) / prediction.shape[0]",
                "The mean is over the batch only: the statement has it over all entries.",
            ),
            Mistake("wrong_operand", "** 2)", "** 2) ** 0.5", "A root is taken that the statement hasn't."),
            Mistake(
                "wrong_operand",
                "(prediction - target) ** 2",
                "np.abs(prediction - target)",
                "That is the absolute error: the squares are missing.",
            ),
        ),
    ),
    "mean-squared-error-backward": Answers(
        """\
import numpy as np

def backward(prediction, target):
    return 2 * (prediction - target) / prediction.size
""",
        (
            Mistake(
                "scaled",
                "2 * (",
                "(",
                "Your gradient is exactly ½ of the right one on every entry: what does the derivative of a square bring?",
            ),
            Mistake(
                "scaled",
                " / prediction.size",
                "",
                "The mean is not differentiated: the gradient is that of the sum of squares.",
            ),
            Mistake(
                "scaled",
                " / prediction.size",
                " / prediction.shape[0]",
                "The gradient is divided by the batch only: over how many entries is the mean?",
            ),
            Mistake(
                "scaled",
                " / prediction.size",
                " / prediction.shape[1]",
                "The gradient is divided by the features only: over how many entries is the mean?",
            ),
            Mistake(
                "sign",
                "prediction - target",
                "target - prediction",
                "Every entry has the other sign: which of the two is differentiated?",
            ),
            Mistake(
                "scaled",
                "2 * (prediction - target) / prediction.size",
                "(prediction - target)",
                "Two constants are missing: that of the square and that of the mean.",
            ),
            Mistake(
                "scaled",
                "2 * (prediction - target) / prediction.size",
                "(prediction - target) / prediction.shape[0]",
                "Two constants are off: that of the square, and the number of entries in the mean.",
            ),
            Mistake(
                "loss_derivative",
                "(prediction - target)",
                "np.sign(prediction - target)",
                "That is the derivative of an absolute value: a square's depends on the size of the error.",
            ),
            Mistake(
                "loss_derivative",
                "(prediction - target)",
                "(prediction - target) ** 2",
                "The square is still there: a derivative of a square is one power lower.",
            ),
            Mistake(
                "sign",
                "2 * (prediction - target) / prediction.size",
                "2 * (target - prediction) / prediction.shape[0]",
                "The sign is the other one, and the mean is over the batch only.",
            ),
        ),
    ),
    "binary-cross-entropy": Answers(
        """\
import numpy as np

def forward(p, y):
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
""",
        (
            Mistake("sign", "-np.mean", "np.mean", "The loss is negative: a logarithm of a probability is below zero."),
            Mistake("lost_path", " + (1 - y) * np.log(1 - p)", "", "Samples of class 0 cost nothing."),
            Mistake("scaled", "np.mean(", "np.sum(", "A sum stands where the mean belongs."),
            Mistake("scaled", "np.log", "np.log2", "The logarithm has another base."),
        ),
    ),
    "binary-cross-entropy-backward": Answers(
        """\
import numpy as np

def backward(p, y):
    return (p - y) / (p * (1 - p)) / p.size
""",
        (
            Mistake(
                "loss_derivative", " / (p * (1 - p))", "", "That is the gradient by the logit, not by the probability."
            ),
            Mistake("sign", "(p - y)", "(y - p)", "Every entry has the other sign."),
            Mistake("scaled", " / p.size", "", "The mean is not differentiated."),
            Mistake(
                "scaled",
                " / p.size",
                " / p.shape[0]",
                "The gradient is divided by the batch only: over how many entries is the mean?",
            ),
            Mistake("lost_path", "(p - y) / (p * (1 - p))", "-y / p", "Samples of class 0 get no gradient."),
            Mistake(
                "loss_derivative",
                "(p - y) / (p * (1 - p))",
                "-(y / p + (1 - y) / (1 - p))",
                "The inner derivative of 1 − p has a sign.",
            ),
        ),
    ),
    "softmax-cross-entropy-backward": Answers(
        """\
import numpy as np

def backward(logits, labels):
    exponentials = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    p = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
    onehot = np.eye(logits.shape[1])[labels] if labels.ndim == 1 else labels
    return (p - onehot) / logits.shape[0]
""",
        (
            Mistake(
                "scaled",
                " / logits.shape[0]",
                "",
                "The mean over the batch is not differentiated: the factor is the batch size.",
            ),
            Mistake(
                "scaled",
                " / logits.shape[0]",
                " / logits.size",
                "The gradient is divided by batch times classes: over what is the mean?",
            ),
            Mistake(
                "scaled",
                " / logits.shape[0]",
                " / logits.shape[1]",
                "The gradient is divided by the classes: over what is the mean?",
            ),
            Mistake("sign", "(p - onehot)", "(onehot - p)", "Every entry has the other sign."),
            Mistake(
                "loss_derivative",
                "(p - onehot)",
                "p",
                "The labels have no effect: which entry of each row does the loss read?",
            ),
            Mistake(
                "activation_derivative",
                "(p - onehot)",
                "p * (1 - p) * (p - onehot)",
                "The derivative of softmax is already in the difference: it is multiplied in once more.",
            ),
            Mistake(
                "loss_derivative", "(p - onehot)", "(logits - onehot)", "The logits stand where probabilities belong."
            ),
            Mistake(
                "wrong_axis",
                "np.sum(exponentials, axis=-1, keepdims=True)",
                "np.sum(exponentials)",
                "The softmax runs over the whole batch: each row has to sum to 1.",
            ),
            Mistake(
                "wrong_axis",
                "np.sum(exponentials, axis=-1, keepdims=True)",
                "np.sum(exponentials, axis=0, keepdims=True)",
                "The softmax runs over the batch: each row has to sum to 1.",
            ),
            Mistake(
                "nonfinite",
                "logits - np.max(logits, axis=-1, keepdims=True)",
                "logits",
                "The exponential overflows for large logits. What may be subtracted from a row?",
            ),
            Mistake(
                "loss_derivative",
                "(p - onehot)",
                "(p - onehot) * onehot",
                "Only the entry of the label has a gradient: the other logits matter through the sum.",
            ),
            Mistake(
                "sign",
                "(p - onehot) / logits.shape[0]",
                "(onehot - p)",
                "The sign is the other one, and the mean is not differentiated.",
            ),
            Mistake(
                "loss_derivative",
                "(p - onehot)",
                "-onehot / np.maximum(p, 1e-300)",
                "That is the gradient by the probabilities: softmax is still to come.",
            ),
        ),
    ),
    "accuracy": Answers(
        """\
import numpy as np

def accuracy(logits, labels):
    return np.mean(np.argmax(logits, axis=-1) == labels)
""",
        (
            Mistake(
                "wrong_axis",
                "np.mean(np.argmax(logits, axis=-1) == labels)",
                "np.mean(np.argmax(logits, axis=-1) != labels)",
                "That is the share of errors.",
            ),
            Mistake("scaled", "np.mean(", "np.sum(", "A count stands where a share belongs."),
            Mistake("wrong_operand", "np.argmax", "np.argmin", "The smallest logit is taken."),
        ),
    ),
    "predict-uniform-loss": Answers(
        """\
import numpy as np


def answer():
    return np.log(10)
""",
    ),
    "predict-loss-choice": Answers(
        """\
def answer():
    p, y = 0.01, 1.0
    gradients = {"mse": abs(2 * (p - y) * p * (1 - p)), "bce": abs(p - y)}
    return max(gradients, key=gradients.get)
""",
    ),
}
