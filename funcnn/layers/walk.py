"""Going through the layers that a model is made of: their names, other layers in their place, their figures in order.

``composition`` opens what the combinators made; a layer that none of them made is a leaf.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from funcnn._memoise import memoised
from funcnn.layers.combinators import RepeatResiduals, SkipParts, composition, repeat, serial, skip
from funcnn.types import Layer


def layer_name(layer: Layer) -> str:
    """A layer's name, from the names of the functions that it is packed of: ``linear``, ``batch_norm``, ``relu``.

    Example:
        >>> from funcnn.layers.linear import linear
        >>> layer_name(linear(2, 3))
        'linear'
    """
    functions: list[Callable] = [layer.init, layer.forward, layer.backward]
    functions += [inner for function in functions if isinstance(function, partial) for inner in function.args]
    for function in functions:
        plain = function.func if isinstance(function, partial) else function
        name = getattr(plain, "__name__", "").lstrip("_")
        for ending in ("_init", "_forward", "_backward"):
            if name.endswith(ending) and name.removesuffix(ending) not in ("layer", ""):
                return name.removesuffix("_layer" + ending).removesuffix(ending)
    return type(layer).__name__.lower()


def leaf_layers(model: Layer, place: str = "") -> tuple[tuple[str, Layer], ...]:
    """The leaf layers of a model in forward order, each with its place; a repeated one as often as it is repeated.

    Example:
        >>> from funcnn.layers.linear import linear
        >>> [place for place, _ in leaf_layers(serial(linear(2, 2), repeat(skip(linear(2, 2)), 1)))]
        ['layers[0].', 'layers[1].repeat[0].inner.', 'layers[1].repeat[0].shortcut.']
    """
    made_of = composition(model)
    if made_of is None:
        return ((place, model),)
    if made_of.kind == "skip":
        places: tuple[str, ...] = SkipParts._fields
    else:
        word = {"serial": "layers", "repeat": "repeat"}[made_of.kind]
        places = tuple(f"{word}[{number}]" for number in range(len(made_of.layers)))
    inside = [leaf_layers(part, f"{place}{name}.") for name, part in zip(places, made_of.layers, strict=True)]
    return tuple(leaf for leaves in inside for leaf in leaves)


@memoised
def layer_names(model: Layer) -> tuple[str, ...]:
    """The names of a model's leaf layers in forward order: each one's place and what it is.

    Args:
        model: any layer.

    Returns:
        The names, as ``check_model`` gives them.

    Example:
        >>> from funcnn.layers.linear import linear
        >>> layer_names(serial(linear(2, 2), skip(linear(2, 2))))
        ('layers[0] linear', 'layers[1].inner linear', 'layers[1].shortcut identity')
    """
    return tuple(f"{place.rstrip('.')} {layer_name(layer)}".strip() for place, layer in leaf_layers(model))


def replaced(layer: Layer, change: Callable[[Layer], Layer]) -> Layer:
    """The layer with ``change`` of every leaf layer in that one's place, combined in the same way.

    Example:
        >>> from funcnn.layers.activations import relu, tanh
        >>> replaced(serial(relu, skip(relu)), lambda leaf: tanh) == serial(tanh, skip(tanh, tanh))
        True
    """
    made_of = composition(layer)
    if made_of is None:
        return change(layer)
    if made_of.kind == "repeat":
        return repeat(replaced(made_of.layers[0], change), len(made_of.layers))
    parts = [replaced(part, change) for part in made_of.layers]
    return skip(*parts) if made_of.kind == "skip" else serial(*parts)


def in_order(layer: Layer, kept: Any, figures_of: Callable[[Any], PyTree[Array]]) -> PyTree[Array]:
    """Figures of all leaf layers along the last axis, in forward order.

    Args:
        layer: the model.
        kept: its residuals, or what its backward returned for the parameters, with something of each leaf layer's in
            the leaf's place. A repeated layer's are stacked, the repetitions first.
        figures_of: from what is in a leaf's place to a tree of its figures.

    Returns:
        The tree, each array with an axis for the leaf layers at its end.
    """
    made_of = composition(layer)
    if made_of is None:
        return jax.tree.map(lambda figure: figure[..., None], figures_of(kept))
    if made_of.kind == "repeat":
        each = kept.of_layers if isinstance(kept, RepeatResiduals) else kept
        stacked = in_order(made_of.layers[0], each, figures_of)
        return jax.tree.map(lambda figure: figure.reshape(*figure.shape[:-2], -1), stacked)
    parts = [in_order(part, inner, figures_of) for part, inner in zip(made_of.layers, kept, strict=True)]
    return jax.tree.map(lambda *figures: jnp.concatenate(figures, axis=-1), *parts)
