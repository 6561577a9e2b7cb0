"""The walk over models: the names of leaf layers, other leaf layers in their place, and passes layer by layer.

``spec.structure`` says how a layer is made of others. Everything that walks a model (checks, summary, health,
checkpoints) uses this module; no other one distinguishes ``serial``, ``skip``, ``repeat``, ``tied`` and the wrappers. A
layer without a structure is a leaf.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, assert_never

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from funcnn._memoise import memoised
from funcnn.layers.combinators import SkipParts, repeat, serial, skip, split_key
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
    places = [_joined(place, word) for word in _places(model)]
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
    places = [_joined(place, word) for word in _places(model)]
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


class Node(NamedTuple):
    """A layer at its place in a model, with the values of its forward pass.

    Fields:
        place: ``layers[1].inner``.
        layer, params, state, x, key: what runs, and on what.
        y: the output.
        parts: the nodes of the layers that it is made of; a repeated layer has a node for each repetition.
        result: for a leaf, what ``run`` returned beside y.
        is_repetition: whether it stands inside a ``repeat``.
        shares_parameters: whether its parameters are those of a layer before it.
    """

    place: str
    layer: Layer
    params: Params
    state: State
    x: Any
    key: Any
    y: Any
    parts: tuple["Node", ...] = ()
    result: Any = None
    is_repetition: bool = False
    shares_parameters: bool = False

    @property
    def name(self) -> str:
        """The place and the layer's name."""
        return place_name(self.place, self.layer)

    def leaves(self) -> tuple["Node", ...]:
        """The nodes without parts, in forward order."""
        return tuple(leaf for part in self.parts for leaf in part.leaves()) if self.parts else (self,)

    def descendants(self) -> int:
        """The number of nodes below this one."""
        return sum(1 + part.descendants() for part in self.parts)


RunLeaf: TypeAlias = Callable[[Layer, Params, State, Any, Any], tuple[Any, Any]]
"""``(leaf layer, params, state, x, key) -> (y, result)``."""


def forward_nodes(
    model: Layer,
    params: Params,
    state: State,
    x: Any,
    key: Any,
    run: RunLeaf,
    *,
    is_leaf: Callable[[Layer], bool] = lambda layer: False,
) -> Node:
    """Run a model leaf by leaf, every repetition by itself, and keep what each layer was given.

    The arguments are arrays, or all of them ``jax.ShapeDtypeStruct``; then a repeated layer is run once, for all its
    repetitions have equal shapes.

    Args:
        model, params, state, x, key: as for the model's forward.
        run: runs a leaf layer.
        is_leaf: whether to run a layer as one although it has parts.

    Returns:
        The node of the model.
    """
    is_abstract = isinstance(x, jax.ShapeDtypeStruct)

    def apply(function, *trees):
        return jax.eval_shape(function, *trees) if is_abstract else function(*trees)

    def chain(parts, x):
        """Visit layers one after another, each given as ``(place, layer, params, state, key)``."""
        nodes: list[Node] = []
        for place, layer, params, state, key in parts:
            nodes.append(visit(place, layer, params, state, x, key))
            x = nodes[-1].y
        return nodes, x

    def visit(place, layer, params, state, x, key):
        node = Node(place, layer, params, state, x, key, None)
        structure = None if is_leaf(layer) else structure_of(layer)
        places = [] if structure is None else [_joined(place, word) for word in _places(layer)]
        match structure:
            case None:
                y, result = run(layer, params, state, x, key)
                return node._replace(y=y, result=result)
            case Chained(layers):
                keys = _split(key, len(layers), is_abstract)
                nodes, y = chain(zip(places, layers, params, state, keys, strict=True), x)
            case Tied(layers):
                keys = _split(key, len(layers), is_abstract)
                nodes, y = chain(zip(places, layers, (*params, params[0]), state, keys, strict=True), x)
                nodes[-1] = _sharing(nodes[-1])
            case Summed(inner, shortcut):
                keys = _split(key, 2, is_abstract)
                parts = zip(places, (inner, shortcut), params, state, keys, strict=True)
                nodes = [visit(at, part, own, kept, x, own_key) for at, part, own, kept, own_key in parts]
                y = apply(jnp.add, nodes[0].y, nodes[1].y)
            case Wrapped(inner, compute_dtype=None):
                nodes = [visit(places[0], inner, params, state, x, key)]
                y = nodes[0].y
            case Wrapped(inner, compute_dtype=dtype):
                narrow_params, narrow_state, narrow_x = apply(partial(cast_floating, dtype=dtype), (params, state, x))
                nodes = [visit(places[0], inner, narrow_params, narrow_state, narrow_x, key)]
                y = apply(partial(cast_floating, dtype=wide_dtype(params, x)), nodes[0].y)
            case Repeated(inner, n):
                keys = _split(key, n, is_abstract)
                count = 1 if is_abstract else n
                slices = [apply(partial(_repetition, number), (params, state)) for number in range(count)]
                given = zip(places[:count], slices, keys[:count], strict=True)
                nodes, y = chain([(at, inner, *trees, own_key) for at, trees, own_key in given], x)
                if is_abstract:
                    y = apply(lambda y: y, y)
                    nodes = [_moved(nodes[0], places[0], where) for where in places]
        return node._replace(y=y, parts=tuple(nodes))

    return visit("", model, params, state, x, key)


