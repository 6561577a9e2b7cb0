"""The cost of a model, layer by layer: parameters, floating-point operations, and the bytes of residuals.

The figures are read from abstract traces of the functions that train: nothing is allocated, compiled or run.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from funcnn._checks import check_is_layer, describe, positive_integer
from funcnn._initialization import initial_shapes
from funcnn._reports.document import MAX_ROWS, Table
from funcnn._reports.text import align_table
from funcnn.layers.nodes import Node, forward_nodes
from funcnn.layers.traversal import structure_of
from funcnn.types import Layer

Abstract = jax.ShapeDtypeStruct

_MOVES = frozenset((
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "optimization_barrier", "pad", "reshape", "rev",
    "scatter", "sharding_constraint", "slice", "split", "squeeze", "transpose",
))  # fmt: skip
"""Primitives that move or convert numbers and compute none."""


class LayerSummary(NamedTuple):
    """The cost of one layer at one input.

    Fields:
        name: its place and name as ``check_model`` writes them, ``layers[2].inner.layers[0] linear``.
        output_shape: with the batch axis.
        parameters: numbers in its parameters.
        forward_flops, backward_flops: floating-point operations in training.
        residual_bytes: bytes of what it keeps for backward that no layer before it keeps.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    forward_flops: int
    backward_flops: int
    residual_bytes: int


class Summary(NamedTuple):
    """A row for each layer in forward order, and their total. ``str()`` is the table."""

    rows: tuple[LayerSummary, ...]
    total: LayerSummary

    def __str__(self) -> str:
        shown = [*self.rows[:MAX_ROWS], self.total]
        names = ("parameters", "forward FLOPs", "backward FLOPs", "residual bytes")
        columns = {"layer": [row.name for row in shown], "output": [str(row.output_shape) for row in shown]}
        for name, figures in zip(names, zip(*(row[2:] for row in shown), strict=True), strict=True):
            columns[name] = [f"{figure:,}" for figure in figures]
        left_out = len(self.rows) - len(shown) + 1
        note = f"{left_out} more layers, counted in the total, are left out." if left_out else ""
        return align_table(Table("", columns, names, note=note))


class _Cost(NamedTuple):
    """The costs of a leaf layer, and the arrays it keeps; the same object wherever it is the same array."""

    parameters: int
    forward_flops: int
    backward_flops: int
    kept: tuple[Abstract, ...]


