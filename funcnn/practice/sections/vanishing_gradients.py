"""Exercises on vanishing and exploding gradients, initialization, normalization and clipping."""

import jax.numpy as jnp
import numpy as np

from funcnn.practice.builders import batches, predict, repair, write

SECTION = "Vanishing and exploding gradients"

BATCH_NORM_FORWARD = write(
    "batch-norm-forward", "Batch normalization", SECTION,
    """
    For each feature, over the batch: μ the mean, v the biased variance (the mean of squared deviations),
    y = scale (x − μ) / √(v + epsilon) + bias. x (batch, features), scale and bias (features,).
    """,
    "forward(x, scale, bias, epsilon)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=f), r.normal(size=f), 1e-3)),
    hints=("Statistics over the batch.", "ε stands inside the root.", "Scale and bias come last."), fact="A batch of one gives its bias: nothing of x is left.",
    outputs=("y",), example=(np.array([[1.0], [3.0]]), np.array([2.0]), np.array([0.5]), 0.0),
)  # fmt: skip


def _normalized(x, scale, dy, epsilon):
    def loss(variables):
        x, scale, bias = variables
        centred = x - jnp.mean(x, axis=0, keepdims=True)
        variance = jnp.mean(centred**2, axis=0, keepdims=True)
        return jnp.sum((scale[None] * centred / jnp.sqrt(variance + epsilon) + bias[None]) * dy)

    return loss, (x, scale, jnp.zeros(scale.shape))


BATCH_NORM_BACKWARD = write(
    "batch-norm-backward", "The backward pass of batch normalization", SECTION,
    """
    For each feature, over the batch: μ the mean, v the biased variance, x̂ = (x − μ) / √(v + epsilon), y = scale x̂ + bias.
    Given x, scale (features,), dy = ∂L/∂y (batch, features) and epsilon, return (dx, dscale, dbias). μ and v depend on x.
    """,
    "backward(x, scale, dy, epsilon)",
    inputs=batches(lambda r, n, f: (r.normal(size=(n, f)), r.normal(size=f), r.normal(size=(n, f)), 1e-3)),
    hints=("dscale and dbias are sums over the batch.", "x reaches y by three paths: directly, through μ and through v.",
           "The paths through μ and v each subtract a mean over the batch."),
    fact="Each column of dx sums to 0 and is nearly orthogonal to x̂: shifting or stretching a feature changes nothing.",
    outputs=("dx", "dscale", "dbias"),
    example=(np.array([[1.0], [2.0], [6.0]]), np.array([2.0]), np.array([[1.0], [0.0], [0.0]]), 0.0),
    reference=_normalized,
)  # fmt: skip

CLIP = write(
    "clip-by-global-norm", "Clipping by the global norm", SECTION,
    """
    gradients is a tuple of arrays. With N the root of the sum of all squares over all arrays: where N > limit, multiply every
    array by limit / N; otherwise leave them. Return a tuple in the same order.
    """,
    "clip(gradients, limit)",
    inputs=lambda r: ([((s * r.normal(size=(3, 2)), s * r.normal(size=(2, 4))), 1.0) for s in (5.0, 0.01, 1.0, 0.3)]
                      + [((np.zeros((2, 2)), np.zeros((2, 1))), 1.0), ((np.full((2, 2), 0.4), np.full((2, 2), 0.4)), 1.0),
                         ((np.full((2, 2), 3.0), np.full((2, 1), -0.01)), 2.0)],),
    hints=("One norm for all arrays.", "One factor for all arrays.", "A gradient below the limit is left alone, and so is zero."),
    fact="The direction is kept, which clipping each entry doesn't do: fnn.clip_by_global_norm is optax's.", outputs=("gradients[0]", "gradients[1]"),
    example=((np.array([[3.0]]), np.array([[4.0]])), 1.0),
)  # fmt: skip

HE_SCALE = write(
    "he-scale", "The scale of an initializer", SECTION,
    """
    Return the two standard deviations (he, xavier) for a kernel (inputs, outputs): He's, for ReLU, √(2 / inputs), and
    Xavier's, for tanh, √(2 / (inputs + outputs)).
    """,
    "scales(inputs, outputs)",
    inputs=lambda r: ([(4, 9), (784, 128), (1, 1), (30, 2)],),
    hints=("Two roots.", "He counts what comes in.", "Xavier counts both sides."), fact="The 2 in He's makes up for the half of the units that ReLU turns off.",
    outputs=("he", "xavier"), example=(8, 24),
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
            fact="Below a millionth: the first layer hardly learns.",
            hints=("What is the largest slope?", "It multiplies once for each layer.", "Ten times.")),
    predict("predict-which-vanishes", "Where the gradient is smallest", SECTION,
            "A chain of 20 units with weight 1 each starts at z = 0.5. Which activation leaves the smallest gradient: 'sigmoid', 'tanh' or 'relu'?",
            fact="tanh has slope 1 at 0, so it shrinks far less.", hints=("Multiply 20 slopes.", "Compare the largest slopes.", "One of them never exceeds ¼.")),
)  # fmt: skip
