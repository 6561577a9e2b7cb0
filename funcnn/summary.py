"""What a model costs, layer by layer: parameters, floating-point operations, and what forward keeps for backward.

All of it is read off the abstract trace of the very functions that train: nothing is allocated, compiled or run.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from funcnn._checks import check_is_layer, positive_integer
from funcnn._draw import shapes_of
from funcnn._tables import MOST_ROWS, Table, aligned
from funcnn.layers.combinators import SkipParts, composition
from funcnn.layers.walk import layer_name
from funcnn.types import Layer, Params, State

Abstract = jax.ShapeDtypeStruct

_MOVES = frozenset((
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "copy_p", "device_put",
    "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather", "optimization_barrier", "pad", "reshape", "rev",
    "scatter", "sharding_constraint", "slice", "split", "squeeze", "transpose",
))  # fmt: skip
"""What moves or converts numbers and computes none."""


class LayerSummary(NamedTuple):
    """What one layer costs at one input.

    Fields:
        name: its place and name as ``check_model`` writes them, ``layers[2].inner.layers[0] linear``.
        output_shape: with the batch axis.
        parameters: numbers in its parameters.
        forward_flops, backward_flops: floating-point operations in training.
        residual_bytes: what it keeps for backward that nothing else keeps already.
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
        shown = [*self.rows[:MOST_ROWS], self.total]
        names = ("parameters", "forward FLOPs", "backward FLOPs", "residual bytes")
        columns = {"layer": [row.name for row in shown], "output": [str(row.output_shape) for row in shown]}
        for name, figures in zip(names, zip(*(row[2:] for row in shown), strict=True), strict=True):
            columns[name] = [f"{figure:,}" for figure in figures]
        left_out = len(self.rows) - len(shown) + 1
        note = f"{left_out} more layers, counted in the total, are left out." if left_out else ""
        return aligned(Table("", columns, names, note=note))


class _Cost(NamedTuple):
    """A row whose residuals are still arrays: the same object wherever it is the same array."""

    row: LayerSummary
    kept: tuple[Abstract, ...]


class _Visit(NamedTuple):
    """A layer with what its forward pass gets, all abstract."""

    place: str
    layer: Layer
    params: Params
    state: State
    x: Abstract

    @property
    def name(self) -> str:
        return f"{self.place.rstrip('.')} {layer_name(self.layer)}".strip()


