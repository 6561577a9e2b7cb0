"""The passes of a model layer by layer: what each layer was given forward, and its gradients backward.

``summarize`` counts on them, ``check_model`` finds the first wrong layer with them, and plots show their values.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, assert_never

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from funcnn.layers.combinators import SkipParts, split_key
from funcnn.layers.mixed_precision import cast_floating, wide_dtype
from funcnn.layers.traversal import joined, part_places, place_name, structure_of
from funcnn.types import Chained, Layer, Params, Repeated, State, Summed, Tied, Wrapped


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

    The arguments are arrays, or all of them ``jax.ShapeDtypeStruct``; then a repeated layer is run once, because all
    its repetitions have equal shapes.

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
        places = [] if structure is None else [joined(place, word) for word in part_places(layer)]
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
