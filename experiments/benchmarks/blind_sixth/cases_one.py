"""The cases of the first author."""

from functools import partial

from experiments.benchmarks.blind_sixth.dense_classifier import (
    clip_grad,
    clip_loss,
    cox_grad,
    cox_loss,
    dense_grad,
    dense_loss,
    gp_grad,
    gp_loss,
    make_clip,
    make_cox,
    make_dense,
    make_gp,
    make_mdn,
    make_negbin,
    mdn_grad,
    mdn_loss,
    negbin_chunked_grad,
    negbin_grad,
    negbin_loss,
)
from experiments.benchmarks.blind_sixth.hidden_markov_model import (
    BOTH,
    F32,
    curve_grad,
    curve_loss,
    hmm_grad,
    hmm_loss,
    make_curve,
    make_hmm,
    make_ordinal,
    make_phase,
    make_stress,
    ordinal_grad,
    ordinal_loss,
    phase_grad,
    phase_loss,
    stress_grad,
    stress_loss,
)
from experiments.benchmarks.blind_sixth.linear_recurrent_unit import (
    gated_block_grad,
    gated_block_loss,
    lru_grad,
    lru_loss,
    make_gated_block,
    make_lru,
    make_mixed,
    make_moe,
    make_ngram,
    mixed_grad,
    mixed_loss,
    moe_grad,
    moe_loss,
    ngram_grad,
    ngram_loss,
)
from experiments.benchmarks.blind_sixth.sliding_window_causal_attention import (
    WINDOW,
    conv_grad,
    conv_loss,
    cross_attention_grad,
    cross_attention_loss,
    gru_grad,
    gru_loss,
    make_conv,
    make_cross_attention,
    make_gru,
    make_window_attention,
    window_attention_grad,
    window_attention_loss,
)
from experiments.benchmarks.catalogue.case import Case


def _wrong(name, theme, loss, grad, make, causes, leaf=None, dtypes=BOTH, right=None, **mistake):
    assert mistake
    return Case(name, theme, loss, partial(grad, **mistake), make, frozenset(causes), leaf, dtypes, right or grad)


def _right(name, theme, loss, grad, make, dtypes=BOTH):
    return Case(name, theme, loss, grad, make, dtypes=dtypes, right=grad)


_WINDOW = ("window attention", window_attention_loss, window_attention_grad, make_window_attention)


_CROSS = ("cross attention", cross_attention_loss, cross_attention_grad, make_cross_attention)


_GRU = ("recurrent cell", gru_loss, gru_grad, make_gru)


_CONV = ("convolution", conv_loss, conv_grad, make_conv)


_LRU = ("state space", lru_loss, lru_grad, make_lru)


_MOE = ("mixture of experts", moe_loss, moe_grad, make_moe)


_BLOCK = ("gated block", gated_block_loss, gated_block_grad, make_gated_block)


_NGRAM = ("tied embedding", ngram_loss, ngram_grad, make_ngram)


_MIXED = ("mixed precision", mixed_loss, mixed_grad, make_mixed)


_DENSE = ("dense network", dense_loss, dense_grad, make_dense)


_NEGBIN = ("count regression", negbin_loss, negbin_grad, make_negbin)


_CHUNKS = ("count regression", negbin_loss, negbin_chunked_grad, make_negbin)


_MDN = ("mixture density", mdn_loss, mdn_grad, make_mdn)


_GP = ("gaussian process", gp_loss, gp_grad, make_gp)


_COX = ("survival", cox_loss, cox_grad, make_cox)


_CLIP = ("contrastive", clip_loss, clip_grad, make_clip)


_HMM = ("hidden markov", hmm_loss, hmm_grad, make_hmm)


_STRESS = ("distances", stress_loss, stress_grad, make_stress)


_CURVE = ("robust curve", curve_loss, curve_grad, make_curve)


_ORDINAL = ("ordinal regression", ordinal_loss, ordinal_grad, make_ordinal)


_PHASE = ("phase retrieval", phase_loss, phase_grad, make_phase)


