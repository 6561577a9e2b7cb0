"""What goes wrong in the normalizations."""

import jax.numpy as jnp

from experiments.benchmarks.blind_third.normalization import (
    block,
    block_make,
    dropped,
    gated,
    grouped,
    reweighted,
    standardize_back,
)
from experiments.benchmarks.blind_third.tools import right


def rows(value):
    return jnp.mean(value, axis=1, keepdims=True)


def over_the_batch(d, hat, inv):
    """The classic formula with N times the cotangent, in another order of terms."""
    n = len(d)
    return inv / n * (n * d - d.sum(axis=0) - hat * (d * hat).sum(axis=0))


BUGS = [
    block.bug(
        "block_layer_norm_mean_term",
        {"normalization_term", "lost_path"},
        "['emb']",
        through_norm=lambda d, hat, inv: inv * (d - hat * rows(d * hat)),
    ),
    block.bug(
        "block_layer_norm_over_batch",
        {"normalization_term", "wrong_axis"},
        "['emb']",
        through_norm=lambda d, hat, inv: standardize_back(d, hat, inv, (0,)),
    ),
    block.bug(
        "block_gelu_slope_product_rule",
        {"activation_derivative", "lost_path"},
        "['w1']",
        slope=lambda z: 0.5 * (1 + jnp.tanh(0.7978845608028654 * (z + 0.044715 * z**3))),
    ),
    block.bug("block_residual_forgotten", {"lost_path"}, "['emb']", join=lambda around, through: through),
    block.bug(
        "block_gamma_reads_input", {"wrong_operand"}, "['gamma']", d_gamma=lambda dn, hat, e: (dn * e).sum(axis=0)
    ),
    grouped.bug(
        "grouped_statistics_over_pixels_only",
        {"normalization_term", "wrong_axis"},
        "['stem']",
        through_norm=lambda d, hat, inv: standardize_back(d, hat, inv, (1, 2)),
    ),
    grouped.bug(
        "grouped_variance_term",
        {"normalization_term", "lost_path"},
        "['stem']",
        through_norm=lambda d, hat, inv: inv * (d - jnp.mean(d, axis=(1, 2, 4), keepdims=True)),
    ),
    grouped.bug(
        "grouped_mean_over_height_only",
        {"scaled", "scaled_path"},
        "['gamma']",
        spread=lambda dm, pixels: dm[:, None, None] * jnp.full((1, 2, 3, 1), 0.5, dm.dtype),
    ),
    gated.bug("gated_silu_slope_product_rule", {"activation_derivative", "lost_path"}, "['a']", slope=lambda a, s: s),
    gated.bug("gated_linear_branch_lost", {"lost_path"}, "['emb']", join=lambda from_a, from_b: from_a),
    gated.bug("gated_gain_without_one", {"wrong_operand"}, "['emb']", gain=lambda g: g),
    gated.bug(
        "gated_rms_sum_for_mean",
        {"normalization_term", "scaled_path"},
        "['emb']",
        through_norm=lambda d, hat, inv: inv * (d - hat * jnp.sum(d * hat, axis=1, keepdims=True)),
    ),
    reweighted.bug(
        "reweighted_length_detached",
        {"lost_path", "lost_use"},
        "['v']",
        d_direction=lambda dw, g, v, length: g / length * dw,
    ),
    reweighted.bug(
        "reweighted_projection_by_row",
        {"wrong_axis"},
        "['v']",
        d_direction=lambda dw, g, v, length: g / length * (dw - v * jnp.sum(dw * v, axis=1, keepdims=True) / length**2),
    ),
    reweighted.bug(
        "reweighted_sigma_detached",
        {"lost_path", "lost_use"},
        "['w']",
        d_spectral=lambda dm, w, left, across, sigma: dm / sigma,
    ),
    reweighted.bug(
        "reweighted_sigma_not_squared",
        {"scaled_path"},
        "['w']",
        d_spectral=lambda dm, w, left, across, sigma: dm / sigma - jnp.sum(dm * w) / sigma * jnp.outer(left, across),
    ),
    reweighted.bug(
        "reweighted_gain_by_row", {"wrong_axis"}, "['g']", d_gain=lambda dw, v, length: jnp.sum(dw * v / length, axis=1)
    ),
    dropped.bug("dropped_mask_forgotten", {"mask"}, "['gamma']", undrop=lambda dh, keep: dh / 0.75),
    dropped.bug("dropped_rate_left_out", {"scaled", "scaled_path"}, "['beta']", undrop=lambda dh, keep: dh * keep),
    dropped.bug(
        "dropped_batch_statistics_detached",
        {"normalization_term", "lost_path"},
        "['w']",
        through_norm=lambda d, hat, inv: inv * d,
    ),
    dropped.bug(
        "dropped_leak_left_out", {"activation_derivative"}, "['beta']", slope=lambda z: (z > 0).astype(z.dtype)
    ),
]
RIGHT = [
    right(block, "block_pre_norm"),
    right(block, "block_pre_norm_big_mean", make=lambda dtype: block_make(dtype, 300.0)),
    right(grouped, "grouped_norm"),
    right(gated, "gated_rms"),
    right(reweighted, "reweighted_weight_spectral"),
    right(dropped, "dropped_batch_norm"),
    right(dropped, "dropped_batch_norm_sums", through_norm=over_the_batch),
]
