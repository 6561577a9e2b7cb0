"""Ordinary mistakes in small networks: two layers of regression, and a classifier with dropout."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_second.common import cross_entropy, maker, right, softmax
from experiments.benchmarks.catalogue.case import Problem, squared_error, squared_error_backward

THEME = "ordinary networks"

# Two layers with weight decay

DECAY = 0.3


def regression_loss(params, x, target):
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    penalty = DECAY * ((params["w1"] ** 2).sum() + (params["w2"] ** 2).sum())
    return squared_error(h @ params["w2"] + params["b2"], target) + penalty


def regression_gradient(
    d_output=squared_error_backward,
    slope=lambda h, z: 1 - h**2,
    through_w2=lambda dy, w2, d_w2: dy @ w2.T,
    first_input=lambda x, h: x,
    b1_of=lambda dz, dy: dz.sum(0),
    b2_of=lambda dz, dy: dy.sum(0),
    decay1=lambda w: 2 * DECAY * w,
    decay2=lambda w: 2 * DECAY * w,
    finish2=lambda g: g,
):
    def grad_fn(params, x, target):
        z = x @ params["w1"] + params["b1"]
        h = jnp.tanh(z)
        dy = d_output(h @ params["w2"] + params["b2"], target)
        d_w2 = h.T @ dy + decay2(params["w2"])
        dz = through_w2(dy, params["w2"], d_w2) * slope(h, z)
        return {
            "w1": first_input(x, h).T @ dz + decay1(params["w1"]),
            "b1": b1_of(dz, dy),
            "w2": finish2(d_w2),
            "b2": b2_of(dz, dy),
        }

    return grad_fn


SQUARE = {"w1": (4, 4), "b1": (4,), "w2": (4, 4), "b2": (4,)}
REGRESSION = Problem(THEME, regression_loss, regression_gradient, maker(1101, SQUARE, (4, 4), (4, 4)))

# A classifier with ReLU and dropout

TARGETS = np.eye(3)[[0, 2, 1, 1, 0, 2]]
KEPT = np.array(
    [[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 0, 1, 0], [1, 0, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 0, 0, 1.0]]
)


def classifier_forward(params, x, kept):
    z = x @ params["w1"] + params["b1"]
    h = jnp.maximum(z, 0) * kept / 0.6
    return z, h, h @ params["w2"] + params["b2"]


def classifier_loss(params, x, targets, kept):
    return cross_entropy(classifier_forward(params, x, kept)[2], targets)


def classifier_gradient(
    d_scores=lambda scores, targets: softmax(scores) - targets,
    d_dropout=lambda d, kept: d * kept / 0.6,
    d_relu=lambda d, z, h: d * (z > 0),
    b1_of=lambda dz: dz.sum(0),
    for_w2=lambda h, z: h,
):
    def grad_fn(params, x, targets, kept):
        z, h, scores = classifier_forward(params, x, kept)
        ds = d_scores(scores, targets) / len(x)
        dz = d_relu(d_dropout(ds @ params["w2"].T, kept), z, h)
        return {"w1": x.T @ dz, "b1": b1_of(dz), "w2": for_w2(h, z).T @ ds, "b2": ds.sum(0)}

    return grad_fn


CLASSIFIER = Problem(
    THEME,
    classifier_loss,
    classifier_gradient,
    maker(1102, {"w1": (4, 5), "b1": (5,), "w2": (5, 3), "b2": (3,)}, (6, 4), extra=(TARGETS, KEPT)),
)


def wrong_softmax(scores, targets):
    return (softmax(scores) - targets) * softmax(scores) * (1 - softmax(scores))


BUGS = (
    REGRESSION.bug(
        "regression_weights_not_transposed", ("transposed",), "['w1']", through_w2=lambda dy, w2, d: dy @ w2
    ),
    REGRESSION.bug("regression_first_bias_averaged", ("scaled",), "['b1']", b1_of=lambda dz, dy: dz.mean(0)),
    REGRESSION.bug(
        "regression_output_not_averaged",
        ("scaled", "loss_derivative"),
        "['b2']",
        d_output=lambda y, target: 2 * (y - target),
    ),
    REGRESSION.bug("regression_tanh_without_square", ("activation_derivative",), "['b1']", slope=lambda h, z: 1 - h),
    REGRESSION.bug(
        "regression_tanh_of_output_again", ("activation_derivative",), "['b1']", slope=lambda h, z: 1 - jnp.tanh(h) ** 2
    ),
    REGRESSION.bug("regression_decay_missed", ("offset_by_parameter",), "['w1']", decay1=lambda w: 0.0),
    REGRESSION.bug("regression_decay_without_two", ("offset_by_parameter",), "['w2']", decay2=lambda w: DECAY * w),
    REGRESSION.bug(
        "regression_weights_already_updated",
        ("updated_weights",),
        "['w1']",
        through_w2=lambda dy, w2, d: dy @ (w2 - 0.1 * d).T,
    ),
    REGRESSION.bug("regression_first_layer_reads_hidden", ("wrong_operand",), "['w1']", first_input=lambda x, h: h),
    REGRESSION.bug("regression_bias_summed_over_outputs", ("wrong_axis",), "['b2']", b2_of=lambda dz, dy: dy.sum(1)),
    REGRESSION.bug("regression_bias_of_other_layer", ("swapped",), "['b1']", b1_of=lambda dz, dy: dy.sum(0)),
    REGRESSION.bug("regression_clipped", ("clipped",), "['w2']", finish2=lambda g: jnp.clip(g, -0.3, 0.3)),
    CLASSIFIER.bug(
        "classifier_softmax_derived_twice",
        ("activation_derivative", "loss_derivative"),
        "['b2']",
        d_scores=wrong_softmax,
    ),
    CLASSIFIER.bug(
        "classifier_labels_of_next_sample",
        ("shifted", "loss_derivative"),
        "['w2']",
        d_scores=lambda scores, targets: softmax(scores) - jnp.roll(targets, -1, 0),
    ),
    CLASSIFIER.bug(
        "classifier_softmax_over_samples",
        ("wrong_axis", "loss_derivative"),
        "['b2']",
        d_scores=lambda scores, targets: softmax(scores, 0) - targets,
    ),
    CLASSIFIER.bug(
        "classifier_dropout_not_rescaled", ("scaled", "scaled_path"), "['w1']", d_dropout=lambda d, kept: d * kept
    ),
    CLASSIFIER.bug(
        "classifier_dropout_drawn_again", ("mask",), "['w1']", d_dropout=lambda d, kept: d * jnp.roll(kept, 1, 1) / 0.6
    ),
    CLASSIFIER.bug("classifier_relu_missed", ("activation_derivative",), "['b1']", d_relu=lambda d, z, h: d),
    CLASSIFIER.bug(
        "classifier_relu_of_the_gradient", ("activation_derivative",), "['w1']", d_relu=lambda d, z, h: d * (d > 0)
    ),
    CLASSIFIER.bug(
        "classifier_relu_leaks",
        ("activation_derivative",),
        "['b1']",
        d_relu=lambda d, z, h: jnp.where(z > 0, d, 0.1 * d),
    ),
    CLASSIFIER.bug("classifier_bias_never_returned", ("zero",), "['b1']", b1_of=lambda dz: 0 * dz[0]),
    CLASSIFIER.bug(
        "classifier_weight_of_undropped", ("wrong_operand", "mask"), "['w2']", for_w2=lambda h, z: jnp.maximum(z, 0)
    ),
)
RIGHT = (right(REGRESSION, "regression_right"), right(CLASSIFIER, "classifier_right"))
