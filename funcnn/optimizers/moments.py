"""Optimizers that use a moving average of gradients: Adam and its variants, and Lion."""

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike, DTypeLike

from funcnn._checks import checked_bool
from funcnn._memoise import memoised
from funcnn.optimizers._arithmetic import (
    bias_correction,
    cast,
    map_leaves,
    moving_average,
    moving_average_of_squares,
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
    """Adaptive moment estimation: momentum divided elementwise by the root mean square of recent gradients::

        m ← (1 − β₁) g + β₁ m            m̂ = m/(1 − β₁ᵗ)
        v ← (1 − β₂) |g|² + β₂ v         v̂ = v/(1 − β₂ᵗ)
        u = −α m̂/(√(v̂ + ε_root) + ε)

    m and v start at 0, so they are too small in the first steps; m̂ and v̂ correct this bias. If g is much larger than
    ε, a step has a size of about α whatever the size of g. For ``nesterov`` see ``nadam``.

    ε is outside the root and is added after the correction, as in the paper's algorithm 1 and in PyTorch. Keras has the
    paper's shorter form, −α √(1 − β₂ᵗ)/(1 − β₁ᵗ) m/(√v + ε) with ε = 1e-7. The two are equal for ε = 0. Otherwise an ε
    in Keras corresponds to ε/√(1 − β₂ᵗ) here, which is 30 times as large at the first step and approaches ε. PyTorch's
    ``weight_decay`` λ is coupled: ``optax.chain(add_decayed_weights(λ), adam(…))``.

    Args:
        learning_rate: α, a number or an optax schedule.
        b1: β₁, the decay of m.
        b2: β₂, the decay of v.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root; a positive value makes the update differentiable at v = 0.
        mu_dtype: the dtype of m; ``None`` for that of the parameters.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        The gradient transformation. Its state contains ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
        ValueError, TypeError: a hyperparameter that is negative or not finite, or a decay outside [0, 1).

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
    checked_bool("adam(nesterov)", nesterov)
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

    λ p is added after the division, so that every parameter decays by the share α λ at every step, however large its
    gradients are. With L2 regularization, λ p is added to g and divided as well.

    PyTorch is the same with a default of λ = 1e-2, Keras with 4e-3 and its own ε (see ``adam``). The paper multiplies λ
    by the schedule's multiplier instead of α: its λ is α λ here.

    Args:
        learning_rate: α, a number or an optax schedule.
        b1: β₁, the decay of m.
        b2: β₂, the decay of v.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root.
        mu_dtype: the dtype of m; ``None`` for that of the parameters.
        weight_decay: λ, a number or an optax schedule.
        mask: the leaves that decay, as in ``add_decayed_weights``.
        nesterov: whether to use Nesterov's momentum.

    Returns:
        The gradient transformation. Its state contains ``optax.ScaleByAdamState(count, mu, nu)`` and the state of the
        weight decay. Its ``update`` requires ``params``.

    Raises:
        ValueError, TypeError: a hyperparameter that is negative or not finite, or a decay outside [0, 1); ``update``
            without ``params``.

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
    checked_bool("adamw(nesterov)", nesterov)
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
    """Adam with Nesterov's momentum: m̂ = β₁ m/(1 − β₁ᵗ⁺¹) + (1 − β₁) g/(1 − β₁ᵗ). ``adam`` with ``nesterov=True``.

    m̂ is Adam's m̂ of the next step if the gradient stays the same. PyTorch and Keras also use a warm-up of the β₁ in m̂,
    as the paper proposes: at step t it is β₁ (1 − 0.96^(t ψ)/2). PyTorch's ``momentum_decay`` ψ is 0.004 by default.
    The two are equal if ψ is so large that the power vanishes (for ψ = 0 that β₁ is halved at every step). ψ is 1 in
    Keras.

    Args:
        learning_rate: α, a number or an optax schedule.
        b1: β₁, the decay of m.
        b2: β₂, the decay of v.
        eps: ε, outside the root.
        eps_root: ε_root, inside the root.
        mu_dtype: the dtype of m; ``None`` for that of the parameters.

    Returns:
        The gradient transformation, with the state of ``adam``.

    Raises:
        ValueError, TypeError: as for ``adam``.

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
    """Adam with a decaying maximum of |g| instead of the root mean square::

        m ← (1 − β₁) g + β₁ m,    v ← max(|g| + ε, β₂ v),    u = −α m/((1 − β₁ᵗ) v)

    The maximum needs no bias correction. A large gradient has an effect for about 1/(1 − β₂) steps. PyTorch is the
    same. The paper has no ε, and Keras divides by v + ε with ε = 1e-7; all are equal for ε = 0.

    Args:
        learning_rate: α, a number or an optax schedule.
        b1: β₁, the decay of m.
        b2: β₂, the decay of the maximum.
        eps: ε, which keeps v positive if all gradients are 0.

    Returns:
        The gradient transformation. Its state contains ``optax.ScaleByAdamState(count, mu, nu)``.

    Raises:
        ValueError, TypeError: a hyperparameter that is negative or not finite, or a decay outside [0, 1).

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
    """The sign of a moving average of gradients, with decoupled weight decay::

        u = −α (sign((1 − β₁) g + β₁ m) + λ p),    then    m ← (1 − β₂) g + β₂ m

    Every entry changes by α. A suitable α is about a tenth of Adam's, with a λ ten times as large. There is no second
    moment and no ε. Keras is the same with a default of λ = 0; PyTorch has no Lion.

    Args:
        learning_rate: α, a number or an optax schedule.
        b1: β₁, the weight of m in the direction.
        b2: β₂, the decay of m.
        mu_dtype: the dtype of m; ``None`` for that of the parameters.
        weight_decay: λ, a number or an optax schedule.
        mask: the leaves that decay, as in ``add_decayed_weights``.

    Returns:
        The gradient transformation. Its state contains ``optax.ScaleByLionState(count, mu)`` and the state of the
        weight decay. Its ``update`` requires ``params``.

    Raises:
        ValueError, TypeError: a hyperparameter that is negative or not finite, or a decay outside [0, 1); ``update``
            without ``params``.

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
        mu = moving_average(gradients, state.mu, b1)
        nu = moving_average_of_squares(gradients, state.nu, b2)
        mean = bias_correction(mu, b1, count)
        if nesterov:
            ahead, now = bias_correction(mu, b1, optax.safe_increment(count)), bias_correction(gradients, b1, count)
            mean = moving_average(now, ahead, b1)
        size = map_leaves(lambda v: jnp.sqrt(v + eps_root) + eps, bias_correction(nu, b2, count))
        updates = map_leaves(lambda m, d: m / d, mean, size)
        nu = map_leaves(lambda v, old: v.astype(old.dtype), nu, state.nu)
        return updates, optax.ScaleByAdamState(count, cast(mu, mu_dtype), nu)

    return transformation(init, update)


def _scale_by_adamax(b1, b2, eps):
    def init(params):
        return optax.ScaleByAdamState(start_count(), zeros_like(params), zeros_like(params))

    def update(gradients, state, params=None):
        count = optax.safe_increment(state.count)
        mu = moving_average(gradients, state.mu, b1)
        nu = map_leaves(lambda g, v: jnp.maximum(jnp.abs(g) + eps, b2 * v), gradients, state.nu)
        updates = map_leaves(lambda m, v: m / v, bias_correction(mu, b1, count), nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return transformation(init, update)


def _scale_by_lion(b1, b2, mu_dtype):
    def init(params):
        return optax.ScaleByLionState(start_count(), zeros_like(params, mu_dtype))

    def update(gradients, state, params=None):
        updates = map_leaves(jnp.sign, moving_average(gradients, state.mu, b1))
        mu = cast(moving_average(gradients, state.mu, b2), mu_dtype)
        return updates, optax.ScaleByLionState(optax.safe_increment(state.count), mu)

    return transformation(init, update)
