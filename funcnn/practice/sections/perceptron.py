"""Exercises on a single neuron."""

import numpy as np

from funcnn.practice.builders import batches, predict, repair, write

SECTION = "The perceptron"

NEURON_FORWARD = write(
    "neuron-forward", "The weighted sum of a neuron", SECTION,
    "z = Σ_i x_i w_i + b for each sample: x (batch, features) has a row for each sample, weights (features,), bias a number; return z (batch,).",
    "forward(x, weights, bias)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(f,)), float(r.normal()))),
    hints=("Each sample gives one number.", "A product of a matrix with a vector sums over features.", "The bias comes last."),
    fact="One matrix product does the whole batch: that is where networks get their speed.",
    outputs=("z",), example=(np.array([[1.0, 2.0, 3.0]]), np.array([0.2, 0.8, -0.5]), 2.0),
)  # fmt: skip

PERCEPTRON_STEP = write(
    "perceptron-step", "One step of the perceptron's rule", SECTION,
    """
    For one sample x (features,) with target 0 or 1: the prediction is 1 where x·w + b > 0, else 0. With e = target −
    prediction, w ← w + rate e x and b ← b + rate e. Return (weights, bias).
    """,
    "step(weights, bias, x, target, rate)",
    inputs=lambda r: ([(r.normal(size=3), float(r.normal()), r.normal(size=3), t, 0.5) for t in (0.0, 1.0) * 4]
                      + [(np.zeros(2), 0.0, np.ones(2), 1.0, 0.1)],),
    hints=("Most samples change nothing.", "e is −1, 0 or 1.", "At x·w + b = 0 the prediction is 0."),
    fact="It stops changing where one line separates the classes; on XOR it never stops.",
    outputs=("weights", "bias"), example=(np.array([0.5, -1.0]), 0.25, np.array([1.0, 2.0]), 1.0, 0.1),
)  # fmt: skip

TASKS = (
    NEURON_FORWARD, PERCEPTRON_STEP,
    repair("repair-neuron-bias", "A bias in the wrong place", NEURON_FORWARD, 2),
    repair("repair-perceptron-sign", "A step of the perceptron's rule", PERCEPTRON_STEP, 0),
    repair("repair-perceptron-bias", "What the perceptron learns", PERCEPTRON_STEP, 2),
    predict("predict-neuron", "A neuron by hand", SECTION,
            "Inputs (1, 2, 3), weights (0.2, 0.8, −0.5), bias 2, activation sigmoid. What comes out?",
            fact="The weighted sum is 2.3: far enough on the slope that the output is above 0.9.",
            hints=("First the weighted sum.", "It is above 2.", "Then 1 / (1 + exp(−z)).")),
    predict("predict-xor", "XOR with one neuron", SECTION,
            "How many of the four points of XOR can a single neuron with a threshold get right, at best?",
            fact="A hidden layer of two units gets the fourth.",
            hints=("A neuron draws one line.", "Draw the four points.", "Try a line that cuts one corner off.")),
)  # fmt: skip
