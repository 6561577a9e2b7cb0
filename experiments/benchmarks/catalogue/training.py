"""Bugs that training brings into a gradient: reductions, accumulation, clipping, stale weights, scales."""

import jax.numpy as jnp
from jax.nn import sigmoid

from experiments.benchmarks.catalogue.case import Problem, normal, plain, squared_error, squared_error_backward

THEME = "training"
SAMPLES, FEATURES, HIDDEN, OUTPUTS = 8, 6, 8, 3
LEARNING_RATE = 0.05


def parameters(dtype, seed):
    w1, b1, w2 = normal(dtype, seed, (FEATURES, HIDDEN), (HIDDEN,), (HIDDEN, OUTPUTS))
    return {"w1": w1 / 2, "b1": b1, "w2": w2}


def make(dtype):
    x, y, weight = normal(dtype, 82, (SAMPLES, FEATURES), (SAMPLES, OUTPUTS), (SAMPLES,))
    return parameters(dtype, 81), (x, y, 0.1 + weight**2, parameters(dtype, 83))


def predict(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]


def backward(params, x, dy, w2=None):
    """Gradients of a cotangent dy; ``w2`` stands in for the second kernel on the way back."""
    a = jnp.tanh(x @ params["w1"] + params["b1"])
    dz = dy @ (params["w2"] if w2 is None else w2).T * (1 - a**2)
    return {"w1": x.T @ dz, "b1": dz.sum(axis=0), "w2": a.T @ dy}


def loss_fn(params, x, y, weight, others):
    return squared_error(predict(params, x), y)


def grad_fn(params, x, y, weight, others):
    return backward(params, x, squared_error_backward(predict(params, x), y))


def times(factor, grads):
    return {name: factor * grad for name, grad in grads.items()}


def sum_of(first, second, share=1):
    return {name: share * (first[name] + second[name]) for name in first}


def with_updated_second_kernel(params, x, y, weight, others):
    dy = squared_error_backward(predict(params, x), y)
    updated = params["w2"] - LEARNING_RATE * backward(params, x, dy)["w2"]
    return backward(params, x, dy, w2=updated)


def at_updated_parameters(params, x, y, weight, others):
    grads = grad_fn(params, x, y, weight, others)
    return grad_fn(sum_of(params, times(-LEARNING_RATE, grads)), x, y, weight, others)


def halves(params, x, y, cut):
    first = grad_fn(params, x[:cut], y[:cut], None, None)
    second = grad_fn(params, x[cut:], y[cut:], None, None)
    return first, second


def clipped_by_norm(grads, largest):
    norm = jnp.sqrt(sum((grad**2).sum() for grad in grads.values()))
    return times(jnp.minimum(1, largest / norm), grads)


def clipped_by_value(params, x, y, weight, others):
    grads = grad_fn(params, x, y, weight, others)
    # Two entries of w1 stand out above the limit.
    limit = jnp.sort(jnp.abs(grads["w1"]).ravel())[-3]
    return {name: jnp.clip(grad, -limit, limit) for name, grad in grads.items()}


