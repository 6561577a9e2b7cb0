"""Solutions of the exercises on forward propagation, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "two-layer-forward": Answers(
        """\
import numpy as np

def forward(x, w1, b1, w2, b2):
    hidden = np.maximum(x @ w1 + b1, 0)
    return 1 / (1 + np.exp(-(hidden @ w2 + b2)))
""",
        (
            Mistake(
                "activation_derivative",
                "np.maximum(x @ w1 + b1, 0)",
                "x @ w1 + b1",
                "The hidden layer has no activation.",
            ),
            Mistake(
                "activation_derivative",
                "np.maximum(x @ w1 + b1, 0)",
                "np.maximum(x @ w1, 0) + b1",
                "The bias is added after the activation.",
            ),
            Mistake(
                "wrong_operand",
                "1 / (1 + np.exp(-(hidden @ w2 + b2)))",
                "hidden @ w2 + b2",
                "The output layer has no activation.",
            ),
            Mistake("sign", "np.exp(-(hidden", "np.exp((hidden", "The sigmoid falls where it should rise."),
        ),
    ),
    "parameter-count": Answers(
        """\
import numpy as np

def count(sizes):
    return sum(a * b + b for a, b in zip(sizes[:-1], sizes[1:]))
""",
        (
            Mistake("lost_path", " + b for", " for", "The biases are not counted."),
            Mistake(
                "wrong_operand",
                " + b for",
                " + a for",
                "There is one bias for each output of a layer, not for each input.",
            ),
            Mistake("wrong_operand", " + b for", " + 1 for", "A layer has more than one bias."),
        ),
    ),
    "predict-forward": Answers(
        """\
import numpy as np

def answer():
    x, w1 = np.array([0.5, 0.8]), np.array([[0.1, 0.3, -0.2], [0.4, -0.5, 0.6]])
    hidden = np.maximum(x @ w1 + np.array([0.1, -0.1, 0.2]), 0)
    return 1 / (1 + np.exp(-(hidden @ np.array([0.7, -0.3, 0.5]) + 0.1)))
""",
    ),
    "predict-two-linear": Answers(
        """\
import numpy as np


def answer():
    r = np.random.default_rng(0)
    return int(np.linalg.matrix_rank(r.normal(size=(5, 3)) @ r.normal(size=(3, 4))))
""",
    ),
}