def summarize(model: Layer, input_shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Summary:
    """Count what a model costs in training, layer by layer, without running it.

    Floating-point operations are counted in the traced forward and backward pass, before XLA simplifies them, so the
    figures don't depend on the device: 2 m n k for a matrix product of (m, k) and (k, n), one for each number that
    enters a sum or a maximum, one for each that any other arithmetic, comparison, choice or function (exp and tanh too)
    gives. Moving and converting numbers, integers and random bits cost none. The body of a ``while`` counts once. A
    backward pass includes the gradient by the layer's input, which XLA drops for the first layer.

    Residuals are bytes of memory from forward to backward. Parameters in them cost nothing, for they are there anyway;
    an array that two layers keep, such as a ReLU's output, counts at the first. Inside a ``repeat`` every residual is
    stacked in an array of its own. The addition of a ``skip`` has a row.

    Args:
        model: any layer.
        input_shape: of x, the batch axis first: ``(64, 784)``.
        dtype: a floating dtype for x, the parameters and the state.

    Returns:
        A ``Summary``: ``rows``, ``total``, and a table as its ``str()``.

    Raises:
        ValueError: a shape without a batch axis, or that doesn't fit the model; 64 bits without JAX's 64-bit types.
        TypeError: model isn't a layer, sizes aren't integers, or the dtype isn't floating.

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
    x = Abstract(_checked_shape(input_shape), _checked_dtype(dtype))
    trees = shapes_of(model)
    params, state = jax.tree.map(
        lambda leaf: Abstract(leaf.shape, x.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, trees
    )
    jax.eval_shape(partial(_forward, model), params, state, x, _key())  # Parts that don't fit each other are refused.
    costs, y = _walk(_Visit("", model, params, state, x))
    known: dict[int, Abstract] = {}
    rows = []
    for cost in costs:
        new = {id(array): array for array in cost.kept if id(array) not in known}
        known |= new
        rows.append(cost.row._replace(residual_bytes=sum(array.size * array.dtype.itemsize for array in new.values())))
    sums = [sum(figures) for figures in zip(*(row[2:] for row in rows), strict=True)]
    return Summary(tuple(rows), LayerSummary("total", y.shape, *sums))


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, str) or not isinstance(shape, Sequence) or len(shape) < 2:
        raise ValueError(
            f"summarize(input_shape): expected the shape of x with its batch axis, (batch, features), got {shape!r}. "
            "For a batch of 64 with 784 features pass (64, 784)."
        )
    return tuple(positive_integer("summarize(input_shape)", size) for size in shape)


def _checked_dtype(dtype: Any) -> Any:
    try:
        checked = jnp.dtype(dtype)
    except TypeError:
        checked = None
    if checked is None or not jnp.issubdtype(checked, jnp.floating):
        raise TypeError(
            f"summarize(dtype): expected a floating dtype, got {dtype!r}. Pass jnp.float32 or jnp.bfloat16."
        )
    if jax.dtypes.canonicalize_dtype(checked) != checked:
        raise ValueError(
            f"summarize(dtype): expected a dtype of at most 32 bits, got {checked}. "
            "Enable 64-bit types: jax.config.update('jax_enable_x64', True)."
        )
    return checked


def _walk(visit: _Visit) -> tuple[list[_Cost], Abstract]:
    """The costs of a layer's parts in forward order, and its output."""
    made_of = composition(visit.layer)
    if made_of is None:
        return _walk_leaf(visit)
    walk = {"serial": _walk_serial, "skip": _walk_skip, "repeat": _walk_repeat}[made_of.kind]
    return walk(visit, made_of.layers)


def _walk_serial(visit, layers):
    costs, x = [], visit.x
    for number, (layer, params, state) in enumerate(zip(layers, visit.params, visit.state, strict=True)):
        found, x = _walk(_Visit(f"{visit.place}layers[{number}].", layer, params, state, x))
        costs += found
    return costs, x


def _walk_skip(visit, layers):
    costs: list[_Cost] = []
    for name, layer in zip(SkipParts._fields, layers, strict=True):
        params, state = getattr(visit.params, name), getattr(visit.state, name)
        found, y = _walk(_Visit(f"{visit.place}{name}.", layer, params, state, visit.x))
        costs += found
    y = Abstract(y.shape, y.dtype)
    return [*costs, _Cost(LayerSummary(visit.name, y.shape, 0, y.size, visit.x.size, 0), ())], y


def _walk_repeat(visit, layers):
    params, state = jax.tree.map(lambda leaf: Abstract(leaf.shape[1:], leaf.dtype), (visit.params, visit.state))
    first = f"{visit.place}repeat[0]."
    found, y = _walk(_Visit(first, layers[0], params, state, visit.x))
    costs = [
        _Cost(
            cost.row._replace(name=f"{visit.place}repeat[{number}]{cost.row.name[len(first) - 1 :]}"),
            tuple(Abstract(array.shape, array.dtype) for array in cost.kept),
        )
        for number in range(len(layers))
        for cost in found
    ]
    return costs, Abstract(y.shape, y.dtype)


def _walk_leaf(visit):
    arguments = visit.params, visit.state, visit.x, _key()
    forward = partial(_forward, visit.layer)
    traced, (y, _, residuals) = jax.make_jaxpr(forward, return_shape=True)(*arguments)
    inputs, outputs = traced.jaxpr.invars, traced.jaxpr.outvars
    leaves = [len(jax.tree.leaves(tree)) for tree in (visit.params, (visit.params, visit.state), residuals)]
    owned = {*traced.jaxpr.constvars, *inputs[: leaves[1]]}
    arrays = {inputs[leaves[1]]: visit.x}

    def array_of(variable):
        """``None`` where its memory is there anyway: a parameter, a running statistic, a constant."""
        if hasattr(variable, "val") or variable in owned:
            return None
        return arrays.setdefault(variable, Abstract(variable.aval.shape, variable.aval.dtype))

    kept = [array_of(variable) for variable in outputs[len(outputs) - leaves[2] :]]
    both = jax.make_jaxpr(partial(_forward_backward, visit.layer))(*arguments, y)
    row = LayerSummary(
        name=visit.name,
        output_shape=y.shape,
        parameters=sum(variable.aval.size for variable in inputs[: leaves[0]]),
        forward_flops=_flops(traced.jaxpr),
        backward_flops=_flops(both.jaxpr) - _flops(traced.jaxpr),
        residual_bytes=0,
    )
    return [_Cost(row, tuple(array for array in kept if array is not None))], array_of(outputs[0]) or y


def _forward(layer, params, state, x, key):
    return layer.forward(params, state, x, train=True, key=key)


def _forward_backward(layer, params, state, x, key, dy):
    y, new_state, residuals = _forward(layer, params, state, x, key)
    return y, new_state, residuals, layer.backward(residuals, dy)


def _key() -> Abstract:
    return jax.eval_shape(lambda: jax.random.key(0))


def _flops(jaxpr: Any) -> int:
    """Floating-point operations of a traced function."""
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
    if name.startswith(("reduce", "argm")):
        return shapes[0].size
    if name.startswith("scatter"):
        return shapes[2].size
    gives = sum(variable.aval.size for variable in equation.outvars)
    if name == "dot_general":
        (contracted, _), _ = sizes["dimension_numbers"]
        return 2 * gives * math.prod(shapes[0].shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        return 2 * gives * shapes[1].size // shapes[1].shape[sizes["dimension_numbers"].rhs_spec[0]]
    return gives


def _inner_jaxprs(values: Any) -> list[Any]:
    """The traced functions among an operation's settings, also in tuples of them."""
    found = []
    for value in values:
        if isinstance(value, tuple | list):
            found += _inner_jaxprs(value)
        elif hasattr(value, "jaxpr"):
            found.append(value.jaxpr)
        elif hasattr(value, "eqns"):
            found.append(value)
    return found
