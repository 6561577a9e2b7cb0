"""Recomputation: the backward pass runs the forward pass again instead of keeping its residuals."""

from functools import partial
from typing import NamedTuple

from jax import lax
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import check_is_layer, errors_at
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.types import Layer, LayerSpec, Params, State, Structure


class RecomputeResiduals(NamedTuple):
    """The arguments of the forward pass; ``train`` is static."""

    params: Params
    state: State
    x: Array
    key: PRNGKeyArray | None
    train: Static


def _recompute_init(layer, key):
    return layer.init(key)


def _recompute_forward(layer, params, state, x, *, train, key=None):
    with errors_at("recompute"):
        y, new_state, _ = layer.forward(params, state, x, train=train, key=key)
    return y, new_state, RecomputeResiduals(params, state, x, key, Static(train))


def _recompute_backward(layer, given, dy):
    # Without the barrier XLA merges this forward pass with the first one and keeps its residuals. On CPUs it drops the
    # barrier and does so anyway, except in a repeat, where the two passes are in separate loops.
    x, dy = lax.optimization_barrier((given.x, dy))
    _, _, residuals = layer.forward(given.params, given.state, x, train=given.train.value, key=given.key)
    return layer.backward(residuals, dy)


@memoised
def recompute(layer: Layer) -> Layer:
    """A layer that keeps only its input for backward, which runs the forward pass again.

    With y = f(x) and f's own pair of passes::

        forward    y, r = f.forward(x)     keep x, drop r
        backward   _, r = f.forward(x)     dθ, dx = f.backward(r, dy)

    The gradients are the same numbers, for one forward pass more. n equal layers in
    ``repeat(recompute(layer), n)`` keep n inputs; cut into √n groups, ``repeat(recompute(repeat(layer, k)), n // k)``,
    they keep √n inputs and the residuals of one group. Random layers draw the same again, because the key is kept.

    On a CPU it saves memory only inside ``repeat``: elsewhere XLA merges the two forward passes, as it does with
    ``jax.checkpoint``.

    The checks and ``monitor`` look at the layers inside; ``summarize`` counts it as one layer, which keeps its input.

    Args:
        layer: any layer; a ``serial`` of several layers saves the residuals between them.

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
        partial(_recompute_init, layer),
        partial(_recompute_forward, layer),
        partial(_recompute_backward, layer),
        LayerSpec(
            "recompute",
            structure=Structure(recompute, (layer,), ("recompute",), trees="same", recomputes=True),
        ),
    )
