"""Descent along the gradient, with and without a velocity."""

import optax
from jax.typing import ArrayLike, DTypeLike

from funcnn._memoise import memoised
from funcnn.optimizers._arithmetic import scale_by_learning_rate, velocity
from funcnn.optimizers._settings import LearningRate, check_decay, check_learning_rate


@memoised
def sgd(
    learning_rate: LearningRate,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """Gradient descent, with or without momentum::

        plain       u = −α g
        momentum    v ← g + μ v,    u = −α v
        nesterov    v ← g + μ v,    u = −α (g + μ v)

    Whether the descent is batch, mini-batch or stochastic is decided by what g is averaged over. PyTorch's SGD with
    dampening 0 is the same; its ``weight_decay`` λ adds λ p to g before the velocity, which is
    ``optax.chain(add_decayed_weights(λ), sgd(…))``. Keras and many textbooks put the learning rate inside the velocity,
    v ← μ v − α g: the same as long as α is constant. When α falls, their velocity still carries the old one.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        momentum: μ, the share of the velocity that stays at a step, or ``None`` for no velocity.
        nesterov: whether to look ahead along the velocity.
        accumulator_dtype: the velocity's dtype; ``None`` for the parameters'.

    Returns:
        The transformation. Its state holds ``optax.TraceState(trace)`` where there is momentum, and the step count
        where there is a schedule.

    Raises:
        ValueError, TypeError: a number that is no learning rate ≥ 0, or no momentum in [0, 1).

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = sgd(0.1)
        >>> params = jnp.array([1.0, -2.0])
        >>> updates, _ = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(optax.apply_updates(params, updates))
        [ 0.8 -1.6]

    Source:
        Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning", 2013.
    """
    check_learning_rate("sgd(learning_rate)", learning_rate)
    if momentum is None:
        return optax.chain(optax.identity(), scale_by_learning_rate(learning_rate))
    check_decay("sgd(momentum)", momentum)
    return optax.chain(velocity(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate))


def momentum(learning_rate: LearningRate, decay: ArrayLike = 0.9) -> optax.GradientTransformation:
    """Gradient descent with momentum: v ← g + μ v, u = −α v. ``sgd`` with its ``momentum`` filled in.

    Args:
        learning_rate: α, a number or an optax schedule.
        decay: μ, the share of the velocity that stays at a step.

    Returns:
        The transformation.

    Example:
        >>> momentum(0.1) is sgd(0.1, momentum=0.9)
        True

    Source:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    return sgd(learning_rate, momentum=decay)


def nesterov(learning_rate: LearningRate, decay: ArrayLike = 0.9) -> optax.GradientTransformation:
    """Gradient descent with Nesterov's momentum: v ← g + μ v, u = −α (g + μ v). ``sgd`` with ``nesterov`` on.

    Args:
        learning_rate: α, a number or an optax schedule.
        decay: μ, the share of the velocity that stays at a step.

    Returns:
        The transformation.

    Example:
        >>> nesterov(0.1) is sgd(0.1, momentum=0.9, nesterov=True)
        True

    Source:
        Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k²)", 1983, in the form
        of Sutskever et al. 2013.
    """
    return sgd(learning_rate, momentum=decay, nesterov=True)