BUGS = (
    # composite models
    _wrong("window_one_wider_in_backward", *_WINDOW, {"mask"}, window=WINDOW + 1),
    _wrong("window_softmax_without_row_sum", *_WINDOW, {"activation_derivative"}, no_row_sum=True),
    _wrong("cross_keys_from_first_head_of_group", *_CROSS, {"lost_use", "lost_path"}, first_of_group=True),
    _wrong("cross_unit_length_without_projection", *_CROSS, {"normalization_term", "lost_path"}, no_projection=True),
    _wrong("gru_carry_left_out", *_GRU, {"lost_path"}, drop_carry=True),
    _wrong("gru_candidate_sees_ungated_state", *_GRU, {"wrong_operand"}, leaf="['u_n']", ungated_state=True),
    _wrong("conv_input_gradient_not_turned", *_CONV, {"kernel_flipped"}, keep_kernel=True),
    _wrong("lru_adjoint_not_conjugated", *_LRU, {"conjugate"}, no_conj=True),
    _wrong("lru_state_of_same_step", *_LRU, {"shifted", "wrong_operand"}, current_state=True),
    _wrong("moe_balance_through_importance", *_MOE, {"stop_gradient"}, leaf="['router']", through_importance=True),
    _wrong("moe_gates_of_pair_exchanged", *_MOE, {"swapped", "wrong_operand"}, leaf="['router']", reversed_pair=True),
    _wrong(
        "block_layer_norm_without_variance", *_BLOCK, {"normalization_term"}, leaf="['proj']", no_variance_term=True
    ),
    _wrong("block_silu_slope_of_output", *_BLOCK, {"activation_derivative"}, leaf="['w_gate']", gate_of_output=True),
    _wrong("ngram_table_output_only", *_NGRAM, {"lost_use", "lost_path"}, leaf="['table']", output_only=True),
    _wrong("ngram_repeated_words_overwrite", *_NGRAM, {"unit", "lost_use"}, leaf="['table']", overwrite=True),
    _wrong("mixed_only_matrices_unscaled", *_MIXED, {"scaled"}, dtypes=F32, unscale=("w1", "w2")),
    # ordinary models
    _wrong("dense_labels_not_smoothed", *_DENSE, {"loss_derivative"}, hard_labels=True),
    _wrong("dense_steps_during_backward", *_DENSE, {"updated_weights"}, step_at_once=0.8),
    _wrong("negbin_intercept_by_row", *_NEGBIN, {"shape"}, leaf="['intercept']", keep_rows=True),
    _wrong("negbin_last_chunk_dropped", *_CHUNKS, {"subset_of_batch"}, drop_rest=True),
    _wrong("mdn_responsibilities_over_batch", *_MDN, {"wrong_axis"}, resp_axis=0),
    _wrong("gp_mean_weights_sign", *_GP, {"sign"}, leaf="['beta']", residual_sign=1.0),
    _wrong("cox_unit_length", *_COX, {"normalized", "scaled"}, unit_length=True),
    _wrong("clip_columns_not_turned_back", *_CLIP, {"transposed"}, columns_as_rows=True),
    _wrong("clip_scale_left_out", *_CLIP, {"scaled_path", "scaled"}, scale_left_out=True),
    _wrong("hmm_start_never_learned", *_HMM, {"zero", "lost_path"}, leaf="['init']", skip_init=True),
    _wrong("stress_divides_by_own_distance", *_STRESS, {"nonfinite"}, leaf="['points']", guard=False),
    _wrong("curve_penalty_wraps_around", *_CURVE, {"element"}, leaf="['coef']", wrap=True),
    _wrong("curve_gradient_at_limit", *_CURVE, {"clipped"}, leaf="['coef']", limit=0.5),
    _wrong("ordinal_lasso_forgotten", *_ORDINAL, {"offset_by_parameter"}, leaf="['w']", l1=0.0),
    _wrong("ordinal_momentum_added", *_ORDINAL, {"accumulated"}, momentum=0.9),
    _wrong("phase_amplitude_left_complex", *_PHASE, {"dtype"}, leaf="['amp']", keep_complex=True),
)


RIGHT = (
    _right("cross_attention_right", *_CROSS),
    _right("conv_right", *_CONV),
    _right("lru_right", *_LRU),
    _right("moe_right", *_MOE),
    _right("mixed_right", *_MIXED, dtypes=F32),
    _right("mdn_right", *_MDN),
    _right("cox_right", *_COX),
    _right("hmm_right", *_HMM),
    _right("phase_right", *_PHASE),
)
