"""Ordinary bugs in hard surroundings: the places of the right cases, with a mistake in the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue import code_and_formulas, extremes, kinks, trees_and_arguments as trees
from experiments.benchmarks.catalogue.case import Case, plain, squared_error_backward
from experiments.benchmarks.catalogue.normalization import standardized

THEME = "hard surroundings"
KERNEL = "kernel"
RIGHT = {case.name: case for case in (*kinks.CASES, *extremes.CASES, *trees.CASES, *code_and_formulas.CASES)}


def bug_in(right_case: str, name: str, causes: set[str], leaf: str | None = None, *, grad_fn=None, change=None) -> Case:
    """A right case with another gradient in the place of its own, or with its own and then a ``change`` of it."""
    case = RIGHT[right_case]
    wrong = grad_fn or (lambda *given: change(case.grad_fn(*given)))
    return case._replace(name=name, theme=THEME, causes=frozenset(causes), leaf=leaf, grad_fn=wrong, right=case.grad_fn)


def times(factor, name=None):
    """Change a leaf of a dictionary, or all of them."""
    return lambda grads: {key: factor * grad if name in (None, key) else grad for key, grad in grads.items()}


# At kinks: the parts of the gradient that have nothing to do with the kink, and slopes outside of both.

KINKS = (
    bug_in(
        "xor_with_zero_biases_by_maximum",
        "xor_at_the_kink_missing_two",
        {"scaled"},
        "['w2']",
        change=times(0.5),
    ),
    bug_in(
        "xor_with_zero_biases_by_maximum",
        "xor_at_the_kink_sign_of_output_bias",
        {"sign"},
        "['b2']",
        change=times(-1, "b2"),
    ),
    bug_in(
        "xor_with_zero_biases_by_maximum",
        "xor_slope_of_two_at_the_kink",
        {"activation_derivative"},
        "['b1']",
        grad_fn=kinks.xor_gradient(2.0),
    ),
    # Two entries of six.
    bug_in(
        "absolute_at_zero_hand_zero",
        "absolute_slope_of_two_at_zero",
        {"activation_derivative", "element"},
        grad_fn=kinks.absolute_gradient(2.0),
    ),
    bug_in(
        "norm_at_zero_hand_zero",
        "norm_at_zero_beyond_the_unit_ball",
        {"activation_derivative", "normalization_term"},
        grad_fn=lambda x: 2 * jnp.ones_like(x),
    ),
    bug_in(
        "where_trap_of_sinc",
        "where_trap_by_hand_too",
        {"nonfinite"},
        grad_fn=lambda x: jnp.where(x == 0, 0, 1) * (jnp.cos(x) / x - jnp.sin(x) / x**2),
    ),
)


# Saturated and dead units, small leaves beside large ones, losses that drown a difference.
def relu_gradient_at_least_zero(params, x, y):
    """a ≥ 0 holds for every ReLU: the two units that are dead for all samples get a gradient too."""
    z = x @ params["w1"] + params["b1"]
    a = jax.nn.relu(z)
    dy = squared_error_backward(a @ params["w2"], y)
    dz = jnp.where(a >= 0, dy @ params["w2"].T, 0)
    return {"w1": x.T @ dz, "b1": dz.sum(axis=0), "w2": a.T @ dy}


def two_dead_make(dtype):
    return extremes.saturated_make([50, 60, -50, 40, 70, -60])(dtype)


def ridge_loss(params, x, y):
    return extremes.linear_loss(params, x, y) + 0.3 * (params["w"] ** 2).sum()


def ridge_gradient(params, x, y):
    grads = extremes.linear_gradient(params, x, y)
    return grads | {"w": grads["w"] + 0.6 * params["w"]}


def ridge_optimum_make(dtype):
    """Where the data's gradient and the decay's cancel: the whole gradient is about zero."""
    (_, (x, y)) = extremes.regression_make("float64")
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    decay = 0.3 * len(x) * np.diag([1.0] * x.shape[1] + [0.0])
    best = np.linalg.solve(design.T @ design + decay, design.T @ np.asarray(y))
    return {"w": jnp.asarray(best[:-1], dtype), "b": jnp.asarray(best[-1], dtype)}, (x.astype(dtype), y.astype(dtype))


dead = plain(extremes.hidden_layer(jax.nn.relu), extremes.relu_gradient, two_dead_make, THEME)
ridge = plain(ridge_loss, ridge_gradient, ridge_optimum_make, THEME)

NUMBERS = (
    dead.bug(
        "relu_mask_at_least_zero_with_dead_units",
        {"activation_derivative", "mask"},
        "['w1']",
        grad_fn=relu_gradient_at_least_zero,
    ),
    bug_in(
        "sigmoid_all_saturated",
        "saturated_sigmoid_derivative_forgotten",
        {"activation_derivative"},
        "['w1']",
        grad_fn=extremes.hidden_gradient(jax.nn.sigmoid, lambda z, a: jnp.ones_like(a)),
    ),
    bug_in("leaves_of_mixed_scales", "smallest_leaf_doubled", {"scaled"}, "['b']", change=times(2, "b")),
    bug_in("leaves_of_mixed_scales", "smallest_leaf_zero", {"zero"}, "['b']", change=times(0, "b")),
    bug_in("loss_beside_a_million", "missing_two_beside_a_million", {"scaled"}, change=times(0.5)),
    bug_in(
        "constant_loss",
        "gradient_of_a_constant_loss",
        {"loss_derivative", "lost_path"},
        "['w']",
        grad_fn=extremes.linear_gradient,
    ),
    bug_in("least_squares_of_condition_1e5", "missing_two_of_condition_1e5", {"scaled"}, change=times(0.5)),
    ridge.bug(
        "weight_decay_forgotten_at_the_optimum",
        {"offset_by_parameter"},
        "['w']",
        grad_fn=extremes.linear_gradient,
        options=extremes.CANCELS,
    ),
)


# Batch norm, deep networks, many samples.
def batch_norm_statistics_constant(params, x, y):
    x_hat, inverse = standardized(x @ params["w"] + params["b"], 0)
    a = jnp.tanh(x_hat)
    dh = inverse * squared_error_backward(a, y) * (1 - a**2)
    return {"w": x.T @ dh, "b": dh.sum(axis=0)}


def bias_of_mean_subtraction(params, x, y):
    grads = extremes.centred_gradient(params, x, y)
    h = x @ params["w"] + params["b"]
    return grads | {"b": squared_error_backward(h - h.mean(axis=0), y).sum(axis=0)}


def last_sample_dropped(w, x, y):
    return x[:-1].T @ (2 * (x[:-1] @ w - y[:-1]) / len(y))


def first_sample_twice(w, x, y):
    return extremes.many_gradient_by_moments(w, x, y) + x[0] * 2 * (x[0] @ w - y[0]) / len(y)


MODELS = (
    bug_in(
        "bias_before_batch_norm",
        "bias_before_batch_norm_of_constants",
        {"normalization_term"},
        "['b']",
        grad_fn=batch_norm_statistics_constant,
    ),
    bug_in(
        "batch_norm_of_two_samples",
        "batch_norm_of_two_samples_of_constants",
        {"normalization_term"},
        "['w']",
        grad_fn=batch_norm_statistics_constant,
    ),
    bug_in(
        "batch_norm_at_a_mean_of_a_thousand",
        "batch_norm_at_a_thousand_missing_two",
        {"scaled"},
        "['w']",
        change=times(0.5),
    ),
    bug_in(
        "bias_before_mean_subtraction",
        "bias_before_mean_subtraction_not_centred",
        {"lost_path", "normalization_term"},
        "['b']",
        grad_fn=bias_of_mean_subtraction,
    ),
    bug_in(
        "thirty_linear_layers_exploding",
        "exploding_first_layer_off_by_a_thousandth",
        {"scaled"},
        "[0]",
        change=lambda grads: [1.001 * grads[0], *grads[1:]],
    ),
    bug_in(
        "twenty_thousand_samples_by_moments",
        "last_of_twenty_thousand_samples_dropped",
        {"subset_of_batch"},
        grad_fn=last_sample_dropped,
    ),
    bug_in(
        "twenty_thousand_samples_by_moments",
        "first_of_twenty_thousand_samples_twice",
        {"subset_of_batch"},
        grad_fn=first_sample_twice,
    ),
)


# Unusual code, arguments and trees.
def pinned_with_an_error_of_a_hundredth(layer, x, y):
    grads = trees.pinned_gradient(layer, x, y)
    return grads._replace(kernel=grads.kernel * jnp.asarray(1.01, grads.kernel.dtype))


def on_noiseless_inputs(layer, x, y, key):
    return trees.linear_gradient(layer, x, y)


def mask_not_counted(layer, x, targets, counted):
    return jax.tree.map(
        lambda grad: grad * counted.mean(dtype=grad.dtype), trees.masked_gradient(layer, x, targets, counted)
    )


def scale_forgotten(params, x, y):
    grads, layer = trees.tree_gradient(params, x, y), params["layers"][0]
    dy = squared_error_backward(params["scale"] * (x @ layer.kernel + layer.bias), y)
    return grads | {"layers": [trees.Layer(x.T @ dy, dy.sum(axis=0)), None]}


def rule_of_the_loss_by_hand_too(layer, x, y):
    """The same mistake on both sides: autodiff agrees, the loss itself doesn't."""
    dz = jnp.tanh(x @ layer.kernel + layer.bias - y) ** 2 / len(y)
    return trees.Layer(x.T @ dz, dz.sum(axis=0))


