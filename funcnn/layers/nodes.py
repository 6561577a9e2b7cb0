"""The passes of a model layer by layer: what each layer was given forward, and its gradients backward.

``summarize`` counts on them, ``check_model`` finds the first wrong layer with them, and plots show their values.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from funcnn.layers.combinators import split_key
from funcnn.layers.mixed_precision import cast_floating, wide_dtype
from funcnn.layers.traversal import check_entries, join_gradients, parts_of, place_name, structure_of, tree_at
from funcnn.types import Layer, Params, State, Structure


class Node(NamedTuple):
    """A layer at its place in a model, with the values of its forward pass.

    Fields:
        place: ``layers[1].inner``.
        layer, params, state, x, key: what runs, and on what.
        y: the output.
        parts: the nodes of the layers that it is made of; a repeated layer has a node for each repetition.
        result: the second value that ``run`` returned, for leaves alone.
        is_repetition: whether its values are those of the first repetition, which ran for all in a run on shapes.
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
        is_leaf: ``True`` for a layer that is run as a whole, without a look at its parts.

    Returns:
        The node of the model.
    """
    is_abstract = isinstance(x, jax.ShapeDtypeStruct)

    def apply(function, *trees):
        return jax.eval_shape(function, *trees) if is_abstract else function(*trees)

    def visit(place, layer, params, state, x, key):
        node = Node(place, layer, params, state, x, key, None)
        structure = None if is_leaf(layer) else structure_of(layer)
        if structure is None:
            y, result = run(layer, params, state, x, key)
            return node._replace(y=y, result=result)
        dtype, given = structure.compute_dtype, (params, state, x)
        if dtype is not None:
            given = apply(partial(cast_floating, dtype=dtype), given)
        nodes = visit_parts(structure, place, given, key)
        y = apply(_sum, *(part.y for part in nodes)) if structure.adds else nodes[-1].y
        if dtype is not None:
            y = apply(partial(cast_floating, dtype=wide_dtype(params, x)), y)
        if is_abstract and structure.trees == "stacked":
            y = apply(lambda y: y, y)  # The output of all repetitions is another array than that of the first.
        return node._replace(y=y, parts=tuple(nodes))

    def visit_parts(structure, place, given, key):
        params, state, x = given
        check_entries(structure, params, state)
        parts = list(parts_of(structure, place))
        is_sliced = structure.trees == "stacked"
        stands_for_all = is_abstract and is_sliced
        keys = _keys(structure, key, is_abstract)
        nodes: list[Node] = []
        for number, part in enumerate(parts[:1] if stands_for_all else parts):
            select = partial(_trees_at, structure, number)
            own_params, own_state = apply(select, params, state) if is_sliced else select(params, state)
            own_x = nodes[-1].y if nodes and not structure.adds else x
            nodes.append(visit(part.place, part.layer, own_params, own_state, own_x, keys[number]))
        if structure.ties_last:
            nodes[-1] = _sharing(nodes[-1])
        return [_moved(nodes[0], parts[0].place, part.place) for part in parts] if stands_for_all else nodes

    return visit("", model, params, state, x, key)


Pullback: TypeAlias = Callable[[Node, Array], tuple[Params, Array | None]]
"""``(node, dy) -> (dparams, dx)``."""


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
        after: ``(node, dy, gradients)``, called for each combinator once its parts are done.

    Returns:
        The gradients of the node's parameters and of its input.
    """
    if not node.parts:
        return leaf(node, dy)
    structure = structure_of(node.layer)
    if structure is None:
        raise ValueError(
            f"{node.name}: expected no parts of a layer without a structure, got {len(node.parts)}. "
            "Pass a node of forward_nodes."
        )
    found = _parts_backward(structure, node, dy, leaf, after)
    after(node, dy, found)
    return found


def _parts_backward(structure, node, dy, leaf, after):
    if structure.compute_dtype is not None:
        dy = dy.astype(structure.compute_dtype)
    pass_back = _branches_backward if structure.adds else _chain_backward
    gradients, dx = pass_back(node.parts, dy, leaf, after)
    dparams = join_gradients(structure, gradients)
    if structure.compute_dtype is not None:
        dparams, dx = _like(dparams, node.params), None if dx is None else dx.astype(node.x.dtype)
    return dparams, dx


def _chain_backward(parts, dy, leaf, after) -> tuple[list[Params], Array | None]:
    gradients: list[Params] = []
    for part in reversed(parts):
        dparams, dy = backward_nodes(part, dy, leaf, after)
        gradients.insert(0, dparams)
    return gradients, dy


def _branches_backward(parts, dy, leaf, after) -> tuple[list[Params], Array | None]:
    found = [backward_nodes(part, dy, leaf, after) for part in parts]
    each_dx = [dx for _, dx in found if dx is not None]  # Tokens have no gradient.
    return [dparams for dparams, _ in found], _sum(*each_dx) if len(each_dx) == len(found) else None


def _sum(*arrays: Array) -> Array:
    return reduce(jnp.add, arrays)


def _keys(structure: Structure, key: Any, is_abstract: bool) -> tuple:
    count = len(structure.places)
    return (key,) * count if is_abstract or structure.trees == "same" else split_key(key, count)


def _trees_at(structure: Structure, number: int, params: Params, state: State) -> tuple[Params, State]:
    return tree_at(structure, params, number), tree_at(structure, state, number)


def _moved(node: Node, place: str, other: str) -> Node:
    """Return the node and its parts at another place, marked as repetitions."""
    parts = tuple(_moved(part, place, other) for part in node.parts)
    return node._replace(place=other + node.place.removeprefix(place), parts=parts, is_repetition=True)


def _sharing(node: Node) -> Node:
    """Return the node and its parts, marked as layers with the parameters of another."""
    return node._replace(parts=tuple(map(_sharing, node.parts)), shares_parameters=True)


def _like(tree: PyTree, reference: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf, other: leaf.astype(other.dtype), tree, reference)
