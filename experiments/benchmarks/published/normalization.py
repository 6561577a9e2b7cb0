"""Published mistakes in the backward passes of normalization layers."""

import jax.numpy as jnp
from jax.lax import rsqrt

from experiments.benchmarks.published.report import Report, Rule, UsualTest, named, random_like

THEME = "normalization"
EPSILON = 1e-5


# Layer norm over the last axis: y = γ x̂ + β, x̂ = (x − mean) r.
def layer_norm_statistics(x):
    mean = x.mean(axis=-1, keepdims=True)
    r = rsqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + EPSILON)
    return mean, r


def layer_norm(params):
    mean, r = layer_norm_statistics(params["x"])
    return params["gamma"] * (params["x"] - mean) * r + params["beta"]


def layer_norm_vjp(params, dy, times_mean=1.0, rows=lambda rows: rows):
    mean, r = layer_norm_statistics(params["x"])
    normal, scaled = (params["x"] - mean) * r, params["gamma"] * dy
    along = normal * (scaled * normal).mean(axis=-1, keepdims=True)
    before = tuple(range(dy.ndim - 1))
    return {
        "x": r * (scaled - times_mean * scaled.mean(axis=-1, keepdims=True) - along),
        "gamma": rows(dy * normal).sum(axis=before),
        "beta": rows(dy).sum(axis=before),
    }


def layer_norm_make(*shape):
    def make(dtype):
        width = shape[-1]
        params = named(dtype, 101, x=shape, gamma=(width,), beta=(width,))
        return params | {"gamma": params["gamma"] + 1}, ()

    return make


def mean_twice(params, dy):
    """The mean of γ dy is subtracted twice."""
    return layer_norm_vjp(params, dy, times_mean=2.0)


# The gradient of γ and β is summed in blocks of rows, and the buffer of their sums has room for the whole blocks only.
BLOCK = 4


