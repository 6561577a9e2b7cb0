"""The values' tangents along random directions of a parameter, by which most wrong backward passes are ruled out.

What a change of the cotangents of some values adds to a parameter's gradient is, along a direction of the parameter,
the sum of their products with the tangents of these values. It takes no backward pass.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.derivatives import SLOPES, contraction, product
from funcnn.gradcheck.explanation.tape import Step, Tape, run_step

_COUNT, _SEED = 2, 5
_STEP = 1e-5  # of a central difference
_ROUNDING = 1e-6


class Along(NamedTuple):
    """Numbers along each direction of a parameter, and their slack."""

    numbers: np.ndarray
    slack: np.ndarray


class Directions:
    """Random directions of each parameter, with the tangents of all values."""

    def __init__(self, tape: Tape):
        self._tape = tape
        self._directions: dict[int, np.ndarray] = {}
        self._tangents: dict[int, list[dict[int, np.ndarray]] | None] = {}

    def can_tell(self, number: int) -> bool:
        """Whether the tangents by the parameter at a place are those of the tape's backward pass."""
        return self._of(number) is not None

    def of_change(self, number: int, seeds: Mapping[int, Any]) -> Along:
        """Return what cotangents of some values add to the gradient of the parameter at a place."""
        total, size = np.zeros(_COUNT), np.zeros(_COUNT)
        for direction, tangents in enumerate(self._of(number) or ()):
            for value, seed in seeds.items():
                tangent = tangents.get(value)
                if tangent is not None:
                    total[direction] += np.vdot(tangent, seed)
                    size[direction] += np.linalg.norm(tangent) * np.linalg.norm(seed)
        return Along(total, _ROUNDING * size)

    def of_difference(self, number: int, difference: Any, tolerance: float) -> Along:
        """Return the difference of the gradient of the parameter at a place, with what its tolerance makes of it."""
        directions = self._directions[number]
        flat = np.ravel(difference)
        slack = tolerance * np.abs(directions).sum(axis=1) + _ROUNDING * np.abs(directions) @ np.abs(flat)
        return Along(directions @ flat, slack)

    def _of(self, number) -> list[dict[int, np.ndarray]] | None:
        if number not in self._tangents:
            self._tangents[number] = self._compute(number)
        return self._tangents[number]

    def _compute(self, number):
        tape, param = self._tape, self._tape.params[number]
        value, gradient = tape.values[param], tape.right_gradient[number]
        is_usual = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size
        if not is_usual or any(np.iscomplexobj(tape.values[other]) for other in tape.producer):
            return None
        self._directions[number] = np.random.default_rng(_SEED).normal(size=(_COUNT, value.size))
        found = []
        for direction in self._directions[number]:
            tangents = _tangents(tape, {param: direction.reshape(value.shape)})
            right, there = float(np.ravel(gradient) @ direction), float(tangents.get(tape.result, 0.0))
            if not abs(right - there) <= _ROUNDING * float(np.abs(np.ravel(gradient)) @ np.abs(direction)):
                return None  # a kink, or a rule that isn't the derivative
            found.append(tangents)
        return found


def is_explained(change: Along, difference: Along) -> bool:
    """Whether a change may be a difference."""
    return bool(np.all(np.abs(change.numbers - difference.numbers) <= change.slack + difference.slack))


def is_multiple(change: Along, difference: Along, rest: Along) -> bool:
    """Whether a difference may be a multiple of a change, and a rest."""
    wanted, slack = difference.numbers - rest.numbers, difference.slack + rest.slack
    factor = np.max(np.abs(wanted)) / max(np.max(np.abs(change.numbers)), 1e-300)
    gap = abs(wanted[0] * change.numbers[1] - wanted[1] * change.numbers[0])
    most = (slack + factor * change.slack) @ np.abs(change.numbers[::-1]) + change.slack @ np.abs(wanted[::-1])
    return bool(gap <= most)


