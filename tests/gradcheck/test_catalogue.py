"""The catalogue of planted bugs: each is caught and named on its leaf, and right gradients pass.

A tenth of the cases by default; all of them, in each of their dtypes, where ``FUNCNN_WHOLE_CATALOGUE=1``.
"""

import os
from collections import defaultdict

import pytest

import funcnn as fnn
from experiments.benchmarks.catalogue import BUGS, CASES, RIGHT

pytestmark = pytest.mark.usefixtures("promotion_as_for_users")

# What the checker catches, and has no name for or another one than the true ones: the detection table counts them.
NOT_NAMED = {
    "batch_norm_running_for_batch_statistics",
    "convolution_cotangent_not_flipped",
    "gpt_first_layer_not_trained",
    "gpt_skip_around_the_feed_forward_block_lost",
    "gpt_skip_counted_twice",
    "gradient_of_a_constant_loss",
    "inverse_not_transposed",
    "kernel_through_float16",
    "lasso_sign_forgotten",
    "log_softmax_logarithms_for_probabilities",
    "log_softmax_mean_for_sum",
    "mish_slope_at_the_activation",
    "norm_at_zero_beyond_the_unit_ball",
    "resnet_head_by_one_position",
    "rnn_backward_in_the_order_of_forward",
    "squared_relu_of_both_sides",
    "weight_decay_by_sign",
    "wrong_rule_of_the_loss_by_hand_too",
    "xor_slope_of_two_at_the_kink",
}
# Cases that take more than a second and a half; the whole catalogue has them.
SLOW = {
    "batch_norm_missing_mean_term",
    "memory_cell_not_carried",
    "memory_forget_gate_of_the_new_cell",
    "xor_at_the_kink_sign_of_output_bias",
    "xor_at_the_kink_missing_two",
    "xor_slope_of_two_at_the_kink",
}
# Themes of long programs, most of whose time is compilation; the whole catalogue has them.
SLOW_THEMES = {
    "convolutions",
    "pooling and norms of images",
    "tokens and positions",
    "attention heads",
    "recurrence",
    "activations and losses of layers",
    "blocks of layers",
    "right layers",
}
WHOLE = os.environ.get("FUNCNN_WHOLE_CATALOGUE") == "1"


def stratified(cases):
    """A tenth of each theme that isn't slow, at least one case, in float64 and float32 theme by theme.

    Neighbours plant their bugs in one loss, so that one compiled program serves them all.
    """
    by_theme = defaultdict(list)
    for case in cases:
        if case.theme not in SLOW_THEMES:
            by_theme[case.theme].append(case)
    pairs = []
    for place, of_theme in enumerate(by_theme.values()):
        dtype = ("float64", "float32")[place % 2]
        quick = [case for case in of_theme if case.name not in SLOW]
        for case in quick[: max(1, round(len(of_theme) / 10))]:
            pairs.append((case, dtype if dtype in case.dtypes else case.dtypes[0]))
    return pairs


def in_every_dtype(cases):
    return [(case, dtype) for case in cases for dtype in case.dtypes]


def selected(cases):
    """The cases with the dtypes in which they are checked, as parameters of a test."""
    pairs = in_every_dtype(cases) if WHOLE else stratified(cases)
    names = [f"{case.name}-{dtype}" for case, dtype in pairs]
    return pytest.mark.parametrize(("case", "dtype"), pairs, ids=names)


def check(case, dtype):
    """The case's report."""
    params, args = case.make(dtype)
    return fnn.check_gradients(case.loss_fn, case.grad_fn, params, *args, stability="fail")


@selected(BUGS)
def test_planted_bugs_are_caught_and_named(case, dtype):
    report = check(case, dtype)
    assert not report.ok
    causes = {leaf.path.lstrip("."): leaf.cause for leaf in report.leaves if not leaf.ok}
    found = set(causes.values()) if case.leaf is None else {causes.get(case.leaf)}
    # A case that gets its name leaves the list.
    assert bool(found & case.causes) == (case.name not in NOT_NAMED), str(report)


@selected(RIGHT)
def test_right_gradients_pass(case, dtype):
    report = check(case, dtype)
    assert report.ok, str(report)


def test_the_sample_has_every_quick_theme_and_both_dtypes():
    for cases in (BUGS, RIGHT):
        quick = [case for case in cases if case.theme not in SLOW_THEMES]
        sample, themes = stratified(cases), {case.theme for case in quick}
        assert {case.theme for case, _ in sample} == themes
        assert {dtype for _, dtype in sample} == {"float64", "float32"}
        assert len(sample) >= len(quick) / 10 - len(themes) / 2


def test_the_slow_themes_are_themes():
    assert {case.theme for case in CASES} >= SLOW_THEMES


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
