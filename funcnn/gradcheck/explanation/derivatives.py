"""The derivatives of elementary operations in NumPy; JAX's own for those that aren't listed."""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.program import bind

SLOPES: dict[str, Callable] = {
    "neg": lambda x, y: -1.0,
    "exp": lambda x, y: y,
    "log": lambda x, y: 1 / x,
    "log1p": lambda x, y: 1 / (1 + x),
    "expm1": lambda x, y: y + 1,
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "tan": lambda x, y: 1 + y**2,
    "tanh": lambda x, y: 1 - y**2,
    "logistic": lambda x, y: y * (1 - y),
    "sqrt": lambda x, y: 0.5 / y,
    "rsqrt": lambda x, y: -0.5 * y / x,
    "abs": lambda x, y: np.sign(x),
    "square": lambda x, y: 2 * x,
    "erf": lambda x, y: 2 / np.sqrt(np.pi) * np.exp(-(x**2)),
    "copy": lambda x, y: 1.0,
    "copy_p": lambda x, y: 1.0,
    "device_put": lambda x, y: 1.0,
    "name": lambda x, y: 1.0,
    "sign": lambda x, y: 0.0,
    "floor": lambda x, y: 0.0,
    "ceil": lambda x, y: 0.0,
    "round": lambda x, y: 0.0,
}
"""The derivative of each operation of one operand, of the operand and the result."""

_HOLOMORPHIC = {
    *("mul", "add", "sub", "neg", "dot_general", "transpose", "reshape", "reduce_sum", "broadcast_in_dim", "slice"),
    *("scan_slice", "scan_stack", "optimization_barrier"),
}
"""The operations of which the rules hold for complex numbers."""

_BINARY: dict[str, Callable] = {
    "add": lambda a, b, y, c: (c, c),
    "add_any": lambda a, b, y, c: (c, c),
    "sub": lambda a, b, y, c: (c, -c),
    "mul": lambda a, b, y, c: (c * b, c * a),
    "div": lambda a, b, y, c: (c / b, -c * y / b),
    "max": lambda a, b, y, c: (c * _won(a, b), c * _won(b, a)),
    "min": lambda a, b, y, c: (c * _won(b, a), c * _won(a, b)),
}
"""The cotangents of both operands, from the operands, the result and its cotangent."""

LINEAR_SHAPES = ("reshape", "squeeze", "expand_dims", "copy", "device_put", "name", "convert_element_type")
"""Operations that keep every number and its order."""


def _won(a, b):
    return np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))


