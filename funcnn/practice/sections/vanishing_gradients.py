"""Exercises on vanishing and exploding gradients, initialization, normalization and clipping."""

import numpy as np

from funcnn.practice.sections._builders import batches, predict, repair, write
from funcnn.practice.task import Mistake

SECTION = "Vanishing and exploding gradients"

BATCH_NORM_FORWARD = write(
    "batch-norm-forward", "Batch normalization", SECTION,
    """
    For each feature, over the batch: μ the mean, v the biased variance (the mean of squared deviations),
    y = scale (x − μ) / √(v + epsilon) + bias. x (batch, features), scale and bias (features,).
    """,
    """
    import numpy as np

    def forward(x, scale, bias, epsilon):
        return scale * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon) + bias
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=f), r.normal(size=f), 1e-3)),
    hints=("Statistics over the batch.", "ε stands inside the root.", "Scale and bias come last."), fact="A batch of one gives its bias: nothing of x is left.",
    outputs=("y",),
    mistakes=[
        Mistake("wrong_axis", "x.mean(axis=0)) / np.sqrt(x.var(axis=0)", "x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True)", "The statistics run over the features: that is layer normalization."),
        Mistake("normalization_term", "np.sqrt(x.var(axis=0) + epsilon)", "(x.std(axis=0) + epsilon)", "ε stands outside the root."),
        Mistake("normalization_term", "np.sqrt(x.var(axis=0) + epsilon)", "(x.var(axis=0) + epsilon)", "The root is missing."),
    ],
)  # fmt: skip

BATCH_NORM_BACKWARD = write(
    "batch-norm-backward", "The backward pass of batch normalization", SECTION,
    """
    For each feature, over the batch: μ the mean, v the biased variance, x̂ = (x − μ) / √(v + epsilon), y = scale x̂ + bias.
    Given x, scale (features,), dy (batch, features) and epsilon, return (dx, dscale, dbias). μ and v depend on x.
    """,
    """
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
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=f), r.normal(size=(n, f)), 1e-3)),
    hints=("dscale and dbias are sums over the batch.", "x reaches y by three paths: directly, through μ and through v.",
           "The paths through μ and v each subtract a mean over the batch."),
    fact="Each column of dx sums to 0 and is nearly orthogonal to x̂: shifting or stretching a feature changes nothing.",
    outputs=("dx", "dscale", "dbias"),
    mistakes=[
        Mistake("normalization_term", " - normalized * np.mean(d * normalized, axis=0)", "", "dx: the path through the variance is left out."),
        Mistake("normalization_term", "d - np.mean(d, axis=0) - ", "d - ", "dx: the path through the mean is left out."),
        Mistake("normalization_term", "(d - np.mean(d, axis=0) - normalized * np.mean(d * normalized, axis=0))", "d", "dx: μ and v are taken for constants, and both depend on x."),
        Mistake("lost_path", "d = dy * scale", "d = dy", "dx: the scale is left out of the chain."),
        Mistake("wrong_operand", "np.sum(dy * normalized, axis=0)", "np.sum(dy * x, axis=0)", "dscale takes x where the normalized value belongs."),
        Mistake("wrong_axis", "dbias = np.sum(dy, axis=0)", "dbias = np.mean(dy, axis=0)", "dbias is a mean over the batch where a sum belongs."),
        Mistake("wrong_operand", "dscale = np.sum(", "dscale = np.mean(", "dscale is a mean over the batch where a sum belongs."),
        Mistake("lost_path", "dx = inverse * (", "dx = (", "dx: the division by the standard deviation is left out of the chain."),
        Mistake("normalization_term", "np.var(x, axis=0) + epsilon", "np.var(x, axis=0)", "ε is left out of the root."),
        Mistake("normalization_term", "1 / np.sqrt(np.var(x, axis=0) + epsilon)", "1 / (np.sqrt(np.var(x, axis=0)) + epsilon)", "ε stands outside the root."),
        Mistake("normalization_term", "np.var(x, axis=0)", "np.var(x, axis=0) * len(x) / max(len(x) - 1, 1)", "The variance is the unbiased one: the statement divides by the batch size."),
        Mistake("sign", "- normalized * np.mean", "+ normalized * np.mean", "dx: the path through the variance has the wrong sign."),
        Mistake("scaled_path", "np.mean(d * normalized, axis=0)", "np.sum(d * normalized, axis=0)", "dx: a sum stands where a mean belongs, in the path through the variance."),
        Mistake("scaled_path", "np.mean(d, axis=0)", "np.sum(d, axis=0)", "dx: a sum stands where a mean belongs, in the path through the mean."),
    ],
)  # fmt: skip

