"""The text of the solutions, from which funcnn/practice/solutions.bin is written."""

from tests.practice.solutions import (
    activations,
    backpropagation,
    forward_propagation,
    gradient_descent,
    losses,
    perceptron,
    vanishing_gradients,
)

SOLUTIONS = {
    name: answers
    for section in (
        perceptron, activations, forward_propagation, losses, backpropagation, gradient_descent, vanishing_gradients,
    )
    for name, answers in section.SOLUTIONS.items()
}  # fmt: skip
