"""The walk over models: the names of leaf layers, other leaf layers in their place, and figures of each.

``spec.structure`` says how a layer is made of others. Everything that walks a model (checks, summary, health,
checkpoints) uses this module and ``nodes``, the passes layer by layer; no other ones distinguish ``serial``, ``skip``,
``repeat``, ``tied`` and the wrappers. A layer without a structure is a leaf.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from funcnn._memoise import memoised
from funcnn.layers.combinators import SkipParts, repeat, serial, skip
from funcnn.types import Chained, Layer, LayerSpec, Params, Repeated, State, Structure, Summed, Tied, Wrapped


def spec_of(layer: Layer) -> LayerSpec:
    """Return the layer's spec, the default one for an object that has the three functions alone."""
    return getattr(layer, "spec", None) or LayerSpec()


def structure_of(layer: Layer) -> Structure | None:
    """Return how a layer is made of others, ``None`` for a leaf.

    A layer whose forward is not that of the combinator is a leaf, whatever its spec says.
    """
    structure = spec_of(layer).structure
    # Combinators are memoised: of the same parts they return the same functions.
    if structure is None or _combine(structure).forward is not layer.forward:
        return None
    return structure


def _combine(structure: Structure) -> Layer:
    match structure:
        case Chained(layers):
            return serial(*layers)
        case Summed(inner, shortcut):
            return skip(inner, shortcut)
        case Repeated(layer, n):
            return repeat(layer, n)
        case Wrapped(layer, wrap):
            return wrap(layer)
        case Tied(layers, tie):
            return tie(*layers)
        case _:
            assert_never(structure)


def place_name(place: str, layer: Layer) -> str:
    """Return the name of a layer at a place, ``layers[2].inner linear``."""
    return f"{place} {spec_of(layer).name}".strip()


class Leaf(NamedTuple):
    """A leaf layer and its place in a model, ``layers[1].repeat[0].inner``."""

    place: str
    layer: Layer

    @property
    def name(self) -> str:
        """The place and the layer's name."""
        return place_name(self.place, self.layer)


def leaf_layers(model: Layer, place: str = "") -> tuple[Leaf, ...]:
    """Return the leaf layers of a model in forward order; a repeated one as often as it is repeated.

    Example:
        >>> from funcnn.layers.linear import linear
        >>> [leaf.place for leaf in leaf_layers(serial(linear(2, 2), repeat(skip(linear(2, 2)), 1)))]
        ['layers[0]', 'layers[1].repeat[0].inner', 'layers[1].repeat[0].shortcut']
    """
    structure = structure_of(model)
    if structure is None:
        return (Leaf(place, model),)
    places = [joined(place, word) for word in part_places(model)]
    layers = [structure.layer] * structure.n if isinstance(structure, Repeated) else spec_of(model).parts
    return tuple(leaf for where, layer in zip(places, layers, strict=True) for leaf in leaf_layers(layer, where))


@memoised
def layer_names(model: Layer) -> tuple[str, ...]:
    """Return the names of a model's leaf layers in forward order: each one's place and what it is.

    Example:
        >>> from funcnn.layers.linear import linear
        >>> layer_names(serial(linear(2, 2), skip(linear(2, 2))))
        ('layers[0] linear', 'layers[1].inner linear', 'layers[1].shortcut identity')
    """
    return tuple(leaf.name for leaf in leaf_layers(model))


def output_leaf(model: Layer) -> Leaf | None:
    """Return the leaf layer whose output is the model's, ``None`` where the output is a sum.

    Example:
        >>> from funcnn.layers.activations import relu
        >>> output_leaf(serial(relu, skip(relu))) is None
        True
    """
    leaf = leaf_layers(model)[-1]
    while (structure := structure_of(model)) is not None:
        if isinstance(structure, Summed):
            return None
        model = spec_of(model).parts[-1]
    return leaf


