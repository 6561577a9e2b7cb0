"""Dense networks, regression, factors and an autoencoder, with gradients by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln


def cast(dtype, tree):
    """Floating arrays in the dtype; integers and booleans as they are."""

    def one(a):
        return jnp.asarray(a, dtype if np.issubdtype(a.dtype, np.floating) else a.dtype)

    return jax.tree.map(one, tree)


def sigmoid(z):
    return jax.nn.sigmoid(z)


# Dense networks with one hidden layer


def make_dense(dtype, seed=0, width=5):
    rng = np.random.default_rng(seed)
    params = {
        "w1": 0.8 * rng.normal(size=(4, width)),
        "b1": 0.3 * rng.normal(size=width),
        "w2": 0.8 * rng.normal(size=(width, 3)),
        "b2": 0.3 * rng.normal(size=3),
    }
    return cast(dtype, (params, (rng.normal(size=(7, 4)), rng.normal(size=(7, 3)))))


def elu(z):
    return jnp.where(z > 0, z, jnp.expm1(jnp.minimum(z, 0)))


def d_elu(z):
    return jnp.where(z > 0, 1.0, jnp.exp(jnp.minimum(z, 0)))


def d_elu_at_output(z):
    """Takes the activation's output for its input."""
    return d_elu(elu(z))


def gelu(z):
    return 0.5 * z * (1 + jnp.tanh(np.sqrt(2 / np.pi).item() * (z + 0.044715 * z**3)))


def d_gelu(z, power=3):
    root = np.sqrt(2 / np.pi).item()
    t = jnp.tanh(root * (z + 0.044715 * z**3))
    inner = root * (1 + power * 0.044715 * z**2)
    return 0.5 * (1 + t) + 0.5 * z * (1 - t**2) * inner


def dense_loss(params, x, y, act):
    """Mean squared error of a dense network with one hidden layer."""
    hidden = act(x @ params["w1"] + params["b1"])
    return jnp.mean((hidden @ params["w2"] + params["b2"] - y) ** 2)


def dense_grad(params, x, y, act, d_act, keepdims=False, step=0.0, limit=None):
    z = x @ params["w1"] + params["b1"]
    hidden = act(z)
    d_out = 2 * (hidden @ params["w2"] + params["b2"] - y) / y.size
    d_w2 = hidden.T @ d_out
    w2 = params["w2"] - step * d_w2
    d_z = (d_out @ w2.T) * d_act(z)
    grads = {
        "w1": x.T @ d_z,
        "b1": jnp.sum(d_z, axis=0, keepdims=keepdims),
        "w2": d_w2,
        "b2": jnp.sum(d_out, axis=0),
    }
    if limit is not None:
        grads = jax.tree.map(lambda g: jnp.clip(g, -limit, limit), grads)
    return grads


elu_loss = partial(dense_loss, act=elu)
elu_grad = partial(dense_grad, act=elu, d_act=d_elu)
softplus_loss = partial(dense_loss, act=jax.nn.softplus)
softplus_grad = partial(dense_grad, act=jax.nn.softplus, d_act=sigmoid)
gelu_loss = partial(dense_loss, act=gelu)
gelu_grad = partial(dense_grad, act=gelu, d_act=d_gelu)


# Maxout


def make_maxout(dtype, seed=3):
    rng = np.random.default_rng(seed)
    params = {
        "w1": rng.normal(size=(4, 3, 2)),
        "b1": 0.4 * rng.normal(size=(3, 2)),
        "w2": rng.normal(size=3),
    }
    return cast(dtype, (params, (rng.normal(size=(8, 4)), rng.normal(size=8))))


def maxout_loss(params, x, y):
    """Squared error of a maxout network with three units of two pieces."""
    z = jnp.einsum("ni,iup->nup", x, params["w1"]) + params["b1"]
    return 0.5 * jnp.mean((jnp.max(z, axis=2) @ params["w2"] - y) ** 2)