def _tangents(tape: Tape, seeds: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the tangents of the values, from those of some."""
    found = dict(seeds)
    with np.errstate(all="ignore"):
        for step in tape.steps:
            given = [found.get(number) for number in step.inputs]
            if any(part is not None for part in given) and any(tape.is_active[number] for number in step.outputs):
                outputs = zip(step.outputs, _push(tape, step, given), strict=True)
                found.update((number, tangent) for number, tangent in outputs if tape.is_active[number])
    return found


def _push(tape, step: Step, given: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Return the tangents of a step's outputs from those of its inputs, ``None`` for one that is 0."""
    values, result = [tape.values[number] for number in step.inputs], tape.values[step.outputs[0]]
    if step.name in SLOPES:
        return [np.asarray(given[0] * SLOPES[step.name](values[0], result))]
    if step.name in _BILINEAR or step.name in _LINEAR:
        full = [np.zeros_like(value) if part is None else part for part, value in zip(given, values, strict=True)]
        if step.name in _LINEAR:
            return [np.asarray(_LINEAR[step.name](step, full, values, result))]
        apply = _BILINEAR[step.name]
        return [np.asarray(sum(
            apply(step, [part if place == other else value for other, value in enumerate(values)])
            for place, part in enumerate(given) if part is not None
        ))]  # fmt: skip
    scale = max(max_abs(part) / max(max_abs(value), 1.0) for part, value in zip(given, values, strict=True)
                if part is not None) or 1.0  # fmt: skip
    ends = [
        run_step(step, [
            value if part is None else value + sign * _STEP / scale * part
            for part, value in zip(given, values, strict=True)
        ])
        for sign in (1, -1)
    ]  # fmt: skip
    return [
        np.nan_to_num(np.asarray(high) - np.asarray(low)) * (scale / (2 * _STEP))
        for high, low in zip(*ends, strict=True)
    ]  # fmt: skip


def _broadcast(step, given, values, result):
    places = step.parameters["broadcast_dimensions"]
    shape = [given[0].shape[places.index(axis)] if axis in places else 1 for axis in range(result.ndim)]
    return np.broadcast_to(given[0].reshape(shape), result.shape)


def _cut(step, given, values, result):
    strides = step.parameters["strides"] or [1] * given[0].ndim
    bounds = zip(step.parameters["start_indices"], step.parameters["limit_indices"], strides, strict=True)
    return given[0][tuple(slice(*bound) for bound in bounds)]


def _quotient(step, given, values, result):
    return given[0] / values[1] - given[1] * result / values[1]


def _chosen(step, given, values, result):
    which = np.broadcast_to(values[0].astype(int), result.shape)
    return np.choose(which, given[1:]) if len(given) == 3 else np.asarray(run_step(step, [values[0], *given[1:]])[0])


_LINEAR: dict[str, Callable[..., Any]] = {
    "add": lambda step, given, values, result: given[0] + given[1],
    "add_any": lambda step, given, values, result: given[0] + given[1],
    "sub": lambda step, given, values, result: given[0] - given[1],
    "div": _quotient,
    "reshape": lambda step, given, values, result: given[0].reshape(result.shape),
    "squeeze": lambda step, given, values, result: given[0].reshape(result.shape),
    "expand_dims": lambda step, given, values, result: given[0].reshape(result.shape),
    "convert_element_type": lambda step, given, values, result: given[0],
    "broadcast_in_dim": _broadcast,
    "transpose": lambda step, given, values, result: np.transpose(given[0], step.parameters["permutation"]),
    "reduce_sum": lambda step, given, values, result: given[0].sum(axis=tuple(step.parameters["axes"])),
    "concatenate": lambda step, given, values, result: np.concatenate(given, step.parameters["dimension"]),
    "slice": _cut,
    "select_n": _chosen,
    "scan_slice": lambda step, given, values, result: given[0][step.parameters["index"]],
    "scan_stack": lambda step, given, values, result: np.stack(given),
}
"""The tangent of the result of each operation, from those of its inputs and the values."""

_BILINEAR: dict[str, Callable[..., Any]] = {
    "mul": lambda step, values: values[0] * values[1],
    "dot_general": lambda step, values: product(*contraction(step.parameters, *values), *values),
    "conv_general_dilated": lambda step, values: run_step(step, values)[0],
}
"""The result of each operation that is linear in either operand, from the values."""
