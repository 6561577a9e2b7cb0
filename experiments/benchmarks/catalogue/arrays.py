"""Bugs in what a gradient is as an array: shapes, broadcasting, dtypes, and entries that aren't finite."""

import jax.numpy as jnp

from experiments.benchmarks.catalogue.case import Problem, normal, plain, squared_error, squared_error_backward

THEME = "arrays"
SAMPLES, FEATURES, OUTPUTS = 6, 4, 6
W, B = "['w']", "['b']"


def make(dtype):
    w, b, x, y = normal(dtype, 91, (FEATURES, OUTPUTS), (OUTPUTS,), (SAMPLES, FEATURES), (SAMPLES, OUTPUTS))
    return {"w": w, "b": b}, (x, y)


def loss_fn(params, x, y):
    return squared_error(x @ params["w"] + params["b"], y)


def gradient(dw=lambda x, dz: x.T @ dz, db=lambda dz: dz.sum(axis=0)):
    def grad_fn(params, x, y):
        dz = squared_error_backward(x @ params["w"] + params["b"], y)
        return {"w": dw(x, dz), "b": db(dz)}

    return grad_fn


layer = Problem(THEME, loss_fn, gradient, make)

SHAPES = (
    layer.bug("bias_keeps_the_batch_axis", {"shape"}, B, db=lambda dz: dz.sum(axis=0, keepdims=True)),
    layer.bug("bias_as_a_column", {"shape"}, B, db=lambda dz: dz.sum(axis=0)[:, None]),
    layer.bug("bias_not_summed", {"shape"}, B, db=lambda dz: dz),
    layer.bug("bias_summed_to_a_scalar", {"shape"}, B, db=lambda dz: dz.sum()),
    layer.bug("bias_without_last_unit", {"shape"}, B, db=lambda dz: dz.sum(axis=0)[:-1]),
    layer.bug("kernel_flattened", {"shape"}, W, dw=lambda x, dz: (x.T @ dz).ravel()),
    layer.bug("bias_sum_over_the_wrong_axis_of_a_square", {"wrong_axis"}, B, db=lambda dz: dz.sum(axis=1)),
)

DTYPES = (
    layer.bug("kernel_in_float16", {"dtype"}, W, dw=lambda x, dz: (x.T @ dz).astype(jnp.float16)),
    layer.bug("bias_in_bfloat16", {"dtype"}, B, db=lambda dz: dz.sum(axis=0).astype(jnp.bfloat16)),
    layer.bug(
        "kernel_in_float32",
        {"dtype"},
        W,
        dw=lambda x, dz: (x.T @ dz).astype(jnp.float32),
        options={"dtypes": ("float64",)},
    ),
    layer.bug(
        "bias_in_float64",
        {"dtype"},
        B,
        db=lambda dz: dz.sum(axis=0, dtype=jnp.float64),
        options={"dtypes": ("float32",)},
    ),
    layer.bug("kernel_rounded_to_integers", {"dtype"}, W, dw=lambda x, dz: jnp.round(x.T @ dz).astype(jnp.int32)),
    layer.bug("kernel_through_float16", {"dtype"}, W, dw=lambda x, dz: (x.T @ dz).astype(jnp.float16).astype(x.dtype)),
)

NONFINITE = (
    layer.bug("one_nan", {"nonfinite"}, W, dw=lambda x, dz: (x.T @ dz).at[2, 3].set(jnp.nan)),
    layer.bug("one_infinity", {"nonfinite"}, B, db=lambda dz: dz.sum(axis=0).at[5].set(jnp.inf)),
    layer.bug("nan_by_division", {"nonfinite"}, W, dw=lambda x, dz: (x - x[0]).T @ dz / (x[0] - x[0]).sum()),
)


# Predictions of shape (n,) beside targets of shape (n, 1): their difference is n by n.
def column_make(dtype):
    w, x, y = normal(dtype, 92, (FEATURES,), (SAMPLES, FEATURES), (SAMPLES, 1))
    return w, (x, y)


def column_loss(w, x, y):
    return squared_error(x @ w, y[:, 0])


column = plain(column_loss, lambda w, x, y: x.T @ squared_error_backward(x @ w, y[:, 0]), column_make, THEME)


# A scalar scale and offset, and a mask that says which samples count.
def masked_make(dtype):
    x, y, slope, offset = normal(dtype, 93, (10,), (10,), (), ())
    counted = jnp.array([True, True, False, True, False, True, True, True, False, True])
    return {"slope": slope, "offset": offset}, (x, y, counted)


def masked_loss(params, x, y, counted):
    return jnp.where(counted, (params["slope"] * x + params["offset"] - y) ** 2, 0).sum() / counted.sum()


def masked_gradient(error=lambda error, counted: jnp.where(counted, error, 0) / counted.sum(), offset=jnp.sum):
    def grad_fn(params, x, y, counted):
        de = error(2 * (params["slope"] * x + params["offset"] - y), counted)
        return {"slope": (de * x).sum(), "offset": offset(de)}

    return grad_fn


masked = Problem(THEME, masked_loss, masked_gradient, masked_make)

BROADCASTING = (
    column.bug(
        "target_column_against_prediction_row",
        {"loss_derivative", "wrong_axis"},
        grad_fn=lambda w, x, y: x.T @ squared_error_backward(x @ w, y).mean(axis=0),
    ),
    column.bug(
        "prediction_column_makes_kernel_a_column",
        {"shape"},
        grad_fn=lambda w, x, y: x.T @ squared_error_backward((x @ w)[:, None], y),
    ),
    masked.bug(
        "masked_mean_over_everything",
        {"scaled"},
        error=lambda error, counted: jnp.where(counted, error, 0) / len(error),
    ),
    # For a scalar leaf every wrong value is a multiple of the right one.
    masked.bug("mask_forgotten", {"mask"}, "['slope']", error=lambda error, counted: error / counted.sum()),
    masked.bug("scalar_offset_kept_as_vector", {"shape"}, "['offset']", offset=lambda de: de),
    masked.bug("scalar_offset_of_one_entry", {"shape"}, "['offset']", offset=lambda de: de.sum(keepdims=True)),
)

CASES = SHAPES + DTYPES + NONFINITE + BROADCASTING