def map_layers(change: Callable[[Layer], Layer], model: Layer) -> Layer:
    """Return the model with ``change(leaf)`` in the place of every leaf layer.

    Example:
        >>> from funcnn.layers.activations import relu, tanh
        >>> map_layers(lambda leaf: tanh, serial(relu, skip(relu))) == serial(tanh, skip(tanh, tanh))
        True
    """
    match structure_of(model):
        case None:
            return change(model)
        case Chained(layers):
            return _combine(Chained(tuple(map_layers(change, layer) for layer in layers)))
        case Summed(inner, shortcut):
            return _combine(Summed(map_layers(change, inner), map_layers(change, shortcut)))
        case Repeated(layer, n):
            return _combine(Repeated(map_layers(change, layer), n))
        case Wrapped(layer) as structure:
            return _combine(structure._replace(layer=map_layers(change, layer)))
        case Tied(layers) as structure:
            return _combine(structure._replace(layers=tuple(map_layers(change, layer) for layer in layers)))
        case structure:
            assert_never(structure)


def init_leaves(init: Callable[[Leaf], tuple[Params, State]], model: Layer, place: str = "") -> tuple[Params, State]:
    """Return parameters and state of a model, those of each leaf layer from ``init``, called in forward order.

    Example:
        >>> from funcnn.layers.activations import relu
        >>> init_leaves(lambda leaf: (leaf.place, ()), serial(relu, skip(relu)))[0]
        ('layers[0]', SkipParts(inner='layers[1].inner', shortcut='layers[1].shortcut'))
    """
    structure = structure_of(model)
    if structure is None:
        return init(Leaf(place, model))
    places = [joined(place, word) for word in part_places(model)]
    if isinstance(structure, Tied):
        places = places[:-1]
    layers = [structure.layer] * structure.n if isinstance(structure, Repeated) else spec_of(model).parts
    params, states = zip(
        *(init_leaves(init, layer, at) for layer, at in zip(layers, places, strict=False)), strict=True
    )
    match structure:
        case Chained():
            return params, states
        case Summed():
            return SkipParts(*params), SkipParts(*states)
        case Repeated():
            return _stacked(params), _stacked(states)
        case Wrapped():
            return params[0], states[0]
        case Tied(layers):
            return params, (*states, layers[-1].init(jax.random.key(0))[1])
        case _:
            assert_never(structure)


def _stacked(trees: tuple[PyTree, ...]) -> PyTree:
    return jax.tree.map(lambda *parts: jnp.stack(parts), *trees)


class TiedNotes(NamedTuple):
    """The gradient of parameters that the first and the last layer of a ``tied`` share, with the notes of either."""

    first: Params
    last: Params


def figures_in_order(figures_of: Callable[[Any], PyTree[Array]], model: Layer, tree: Any) -> PyTree[Array]:
    """Compute figures of every leaf layer, and stack them along the last axis in forward order.

    Args:
        figures_of: from what the tree holds in a leaf layer's place to a tree of arrays.
        model: any layer.
        tree: of the structure of the model's parameters; the arrays of a repeated layer have the repetitions first.

    Returns:
        The tree of arrays, each with one more axis for the leaf layers at its end.
    """
    structure = structure_of(model)
    match structure:
        case None:
            return jax.tree.map(lambda figure: figure[..., None], figures_of(tree))
        case Repeated(layer, n):
            each = jax.vmap(partial(figures_in_order, figures_of, layer), out_axes=-2, axis_size=n)(tree)
            return jax.tree.map(lambda figure: figure.reshape(*figure.shape[:-2], -1), each)
        case Wrapped(layer):
            return figures_in_order(figures_of, layer, tree)
        case Chained(layers):
            parts = layers
        case Summed():
            parts = (structure.inner, structure.shortcut)
        case Tied(layers):
            parts, shared = layers, tree[0]
            first, last = shared if isinstance(shared, TiedNotes) else (shared, shared)
            tree = (first, *tree[1:], last)
        case _:
            assert_never(structure)
    figures = [figures_in_order(figures_of, layer, part) for layer, part in zip(parts, tree, strict=True)]
    # Layers may compute in different dtypes.
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *figures)


def part_places(layer: Layer) -> tuple[str, ...]:
    """Return what the parts of a layer are called in a place."""
    match structure_of(layer):
        case Chained(layers) | Tied(layers):
            return tuple(f"layers[{number}]" for number in range(len(layers)))
        case Summed():
            return SkipParts._fields
        case Repeated(_, n):
            return tuple(f"repeat[{number}]" for number in range(n))
        case Wrapped():
            return (spec_of(layer).name,)
        case None:
            return ()
        case structure:
            assert_never(structure)


def joined(place: str, word: str) -> str:
    """Return the place of a part."""
    return f"{place}.{word}".lstrip(".")
