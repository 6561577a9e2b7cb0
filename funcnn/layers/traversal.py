"""The walk over models: naming leaf layers, replacing them, and collecting numbers from each.

``spec.structure`` says how a layer is made of others and where their parameters are. Everything that walks a model
(checks, summary, health, checkpoints) uses this module, or ``nodes``, which runs a model layer by layer. Neither
distinguishes combinators by name, so a new one is walked as ``serial`` is. A layer without a structure is a leaf.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from funcnn._memoise import memoised
from funcnn.types import Layer, LayerSpec, Params, State, Structure


def spec_of(layer: Layer) -> LayerSpec:
    """Return the layer's spec, the default one for an object that has the three functions alone."""
    return getattr(layer, "spec", None) or LayerSpec()


def structure_of(layer: Layer) -> Structure | None:
    """Return how a layer is made of others, ``None`` for a leaf.

    A layer whose forward was replaced no longer computes what its structure says, so it counts as a leaf.
    """
    structure = spec_of(layer).structure
    # Combinators are memoised: of the same parts they return the same functions.
    if structure is None or structure.combine(*structure.parts).forward is not layer.forward:
        return None
    return structure


class TiedNotes(NamedTuple):
    """The gradient of parameters that two layers share, once with the first one's notes and once with the last one's.

    ``annotation`` makes them.
    """

    first: Params
    last: Params


def tree_at(structure: Structure, tree: PyTree, number: int) -> PyTree:
    """Return the part of a layer's parameters, gradients or state that belongs to one of its places."""
    match structure.trees:
        case "same":
            return tree
        case "stacked":
            return jax.tree.map(lambda leaf: leaf[number], tree)
        case "entries":
            is_last_use = structure.ties_last and number == len(tree)
            part = tree[0] if is_last_use else tree[number]
            if isinstance(part, TiedNotes):
                return part.last if is_last_use else part.first
            return part


def check_entries(structure: Structure, params: Params, state: State = None) -> None:
    """Raise where a layer's parameters or state have another number of entries than the layer has parts."""
    if structure.trees != "entries":
        return
    count = len(structure.places)
    for name, tree, expected in (("params", params, count - structure.ties_last), ("state", state, count)):
        if tree is not None and len(tree) != expected:
            raise ValueError(
                f"{name}: expected {expected} entries for {count} layers, got {len(tree)}. "
                "Use what init of this very model returned."
            )


def join_trees(structure: Structure, trees: Sequence[PyTree]) -> PyTree:
    """Return a layer's parameters or state, from those at its places."""
    match structure.trees:
        case "same":
            return trees[0]
        case "stacked":
            return jax.tree.map(lambda *parts: jnp.stack(parts), *trees)
        case "entries":
            return structure.container(trees)


def join_gradients(structure: Structure, gradients: Sequence[Params]) -> Params:
    """Return the gradient of a layer's parameters, from those at its places. Those of shared parameters are added."""
    if structure.ties_last:
        first, *between, last = gradients
        gradients = [jax.tree.map(jnp.add, first, last), *between]
    return join_trees(structure, gradients)


def place_name(place: str, layer: Layer) -> str:
    """Return the name of a layer at a place, ``layers[2].inner linear``."""
    return f"{place} {spec_of(layer).name}".strip()


class PlacedLayer(NamedTuple):
    """A layer and its place in a model, ``layers[1].repeat[0].inner``."""

    place: str
    layer: Layer

    @property
    def name(self) -> str:
        """The place and the layer's name."""
        return place_name(self.place, self.layer)


def leaf_layers(model: Layer, place: str = "") -> tuple[PlacedLayer, ...]:
    """Return the leaf layers of a model in forward order; a repeated one as often as it is repeated.

    Example:
        >>> from funcnn.layers.combinators import repeat, serial, skip
        >>> from funcnn.layers.linear import linear
        >>> [leaf.place for leaf in leaf_layers(serial(linear(2, 2), repeat(skip(linear(2, 2)), 1)))]
        ['layers[0]', 'layers[1].repeat[0].inner', 'layers[1].repeat[0].shortcut']
    """
    structure = structure_of(model)
    if structure is None:
        return (PlacedLayer(place, model),)
    return tuple(leaf for part in parts_of(structure, place) for leaf in leaf_layers(part.layer, part.place))


