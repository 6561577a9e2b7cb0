"""Losses of labels: focal, smoothed, masked, weighted, sums over alignments, overlap and risk sets."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import cross_entropy, maker, right, sigmoid, softmax
from experiments.benchmarks.catalogue.case import Problem

THEME = "losses of labels"
LINEAR = {"w": (4, 4), "b": (4,)}
ONE_HOT = np.eye(4)[[0, 3, 1, 2, 1]]


def scores_of(params, x):
    return x @ params["w"] + params["b"]


def linear_backward(x, ds):
    return {"w": x.T @ ds, "b": ds.sum(0)}


# Focal


def focal_loss(params, x, targets):
    p = (softmax(scores_of(params, x)) * targets).sum(1)
    return -((1 - p) ** 2 * jnp.log(p)).mean()


def focal_gradient(d_modulation=lambda p: 2 * (1 - p) * jnp.log(p)):
    def grad_fn(params, x, targets):
        probabilities = softmax(scores_of(params, x))
        p = (probabilities * targets).sum(1)
        dp = (d_modulation(p) - (1 - p) ** 2 / p) / len(x)
        return linear_backward(x, (dp * p)[:, None] * (targets - probabilities))

    return grad_fn


FOCAL = Problem(THEME, focal_loss, focal_gradient, maker(601, LINEAR, (5, 4), extra=(ONE_HOT,)))

# Sum over the monotone alignments of a sequence of labels

SEQUENCE = np.array([0, 2, 1])


def alignment_forward(params, x):
    p = softmax(scores_of(params, x))
    emitted = p[:, SEQUENCE]
    alphas = [emitted[0] * jnp.array([1, 0, 0], x.dtype)]
    for row in emitted[1:]:
        before = alphas[-1]
        alphas.append((before + jnp.concatenate([jnp.zeros(1, x.dtype), before[:-1]])) * row)
    return p, emitted, jnp.stack(alphas)


def alignment_loss(params, x):
    return -jnp.log(alignment_forward(params, x)[2][-1, -1])


def alignment_gradient(occupied=lambda alphas, betas, emitted: alphas * betas):
    def grad_fn(params, x):
        p, emitted, alphas = alignment_forward(params, x)
        betas = [jnp.array([0, 0, 1], x.dtype)]
        for row in emitted[:0:-1]:
            after = betas[0] * row
            betas.insert(0, after + jnp.concatenate([after[1:], jnp.zeros(1, x.dtype)]))
        gamma = occupied(alphas, jnp.stack(betas), emitted) / alphas[-1, -1]
        spread = jnp.zeros_like(p).at[:, SEQUENCE].add(gamma)
        return linear_backward(x, p - spread)

    return grad_fn


ALIGNMENT = Problem(THEME, alignment_loss, alignment_gradient, maker(602, {"w": (4, 3), "b": (3,)}, (5, 4)))

# Smoothed labels


def smoothed_loss(params, x, targets):
    return cross_entropy(scores_of(params, x), 0.8 * targets + 0.2 / 4)


def smoothed_gradient(smooth=lambda targets: 0.8 * targets + 0.2 / 4):
    def grad_fn(params, x, targets):
        return linear_backward(x, (softmax(scores_of(params, x)) - smooth(targets)) / len(x))

    return grad_fn


SMOOTHED = Problem(THEME, smoothed_loss, smoothed_gradient, maker(603, LINEAR, (5, 4), extra=(ONE_HOT,)))

# Tokens of which some are padding


def tokens_loss(params, x, targets, valid):
    scores = scores_of(params, x)
    logs = scores - jnp.log(jnp.exp(scores).sum(-1, keepdims=True))
    return -((logs * targets).sum(-1) * valid).sum() / valid.sum()


def tokens_gradient(mean=lambda g, valid: g * valid[..., None] / valid.sum(), for_bias=lambda g, valid: g):
    def grad_fn(params, x, targets, valid):
        raw = softmax(scores_of(params, x)) - targets
        ds = mean(raw, valid)
        unmasked = raw / valid.sum()
        return {"w": jnp.einsum("bti,bto->io", x, ds), "b": for_bias(ds, unmasked).sum((0, 1))}

    return grad_fn


VALID = np.array([[1.0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
TOKENS = Problem(
    THEME,
    tokens_loss,
    tokens_gradient,
    maker(
        604,
        LINEAR,
        (3, 4, 4),
        extra=(np.eye(4)[[[0, 1, 3, 2], [2, 2, 0, 0], [1, 3, 0, 0]]], VALID),
    ),
)

# Weighted classes


def weighted_loss(params, x, targets, weights):
    scores = scores_of(params, x)
    logs = ((scores - jnp.log(jnp.exp(scores).sum(-1, keepdims=True))) * targets).sum(1)
    own = targets @ weights
    return -(own * logs).sum() / own.sum()


def weighted_gradient(weigh=lambda raw, targets, weights: raw * (targets @ weights)[:, None]):
    def grad_fn(params, x, targets, weights):
        raw = softmax(scores_of(params, x)) - targets
        return linear_backward(x, weigh(raw, targets, weights) / (targets @ weights).sum())

    return grad_fn


WEIGHTED = Problem(
    THEME,
    weighted_loss,
    weighted_gradient,
    maker(605, LINEAR, (5, 4), extra=(ONE_HOT, np.array([0.3, 2.0, 1.0, 0.6]))),
)

# Overlap of a mask


def overlap_loss(params, x, mask):
    p = sigmoid(x @ params["w"] + params["b"])
    return 1 - 2 * (p * mask).sum() / (p.sum() + mask.sum())


def overlap_gradient(d_ratio=lambda mask, both, total: (2 * mask * total - 2 * both) / total**2):
    def grad_fn(params, x, mask):
        p = sigmoid(x @ params["w"] + params["b"])
        dz = -d_ratio(mask, (p * mask).sum(), p.sum() + mask.sum()) * p * (1 - p)
        return {"w": x.T @ dz, "b": dz.sum()}

    return grad_fn


OVERLAP = Problem(
    THEME,
    overlap_loss,
    overlap_gradient,
    maker(606, {"w": (4,), "b": ()}, (6, 4), extra=(np.array([1.0, 0, 0, 1, 1, 0]),)),
)

# Partial likelihood of survival, in order of time


def survival_loss(params, x, events):
    risk = x @ params["w"]
    at_risk = jnp.cumsum(jnp.exp(risk)[::-1])[::-1]
    return -(events * (risk - jnp.log(at_risk))).sum() / events.sum()


def survival_gradient(accumulate=jnp.cumsum):
    def grad_fn(params, x, events):
        powers = jnp.exp(x @ params["w"])
        at_risk = jnp.cumsum(powers[::-1])[::-1]
        d_risk = -(events - powers * accumulate(events / at_risk)) / events.sum()
        return {"w": x.T @ d_risk}

    return grad_fn


SURVIVAL = Problem(
    THEME,
    survival_loss,
    survival_gradient,
    maker(607, {"w": (4,)}, (6, 4), extra=(np.array([1.0, 0, 1, 1, 0, 1]),)),
)

BUGS = (
    FOCAL.bug("focal_modulation_constant", ("lost_path", "loss_derivative"), "['w']", d_modulation=lambda p: 0.0),
    FOCAL.bug(
        "focal_power_rule_without_exponent",
        ("activation_derivative", "loss_derivative", "scaled_path"),
        "['b']",
        d_modulation=lambda p: (1 - p) * jnp.log(p),
    ),
    ALIGNMENT.bug(
        "alignment_emission_counted_twice",
        ("loss_derivative", "scaled_path"),
        "['w']",
        occupied=lambda alphas, betas, emitted: alphas * betas * emitted,
    ),
    ALIGNMENT.bug(
        "alignment_beta_of_next_step",
        ("shifted", "wrong_operand", "loss_derivative"),
        "['b']",
        occupied=lambda alphas, betas, emitted: alphas * jnp.concatenate([betas[1:], betas[-1:]]),
    ),
    SMOOTHED.bug(
        "smoothed_over_other_classes",
        ("loss_derivative",),
        "['b']",
        smooth=lambda targets: 0.8 * targets + 0.2 / 3 * (1 - targets),
    ),
    TOKENS.bug(
        "tokens_mean_over_padding_too",
        ("scaled", "loss_derivative", "mask"),
        "['w']",
        mean=lambda g, valid: g * valid[..., None] / 12,
    ),
    TOKENS.bug("tokens_bias_at_padding", ("mask",), "['b']", for_bias=lambda g, unmasked: unmasked),
    WEIGHTED.bug(
        "weighted_by_column",
        ("wrong_operand", "loss_derivative"),
        "['w']",
        weigh=lambda raw, targets, weights: raw * weights,
    ),
    OVERLAP.bug(
        "overlap_denominator_constant",
        ("lost_path", "loss_derivative"),
        "['w']",
        d_ratio=lambda mask, both, total: 2 * mask / total,
    ),
    SURVIVAL.bug(
        "survival_accumulated_backward",
        ("transposed", "loss_derivative"),
        "['w']",
        accumulate=lambda terms: jnp.cumsum(terms[::-1])[::-1],
    ),
)
RIGHT = (
    right(FOCAL, "focal_right"),
    right(ALIGNMENT, "alignment_right"),
    right(SMOOTHED, "smoothed_right"),
    right(TOKENS, "tokens_right"),
    right(WEIGHTED, "weighted_right"),
    right(OVERLAP, "overlap_right"),
    right(SURVIVAL, "survival_right"),
)
