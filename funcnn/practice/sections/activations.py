"""Exercises on activation functions."""

import jax.numpy as jnp
import numpy as np
from scipy import special

from funcnn.layers.activations import (
    leaky_relu_forward,
    relu_forward,
    sigmoid_forward,
    softmax_forward,
    tanh_forward,
)
from funcnn.practice.builders import batches, predict, repair, write

SECTION = "Activation functions"
_NUDGE = "Write the derivative of one entry on paper first. The batch brings nothing new: entries don't meet."


def _activation(forward, inverse=lambda z: z):
    """Return the reference of a backward pass whose arguments are what ``inverse`` makes the input of, and da."""
    return lambda kept, da: (lambda z: jnp.sum(forward(z)[0] * da), inverse(kept))


def _softmax(z):
    return special.softmax(z, axis=-1)


def _pair(change):
    return lambda random, n, f: (change(2 * random.normal(size=(n, f))), random.normal(size=(n, f)))


SIGMOID_FORWARD = write(
    "sigmoid-forward", "The sigmoid without overflow", SECTION,
    """
    σ(z) = 1 / (1 + exp(−z)) for each entry of z (batch, features). The result has to be finite, and right, for entries
    of any size.
    """,
    "forward(z)",
    inputs=batches(lambda r, n, f: (3 * r.normal(size=(n, f)),), (np.array([[-800.0, 800.0, 0.0]]),)),
    hints=("Which sign of z makes exp(−z) large?", "exp of a number that is never positive can't overflow.",
           "Use exp(−|z|), and a formula for each sign."),
    fact="1 / (1 + exp(−z)) gives 0 at z = −800 too, by way of an infinity and a warning; with exp(−|z|) nothing overflows. funcnn.sigmoid_forward calls jax.nn.sigmoid.",
    outputs=("a",), example=(np.array([[0.0, 2.0]]),),
)  # fmt: skip

SIGMOID_BACKWARD = write(
    "sigmoid-backward", "The backward pass of the sigmoid", SECTION,
    """
    a = σ(z) for each entry. Given a and da = ∂L/∂a, both (batch, features), return dz = ∂L/∂z of the same shape. The
    argument a is the output of the sigmoid, not its input.
    """,
    "backward(a, da)",
    inputs=batches(_pair(special.expit), (np.array([[0.0, 1.0, 0.5]]), np.array([[1.0, -2.0, 3.0]]))),
    hints=(_NUDGE, "The derivative of σ can be written with σ's value alone.", "It is the value times one minus the value."),
    fact="The backward pass needs only the output, so the input can be dropped: funcnn.sigmoid_forward keeps just that.",
    outputs=("dz",), example=(np.array([[0.5, 0.8]]), np.array([[1.0, 2.0]])),
    reference=_activation(sigmoid_forward, lambda a: jnp.log(a / (1 - a))),
)  # fmt: skip

TANH_BACKWARD = write(
    "tanh-backward", "The backward pass of tanh", SECTION,
    "a = tanh(z) for each entry. Given a and da = ∂L/∂a, both (batch, features), return dz = ∂L/∂z. The argument a is the output of tanh.",
    "backward(a, da)",
    inputs=batches(_pair(np.tanh), (np.array([[1.0, -1.0, 0.0]]), np.array([[1.0, -2.0, 3.0]]))),
    hints=(_NUDGE, "tanh′(z) can be written with tanh(z) alone.", "At z = 0 it is 1, for large z it is 0: which polynomial of a does that?"),
    fact="At |z| = 3 the slope is already about 0.01: ten such layers leave 9e-21 of a gradient.",
    outputs=("dz",), example=(np.array([[0.5, -0.8]]), np.array([[1.0, 2.0]])),
    reference=_activation(tanh_forward, jnp.arctanh),
)  # fmt: skip

RELU_BACKWARD = write(
    "relu-backward", "The backward pass of ReLU", SECTION,
    """
    a = max(0, z) for each entry. Given z and da = ∂L/∂a, both (batch, features), return dz = ∂L/∂z. At z = 0, where there is no
    derivative, take 0 as jax.nn.relu does.
    """,
    "backward(z, da)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f))),
                   (np.array([[0.0, -1.0, 2.0], [0.0, 3.0, -2.0]]), np.array([[1.0, 2.0, -3.0], [-4.0, 5.0, 6.0]])),
                   (np.zeros((1, 2)), np.ones((1, 2)))),
    hints=("The derivative takes two values only.", "The mask depends on z, not on da.", "Keep da where z is above 0."),
    fact="One bit for each entry is enough to keep for the backward pass: the mask, not z.",
    outputs=("dz",), example=(np.array([[1.5, -2.0, 0.0]]), np.array([[1.0, 2.0, 3.0]])),
    reference=_activation(relu_forward),
)  # fmt: skip

LEAKY_RELU_BACKWARD = write(
    "leaky-relu-backward", "The backward pass of leaky ReLU", SECTION,
    "a = z where z > 0, α z elsewhere. Given z, da = ∂L/∂a (batch, features) and the number α, return dz = ∂L/∂z; at z = 0 the slope is α.",
    "backward(z, da, alpha)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=(n, f)), 0.1),
                   (np.array([[0.0, -1.0, 2.0]]), np.array([[1.0, 2.0, -3.0]]), 0.01)),
    hints=("There are two slopes.", "Neither of them is 0.", "Below zero the slope is the number given."),
    fact="A unit that is off still learns, by a hundredth as much at α = 0.01.",
    outputs=("dz",), example=(np.array([[1.5, -2.0]]), np.array([[1.0, 2.0]]), 0.1),
    reference=lambda z, da, alpha: (lambda z: jnp.sum(leaky_relu_forward(z, alpha)[0] * da), z),
)  # fmt: skip

