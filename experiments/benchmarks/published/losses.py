"""Published mistakes in the gradients of losses: cross-entropy, squared error, CTC."""

import jax.numpy as jnp
from jax.nn import log_softmax, softmax
from jax.scipy.special import logsumexp

from experiments.benchmarks.catalogue.case import Case
from experiments.benchmarks.published.report import Report, Rule, UsualTest, named, random_like

THEME = "losses"


# One cross-entropy for each token, fused with the last linear layer.
def token_losses(params, labels):
    logits = params["x"] @ params["kernel"] + params["bias"]
    return -jnp.take_along_axis(log_softmax(logits), labels[:, None], axis=1)[:, 0]


def token_losses_vjp(params, dy, labels, weights=lambda dy: dy):
    logits = params["x"] @ params["kernel"] + params["bias"]
    dlogits = softmax(logits) - (labels[:, None] == jnp.arange(logits.shape[1]))
    dlogits = weights(dy)[:, None] * dlogits
    return {
        "x": dlogits @ params["kernel"].T,
        "kernel": params["x"].T @ dlogits,
        "bias": dlogits.sum(axis=0),
    }


def first_cotangent(params, dy, labels):
    """Every token is weighted by the cotangent of the first one."""
    return token_losses_vjp(params, dy, labels, weights=lambda dy: jnp.full_like(dy, 1) * dy[0])


def token_losses_make(dtype):
    return named(dtype, 201, x=(6, 4), kernel=(4, 5), bias=(5,)), (jnp.asarray([0, 3, 1, 4, 2, 2]),)


# A mean of squares, whose cotangent is a scalar.
def mean_of_squares(params):
    return ((params["x"] - params["target"]) ** 2).mean()


def squares(params):
    """The squares without their sum: the cotangent has the shape of the input."""
    return (params["x"] - params["target"]) ** 2 / params["x"].size


def mean_of_squares_vjp(params, dy, read=lambda dy, params: dy):
    x = params["x"]
    dx = 2 * (x - params["target"]) / x.size * read(dy, params)
    return {"x": dx, "target": -dx}


def past_the_end(params, dy):
    """One cotangent is read for each entry, and past the scalar's end whatever the memory holds."""

    def read(dy, params):
        if dy.ndim:
            return dy
        memory = jnp.concatenate([dy[None], params["x"].reshape(-1)])
        return memory[: params["x"].size].reshape(params["x"].shape)

    return mean_of_squares_vjp(params, dy, read)


def mean_of_squares_make(dtype):
    return named(dtype, 202, x=(3, 4), target=(3, 4)), ()


# Cross-entropy with a label that counts for nothing.
IGNORED = 1


def ignoring_loss(params, labels):
    picked = jnp.take_along_axis(log_softmax(params["logits"]), labels[:, None], axis=1)[:, 0]
    return -jnp.where(labels == IGNORED, 0, picked).mean()


def ignoring_gradient(params, labels, is_masked=True):
    logits = params["logits"]
    dlogits = (softmax(logits) - (labels[:, None] == jnp.arange(logits.shape[1]))) / len(labels)
    return {"logits": jnp.where((labels == IGNORED)[:, None] & is_masked, 0, dlogits)}


def mask_forgotten(params, labels):
    return ignoring_gradient(params, labels, is_masked=False)


def ignoring_make(dtype):
    return named(dtype, 203, logits=(5, 4)), (jnp.asarray([0, IGNORED, 3, 2, IGNORED]),)


# Connectionist temporal classification of (batch, time, classes) with the blank 0: the logarithms of the sums over the
# paths, from both ends.
NOTHING = -1e9


def extended(labels):
    """The labels with blanks between and around them."""
    return jnp.zeros((len(labels), 2 * labels.shape[1] + 1), labels.dtype).at[:, 1::2].set(labels)


def path_sums(logs, states):
    """The logarithms of the sums over the paths from the start to each state, ``(batch, time, states)``."""
    emitted = jnp.take_along_axis(logs, jnp.broadcast_to(states[:, None], (*logs.shape[:2], states.shape[1])), axis=2)
    number = jnp.arange(states.shape[1])
    skips = (number >= 2) & (states != 0) & (states != jnp.roll(states, 2, axis=1))
    sums = [jnp.where(number < 2, emitted[:, 0], NOTHING)]
    for step in range(1, logs.shape[1]):
        one = jnp.where(number >= 1, jnp.roll(sums[-1], 1, axis=1), NOTHING)
        two = jnp.where(skips, jnp.roll(sums[-1], 2, axis=1), NOTHING)
        sums.append(logsumexp(jnp.stack([sums[-1], one, two]), axis=0) + emitted[:, step])
    return jnp.stack(sums, axis=1), emitted


def is_feasible(logits, labels):
    """Whether the labels fit: each needs a step, and one more between two equal ones."""
    return logits.shape[1] >= labels.shape[1] + (labels[:, 1:] == labels[:, :-1]).sum(axis=1)


def ctc_losses(logits, labels):
    """One loss for each sequence; zero where the labels don't fit into the time."""
    sums, _ = path_sums(log_softmax(logits), extended(labels))
    likelihood = logsumexp(sums[:, -1, -2:], axis=1)
    return jnp.where(is_feasible(logits, labels), -likelihood, 0)


def ctc_gradients(logits, labels):
    """The gradient of every sequence's loss: the softmax less the share of the paths through each class."""
    logs, states = log_softmax(logits), extended(labels)
    sums, emitted = path_sums(logs, states)
    backward, _ = path_sums(logs[:, ::-1], states[:, ::-1])
    through = sums + backward[:, ::-1, ::-1] - emitted
    share = softmax(through, axis=2)
    posterior = share @ (states[:, :, None] == jnp.arange(logits.shape[2])).astype(logits.dtype)
    return softmax(logits) - posterior


