"""Exercises on networks of several layers and their forward pass."""

import numpy as np

from funcnn.practice.builders import batches, predict, repair, write

SECTION = "Forward propagation"


def _layers(r, n, f):
    return r.normal(size=(n, f)), r.normal(size=(f, 4)), r.normal(size=4), r.normal(size=(4, 2)), r.normal(size=2)


TWO_LAYER_FORWARD = write(
    "two-layer-forward", "A network with a hidden layer", SECTION,
    """
    z1 = x W1 + b1, a1 = max(0, z1), z2 = a1 W2 + b2, output = σ(z2). x (batch, features), W1 (features, hidden),
    b1 (hidden,), W2 (hidden, outputs), b2 (outputs,). Return the output (batch, outputs).
    """,
    "forward(x, w1, b1, w2, b2)",
    inputs=batches(_layers), hints=("Layer by layer.", "Each layer is a product, a bias and an activation.", "The activations differ."),
    fact="Without the ReLU the two products would be one: depth comes from what is not linear.", outputs=("output",),
    example=(np.array([[0.5, 0.8]]), np.array([[0.1, 0.3, -0.2], [0.4, -0.5, 0.6]]), np.array([0.1, -0.1, 0.2]),
             np.array([[0.7], [-0.3], [0.5]]), np.array([0.1])),
)  # fmt: skip

PARAMETER_COUNT = write(
    "parameter-count", "The number of parameters", SECTION,
    "sizes is a tuple of layer sizes, such as (784, 128, 10): return how many weights and biases a network of linear layers has.",
    "count(sizes)",
    inputs=lambda r: ([((784, 128, 10),), ((2, 3, 1),), ((4, 5),), ((3, 3, 3, 3),), ((1, 1),)],),
    hints=("Count one layer first.", "A layer of b units with a inputs has a matrix and a vector.", "Sum over neighbours."),
    fact="The first layer holds most of them in image classifiers: funcnn.summarize prints the table.", outputs=("count",), example=((3, 4, 2),),
)  # fmt: skip

TASKS = (
    TWO_LAYER_FORWARD, PARAMETER_COUNT,
    repair("repair-forward-linear", "A network that is one matrix", TWO_LAYER_FORWARD, 0),
    repair("repair-forward-bias", "A bias after the activation", TWO_LAYER_FORWARD, 1),
    repair("repair-parameter-count", "Biases miscounted", PARAMETER_COUNT, 1),
    predict("predict-forward", "A forward pass by hand", SECTION,
            """
            x = (0.5, 0.8), W1 = [[0.1, 0.3, −0.2], [0.4, −0.5, 0.6]], b1 = (0.1, −0.1, 0.2), ReLU; W2 = [[0.7], [−0.3], [0.5]],
            b2 = 0.1, sigmoid. What is the output?
            """,
            fact="The textbook chapter prints 0.6498: its z1 has an arithmetic slip in the second unit, which ReLU hides only partly.",
            hints=("Work out the three hidden sums.", "The second one is negative.", "Then the sum of two products and a bias.")),
    predict("predict-two-linear", "Two linear layers", SECTION,
            "Layers 5 → 3 → 4 without activations give a single matrix from 5 to 4. What is its largest possible rank?",
            fact="A narrow layer limits everything behind it.", hints=("Multiply the two matrices.", "A product has no more rank than its factors.", "Look at the narrowest layer.")),
)  # fmt: skip