def summarize(model: Layer, input_shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Summary:
    """Count the cost of training a model, layer by layer, without running it.

    Floating-point operations are counted in the traced forward and backward pass, before XLA simplifies them, so the
    figures don't depend on the device: 2 m n k for a matrix product of (m, k) and (k, n), 2 for each entry of the
    kernel at each place of a convolution (padding counts, the zeros between dilated entries don't), one for each number
    that enters a sum or a maximum, one for each result of any other arithmetic, comparison, choice or function (exp and
    tanh too). Moving and converting numbers, integers and random bits count zero. The body of a ``while`` counts once.
    A backward pass includes the gradient by the layer's input, which XLA drops for the first layer.

    Residuals are bytes of memory from forward to backward. Parameters in them count zero, because they are in memory
    anyway; the copies that a ``mixed_precision`` makes of them count. An array that two layers keep, such as a ReLU's
    output, counts at the first. Inside a ``repeat`` every residual is stacked in an array of its own. The additions of
    a ``skip`` and of a ``tied`` have a row. A ``recompute`` is one row. Parameters that two layers share count at the
    first.

    Args:
        model: any layer.
        input_shape: of x, the batch axis first: ``(64, 784)``.
        dtype: a floating dtype for x, the parameters and the state; or an integer dtype for the x of a model that takes
            tokens, whose parameters and state then keep the dtypes of ``init``.

    Returns:
        A ``Summary``: ``rows``, ``total``, and a table as its ``str()``.

    Raises:
        ValueError: a shape without a batch axis, or that doesn't fit the model; 64 bits without JAX's 64-bit types.
        TypeError: model isn't a layer, sizes aren't integers, or the dtype is neither floating nor an integer one.

    Example:
        >>> from funcnn.models import mlp
        >>> print(summarize(mlp((784, 100, 10)), (64, 784)))
        layer             output     parameters  forward FLOPs  backward FLOPs  residual bytes
        ----------------  ---------  ----------  -------------  --------------  --------------
        layers[0] linear  (64, 100)      78,500     10,041,600      20,076,800         200,704
        layers[1] relu    (64, 100)           0         12,800          12,800          25,600
        layers[2] linear  (64, 10)        1,010        128,640         256,640               0
        total             (64, 10)       79,510     10,183,040      20,346,240         226,304
    """
    check_is_layer("summarize(model)", model)
    checked = _checked_dtype(dtype)
    is_floating = jnp.issubdtype(checked, jnp.floating)
    x = Abstract(_checked_shape(input_shape, axes=2 if is_floating else 1), checked)

    def in_dtype(leaf):
        return Abstract(leaf.shape, x.dtype) if is_floating and jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    params, state = jax.tree.map(in_dtype, initial_shapes(model))
    jax.eval_shape(partial(_forward, model), params, state, x, _key())  # Raises where parts don't fit each other.
    dtypes = frozenset(leaf.dtype for leaf in jax.tree.leaves((params, state)))
    root = forward_nodes(model, params, state, x, _key(), partial(_leaf_cost, dtypes), is_leaf=_recomputes)
    known: dict[int, Abstract] = {}
    rows = tuple(_row(node, known) for node in _with_additions(root))
    sums = [sum(figures) for figures in zip(*(row[2:] for row in rows), strict=True)]
    return Summary(rows, LayerSummary("total", root.y.shape, *sums))


def _recomputes(layer: Layer) -> bool:
    """Whether a layer keeps its arguments in place of its parts' residuals."""
    structure = structure_of(layer)
    return structure is not None and structure.recomputes


def _with_additions(node: Node) -> list[Node]:
    """Return the leaves in forward order, and each ``skip`` and ``tied`` after its parts, for its addition."""
    nodes = [inner for part in node.parts for inner in _with_additions(part)]
    structure = structure_of(node.layer) if node.parts else None
    return [*nodes, node] if structure is None or structure.adds or structure.ties_last else nodes


def _row(node: Node, known: dict[int, Abstract]) -> LayerSummary:
    """Return a row; residuals count where they are not among the ``known`` ones, which they then are."""
    structure = structure_of(node.layer)
    if node.parts and structure is not None and structure.ties_last:
        return LayerSummary(
            node.name, node.y.shape, 0, 0, sum(leaf.size for leaf in jax.tree.leaves(node.params[0])), 0
        )
    if node.parts:
        additions = len(node.parts) - 1
        backward_flops = additions * node.x.size if jnp.issubdtype(node.x.dtype, jnp.floating) else 0
        return LayerSummary(node.name, node.y.shape, 0, additions * node.y.size, backward_flops, 0)
    cost: _Cost = node.result
    kept = [Abstract(array.shape, array.dtype) if node.is_repetition else array for array in cost.kept]
    new = {id(array): array for array in kept if id(array) not in known}
    known |= new
    size = sum(array.size * array.dtype.itemsize for array in new.values())
    parameters = 0 if node.shares_parameters else cost.parameters
    return LayerSummary(node.name, node.y.shape, parameters, cost.forward_flops, cost.backward_flops, size)


def _checked_shape(shape: Any, axes: int) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence) or len(shape) < axes:
        given = f"an array, {describe(shape)}" if hasattr(shape, "dtype") else repr(shape)
        raise ValueError(
            f"summarize(input_shape): expected the shape of x with its batch axis, (batch, features), got {given}. "
            "For a batch of 64 with 784 features pass (64, 784)."
        )
    return tuple(positive_integer("summarize(input_shape)", size) for size in shape)


def _checked_dtype(dtype: Any) -> Any:
    try:
        checked = jnp.dtype(dtype)
    except TypeError:
        checked = None
    is_numeric = checked is not None and any(jnp.issubdtype(checked, kind) for kind in (jnp.floating, jnp.integer))
    if not is_numeric:
        raise TypeError(
            f"summarize(dtype): expected a floating dtype, or an integer one for tokens, got {dtype!r}. "
            "Pass jnp.float32, jnp.bfloat16 or jnp.int32."
        )
    if jax.dtypes.canonicalize_dtype(checked) != checked:
        raise ValueError(
            f"summarize(dtype): expected a dtype of at most 32 bits, got {checked}. "
            "Enable 64-bit types: jax.config.update('jax_enable_x64', True)."
        )
    return checked


