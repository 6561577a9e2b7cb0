"""Solutions of the exercises on activations, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "sigmoid-forward": Answers(
        """\
import numpy as np

def forward(z):
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + small), small / (1 + small))
""",
        (
            Mistake(
                "sign",
                "1 / (1 + small), small / (1 + small)",
                "small / (1 + small), 1 / (1 + small)",
                "The curve falls where it should rise: σ(z) tends to 1 for large z.",
            ),
        ),
    ),
    "sigmoid-backward": Answers(
        """\
import numpy as np

def backward(a, da):
    dz = da * a * (1 - a)
    return dz
""",
        (
            Mistake(
                "activation_derivative",
                "da * a * (1 - a)",
                "da",
                "The derivative of the activation is left out: da comes through unchanged.",
            ),
            Mistake(
                "activation_derivative",
                "a * (1 - a)",
                "1 / (1 + np.exp(-a)) * (1 - 1 / (1 + np.exp(-a)))",
                "The sigmoid is applied to a once more: a is already its output.",
            ),
            Mistake(
                "activation_derivative",
                "da * a * (1 - a)",
                "a * (1 - a)",
                "The cotangent da is left out: the chain rule multiplies by it.",
            ),
            Mistake(
                "activation_derivative",
                "a * (1 - a)",
                "(1 - a)",
                "One of the two factors of the derivative is missing: check it at a = 0.",
            ),
            Mistake(
                "activation_derivative",
                "a * (1 - a)",
                "(1 - a**2)",
                "That is the derivative of another activation, tanh.",
            ),
            Mistake("sign", "(1 - a)", "(a - 1)", "Every entry has the other sign: the sigmoid rises everywhere."),
            Mistake(
                "activation_derivative",
                "a * (1 - a)",
                "a",
                "One of the two factors of the derivative is missing: check it at a = 1.",
            ),
        ),
    ),
    "tanh-backward": Answers(
        """\
import numpy as np

def backward(a, da):
    dz = da * (1 - a**2)
    return dz
""",
        (
            Mistake(
                "activation_derivative",
                "da * (1 - a**2)",
                "da",
                "The derivative of the activation is left out: da comes through unchanged.",
            ),
            Mistake(
                "activation_derivative",
                "1 - a**2",
                "1 - np.tanh(a) ** 2",
                "tanh is applied once more: a is already its output.",
            ),
            Mistake(
                "activation_derivative",
                "1 - a**2",
                "1 - a",
                "The derivative has another power of a: it is the same for a and −a.",
            ),
            Mistake(
                "activation_derivative",
                "1 - a**2",
                "a * (1 - a)",
                "That is the derivative of another activation, the sigmoid.",
            ),
            Mistake(
                "activation_derivative",
                "da * (1 - a**2)",
                "1 - a**2",
                "The cotangent da is left out: the chain rule multiplies by it.",
            ),
            Mistake("activation_derivative", "1 - a**2", "1 + a**2", "The derivative is never above 1: check a sign."),
            Mistake(
                "activation_derivative",
                "(1 - a**2)",
                "(1 - a) ** 2",
                "The derivative at a = −1 is 0: which part is squared?",
            ),
        ),
    ),
    "relu-backward": Answers(
        """\
import numpy as np

def backward(z, da):
    dz = np.where(z > 0, da, 0.0)
    return dz
""",
        (
            Mistake(
                "activation_derivative",
                "np.where(z > 0, da, 0.0)",
                "da",
                "The derivative of the activation is left out: da comes through unchanged.",
            ),
            Mistake(
                "kink",
                "z > 0",
                "z >= 0",
                "Only entries with z = 0 differ: which value does the statement give the derivative there?",
            ),
            Mistake("mask", "z > 0", "z < 0", "The mask is inverted: the gradient passes where the unit is off."),
            Mistake("mask", "z > 0, da", "da > 0, da", "The mask is taken from da. What decides whether a unit is on?"),
            Mistake(
                "activation_derivative",
                "da, 0.0",
                "1.0, 0.0",
                "The cotangent da is left out: the chain rule multiplies by it.",
            ),
            Mistake(
                "activation_derivative", "da, 0.0", "da * z, 0.0", "ReLU's value stands where its derivative belongs."
            ),
            Mistake(
                "activation_derivative",
                "np.where(z > 0, da, 0.0)",
                "da * z",
                "The input stands where the derivative belongs.",
            ),
            Mistake(
                "wrong_operand",
                "da, 0.0",
                "z, 0.0",
                "That is the value of ReLU: the cotangent da is left out.",
            ),
        ),
    ),
    "leaky-relu-backward": Answers(
        """\
import numpy as np

def backward(z, da, alpha):
    dz = np.where(z > 0, da, alpha * da)
    return dz
""",
        (
            Mistake(
                "activation_derivative",
                "alpha * da",
                "0.0",
                "Units that are off get no gradient: that is ReLU without its leak.",
            ),
            Mistake(
                "activation_derivative", "alpha * da", "alpha", "Where z is negative, the cotangent da is left out."
            ),
            Mistake(
                "activation_derivative",
                "alpha * da",
                "alpha * z",
                "Where z is negative, the activation's value stands in place of its derivative.",
            ),
            Mistake("mask", "z > 0", "z < 0", "The two slopes are exchanged."),
            Mistake(
                "kink", "z > 0", "z >= 0", "Only entries with z = 0 differ: which slope does the statement give there?"
            ),
        ),
    ),
    "softmax-forward": Answers(
        """\
