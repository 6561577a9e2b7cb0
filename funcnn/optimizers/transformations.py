"""Transformations of gradients or updates, for use in ``optax.chain``: clipping and weight decay."""

import functools
import operator

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from funcnn._memoise import memoised
from funcnn.optimizers._arithmetic import map_leaves, squared_size, start_count, transformation
from funcnn.optimizers._settings import Mask, WeightDecay, check_bound, check_weight_decay


@memoised
def clip_by_value(max_delta: ArrayLike) -> optax.GradientTransformation:
    """Clip every entry to an interval: u = min(max(g, −c), c). Called ``clip`` in optax.

    The direction of the gradient changes, unlike in ``clip_by_global_norm``. PyTorch's ``clip_grad_value_`` and Keras'
    ``clipvalue`` are the same.

    Args:
        max_delta: c, the largest absolute value of an update.

    Returns:
        The gradient transformation. Its state is ``optax.EmptyState()``.

    Raises:
        ValueError, TypeError: a bound that isn't positive; complex gradients, which are not ordered.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from funcnn import sgd
        >>> optimizer = optax.chain(clip_by_value(1.0), sgd(0.1))
        >>> params = jnp.array([0.5, 300.0])
        >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
        >>> print(updates)
        [-0.05 -0.1 ]

    Source:
        Mikolov, "Statistical language models based on neural networks", PhD thesis, 2012.
    """
    check_bound("clip_by_value(max_delta)", max_delta)
    return _clip_entries(max_delta)


@memoised
def clip_by_global_norm(max_norm: ArrayLike) -> optax.GradientTransformation:
    """Scale all gradients by one number, so that their global norm is at most c::

        ‖g‖ = √(Σ |g|²),    u = g min(1, c/‖g‖)

    The sum is over every entry of every leaf. The direction of the gradient stays the same. PyTorch's
    ``clip_grad_norm_`` also adds 1e-6 to ‖g‖. Keras' ``global_clipnorm`` is the same; its ``clipnorm`` clips the norm
    of each variable. The squares are summed in the dtype of the gradients, as in optax: gradients whose squares
    overflow (256 in float16) are clipped to 0.

    Args:
        max_norm: c, the largest global norm of the updates.

    Returns:
        The gradient transformation. Its state is ``optax.EmptyState()``.

    Raises:
        ValueError, TypeError: a bound that isn't positive.

    Example:
        >>> import jax.numpy as jnp
        >>> gradients = {"kernel": jnp.array([3.0]), "bias": jnp.array([4.0])}
        >>> updates, _ = clip_by_global_norm(1.0).update(gradients, optax.EmptyState())
        >>> print(updates["kernel"].round(3), updates["bias"].round(3))
        [0.6] [0.8]

    Source:
        Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013, algorithm 1.
    """
    check_bound("clip_by_global_norm(max_norm)", max_norm)
    return _clip_norm(max_norm)


@memoised
def add_decayed_weights(weight_decay: WeightDecay = 0.0, mask: Mask | None = None) -> optax.GradientTransformation:
    """Add a multiple of the parameters to the gradients or updates: u = g + λ p.

    Before an optimizer this is L2 regularization: λ p is the gradient of λ ‖p‖²/2. It is PyTorch's ``weight_decay`` in
    SGD, Adam and RMSprop. An adaptive optimizer divides λ p along with the gradient. After the adaptive part it is
    decoupled weight decay (``adamw``), which decreases every parameter by the same share.

    Args:
        weight_decay: λ, a number or, as in optax since 0.2.6, an optax schedule.
        mask: the leaves that decay: a tree of bools of the parameters' structure or a prefix of it, or a function from
            parameters to such a tree. ``None`` for all. Biases and normalization scales are often excluded.

    Returns:
        The gradient transformation. Its ``update`` requires ``params``. Its state contains the step count with a
        schedule.

    Raises:
        ValueError, TypeError: a weight decay that is negative or not finite; ``update`` without ``params``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> decay = add_decayed_weights(0.1, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
        >>> params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
        >>> updates, _ = decay.update(jax.tree.map(jnp.zeros_like, params), decay.init(params), params)
        >>> print(updates["kernel"], updates["bias"])
        [[0.1]] [0.]

    Source:
        Krogh and Hertz, "A simple weight decay can improve generalization", 1991; Loshchilov and Hutter, "Decoupled
        weight decay regularization", 2019, for the difference between the two.
    """
    check_weight_decay("add_decayed_weights(weight_decay)", weight_decay)
    decayed = _decay(weight_decay)
    return decayed if mask is None else optax.masked(decayed, mask)


def _clip_entries(max_delta):
    def update(gradients, state, params=None):
        if any(jnp.iscomplexobj(g) for g in jax.tree.leaves(gradients)):
            raise TypeError(
                "clip_by_value: expected real gradients, got complex ones, which are not ordered. "
                "Use clip_by_global_norm, which clips their norm."
            )
        return map_leaves(lambda g: jnp.clip(g, -max_delta, max_delta), gradients), state

    return transformation(_no_state, update)


def _clip_norm(max_norm):
    def update(gradients, state, params=None):
        squares = [jnp.sum(squared_size(g)) for g in jax.tree.leaves(gradients)]
        norm = jnp.sqrt(functools.reduce(operator.add, squares, 0.0))

        def clip(g):
            # The bound may be a wider array from a schedule. It is cast so that the updates keep their dtype.
            bound = jnp.asarray(max_norm, g.dtype)
            return jnp.where(norm < max_norm, g, (g / norm.astype(g.dtype)) * bound)

        return map_leaves(clip, gradients), state

    return transformation(_no_state, update)


def _decay(weight_decay):
    def init(params):
        return _schedule_state(weight_decay) if callable(weight_decay) else optax.EmptyState()

    def update(gradients, state, params=None):
        if params is None:
            raise ValueError(
                "add_decayed_weights: expected params, which are what decays, got None. "
                "Pass them to update: optimizer.update(gradients, state, params)."
            )
        if isinstance(weight_decay, int | float) and weight_decay == 0:
            return gradients, state
        share = weight_decay(state.count) if callable(weight_decay) else weight_decay
        updates = map_leaves(lambda g, p: g + share * p, gradients, params)
        if callable(weight_decay):
            state = state._replace(count=optax.safe_increment(state.count))
        return updates, state

    return transformation(init, update)


def _schedule_state(schedule):
    """Return optax's state of a scheduled weight decay, which it doesn't export, or that of a schedule before 0.2.6."""
    state = optax.add_decayed_weights(schedule).init(())
    return state if "count" in state._fields else optax.ScaleByScheduleState(count=start_count())


def _no_state(params):
    return optax.EmptyState()
