"""Composite models with gradients by hand: wrong ones, with what is wrong there, and right ones."""

from functools import partial

from experiments.benchmarks.blind_fourth.images_and_tokens import (
    conv_grad,
    conv_loss,
    conv_make,
    lm_grad,
    lm_loss,
    lm_make,
    mixed_grad,
    mixed_loss,
    mixed_make,
    moe_grad,
    moe_loss,
    moe_make,
    pairs_grad,
    pairs_loss,
    pairs_make,
    rnn_grad,
    rnn_loss,
    rnn_make,
    upsample_grad,
    upsample_loss,
    upsample_make,
)
from experiments.benchmarks.blind_fourth.representations import (
    linear_grad,
    linear_loss,
    linear_make,
    siamese_grad,
    siamese_loss,
    siamese_make,
    ssm_grad,
    ssm_loss,
    ssm_make,
    views_grad,
    views_loss,
    views_make,
)
from experiments.benchmarks.blind_fourth.sequences import (
    attention_grad,
    attention_loss,
    attention_make,
    block_grad,
    block_loss,
    block_make,
    gru_grad,
    gru_loss,
    gru_make,
    lstm_grad,
    lstm_loss,
    lstm_make,
    relative_grad,
    relative_loss,
    relative_make,
)
from experiments.benchmarks.catalogue.case import Case

MODELS = {
    "attention": (attention_loss, attention_grad, attention_make),
    "relative_attention": (relative_loss, relative_grad, relative_make),
    "transformer_block": (block_loss, block_grad, block_make),
    "lstm": (lstm_loss, lstm_grad, lstm_make),
    "gru": (gru_loss, gru_grad, gru_make),
    "masked_recurrence": (rnn_loss, rnn_grad, rnn_make),
    "convolution": (conv_loss, conv_grad, conv_make),
    "upsampling": (upsample_loss, upsample_grad, upsample_make),
    "mixture_of_experts": (moe_loss, moe_grad, moe_make),
    "language_model": (lm_loss, lm_grad, lm_make),
    "mixed_precision": (mixed_loss, mixed_grad, mixed_make),
    "contrastive": (pairs_loss, pairs_grad, pairs_make),
    "siamese": (siamese_loss, siamese_grad, siamese_make),
    "two_views": (views_loss, views_grad, views_make),
    "state_space": (ssm_loss, ssm_grad, ssm_make),
    "linear_attention": (linear_loss, linear_grad, linear_make),
}


def tolerance(theme):
    """Rounding to bfloat16 moves with the order of the sums."""
    return 2e-2 if theme == "mixed_precision" else 1e-8


def wrong(theme, bug, causes, leaf=None):
    loss, grad, make = MODELS[theme]
    path = f"['{leaf}']" if leaf else None
    return Case(
        f"{theme}_{bug}",
        theme,
        loss,
        partial(grad, bug=bug),
        make,
        frozenset(causes.split()),
        path,
        right=grad,
        tolerance=tolerance(theme),
    )


def correct(theme):
    loss, grad, make = MODELS[theme]
    return Case(f"{theme}_right", theme, loss, grad, make, tolerance=tolerance(theme))


BUGS = (
    # Only the first query head of each group reaches the shared keys.
    wrong("attention", "first_of_group", "lost_path lost_use", "wk"),
    # Heads are summed as if the values had been tiled, not repeated.
    wrong("attention", "group_order", "wrong_axis swapped wrong_operand", "wv"),
    # The gradient by the queries is rotated on, not back.
    wrong("attention", "rotary_forward", "transposed conjugate", "wq"),
    # Scattered to j - i, where i - j was read.
    wrong("relative_attention", "distance_sign", "kernel_flipped transposed swapped", "bias"),
    wrong("transformer_block", "residual_lost", "lost_path"),
    wrong("transformer_block", "no_variance_term", "normalization_term", "we"),
    # The product rule's second term is left out.
    wrong("transformer_block", "gelu_gate_only", "activation_derivative"),
    wrong("transformer_block", "updated_w2", "updated_weights"),
    wrong("lstm", "cell_carry_lost", "lost_path"),
    # Gates joined as i, f, o, g, where the forward pass cuts i, f, g, o.
    wrong("lstm", "gate_order", "swapped"),
    # The factor r on the way to the recurrent product of the candidate.
    wrong("gru", "reset_left_out", "scaled_path", "wh"),
    # The state's gradient ends where a sequence has ended.
    wrong("masked_recurrence", "ended_lost", "lost_path mask subset_of_batch"),
    # Only the last four steps count.
    wrong("masked_recurrence", "truncated", "lost_path stop_gradient lost_use"),
    # Means over the samples of each position, not over positions too.
    wrong("convolution", "norm_over_batch_only", "wrong_axis normalization_term", "w1"),
    wrong("convolution", "depthwise_flipped", "kernel_flipped transposed"),
    wrong("convolution", "dilation_ignored", "wrong_operand shifted", "wd"),
    # Every entry of a window gets the gradient of its maximum.
    wrong("upsampling", "pool_to_all", "mask activation_derivative", "wi"),
    wrong("upsampling", "cut_at_other_end", "shifted"),
    # The sum by which the gates are renormalized is taken as constant.
    wrong("mixture_of_experts", "total_constant", "normalization_term stop_gradient lost_path", "gate"),
    wrong("mixture_of_experts", "balance_lost", "lost_path lost_use", "gate"),
    wrong("language_model", "tied_output_lost", "lost_use lost_path", "emb"),
    wrong("language_model", "target_not_shifted", "shifted loss_derivative wrong_operand"),
    wrong("language_model", "decay_lost", "offset_by_parameter", "emb"),
    # The second layer's scaled gradient saturates at the largest number of an 8-bit format.
    wrong("mixed_precision", "saturated", "clipped", "w2"),
    # Rounding counts as flat, so that only the decay is left.
    wrong("mixed_precision", "rounding_is_flat", "lost_path lost_use stop_gradient", "w1"),
    wrong("mixed_precision", "left_in_bfloat16", "dtype", "w1"),
    # Both directions by the softmax over rows.
    wrong("contrastive", "rows_twice", "wrong_axis loss_derivative"),
    # The gradient by the temperature, where its logarithm is the parameter.
    wrong("contrastive", "temperature_not_log", "scaled_path activation_derivative", "log_t"),
    wrong("siamese", "hinge_inverted", "mask loss_derivative activation_derivative"),
    wrong("two_views", "through_target", "stop_gradient", "w"),
    wrong("state_space", "pole_not_conjugated", "conjugate"),
    # The denominator's own gradient is left out.
    wrong("linear_attention", "denominator_constant", "normalization_term lost_path stop_gradient"),
)

RIGHT = (
    correct("attention"),
    correct("transformer_block"),
    correct("lstm"),
    correct("masked_recurrence"),
    correct("convolution"),
    correct("mixture_of_experts"),
    correct("language_model"),
    correct("mixed_precision"),
    correct("state_space"),
)
