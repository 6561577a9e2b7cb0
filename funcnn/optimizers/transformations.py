"""What is done to gradients on their way to an optimizer, or to updates on their way out: links of ``optax.chain``."""

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
    """Every entry clipped to an interval: u = min(max(g, −c), c). Optax's name for it is ``clip``.

    The direction changes, unlike with ``clip_by_global_norm``. PyTorch's ``clip_grad_value_`` and Keras' ``clipvalue``
    are the same.

    Args:
        max_delta: c, the largest absolute value that passes.

    Returns:
        The transformation, without state.

    Raises:
        ValueError, TypeError: a number that isn't positive; complex gradients, which have no order.

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
    """All gradients scaled by one number, so that their common norm is at most c::

        ‖g‖ = √(Σ |g|²) over every entry of every leaf,    u = g if ‖g‖ < c, else g c/‖g‖

    The direction stays. PyTorch's ``clip_grad_norm_`` is the same but for the 1e-6 that it adds to ‖g‖; Keras'
    ``global_clipnorm`` is the same, its ``clipnorm`` clips each variable by a norm of its own. The squares are summed
    in the gradients' own dtype, as in optax: gradients whose squares overflow (256 in float16) are clipped to 0.

    Args:
        max_norm: c, the largest norm that passes.

    Returns:
        The transformation, without state.

    Raises:
        ValueError, TypeError: a number that isn't positive.

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
    """A share of the parameters added to what comes in: u = g + λ p.

    In front of an optimizer this is L2 regularisation, the gradient of λ ‖p‖²/2 added to the loss's (what PyTorch's
    ``weight_decay`` does in SGD, Adam and RMSprop): an adaptive optimizer divides it along with the rest. Behind the
    adaptive part it is decoupled weight decay (``adamw``), which shrinks every parameter by the same share.

    Args:
        weight_decay: λ, a number or, as in optax since 0.2.6, a schedule of the step count.
        mask: which leaves decay: a tree of bools like the parameters or a prefix of them, or a function from parameters
            to such a tree. ``None`` for all. Biases and scales of normalizations are often left out.

    Returns:
        The transformation. Its ``update`` needs ``params``. Its state holds the step count where there is a schedule.

    Raises:
        ValueError, TypeError: a number that is negative or not finite; an update without params.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> decay = add_decayed_weights(0.1, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
        >>> params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
        >>> updates, _ = decay.update(jax.tree.map(jnp.zeros_like, params), decay.init(params), params)
        >>> print(updates["kernel"], updates["bias"])
        [[0.1]] [0.]

    Source:
        Krogh and Hertz, "A simple weight decay can improve generalization", 1991; Loshchilov and Hutter, "Decoupled
        weight decay regularization", 2019, for the difference between the two places.
    """
    check_weight_decay("add_decayed_weights(weight_decay)", weight_decay)
    decayed = _decay(weight_decay)
    return decayed if mask is None else optax.masked(decayed, mask)


def _clip_entries(max_delta):
    def update(gradients, state, params=None):
        if any(jnp.iscomplexobj(g) for g in jax.tree.leaves(gradients)):
            raise TypeError(
                "clip_by_value: expected real gradients, got complex ones, which have no order. "
                "Use clip_by_global_norm, which clips their size."
            )
        return map_leaves(lambda g: jnp.clip(g, -max_delta, max_delta), gradients), state

    return transformation(_no_state, update)


def _clip_norm(max_norm):
    def update(gradients, state, params=None):
        squares = [jnp.sum(squared_size(g)) for g in jax.tree.leaves(gradients)]
        norm = jnp.sqrt(functools.reduce(operator.add, squares, 0.0))

        def clip(g):
            # The bound in g's dtype: one that a schedule made in another would widen every leaf.
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
    """Optax's state of a scheduled decay, which it doesn't export; a schedule's usual state before optax 0.2.6."""
    state = optax.add_decayed_weights(schedule).init(())
    return state if "count" in state._fields else optax.ScaleByScheduleState(count=start_count())


def _no_state(params):
    return optax.EmptyState()
