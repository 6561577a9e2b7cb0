"""What goes wrong in the filters, the tables, the sorts and the tied embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind_third.signals import SOFT, WORDS, curve, fourier, language, sliced
from experiments.benchmarks.blind_third.tools import right

BUGS = [
    fourier.bug(
        "fourier_response_not_conjugated",
        {"conjugate", "kernel_flipped", "transposed"},
        "['gain']",
        pull=lambda response: response,
    ),
    fourier.bug("fourier_spectrum_not_conjugated", {"conjugate"}, "['re']", against=lambda spectrum, d: spectrum * d),
    fourier.bug("fourier_ends_counted_twice", {"element", "scaled_path"}, "['re']", count=np.full(5, 2)),
    fourier.bug("fourier_imaginary_sign", {"sign", "scaled", "conjugate"}, "['im']", d_im=lambda d: -d.imag),
    fourier.bug("fourier_real_parts_only", {"conjugate", "lost_path"}, "['gain']", pull=lambda response: response.real),
    curve.bug("curve_shares_exchanged", {"wrong_operand"}, "['table']", shares=lambda part: (part, 1 - part)),
    curve.bug(
        "curve_slope_sign", {"sign", "scaled", "activation_derivative"}, "['w']", slope=lambda low, high: low - high
    ),
    curve.bug("curve_beyond_the_clip", {"mask", "activation_derivative"}, "['w']", inside=lambda z: jnp.ones_like(z)),
    curve.bug("curve_second_knot_off", {"shifted"}, "['table']", right_knot=lambda place: jnp.minimum(place + 2, 6)),
    curve.bug(
        "curve_upper_knot_forgotten", {"lost_path", "lost_use"}, "['table']", shares=lambda part: (1 - part, 0 * part)
    ),
    sliced.bug("sliced_order_applied_again", {"transposed", "wrong_operand"}, "['v']", undo=lambda order: order),
    sliced.bug("sliced_best_divided_by_all", {"scaled_path"}, "['w']", d_best=lambda shape: 1 / (shape[0] * shape[1])),
    sliced.bug(
        "sliced_best_forgotten",
        {"lost_path", "loss_derivative"},
        "['v']",
        join=lambda sorted_part, best_part: sorted_part,
    ),
    language.bug(
        "language_table_as_output_only", {"lost_use", "lost_path"}, "['table']", join=lambda embedded, scored: scored
    ),
    language.bug(
        "language_table_as_input_only", {"lost_use", "lost_path"}, "['table']", join=lambda embedded, scored: embedded
    ),
    language.bug(
        "language_labels_not_smoothed",
        {"loss_derivative"},
        "['w']",
        labels=lambda target, dtype: jax.nn.one_hot(target, WORDS, dtype=dtype),
    ),
    language.bug(
        "language_labels_smoothed_without_share",
        {"loss_derivative"},
        "['w']",
        labels=lambda target, dtype: (1 - SOFT) * jax.nn.one_hot(target, WORDS, dtype=dtype),
    ),
    language.bug(
        "language_padding_in_the_loss",
        {"mask", "loss_derivative"},
        "['w']",
        weigh=lambda keep: jnp.ones_like(keep) / keep.size,
    ),
    language.bug(
        "language_averaged_with_padding", {"scaled", "loss_derivative"}, "['w']", weigh=lambda keep: keep / keep.size
    ),
    language.bug("language_sum_over_past", {"transposed"}, "['table']", into_past=lambda d: jnp.cumsum(d, axis=1)),
    language.bug("language_embedding_root_left_out", {"scaled_path"}, "['table']", grow=lambda d: d),
]
RIGHT = [
    right(fourier, "fourier_filter"),
    right(curve, "curve_table"),
    right(sliced, "sliced_sorted"),
    right(language, "language_tied"),
]
