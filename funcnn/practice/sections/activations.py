"""Exercises on activation functions."""

import numpy as np

from funcnn.practice.sections._builders import batches, predict, repair, write
from funcnn.practice.task import Mistake

SECTION = "Activation functions"
_NUDGE = "Write the derivative of one entry on paper first. The batch brings nothing new: entries don't meet."


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _softmax(z):
    shifted = np.exp(z - z.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def _pair(change):
    return lambda random, n, f: (change(2 * random.normal(size=(n, f))), random.normal(size=(n, f)))


SIGMOID_FORWARD = write(
    "sigmoid-forward", "The sigmoid without overflow", SECTION,
    """
    σ(z) = 1 / (1 + exp(−z)) for each entry of z (batch, features). The result has to be finite, and right, for entries
    of any size.
    """,
    """
    import numpy as np

    def forward(z):
        small = np.exp(-np.abs(z))
        return np.where(z >= 0, 1 / (1 + small), small / (1 + small))
    """,
    inputs=batches(lambda r, n, f: (3 * r.normal(size=(n, f)),), (np.array([[-800.0, 800.0, 0.0]]),)),
    hints=("Which sign of z makes exp(−z) large?", "exp of a number that is never positive can't overflow.",
           "Use exp(−|z|), and a formula for each sign."),
    fact="With exp(−|z|) nothing overflows. jax.nn.sigmoid does the same; funcnn.sigmoid_forward calls it.",
    outputs=("a",), example=(np.array([[0.0, 2.0]]),),
    mistakes=[Mistake("sign", "1 / (1 + small), small / (1 + small)", "small / (1 + small), 1 / (1 + small)",
                      "The curve falls where it should rise: σ(z) tends to 1 for large z.")],
)  # fmt: skip

SIGMOID_BACKWARD = write(
    "sigmoid-backward", "The backward pass of the sigmoid", SECTION,
    """
    a = σ(z) for each entry. Given a and da = ∂L/∂a, both (batch, features), return dz = ∂L/∂z of the same shape. The
    argument a is the output of the sigmoid, not its input.
    """,
    """
    import numpy as np

    def backward(a, da):
        dz = da * a * (1 - a)
        return dz
    """,
    inputs=batches(_pair(_sigmoid), (np.array([[0.0, 1.0, 0.5]]), np.array([[1.0, -2.0, 3.0]]))),
    hints=(_NUDGE, "The derivative of σ can be written with σ's value alone.", "It is the value times one minus the value."),
    fact="The backward pass needs only the output, so the input can be dropped: funcnn.sigmoid_forward keeps just that.",
    outputs=("dz",), example=(np.array([[0.5, 0.8]]), np.array([[1.0, 2.0]])),
    mistakes=[
        Mistake("activation_derivative", "da * a * (1 - a)", "da", "The derivative of the activation is left out: da comes through unchanged."),
        Mistake("activation_derivative", "a * (1 - a)", "1 / (1 + np.exp(-a)) * (1 - 1 / (1 + np.exp(-a)))",
                "The sigmoid is applied to a once more: a is already its output."),
        Mistake("activation_derivative", "da * a * (1 - a)", "a * (1 - a)", "The cotangent da is left out: the chain rule multiplies by it."),
        Mistake("activation_derivative", "a * (1 - a)", "(1 - a)", "One of the two factors of the derivative is missing: check it at a = 0."),
        Mistake("activation_derivative", "a * (1 - a)", "(1 - a**2)", "That is the derivative of another activation, tanh."),
        Mistake("sign", "(1 - a)", "(a - 1)", "Every entry has the other sign: the sigmoid rises everywhere."),
        Mistake("activation_derivative", "a * (1 - a)", "a", "One of the two factors of the derivative is missing: check it at a = 1."),
    ],
)  # fmt: skip

TANH_BACKWARD = write(
    "tanh-backward", "The backward pass of tanh", SECTION,
    "a = tanh(z) for each entry. Given a and da, both (batch, features), return dz. The argument a is the output of tanh.",
    """
    import numpy as np

    def backward(a, da):
        dz = da * (1 - a**2)
        return dz
    """,
    inputs=batches(_pair(np.tanh), (np.array([[1.0, -1.0, 0.0]]), np.array([[1.0, -2.0, 3.0]]))),
    hints=(_NUDGE, "tanh′(z) can be written with tanh(z) alone.", "At z = 0 it is 1, for large z it is 0: which polynomial of a does that?"),
    fact="At |z| = 3 the slope is already about 0.01: ten such layers leave 1e-20 of a gradient.",
    outputs=("dz",), example=(np.array([[0.5, -0.8]]), np.array([[1.0, 2.0]])),
    mistakes=[
        Mistake("activation_derivative", "da * (1 - a**2)", "da", "The derivative of the activation is left out: da comes through unchanged."),
        Mistake("activation_derivative", "1 - a**2", "1 - np.tanh(a) ** 2", "tanh is applied once more: a is already its output."),
        Mistake("activation_derivative", "1 - a**2", "1 - a", "The derivative has another power of a: it is the same for a and −a."),
        Mistake("activation_derivative", "1 - a**2", "a * (1 - a)", "That is the derivative of another activation, the sigmoid."),
        Mistake("activation_derivative", "da * (1 - a**2)", "1 - a**2", "The cotangent da is left out: the chain rule multiplies by it."),
        Mistake("activation_derivative", "1 - a**2", "1 + a**2", "The derivative is never above 1: check a sign."),
    ],
)  # fmt: skip

RELU_BACKWARD = write(
    "relu-backward", "The backward pass of ReLU", SECTION,
    """
    a = max(0, z) for each entry. Given z and da, both (batch, features), return dz. At z = 0, where there is no
    derivative, take 0 as jax.nn.relu does.
    """,
    """
    import numpy as np

    def backward(z, da):
        dz = np.where(z > 0, da, 0.0)
        return dz
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f))),
                   (np.array([[0.0, -1.0, 2.0], [0.0, 3.0, -2.0]]), np.array([[1.0, 2.0, -3.0], [-4.0, 5.0, 6.0]])),
                   (np.zeros((1, 2)), np.ones((1, 2)))),
    hints=("The derivative takes two values only.", "The mask depends on z, not on da.", "Keep da where z is above 0."),
    fact="One bit for each entry is enough to keep for the backward pass: the mask, not z.",
    outputs=("dz",), example=(np.array([[1.5, -2.0, 0.0]]), np.array([[1.0, 2.0, 3.0]])),
    mistakes=[
        Mistake("activation_derivative", "np.where(z > 0, da, 0.0)", "da", "The derivative of the activation is left out: da comes through unchanged."),
        Mistake("kink", "z > 0", "z >= 0", "Only entries with z = 0 differ: which value does the statement give the derivative there?"),
        Mistake("mask", "z > 0", "z < 0", "The mask is inverted: the gradient passes where the unit is off."),
        Mistake("mask", "z > 0, da", "da > 0, da", "The mask is taken from da. What decides whether a unit is on?"),
        Mistake("activation_derivative", "da, 0.0", "1.0, 0.0", "The cotangent da is left out: the chain rule multiplies by it."),
        Mistake("activation_derivative", "da, 0.0", "da * z, 0.0", "ReLU's value stands where its derivative belongs."),
        Mistake("activation_derivative", "np.where(z > 0, da, 0.0)", "da * z", "The input stands where the derivative belongs."),
    ],
)  # fmt: skip

LEAKY_RELU_BACKWARD = write(
    "leaky-relu-backward", "The backward pass of leaky ReLU", SECTION,
    "a = z where z > 0, α z elsewhere. Given z, da (batch, features) and the number α, return dz; at z = 0 the slope is α.",
    """
    import numpy as np

    def backward(z, da, alpha):
        dz = np.where(z > 0, da, alpha * da)
        return dz
    """,
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)), 0.1),
                   (np.array([[0.0, -1.0, 2.0]]), np.array([[1.0, 2.0, -3.0]]), 0.01)),
    hints=("There are two slopes.", "Neither of them is 0.", "Below zero the slope is the number given."),
    fact="A unit that is off still learns, by a hundredth as much at α = 0.01.",
    outputs=("dz",), example=(np.array([[1.5, -2.0]]), np.array([[1.0, 2.0]]), 0.1),
    mistakes=[
        Mistake("activation_derivative", "alpha * da", "0.0", "Units that are off get no gradient: that is ReLU without its leak."),
        Mistake("activation_derivative", "alpha * da", "alpha", "Where z is negative, the cotangent da is left out."),
        Mistake("activation_derivative", "alpha * da", "alpha * z", "Where z is negative, the activation's value stands in place of its derivative."),
        Mistake("mask", "z > 0", "z < 0", "The two slopes are exchanged."),
    ],
)  # fmt: skip

SOFTMAX_FORWARD = write(
    "softmax-forward", "Softmax without overflow", SECTION,
    "p_k = exp(z_k) / Σ_j exp(z_j) for each row of z (batch, features): finite for entries of any size.",
    """
    import numpy as np

    def forward(z):
        shifted = np.exp(z - np.max(z, axis=-1, keepdims=True))
        return shifted / np.sum(shifted, axis=-1, keepdims=True)
    """,
    inputs=batches(lambda r, n, f: (3 * r.normal(size=(n, f)),), (np.array([[1000.0, 1000.0, -1000.0], [0.0, 1.0, 2.0]]),)),
    hints=("What does adding a constant to a row change?", "Choose the constant so that no exponent is positive.",
           "Subtract each row's own maximum."),
    fact="A shift leaves softmax unchanged; with the row's maximum subtracted the sum lies between 1 and the number of classes.",
    outputs=("p",), example=(np.array([[2.0, 1.0, 0.1]]),),
    mistakes=[
        Mistake("wrong_axis", "np.sum(shifted, axis=-1, keepdims=True)", "np.sum(shifted)", "The sum runs over the whole batch: each row has to sum to 1."),
        Mistake("wrong_axis", "np.sum(shifted, axis=-1, keepdims=True)", "np.sum(shifted, axis=0, keepdims=True)", "The sum runs over the batch: each row has to sum to 1."),
        Mistake("nonfinite", "z - np.max(z, axis=-1, keepdims=True)", "z", "The exponential overflows for large logits. What may be subtracted from a row without changing the result?"),
    ],
)  # fmt: skip

SOFTMAX_BACKWARD = write(
    "softmax-backward", "The backward pass of softmax", SECTION,
    """
    p = softmax(z) over the last axis, p (batch, features). Given p and dp = ∂L/∂p, return dz. Every output of a row
    depends on every input of the row: ∂p_j/∂z_k = p_j (δ_jk − p_k).
    """,
    """
    import numpy as np

    def backward(p, dp):
        inner = np.sum(p * dp, axis=-1, keepdims=True)
        dz = p * (dp - inner)
        return dz
    """,
    inputs=batches(_pair(_softmax), (np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 2.0, 3.0]]))),
    hints=("Entries of a row meet: the derivative of one row is a matrix.", "Multiply that matrix by dp and look for a sum that all entries share.",
           "The shared sum is that of p times dp over the row."),
    fact="The matrix is never formed: a sum over the row costs n operations, the Jacobian n².",
    outputs=("dz",), example=(np.array([[0.5, 0.25, 0.25]]), np.array([[1.0, 0.0, 2.0]])),
    mistakes=[
        Mistake("activation_derivative", "p * (dp - inner)", "dp * p * (1 - p)", "Only the diagonal of the Jacobian is there: each output depends on all inputs of its row."),
        Mistake("activation_derivative", "p * (dp - inner)", "dp", "The derivative of the activation is left out: dp comes through unchanged."),
        Mistake("wrong_axis", "axis=-1, keepdims=True", "axis=0, keepdims=True", "The sum runs over the batch: which entries meet in softmax?"),
        Mistake("wrong_axis", "np.sum(p * dp, axis=-1, keepdims=True)", "np.sum(p * dp)", "The sum runs over all samples: rows don't meet in softmax."),
        Mistake("lost_path", "p * (dp - inner)", "p * dp", "One term is missing: raising one logit lowers the other probabilities."),
        Mistake("sign", "dp - inner", "inner - dp", "Every entry has the other sign."),
        Mistake("sign", "dp - inner", "dp + inner", "The second term has the wrong sign: the entries of a row of dz sum to 0."),
        Mistake("wrong_operand", "np.sum(p * dp, axis=-1, keepdims=True)", "np.sum(dp, axis=-1, keepdims=True)", "The sum over the row has a factor too few."),
        Mistake("wrong_operand", "np.sum(p * dp, axis=-1, keepdims=True)", "np.mean(p * dp, axis=-1, keepdims=True)", "A mean stands where a sum belongs."),
        Mistake("activation_derivative", "p * (dp - inner)", "dp - inner", "A factor of the Jacobian is missing: what happens to a class of probability 0?"),
    ],
)  # fmt: skip

SOFTMAX_JACOBIAN = write(
    "softmax-jacobian", "The Jacobian of softmax", SECTION,
    "For one vector of probabilities p (features,), p = softmax(z), return the matrix J with J[j, k] = ∂p_j/∂z_k.",
    """
    import numpy as np

    def jacobian(p):
        return np.diag(p) - np.outer(p, p)
    """,
    inputs=lambda r: ([(_softmax(r.normal(size=(n,))),) for n in (3, 2, 5)],),
    hints=("Differentiate the quotient, first for j = k, then for j ≠ k.", "Both cases share −p_j p_k.", "The diagonal has p_j besides."),
    fact="It is symmetric and its rows sum to 0: a common shift of all logits changes nothing.",
    outputs=("J",), example=(np.array([0.5, 0.5]),), kind="derive",
    mistakes=[
        Mistake("lost_path", " - np.outer(p, p)", " - np.diag(p**2)", "Only the diagonal is there: other entries of the row depend on z_k too."),
        Mistake("sign", "np.diag(p) - np.outer(p, p)", "np.outer(p, p) - np.diag(p)", "Every entry has the other sign."),
        Mistake("lost_path", "np.diag(p) - ", "-", "The entries with j = k have a term more."),
    ],
)  # fmt: skip

SIGMOID_JACOBIAN = write(
    "sigmoid-jacobian", "The Jacobian of the sigmoid on a vector", SECTION,
    "For one vector a = σ(z) (features,), given a, return the matrix J with J[j, k] = ∂a_j/∂z_k.",
    """
    import numpy as np

    def jacobian(a):
        return np.diag(a * (1 - a))
    """,
    inputs=lambda r: ([(_sigmoid(r.normal(size=(n,))),) for n in (3, 2, 5)],),
    hints=("Which entries of a depend on z_k?", "The matrix is diagonal.", "The derivative of the sigmoid by its own value stands there."),
    fact="A diagonal Jacobian is why activations multiply entry by entry in a backward pass.",
    outputs=("J",), example=(np.array([0.5, 0.8]),), kind="derive",
    mistakes=[
        Mistake("activation_derivative", "np.diag(a * (1 - a))", "np.outer(a, 1 - a)", "Entries with j ≠ k are 0: an activation acts on each entry alone."),
        Mistake("shape", "np.diag(a * (1 - a))", "a * (1 - a)", "A Jacobian is a matrix: one row for each output, one column for each input."),
    ],
)  # fmt: skip

TASKS = (
    SIGMOID_FORWARD, SIGMOID_BACKWARD, TANH_BACKWARD, RELU_BACKWARD, LEAKY_RELU_BACKWARD, SOFTMAX_FORWARD, SOFTMAX_BACKWARD,
    SIGMOID_JACOBIAN, SOFTMAX_JACOBIAN,
    repair("repair-sigmoid-output", "A sigmoid taken twice", SIGMOID_BACKWARD, 1),
    repair("repair-tanh-power", "A slope of tanh", TANH_BACKWARD, 2),
    repair("repair-relu-mask", "A mask from the wrong array", RELU_BACKWARD, 3),
    repair("repair-relu-kink", "ReLU at zero", RELU_BACKWARD, 1),
    repair("repair-leaky-relu", "Units that never wake up", LEAKY_RELU_BACKWARD, 0),
    repair("repair-softmax-axis", "Probabilities of a batch", SOFTMAX_FORWARD, 1),
    repair("repair-softmax-overflow", "Softmax of large logits", SOFTMAX_FORWARD, 2),
    repair("repair-softmax-diagonal", "Softmax as if entries didn't meet", SOFTMAX_BACKWARD, 0),
    predict("predict-sigmoid-slope", "The largest slope of the sigmoid", SECTION,
            "What is the largest value that the derivative of the sigmoid takes?",
            "def answer():\n    return 0.5 * (1 - 0.5)", fact="So a sigmoid layer always shrinks a gradient.",
            hints=("Where is the curve steepest?", "At z = 0.", "Put a = ½ into a (1 − a).")),
    predict("predict-softmax-shift", "Logits shifted", SECTION,
            "softmax of (2, 1, 0.1) gives three probabilities. What is the first one after 5 is added to every logit?",
            "import numpy as np\n\n\ndef answer():\n    e = np.exp(np.array([2.0, 1.0, 0.1]) + 5 - 7)\n    return e[0] / e.sum()",
            fact="A shift of all logits cancels.", hints=("Write the quotient.", "The factor exp(5) stands above and below.", "Nothing changes.")),
    predict("predict-activation-choice", "Which activation dies", SECTION,
            "All pre-activations of a unit are −3. Of 'sigmoid', 'tanh', 'relu' and 'leaky_relu', which passes no gradient at all?",
            """
            import numpy as np

            def answer():
                z = -3.0
                a = 1 / (1 + np.exp(-z))
                slopes = {"sigmoid": a * (1 - a), "tanh": 1 - np.tanh(z) ** 2, "relu": float(z > 0), "leaky_relu": 0.01}
                return min(slopes, key=slopes.get)
            """, fact="The others are small, but not zero: about 0.045, 0.0099 and 0.01.",
            hints=("Compute the four slopes at −3.", "Small isn't zero.", "Look at the one that is flat below zero.")),
)  # fmt: skip