CLIP = write(
    "clip-by-global-norm", "Clipping by the global norm", SECTION,
    """
    gradients is a tuple of arrays. With N the root of the sum of all squares over all arrays: where N > limit, multiply every
    array by limit / N; otherwise leave them. Return a tuple in the same order.
    """,
    """
    import numpy as np

    def clip(gradients, limit):
        norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
        factor = limit / norm if norm > limit else 1.0
        return tuple(g * factor for g in gradients)
    """,
    inputs=lambda r: ([((s * r.normal(size=(3, 2)), s * r.normal(size=(2, 4))), 1.0) for s in (5.0, 0.01, 1.0, 0.3)]
                      + [((np.zeros((2, 2)), np.zeros((2, 1))), 1.0), ((np.full((2, 2), 0.4), np.full((2, 2), 0.4)), 1.0),
                         ((np.full((2, 2), 3.0), np.full((2, 1), -0.01)), 2.0)],),
    hints=("One norm for all arrays.", "One factor for all arrays.", "A gradient below the limit is left alone, and so is zero."),
    fact="The direction is kept, which clipping each entry doesn't do: fnn.clip_by_global_norm is optax's.", outputs=("gradients[0]", "gradients[1]"),
    mistakes=[
        Mistake("clipped", "tuple(g * factor for g in gradients)", "tuple(np.clip(g, -limit, limit) for g in gradients)", "Each entry is clipped alone: that changes the direction."),
        Mistake("clipped", "tuple(g * factor for g in gradients)", "tuple(g * min(1.0, limit / max(np.sqrt(np.sum(g**2)), 1e-300)) for g in gradients)", "Each array is clipped by its own norm: the statement has one norm for all."),
        Mistake("normalized", "limit / norm if norm > limit else 1.0", "limit / norm if norm > 0 else 1.0", "Small gradients are stretched to the limit: those below it stay."),
        Mistake("nonfinite", "limit / norm if norm > limit else 1.0", "limit / norm", "Small gradients are stretched to the limit, and zeros divide by zero."),
        Mistake("normalized", "limit / norm if", "1 / norm if", "Large gradients end at norm 1, not at the limit."),
        Mistake("wrong_operand", "np.sqrt(sum(np.sum(g**2) for g in gradients))", "sum(np.sqrt(np.sum(g**2)) for g in gradients)", "The norms of the arrays are added: norms don't add, squares do."),
        Mistake("wrong_operand", "np.sqrt(sum(np.sum(g**2) for g in gradients))", "sum(np.sum(g**2) for g in gradients)", "The root is missing from the norm."),
        Mistake("wrong_operand", "np.sqrt(sum(np.sum(g**2) for g in gradients))", "max(np.max(np.abs(g)) for g in gradients)", "That is the largest entry, not the norm."),
        Mistake("wrong_operand", "np.sqrt(sum(np.sum(g**2) for g in gradients))", "max(np.sqrt(np.sum(g**2)) for g in gradients)", "The largest of the arrays' norms is taken: the global one counts all squares."),
        Mistake("lost_path", "norm > limit else 1.0", "False else 1.0", "Nothing is clipped."),
        Mistake("wrong_operand", "np.sqrt(sum(np.sum(g**2) for g in gradients))", "sum(np.sum(np.abs(g)) for g in gradients)", "The norm is that of absolute values, not of squares."),
    ],
)  # fmt: skip

HE_SCALE = write(
    "he-scale", "The scale of an initializer", SECTION,
    """
    Return the two standard deviations (he, xavier) for a kernel (inputs, outputs): He's, for ReLU, √(2 / inputs), and
    Xavier's, for tanh, √(2 / (inputs + outputs)).
    """,
    """
    import numpy as np

    def scales(inputs, outputs):
        return np.sqrt(2 / inputs), np.sqrt(2 / (inputs + outputs))
    """,
    inputs=lambda r: ([(4, 9), (784, 128), (1, 1), (30, 2)],),
    hints=("Two roots.", "He counts what comes in.", "Xavier counts both sides."), fact="The 2 in He's makes up for the half of the units that ReLU turns off.",
    outputs=("he", "xavier"),
    mistakes=[
        Mistake("wrong_operand", "np.sqrt(2 / inputs)", "np.sqrt(1 / inputs)", "ReLU turns half of the units off: He's variance makes up for it."),
        Mistake("wrong_operand", "np.sqrt(2 / inputs)", "2 / inputs", "That is the variance: the standard deviation is its root."),
        Mistake("wrong_operand", "np.sqrt(2 / inputs)", "np.sqrt(2 / outputs)", "He's scale counts the other side of the kernel."),
    ],
)  # fmt: skip

TASKS = (
    HE_SCALE, BATCH_NORM_FORWARD, BATCH_NORM_BACKWARD, CLIP,
    repair("repair-he-scale", "Half of the variance", HE_SCALE, 0),
    repair("repair-batch-norm-axis", "Statistics over the wrong axis", BATCH_NORM_FORWARD, 0),
    repair("repair-batch-norm-variance", "A path through the variance", BATCH_NORM_BACKWARD, 0),
    repair("repair-batch-norm-mean", "A path through the mean", BATCH_NORM_BACKWARD, 1),
    repair("repair-batch-norm-scale", "A scale left behind", BATCH_NORM_BACKWARD, 3),
    repair("repair-clip-each", "Clipped one by one", CLIP, 1),
    repair("repair-clip-small", "Small gradients made large", CLIP, 2),
    predict("predict-vanishing", "Ten sigmoid layers", SECTION,
            "Every sigmoid shrinks a gradient by at least its largest slope. By which factor do ten of them shrink it at least? (kernels apart)",
            "def answer():\n    return 0.25**10", fact="Below a millionth: the first layer hardly learns.",
            hints=("What is the largest slope?", "It multiplies once for each layer.", "Ten times.")),
    predict("predict-which-vanishes", "Where the gradient is smallest", SECTION,
            "A chain of 20 units with weight 1 each starts at z = 0.5. Which activation leaves the smallest gradient: 'sigmoid', 'tanh' or 'relu'?",
            """
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
            """, fact="tanh has slope 1 at 0, so it shrinks far less.", hints=("Multiply 20 slopes.", "Compare the largest slopes.", "One of them never exceeds ¼.")),
)  # fmt: skip
