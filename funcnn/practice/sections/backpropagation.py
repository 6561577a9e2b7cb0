"""Exercises on backpropagation through layers."""

import numpy as np

from funcnn.practice.sections._builders import SHAPES, batches, predict, repair, write
from funcnn.practice.task import Mistake

SECTION = "Backpropagation"

LINEAR_BACKWARD = write(
    "linear-backward", "The backward pass of a linear layer", SECTION,
    """
    y = x kernel + bias: x (batch, inputs), kernel (inputs, outputs), bias (outputs,). Given x, kernel and dy = ∂L/∂y
    (batch, outputs), return (dkernel, dbias, dx), each of the shape of its variable. The loss has taken its mean already.
    """,
    """
    import numpy as np

    def backward(x, kernel, dy):
        dkernel = x.T @ dy
        dbias = np.sum(dy, axis=0)
        dx = dy @ kernel.T
        return dkernel, dbias, dx
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(f, 3)), r.normal(size=(n, 3)))),
    hints=("Each gradient has the shape of its variable: which product gives it?", "One of the two matrices is transposed each time.",
           "The bias is added to every sample, so its gradient is a sum over them."),
    fact="Three shapes leave only one product each; the backward pass costs twice the forward pass.",
    outputs=("dkernel", "dbias", "dx"), example=(np.array([[1.0, 2.0]]), np.array([[1.0], [3.0]]), np.array([[0.5]])),
    mistakes=[
        Mistake("scaled", "x.T @ dy", "x.T @ dy / x.shape[0]", "dkernel is divided by the batch size: the loss has taken its mean already, and dy carries it."),
        Mistake("wrong_axis", "np.sum(dy, axis=0)", "np.mean(dy, axis=0)", "dbias is a mean over the batch: every sample uses the same bias, so what do their gradients do?"),
        Mistake("wrong_axis", "np.sum(dy, axis=0)", "np.sum(dy, axis=1)[: dy.shape[1]]", "dbias is summed along the wrong axis."),
        Mistake("scaled", "dkernel = x.T @ dy\\n    dbias = np.sum(dy, axis=0)".replace("\\n", "\n"), "dkernel = x.T @ dy / x.shape[0]\n    dbias = np.mean(dy, axis=0)",
                "dkernel and dbias are divided by the batch size: the loss has taken its mean already, and dy carries it."),
        Mistake("sign", "dy @ kernel.T", "-dy @ kernel.T", "dx has the other sign."),
        Mistake("wrong_operand", "x.T @ dy", "np.abs(x).T @ dy", "dkernel takes something other than x."),
        Mistake("subset_of_batch", "np.sum(dy, axis=0)", "dy[0]", "dbias counts the first sample only."),
        Mistake("subset_of_batch", "x.T @ dy", "np.outer(x[0], dy[0])", "dkernel counts the first sample only."),
    ],
)  # fmt: skip


def _network(random):
    inputs = []
    for n, f in SHAPES:
        params = tuple(random.normal(size=shape) for shape in ((f, 4), (4,), (4, 1), (1,)))
        inputs.append((params, random.normal(size=(n, f)), random.integers(0, 2, size=(n, 1)).astype(float)))
    return (inputs,)


TWO_LAYER_NETWORK = write(
    "two-layer-network", "The gradients of a network", SECTION,
    """
    z1 = x W1 + b1, a1 = max(0, z1), z2 = a1 W2 + b2, p = σ(z2), L = −mean(y log p + (1 − y) log(1 − p)) over all entries.
    params = (W1, b1, W2, b2) with W1 (features, hidden), W2 (hidden, 1); x (batch, features), y (batch, 1) of 0 and 1.
    Return the gradients of L in the same order.
    """,
    """
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
    inputs=_network,
    hints=("Run the forward pass and keep z1 and a1.", "Sigmoid and cross-entropy together leave a difference.",
           "Go back layer by layer: product with the kernel transposed, then the ReLU's mask."),
    fact="The whole backward pass is three products: fnn.manual_value_and_grad chains the layers' own in the same order.",
    outputs=("dW1", "db1", "dW2", "db2"),
    mistakes=[
        Mistake("activation_derivative", " * (z1 > 0)", "", "dW1 and db1: the derivative of the hidden layer's activation is left out."),
        Mistake("scaled", " / y.size", "", "Every gradient is too large by the batch size: the mean is not differentiated."),
        Mistake("sign", "(p - y)", "(y - p)", "Every gradient has the other sign."),
        Mistake("activation_derivative", "(p - y) / y.size", "(p - y) * p * (1 - p) / y.size", "The sigmoid's slope is multiplied in once more: cross-entropy cancels it."),
        Mistake("activation_derivative", "(z1 > 0)", "a1", "ReLU's value stands where its derivative belongs."),
        Mistake("activation_derivative", "(z1 > 0)", "a1 * (1 - a1)", "The hidden layer's slope is that of another activation."),
        Mistake("wrong_operand", "dw1, db1 = x.T @ dz1, dz1.sum(axis=0)", "dw1, db1 = x.T @ dz1, dz1.mean(axis=0)", "db1 is a mean over the batch where a sum belongs."),
        Mistake("wrong_operand", "dw2, db2 = a1.T @ dz2", "dw2, db2 = z1.T @ dz2", "dW2 takes the hidden layer before its activation."),
        Mistake("updated_weights", "dz1 = (dz2 @ w2.T)", "dz1 = (dz2 @ (w2 - 0.1 * dw2).T)", "The kernel of the second layer is read after its update."),
        Mistake("scaled", "(p - y) / y.size", "2 * (p - y) / y.size", "Every gradient is twice the right one: that factor belongs to a square, which this loss hasn't."),
        Mistake("wrong_operand", "db2 = a1.T @ dz2, dz2.sum(axis=0)", "db2 = a1.T @ dz2, dz2.mean(axis=0)", "db2 is a mean over the batch where a sum belongs."),
    ],
)  # fmt: skip

