"""The cases of the first author."""

from functools import partial

from experiments.benchmarks.blind_fifth.attention_and_recurrence import (
    cross_attention_grad,
    cross_attention_loss,
    cross_attention_make,
    gru_grad,
    gru_loss,
    gru_make,
    peephole_grad,
    peephole_loss,
    peephole_make,
    relative_attention_grad,
    relative_attention_loss,
    relative_attention_make,
)
from experiments.benchmarks.blind_fifth.convolutions_and_gates import (
    causal_conv_grad,
    causal_conv_loss,
    causal_conv_make,
    gated_mlp_grad,
    gated_mlp_loss,
    gated_mlp_make,
    half_dense_grad,
    half_dense_loss,
    half_dense_make,
    linear_attention_grad,
    linear_attention_loss,
    linear_attention_make,
    squeeze_excite_grad,
    squeeze_excite_loss,
    squeeze_excite_make,
    tied_block_grad,
    tied_block_loss,
    tied_block_make,
)
from experiments.benchmarks.blind_fifth.likelihoods_and_penalties import (
    chain_grad,
    chain_loss,
    chain_make,
    contrastive_grad,
    contrastive_loss,
    contrastive_make,
    elastic_net_grad,
    elastic_net_loss,
    elastic_net_make,
    gp_grad,
    gp_loss,
    gp_make,
    hetero_grad,
    hetero_loss,
    hetero_make,
    huber_grad,
    huber_loss,
    huber_make,
    ordinal_grad,
    ordinal_loss,
    ordinal_make,
    skip_grad,
    skip_loss,
    skip_make,
    spline_grad,
    spline_loss,
    spline_make,
    weibull_grad,
    weibull_loss,
    weibull_make,
)
from experiments.benchmarks.catalogue.case import Case

# The cases


def wrong(name, theme, loss, grad, make, mistake, causes, leaf=None, dtypes=("float64", "float32")):
    return Case(
        name, theme, loss, partial(grad, **{mistake: True}), make, frozenset(causes.split()), leaf, dtypes, grad
    )


REL = ("attention", relative_attention_loss, relative_attention_grad, relative_attention_make)
CROSS = ("cross-attention", cross_attention_loss, cross_attention_grad, cross_attention_make)
GRU = ("recurrent cells", gru_loss, gru_grad, gru_make)
LSTM = ("recurrent cells", peephole_loss, peephole_grad, peephole_make)
CONV = ("convolution", causal_conv_loss, causal_conv_grad, causal_conv_make)
SE = ("squeeze and excitation", squeeze_excite_loss, squeeze_excite_grad, squeeze_excite_make)
LINEAR = ("linear attention", linear_attention_loss, linear_attention_grad, linear_attention_make)
TIED = ("tied embedding and normalization", tied_block_loss, tied_block_grad, tied_block_make)
GATED = ("gated MLP", gated_mlp_loss, gated_mlp_grad, gated_mlp_make)
MIXED = ("mixed precision", half_dense_loss, half_dense_grad, half_dense_make)
GP = ("Gaussian process", gp_loss, gp_grad, gp_make)
SURVIVAL = ("survival", weibull_loss, weibull_grad, weibull_make)
ORDINAL = ("ordinal regression", ordinal_loss, ordinal_grad, ordinal_make)
PAIRS = ("contrastive", contrastive_loss, contrastive_grad, contrastive_make)
HUBER = ("robust regression", huber_loss, huber_grad, huber_make)
NET = ("penalties", elastic_net_loss, elastic_net_grad, elastic_net_make)
SPLINE = ("splines", spline_loss, spline_grad, spline_make)
HETERO = ("heteroscedastic regression", hetero_loss, hetero_grad, hetero_make)
SKIP = ("dense network", skip_loss, skip_grad, skip_make)
CHAIN = ("Markov chain", chain_loss, chain_grad, chain_make)
SINGLE = ("float32",)

