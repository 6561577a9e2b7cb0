"""Solutions of the exercises on a single neuron, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "neuron-forward": Answers(
        """\
import numpy as np

def forward(x, weights, bias):
    return x @ weights + bias
""",
        (
            Mistake("lost_path", " + bias", "", "The bias is left out."),
            Mistake("sign", "+ bias", "- bias", "The bias has the wrong sign."),
            Mistake(
                "wrong_operand",
                "x @ weights + bias",
                "(x + bias) @ weights",
                "The bias is added before the weights: it shifts the sum, not each feature.",
            ),
            Mistake(
                "wrong_operand",
                "x @ weights + bias",
                "x @ (weights + bias)",
                "The bias is added to each weight: it is added once, to the sum.",
            ),
        ),
    ),
    "perceptron-step": Answers(
        """\
import numpy as np

def step(weights, bias, x, target, rate):
    error = target - float(x @ weights + bias > 0)
    return weights + rate * error * x, bias + rate * error
""",
        (
            Mistake(
                "sign",
                "target - float(x @ weights + bias > 0)",
                "float(x @ weights + bias > 0) - target",
                "The step goes the other way: away from the target.",
            ),
            Mistake("kink", "> 0", ">= 0", "Only x·w + b = 0 differs: which prediction does the statement give there?"),
            Mistake("lost_path", "bias + rate * error", "bias", "The bias learns too."),
            Mistake("wrong_operand", "rate * error * x", "rate * error", "Each weight changes by its own feature."),
            Mistake(
                "wrong_operand", "x @ weights + bias > 0", "x @ weights > 0", "The prediction leaves the bias out."
            ),
            Mistake(
                "wrong_operand",
                "float(x @ weights + bias > 0)",
                "(x @ weights + bias)",
                "The weighted sum stands where the prediction belongs: the prediction is 0 or 1.",
            ),
            Mistake("scaled", "bias + rate * error", "bias + error", "The step of the bias lacks a factor."),
        ),
    ),
    "predict-neuron": Answers(
        """\
import numpy as np


def answer():
    return 1 / (1 + np.exp(-(0.2 + 1.6 - 1.5 + 2.0)))
""",
    ),
    "predict-xor": Answers(
        """\
import itertools

import numpy as np

def answer():
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    grid = itertools.product(np.linspace(-2, 2, 9), repeat=3)
    return max(int(np.sum((x @ np.array([u, v]) + b > 0) == y)) for u, v, b in grid)
""",
    ),
}