def parts_of(structure: Structure, place: str) -> Iterator[PlacedLayer]:
    """Yield the layer at each place of a structure, with its place in the model."""
    for word, layer in zip(structure.places, structure.layers, strict=True):
        yield PlacedLayer(f"{place}.{word}".lstrip("."), layer)


@memoised
def layer_names(model: Layer) -> tuple[str, ...]:
    """Return the names of a model's leaf layers in forward order: each one's place and what it is.

    Example:
        >>> from funcnn.layers.combinators import serial, skip
        >>> from funcnn.layers.linear import linear
        >>> layer_names(serial(linear(2, 2), skip(linear(2, 2))))
        ('layers[0] linear', 'layers[1].inner linear', 'layers[1].shortcut identity')
    """
    return tuple(leaf.name for leaf in leaf_layers(model))


def output_leaf(model: Layer) -> PlacedLayer | None:
    """Return the leaf layer whose output is the model's, ``None`` where the output is a sum.

    Example:
        >>> from funcnn.layers.activations import relu
        >>> from funcnn.layers.combinators import serial, skip
        >>> output_leaf(serial(relu, skip(relu))) is None
        True
    """
    leaf = leaf_layers(model)[-1]
    while (structure := structure_of(model)) is not None:
        if structure.adds:
            return None
        model = structure.parts[-1]
    return leaf


def map_layers(change: Callable[[Layer], Layer], model: Layer) -> Layer:
    """Return the model with ``change(leaf)`` in the place of every leaf layer.

    Example:
        >>> from funcnn.layers.activations import relu, tanh
        >>> from funcnn.layers.combinators import serial, skip
        >>> map_layers(lambda leaf: tanh, serial(relu, skip(relu))) == serial(tanh, skip(tanh, tanh))
        True
    """
    structure = structure_of(model)
    if structure is None:
        return change(model)
    return structure.combine(*(map_layers(change, part) for part in structure.parts))


def init_leaves(
    init: Callable[[PlacedLayer], tuple[Params, State]], model: Layer, place: str = ""
) -> tuple[Params, State]:
    """Return parameters and state of a model, those of each leaf layer from ``init``, called in forward order.

    Example:
        >>> from funcnn.layers.activations import relu
        >>> from funcnn.layers.combinators import serial, skip
        >>> init_leaves(lambda leaf: (leaf.place, ()), serial(relu, skip(relu)))[0]
        ('layers[0]', SkipParts(inner='layers[1].inner', shortcut='layers[1].shortcut'))
    """
    structure = structure_of(model)
    if structure is None:
        return init(PlacedLayer(place, model))
    parts = tuple(parts_of(structure, place))
    with_parameters = parts[:-1] if structure.ties_last else parts
    found = [init_leaves(init, part.layer, part.place) for part in with_parameters]
    states = [state for _, state in found]
    states += [part.layer.init(jax.random.key(0))[1] for part in parts[len(found) :]]
    return join_trees(structure, [params for params, _ in found]), join_trees(structure, states)


def figures_in_order(figures_of: Callable[[Any], PyTree[Array]], model: Layer, tree: Any) -> PyTree[Array]:
    """Compute figures of every leaf layer, and stack them along the last axis in forward order.

    Args:
        figures_of: called with each leaf layer's part of the tree; returns a tree of arrays.
        model: any layer.
        tree: of the structure of the model's parameters; the arrays of a repeated layer have the repetitions first.

    Returns:
        The tree of arrays, each with one more axis for the leaf layers at its end.
    """
    structure = structure_of(model)
    if structure is None:
        return jax.tree.map(lambda figure: figure[..., None], figures_of(tree))
    if structure.trees == "stacked":
        count, (layer,) = len(structure.places), structure.parts
        each = jax.vmap(partial(figures_in_order, figures_of, layer), out_axes=-2, axis_size=count)(tree)
        return jax.tree.map(lambda figure: figure.reshape(*figure.shape[:-2], -1), each)
    check_entries(structure, tree)
    figures = [
        figures_in_order(figures_of, layer, tree_at(structure, tree, number))
        for number, layer in enumerate(structure.layers)
    ]
    # Layers may compute in different dtypes.
    with jax.numpy_dtype_promotion("standard"):
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *figures)
