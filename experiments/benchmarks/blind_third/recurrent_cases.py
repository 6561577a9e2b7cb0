"""What goes wrong in the recurrent nets."""

import jax.numpy as jnp

from experiments.benchmarks.blind_third.recurrent import gru, lstm, two_way, wave
from experiments.benchmarks.blind_third.tools import right

BUGS = [
    lstm.bug(
        "lstm_cell_without_output_peephole",
        {"lost_path"},
        "['w']",
        d_cell=lambda dc, dh, o, tc, dzo, peep: dc + dh * o * (1 - tc**2),
    ),
    lstm.bug(
        "lstm_output_peephole_sees_old_cell",
        {"wrong_operand", "shifted", "unit"},
        "['peep']",
        d_peep=lambda dzi, dzf, dzo, c_old, c: jnp.stack([(dz * c_old).sum(0) for dz in (dzi, dzf, dzo)]),
    ),
    lstm.bug("lstm_forget_gate_new_cell", {"wrong_operand", "shifted"}, "['u']", d_forget=lambda dc, c_old, c: dc * c),
    lstm.bug("lstm_candidate_sigmoid_slope", {"activation_derivative"}, "['w']", candidate=lambda g: g * (1 - g)),
    lstm.bug(
        "lstm_hidden_not_carried_back", {"lost_path"}, "['u']", d_hidden=lambda from_output, from_next: from_output
    ),
    lstm.bug(
        "lstm_recurrent_weights_new_state",
        {"wrong_operand", "shifted"},
        "['u']",
        d_recurrent=lambda h_old, h, dz: h.T @ dz,
    ),
    gru.bug("gru_update_gate_sign", {"scaled_path"}, "['wx']", d_update=lambda dh, h, n: dh * (n - h)),
    gru.bug("gru_direct_carry_forgotten", {"lost_path"}, "['h0']", carry=lambda dh, z, back: back),
    gru.bug(
        "gru_hidden_bias_without_reset",
        {"scaled_path", "swapped", "element"},
        "['bh']",
        d_hidden_bias=lambda dx, dh: dx.sum(axis=(0, 1)),
    ),
    gru.bug("gru_start_of_first_sample", {"subset_of_batch"}, "['h0']", d_start=lambda dh: dh[0]),
    gru.bug("gru_start_batch_mean", {"scaled"}, "['h0']", d_start=lambda dh: dh.mean(axis=0)),
    gru.bug("gru_reset_gate_reads_state", {"wrong_operand"}, "['wx']", d_reset=lambda dn, hn, h: dn * h),
    two_way.bug("two_way_padding_not_masked", {"mask"}, "['w']", into_step=lambda m, dh: dh),
    two_way.bug(
        "two_way_gate_without_gated_state", {"lost_path"}, "['b']", d_gate=lambda dh, h, n, d_gated: dh * (n - h)
    ),
    two_way.bug("two_way_carry_by_gate", {"wrong_operand"}, "['u']", d_old=lambda dh, f, d_gated: dh * f + d_gated * f),
    wave.bug("wave_eigenvalue_not_conjugated", {"conjugate"}, "['b_re']", pull=lambda lam, dh: lam * dh),
    wave.bug("wave_gamma_detached", {"lost_path", "lost_use"}, "['nu']", d_nu=lambda from_lam, from_gamma: from_lam),
    wave.bug("wave_state_off_by_one", {"wrong_operand", "shifted"}, "['theta']", earlier=lambda hs: hs),
    wave.bug(
        "wave_output_not_conjugated", {"conjugate", "sign", "scaled"}, "['c_im']", d_output=lambda hs, dy: hs.T @ dy
    ),
]
RIGHT = [
    right(lstm, "lstm_peepholes"),
    right(gru, "gru_learned_start"),
    right(two_way, "two_way_masked"),
    right(wave, "wave_complex"),
]
