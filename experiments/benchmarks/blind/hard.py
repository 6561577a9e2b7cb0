"""Right gradients at points where a check has difficulties: kinks, extremes, unusual leaves and unusual losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind.model import Model, jax_normal, numpy_normal

THEME = "right but hard"
SAMPLES, INPUTS, WIDTH = 6, 4, 4


def make_square(dtype, seed=81, scale=1.0):
    """Return two square matrices with biases, samples and targets."""
    shapes = [(INPUTS, WIDTH), (WIDTH,), (WIDTH, WIDTH), (WIDTH,), (SAMPLES, INPUTS), (SAMPLES, WIDTH)]
    w1, b1, w2, b2, x, y = jax_normal(dtype, seed, *shapes)
    return {"w1": scale * w1, "b1": b1, "w2": w2, "b2": b2}, (x, y)


# Units of ReLU at exactly zero


def kink_loss(params, x, y):
    """Return the mean squared error of a ReLU network."""
    return jnp.mean((jax.nn.relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"] - y) ** 2)


def kink_gradient(params, x, y):
    """Return the gradient of ``kink_loss``, zero at the kink."""
    z = x @ params["w1"] + params["b1"]
    hidden = jnp.maximum(z, 0)
    derror = 2 * (hidden @ params["w2"] + params["b2"] - y) / y.size
    dz = derror @ params["w2"].T * (z > 0)
    return {"w1": x.T @ dz, "b1": dz.sum(0), "w2": hidden.T @ derror, "b2": derror.sum(0)}


def make_kink(dtype):
    """Return a network with two biases of zero, and two samples of zeros: a kink is met exactly."""
    params, (x, y) = make_square(dtype)
    return params | {"b1": params["b1"].at[:2].set(0)}, (x.at[:2].set(0), y)


def make_dead(dtype):
    """Return a network whose first layer is zero throughout, for it has large negative biases."""
    params, args = make_square(dtype)
    return params | {"b1": params["b1"] - 30}, args


# Saturated units


def saturated_loss(params, x, y):
    """Return the mean squared error of a sigmoid network."""
    hidden = jax.nn.sigmoid(x @ params["w1"] + params["b1"])
    return jnp.mean((hidden @ params["w2"] + params["b2"] - y) ** 2)


def saturated_gradient(params, x, y):
    """Return the gradient of ``saturated_loss``."""
    z = x @ params["w1"] + params["b1"]
    hidden = jax.nn.sigmoid(z)
    derror = 2 * (hidden @ params["w2"] + params["b2"] - y) / y.size
    dz = derror @ params["w2"].T * hidden * jax.nn.sigmoid(-z)
    return {"w1": x.T @ dz, "b1": dz.sum(0), "w2": hidden.T @ derror, "b2": derror.sum(0)}


def make_saturated(dtype):
    """Return a network whose gradient has vanished in its first layer."""
    params, args = make_square(dtype)
    return params | {"b1": params["b1"] - 25}, args


# A classifier with large logits, in a NamedTuple with a counter of steps and leaves that nothing reads


class State(NamedTuple):
    """Parameters with a counter of steps and a statistic that the loss does not read."""

    w: jax.Array
    b: jax.Array
    running_mean: jax.Array
    step: jax.Array


def state_loss(state, x, y):
    """Return the mean cross-entropy of a linear classifier."""
    logits = x @ state.w + state.b
    return (jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]).mean()


def state_gradient(state, x, y):
    """Return the gradient of ``state_loss``, with zeros for what it does not depend on."""
    logits = x @ state.w + state.b
    dlogits = (jax.nn.softmax(logits) - jax.nn.one_hot(y, WIDTH, dtype=x.dtype)) / len(y)
    return State(x.T @ dlogits, dlogits.sum(0), jnp.zeros_like(state.running_mean), jnp.zeros_like(state.step))


def make_state(dtype, scale=1.0):
    """Return a state at step 7, samples and labels."""
    w, b, mean, x = jax_normal(dtype, 82, (INPUTS, WIDTH), (WIDTH,), (INPUTS,), (SAMPLES, INPUTS))
    return State(scale * w, b, mean, jnp.asarray(7)), (x, jnp.array([0, 3, 1, 2, 2, 0]))


def make_large_state(dtype):
    """Return a state with logits in the hundreds."""
    return make_state(dtype, 200.0)


# One matrix used at six depths


def deep_loss(params, x, y):
    """Return the squared error of six residual steps by the same matrix."""
    for _ in range(6):
        x = x + 0.5 * jnp.tanh(x @ params["w"] + params["b"])
    return jnp.sum((x - y) ** 2)


def deep_gradient(params, x, y):
    """Return the gradient of ``deep_loss``."""
    states = [x]
    for _ in range(6):
        states.append(states[-1] + 0.5 * jnp.tanh(states[-1] @ params["w"] + params["b"]))
    dx = 2 * (states[-1] - y)
    dw, db = jnp.zeros_like(params["w"]), jnp.zeros_like(params["b"])
    for state in reversed(states[:-1]):
        dz = 0.5 * dx * (1 - jnp.tanh(state @ params["w"] + params["b"]) ** 2)
        dw, db, dx = dw + state.T @ dz, db + dz.sum(0), dx + dz @ params["w"].T
    return {"w": dw, "b": db}


def make_deep(dtype):
    """Return a matrix, a bias, samples and targets."""
    params, args = make_square(dtype, 83)
    return {"w": params["w1"], "b": params["b1"]}, args


# Leaves of very different sizes


def sizes_loss(params, x, y):
    """Return the mean squared error of a model whose leaves are of units far apart."""
    return jnp.mean((x @ (params["large"] * 1e-6) + jnp.sin(params["small"] * 1e5) + params["plain"] - y) ** 2)


def sizes_gradient(params, x, y):
    """Return the gradient of ``sizes_loss``."""
    prediction = x @ (params["large"] * 1e-6) + jnp.sin(params["small"] * 1e5) + params["plain"]
    dprediction = 2 * (prediction - y) / y.size
    dplain = dprediction.sum(0)
    return {
        "large": 1e-6 * (x.T @ dprediction),
        "small": 1e5 * jnp.cos(params["small"] * 1e5) * dplain,
        "plain": dplain,
    }


def make_sizes(dtype):
    """Return a leaf of size 1e6, one of size 1e-5 and one of size 1."""
    params, args = make_square(dtype, 84)
    return {"large": params["w1"] * 1e6, "small": params["b1"] * 1e-5, "plain": params["b2"]}, args


# A loss that is large beside its slopes, curved, with penalties, and that ends in float()


def penalties_loss(params, x, y):
    """Return a squared error with an offset, a group lasso, orthogonality and smoothness, as a Python float."""
    w, b = params["w"], params["b"]
    error = jnp.mean((jnp.sin(5 * (x @ w + b)) - y) ** 2)
    lasso = jnp.sqrt((w**2).sum(1) + 1e-8).sum()
    orthogonality = jnp.sum((w.T @ w - jnp.eye(WIDTH, dtype=w.dtype)) ** 2)
    return float(1000 + error + 0.1 * lasso + 0.01 * orthogonality + 0.1 * jnp.sum(jnp.diff(b) ** 2))


def penalties_gradient(params, x, y):
    """Return the gradient of ``penalties_loss``."""
    w, b = params["w"], params["b"]
    z = 5 * (x @ w + b)
    dz = 10 * (jnp.sin(z) - y) * jnp.cos(z) / y.size
    dw = x.T @ dz + 0.1 * w / jnp.sqrt((w**2).sum(1, keepdims=True) + 1e-8)
    dw += 0.04 * w @ (w.T @ w - jnp.eye(WIDTH, dtype=w.dtype))
    steps = 0.2 * jnp.diff(b)
    db = dz.sum(0).at[1:].add(steps).at[:-1].add(-steps)
    return {"w": dw, "b": db}


PENALTIES = Model(THEME, penalties_loss, penalties_gradient, make_deep)


# Attention where a sequence is padding altogether


def padded_loss(params, x, valid):
    """Return the mean square of attention-pooled sequences, zero for a sequence without valid steps."""
    scores = jnp.where(valid, x @ params["score"], -jnp.inf)
    weights = jnp.where(valid, jnp.exp(scores - jnp.where(valid.any(1), scores.max(1), 0)[:, None]), 0)
    weights = weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-9)
    return jnp.mean(((weights[..., None] * x).sum(1) @ params["out"]) ** 2)


def padded_gradient(params, x, valid):
    """Return the gradient of ``padded_loss``."""
    scores = jnp.where(valid, x @ params["score"], 0)
    weights = jnp.where(valid, jnp.exp(scores - scores.max(1, keepdims=True)), 0)
    weights = weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-9)
    pooled = (weights[..., None] * x).sum(1)
    prediction = pooled @ params["out"]
    dprediction = 2 * prediction / prediction.size
    dweights = jnp.einsum("nd,ntd->nt", dprediction @ params["out"].T, x)
    dscores = weights * (dweights - (weights * dweights).sum(1, keepdims=True))
    return {"score": jnp.einsum("nt,ntd->d", dscores, x), "out": pooled.T @ dprediction}


def make_padded(dtype):
    """Return a query, an output layer and three sequences, the last of them padding."""
    score, out, x = jax_normal(dtype, 85, (INPUTS,), (INPUTS, WIDTH), (3, 5, INPUTS))
    return {"score": score, "out": out}, (x, jnp.arange(5) < jnp.array([[5], [2], [0]]))


# Dropout from a key of random numbers


def random_loss(params, x, y, key):
    """Return the mean squared error of a network with dropout by a key."""
    keep = jax.random.bernoulli(key, 0.5, (SAMPLES, WIDTH))
    hidden = jnp.where(keep, jnp.tanh(x @ params["w1"] + params["b1"]) / 0.5, 0)
    return jnp.mean((hidden @ params["w2"] + params["b2"] - y) ** 2)


def random_gradient(params, x, y, key):
    """Return the gradient of ``random_loss``, by the same mask."""
    keep = jax.random.bernoulli(key, 0.5, (SAMPLES, WIDTH))
    hidden = jnp.tanh(x @ params["w1"] + params["b1"])
    dropped = jnp.where(keep, hidden / 0.5, 0)
    derror = 2 * (dropped @ params["w2"] + params["b2"] - y) / y.size
    dz = jnp.where(keep, derror @ params["w2"].T / 0.5, 0) * (1 - hidden**2)
    return {"w1": x.T @ dz, "b1": dz.sum(0), "w2": dropped.T @ derror, "b2": derror.sum(0)}


def make_random(dtype):
    """Return a network, samples, targets and a key."""
    params, args = make_square(dtype, 86)
    return params, (*args, jax.random.key(0))


# A count of small events in NumPy, with a loss in double precision of its own


def counts_loss(params, x, counts):
    """Return the Poisson loss of a log-linear model, as a Python float summed in double precision."""
    total = 0.0
    for row, count in zip(x, counts, strict=True):
        rate = row @ params[0] + params[1]
        total += float(np.exp(rate) - count * rate)
    return total / len(x)


def counts_gradient(params, x, counts):
    """Return the gradient of ``counts_loss``."""
    drate = (np.exp(x @ params[0] + params[1]) - counts) / len(x)
    return [x.T @ drate, drate.sum()]


def make_counts(dtype):
    """Return weights and a bias as a scalar of NumPy, samples and counts."""
    w, x = numpy_normal(dtype, 87, (INPUTS,), (SAMPLES, INPUTS))
    return [w / 2, np.asarray(-3, dtype)], (x, np.array([0, 0, 1, 0, 2, 0], dtype))


RIGHT = (
    Model(THEME, kink_loss, kink_gradient, make_kink).right("relu_at_its_kink", autodiff_differs=True),
    Model(THEME, kink_loss, kink_gradient, make_dead).right("relu_dead"),
    Model(THEME, saturated_loss, saturated_gradient, make_saturated).right("sigmoid_vanished"),
    Model(THEME, state_loss, state_gradient, make_state).right("step_counter_and_unread_leaf"),
    Model(THEME, state_loss, state_gradient, make_large_state).right("softmax_of_large_logits"),
    Model(THEME, deep_loss, deep_gradient, make_deep).right("tied_at_six_depths"),
    Model(THEME, sizes_loss, sizes_gradient, make_sizes).right("leaves_of_different_sizes"),
    PENALTIES.right("penalties_in_a_float"),
    Model(THEME, padded_loss, padded_gradient, make_padded).right("padding_altogether"),
    Model(THEME, random_loss, random_gradient, make_random).right("dropout_by_a_key"),
    Model(THEME, counts_loss, counts_gradient, make_counts).right("counts_in_numpy"),
)
