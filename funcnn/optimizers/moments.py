"""Steps along a moving mean of gradients instead of the gradient: divided by its recent size, or its sign alone."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from funcnn._memoise import memoised
from funcnn.optimizers._arithmetic import (
    cast,
    correct,
    map_leaves,
    moving_mean,
    moving_mean_of_squares,
    scale_by_learning_rate,
    start_count,
    transformation,
    zeros_like,
)
from funcnn.optimizers._settings import (
    LearningRate,
    Mask,
    WeightDecay,
    check_decay,
    check_eps,
    check_learning_rate,
    check_weight_decay,
)
from funcnn.optimizers.transformations import add_decayed_weights


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

        m ← (1 − β₁) g + β₁ m            m̂ = m/(1 − β₁ᵗ)
        v ← (1 − β₂) |g|² + β₂ v         v̂ = v/(1 − β₂ᵗ)
        u = −α m̂/(√(v̂ + ε_root) + ε)

    m and v start at 0 and are too small at first; the hats correct that. Where g is large beside ε, a step is about α
    in size whatever the size of g. ``nesterov`` looks ahead: see ``nadam``.

    ε stands outside the root and after the correction, as in the paper's algorithm 1 and in PyTorch. Keras corrects v
    first and adds ε = 1e-7 after: −α √(1 − β₂ᵗ)/(1 − β₁ᵗ) m/(√v + ε), the paper's shorter form. The two meet at ε = 0;
    otherwise Keras' ε acts like one of ε/√(1 − β₂ᵗ) here, 30 times as large at the first step and the same in the end.
    PyTorch's ``weight_decay`` λ is coupled: ``optax.chain(add_decayed_weights(λ), adam(…))``.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        b1: β₁, decay of the mean of gradients.
        b2: β₂, decay of the mean of squared gradients.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root, for differentiating through the update.
        mu_dtype: m's dtype; ``None`` for the parameters'.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        The transformation. Its state holds ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
        ValueError, TypeError: a number that is negative, not finite, or no decay in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adam(0.1)
        >>> params = jnp.array([1.0, -200.0])
        >>> updates, state = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(updates.round(3), state[0].count)
        [-0.1  0.1] 1

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1.
    """
    check_learning_rate("adam(learning_rate)", learning_rate)
    _check_moments("adam", b1, b2, eps=eps, eps_root=eps_root)
    return optax.chain(_scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov), scale_by_learning_rate(learning_rate))


