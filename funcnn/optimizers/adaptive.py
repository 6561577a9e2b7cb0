"""Optimizers that scale every entry by the sum or the moving average of its squared gradients."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from funcnn._checks import checked_bool
from funcnn._memoise import memoised
from funcnn.optimizers._arithmetic import (
    full_like,
    map_leaves,
    moving_average,
    moving_average_of_squares,
    scale_by_learning_rate,
    squared_size,
    start_count,
    sum_of_weights,
    transformation,
    velocity,
    zeros_like,
)
from funcnn.optimizers._settings import LearningRate, check_decay, check_eps, check_learning_rate, check_not_negative


@memoised
def adagrad(
    learning_rate: LearningRate, initial_accumulator_value: ArrayLike = 0.1, eps: ArrayLike = 1e-7
) -> optax.GradientTransformation:
    """Gradient descent divided elementwise by the root of the sum of all squared gradients::

        s ← s + |g|²,    u = −α g/√(s + ε),    and u = 0 where s = 0

    An entry whose gradient is mostly zero keeps large steps. The steps of all others decrease, because s never does. ε
    and the initial value of s make the first steps smaller.

    Keras has the same form and the same defaults. PyTorch starts from s = 0 and has an ε of 1e-10 outside the root,
    u = −α g/(√s + ε). The two are equal for ε = 0 and the same initial value.

    Args:
        learning_rate: α, a number or an optax schedule.
        initial_accumulator_value: s before the first step.
        eps: ε, inside the root.

    Returns:
        The gradient transformation. Its state contains ``optax.ScaleByRssState(sum_of_squares)``.

    Raises:
        ValueError, TypeError: a hyperparameter that is negative or not finite.

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
        section 1.1, the diagonal form.
    """
    check_learning_rate("adagrad(learning_rate)", learning_rate)
    check_not_negative(
        "adagrad(initial_accumulator_value)", initial_accumulator_value, "It is a sum of squares; 0.1 is usual."
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
    """Gradient descent divided elementwise by the root of a moving average of squared gradients::

        v ← (1 − β) |g|² + β v
        d = −α g/√(v + ε)

    or d = −α g/(√v + ε) without ``eps_in_sqrt``. The update u is d. With momentum it is w, with Nesterov's d + μ w,
    where w ← d + μ w.

    ``centered`` replaces v by the variance v − |m|², with m ← (1 − β) g + β m. Where gradients are nearly constant, the
    variance may round to less than −ε and its root to NaN, in every library: use a larger ε. ``bias_correction``
    divides m and v by 1 − βᵗ before use. With both, the variance is 0 at the first step, because there is only one
    gradient.

    Keras is the same with ``eps=1e-7``. PyTorch's defaults are ``decay=0.99, eps_in_sqrt=False``. It has neither
    Nesterov's momentum nor a bias correction, and applies α after the momentum, which is the same while α is constant.

    Args:
        learning_rate: α, a number or an optax schedule.
        decay: β, the decay of the moving averages.
        eps: ε.
        initial_scale: v before the first step. With 1 the first steps are small, with 0 they are 1/√(1 − β) times the
            later ones.
        eps_in_sqrt: whether ε is inside the root.
        centered: whether to divide by the standard deviation of the gradients.
        momentum: μ, the decay of the velocity; ``None`` for no velocity.
        nesterov: whether to use Nesterov's momentum.
        bias_correction: whether to correct the moving averages for their initial value of 0.

    Returns:
        The gradient transformation. Its state contains optax's ``ScaleByRmsState(nu)`` or ``ScaleByRStdDevState(mu,
        nu)``, with a ``count`` if ``bias_correction``, and ``optax.TraceState(trace)`` with momentum.

    Raises:
        ValueError, TypeError: a hyperparameter that is negative or not finite, or a decay outside [0, 1).

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
    check_not_negative("rmsprop(initial_scale)", initial_scale, "It is a mean of squares; 0 or 1 is usual.")
    if momentum is not None:
        check_decay("rmsprop(momentum)", momentum)
    flags = {"eps_in_sqrt": eps_in_sqrt, "centered": centered, "nesterov": nesterov, "bias_correction": bias_correction}
    for flag, value in flags.items():
        checked_bool(f"rmsprop({flag})", value)
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
        state = state._replace(nu=moving_average_of_squares(gradients, state.nu, decay))
        if centered:
            state = state._replace(mu=moving_average(gradients, state.mu, decay))
        if bias_correction:
            state = state._replace(count=optax.safe_increment(state.count))

        def correct(mean):
            if not bias_correction:
                return mean
            # Not multiplied by the inverse: a rounding error in the first variance, which is 0, is visible.
            weight = sum_of_weights(decay, state.count)
            return map_leaves(lambda m: m / weight.astype(m.dtype), mean)

        size = correct(state.nu)
        if centered:
            size = map_leaves(lambda v, m: v - squared_size(m), size, correct(state.mu))
        if eps_in_sqrt:
            return map_leaves(lambda g, v: g / jnp.sqrt(v + eps), gradients, size), state
        return map_leaves(lambda g, v: g / (jnp.sqrt(v) + eps), gradients, size), state

    return transformation(init, update)


def _state_class(centered, bias_correction):
    """Return optax's state class. Optax doesn't export those with a count."""
    theirs = optax.scale_by_stddev if centered else optax.scale_by_rms
    return type(theirs(bias_correction=bias_correction).init(()))