def cotangents(
    name: str,
    parameters: Mapping[str, Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    given: Sequence[np.ndarray],
    active: Sequence[bool],
) -> list[np.ndarray | None] | None:
    """Return the cotangents of an operation's inputs from those of its outputs, or ``None`` if it isn't listed here."""
    if name not in _HOLOMORPHIC and any(np.iscomplexobj(value) for value in (*inputs, *outputs)):
        return None
    cotangent = given[0]
    with np.errstate(all="ignore"):
        if name in SLOPES:
            return [np.asarray(cotangent * SLOPES[name](inputs[0], outputs[0]))]
        if name in _BINARY:
            parts = _BINARY[name](inputs[0], inputs[1], outputs[0], cotangent)
            return [np.asarray(unbroadcast(part, value.shape)) for part, value in zip(parts, inputs, strict=True)]
        if name == "dot_general":
            return _dot_general(parameters, inputs, cotangent, active)
        if name in _STRUCTURAL:
            parts = _STRUCTURAL[name](parameters, inputs, outputs, given)
            return [None if part is None else np.asarray(part) for part in parts]
    return None


def unbroadcast(part, shape):
    """Return a cotangent summed to the shape of an operand that was broadcast, of size 1 along an axis or a scalar."""
    if np.shape(part) == shape:
        return part
    added = np.ndim(part) - len(shape)
    axes = [axis for axis in range(np.ndim(part)) if axis < added or shape[axis - added] == 1 != np.shape(part)[axis]]
    return np.sum(part, axis=tuple(axes)).reshape(shape)


def contraction(parameters, left, right) -> tuple[str, str, str]:
    """Return the axes of both operands and of the result of a ``dot_general``, a letter each."""
    (left_sum, right_sum), (left_batch, right_batch) = parameters["dimension_numbers"]
    letters = iter(string.ascii_letters)
    of_left, of_right = [""] * np.ndim(left), [""] * np.ndim(right)
    batch = ""
    for i, j in zip(left_batch, right_batch, strict=True):
        of_left[i] = of_right[j] = next(letters)
        batch += of_left[i]
    for i, j in zip(left_sum, right_sum, strict=True):
        of_left[i] = of_right[j] = next(letters)
    free_left = [i for i, letter in enumerate(of_left) if not letter]
    free_right = [i for i, letter in enumerate(of_right) if not letter]
    for i in free_left:
        of_left[i] = next(letters)
    for i in free_right:
        of_right[i] = next(letters)
    result = batch + "".join(of_left[i] for i in free_left) + "".join(of_right[i] for i in free_right)
    return "".join(of_left), "".join(of_right), result


def product(first_axes: str, second_axes: str, result_axes: str, first, second) -> np.ndarray:
    """Return the sum of products that the letters of the axes describe."""
    is_large = first.size * second.size > 20_000
    return np.einsum(f"{first_axes},{second_axes}->{result_axes}", first, second, optimize=is_large)


def _dot_general(parameters, inputs, cotangent, active) -> list[np.ndarray | None]:
    left, right, result = contraction(parameters, *inputs)
    return [
        product(result, right, left, cotangent, inputs[1]) if active[0] else None,
        product(result, left, right, cotangent, inputs[0]) if active[1] else None,
    ]


def _reduce_sum(parameters, inputs, outputs, given):
    return [np.broadcast_to(np.expand_dims(given[0], tuple(parameters["axes"])), inputs[0].shape)]


def _reduce_extreme(parameters, inputs, outputs, given):
    axes = tuple(parameters["axes"])
    won = inputs[0] == np.expand_dims(outputs[0], axes)
    return [won * np.expand_dims(given[0] / won.sum(axis=axes), axes)]


def to_first_winner(parameters, inputs, outputs, given) -> list[np.ndarray]:
    """Return the cotangent of a maximum, or of a minimum, given to the first of the entries that tie."""
    axes = tuple(parameters["axes"])
    won = np.moveaxis(inputs[0] == np.expand_dims(outputs[0], axes), axes, range(-len(axes), 0))
    rows = won.reshape(*won.shape[: won.ndim - len(axes)], -1)
    first = (np.cumsum(rows, axis=-1) == 1) & rows
    first = np.moveaxis(first.reshape(won.shape), range(-len(axes), 0), axes)
    return [first * np.expand_dims(given[0], axes)]


def _broadcast_in_dim(parameters, inputs, outputs, given):
    places = tuple(int(place) for place in parameters["broadcast_dimensions"])
    summed = given[0].sum(axis=tuple(axis for axis in range(given[0].ndim) if axis not in places))
    stretched = tuple(
        axis
        for axis, place in enumerate(places)
        if inputs[0].shape[axis] == 1 and given[0].shape[place] != 1
    )  # fmt: skip
    return [summed.sum(axis=stretched, keepdims=True) if stretched else summed, *[None] * (len(inputs) - 1)]


def _reshaped(parameters, inputs, outputs, given):
    return [np.reshape(given[0], inputs[0].shape), *[None] * (len(inputs) - 1)]


def _transpose(parameters, inputs, outputs, given):
    return [np.transpose(given[0], np.argsort(parameters["permutation"]))]


def _rev(parameters, inputs, outputs, given):
    return [np.flip(given[0], tuple(parameters["dimensions"]))]


def _concatenate(parameters, inputs, outputs, given):
    axis = parameters["dimension"]
    ends = np.cumsum([value.shape[axis] for value in inputs])[:-1]
    return list(np.split(given[0], ends, axis=axis))


def _split(parameters, inputs, outputs, given):
    return [np.concatenate(given, axis=parameters["axis"])]


def _slice(parameters, inputs, outputs, given):
    whole = np.zeros(inputs[0].shape, given[0].dtype)
    strides = parameters["strides"] or [1] * whole.ndim
    bounds = zip(parameters["start_indices"], parameters["limit_indices"], strides, strict=True)
    whole[tuple(slice(*bound) for bound in bounds)] = given[0]
    return [whole]


def _select_n(parameters, inputs, outputs, given):
    which = inputs[0].astype(int)
    sides = enumerate(inputs[1:])
    return [None, *(unbroadcast(np.where(which == case, given[0], 0.0), side.shape) for case, side in sides)]


def _integer_pow(parameters, inputs, outputs, given):
    power = parameters["y"]
    return [given[0] * power * inputs[0] ** float(power - 1)]


def _pow(parameters, inputs, outputs, given):
    base, power = inputs
    on_power = given[0] * outputs[0] * np.log(np.where(base > 0, base, 1.0))
    return [
        unbroadcast(given[0] * power * base ** (power - 1.0), base.shape),
        unbroadcast(on_power, power.shape),
    ]


def _clamp(parameters, inputs, outputs, given):
    low, value, high = inputs
    inside = np.where((value > low) & (value < high), 1.0, 0.0)
    return [None, given[0] * inside, None]


def _scan_slice(parameters, inputs, outputs, given):
    whole = np.zeros(inputs[0].shape, given[0].dtype)
    whole[parameters["index"]] = given[0]
    return [whole]


def _scan_stack(parameters, inputs, outputs, given):
    return list(given[0])


def _identity(parameters, inputs, outputs, given):
    return list(given)


def _cumsum(parameters, inputs, outputs, given):
    axis = parameters["axis"]
    if parameters["reverse"]:
        return [np.cumsum(given[0], axis)]
    return [np.flip(np.cumsum(np.flip(given[0], axis), axis), axis)]


_STRUCTURAL: dict[str, Callable] = {
    "reduce_sum": _reduce_sum,
    "reduce_max": _reduce_extreme,
    "reduce_min": _reduce_extreme,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "convert_element_type": _reshaped,
    "transpose": _transpose,
    "rev": _rev,
    "concatenate": _concatenate,
    "split": _split,
    "slice": _slice,
    "select_n": _select_n,
    "integer_pow": _integer_pow,
    "pow": _pow,
    "clamp": _clamp,
    "cumsum": _cumsum,
    "optimization_barrier": _identity,
    "stop_gradient": _identity,
    "scan_slice": _scan_slice,
    "scan_stack": _scan_stack,
}
"""From the primitive's parameters, its inputs, its outputs and their cotangents to the cotangents of the inputs."""


def fallback_derivative(equation: Any, active: Sequence[bool]) -> Callable[[Sequence, Sequence], list]:
    """Return the derivative of an operation by JAX: from its inputs and cotangents to the inputs' cotangents."""
    places = [place for place, is_active in enumerate(active) if is_active]

    @jax.jit
    def derivative(inputs, given):
        def run(*parts):
            operands = list(inputs)
            for place, part in zip(places, parts, strict=True):
                operands[place] = part
            outputs = bind(equation, operands)
            return [out for out in outputs if jnp.issubdtype(out.dtype, jnp.inexact)]

        outputs, pull = jax.vjp(run, *(inputs[place] for place in places))
        return pull([part.astype(out.dtype) for part, out in zip(given, outputs, strict=True)])

    def of_numbers(inputs, given):
        floating = [part for part in given if jnp.issubdtype(part.dtype, jnp.inexact)]
        found: list[np.ndarray | None] = [None] * len(inputs)
        for place, part in zip(places, derivative(list(inputs), floating), strict=True):
            found[place] = np.asarray(part)
        return found

    return of_numbers
