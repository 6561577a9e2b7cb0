"""More models in NumPy: ratings, an autoencoder with tied weights, a robust regression and distances."""

import numpy as np

from experiments.benchmarks.blind.model import Model, numpy_normal

USERS, ITEMS, FACTORS = 5, 6, 3
PENALTY = 0.05


# Ratings by factors of users and items, where some are observed


def ratings_loss(params, ratings, observed):
    """Return the mean squared error over the observed ratings, with a penalty on the factors."""
    predictions = params["users"] @ params["items"].T
    predictions += params["user_bias"][:, None]
    predictions += params["item_bias"]
    predictions -= ratings
    predictions *= observed
    penalty = (params["users"] ** 2).sum() + (params["items"] ** 2).sum()
    return float((predictions**2).sum() / observed.sum() + PENALTY * penalty)


def ratings_gradient(params, ratings, observed):
    """Return the gradient of ``ratings_loss``."""
    users, items = params["users"], params["items"]
    errors = users @ items.T + params["user_bias"][:, None] + params["item_bias"] - ratings
    errors = 2 * errors * observed / observed.sum()
    dusers = errors @ items + 2 * PENALTY * users
    ditems = errors.T @ users + 2 * PENALTY * items
    duser_bias = errors.sum(axis=1)
    ditem_bias = errors.sum(axis=0)
    return {"users": dusers, "items": ditems, "user_bias": duser_bias, "item_bias": ditem_bias}


def make_ratings(dtype):
    """Return factors and biases, ratings and which of them are observed."""
    users, items, user_bias, item_bias, ratings = numpy_normal(
        dtype, 11, (USERS, FACTORS), (ITEMS, FACTORS), (USERS,), (ITEMS,), (USERS, ITEMS)
    )
    observed = (np.random.default_rng(12).random((USERS, ITEMS)) < 0.6).astype(dtype)
    return {"users": users, "items": items, "user_bias": user_bias, "item_bias": item_bias}, (ratings, observed)


RATINGS = Model("ratings in NumPy", ratings_loss, ratings_gradient, make_ratings)


# An autoencoder with tied weights and a penalty on mean activations


TARGET_ACTIVITY, SPARSITY = 0.2, 0.3


def sigmoid(z):
    """Return the logistic function."""
    return 1 / (1 + np.exp(-z))


def autoencoder_loss(params, x):
    """Return the reconstruction error with tied weights, plus the divergence of mean activities from a target."""
    hidden = sigmoid(x @ params["W"] + params["b"])
    error = hidden @ params["W"].T + params["c"]
    error -= x
    activity = hidden.mean(axis=0)
    divergence = TARGET_ACTIVITY * np.log(TARGET_ACTIVITY / activity)
    divergence += (1 - TARGET_ACTIVITY) * np.log((1 - TARGET_ACTIVITY) / (1 - activity))
    return 0.5 * (error**2).sum() / len(x) + SPARSITY * divergence.sum()


def autoencoder_gradient(params, x):
    """Return the gradient of ``autoencoder_loss``."""
    w, n = params["W"], len(x)
    hidden = sigmoid(x @ w + params["b"])
    derror = (hidden @ w.T + params["c"] - x) / n
    activity = hidden.mean(axis=0)
    dhidden = derror @ w
    dhidden += SPARSITY * ((1 - TARGET_ACTIVITY) / (1 - activity) - TARGET_ACTIVITY / activity) / n
    dz = dhidden * hidden * (1 - hidden)
    dw = x.T @ dz + derror.T @ hidden
    return {"W": dw, "b": dz.sum(axis=0), "c": derror.sum(axis=0)}


def make_autoencoder(dtype):
    """Return tied weights, two biases and nine samples."""
    w, b, c, x = numpy_normal(dtype, 13, (5, 4), (4,), (5,), (9, 5))
    return {"W": w / 2, "b": b / 2, "c": c / 2}, (x,)


AUTOENCODER = Model("tied weights in NumPy", autoencoder_loss, autoencoder_gradient, make_autoencoder)


# A robust regression with weights of the samples


THRESHOLD = 0.7


