"""JAX's elementary operations on arrays of NumPy: XLA compiles each of them anew for each shape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

_ELEMENTWISE = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "min": np.minimum,
    "neg": np.negative, "abs": np.abs, "square": np.square, "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1,
    "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "sin": np.sin, "cos": np.cos,
}  # fmt: skip
_REDUCTIONS = {"reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min}
_COMPARISONS = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip


def _slice(parameters, value):
    strides = parameters["strides"] or (1,) * value.ndim
    return value[tuple(map(slice, parameters["start_indices"], parameters["limit_indices"], strides))]


def _broadcast(parameters, value):
    shape = [1] * len(parameters["shape"])
    for size, axis in zip(value.shape, parameters["broadcast_dimensions"], strict=True):
        shape[axis] = size
    return np.broadcast_to(value.reshape(shape), parameters["shape"])


_OF_FLOATS: dict[str, Callable[..., Any]] = {
    "integer_pow": lambda parameters, value: value ** parameters["y"],
    **{name: lambda _, *values, f=function: f(*values) for name, function in _ELEMENTWISE.items()},
    **{
        name: lambda parameters, value, f=function: f(value, axis=tuple(parameters["axes"]))
        for name, function in _REDUCTIONS.items()
    },
}
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "slice": _slice,
    "broadcast_in_dim": _broadcast,
    "squeeze": lambda parameters, value: np.squeeze(value, tuple(parameters["dimensions"])),
    "reshape": lambda parameters, value: value.reshape(parameters["new_sizes"]),
    "transpose": lambda parameters, value: value.transpose(parameters["permutation"]),
    "stop_gradient": lambda _, value: value,
    **{name: lambda _, *values, f=function: f(*values) for name, function in _COMPARISONS.items()},
}


def run_in_numpy(name: str, parameters: Mapping[str, Any], operands: Sequence[Any]) -> np.ndarray | None:
    """Return an operation's only output, ``None`` where NumPy isn't used, as for a product of matrices.

    Args:
        name: of the primitive.
        parameters: of the primitive.
        operands: its inputs.
    """
    if not all(isinstance(value, np.ndarray) for value in operands):
        return None
    kinds = "".join(value.dtype.char for value in operands)
    if name in _OF_FLOATS and set(kinds) <= set("fd"):
        return _OF_FLOATS[name](parameters, *operands)
    if name in _OF_NUMBERS and set(kinds) <= set("fd?il"):
        return _OF_NUMBERS[name](parameters, *operands)
    if name == "select_n" and len(operands) == 3 and kinds[0] == "?":
        return np.where(operands[0], operands[2], operands[1])
    if name == "convert_element_type" and kinds in tuple("fd?il") and np.dtype(parameters["new_dtype"]).char in "fd":
        return operands[0].astype(parameters["new_dtype"])
    return None