def maxout_grad(params, x, y, to_all_pieces=False):
    """Wrong variant: every piece gets the unit's gradient, not only the largest."""
    z = jnp.einsum("ni,iup->nup", x, params["w1"]) + params["b1"]
    hidden = jnp.max(z, axis=2)
    d_out = (hidden @ params["w2"] - y) / y.size
    d_hidden = d_out[:, None] * params["w2"]
    winner = jax.nn.one_hot(jnp.argmax(z, axis=2), z.shape[2], dtype=z.dtype)
    if to_all_pieces:
        winner = jnp.ones_like(z)
    d_z = d_hidden[:, :, None] * winner
    return {"w1": jnp.einsum("ni,nup->iup", x, d_z), "b1": jnp.sum(d_z, axis=0), "w2": hidden.T @ d_out}


# PReLU with a learned slope for each unit


def make_prelu(dtype, seed=4):
    rng = np.random.default_rng(seed)
    params = {
        "w1": rng.normal(size=(3, 5)),
        "b1": 0.3 * rng.normal(size=5),
        "slope": rng.uniform(0.1, 0.4, size=5),
        "w2": rng.normal(size=(5, 2)),
    }
    return cast(dtype, (params, (rng.normal(size=(9, 3)), rng.normal(size=(9, 2)))))


def prelu_loss(params, x, y):
    """Squared error of a network with PReLU units."""
    z = x @ params["w1"] + params["b1"]
    hidden = jnp.where(z > 0, z, params["slope"] * z)
    return 0.5 * jnp.sum((hidden @ params["w2"] - y) ** 2) / len(x)


def prelu_grad(params, x, y, positive_part=False):
    """Wrong variant: the slope's gradient sums over the positive inputs."""
    z = x @ params["w1"] + params["b1"]
    hidden = jnp.where(z > 0, z, params["slope"] * z)
    d_out = (hidden @ params["w2"] - y) / len(x)
    d_hidden = d_out @ params["w2"].T
    d_z = d_hidden * jnp.where(z > 0, 1.0, params["slope"])
    part = jnp.maximum(z, 0) if positive_part else jnp.minimum(z, 0)
    return {
        "w1": x.T @ d_z,
        "b1": jnp.sum(d_z, axis=0),
        "slope": jnp.sum(d_hidden * part, axis=0),
        "w2": hidden.T @ d_out,
    }


# Logistic regression with weights for the positive class


def make_logistic(dtype, seed=5):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(4, 3)), "b": 0.3 * rng.normal(size=3)}
    labels = rng.integers(0, 2, size=(9, 3)).astype(float)
    return cast(dtype, (params, (rng.normal(size=(9, 4)), labels, np.array([3.0, 1.5, 5.0]))))


def logistic_loss(params, x, y, pos_weight):
    """Several binary labels, the positive ones weighted."""
    z = x @ params["w"] + params["b"]
    return jnp.mean(pos_weight * y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z))


def logistic_grad(params, x, y, pos_weight, weight_on_label_only=False):
    """Wrong variant: p - y with the weight put on y only."""
    p = sigmoid(x @ params["w"] + params["b"])
    d_z = (p - pos_weight * y) / y.size if weight_on_label_only else ((1 - y) * p - pos_weight * y * (1 - p)) / y.size
    return {"w": x.T @ d_z, "b": jnp.sum(d_z, axis=0)}


# Softmax regression with smoothed labels and padded rows


def make_softmax(dtype, seed=6):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(3, 4)), "b": 0.3 * rng.normal(size=4)}
    labels = np.array([0, 3, -1, 2, 1, 1, -1, 3, 0, 2], dtype=np.int32)
    return cast(dtype, (params, (rng.normal(size=(10, 3)), labels)))


def smoothed(labels, classes, dtype, eps, off_classes):
    """Targets with the mass eps taken from the label and spread over the classes."""
    hard = jax.nn.one_hot(labels, classes, dtype=dtype)
    return (1 - eps) * hard + eps / off_classes