def robust_loss(params, x, y, weights):
    """Return the Huber loss of a softplus network, a mean under the weights of the samples."""
    (w1, b1), (w2, b2) = params
    hidden = np.log1p(np.exp(x @ w1 + b1))
    residual = hidden @ w2 + b2 - y
    size = np.abs(residual)
    losses = np.where(size <= THRESHOLD, 0.5 * residual**2, THRESHOLD * (size - 0.5 * THRESHOLD))
    losses *= weights
    return losses.sum() / weights.sum()


def robust_gradient(params, x, y, weights):
    """Return the gradient of ``robust_loss``."""
    (w1, b1), (w2, b2) = params
    z = x @ w1 + b1
    hidden = np.log1p(np.exp(z))
    residual = hidden @ w2 + b2 - y
    dresidual = np.clip(residual, -THRESHOLD, THRESHOLD)
    dresidual = dresidual * weights / weights.sum()
    dw2 = hidden.T @ dresidual
    db2 = dresidual.sum()
    dhidden = np.outer(dresidual, w2)
    dz = dhidden * sigmoid(z)
    return [(x.T @ dz, dz.sum(axis=0)), (dw2, db2)]


def make_robust(dtype):
    """Return two layers, ten samples and their weights."""
    w1, b1, w2, b2, x, y, weights = numpy_normal(dtype, 14, (3, 4), (4,), (4,), (), (10, 3), (10,), (10,))
    return [(w1, b1), (w2, np.asarray(b2))], (x, 2 * y, 0.2 + np.abs(weights))


ROBUST = Model("robust regression in NumPy", robust_loss, robust_gradient, make_robust)


BUGS = (
    RATINGS.bug(
        "ratings_unobserved_count",
        "mask",
        "['user_bias']",
        "errors = 2 * errors * observed / observed.sum()",
        "errors = 2 * errors / observed.sum()",
    ),
    RATINGS.bug(
        "ratings_mean_over_all_pairs",
        "scaled",
        "['item_bias']",
        "errors = 2 * errors * observed / observed.sum()",
        "errors = 2 * errors * observed / observed.size",
    ),
    RATINGS.bug(
        "ratings_new_users_move_the_items",
        "updated_weights",
        "['items']",
        "ditems = errors.T @ users +",
        "ditems = errors.T @ (users - 0.5 * dusers) +",
    ),
    RATINGS.bug(
        "ratings_items_pushed_away",
        "sign",
        "['item_bias']",
        "ditem_bias = errors.sum(axis=0)",
        "ditem_bias = -errors.sum(axis=0)",
    ),
    AUTOENCODER.bug(
        "autoencoder_decoder_use_forgotten",
        "lost_use",
        "['W']",
        "dw = x.T @ dz + derror.T @ hidden",
        "dw = x.T @ dz",
    ),
    AUTOENCODER.bug(
        "autoencoder_sparsity_without_its_mean",
        "scaled_path",
        "['b']",
        "- TARGET_ACTIVITY / activity) / n",
        "- TARGET_ACTIVITY / activity)",
    ),
    AUTOENCODER.bug(
        "autoencoder_sigmoid_twice",
        "activation_derivative",
        "['b']",
        "dz = dhidden * hidden * (1 - hidden)",
        "dz = dhidden * sigmoid(hidden) * (1 - sigmoid(hidden))",
    ),
    ROBUST.bug(
        "huber_unclipped",
        "activation_derivative subset_of_batch scaled_path",
        "[1][1]",
        "dresidual = np.clip(residual, -THRESHOLD, THRESHOLD)",
        "dresidual = residual",
    ),
    ROBUST.bug(
        "huber_mean_over_the_samples",
        "scaled",
        "[1][1]",
        "weights / weights.sum()",
        "weights / len(weights)",
    ),
    ROBUST.bug(
        "softplus_derivative_of_its_output",
        "activation_derivative",
        "[0][1]",
        "dz = dhidden * sigmoid(z)",
        "dz = dhidden * sigmoid(hidden)",
    ),
    ROBUST.bug(
        "huber_last_unit_left_out",
        "unit zero",
        "[1][0]",
        "dw2 = hidden.T @ dresidual",
        "dw2 = np.array([hidden[:, j] @ dresidual if j < len(w2) - 1 else 0 for j in range(len(w2))], hidden.dtype)",
    ),
)
RIGHT = (RATINGS.right("ratings"), AUTOENCODER.right("autoencoder"), ROBUST.right("huber"))
