"""Solutions of the exercises on vanishing gradients, and what people get wrong in them."""

from funcnn.practice.task import Answers, Mistake

SOLUTIONS = {
    "batch-norm-forward": Answers(
        """\
import numpy as np

def forward(x, scale, bias, epsilon):
    return scale * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon) + bias
""",
        (
            Mistake(
                "wrong_axis",
                "x.mean(axis=0)) / np.sqrt(x.var(axis=0)",
                "x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True)",
                "The statistics run over the features: that is layer normalization.",
            ),
            Mistake(
                "normalization_term",
                "np.sqrt(x.var(axis=0) + epsilon)",
                "(x.std(axis=0) + epsilon)",
                "ε stands outside the root.",
            ),
            Mistake(
                "normalization_term",
                "np.sqrt(x.var(axis=0) + epsilon)",
                "(x.var(axis=0) + epsilon)",
                "The root is missing.",
            ),
        ),
    ),
    "batch-norm-backward": Answers(
        """\
import numpy as np

def backward(x, scale, dy, epsilon):
    inverse = 1 / np.sqrt(np.var(x, axis=0) + epsilon)
    normalized = (x - np.mean(x, axis=0)) * inverse
    dscale = np.sum(dy * normalized, axis=0)
    dbias = np.sum(dy, axis=0)
    d = dy * scale
    dx = inverse * (d - np.mean(d, axis=0) - normalized * np.mean(d * normalized, axis=0))
    return dx, dscale, dbias
""",
        (
            Mistake(
                "normalization_term",
                " - normalized * np.mean(d * normalized, axis=0)",
                "",
                "dx: the path through the variance is left out.",
            ),
            Mistake(
                "normalization_term", "d - np.mean(d, axis=0) - ", "d - ", "dx: the path through the mean is left out."
            ),
            Mistake(
                "normalization_term",
                "(d - np.mean(d, axis=0) - normalized * np.mean(d * normalized, axis=0))",
                "d",
                "dx: μ and v are taken for constants, and both depend on x.",
            ),
            Mistake("lost_path", "d = dy * scale", "d = dy", "dx: the scale is left out of the chain."),
            Mistake(
                "wrong_operand",
                "np.sum(dy * normalized, axis=0)",
                "np.sum(dy * x, axis=0)",
                "dscale takes x where the normalized value belongs.",
            ),
            Mistake(
                "wrong_axis",
                "dbias = np.sum(dy, axis=0)",
                "dbias = np.mean(dy, axis=0)",
                "dbias is a mean over the batch where a sum belongs.",
            ),
            Mistake(
                "wrong_operand",
                "dscale = np.sum(",
                "dscale = np.mean(",
                "dscale is a mean over the batch where a sum belongs.",
            ),
            Mistake(
                "lost_path",
                "dx = inverse * (",
                "dx = (",
                "dx: the division by the standard deviation is left out of the chain.",
            ),
            Mistake(
                "normalization_term", "np.var(x, axis=0) + epsilon", "np.var(x, axis=0)", "ε is left out of the root."
            ),
            Mistake(
                "normalization_term",
                "1 / np.sqrt(np.var(x, axis=0) + epsilon)",
                "1 / (np.sqrt(np.var(x, axis=0)) + epsilon)",
                "ε stands outside the root.",
            ),
            Mistake(
                "normalization_term",
                "np.var(x, axis=0)",
                "np.var(x, axis=0) * len(x) / max(len(x) - 1, 1)",
                "The variance is the unbiased one: the statement divides by the batch size.",
            ),
            Mistake(
                "sign",
                "- normalized * np.mean",
                "+ normalized * np.mean",
                "dx: the path through the variance has the wrong sign.",
            ),
            Mistake(
                "scaled_path",
                "np.mean(d * normalized, axis=0)",
                "np.sum(d * normalized, axis=0)",
                "dx: a sum stands where a mean belongs, in the path through the variance.",
            ),
            Mistake(
                "scaled_path",
                "np.mean(d, axis=0)",
                "np.sum(d, axis=0)",
                "dx: a sum stands where a mean belongs, in the path through the mean.",
            ),
        ),
    ),
    "clip-by-global-norm": Answers(
        """\
import numpy as np

def clip(gradients, limit):
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    factor = limit / norm if norm > limit else 1.0
    return tuple(g * factor for g in gradients)
""",
        (
            Mistake(
                "clipped",
                "tuple(g * factor for g in gradients)",
                "tuple(np.clip(g, -limit, limit) for g in gradients)",
                "Each entry is clipped alone: that changes the direction.",
            ),
            Mistake(
                "clipped",
                "tuple(g * factor for g in gradients)",
                "tuple(g * min(1.0, limit / max(np.sqrt(np.sum(g**2)), 1e-300)) for g in gradients)",
                "Each array is clipped by its own norm: the statement has one norm for all.",
            ),
            Mistake(
                "normalized",
                "limit / norm if norm > limit else 1.0",
                "limit / norm if norm > 0 else 1.0",
                "Small gradients are stretched to the limit: those below it stay.",
            ),
            Mistake(
                "nonfinite",
                "limit / norm if norm > limit else 1.0",
                "limit / norm",
                "Small gradients are stretched to the limit, and zeros divide by zero.",
            ),
            Mistake("normalized", "limit / norm if", "1 / norm if", "Large gradients end at norm 1, not at the limit."),
            Mistake(
                "wrong_operand",
                "np.sqrt(sum(np.sum(g**2) for g in gradients))",
                "sum(np.sqrt(np.sum(g**2)) for g in gradients)",
                "The norms of the arrays are added: norms don't add, squares do.",
            ),
            Mistake(
                "wrong_operand",
                "np.sqrt(sum(np.sum(g**2) for g in gradients))",
                "sum(np.sum(g**2) for g in gradients)",
                "The root is missing from the norm.",
            ),
            Mistake(
                "wrong_operand",
                "np.sqrt(sum(np.sum(g**2) for g in gradients))",
                "max(np.max(np.abs(g)) for g in gradients)",
                "That is the largest entry, not the norm.",
            ),
            Mistake(
                "wrong_operand",
                "np.sqrt(sum(np.sum(g**2) for g in gradients))",
                "max(np.sqrt(np.sum(g**2)) for g in gradients)",
                "The largest of the arrays' norms is taken: the global one counts all squares.",
            ),
            Mistake("lost_path", "norm > limit else 1.0", "False else 1.0", "Nothing is clipped."),
            Mistake(
                "wrong_operand",
                "np.sqrt(sum(np.sum(g**2) for g in gradients))",
                "sum(np.sum(np.abs(g)) for g in gradients)",
                "The norm is that of absolute values, not of squares.",
            ),
        ),
    ),
    "he-scale": Answers(
        """\
import numpy as np

def scales(inputs, outputs):
    return np.sqrt(2 / inputs), np.sqrt(2 / (inputs + outputs))
""",
        (
            Mistake(
                "wrong_operand",
                "np.sqrt(2 / inputs)",
                "np.sqrt(1 / inputs)",
                "ReLU turns half of the units off: He's variance makes up for it.",
            ),
            Mistake(
                "wrong_operand",
                "np.sqrt(2 / inputs)",
                "2 / inputs",
                "That is the variance: the standard deviation is its root.",
            ),
            Mistake(
                "wrong_operand",
                "np.sqrt(2 / inputs)",
                "np.sqrt(2 / outputs)",
                "He's scale counts the other side of the kernel.",
            ),
        ),
    ),
    "predict-vanishing": Answers(
        """\
def answer():
    return 0.25**10
""",
    ),
    "predict-which-vanishes": Answers(
        """\
import numpy as np

def answer():
    functions = {"sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
                 "tanh": (np.tanh, lambda a: 1 - a**2), "relu": (lambda z: max(z, 0.0), lambda a: float(a > 0))}
    left = {}
    for name, (function, slope) in functions.items():
        a, gradient = 0.5, 1.0
        for _ in range(20):
            a = function(a)
            gradient *= slope(a)
        left[name] = gradient
    return min(left, key=left.get)
""",
    ),
}
