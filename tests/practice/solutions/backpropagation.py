"""Solutions of the exercises on backpropagation, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "linear-backward": Answers(
        """\
import numpy as np

def backward(x, kernel, dy):
    dkernel = x.T @ dy
    dbias = np.sum(dy, axis=0)
    dx = dy @ kernel.T
    return dkernel, dbias, dx
""",
        (
            Mistake(
                "scaled",
                "x.T @ dy",
                "x.T @ dy / x.shape[0]",
                "dkernel is divided by the batch size: the loss has taken its mean already, and dy carries it.",
            ),
            Mistake(
                "wrong_axis",
                "np.sum(dy, axis=0)",
                "np.mean(dy, axis=0)",
                "dbias is a mean over the batch: every sample uses the same bias, so what do their gradients do?",
            ),
            Mistake(
                "wrong_axis",
                "np.sum(dy, axis=0)",
                "np.sum(dy, axis=1)[: dy.shape[1]]",
                "dbias is summed along the wrong axis.",
            ),
            Mistake(
                "scaled",
                "dkernel = x.T @ dy\n    dbias = np.sum(dy, axis=0)",
                "dkernel = x.T @ dy / x.shape[0]\n    dbias = np.mean(dy, axis=0)",
                "dkernel and dbias are divided by the batch size: the loss has taken its mean already, and dy carries it.",
            ),
            Mistake("sign", "dy @ kernel.T", "-dy @ kernel.T", "dx has the other sign."),
            Mistake("wrong_operand", "x.T @ dy", "np.abs(x).T @ dy", "dkernel takes something other than x."),
            Mistake("subset_of_batch", "np.sum(dy, axis=0)", "dy[0]", "dbias counts the first sample only."),
            Mistake("subset_of_batch", "x.T @ dy", "np.outer(x[0], dy[0])", "dkernel counts the first sample only."),
        ),
    ),
    "two-layer-network": Answers(
        """\
import numpy as np

def gradients(params, x, y):
    w1, b1, w2, b2 = params
    z1 = x @ w1 + b1
    a1 = np.maximum(z1, 0)
    p = 1 / (1 + np.exp(-(a1 @ w2 + b2)))
    dz2 = (p - y) / y.size
    dw2, db2 = a1.T @ dz2, dz2.sum(axis=0)
    dz1 = (dz2 @ w2.T) * (z1 > 0)
    dw1, db1 = x.T @ dz1, dz1.sum(axis=0)
    return dw1, db1, dw2, db2
""",
        (
            Mistake(
                "activation_derivative",
                " * (z1 > 0)",
                "",
                "dW1 and db1: the derivative of the hidden layer's activation is left out.",
            ),
            Mistake(
                "scaled",
                " / y.size",
                "",
                "Every gradient is too large by the batch size: the mean is not differentiated.",
            ),
            Mistake("sign", "(p - y)", "(y - p)", "Every gradient has the other sign."),
            Mistake(
                "activation_derivative",
                "(p - y) / y.size",
                "(p - y) * p * (1 - p) / y.size",
                "The sigmoid's slope is multiplied in once more: cross-entropy cancels it.",
            ),
            Mistake("activation_derivative", "(z1 > 0)", "a1", "ReLU's value stands where its derivative belongs."),
            Mistake(
                "activation_derivative",
                "(z1 > 0)",
                "a1 * (1 - a1)",
                "The hidden layer's slope is that of another activation.",
            ),
            Mistake(
                "wrong_operand",
                "dw1, db1 = x.T @ dz1, dz1.sum(axis=0)",
                "dw1, db1 = x.T @ dz1, dz1.mean(axis=0)",
                "db1 is a mean over the batch where a sum belongs.",
            ),
            Mistake(
                "wrong_operand",
                "dw2, db2 = a1.T @ dz2",
                "dw2, db2 = z1.T @ dz2",
                "dW2 takes the hidden layer before its activation.",
            ),
            Mistake(
                "updated_weights",
                "dz1 = (dz2 @ w2.T)",
                "dz1 = (dz2 @ (w2 - 0.1 * dw2).T)",
                "The kernel of the second layer is read after its update.",
            ),
            Mistake(
                "scaled",
                "(p - y) / y.size",
                "2 * (p - y) / y.size",
                "Every gradient is twice the right one: that factor belongs to a square, which this loss hasn't.",
            ),
            Mistake(
                "wrong_operand",
                "db2 = a1.T @ dz2, dz2.sum(axis=0)",
                "db2 = a1.T @ dz2, dz2.mean(axis=0)",
                "db2 is a mean over the batch where a sum belongs.",
            ),
        ),
    ),
    "linear-jacobian": Answers(
        """\
import numpy as np

def jacobian(x, kernel):
    return np.transpose(kernel).copy()
""",
        (
            Mistake(
                "transposed",
                "np.transpose(kernel).copy()",
                "kernel.copy()",
                "Rows and columns are exchanged: outputs are the rows.",
            ),
        ),
    ),
    "skip-backward": Answers(
        """\
import numpy as np

def backward(x, dy):
    return dy + dy * (1 - np.tanh(x) ** 2)
""",
        (
            Mistake("lost_use", "dy + dy * ", "dy * ", "One of the two uses of x doesn't count."),
            Mistake("lost_use", "dy + dy * (1 - np.tanh(x) ** 2)", "dy", "The branch doesn't count."),
            Mistake(
                "activation_derivative",
                "(1 - np.tanh(x) ** 2)",
                "np.tanh(x)",
                "The activation's value stands where its derivative belongs.",
            ),
            Mistake(
                "activation_derivative",
                "np.tanh(x) ** 2",
                "x ** 2",
                "The derivative is written by the output of tanh, and x is its input.",
            ),
        ),
    ),
    "predict-chain": Answers(
        """\
import numpy as np


def answer():
    a = 1 / (1 + np.exp(-1.0))
    return 2 * (a - 1) * a * (1 - a) * 2.0
""",
    ),
}