def _leaf_cost(dtypes, layer, params, state, x, key) -> tuple[Abstract, _Cost]:
    """Return the output of a leaf layer and its costs, from the traces of forward, and of forward with backward.

    Parameters of another dtype than ``dtypes``, those of the model, are copies that a ``mixed_precision`` makes.
    """
    arguments = params, state, x, key
    traced, (y, _, residuals) = jax.make_jaxpr(partial(_forward, layer), return_shape=True)(*arguments)
    inputs, outputs = traced.jaxpr.invars, traced.jaxpr.outvars
    leaves = [len(jax.tree.leaves(tree)) for tree in (params, (params, state), residuals)]
    owned = {*traced.jaxpr.constvars, *(leaf for leaf in inputs[: leaves[1]] if leaf.aval.dtype in dtypes)}
    arrays = {inputs[leaves[1]]: x}

    def array_of(variable):
        """Return ``None`` where the memory is there anyway: a parameter, a running statistic, a constant."""
        if hasattr(variable, "val") or variable in owned:
            return None
        return arrays.setdefault(variable, Abstract(variable.aval.shape, variable.aval.dtype))

    kept = [array_of(variable) for variable in outputs[len(outputs) - leaves[2] :]]
    both = jax.make_jaxpr(partial(_forward_backward, layer))(*arguments, y)
    cost = _Cost(
        parameters=sum(variable.aval.size for variable in inputs[: leaves[0]]),
        forward_flops=_flops(traced.jaxpr),
        backward_flops=_flops(both.jaxpr) - _flops(traced.jaxpr),
        kept=tuple(array for array in kept if array is not None),
    )
    return array_of(outputs[0]) or y, cost


def _forward(layer, params, state, x, key):
    return layer.forward(params, state, x, train=True, key=key)


def _forward_backward(layer, params, state, x, key, dy):
    y, new_state, residuals = _forward(layer, params, state, x, key)
    return y, new_state, residuals, layer.backward(residuals, dy)


def _key() -> Abstract:
    return jax.eval_shape(lambda: jax.random.key(0))


def _flops(jaxpr: Any) -> int:
    """Return the floating-point operations of a traced function."""
    return sum(map(_flops_of, jaxpr.eqns))


def _flops_of(equation: Any) -> int:
    name, sizes = equation.primitive.name, equation.params
    inside = [_flops(jaxpr) for jaxpr in _inner_jaxprs(sizes.values())]
    shapes = [variable.aval for variable in equation.invars if hasattr(variable.aval, "dtype")]
    if inside and name == "scan":
        return sizes["length"] * sum(inside)
    if inside and name == "cond":
        return max(inside)
    if inside and not name.startswith(("reduce", "scatter")):
        return sum(inside)
    if name in _MOVES or not any(jnp.issubdtype(shape.dtype, jnp.floating) for shape in shapes):
        return 0
    gives = sum(variable.aval.size for variable in equation.outvars)
    if name.startswith("reduce_window"):
        return gives * math.prod(sizes["window_dimensions"])
    if name.startswith(("reduce", "argm")):
        return shapes[0].size
    if name.startswith("scatter"):
        return shapes[2].size
    if name == "dot_general":
        (contracted, _), _ = sizes["dimension_numbers"]
        return 2 * gives * math.prod(shapes[0].shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        out_axis, in_axis, *_ = sizes["dimension_numbers"].rhs_spec
        if max(sizes["lhs_dilation"]) > 1:  # Products with the zeros between the image's entries don't count.
            return 2 * shapes[0].size * shapes[1].size // shapes[1].shape[in_axis] // sizes["feature_group_count"]
        return 2 * gives * shapes[1].size // shapes[1].shape[out_axis]
    return gives


def _inner_jaxprs(values: Any) -> list[Any]:
    """Return the traced functions among an operation's settings, also those in tuples."""
    found = []
    for value in values:
        if isinstance(value, tuple | list):
            found += _inner_jaxprs(value)
        elif hasattr(value, "jaxpr"):
            found.append(value.jaxpr)
        elif hasattr(value, "eqns"):
            found.append(value)
    return found