LINEAR_JACOBIAN = write(
    "linear-jacobian", "The Jacobian of a linear map", SECTION,
    "y = x kernel for one vector x (inputs,) and kernel (inputs, outputs). Return J (outputs, inputs), J[j, i] = ∂y_j/∂x_i.",
    """
    import numpy as np

    def jacobian(x, kernel):
        return np.transpose(kernel).copy()
    """,
    inputs=lambda r: ([(r.normal(size=i), r.normal(size=(i, o))) for i, o in ((3, 2), (2, 4), (3, 3))],),
    hints=("Write y_j as a sum.", "Which entry of the kernel multiplies x_i in y_j?", "Compare the order of the indices."),
    fact="It doesn't depend on x, so a linear layer needs its input for dkernel only.", outputs=("J",), kind="derive",
    mistakes=[Mistake("transposed", "np.transpose(kernel).copy()", "kernel.copy()", "Rows and columns are exchanged: outputs are the rows.")],
)  # fmt: skip

SKIP_BACKWARD = write(
    "skip-backward", "The backward pass of a residual connection", SECTION,
    "y = x + tanh(x) for each entry of x (batch, features). Given x and dy, return dx.",
    """
    import numpy as np

    def backward(x, dy):
        return dy + dy * (1 - np.tanh(x) ** 2)
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)))),
    hints=("x is used twice.", "Each use brings a gradient.", "They add up."), fact="The first term lets gradients through undamped, whatever the branch does.",
    outputs=("dx",), example=(np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]])),
    mistakes=[
        Mistake("lost_use", "dy + dy * ", "dy * ", "One of the two uses of x doesn't count."),
        Mistake("lost_use", "dy + dy * (1 - np.tanh(x) ** 2)", "dy", "The branch doesn't count."),
        Mistake("activation_derivative", "(1 - np.tanh(x) ** 2)", "np.tanh(x)", "The activation's value stands where its derivative belongs."),
        Mistake("activation_derivative", "np.tanh(x) ** 2", "x ** 2", "The derivative is written by the output of tanh, and x is its input."),
    ],
)  # fmt: skip

TASKS = (
    LINEAR_BACKWARD, TWO_LAYER_NETWORK, LINEAR_JACOBIAN, SKIP_BACKWARD,
    repair("repair-linear-batch", "Divided twice", LINEAR_BACKWARD, 0),
    repair("repair-linear-bias", "A bias for the whole batch", LINEAR_BACKWARD, 1),
    repair("repair-linear-sample", "One sample of many", LINEAR_BACKWARD, 7),
    repair("repair-network-relu", "A layer passed by", TWO_LAYER_NETWORK, 0),
    repair("repair-network-sigmoid", "A slope too many", TWO_LAYER_NETWORK, 3),
    repair("repair-network-operand", "The wrong hidden array", TWO_LAYER_NETWORK, 7),
    repair("repair-network-update", "Weights read too late", TWO_LAYER_NETWORK, 8),
    repair("repair-skip", "A path that doesn't count", SKIP_BACKWARD, 0),
    predict("predict-chain", "A chain of two", SECTION,
            "L = (σ(w x) − 1)² with w = 0.5 and x = 2. What is ∂L/∂w?",
            "import numpy as np\n\n\ndef answer():\n    a = 1 / (1 + np.exp(-1.0))\n    return 2 * (a - 1) * a * (1 - a) * 2.0",
            fact="Three factors: the loss's, the sigmoid's, and the input.", hints=("Name the three functions in the chain.", "w x is 1.", "Multiply the three derivatives.")),
)  # fmt: skip
