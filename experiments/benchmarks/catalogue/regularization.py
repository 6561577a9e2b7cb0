"""Bugs around dropout, weight decay and the penalties on parameters."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Problem, normal, squared_error, squared_error_backward

THEME = "regularization"
SAMPLES, FEATURES, HIDDEN, OUTPUTS = 8, 5, 6, 3
KEEP = 0.75
W1 = "['w1']"


# Two dropout layers of one shape: a₁ = tanh(x w₁) ⊙ m₁, a₂ = tanh(a₁ w₂) ⊙ m₂, then w₃.
def dropout_make(dtype):
    w1, w2, w3, x, y = normal(
        dtype, 41, (FEATURES, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, OUTPUTS), (SAMPLES, FEATURES), (SAMPLES, OUTPUTS)
    )
    return {"w1": w1, "w2": w2, "w3": w3}, (x, y, jax.random.key(7))


def kept(key, shape=(SAMPLES, HIDDEN)):
    return jax.random.bernoulli(key, KEEP, shape)


def dropout_forward(params, x, key):
    first_key, second_key = jax.random.split(key)
    first, second = kept(first_key), kept(second_key)
    a1 = jnp.tanh(x @ params["w1"])
    dropped = jnp.where(first, a1 / KEEP, 0)
    a2 = jnp.tanh(dropped @ params["w2"])
    return a1, dropped, a2, jnp.where(second, a2 / KEEP, 0), first, second


def dropout_loss(params, x, y, key):
    return squared_error(dropout_forward(params, x, key)[3] @ params["w3"], y)


def dropout_gradient(
    da1=lambda ddropped, first, second, key: jnp.where(first, ddropped / KEEP, 0),
    da2=lambda ddropped, second: jnp.where(second, ddropped / KEEP, 0),
    inputs_of_w2=lambda a1, dropped: dropped,
):
    def grad_fn(params, x, y, key):
        a1, dropped1, a2, dropped2, first, second = dropout_forward(params, x, key)
        dy = squared_error_backward(dropped2 @ params["w3"], y)
        dz2 = da2(dy @ params["w3"].T, second) * (1 - a2**2)
        dz1 = da1(dz2 @ params["w2"].T, first, second, key) * (1 - a1**2)
        return {"w1": x.T @ dz1, "w2": inputs_of_w2(a1, dropped1).T @ dz2, "w3": dropped2.T @ dy}

    return grad_fn


dropout = Problem(THEME, dropout_loss, dropout_gradient, dropout_make)

DROPOUT = (
    dropout.bug("dropout_not_rescaled", {"scaled"}, W1, da1=lambda da, first, second, key: jnp.where(first, da, 0)),
    dropout.bug(
        "dropout_rescaled_twice", {"scaled"}, W1, da1=lambda da, first, second, key: jnp.where(first, da / KEEP**2, 0)
    ),
    dropout.bug(
        "dropout_rescaled_by_the_rate",
        {"scaled"},
        W1,
        da1=lambda da, first, second, key: jnp.where(first, da / (1 - KEEP), 0),
    ),
    # Units that the mask keeps for all samples are right by luck.
    dropout.bug("dropout_mask_not_applied", {"mask"}, W1, da1=lambda da, first, second, key: da / KEEP),
    dropout.bug("dropout_forgotten", {"mask"}, W1, da1=lambda da, first, second, key: da),
    dropout.bug(
        "dropout_mask_inverted", {"mask"}, W1, da1=lambda da, first, second, key: jnp.where(first, 0, da / KEEP)
    ),
    dropout.bug(
        "dropout_mask_of_other_layer",
        {"mask"},
        W1,
        da1=lambda da, first, second, key: jnp.where(second, da / KEEP, 0),
    ),
    dropout.bug(
        "dropout_mask_of_unsplit_key",
        {"mask"},
        W1,
        da1=lambda da, first, second, key: jnp.where(kept(key), da / KEEP, 0),
    ),
    dropout.bug(
        "dropout_one_mask_for_the_batch",
        {"mask"},
        W1,
        da1=lambda da, first, second, key: jnp.where(first[0], da / KEEP, 0),
    ),
    dropout.bug(
        "dropout_kernel_from_undropped", {"mask", "wrong_operand"}, "['w2']", inputs_of_w2=lambda a1, dropped: a1
    ),
    dropout.bug("dropout_second_mask_not_applied", {"mask"}, "['w2']", da2=lambda da, second: da / KEEP),
)

# Penalties: the loss of the data plus a function of w; the line is the penalty's gradient.
STRENGTH = 0.05


def penalized_make(dtype):
    w, b, x, y = normal(dtype, 42, (FEATURES, OUTPUTS), (OUTPUTS,), (SAMPLES, FEATURES), (SAMPLES, OUTPUTS))
    return {"w": w, "b": b}, (x, y)


def penalized(penalty, right_dw) -> Problem:
    """Its lines: ``dw`` of w, and ``db`` of b, which bears no penalty."""

    def loss_fn(params, x, y):
        return squared_error(x @ params["w"] + params["b"], y) + penalty(params["w"])

    def gradient(dw=right_dw, db=lambda b: 0 * b):
        def grad_fn(params, x, y):
            dz = squared_error_backward(x @ params["w"] + params["b"], y)
            return {"w": x.T @ dz + dw(params["w"]), "b": dz.sum(axis=0) + db(params["b"])}

        return grad_fn

    return Problem(THEME, loss_fn, gradient, penalized_make)


def ridge(w):
    return STRENGTH * (w**2).sum()


def lasso(w):
    return STRENGTH * jnp.abs(w).sum()


def length(w):
    return STRENGTH * jnp.sqrt((w**2).sum())


decayed = penalized(ridge, lambda w: 2 * STRENGTH * w)
undecayed = penalized(lambda w: 0, lambda w: 0 * w)
sparse = penalized(lasso, lambda w: STRENGTH * jnp.sign(w))
# Both, λ‖w‖₁ + λ‖w‖².
elastic = penalized(lambda w: ridge(w) + lasso(w), lambda w: STRENGTH * (2 * w + jnp.sign(w)))
grouped = penalized(length, lambda w: STRENGTH * w / jnp.sqrt((w**2).sum()))

PENALTIES = (
    decayed.bug("weight_decay_forgotten", {"offset_by_parameter"}, "['w']", dw=lambda w: 0 * w),
    decayed.bug("weight_decay_missing_two", {"offset_by_parameter"}, "['w']", dw=lambda w: STRENGTH * w),
    decayed.bug("weight_decay_doubled", {"offset_by_parameter"}, "['w']", dw=lambda w: 4 * STRENGTH * w),
    decayed.bug("weight_decay_subtracted", {"offset_by_parameter"}, "['w']", dw=lambda w: -2 * STRENGTH * w),
    decayed.bug(
        "weight_decay_divided_by_samples", {"offset_by_parameter"}, "['w']", dw=lambda w: 2 * STRENGTH * w / SAMPLES
    ),
    decayed.bug("weight_decay_of_the_bias_too", {"offset_by_parameter"}, "['b']", db=lambda b: 2 * STRENGTH * b),
    decayed.bug(
        "weight_decay_square_not_differentiated", {"activation_derivative"}, "['w']", dw=lambda w: STRENGTH * w**2
    ),
    decayed.bug("weight_decay_by_sign", {"activation_derivative"}, "['w']", dw=lambda w: STRENGTH * jnp.sign(w)),
    undecayed.bug("weight_decay_added", {"offset_by_parameter"}, "['w']", dw=lambda w: 2 * STRENGTH * w),
    sparse.bug("lasso_forgotten", {"offset_by_parameter"}, "['w']", dw=lambda w: 0 * w),
    sparse.bug("lasso_sign_forgotten", {"activation_derivative"}, "['w']", dw=lambda w: STRENGTH * jnp.ones_like(w)),
    elastic.bug("elastic_net_square_forgotten", {"offset_by_parameter"}, "['w']", dw=lambda w: STRENGTH * jnp.sign(w)),
    # A constant times w, though the constant is the length's own.
    grouped.bug("penalty_of_length_not_divided", {"offset_by_parameter"}, "['w']", dw=lambda w: STRENGTH * w),
)

CASES = DROPOUT + PENALTIES