def second_half(params, x, y, share):
    return times(share, halves(params, x, y, SAMPLES // 2)[1])


step = plain(loss_fn, grad_fn, make, THEME)

STEP = (
    step.bug("second_kernel_updated_before_use", {"updated_weights"}, "['w1']", grad_fn=with_updated_second_kernel),
    step.bug("gradient_after_the_update", {"updated_weights"}, "['w1']", grad_fn=at_updated_parameters),
    step.bug("learning_rate_multiplied_in", {"scaled"}, grad_fn=lambda *given: times(LEARNING_RATE, grad_fn(*given))),
    step.bug("update_returned_for_gradient", {"scaled"}, grad_fn=lambda *given: times(-LEARNING_RATE, grad_fn(*given))),
    step.bug("descent_direction_returned", {"sign"}, grad_fn=lambda *given: times(-1, grad_fn(*given))),
    step.bug(
        "clipped_by_global_norm",
        {"clipped", "normalized"},
        grad_fn=lambda *given: clipped_by_norm(grad_fn(*given), 1.0),
    ),
    step.bug("clipped_by_value", {"clipped"}, "['w1']", grad_fn=clipped_by_value),
    step.bug("loss_scale_not_undone", {"scaled"}, grad_fn=lambda *given: times(1024, grad_fn(*given))),
    step.bug(
        "momentum_mixed_in",
        {"accumulated"},
        "['w1']",
        grad_fn=lambda params, x, y, weight, others: sum_of(grad_fn(params, x, y, weight, others), times(0.9, others)),
    ),
    step.bug(
        "previous_gradient_not_cleared",
        {"accumulated"},
        "['w1']",
        grad_fn=lambda params, x, y, weight, others: sum_of(
            grad_fn(params, x, y, weight, others), grad_fn(others, x, y, weight, others)
        ),
    ),
    step.bug(
        "gradient_at_the_initial_parameters",
        {"wrong_operand"},
        "['w1']",
        grad_fn=lambda params, x, y, weight, others: grad_fn(others, x, y, weight, others),
    ),
    step.bug(
        "accumulation_not_averaged",
        {"scaled"},
        grad_fn=lambda params, x, y, weight, others: sum_of(*halves(params, x, y, SAMPLES // 2)),
    ),
    step.bug(
        "accumulation_of_unequal_parts_averaged_equally",
        {"subset_of_batch"},
        "['w1']",
        grad_fn=lambda params, x, y, weight, others: sum_of(*halves(params, x, y, 5), share=0.5),
    ),
    step.bug(
        "accumulation_first_half_forgotten",
        {"subset_of_batch"},
        grad_fn=lambda params, x, y, weight, others: second_half(params, x, y, 0.5),
    ),
    # The mean over half of the samples: a part of the batch, though with its own divisor.
    step.bug(
        "gradient_of_the_last_part_only",
        {"subset_of_batch"},
        "['w1']",
        grad_fn=lambda params, x, y, weight, others: second_half(params, x, y, 1),
    ),
)


# Samples that count differently, and a loss that is a sum.
def weighted_loss(params, x, y, weight, others):
    return (weight * ((predict(params, x) - y) ** 2).sum(axis=1)).mean()


def weighted_grad(params, x, y, weight, others):
    return backward(params, x, weight[:, None] * squared_error_backward(predict(params, x), y))


def by_total_weight(params, x, y, weight, others):
    return times(len(y) / weight.sum(), weighted_grad(params, x, y, weight, others))


def total_loss(params, x, y, weight, others):
    return ((predict(params, x) - y) ** 2).sum()


weighted = plain(weighted_loss, weighted_grad, make, THEME)
total = plain(total_loss, lambda *given: times(SAMPLES, grad_fn(*given)), make, THEME)

REDUCTIONS = (
    weighted.bug("sample_weights_forgotten", {"loss_derivative", "scaled_path"}, "['w1']", grad_fn=grad_fn),
    weighted.bug("sample_weights_averaged_differently", {"scaled"}, grad_fn=by_total_weight),
    total.bug("mean_for_a_summed_loss", {"scaled"}, grad_fn=grad_fn),
)


# Losses and gradients far from one, with a mistake of a thousandth in one leaf.
def scaled_problem(scale) -> Problem:
    def scaled_loss(*given):
        return scale * loss_fn(*given)

    def gradient(second_kernel=1.0):
        def scaled_grad(*given):
            grads = times(scale, grad_fn(*given))
            return grads | {"w2": second_kernel * grads["w2"]}

        return scaled_grad

    return Problem(THEME, scaled_loss, gradient, make)


SCALES = (
    scaled_problem(1e-12).bug("thousandth_of_a_tiny_gradient", {"scaled"}, "['w2']", second_kernel=1.001),
    scaled_problem(1e12).bug("thousandth_of_a_huge_gradient", {"scaled"}, "['w2']", second_kernel=1.001),
)

# Sigmoid layers until almost nothing of the gradient reaches the first one.
DEPTH, WIDTH = 25, 4


def deep_make(dtype):
    *layers, x, y = normal(dtype, 84, *[(WIDTH, WIDTH)] * DEPTH, (SAMPLES, WIDTH), (SAMPLES, WIDTH))
    return layers, (x, y)


def deep_loss(layers, x, y):
    a = x
    for w in layers:
        a = sigmoid(a @ w)
    return squared_error(a, y)


def deep_gradient(answer=lambda first: first):
    def deep_grad(layers, x, y):
        activations = [x]
        for w in layers:
            activations.append(sigmoid(activations[-1] @ w))
        da, grads = squared_error_backward(activations[-1], y), []
        for w, inputs, a in zip(layers[::-1], activations[-2::-1], activations[:0:-1], strict=True):
            dz = da * a * (1 - a)
            grads.append(inputs.T @ dz)
            da = dz @ w.T
        return [answer(grads[-1]), *grads[-2::-1]]

    return deep_grad


deep = Problem(THEME, deep_loss, deep_gradient, deep_make)
FIRST = "[0]"

VANISHING = (
    deep.bug("vanishing_first_layer_zero", {"zero"}, FIRST, answer=jnp.zeros_like),
    deep.bug("vanishing_first_layer_doubled", {"scaled"}, FIRST, answer=lambda first: 2 * first),
    deep.bug("vanishing_first_layer_negated", {"sign"}, FIRST, answer=lambda first: -first),
    deep.bug("vanishing_first_layer_transposed", {"transposed"}, FIRST, answer=lambda first: first.T),
)

CASES = STEP + REDUCTIONS + SCALES + VANISHING