def last_block_lost(params, dy):
    return layer_norm_vjp(params, dy, rows=lambda rows: rows[: len(rows) // BLOCK * BLOCK])


def first_axis_as_rows(params, dy):
    """Backward takes the first axis for the rows and all the others together for the columns."""
    x, width = params["x"], params["x"].shape[-1]
    mean, r = layer_norm_statistics(x)
    rows = len(x)
    # One row's statistics for each sample: the first ones in memory.
    mean, r = (statistic.reshape(-1)[:rows, None] for statistic in (mean, r))
    flat, dy = x.reshape(rows, -1), dy.reshape(rows, -1)
    normal = (flat - mean) * r
    scaled = jnp.tile(params["gamma"], flat.shape[1] // width) * dy
    along = normal * (scaled * normal).mean(axis=1, keepdims=True)
    dx = r * (scaled - scaled.mean(axis=1, keepdims=True) - along)
    # The buffers of γ and β end after their first columns.
    return {
        "x": dx.reshape(x.shape),
        "gamma": (dy * normal).sum(axis=0)[:width],
        "beta": dy.sum(axis=0)[:width],
    }


# RMS norm, several narrow rows at a time.
def rms_norm(params):
    x = params["x"]
    return params["gamma"] * x * rsqrt((x**2).mean(axis=1, keepdims=True) + EPSILON)


def rms_norm_vjp(params, dy, spread=lambda term: term[:, None]):
    x, gamma = params["x"], params["gamma"]
    r = rsqrt((x**2).mean(axis=1, keepdims=True) + EPSILON)
    scaled = gamma * dy
    rows = 4 if x.shape[1] < 64 else 1
    dx = []
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        term = r[block, 0] ** 3 * (scaled[block] * x[block]).mean(axis=1)
        dx.append(r[block] * scaled[block] - x[block] * spread(term))
    return {"x": jnp.concatenate(dx), "gamma": (dy * x * r).sum(axis=0)}


def term_along_columns(params, dy):
    """The rows' correction has no trailing axis, so that it is broadcast along the columns."""
    return rms_norm_vjp(params, dy, spread=lambda term: term)


def rms_norm_make(rows, width):
    def make(dtype):
        return named(dtype, 102, x=(rows, width), gamma=(width,)), ()

    return make


# Group norm of (batch, channels, length).
GROUPS = 2


def group_statistics(x):
    grouped = x.reshape(len(x), GROUPS, -1)
    mean = grouped.mean(axis=2)
    return mean, rsqrt(((grouped - mean[..., None]) ** 2).mean(axis=2) + EPSILON)


def channel_groups(channels):
    """The group of every channel: consecutive channels belong together."""
    return jnp.arange(channels) // (channels // GROUPS)


def group_norm(params):
    x, groups = params["x"], channel_groups(params["x"].shape[1])
    mean, r = group_statistics(x)
    normal = (x - mean[:, groups, None]) * r[:, groups, None]
    return params["gamma"][:, None] * normal + params["beta"][:, None]


def group_norm_vjp(params, dy, groups_of_gamma=channel_groups):
    x, channels = params["x"], params["x"].shape[1]
    mean, r = group_statistics(x)
    groups, other = channel_groups(channels), groups_of_gamma(channels)
    scaled = (params["gamma"][:, None] * dy).reshape(len(x), GROUPS, -1)
    normal = ((x - mean[:, groups, None]) * r[:, groups, None]).reshape(scaled.shape)
    along = normal * (scaled * normal).mean(axis=2, keepdims=True)
    dx = r[..., None] * (scaled - scaled.mean(axis=2, keepdims=True) - along)
    for_gamma = (x - mean[:, other, None]) * r[:, other, None]
    return {"x": dx.reshape(x.shape), "gamma": (dy * for_gamma).sum(axis=(0, 2)), "beta": dy.sum(axis=(0, 2))}


def remainder_as_group(params, dy):
    """The statistics for γ are those of group c mod G."""
    return group_norm_vjp(params, dy, groups_of_gamma=lambda channels: jnp.arange(channels) % GROUPS)


def group_norm_make(dtype):
    params = named(dtype, 103, x=(3, 8, 4), gamma=(8,), beta=(8,))
    # Groups of different statistics.
    spread = jnp.asarray([1, 1, 1, 1, 2, 2, 2, 2], dtype)[:, None]
    return params | {"x": params["x"] * spread + spread}, ()


# Batch norm, in training with the batch's statistics and in evaluation with stored ones.
STORED_MEAN, STORED_VARIANCE = 0.3, 1.7


def batch_statistics(x, is_training):
    mean = jnp.where(is_training, x.mean(axis=0), STORED_MEAN)
    return mean, rsqrt(jnp.where(is_training, x.var(axis=0), STORED_VARIANCE) + EPSILON)


def batch_norm(params, is_training):
    mean, r = batch_statistics(params["x"], is_training)
    return params["gamma"] * (params["x"] - mean) * r + params["beta"]


def batch_norm_vjp(params, dy, is_training, is_training_in_backward=None):
    in_backward = is_training if is_training_in_backward is None else is_training_in_backward
    mean, r = batch_statistics(params["x"], is_training)
    normal, scaled = (params["x"] - mean) * r, params["gamma"] * dy
    through = scaled.mean(axis=0) + normal * (scaled * normal).mean(axis=0)
    return {
        "x": r * (scaled - jnp.where(in_backward, through, 0)),
        "gamma": (dy * normal).sum(axis=0),
        "beta": dy.sum(axis=0),
    }


def always_training(params, dy, is_training):
    """The formula of training, whatever the mode of the forward pass."""
    return batch_norm_vjp(params, dy, is_training, is_training_in_backward=True)


def batch_norm_make(is_training):
    def make(dtype):
        return named(dtype, 104, x=(6, 3), gamma=(3,), beta=(3,)), (jnp.asarray(is_training),)

    return make


REPORTS = (
    Report(
        Rule(
            "layer_norm_mean_twice",
            THEME,
            layer_norm,
            mean_twice,
            layer_norm_vjp,
            layer_norm_make(6, 5),
            frozenset({"normalization_term", "scaled_path"}),
            "['x']",
        ),
        "tenstorrent/tt-metal#53204",
        "[tt-train] layernorm_bw computes wrong dx: mean(dy*gamma) subtracted twice; non-L1 path loses reduction "
        "blocks to nested tile_regs_acquire",
        UsualTest(
            "hundreds of features, random cotangent, atol 5e-1 (of gradients near 1)",
            "thread",
            layer_norm_make(8, 512),
            cotangent=random_like,
            rtol=0.0,
            atol=5e-1,
            leaves=("x",),
        ),
    ),
    Report(
        Rule(
            "rms_norm_term_along_columns",
            THEME,
            rms_norm,
            term_along_columns,
            rms_norm_vjp,
            rms_norm_make(8, 4),
            frozenset({"wrong_operand", "normalization_term"}),
            "['x']",
        ),
        "BobMcDear/attorch#17",
        "RMSNorm backward broadcasts each row's correction term across columns, so it fails to compile or silently "
        "returns wrong input gradients whenever BLOCK_SIZE_BATCH > 1",
        UsualTest(
            "shapes with one row for each program, random cotangent, rtol 1e-3, atol 1e-3",
            "test file",
            rms_norm_make(8, 64),
            cotangent=random_like,
            rtol=1e-3,
            atol=1e-3,
        ),
    ),
    Report(
        Rule(
            "layer_norm_last_block_lost",
            THEME,
            layer_norm,
            last_block_lost,
            layer_norm_vjp,
            layer_norm_make(10, 3),
            frozenset({"subset_of_batch"}),
            "['gamma']",
        ),
        "BobMcDear/attorch#18",
        "LayerNorm and RMSNorm size the per-program weight-gradient buffer by floor division while launching a "
        "ceiling-sized grid, so the last block is written out of bounds and dropped from the gradient",
        UsualTest(
            "batches that the block size divides, random cotangent, rtol 1e-3, atol 1e-3",
            "test file",
            layer_norm_make(12, 3),
            cotangent=random_like,
            rtol=1e-3,
            atol=1e-3,
        ),
    ),
    Report(
        Rule(
            "layer_norm_first_axis_as_rows",
            THEME,
            layer_norm,
            first_axis_as_rows,
            layer_norm_vjp,
            layer_norm_make(4, 3, 5),
            # The first width columns of (rows, all others) are those of the first entry of the second axis.
            frozenset({"subset_of_batch", "wrong_operand", "lost_path"}),
            "['beta']",
        ),
        "flagos-ai/FlagGems#5392",
        "layer_norm_backward assumes 2-D input: silently wrong gradients + out-of-bounds writes for rank ≥ 3 inputs",
        UsualTest(
            "inputs with two axes, random cotangent, rtol 1.3e-6, atol 1e-4",
            "test file",
            layer_norm_make(4, 5),
            cotangent=random_like,
            rtol=1.3e-6,
            atol=1e-4,
        ),
    ),
    Report(
        Rule(
            "group_norm_remainder_as_group",
            THEME,
            group_norm,
            remainder_as_group,
            group_norm_vjp,
            group_norm_make,
            frozenset({"wrong_operand"}),
            "['gamma']",
        ),
        "tenstorrent/tt-metal#56202",
        "Fix moreh_group_norm_backward gamma_grad group index from global channel (#51278 item 5)",
    ),
    Report(
        Rule(
            "batch_norm_always_training",
            THEME,
            batch_norm,
            always_training,
            batch_norm_vjp,
            batch_norm_make(False),
            frozenset({"normalization_term", "stop_gradient"}),
            "['x']",
        ),
        "pytorch/xla#913",
        "Batchnorm produce wrong gradient in eval mode",
        UsualTest(
            "training mode, `.sum()`, torch.allclose",
            "assumed",
            batch_norm_make(True),
            atol=1e-5,
        ),
    ),
)