Pullback: TypeAlias = Callable[[Node, Array], tuple[Params, Array | None]]


def backward_nodes(
    node: Node,
    dy: Array,
    leaf: Pullback,
    after: Callable[[Node, Array, tuple[Params, Array | None]], None] = lambda node, dy, gradients: None,
) -> tuple[Params, Array | None]:
    """Carry a cotangent back through the nodes of a forward pass by the chain rule, from the last layer to the first.

    Args:
        node: from ``forward_nodes``, of arrays.
        dy: the cotangent of its output.
        leaf: ``(node, dy) -> (dparams, dx)`` for a leaf layer.
        after: called with the node of a layer that has parts, its dy and its gradients, after its parts.

    Returns:
        The gradients of the node's parameters and of its input.
    """

    def chain(nodes, dy):
        gradients: list[Params] = []
        for part in reversed(nodes):
            dparams, dy = backward_nodes(part, dy, leaf, after)
            gradients.insert(0, dparams)
        return gradients, dy

    if not node.parts:
        return leaf(node, dy)
    match structure_of(node.layer):
        case Chained():
            gradients, dx = chain(node.parts, dy)
            found = tuple(gradients), dx
        case Tied():
            (first, *between, last), dx = chain(node.parts, dy)
            found = (jax.tree.map(jnp.add, first, last), *between), dx
        case Summed():
            (inner, dx), (shortcut, dx_shortcut) = (backward_nodes(part, dy, leaf, after) for part in node.parts)
            found = SkipParts(inner, shortcut), None if dx is None or dx_shortcut is None else dx + dx_shortcut
        case Repeated():
            gradients, dx = chain(node.parts, dy)
            found = jax.tree.map(lambda *parts: jnp.stack(parts), *gradients), dx
        case Wrapped(compute_dtype=dtype):
            dparams, dx = backward_nodes(node.parts[0], dy if dtype is None else dy.astype(dtype), leaf, after)
            found = _like(dparams, node.params), None if dx is None else dx.astype(node.x.dtype)
        case None:
            raise ValueError(f"{node.name}: expected a node without parts of a layer without parts.")
        case structure:
            assert_never(structure)
    after(node, dy, found)
    return found


def cast_floating(tree: PyTree, dtype: Any) -> PyTree:
    """Return the tree with its floating leaves in ``dtype``; counts and keys stay as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def wide_dtype(params: PyTree, x: Any) -> Any:
    """Return the dtype outside of a layer in mixed precision: x's, and for tokens that of the parameters."""
    floating = [leaf.dtype for leaf in (x, *jax.tree.leaves(params)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return floating[0] if floating else jnp.result_type(float)


def _places(layer: Layer) -> tuple[str, ...]:
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


def _joined(place: str, word: str) -> str:
    return f"{place}.{word}".lstrip(".")


def _split(key: Any, count: int, is_abstract: bool) -> tuple:
    return (key,) * count if is_abstract else split_key(key, count)


def _repetition(number: int, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[number], tree)


def _moved(node: Node, place: str, other: str) -> Node:
    """Return the node and its parts at another place."""
    parts = tuple(_moved(part, place, other) for part in node.parts)
    return node._replace(place=other + node.place.removeprefix(place), parts=parts, is_repetition=True)


def _sharing(node: Node) -> Node:
    """Return the node and its parts, marked as layers with the parameters of another."""
    return node._replace(parts=tuple(map(_sharing, node.parts)), shares_parameters=True)


def _like(tree: PyTree, reference: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), tree, reference)