import numpy as np

def forward(z):
    shifted = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return shifted / np.sum(shifted, axis=-1, keepdims=True)
""",
        (
            Mistake(
                "wrong_axis",
                "np.sum(shifted, axis=-1, keepdims=True)",
                "np.sum(shifted)",
                "The sum runs over the whole batch: each row has to sum to 1.",
            ),
            Mistake(
                "wrong_axis",
                "np.sum(shifted, axis=-1, keepdims=True)",
                "np.sum(shifted, axis=0, keepdims=True)",
                "The sum runs over the batch: each row has to sum to 1.",
            ),
            Mistake(
                "nonfinite",
                "z - np.max(z, axis=-1, keepdims=True)",
                "z",
                "The exponential overflows for large logits. What may be subtracted from a row without changing the result?",
            ),
        ),
    ),
    "softmax-backward": Answers(
        """\
import numpy as np

def backward(p, dp):
    inner = np.sum(p * dp, axis=-1, keepdims=True)
    dz = p * (dp - inner)
    return dz
""",
        (
            Mistake(
                "activation_derivative",
                "p * (dp - inner)",
                "dp * p * (1 - p)",
                "Only the diagonal of the Jacobian is there: each output depends on all inputs of its row.",
            ),
            Mistake(
                "activation_derivative",
                "p * (dp - inner)",
                "dp",
                "The derivative of the activation is left out: dp comes through unchanged.",
            ),
            Mistake(
                "wrong_axis",
                "axis=-1, keepdims=True",
                "axis=0, keepdims=True",
                "The sum runs over the batch: which entries meet in softmax?",
            ),
            Mistake(
                "wrong_axis",
                "np.sum(p * dp, axis=-1, keepdims=True)",
                "np.sum(p * dp)",
                "The sum runs over all samples: rows don't meet in softmax.",
            ),
            Mistake(
                "lost_path",
                "p * (dp - inner)",
                "p * dp",
                "One term is missing: raising one logit lowers the other probabilities.",
            ),
            Mistake("sign", "dp - inner", "inner - dp", "Every entry has the other sign."),
            Mistake(
                "sign",
                "dp - inner",
                "dp + inner",
                "The second term has the wrong sign: the entries of a row of dz sum to 0.",
            ),
            Mistake(
                "wrong_operand",
                "np.sum(p * dp, axis=-1, keepdims=True)",
                "np.sum(dp, axis=-1, keepdims=True)",
                "The sum over the row has a factor too few.",
            ),
            Mistake(
                "wrong_operand",
                "np.sum(p * dp, axis=-1, keepdims=True)",
                "np.mean(p * dp, axis=-1, keepdims=True)",
                "A mean stands where a sum belongs.",
            ),
            Mistake(
                "activation_derivative",
                "p * (dp - inner)",
                "dp - inner",
                "A factor of the Jacobian is missing: what happens to a class of probability 0?",
            ),
        ),
    ),
    "softmax-jacobian": Answers(
        """\
import numpy as np

def jacobian(p):
    return np.diag(p) - np.outer(p, p)
""",
        (
            Mistake(
                "lost_path",
                " - np.outer(p, p)",
                " - np.diag(p**2)",
                "Only the diagonal is there: other entries of the row depend on z_k too.",
            ),
            Mistake(
                "sign", "np.diag(p) - np.outer(p, p)", "np.outer(p, p) - np.diag(p)", "Every entry has the other sign."
            ),
            Mistake("lost_path", "np.diag(p) - ", "-", "The entries with j = k have a term more."),
        ),
    ),
    "sigmoid-jacobian": Answers(
        """\
import numpy as np

def jacobian(a):
    return np.diag(a * (1 - a))
""",
        (
            Mistake(
                "activation_derivative",
                "np.diag(a * (1 - a))",
                "np.outer(a, 1 - a)",
                "Entries with j ≠ k are 0: an activation acts on each entry alone.",
            ),
            Mistake(
                "shape",
                "np.diag(a * (1 - a))",
                "a * (1 - a)",
                "A Jacobian is a matrix: one row for each output, one column for each input.",
            ),
        ),
    ),
    "predict-sigmoid-slope": Answers(
        """\
def answer():
    return 0.5 * (1 - 0.5)
""",
    ),
    "predict-softmax-shift": Answers(
        """\
import numpy as np


def answer():
    e = np.exp(np.array([2.0, 1.0, 0.1]) + 5 - 7)
    return e[0] / e.sum()
""",
    ),
    "predict-activation-choice": Answers(
        """\
import numpy as np

def answer():
    z = -3.0
    a = 1 / (1 + np.exp(-z))
    slopes = {"sigmoid": a * (1 - a), "tanh": 1 - np.tanh(z) ** 2, "relu": float(z > 0), "leaky_relu": 0.01}
    return min(slopes, key=slopes.get)
""",
    ),
}