def softmax_loss(params, x, labels, eps=0.2):
    """Cross-entropy with smoothed labels; rows labelled -1 don't count."""
    z = x @ params["w"] + params["b"]
    target = smoothed(labels, z.shape[1], z.dtype, eps, z.shape[1])
    each = -jnp.sum(target * jax.nn.log_softmax(z, axis=1), axis=1)
    valid = labels >= 0
    return jnp.sum(jnp.where(valid, each, 0)) / jnp.sum(valid).astype(z.dtype)


def softmax_grad(params, x, labels, eps=0.2, spread_over_others=False, with_padding=False):
    """Wrong variants: the mass divided by one class less; the padded rows counted."""
    z = x @ params["w"] + params["b"]
    off_classes = z.shape[1] - 1 if spread_over_others else z.shape[1]
    target = smoothed(labels, z.shape[1], z.dtype, eps, off_classes)
    valid = labels >= 0
    d_z = (jax.nn.softmax(z, axis=1) - target) / jnp.sum(valid).astype(z.dtype)
    if not with_padding:
        d_z = jnp.where(valid[:, None], d_z, 0)
    return {"w": x.T @ d_z, "b": jnp.sum(d_z, axis=0)}


# Poisson regression with exposure


def make_poisson(dtype, seed=7):
    rng = np.random.default_rng(seed)
    params = {"w": 0.4 * rng.normal(size=(4, 3)), "b": 0.2 * rng.normal(size=3)}
    counts = rng.poisson(2.0, size=(8, 3)).astype(float)
    exposure = rng.uniform(0.5, 3.0, size=8)
    return cast(dtype, (params, (rng.normal(size=(8, 4)), counts, np.log(exposure))))


def poisson_loss(params, x, counts, log_exposure):
    """Negative log-likelihood of Poisson counts, without the factorials."""
    eta = x @ params["w"] + params["b"] + log_exposure[:, None]
    return jnp.mean(jnp.exp(eta) - counts * eta)


def poisson_grad(params, x, counts, log_exposure, with_offset=True, reset=True):
    """Goes through two micro-batches; wrong variants: no exposure; the buffer isn't reset between them."""
    total = jax.tree.map(jnp.zeros_like, params)
    buffer = jax.tree.map(jnp.zeros_like, params)
    for rows in (slice(0, 4), slice(4, 8)):
        eta = x[rows] @ params["w"] + params["b"]
        if with_offset:
            eta = eta + log_exposure[rows, None]
        d_eta = (jnp.exp(eta) - counts[rows]) / counts.size
        new = {"w": x[rows].T @ d_eta, "b": jnp.sum(d_eta, axis=0)}
        buffer = new if reset else jax.tree.map(jnp.add, buffer, new)
        total = jax.tree.map(jnp.add, total, buffer)
    return total


# Negative binomial regression with a dispersion for each group


def make_negbin(dtype, seed=8):
    rng = np.random.default_rng(seed)
    params = {"w": 0.4 * rng.normal(size=4), "b": 0.5 + 0.2 * rng.normal(size=3), "log_r": 0.4 * rng.normal(size=3)}
    counts = rng.poisson(3.0, size=10).astype(float)
    group = np.array([0, 1, 2, 0, 1, 2, 2, 0, 1, 0], dtype=np.int32)
    return cast(dtype, (params, (rng.normal(size=(10, 4)), counts, group)))


def negbin_loss(params, x, y, group):
    """Negative log-likelihood with the mean exp(eta) and the size r."""
    eta = x @ params["w"] + params["b"][group]
    r = jnp.exp(params["log_r"][group])
    total = jnp.log(r + jnp.exp(eta))
    return -jnp.mean(gammaln(y + r) - gammaln(r) - gammaln(y + 1) + r * (jnp.log(r) - total) + y * (eta - total))


