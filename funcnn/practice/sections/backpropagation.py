"""Exercises on backpropagation through layers."""

import jax.numpy as jnp
import numpy as np

from funcnn.layers.activations import relu_forward, tanh_forward
from funcnn.layers.linear import LinearParams, linear_forward
from funcnn.losses import sigmoid_cross_entropy
from funcnn.practice.builders import SHAPES, batches, predict, repair, write

SECTION = "Backpropagation"


def _linear(x, kernel, dy):
    def loss(variables):
        kernel, bias, x = variables
        return jnp.sum(linear_forward(LinearParams(kernel, bias), x)[0] * dy)

    return loss, (kernel, jnp.zeros(kernel.shape[1]), x)


LINEAR_BACKWARD = write(
    "linear-backward", "The backward pass of a linear layer", SECTION,
    """
    y = x kernel + bias: x (batch, inputs), kernel (inputs, outputs), bias (outputs,). Given x, kernel and dy = ∂L/∂y
    (batch, outputs), return (dkernel, dbias, dx), each of the shape of its variable. The loss has taken its mean already.
    """,
    "backward(x, kernel, dy)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(f, 3)), r.normal(size=(n, 3)))),
    hints=("Each gradient has the shape of its variable: which product gives it?", "One of the two matrices is transposed each time.",
           "The bias is added to every sample, so its gradient is a sum over them."),
    fact="Three shapes leave only one product each; the backward pass costs twice the forward pass.",
    outputs=("dkernel", "dbias", "dx"), example=(np.array([[1.0, 2.0]]), np.array([[1.0], [3.0]]), np.array([[0.5]])),
    reference=_linear,
)  # fmt: skip


def _network(random):
    inputs = []
    for n, f in SHAPES:
        params = tuple(random.normal(size=shape) for shape in ((f, 4), (4,), (4, 1), (1,)))
        inputs.append((params, random.normal(size=(n, f)), random.integers(0, 2, size=(n, 1)).astype(float)))
    return (inputs,)


def _loss(params, x, y):
    def loss(params):
        w1, b1, w2, b2 = params
        hidden = relu_forward(x @ w1 + b1[None])[0]
        return sigmoid_cross_entropy.forward(hidden @ w2 + b2[None], jnp.asarray(y))[0]

    return loss, params


TWO_LAYER_NETWORK = write(
    "two-layer-network", "The gradients of a network", SECTION,
    """
    z1 = x W1 + b1, a1 = max(0, z1), z2 = a1 W2 + b2, p = σ(z2), L = −mean(y log p + (1 − y) log(1 − p)) over all entries.
    params = (W1, b1, W2, b2) with W1 (features, hidden), W2 (hidden, 1); x (batch, features), y (batch, 1) of 0 and 1.
    Return the gradients of L in the same order.
    """,
    "gradients(params, x, y)",
    inputs=_network,
    hints=("Run the forward pass and keep z1 and a1.", "Sigmoid and cross-entropy together leave a difference.",
           "Go back layer by layer: product with the kernel transposed, then the ReLU's mask."),
    fact="The whole backward pass is three products: fnn.manual_value_and_grad chains the layers' own in the same order.",
    outputs=("dW1", "db1", "dW2", "db2"),
    example=((np.array([[1.0, -1.0]]), np.zeros(2), np.array([[0.5], [2.0]]), np.zeros(1)), np.array([[2.0]]), np.array([[1.0]])),
    reference=_loss,
)  # fmt: skip

LINEAR_JACOBIAN = write(
    "linear-jacobian", "The Jacobian of a linear map", SECTION,
    "y = x kernel for one vector x (inputs,) and kernel (inputs, outputs). Return J (outputs, inputs), J[j, i] = ∂y_j/∂x_i.",
    "jacobian(x, kernel)",
    inputs=lambda r: ([(r.normal(size=i), r.normal(size=(i, o))) for i, o in ((3, 2), (2, 4), (3, 3))],),
    hints=("Write y_j as a sum.", "Which entry of the kernel multiplies x_i in y_j?", "Compare the order of the indices."),
    fact="It doesn't depend on x, so a linear layer needs its input for dkernel only.", outputs=("J",), kind="derive",
)  # fmt: skip

SKIP_BACKWARD = write(
    "skip-backward", "The backward pass of a residual connection", SECTION,
    "y = x + tanh(x) for each entry of x (batch, features). Given x and dy = ∂L/∂y, return dx = ∂L/∂x.",
    "backward(x, dy)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)))),
    hints=("x is used twice.", "Each use brings a gradient.", "They add up."), fact="The first term lets gradients through undamped, whatever the branch does.",
    outputs=("dx",), example=(np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]])),
    reference=lambda x, dy: (lambda x: jnp.sum((x + tanh_forward(x)[0]) * dy), x),
)  # fmt: skip

TASKS = (
    LINEAR_BACKWARD, TWO_LAYER_NETWORK, LINEAR_JACOBIAN, SKIP_BACKWARD,
    repair("repair-linear-batch", "Divided twice", LINEAR_BACKWARD, 0),
    repair("repair-linear-bias", "A bias for the whole batch", LINEAR_BACKWARD, 1),
    repair("repair-linear-sample", "One sample of many", LINEAR_BACKWARD, 7),
    repair("repair-network-relu", "A hidden layer", TWO_LAYER_NETWORK, 0),
    repair("repair-network-sigmoid", "A slope too many", TWO_LAYER_NETWORK, 3),
    repair("repair-network-operand", "The wrong hidden array", TWO_LAYER_NETWORK, 7),
    repair("repair-network-update", "Weights read too late", TWO_LAYER_NETWORK, 8),
    repair("repair-skip", "A path that doesn't count", SKIP_BACKWARD, 0),
    predict("predict-chain", "A chain of two", SECTION,
            "L = (σ(w x) − 1)² with w = 0.5 and x = 2. What is ∂L/∂w?",
            fact="Three factors: the loss's, the sigmoid's, and the input.", hints=("Name the three functions in the chain.", "w x is 1.", "Multiply the three derivatives.")),
)  # fmt: skip
