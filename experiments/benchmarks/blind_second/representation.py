"""Losses of representations: contrastive pairs, triplets, a variational autoencoder, and embeddings."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import cross_entropy, maker, right, softmax, unit, unit_backward
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

CONTRAST = "losses of representations"
EMBEDDING = "embeddings"

# Contrastive in both directions


def pairs_forward(params, x1, x2):
    (a, a_norm), (b, b_norm) = unit(x1 @ params["w1"]), unit(x2 @ params["w2"])
    return a, a_norm, b, b_norm, a @ b.T, jnp.exp(params["log_scale"])


def pairs_loss(params, x1, x2):
    *_, similarity, scale = pairs_forward(params, x1, x2)
    eye = jnp.eye(len(x1), dtype=x1.dtype)
    return (cross_entropy(scale * similarity, eye) + cross_entropy(scale * similarity.T, eye)) / 2


def pairs_gradient(columns=lambda s: softmax(s, 0), positives=2):
    def grad_fn(params, x1, x2):
        a, a_norm, b, b_norm, similarity, scale = pairs_forward(params, x1, x2)
        scores = scale * similarity
        eye = jnp.eye(len(x1), dtype=x1.dtype)
        ds = (softmax(scores) + columns(scores) - positives * eye) / (2 * len(x1))
        return {
            "w1": x1.T @ unit_backward(scale * ds @ b, a, a_norm),
            "w2": x2.T @ unit_backward(scale * ds.T @ a, b, b_norm),
            "log_scale": (ds * scores).sum(),
        }

    return grad_fn


PAIRS = Problem(
    CONTRAST,
    pairs_loss,
    pairs_gradient,
    maker(701, {"w1": (4, 3), "w2": (5, 3), "log_scale": ()}, (4, 4), (4, 5), add={"log_scale": 0.5}),
)

# Triplets with a margin


def triplet_forward(params, *inputs):
    return [jnp.tanh(x @ params["w"] + params["b"]) for x in inputs]


def triplet_loss(params, anchor, positive, negative):
    a, p, n = triplet_forward(params, anchor, positive, negative)
    return jnp.maximum(0, 0.5 + ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1)).mean()


def triplet_gradient(
    active=lambda margin: margin > 0, to_negative=lambda a, n: 2 * (a - n), to_anchor=lambda a, p, n: 2 * (n - p)
):
    def grad_fn(params, anchor, positive, negative):
        a, p, n = triplet_forward(params, anchor, positive, negative)
        margin = 0.5 + ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1)
        weight = (active(margin) / len(a)).astype(a.dtype)[:, None]
        ds = (to_anchor(a, p, n), 2 * (p - a), to_negative(a, n))
        dzs = [weight * d * (1 - h**2) for d, h in zip(ds, (a, p, n), strict=True)]
        return {
            "w": sum(x.T @ dz for x, dz in zip((anchor, positive, negative), dzs, strict=True)),
            "b": sum(dz.sum(0) for dz in dzs),
        }

    return grad_fn


TRIPLET = Problem(
    CONTRAST, triplet_loss, triplet_gradient, maker(702, {"w": (4, 3), "b": (3,)}, (6, 4), (6, 4), (6, 4))
)

# Variational autoencoder


def variational_forward(params, x, noise):
    mean, log_variance = x @ params["wm"], x @ params["wl"]
    z = mean + jnp.exp(log_variance / 2) * noise
    return mean, log_variance, z, z @ params["wd"]


def variational_loss(params, x, noise):
    mean, log_variance, _, y = variational_forward(params, x, noise)
    divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(1)
    return squared_error(y, x) + divergence.mean()


def variational_gradient(
    d_deviation=lambda dz, noise, log_variance: dz * noise * 0.5 * jnp.exp(log_variance / 2),
    divergence_mean=lambda mean: mean,
):
    def grad_fn(params, x, noise):
        mean, log_variance, z, y = variational_forward(params, x, noise)
        dy = squared_error_backward(y, x)
        dz = dy @ params["wd"].T
        dl = d_deviation(dz, noise, log_variance) + 0.5 * (jnp.exp(log_variance) - 1) / len(x)
        return {"wm": x.T @ (dz + divergence_mean(mean) / len(x)), "wl": x.T @ dl, "wd": z.T @ dy}

    return grad_fn


VARIATIONAL = Problem(
    CONTRAST,
    variational_loss,
    variational_gradient,
    maker(703, {"wm": (4, 3), "wl": (4, 3), "wd": (3, 4)}, (5, 4), (5, 3)),
)

# An embedding that is also the output layer


def tied_forward(params, ids):
    h = jnp.tanh(params["table"][ids] @ params["w"])
    return h, h @ params["table"].T


def tied_loss(params, ids, targets):
    return cross_entropy(tied_forward(params, ids)[1], targets)


def tied_gradient(
    output=lambda ds, h: ds.T @ h, gather=lambda rows, ids, table: jnp.zeros_like(table).at[ids].add(rows)
):
    def grad_fn(params, ids, targets):
        table, w = params["table"], params["w"]
        h, scores = tied_forward(params, ids)
        ds = (softmax(scores) - targets) / len(ids)
        dz = (ds @ table) * (1 - h**2)
        return {"table": output(ds, h) + gather(dz @ w.T, ids, table), "w": table[ids].T @ dz}

    return grad_fn


def gather_by_frequency(rows, ids, table):
    counts = jnp.zeros(len(table), rows.dtype).at[ids].add(1.0)
    return jnp.zeros_like(table).at[ids].add(rows / counts[ids][:, None])


TIED = Problem(
    EMBEDDING,
    tied_loss,
    tied_gradient,
    maker(
        704,
        {"table": (5, 4), "w": (4, 4)},
        extra=(np.array([1, 3, 1, 0, 4, 1], np.int32), np.eye(5)[[3, 1, 0, 4, 1, 2]]),
    ),
)

# A bag of words with padding


def bag_forward(params, ids):
    kept = (ids != 0).astype(params["table"].dtype)[..., None]
    return kept, (params["table"][ids] * kept).sum(1)


def bag_loss(params, ids, target):
    return squared_error(jnp.tanh(bag_forward(params, ids)[1] @ params["w"]), target)


def bag_gradient(keep=lambda kept: kept, shift=0):
    def grad_fn(params, ids, target):
        kept, bag = bag_forward(params, ids)
        y = jnp.tanh(bag @ params["w"])
        dz = squared_error_backward(y, target) * (1 - y**2)
        rows = (dz @ params["w"].T)[:, None] * keep(kept)
        return {"table": jnp.zeros_like(params["table"]).at[ids + shift].add(rows), "w": bag.T @ dz}

    return grad_fn


BAG = Problem(
    EMBEDDING,
    bag_loss,
    bag_gradient,
    maker(
        705,
        {"table": (6, 3), "w": (3, 4)},
        extra=(
            np.array([[1, 4, 2, 0], [3, 0, 0, 0], [2, 2, 4, 1]], np.int32),
            np.array([[0.3, -1, 0.5, 1], [1, 0.2, -0.4, 0.8], [-0.7, 0.1, 0.9, -1]]),
        ),
    ),
)

# Words and positions


def positions_forward(params, ids):
    e = params["words"][ids] + params["positions"]
    return e, jnp.tanh(e @ params["w"])


def positions_loss(params, ids, target):
    return squared_error(positions_forward(params, ids)[1], target)


def positions_gradient(reduce=lambda de: de.sum(0)):
    def grad_fn(params, ids, target):
        e, y = positions_forward(params, ids)
        dz = squared_error_backward(y, target) * (1 - y**2)
        de = dz @ params["w"].T
        return {
            "words": jnp.zeros_like(params["words"]).at[ids].add(de),
            "positions": reduce(de),
            "w": jnp.einsum("bti,bto->io", e, dz),
        }

    return grad_fn


POSITIONS = Problem(
    EMBEDDING,
    positions_loss,
    positions_gradient,
    maker(
        706,
        {"words": (5, 4), "positions": (3, 4), "w": (4, 3)},
        extra=(
            np.array([[0, 2, 1], [4, 2, 3], [3, 3, 0]], np.int32),
            np.random.default_rng(7061).normal(size=(3, 3, 3)),
        ),
    ),
)

BUGS = (
    PAIRS.bug("pairs_rows_in_both_directions", ("wrong_axis", "loss_derivative"), "['w2']", columns=softmax),
    PAIRS.bug("pairs_positive_subtracted_once", ("lost_path", "loss_derivative"), "['w1']", positives=1),
    TRIPLET.bug("triplet_negative_missed", ("lost_use", "lost_path"), "['w']", to_negative=lambda a, n: 0 * n),
    TRIPLET.bug(
        "triplet_inactive_pairs", ("mask", "activation_derivative", "loss_derivative"), "['b']", active=jnp.ones_like
    ),
    TRIPLET.bug(
        "triplet_anchor_of_positive_alone",
        ("lost_path", "loss_derivative"),
        "['w']",
        to_anchor=lambda a, p, n: 2 * (a - p),
    ),
    VARIATIONAL.bug(
        "variational_half_of_deviation",
        ("activation_derivative", "scaled_path"),
        "['wl']",
        d_deviation=lambda dz, noise, log_variance: dz * noise * jnp.exp(log_variance / 2),
    ),
    VARIATIONAL.bug("variational_mean_not_regularized", ("lost_path",), "['wm']", divergence_mean=lambda mean: 0.0),
    TIED.bug("tied_output_missed", ("lost_use", "lost_path"), "['table']", output=lambda ds, h: 0.0),
    TIED.bug("tied_divided_by_frequency", ("scaled_path", "unit"), "['table']", gather=gather_by_frequency),
    BAG.bug("bag_padding_learns", ("mask", "unit"), "['table']", keep=jnp.ones_like),
    BAG.bug("bag_rows_from_one", ("shifted",), "['table']", shift=1),
    POSITIONS.bug("positions_summed_over_time", ("wrong_axis",), "['positions']", reduce=lambda de: de.sum(1)),
)
RIGHT = (
    right(PAIRS, "pairs_right"),
    right(TRIPLET, "triplet_right"),
    right(VARIATIONAL, "variational_right"),
    right(TIED, "tied_right"),
    right(BAG, "bag_right"),
    right(POSITIONS, "positions_right"),
)
