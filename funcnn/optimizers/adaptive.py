"""Steps divided, entry by entry, by the size of the gradients seen so far: by their sum, or by their recent mean."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from funcnn._memoise import memoised
from funcnn.optimizers._arithmetic import (
    full_like,
    map_leaves,
    moving_mean,
    moving_mean_of_squares,
    scale_by_learning_rate,
    squared_size,
    start_count,
    transformation,
    velocity,
    weight_seen,
    zeros_like,
)
from funcnn.optimizers._settings import LearningRate, check_decay, check_eps, check_learning_rate, check_not_negative


@memoised
def adagrad(
    learning_rate: LearningRate, initial_accumulator_value: ArrayLike = 0.1, eps: ArrayLike = 1e-7
) -> optax.GradientTransformation:
    """Steps over the root of the sum of all squared gradients::

        s ← s + |g|²,    u = −α g/√(s + ε),    and u = 0 where s = 0

    An entry whose gradient is rarely nonzero keeps large steps; every other slows down for good, for s never shrinks.
    ε and the s that it starts from both tame the first steps. Keras has the same form and the same defaults. PyTorch
    starts from s = 0 and has its ε of 1e-10 outside the root, u = −α g/(√s + ε): the two meet at ε = 0 and equal
    initial values.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        initial_accumulator_value: s before the first step.
        eps: ε, inside the root.

    Returns:
        The transformation. Its state holds ``optax.ScaleByRssState(sum_of_squares)``.

    Raises:
        ValueError, TypeError: a number that is negative or not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adagrad(0.1, initial_accumulator_value=0.0)
        >>> params = jnp.array([1.0, -200.0])
        >>> state = optimizer.init(params)
        >>> for _ in range(4):
        ...     updates, state = optimizer.update(2 * params, state, params)
        >>> print(updates.round(3))
        [-0.05  0.05]

    Source:
        Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011,
        section 1.1, with the diagonal of the matrix.
    """
    check_learning_rate("adagrad(learning_rate)", learning_rate)
    check_not_negative(
        "adagrad(initial_accumulator_value)", initial_accumulator_value, "It stands for a sum of squares; 0.1 is usual."
    )
    check_eps("adagrad(eps)", eps)
    return optax.chain(_scale_by_root_sum_square(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))


@memoised
def rmsprop(
    learning_rate: LearningRate,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    initial_scale: ArrayLike = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> optax.GradientTransformation:
    """Steps over the root of the recent mean of squared gradients::

        v ← (1 − β) |g|² + β v,    d = −α g/√(v + ε)     or −α g/(√v + ε) unless eps_in_sqrt
        plain                      u = d
        momentum                   w ← d + μ w,    u = w,  or d + μ w for Nesterov's

    ``centered`` puts the variance v − |m|² in v's place, with m ← (1 − β) g + β m. Where gradients hardly vary it may
    round to less than −ε, and its root to NaN, in every library: use a larger ε. ``bias_correction`` divides m and v by
    1 − βᵗ before use; with both, the variance is 0 at the first step, where one gradient is all there is.

    Keras is the same with ``eps=1e-7``. PyTorch's defaults are ``decay=0.99, eps_in_sqrt=False``; it has no Nesterov's
    momentum and no correction, and applies α after the momentum instead of before: the same as long as α is constant.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        decay: β, the share of the means that stays at a step.
        eps: ε.
        initial_scale: v before the first step; 1 makes the first steps small, 0 makes them 1/√(1 − β) of the usual.
        eps_in_sqrt: whether ε stands inside the root.
        centered: whether to divide by the standard deviation.
        momentum: μ, or ``None`` for no velocity.
        nesterov: whether to look ahead along the velocity.
        bias_correction: whether to correct the means for their start.

    Returns:
        The transformation. Its state holds optax's ``ScaleByRmsState(nu)`` or ``ScaleByRStdDevState(mu, nu)``, with a
        ``count`` where means are corrected, and ``optax.TraceState(trace)`` where there is momentum.

    Raises:
        ValueError, TypeError: a number that is negative, not finite, or no decay in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = rmsprop(0.1, bias_correction=True)
        >>> params = jnp.array([1.0, -200.0])
        >>> updates, _ = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.1  0.1]

    Source:
        Tieleman and Hinton, "Lecture 6.5, RMSProp", Coursera, 2012; Graves, "Generating sequences with recurrent neural
        networks", 2013, equations 38 to 41, for the centered form.
    """
    check_learning_rate("rmsprop(learning_rate)", learning_rate)
    check_decay("rmsprop(decay)", decay)
    check_eps("rmsprop(eps)", eps)
    check_not_negative("rmsprop(initial_scale)", initial_scale, "It stands for a mean of squares; 0 or 1 is usual.")
    if momentum is not None:
        check_decay("rmsprop(momentum)", momentum)
    return optax.chain(
        _scale_by_root_mean_square(decay, eps, initial_scale, eps_in_sqrt, centered, bias_correction),
        scale_by_learning_rate(learning_rate),
        optax.identity() if momentum is None else velocity(momentum, nesterov),
    )


def _scale_by_root_sum_square(initial_accumulator_value, eps):
    def init(params):
        return optax.ScaleByRssState(sum_of_squares=full_like(params, initial_accumulator_value))

    def update(gradients, state, params=None):
        sums = map_leaves(lambda g, s: squared_size(g) + s, gradients, state.sum_of_squares)
        updates = map_leaves(lambda g, s: jnp.where(s > 0, g / jnp.sqrt(s + eps), 0.0), gradients, sums)
        return updates, optax.ScaleByRssState(sum_of_squares=sums)

    return transformation(init, update)


def _scale_by_root_mean_square(decay, eps, initial_scale, eps_in_sqrt, centered, bias_correction):
    def init(params):
        start = {"nu": full_like(params, initial_scale)}
        if centered:
            start["mu"] = zeros_like(params)
        if bias_correction:
            start["count"] = start_count()
        return _state_class(centered, bias_correction)(**start)

    def update(gradients, state, params=None):
        state = state._replace(nu=moving_mean_of_squares(gradients, state.nu, decay))
        if centered:
            state = state._replace(mu=moving_mean(gradients, state.mu, decay))
        if bias_correction:
            state = state._replace(count=optax.safe_increment(state.count))

        def corrected(mean):
            if not bias_correction:
                return mean
            # Divided, not multiplied by the inverse: the first variance is 0, and an ulp would show.
            weight = weight_seen(decay, state.count)
            return map_leaves(lambda m: m / weight.astype(m.dtype), mean)

        size = corrected(state.nu)
        if centered:
            size = map_leaves(lambda v, m: v - squared_size(m), size, corrected(state.mu))
        if eps_in_sqrt:
            return map_leaves(lambda g, v: g / jnp.sqrt(v + eps), gradients, size), state
        return map_leaves(lambda g, v: g / (jnp.sqrt(v) + eps), gradients, size), state

    return transformation(init, update)


def _state_class(centered, bias_correction):
    """Optax's class; those with a count it makes but doesn't export."""
    theirs = optax.scale_by_stddev if centered else optax.scale_by_rms
    return type(theirs(bias_correction=bias_correction).init(()))
