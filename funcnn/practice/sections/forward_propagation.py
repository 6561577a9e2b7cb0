"""Exercises on networks of several layers and their forward pass."""

import numpy as np

from funcnn.practice.sections._builders import batches, predict, repair, write
from funcnn.practice.task import Mistake

SECTION = "Forward propagation"


def _layers(r, n, f):
    return r.normal(size=(n, f)), r.normal(size=(f, 4)), r.normal(size=4), r.normal(size=(4, 2)), r.normal(size=2)


TWO_LAYER_FORWARD = write(
    "two-layer-forward", "A network with a hidden layer", SECTION,
    """
    z1 = x W1 + b1, a1 = max(0, z1), z2 = a1 W2 + b2, output = σ(z2). x (batch, features), W1 (features, hidden),
    b1 (hidden,), W2 (hidden, outputs), b2 (outputs,). Return the output (batch, outputs).
    """,
    """
    import numpy as np

    def forward(x, w1, b1, w2, b2):
        hidden = np.maximum(x @ w1 + b1, 0)
        return 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    """,
    inputs=batches(_layers), hints=("Layer by layer.", "Each layer is a product, a bias and an activation.", "The activations differ."),
    fact="Without the ReLU the two products would be one: depth comes from what is not linear.", outputs=("output",),
    example=(np.array([[0.5, 0.8]]), np.array([[0.1, 0.3, -0.2], [0.4, -0.5, 0.6]]), np.array([0.1, -0.1, 0.2]),
             np.array([[0.7], [-0.3], [0.5]]), np.array([0.1])),
    mistakes=[
        Mistake("activation_derivative", "np.maximum(x @ w1 + b1, 0)", "x @ w1 + b1", "The hidden layer has no activation."),
        Mistake("activation_derivative", "np.maximum(x @ w1 + b1, 0)", "np.maximum(x @ w1, 0) + b1", "The bias is added after the activation."),
        Mistake("wrong_operand", "1 / (1 + np.exp(-(hidden @ w2 + b2)))", "hidden @ w2 + b2", "The output layer has no activation."),
        Mistake("sign", "np.exp(-(hidden", "np.exp((hidden", "The sigmoid falls where it should rise."),
    ],
)  # fmt: skip

PARAMETER_COUNT = write(
    "parameter-count", "The number of parameters", SECTION,
    "sizes is a tuple of layer sizes, such as (784, 128, 10): return how many weights and biases a network of linear layers has.",
    """
    import numpy as np

    def count(sizes):
        return sum(a * b + b for a, b in zip(sizes[:-1], sizes[1:]))
    """,
    inputs=lambda r: ([((784, 128, 10),), ((2, 3, 1),), ((4, 5),), ((3, 3, 3, 3),), ((1, 1),)],),
    hints=("Count one layer first.", "A layer of b units with a inputs has a matrix and a vector.", "Sum over neighbours."),
    fact="The first layer holds most of them in image classifiers: funcnn.summarize prints the table.", outputs=("count",),
    mistakes=[
        Mistake("lost_path", " + b for", " for", "The biases are not counted."),
        Mistake("wrong_operand", " + b for", " + a for", "There is one bias for each output of a layer, not for each input."),
        Mistake("wrong_operand", " + b for", " + 1 for", "A layer has more than one bias."),
    ],
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
            """
            import numpy as np

            def answer():
                x, w1 = np.array([0.5, 0.8]), np.array([[0.1, 0.3, -0.2], [0.4, -0.5, 0.6]])
                hidden = np.maximum(x @ w1 + np.array([0.1, -0.1, 0.2]), 0)
                return 1 / (1 + np.exp(-(hidden @ np.array([0.7, -0.3, 0.5]) + 0.1)))
            """, fact="The textbook chapter prints 0.6498: its z1 has an arithmetic slip in the second unit, which ReLU hides only partly.",
            hints=("Work out the three hidden sums.", "The second one is negative.", "Then the sum of two products and a bias.")),
    predict("predict-two-linear", "Two linear layers", SECTION,
            "Layers 5 → 3 → 4 without activations give a single matrix from 5 to 4. What is its largest possible rank?",
            "import numpy as np\n\n\ndef answer():\n    r = np.random.default_rng(0)\n    return int(np.linalg.matrix_rank(r.normal(size=(5, 3)) @ r.normal(size=(3, 4))))",
            fact="A narrow layer limits everything behind it.", hints=("Multiply the two matrices.", "A product has no more rank than its factors.", "Look at the narrowest layer.")),
)  # fmt: skip
