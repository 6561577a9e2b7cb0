"""Causes ``mask``, ``lost_path``, ``scaled_path`` and ``transposed`` of maxima, means and reshapes of images."""

import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.leaf import Diagnosis
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.numbers import format_factor
from funcnn.gradcheck.explanation.search import Change, Multiple, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import run_step

_MOST_ENTRIES = 64
_MOST_MERGED = 5
_WINDOWS = {
    *("pad", "slice", "gather", "dynamic_slice", "concatenate", "stack", "reshape", "broadcast_in_dim", "transpose"),
    *("squeeze", "expand_dims", "copy", "convert_element_type"),
}


def generate_pooling(situation: Situation) -> Iterator[Mutation]:
    """Yield each maximum, and each sum, over windows with its gradient given to other entries of the windows."""
    tape = situation.tape
    for edge in situation.edges:
        name, d = edge.step.name, tape.cotangents[edge.step.outputs[0]]
        if d is None or name not in ("reduce_max", "reduce_min", "reduce_sum"):
            continue
        axes = tuple(edge.step.parameters["axes"])
        words = f"the gradient of {describe_operation(edge.step)}"
        windows = _as_rows(tape.values[edge.source], axes)
        given = np.broadcast_to(_as_rows(np.expand_dims(d, axes), axes), windows.shape)

        def back(rows, axes=axes, edge=edge):
            return _from_rows(rows, axes, edge.part.shape)

        if name != "reduce_sum":
            for text, winner in _winners(windows, name == "reduce_max"):
                rows = given * (np.arange(windows.shape[-1]) == winner[..., None])
                yield Change("mask", f"{words} is given by hand to {text}", {edge.source: back(rows) - edge.part})
        elif 1 < windows.shape[-1] <= _MOST_ENTRIES:
            for entry in range(windows.shape[-1]):
                rows = given * (np.arange(windows.shape[-1]) == entry)
                detail = f"{words} is given by hand to entry {entry} of each {windows.shape[-1]} alone"
                describe = functools.partial(_describe, detail)
                yield Multiple(describe, [{edge.source: back(rows)}], {edge.source: -edge.part})
    yield from _counts_inside(situation)


def _describe(detail, factors) -> Diagnosis:
    factor = "" if abs(factors[0] - 1) < 1e-7 else f", times {format_factor(factors[0], 1e-7)}"
    return "lost_path", detail + factor


def _as_rows(values, axes) -> np.ndarray:
    """Return an array with the axes of its windows as the last one."""
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[: moved.ndim - len(axes)], -1)


def _from_rows(rows, axes, shape) -> np.ndarray:
    """Return an array of a shape from one with the axes of its windows as the last one."""
    moved = rows.reshape(*rows.shape[:-1], *(shape[axis] for axis in axes))
    return np.moveaxis(moved, range(-len(axes), 0), axes)


def _winners(windows, is_max) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the number of the entry of each window that by hand is taken for the largest, or for the smallest."""
    nothing = -np.inf if is_max else np.inf
    find, find_other = (np.argmax, np.argmin) if is_max else (np.argmin, np.argmax)
    seen = np.where(windows == nothing, -nothing, windows)
    winner = find(windows, axis=-1)
    yield f"the {'smallest' if is_max else 'largest'} entry", find_other(seen, axis=-1)
    yield "the entry in the middle", np.full_like(winner, windows.shape[-1] // 2)
    for axis in range(windows.ndim - 1):
        together = find(windows.sum(axis=axis, keepdims=True), axis=-1)
        yield f"one entry for all of axis {axis}, that of their sum", np.broadcast_to(together, winner.shape)
    side = math.isqrt(windows.shape[-1])
    if side > 1 and side**2 == windows.shape[-1]:
        yield "the entry with its row and its column exchanged", winner % side * side + winner // side


def _counts_inside(situation) -> Iterator[Mutation]:
    """Yield each mean over padded windows with the padding left out of the count."""
    tape = situation.tape
    for edge in situation.edges:
        if edge.step.name != "pad" or edge.place != 0 or np.any(tape.values[edge.step.inputs[1]]):
            continue
        inside = {edge.step.outputs[0]: _run(edge.step, [np.ones_like(edge.part), tape.values[edge.step.inputs[1]]])}
        for step in tape.steps[tape.producer[edge.step.outputs[0]] + 1 :]:
            if not any(number in inside for number in step.inputs) or len(step.outputs) > 1:
                continue
            operands = [inside.get(number, np.ones_like(tape.values[number])) for number in step.inputs]
            if step.name in _WINDOWS:
                kept = [
                    operand if number in inside else tape.values[number]
                    for number, operand in zip(step.inputs, operands, strict=True)
                ]
                inside[step.outputs[0]] = _run(step, kept)
            elif step.name == "reduce_sum":
                count = _run(step, operands)
                total = np.size(operands[0]) / np.size(count)
                d = tape.cotangents[step.outputs[0]]
                if d is not None and np.all(count > 0) and np.ptp(count):
                    words = f"the gradient of {describe_operation(step)} is divided by hand by the count of entries"
                    change = d * (total / count - 1)
                    yield Change("scaled_path", f"{words} outside of the padding", {step.outputs[0]: change})


def _run(step, operands) -> np.ndarray:
    return np.asarray(run_step(step, operands)[0])


def generate_merged_axes(situation: Situation) -> Iterator[Mutation]:
    """Yield each reshape that merges axes, as before a dense layer, with the axes split again in another order."""
    tape = situation.tape
    for edge in situation.edges:
        d, source = tape.cotangents[edge.step.outputs[0]], edge.part.shape
        if edge.step.name != "reshape" or d is None or not d.ndim + 1 < len(source) <= _MOST_MERGED:
            continue
        wide = [axis for axis in range(len(source)) if source[axis] > 1]
        words = f"the gradient of {situation.name_of(edge.source)} in {describe_operation(edge.step)}"
        for order in itertools.permutations(range(len(source))):
            if [axis for axis in order if axis in wide] != wide:
                part = np.transpose(d.reshape([source[axis] for axis in order]), np.argsort(order))
                detail = f"{words} is by hand split as if its axes had been merged in the order {order}"
                yield Change("transposed", detail, {edge.source: part - edge.part})
