"""Optimizers by hand, on optax's contract: pure ``init(params)`` and ``update(gradients, state, params)``.

Signatures, state fields and semantics are optax's, so each composes with ``optax.chain``, ``optax.masked`` and the
rest; only the arithmetic is written here. ``update`` returns *updates*, which carry the minus sign: the new parameters
are ``optax.apply_updates(params, updates)``, their sum.

In every equation g is the gradient, α the learning rate and t = 1, 2, … the step.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from funcnn._memoise import memoised

LearningRate: TypeAlias = ArrayLike | optax.Schedule


@memoised
def sgd(
    learning_rate: LearningRate,
    momentum: ArrayLike | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """Gradient descent, with or without momentum::

        plain       u = −α g
        momentum    v ← μ v + g,    u = −α v
        nesterov    v ← μ v + g,    u = −α (g + μ v)

    Whether the descent is batch, mini-batch or stochastic is decided by what g is averaged over. PyTorch's SGD with
    dampening 0 is the same. Where the learning rate stands inside the velocity instead (v ← μ v − α g, as in Keras and
    many textbooks), the two agree as long as α is constant.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        momentum: μ, the share of the velocity that stays at a step, or ``None`` for no velocity.
        nesterov: whether to look ahead along the velocity.
        accumulator_dtype: the velocity's dtype; ``None`` for the parameters'.

    Returns:
        The transformation. Its state holds ``optax.TraceState(trace)`` where there is momentum, and the step count
        where there is a schedule.

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
    velocity = optax.identity() if momentum is None else _velocity(momentum, nesterov, accumulator_dtype)
    return optax.chain(velocity, _scale_by_learning_rate(learning_rate))


def momentum(learning_rate: LearningRate, decay: ArrayLike = 0.9) -> optax.GradientTransformation:
    """Gradient descent with momentum: v ← μ v + g, u = −α v. ``sgd`` with its ``momentum`` filled in.

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
    """Gradient descent with Nesterov's momentum: v ← μ v + g, u = −α (g + μ v). ``sgd`` with ``nesterov`` on.

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


@memoised
def adam(
    learning_rate: LearningRate,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adaptive moment estimation: momentum, divided entry by entry by the gradient's recent size::

        m ← β₁ m + (1 − β₁) g            m̂ = m/(1 − β₁ᵗ)
        v ← β₂ v + (1 − β₂) |g|²         v̂ = v/(1 − β₂ᵗ)
        u = −α m̂/(√(v̂ + ε_root) + ε)

    m and v start at 0 and are too small at first; the hats correct that. Where g is large beside ε, a step is about α
    in size whatever the size of g. With ``nesterov``, m̂ is β₁ m/(1 − β₁ᵗ⁺¹) + (1 − β₁) g/(1 − β₁ᵗ). ε stands outside
    the root and after the correction, as in the paper's algorithm 1 and in PyTorch; Keras puts it before that.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        b1: β₁, decay of the mean of gradients.
        b2: β₂, decay of the mean of squared gradients.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root, for differentiating through the update.
        mu_dtype: m's dtype; ``None`` for the parameters'.
        nesterov: whether to use Nesterov's momentum (NAdam).

    Returns:
        The transformation. Its state holds ``optax.ScaleByAdamState(count, mu, nu)``.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> optimizer = adam(0.1)
        >>> params = jnp.array([1.0, -200.0])
        >>> updates, state = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(updates.round(3), state[0].count)
        [-0.1  0.1] 1

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1; Dozat, "Incorporating Nesterov
        momentum into Adam", 2016.
    """
    return optax.chain(
        _scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov), _scale_by_learning_rate(learning_rate)
    )


def _velocity(decay, nesterov, accumulator_dtype):
    def init(params):
        return optax.TraceState(trace=_zeros_like(params, accumulator_dtype))

    def update(gradients, state, params=None):
        velocity = _map(lambda g, v: decay * v + g, gradients, state.trace)
        updates = _map(lambda g, v: decay * v + g, gradients, velocity) if nesterov else velocity
        return updates, optax.TraceState(trace=_cast(velocity, accumulator_dtype))

    return optax.GradientTransformation(init, update)


def _scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov):
    def init(params):
        return optax.ScaleByAdamState(
            count=jnp.zeros((), jnp.int32), mu=_zeros_like(params, mu_dtype), nu=_zeros_like(params)
        )

    def update(gradients, state, params=None):
        count = optax.safe_increment(state.count)
        mu = _map(lambda g, m: b1 * m + (1 - b1) * g, gradients, state.mu)
        nu = _map(lambda g, v: b2 * v + (1 - b2) * (g * g.conj()).real, gradients, state.nu)
        if nesterov:
            ahead, now = _bias_correction(b1, optax.safe_increment(count)), _bias_correction(b1, count)
            mean = _map(lambda m, g: b1 * _divide(m, ahead) + (1 - b1) * _divide(g, now), mu, gradients)
        else:
            mean = _map(lambda m: _divide(m, _bias_correction(b1, count)), mu)
        square = _map(lambda v: _divide(v, _bias_correction(b2, count)), nu)
        updates = _map(lambda m, v: m / (jnp.sqrt(v + eps_root) + eps), mean, square)
        nu = _map(lambda v, old: v.astype(old.dtype), nu, state.nu)
        return updates, optax.ScaleByAdamState(count=count, mu=_cast(mu, mu_dtype), nu=nu)

    return optax.GradientTransformation(init, update)


def _scale_by_learning_rate(learning_rate):
    def init(params):
        return (
            optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))
            if callable(learning_rate)
            else optax.EmptyState()
        )

    def update(gradients, state, params=None):
        if not callable(learning_rate):
            return _map(lambda g: -learning_rate * g, gradients), state
        rate = learning_rate(state.count)
        updates = _map(lambda g: jnp.asarray(-rate, g.dtype) * g, gradients)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def _bias_correction(decay, count):
    precise = jnp.result_type(float)
    return 1 - jnp.asarray(decay, precise) ** count.astype(precise)


def _divide(moment, correction):
    return moment / correction.astype(moment.dtype)


def _map(function, tree, *others):
    """``jax.tree.map`` that leaves a ``None`` in the place of a gradient alone, as optax does."""
    return jax.tree.map(
        lambda leaf, *rest: None if leaf is None else function(leaf, *rest),
        tree,
        *others,
        is_leaf=lambda leaf: leaf is None,
    )


def _zeros_like(params, dtype=None):
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype), params)


def _cast(tree, dtype):
    return tree if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), tree)
