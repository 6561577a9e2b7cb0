"""Gradient descent, with and without momentum."""

import optax
from jax.typing import ArrayLike, DTypeLike

from funcnn._checks import checked_bool
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

    The descent is batch, mini-batch or stochastic, depending on the samples over which g is averaged.

    PyTorch's SGD with dampening 0 is the same. Its ``weight_decay`` λ adds λ p to g before the velocity, which is
    ``optax.chain(add_decayed_weights(λ), sgd(…))``. Keras and many textbooks have the learning rate inside the
    velocity, v ← μ v − α g. The two are equal while α is constant; when α decreases, the velocity in that form still
    contains the larger one.

    Args:
        learning_rate: α, a number or an optax schedule.
        momentum: μ, the decay of the velocity; ``None`` for no velocity.
        nesterov: whether to use Nesterov's momentum.
        accumulator_dtype: the dtype of the velocity; ``None`` for that of the parameters.

    Returns:
        The gradient transformation. Its state contains ``optax.TraceState(trace)`` with momentum, and the step count
        with a schedule.

    Raises:
        ValueError, TypeError: a learning rate that is negative or not finite, or a momentum outside [0, 1).

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
    checked_bool("sgd(nesterov)", nesterov)
    if momentum is None:
        return optax.chain(optax.identity(), scale_by_learning_rate(learning_rate))
    check_decay("sgd(momentum)", momentum)
    return optax.chain(velocity(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate))


def momentum(learning_rate: LearningRate, decay: ArrayLike = 0.9) -> optax.GradientTransformation:
    """Gradient descent with momentum: v ← g + μ v, u = −α v. ``sgd`` with ``momentum=decay``.

    Args:
        learning_rate: α, a number or an optax schedule.
        decay: μ, the decay of the velocity.

    Returns:
        The gradient transformation.

    Raises:
        ValueError, TypeError: a learning rate that is negative or not finite, or a decay outside [0, 1).

    Example:
        >>> momentum(0.1) is sgd(0.1, momentum=0.9)
        True

    Source:
        Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    return sgd(learning_rate, momentum=decay)


def nesterov(learning_rate: LearningRate, decay: ArrayLike = 0.9) -> optax.GradientTransformation:
    """Gradient descent with Nesterov's momentum: v ← g + μ v, u = −α (g + μ v). ``sgd`` with ``nesterov=True``.

    Args:
        learning_rate: α, a number or an optax schedule.
        decay: μ, the decay of the velocity.

    Returns:
        The gradient transformation.

    Raises:
        ValueError, TypeError: a learning rate that is negative or not finite, or a decay outside [0, 1).

    Example:
        >>> nesterov(0.1) is sgd(0.1, momentum=0.9, nesterov=True)
        True

    Source:
        Nesterov, "A method for solving the convex programming problem with convergence rate O(1/k²)", 1983, in the form
        of Sutskever et al. 2013.
    """
    return sgd(learning_rate, momentum=decay, nesterov=True)