BUGS = (
    wrong("relative_attention_softmax_by_entries", *REL, "elementwise_softmax", "activation_derivative"),
    wrong("relative_attention_bias_reversed", *REL, "reversed_offsets", "kernel_flipped transposed", "['rel']"),
    wrong("cross_attention_query_without_scale", *CROSS, "query_unscaled", "scaled scaled_path", "['wq']"),
    wrong("cross_attention_keys_for_values", *CROSS, "keys_values_exchanged", "swapped"),
    wrong("gru_reset_gate_not_to_state", *GRU, "reset_path_lost", "lost_path"),
    wrong("gru_candidate_without_reset", *GRU, "candidate_from_plain_state", "wrong_operand", "['un']"),
    wrong(
        "peephole_lstm_output_sees_old_cell", *LSTM, "output_peephole_on_old_cell", "wrong_operand shifted", "['p_out']"
    ),
    wrong("causal_conv_kernel_not_turned", *CONV, "kernel_as_in_forward", "kernel_flipped"),
    wrong("squeeze_excite_pool_sum", *SE, "pool_not_divided", "scaled_path"),
    wrong("linear_attention_sums_forward", *LINEAR, "sums_run_forward", "transposed mask"),
    wrong("tied_block_rms_without_mean", *TIED, "without_mean_term", "normalization_term"),
    wrong("tied_block_rows_set", *TIED, "rows_overwritten", "unit lost_use", "['emb']"),
    wrong("gated_mlp_last_piece", *GATED, "last_piece_dropped", "subset_of_batch"),
    wrong("gated_mlp_up_carried_over", *GATED, "up_not_cleared", "accumulated", "['wu1']"),
    wrong("mixed_dense_through_level", *MIXED, "through_level", "stop_gradient", dtypes=SINGLE),
    wrong("mixed_dense_limited", *MIXED, "limited", "clipped", "['w2']", dtypes=SINGLE),
    wrong("gp_without_log_determinant", *GP, "without_log_determinant", "lost_path"),
    wrong("gp_mean_with_plus", *GP, "mean_with_plus", "sign", "['beta']"),
    wrong("weibull_censored_as_events", *SURVIVAL, "censored_as_events", "mask"),
    wrong(
        "weibull_shape_not_by_log", *SURVIVAL, "shape_in_plain_scale", "activation_derivative scaled_path", "['log_k']"
    ),
    wrong("ordinal_cuts_off_by_one", *ORDINAL, "cuts_off_by_one", "shifted", "['raw']"),
    wrong(
        "ordinal_first_cut_softplus", *ORDINAL, "first_cut_also_softplus", "element activation_derivative", "['raw']"
    ),
    wrong("contrastive_one_twin", *PAIRS, "second_twin_forgotten", "lost_use"),
    wrong("contrastive_zero_distance", *PAIRS, "distance_unguarded", "nonfinite"),
    wrong("huber_unit_tails", *HUBER, "unit_tails", "loss_derivative"),
    wrong("elastic_net_without_lasso", *NET, "lasso_part_left_out", "offset_by_parameter", "['w']"),
    wrong("elastic_net_one_length", *NET, "steps_of_one_length", "normalized scaled", "['w']"),
    wrong("spline_powers_descending", *SPLINE, "highest_power_first", "kernel_flipped", "['poly']"),
    wrong("heteroscedastic_head_order", *HETERO, "head_in_other_order", "swapped"),
    wrong("skip_network_stepped_first", *SKIP, "last_layer_stepped_first", "updated_weights"),
    wrong("skip_network_bias_over_units", *SKIP, "bias_over_units", "wrong_axis shape", "['b2']"),
    wrong("markov_chain_from_to", *CHAIN, "counted_from_to_exchanged", "transposed", "['move']"),
)

RIGHT = (
    Case("relative_attention_right", *REL),
    Case("peephole_lstm_right", *LSTM),
    Case("causal_conv_right", *CONV),
    Case("linear_attention_right", *LINEAR),
    Case("mixed_dense_right", *MIXED, dtypes=SINGLE),
    Case("gp_right", *GP),
    Case("ordinal_right", *ORDINAL),
    Case("contrastive_right", *PAIRS),
    Case("markov_chain_right", *CHAIN),
)