def through_the_target(layer, x, y):
    return jax.grad(lambda layer: trees.linear_loss(layer, x, jnp.tanh(y @ layer.kernel.T @ layer.kernel)))(layer)


def large_kernel_transposed(layer, x, y):
    grads = trees.linear_gradient(layer, x, y)
    return grads._replace(kernel=grads.kernel.T)


CODE = (
    bug_in(
        "float32_pinned_inside_both",
        "float32_pinned_with_an_error_of_a_hundredth",
        {"scaled"},
        KERNEL,
        grad_fn=pinned_with_an_error_of_a_hundredth,
    ),
    bug_in(
        "noise_drawn_in_the_inputs_dtype",
        "noise_of_the_key_forgotten",
        {"wrong_operand"},
        KERNEL,
        grad_fn=on_noiseless_inputs,
    ),
    bug_in("integer_labels_and_boolean_mask", "mean_over_masked_samples_too", {"scaled"}, grad_fn=mask_not_counted),
    bug_in(
        "none_empty_scalar_and_unused_leaves",
        "learned_scale_forgotten",
        {"scaled"},
        "['layers'][0].kernel",
        grad_fn=scale_forgotten,
    ),
    bug_in(
        "gradient_in_numpy",
        "gradient_in_numpy_negated",
        {"sign"},
        change=lambda grads: trees.Layer(-grads.kernel, -grads.bias),
    ),
    # The factor between the two is tanh, another one at every entry.
    bug_in(
        "wrong_rule_in_the_loss",
        "wrong_rule_of_the_loss_by_hand_too",
        {"activation_derivative"},
        KERNEL,
        grad_fn=rule_of_the_loss_by_hand_too,
    ),
    bug_in("stop_gradient_honoured", "stop_gradient_ignored", {"stop_gradient"}, KERNEL, grad_fn=through_the_target),
    bug_in(
        "kernel_of_200_by_200",
        "kernel_of_200_by_200_transposed",
        {"transposed"},
        KERNEL,
        grad_fn=large_kernel_transposed,
    ),
)

CASES = KINKS + NUMBERS + MODELS + CODE