def ctc_mean(params, labels):
    return ctc_losses(params["logits"], labels).mean()


def ctc_sum(params, labels):
    return ctc_losses(params["logits"], labels).sum()


def ctc_mean_gradient(params, labels):
    feasible = is_feasible(params["logits"], labels)[:, None, None]
    return {"logits": jnp.where(feasible, ctc_gradients(params["logits"], labels), 0) / len(labels)}


def cotangent_ignored(params, labels):
    """The operation returns the gradients of the costs, whatever is done with the costs afterwards."""
    return {"logits": ctc_gradients(params["logits"], labels)}


def softmax_where_nothing_fits(params, labels):
    """No path fits, so that its share is nil and the softmax is left."""
    feasible = is_feasible(params["logits"], labels)[:, None, None]
    posterior = softmax(params["logits"]) - ctc_gradients(params["logits"], labels)
    return {"logits": (softmax(params["logits"]) - jnp.where(feasible, posterior, 0)) / len(labels)}


def ctc_make(dtype):
    return named(dtype, 204, logits=(3, 5, 4)), (jnp.asarray([[1, 2], [3, 1], [2, 3]]),)


def ctc_short_make(dtype):
    # Two equal labels need three steps.
    return named(dtype, 205, logits=(3, 2, 4)), (jnp.asarray([[1, 2], [3, 3], [2, 1]]),)


# Log-softmax along the last axis.
def log_softmax_of(params):
    return log_softmax(params["x"])


def log_softmax_vjp(params, dy):
    return {"x": dy - softmax(params["x"]) * dy.sum(axis=-1, keepdims=True)}


def softmax_added(params, dy):
    """The softmax is added to the cotangent, instead of subtracted as often as the cotangent sums to."""
    return {"x": dy + softmax(params["x"])}


def log_softmax_make(dtype):
    return named(dtype, 206, x=(3, 5)), ()


REPORTS = (
    Report(
        Rule(
            "fused_cross_entropy_first_cotangent",
            THEME,
            token_losses,
            first_cotangent,
            token_losses_vjp,
            token_losses_make,
            frozenset({"wrong_operand"}),
            "['kernel']",
        ),
        "linkedin/Liger-Kernel#1298",
        "Fix wrong grad_weight/grad_bias for fused linear cross entropy with reduction='none'",
        UsualTest("cotangent of ones, float32, rtol 5e-2, atol 1e-3", "test file", rtol=5e-2, atol=1e-3),
    ),
    Report(
        Rule(
            "squared_error_past_the_end",
            THEME,
            mean_of_squares,
            past_the_end,
            mean_of_squares_vjp,
            mean_of_squares_make,
            # The function is a loss: a wrong cotangent makes its derivative wrong.
            frozenset({"wrong_operand", "loss_derivative"}),
            "['x']",
        ),
        "flagos-ai/FlagGems#5212",
        "[BUG] mse_loss_backward: reads grad_output out of bounds for reduction='mean'/'sum', returning wrong "
        "gradients",
        UsualTest(
            "a cotangent of the input's shape for every reduction, rtol 1.3e-6, atol 1e-4",
            "test file",
            cotangent=random_like,
            rtol=1.3e-6,
            atol=1e-4,
            function=squares,
        ),
    ),
    Report(
        Case(
            "cross_entropy_mask_forgotten",
            THEME,
            ignoring_loss,
            mask_forgotten,
            ignoring_make,
            frozenset({"mask", "unit"}),
            "['logits']",
            right=ignoring_gradient,
        ),
        "PaddlePaddle/Paddle#28622",
        "Fix gradients with ignore_idx in softmax_with_cross_entropy",
    ),
    Report(
        Case(
            "ctc_cotangent_ignored",
            THEME,
            ctc_mean,
            cotangent_ignored,
            ctc_make,
            frozenset({"scaled"}),
            "['logits']",
            right=ctc_mean_gradient,
        ),
        "sherjilozair/ctc#2",
        "CTC gradient seems to be constant.",
        UsualTest(
            "differences of the kernel's own sum of costs, with nothing after it",
            "test file",
            rtol=1e-2,
            atol=1e-5,
            function=ctc_sum,
        ),
    ),
    Report(
        Case(
            "ctc_softmax_where_nothing_fits",
            THEME,
            ctc_mean,
            softmax_where_nothing_fits,
            ctc_short_make,
            frozenset({"mask", "unit"}),
            "['logits']",
            right=ctc_mean_gradient,
        ),
        "rwth-i6/returnn#1835",
        "native_op.ctc_loss: non-zero gradient (= softmax) for sequences with no valid alignment",
    ),
    Report(
        Rule(
            "log_softmax_added",
            THEME,
            log_softmax_of,
            softmax_added,
            log_softmax_vjp,
            log_softmax_make,
            frozenset({"activation_derivative", "wrong_operand"}),
            "['x']",
        ),
        "mlpack/mlpack#2360",
        "error in backward function in log softmax",
        UsualTest(
            "input (0.5, 0.5), cotangent (0, -1), the numbers that its own backward gave: 1.6487, 0.6487, within 1e-3",
            "test file",
            lambda dtype: ({"x": jnp.asarray([[0.5, 0.5]], dtype)}, ()),
            cotangent=lambda output: jnp.asarray([[0.0, -1.0]], output.dtype),
            rtol=0.0,
            atol=1e-3,
            # The test hands it the input where it expects the output, and exponentiates.
            gradient=lambda params, dy: {"x": dy + jnp.exp(params["x"])},
            expected=lambda params, dy: {"x": jnp.asarray([[1.6487, 0.6487]])},
        ),
    ),
)
