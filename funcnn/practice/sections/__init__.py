"""The exercises, one module for each section of the chapter."""

from funcnn.practice.sections import (
    activations,
    backpropagation,
    forward_propagation,
    gradient_descent,
    losses,
    perceptron,
    vanishing_gradients,
)

SECTIONS = (
    perceptron,
    activations,
    forward_propagation,
    losses,
    backpropagation,
    gradient_descent,
    vanishing_gradients,
)
