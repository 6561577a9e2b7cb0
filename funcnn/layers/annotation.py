"""Notes on leaf layers: a model whose backward pass returns a note beside the gradients of every leaf layer.

The monitor's measures and the largest activations of a diverged run are such notes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from funcnn.layers.traversal import TiedNotes as TiedNotes, map_layers, spec_of
from funcnn.types import Layer, Params


class Annotated(NamedTuple):
    """Gradients of a leaf layer's parameters, with a note beside them."""

    value: Params
    note: Any


def has_notes(tree: Any) -> bool:
    """Whether gradients have notes beside them."""
    return any(map(_is_note, jax.tree.leaves(tree, is_leaf=_is_note)))


def values(tree: Any) -> Any:
    """Return the tree without its notes."""

    def value(part):
        return values(part.first) if isinstance(part, TiedNotes) else part.value if _is_note(part) else part

    return jax.tree.map(value, tree, is_leaf=_is_note)


def with_values(tree: Any, replaced: Any) -> Any:
    """Return the tree with other values beside the same notes."""

    def with_value(part, value):
        if isinstance(part, TiedNotes):
            return TiedNotes(with_values(part.first, value), with_values(part.last, value))
        return part._replace(value=value) if _is_note(part) else value

    return jax.tree.map(with_value, tree, replaced, is_leaf=_is_note)


def _is_note(tree: Any) -> bool:
    return isinstance(tree, Annotated | TiedNotes)


def annotated(
    model: Layer,
    forward_note: Callable[[Layer, Params, Any, Array], Any],
    backward_note: Callable[[Layer, Any, Params, Array, Array | None], Any],
) -> Layer:
    """Return the model with notes on every leaf layer, which its backward returns as ``Annotated`` gradients.

    The passes are those of the model: the combinators run the annotated leaves as they run any layer.

    Args:
        model: any layer.
        forward_note: ``(layer, params, residuals, y) -> note``, called in the forward pass.
        backward_note: ``(layer, note, dparams, dy, dx) -> note``, called in the backward pass.

    Returns:
        A layer with the model's parameters, state and outputs.
    """

    def forward(layer, params, state, x, *, train, key=None):
        y, new_state, residuals = layer.forward(params, state, x, train=train, key=key)
        return y, new_state, (residuals, forward_note(layer, params, residuals, y))

    def backward(layer, kept, dy):
        residuals, note = kept
        dparams, dx = layer.backward(residuals, dy)
        return Annotated(dparams, backward_note(layer, note, dparams, dy, dx)), dx

    def annotate(layer):
        return Layer(layer.init, partial(forward, layer), partial(backward, layer), spec_of(layer))

    return map_layers(annotate, model)
