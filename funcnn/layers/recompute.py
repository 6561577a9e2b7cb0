"""Recomputation: memory for time. The backward pass runs the forward pass again instead of having kept what it left."""

from functools import partial
from typing import NamedTuple

from jax import lax
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import check_is_layer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.types import Layer, Params, State


class RecomputeResiduals(NamedTuple):
    """All that the forward pass was given; ``train`` is static."""

    params: Params
    state: State
    x: Array
    key: PRNGKeyArray | None
    train: Static


def _recompute_init(layer, key):
    return layer.init(key)


def _recompute_forward(layer, params, state, x, *, train, key=None):
    y, new_state, _ = layer.forward(params, state, x, train=train, key=key)
    return y, new_state, RecomputeResiduals(params, state, x, key, Static(train))


def _recompute_backward(layer, given, dy):
    # XLA would see that this is the forward pass once more, and keep the first one's residuals instead. For CPUs it
    # drops the barrier and does so; in a repeat the two passes stand in loops of their own.
    x, dy = lax.optimization_barrier((given.x, dy))
    _, _, residuals = layer.forward(given.params, given.state, x, train=given.train.value, key=given.key)
    return layer.backward(residuals, dy)


@memoised
def recompute(layer: Layer) -> Layer:
    """A layer that keeps its input alone from forward to backward, and there runs its forward pass again.

    With y = f(x) and f's own pair of passes::

        forward    y, r = f.forward(x)     keep x, forget r
        backward   _, r = f.forward(x)     dθ, dx = f.backward(r, dy)

    The gradients are the same numbers, for one forward pass more. n equal layers in
    ``repeat(recompute(layer), n)`` keep n inputs; cut into √n groups, ``repeat(recompute(repeat(layer, k)), n // k)``,
    they keep √n inputs and the residuals of one group. Random layers draw the same again, for the key is kept.

    On a CPU it saves memory inside ``repeat`` alone: elsewhere XLA recognises the forward pass and keeps what it left,
    as it does with ``jax.checkpoint``.

    The checks and ``monitor`` take it for one layer; check the layer itself to learn which part is wrong.

    Args:
        layer: any layer; a ``serial`` of several is where there is something to save.

    Returns:
        The layer, with the parameters, state and outputs of ``layer``.

    Raises:
        TypeError: layer isn't a layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.layers.activations import tanh
        >>> from funcnn.layers.combinators import serial
        >>> from funcnn.layers.linear import linear
        >>> block = serial(linear(3, 100), tanh, linear(100, 3))
        >>> params, state = block.init(jax.random.key(0))
        >>> _, _, kept = recompute(block).forward(params, state, jnp.ones((2, 3)), train=True)
        >>> kept.x.shape
        (2, 3)

    Source:
        Griewank, "Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
        differentiation", 1992; Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016.
    """
    check_is_layer("recompute(layer)", layer)
    return Layer(
        partial(_recompute_init, layer), partial(_recompute_forward, layer), partial(_recompute_backward, layer)
    )