def negbin_grad(params, x, y, group, with_digamma=True):
    """Wrong variant: the gamma functions are taken for constants."""
    mu = jnp.exp(x @ params["w"] + params["b"][group])
    r = jnp.exp(params["log_r"][group])
    d_eta = -r * (y - mu) / (r + mu) / len(y)
    d_r = jnp.log(r / (r + mu)) + 1 - (r + y) / (r + mu)
    if with_digamma:
        d_r = d_r + digamma(y + r) - digamma(r)
    return {
        "w": x.T @ d_eta,
        "b": jnp.zeros_like(params["b"]).at[group].add(d_eta),
        "log_r": jnp.zeros_like(params["log_r"]).at[group].add(-d_r * r / len(y)),
    }


# Matrix factorization with biases and weight decay


def make_ratings(dtype, seed=9):
    rng = np.random.default_rng(seed)
    params = {
        "p": 0.7 * rng.normal(size=(5, 3)),
        "q": 0.7 * rng.normal(size=(4, 3)),
        "bu": 0.3 * rng.normal(size=5),
        "bi": 0.3 * rng.normal(size=4),
    }
    users = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4], dtype=np.int32)
    items = np.array([0, 2, 1, 0, 3, 2, 1, 2, 0], dtype=np.int32)
    return cast(dtype, (params, (users, items, rng.normal(size=9))))


def ratings_loss(params, users, items, ratings, decay=0.3):
    """Half the squared error of the ratings, and decay of the factors."""
    pred = jnp.sum(params["p"][users] * params["q"][items], axis=1) + params["bu"][users] + params["bi"][items]
    size = jnp.sum(params["p"] ** 2) + jnp.sum(params["q"] ** 2)
    return 0.5 * jnp.sum((pred - ratings) ** 2) + 0.5 * decay * size


def ratings_grad(params, users, items, ratings, decay=0.3, overwrite=False, decay_each_rating=False):
    """Wrong variants: a user's last rating overwrites the earlier ones; decay once for each rating."""
    p, q = params["p"][users], params["q"][items]
    error = jnp.sum(p * q, axis=1) + params["bu"][users] + params["bi"][items] - ratings
    slots = jnp.zeros_like(params["p"]).at[users]
    d_p = slots.set(error[:, None] * q) if overwrite else slots.add(error[:, None] * q)
    d_q = jnp.zeros_like(params["q"]).at[items].add(error[:, None] * p)
    d_q = d_q.at[items].add(decay * q) if decay_each_rating else d_q + decay * params["q"]
    return {
        "p": d_p + decay * params["p"],
        "q": d_q,
        "bu": jnp.zeros_like(params["bu"]).at[users].add(error),
        "bi": jnp.zeros_like(params["bi"]).at[items].add(error),
    }


# Autoencoder with tied weights


def make_tied(dtype, seed=10):
    rng = np.random.default_rng(seed)
    params = {"w": rng.normal(size=(5, 3)), "b": 0.3 * rng.normal(size=3), "c": 0.3 * rng.normal(size=5)}
    return cast(dtype, (params, (rng.uniform(size=(7, 5)),)))


def tied_loss(params, x):
    """Cross-entropy of the inputs rebuilt by the transposed weights."""
    hidden = sigmoid(x @ params["w"] + params["b"])
    z = hidden @ params["w"].T + params["c"]
    return jnp.sum(jax.nn.softplus(z) - x * z) / len(x)


def tied_grad(params, x, decoder=True, sigmoid_again=False):
    """Wrong variants: the decoder's use of w is left out; the output's sigmoid is derived once more."""
    hidden = sigmoid(x @ params["w"] + params["b"])
    y = sigmoid(hidden @ params["w"].T + params["c"])
    d_out = (y - x) / len(x)
    if sigmoid_again:
        d_out = d_out * y * (1 - y)
    d_hidden = (d_out @ params["w"]) * hidden * (1 - hidden)
    d_w = x.T @ d_hidden
    if decoder:
        d_w = d_w + d_out.T @ hidden
    return {"w": d_w, "b": jnp.sum(d_hidden, axis=0), "c": jnp.sum(d_out, axis=0)}