@memoised
def adamw(
    learning_rate: LearningRate,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: WeightDecay = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay: u = −α (m̂/(√(v̂ + ε_root) + ε) + λ p), with Adam's m̂ and v̂.

    λ p joins after the division, so that every parameter shrinks by the share α λ at a step however large its gradients
    are; added to g instead (L2 regularisation), it would be divided too. PyTorch is the same with λ = 1e-2 as its
    default, Keras with 4e-3 and its own ε (see ``adam``). In the paper a schedule's multiplier takes α's place beside
    λ: its λ is this α λ.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        b1: β₁, decay of the mean of gradients.
        b2: β₂, decay of the mean of squared gradients.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root.
        mu_dtype: m's dtype; ``None`` for the parameters'.
        weight_decay: λ, a number or a schedule of the step count.
        mask: which leaves decay, as in ``add_decayed_weights``.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        The transformation. Its state holds ``optax.ScaleByAdamState(count, mu, nu)`` and that of the decay. Its
        ``update`` needs ``params``.

    Raises:
        ValueError, TypeError: a number that is negative, not finite, or no decay in [0, 1); an update without params.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adamw(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0, -200.0])
        >>> updates, _ = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.15 10.1 ]

    Source:
        Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2.
    """
    check_learning_rate("adamw(learning_rate)", learning_rate)
    _check_moments("adamw", b1, b2, eps=eps, eps_root=eps_root)
    check_weight_decay("adamw(weight_decay)", weight_decay)
    return optax.chain(
        _scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def nadam(
    learning_rate: LearningRate,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    eps_root: ArrayLike = 0.0,
    mu_dtype: DTypeLike | None = None,
) -> optax.GradientTransformation:
    """Adam with Nesterov's momentum: m̂ = β₁ m/(1 − β₁ᵗ⁺¹) + (1 − β₁) g/(1 − β₁ᵗ). ``adam`` with ``nesterov`` on.

    m looks one step ahead, as if this step's gradient came again. PyTorch and Keras also warm the β₁ in m̂ up, as the
    paper proposes: at step t it is β₁ (1 − 0.96^(t ψ)/2). PyTorch's ``momentum_decay`` ψ is 0.004 by default; the two
    meet where ψ is so large that the power vanishes (at ψ = 0 that β₁ stays halved). Keras' ψ is fixed at 1.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        b1: β₁, decay of the mean of gradients.
        b2: β₂, decay of the mean of squared gradients.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root.
        mu_dtype: m's dtype; ``None`` for the parameters'.

    Returns:
        The transformation, with ``adam``'s state.

    Raises:
        ValueError, TypeError: as ``adam``.

    Example:
        >>> nadam(0.1) is adam(0.1, nesterov=True)
        True

    Source:
        Dozat, "Incorporating Nesterov momentum into Adam", 2016, without the warm-up.
    """
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=True)


@memoised
def adamax(
    learning_rate: LearningRate, b1: ArrayLike = 0.9, b2: ArrayLike = 0.999, eps: ArrayLike = 1e-8
) -> optax.GradientTransformation:
    """Adam with the largest recent gradient in the place of the mean square::

        m ← (1 − β₁) g + β₁ m,    v ← max(|g| + ε, β₂ v),    u = −α m/((1 − β₁ᵗ) v)

    A maximum needs no correction, and one large gradient is remembered for about 1/(1 − β₂) steps. PyTorch is the same.
    The paper has no ε; Keras adds it to v in the division, m/(v + ε) with ε = 1e-7: all meet at ε = 0.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        b1: β₁, decay of the mean of gradients.
        b2: β₂, decay of the maximum.
        eps: ε, for gradients that are 0 from the start.

    Returns:
        The transformation. Its state holds ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
        ValueError, TypeError: a number that is negative, not finite, or no decay in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = adamax(0.1)
        >>> params = jnp.array([1.0, -200.0])
        >>> updates, _ = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.1  0.1]

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2.
    """
    check_learning_rate("adamax(learning_rate)", learning_rate)
    _check_moments("adamax", b1, b2, eps=eps)
    return optax.chain(_scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


@memoised
def lion(
    learning_rate: LearningRate,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: WeightDecay = 1e-3,
    mask: Mask | None = None,
) -> optax.GradientTransformation:
    """The sign of a mean of gradients, with decoupled weight decay::

        u = −α (sign((1 − β₁) g + β₁ m) + λ p),    then    m ← (1 − β₂) g + β₂ m

    Every entry moves by α, so α is to be about a tenth of Adam's and λ ten times as large. There is no second mean and
    no ε. Keras is the same with λ = 0 as its default; PyTorch has none.

    Args:
        learning_rate: α, a number or an optax schedule of the step count.
        b1: β₁, m's share in the direction.
        b2: β₂, decay of m.
        mu_dtype: m's dtype; ``None`` for the parameters'.
        weight_decay: λ, a number or a schedule of the step count.
        mask: which leaves decay, as in ``add_decayed_weights``.

    Returns:
        The transformation. Its state holds ``optax.ScaleByLionState(count, mu)`` and that of the decay. Its ``update``
        needs ``params``.

    Raises:
        ValueError, TypeError: a number that is negative, not finite, or no decay in [0, 1); an update without params.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = lion(0.1, weight_decay=0.5)
        >>> params = jnp.array([1.0, -200.0])
        >>> updates, _ = optimizer.update(2 * params, optimizer.init(params), params)
        >>> print(updates.round(3))
        [-0.15 10.1 ]

    Source:
        Chen et al., "Symbolic discovery of optimization algorithms", 2023, program 1.
    """
    check_learning_rate("lion(learning_rate)", learning_rate)
    _check_moments("lion", b1, b2)
    check_weight_decay("lion(weight_decay)", weight_decay)
    return optax.chain(
        _scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def _check_moments(optimizer, b1, b2, **epsilons):
    check_decay(f"{optimizer}(b1)", b1)
    check_decay(f"{optimizer}(b2)", b2)
    for name, eps in epsilons.items():
        check_eps(f"{optimizer}({name})", eps)


def _scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov):
    def init(params):
        return optax.ScaleByAdamState(start_count(), zeros_like(params, mu_dtype), zeros_like(params))

    def update(gradients, state, params=None):
        count = optax.safe_increment(state.count)
        mu = moving_mean(gradients, state.mu, b1)
        nu = moving_mean_of_squares(gradients, state.nu, b2)
        mean = correct(mu, b1, count)
        if nesterov:
            ahead, now = correct(mu, b1, optax.safe_increment(count)), correct(gradients, b1, count)
            mean = moving_mean(now, ahead, b1)
        size = map_leaves(lambda v: jnp.sqrt(v + eps_root) + eps, correct(nu, b2, count))
        updates = map_leaves(lambda m, d: m / d, mean, size)
        nu = map_leaves(lambda v, old: v.astype(old.dtype), nu, state.nu)
        return updates, optax.ScaleByAdamState(count, cast(mu, mu_dtype), nu)

    return transformation(init, update)


def _scale_by_adamax(b1, b2, eps):
    def init(params):
        return optax.ScaleByAdamState(start_count(), zeros_like(params), zeros_like(params))

    def update(gradients, state, params=None):
        count = optax.safe_increment(state.count)
        mu = moving_mean(gradients, state.mu, b1)
        nu = map_leaves(lambda g, v: jnp.maximum(jnp.abs(g) + eps, b2 * v), gradients, state.nu)
        updates = map_leaves(lambda m, v: m / v, correct(mu, b1, count), nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return transformation(init, update)


def _scale_by_lion(b1, b2, mu_dtype):
    def init(params):
        return optax.ScaleByLionState(start_count(), zeros_like(params, mu_dtype))

    def update(gradients, state, params=None):
        updates = map_leaves(jnp.sign, moving_mean(gradients, state.mu, b1))
        mu = cast(moving_mean(gradients, state.mu, b2), mu_dtype)
        return updates, optax.ScaleByLionState(optax.safe_increment(state.count), mu)

    return transformation(init, update)