SOFTMAX_FORWARD = write(
    "softmax-forward", "Softmax without overflow", SECTION,
    "p_k = exp(z_k) / Σ_j exp(z_j) for each row of z (batch, features): finite for entries of any size.",
    "forward(z)",
    inputs=batches(lambda r, n, f: (3 * r.normal(size=(n, f)),), (np.array([[1000.0, 1000.0, -1000.0], [0.0, 1.0, 2.0]]),)),
    hints=("What does adding a constant to a row change?", "Choose the constant so that no exponent is positive.",
           "Subtract each row's own maximum."),
    fact="A shift leaves softmax unchanged; with the row's maximum subtracted the sum lies between 1 and the number of classes.",
    outputs=("p",), example=(np.array([[2.0, 1.0, 0.1]]),),
)  # fmt: skip

SOFTMAX_BACKWARD = write(
    "softmax-backward", "The backward pass of softmax", SECTION,
    """
    p = softmax(z) over the last axis, p (batch, features). Given p and dp = ∂L/∂p, return dz = ∂L/∂z. Every output of a row
    depends on every input of the row: ∂p_j/∂z_k = p_j (δ_jk − p_k).
    """,
    "backward(p, dp)",
    inputs=batches(_pair(_softmax), (np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 2.0, 3.0]]))),
    hints=("Entries of a row meet: the derivative of one row is a matrix.", "Multiply that matrix by dp and look for a sum that all entries share.",
           "The shared sum is that of p times dp over the row."),
    fact="The matrix is never formed: a sum over the row costs n operations, the Jacobian n².",
    outputs=("dz",), example=(np.array([[0.5, 0.25, 0.25]]), np.array([[1.0, 0.0, 2.0]])),
    reference=_activation(softmax_forward, jnp.log),
)  # fmt: skip

SOFTMAX_JACOBIAN = write(
    "softmax-jacobian", "The Jacobian of softmax", SECTION,
    "For one vector of probabilities p (features,), p = softmax(z), return the matrix J with J[j, k] = ∂p_j/∂z_k.",
    "jacobian(p)",
    inputs=lambda r: ([(_softmax(r.normal(size=(n,))),) for n in (3, 2, 5)],),
    hints=("Differentiate the quotient, first for j = k, then for j ≠ k.", "Both cases share −p_j p_k.", "The diagonal has p_j besides."),
    fact="It is symmetric and its rows sum to 0: a common shift of all logits changes nothing.",
    outputs=("J",), example=(np.array([0.5, 0.5]),), kind="derive",
)  # fmt: skip

SIGMOID_JACOBIAN = write(
    "sigmoid-jacobian", "The Jacobian of the sigmoid on a vector", SECTION,
    "For one vector a = σ(z) (features,), given a, return the matrix J with J[j, k] = ∂a_j/∂z_k.",
    "jacobian(a)",
    inputs=lambda r: ([(special.expit(r.normal(size=(n,))),) for n in (3, 2, 5)],),
    hints=("Which entries of a depend on z_k?", "The matrix is diagonal.", "The derivative of the sigmoid by its own value stands there."),
    fact="A diagonal Jacobian is why activations multiply entry by entry in a backward pass.",
    outputs=("J",), example=(np.array([0.5, 0.8]),), kind="derive",
)  # fmt: skip

TASKS = (
    SIGMOID_FORWARD, SIGMOID_BACKWARD, TANH_BACKWARD, RELU_BACKWARD, LEAKY_RELU_BACKWARD, SIGMOID_JACOBIAN, SOFTMAX_FORWARD,
    SOFTMAX_JACOBIAN, SOFTMAX_BACKWARD,
    repair("repair-sigmoid-output", "A sigmoid taken twice", SIGMOID_BACKWARD, 1),
    repair("repair-tanh-power", "A slope of tanh", TANH_BACKWARD, 2),
    repair("repair-relu-mask", "A mask from the wrong array", RELU_BACKWARD, 3),
    repair("repair-relu-kink", "ReLU at zero", RELU_BACKWARD, 1),
    repair("repair-leaky-relu", "Units below zero", LEAKY_RELU_BACKWARD, 0),
    repair("repair-softmax-axis", "Probabilities of a batch", SOFTMAX_FORWARD, 1),
    repair("repair-softmax-overflow", "Softmax of large logits", SOFTMAX_FORWARD, 2),
    repair("repair-softmax-diagonal", "Softmax as if entries didn't meet", SOFTMAX_BACKWARD, 0),
    predict("predict-sigmoid-slope", "The largest slope of the sigmoid", SECTION,
            "What is the largest value that the derivative of the sigmoid takes?",
            fact="So a sigmoid layer always shrinks a gradient.",
            hints=("Where is the curve steepest?", "At z = 0.", "Put a = ½ into a (1 − a).")),
    predict("predict-softmax-shift", "Logits shifted", SECTION,
            "softmax of (2, 1, 0.1) gives three probabilities. What is the first one after 5 is added to every logit?",
            fact="A shift of all logits cancels.", hints=("Write the quotient.", "The factor exp(5) stands above and below.", "Nothing changes.")),
    predict("predict-activation-choice", "Which activation dies", SECTION,
            "All pre-activations of a unit are −3. Of 'sigmoid', 'tanh', 'relu' and 'leaky_relu', which passes no gradient at all?",
            fact="The others are small, but not zero: about 0.045, 0.0099 and 0.01.",
            hints=("Compute the four slopes at −3.", "Small isn't zero.", "Look at the one that is flat below zero.")),
)  # fmt: skip
