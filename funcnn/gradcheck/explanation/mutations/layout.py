"""Causes ``transposed``, ``swapped`` and ``lost_use`` of heads and parts that are split or joined wrongly."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from funcnn.gradcheck.explanation.derivatives import contraction
from funcnn.gradcheck.explanation.iterations import change_parts
from funcnn.gradcheck.explanation.location import describe_operation, location
from funcnn.gradcheck.explanation.search import Change, Misreading, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge
from funcnn.gradcheck.report import Cause

_MOST_PARTS = 4


def generate_layouts(situation: Situation) -> Iterator[Mutation]:
    """Yield the reshapes and transposes of the loss with the axes of the gradient in another order."""
    for group in _groups(situation):
        first = group[0]
        source = first.part.shape
        result = np.shape(situation.tape.values[first.step.outputs[0]])
        words = f"the gradient of {situation.name_of(first.source)} in {describe_operation(first.step)}"
        if len(group) > 1:
            words += f", and in {len(group) - 1} more like it"
        for cause, text, change in _layouts(first, source, result):
            yield Replacement(cause, f"{words} is by hand {text}", _changed(situation.tape, group, change))


def _changed(tape, group, change):
    return change_parts(tape, group, lambda number, d: change(d))


def _groups(situation) -> list[list[Edge]]:
    """Return the reshapes and transposes that may share a mistake: all of a shape, of a line, some, and each."""
    found: dict[tuple, list[Edge]] = {}
    for edge in situation.edges:
        if edge.step.name in ("reshape", "transpose") and edge.part.ndim + edge.place:
            shapes = edge.step.name, edge.part.shape, np.shape(situation.tape.values[edge.step.outputs[0]])
            for key in ((), (location(edge.step.origin),)):
                found.setdefault((shapes, key), []).append(edge)
    groups = {tuple(id(edge) for edge in group): group for group in found.values()}
    for group in [*groups.values()]:
        smaller = range(1, len(group)) if len(group) <= _MOST_PARTS else (1,)
        for some in (some for count in smaller for some in itertools.combinations(group, count)):
            groups.setdefault(tuple(id(edge) for edge in some), list(some))
    return sorted(groups.values(), key=lambda group: group[0].step.name != "transpose")


def _layouts(edge, source, result) -> Iterator[tuple[Cause, str, Callable[[np.ndarray], np.ndarray]]]:
    wide = [axis for axis in range(len(result)) if result[axis] > 1]
    orders = _orders(edge, len(result)) if len(wide) > 1 else ()
    kept = [order for order in orders if [axis for axis in order if axis in wide] != wide]
    if edge.step.name == "transpose":
        right = tuple(int(axis) for axis in np.argsort(edge.step.parameters["permutation"]))
        yield "transposed", "reshaped where it must be transposed", lambda d: np.reshape(d, source)
        for order in kept:
            if order != right and tuple(result[axis] for axis in order) == source:
                yield "transposed", f"transposed with the axes {order}", functools.partial(np.transpose, axes=order)
        return
    for axis in range(len(source) - 1):
        first, second = source[axis : axis + 2]
        if min(first, second) > 1 and source == (*result[:axis], first, second, *result[axis + 1 :]):
            yield (
                "wrong_axis",
                f"cut into {second} parts of {first} along axis {axis}, and not into {first} of {second}",
                functools.partial(_cut_otherwise, axis, first, second),
            )
    for order in kept:
        yield (
            "transposed",
            f"reshaped with its axes in the order {order}",
            functools.partial(_reordered, order, source),
        )
    for axis in wide:
        if result[axis] <= _MOST_PARTS:
            yield (
                "swapped",
                f"reshaped with the parts along axis {axis} in reversed order",
                functools.partial(_reversed, axis, source),
            )
            for entry in {0, result[axis] - 1}:
                yield (
                    "lost_use",
                    f"that of part {entry} of axis {axis} alone",
                    functools.partial(_part_alone, axis, entry, source),
                )


def _cut_otherwise(axis, first, second, d) -> np.ndarray:
    return np.swapaxes(np.reshape(d, (*d.shape[:axis], second, first, *d.shape[axis + 1 :])), axis, axis + 1)


def _reordered(order, shape, d) -> np.ndarray:
    return np.reshape(np.transpose(d, order), shape)


def _reversed(axis, shape, d) -> np.ndarray:
    return np.reshape(np.flip(d, axis), shape)


def _part_alone(axis, entry, shape, d) -> np.ndarray:
    return np.reshape(d * _entry(d.ndim, axis, d.shape[axis], entry), shape)


def _orders(edge, count) -> Iterator[tuple[int, ...]]:
    """Yield orders of the axes of the result: all of a few, and two exchanged in the right order of many."""
    if count <= 4:
        yield from itertools.permutations(range(count))
    elif edge.step.name == "transpose":
        right = [int(axis) for axis in np.argsort(edge.step.parameters["permutation"])]
        for first, second in itertools.combinations(range(count), 2):
            order = list(right)
            order[first], order[second] = order[second], order[first]
            yield tuple(order)


def _entry(ndim, axis, size, entry) -> np.ndarray:
    """Return 1 at one entry of an axis, and 0 elsewhere, to be broadcast."""
    return 1.0 * (np.arange(size) == entry).reshape([-1 if other == axis else 1 for other in range(ndim)])


def generate_orders_of_parts(situation: Situation) -> Iterator[Mutation]:
    """Yield each value that is cut into parts, or joined from them, with the parts of its gradient exchanged."""
    tape = situation.tape
    single = [(number,) for number in range(len(tape.values)) if tape.cotangents[number] is not None]
    seen = set[tuple[int, ...]]()
    for group in (*situation.iterations.values, *single):
        numbers = tuple(number for number in group if tape.cotangents[number] is not None)
        cut = parts_of(situation, numbers[0]) if numbers and numbers not in seen else None
        seen.add(numbers)
        if cut is None:
            continue
        axis, sizes = cut
        where = "" if len(numbers) == 1 else ", in every iteration"
        words = f"{situation.name_of(numbers[-1])} has {len(sizes)} parts along axis {axis}"
        for order in itertools.permutations(range(len(sizes))):
            if order == tuple(range(len(sizes))):
                continue
            text = f"{words}; by hand they stand in the order {', '.join(str(part + 1) for part in order)}{where}"
            yield from _in_order(situation, numbers, axis, sizes, order, text)


def parts_of(situation, number) -> tuple[int, list[int]] | None:
    """Return the axis along which a value is cut or joined, and the sizes of the parts; ``None`` if it is neither."""
    tape = situation.tape
    producer = tape.producer.get(number)
    step = tape.steps[producer] if producer is not None else None
    if step is not None and step.name == "concatenate":
        axis = step.parameters["dimension"]
        sizes = [np.shape(tape.values[part])[axis] for part in step.inputs]
        return (axis, sizes) if 1 < len(sizes) <= _MOST_PARTS else None
    steps = [tape.steps[position] for position in tape.consumers.get(number, ())]
    for step in steps:
        if step.name == "split" and 1 < len(step.parameters["sizes"]) <= _MOST_PARTS:
            return step.parameters["axis"], [int(size) for size in step.parameters["sizes"]]
    slices = [step for step in steps if step.name == "slice" and step.parameters["strides"] is None]
    shape = np.shape(tape.values[number])
    for axis in range(len(shape)):
        bounds = sorted(
            {(step.parameters["start_indices"][axis], step.parameters["limit_indices"][axis]) for step in slices}
        )
        is_whole = bounds and bounds[0][0] == 0 and bounds[-1][1] == shape[axis]
        if is_whole and 1 < len(bounds) <= _MOST_PARTS and all(a[1] == b[0] for a, b in itertools.pairwise(bounds)):
            return axis, [end - start for start, end in bounds]
    return None


def _in_order(situation, numbers: Sequence[int], axis, sizes, order, text) -> Iterator[Mutation]:
    tape = situation.tape
    ends = np.cumsum(sizes)
    places = np.concatenate([np.arange(ends[part] - sizes[part], ends[part]) for part in order])
    others = {number: np.take(tape.values[number], places, axis) for number in numbers}
    if numbers[0] in tape.params:
        cotangent = tape.cotangents[numbers[0]]
        yield Change("swapped", text, {numbers[0]: np.take(cotangent, places, axis) - cotangent})
        return
    yield Misreading("swapped", f"{text}, where it is read", others)
    step = tape.steps[tape.producer[numbers[0]]]
    if step.name == "concatenate" and sum(tape.is_active[part] for part in step.inputs) == 1:
        return  # the one part that has a gradient is read from another entry on, which is a shift
    rules = {}
    for number in numbers:
        if len(tape.steps[tape.producer[number]].outputs) == 1:
            right = tape.rule(number)
            rules[number] = lambda cotangent, right=right: right(np.take(cotangent, places, axis))
    yield Replacement("swapped", f"{text}, in the gradient", rules)


def generate_rearranged_gradients(situation: Situation) -> Iterator[Mutation]:
    """Yield each value with its gradient reversed, moved, or with two axes exchanged."""
    for number, d in enumerate(situation.tape.cotangents):
        if d is None or not d.ndim:
            continue
        words = f"the gradient of {situation.name_of(number)} is by hand"
        for axis in range(d.ndim):
            if d.shape[axis] > 1:
                change = np.flip(d, axis) - d
                yield Change("kernel_flipped", f"{words} reversed along axis {axis}", {number: change})
            for move in (1, -1) if d.shape[axis] > 2 else ():
                moved = np.roll(d, move, axis)
                text = f"{words} moved by {move} along axis {axis}"
                yield Change("shifted", f"{text}, around the end", {number: moved - d})
                end = _entry(d.ndim, axis, d.shape[axis], 0 if move > 0 else d.shape[axis] - 1)
                yield Change("shifted", f"{text}, with 0 at the end", {number: moved * (1 - end) - d})
        for first, second in itertools.combinations(range(d.ndim), 2):
            if d.shape[first] == d.shape[second] > 1:
                change = np.swapaxes(d, first, second) - d
                detail = f"{words} taken with the axes {first} and {second} exchanged"
                yield Change("transposed", detail, {number: change})


def generate_rolls(situation: Situation) -> Iterator[Mutation]:
    """Yield each value that is rolled around, alone and in every iteration, rolled likewise on the way back, or not."""
    tape = situation.tape
    found = {number: roll for number in range(len(tape.values)) if (roll := _roll(tape, number)) is not None}
    groups = [[number for number in group if number in found] for group in situation.iterations.values]
    for group in [*(group for group in groups if len(group) > 1), *([number] for number in found)]:
        source, move, _ = found[group[0]]
        words = f"{situation.name_of(source)} is rolled by {move} in {situation.where(group[0])}"
        words += ", in every iteration" if len(group) > 1 else ""
        for cause, text, times in _WRONG_ROLLS:
            rules = {number: _rolled(*found[number], times) for number in group}
            yield Replacement(cause, f"{words}; by hand its gradient is {text}", rules)


_WRONG_ROLLS: tuple[tuple[Cause, str, int], ...] = (
    ("transposed", "rolled in the same direction", 1),
    ("shifted", "not rolled back", 0),
)


def _rolled(source, move, axis, times):
    return lambda cotangent: [(source, np.roll(cotangent, times * move, axis))]


def _roll(tape, number) -> tuple[int, int, int] | None:
    """Return the value of which a concatenation of two parts is a roll, by how much and along which axis."""
    position = tape.producer.get(number)
    step = tape.steps[position] if position is not None else None
    if step is None or step.name != "concatenate" or len(step.inputs) != 2 or not tape.is_active[number]:
        return None
    axis, parts = int(step.parameters["dimension"]), [tape.producer.get(part) for part in step.inputs]
    slices = [tape.steps[part] for part in parts if part is not None and tape.steps[part].name == "slice"]
    if len(slices) < 2 or slices[0].inputs != slices[1].inputs:
        return None
    source = slices[0].inputs[0]
    move = int(np.shape(tape.values[step.inputs[0]])[axis])
    is_rolled = np.shape(tape.values[source]) == np.shape(tape.values[number]) and np.array_equal(
        np.roll(tape.values[source], move, axis), tape.values[number]
    )
    return (source, move, axis) if is_rolled else None


def generate_parts_of_sums(situation: Situation) -> Iterator[Mutation]:
    """Yield each product whose gradient sums over an axis, as over heads, with one entry of it alone, or without it."""
    tape = situation.tape
    for edge in situation.edges:
        step, cotangent = edge.step, tape.cotangents[edge.step.outputs[0]]
        if step.name != "dot_general" or cotangent is None or np.ndim(cotangent) < 2:
            continue
        left, right, result = contraction(step.parameters, *(tape.values[number] for number in step.inputs))
        own = left if edge.place == 0 else right
        for axis, letter in enumerate(result):
            size = cotangent.shape[axis]
            if letter in own or size < 2:
                continue
            words = f"the gradient of {situation.name_of(edge.source)} in {describe_operation(step)}"
            for entry in range(size) if size <= _MOST_PARTS else (0, size - 1):
                only = cotangent * _entry(cotangent.ndim, axis, size, entry)
                part = np.asarray(tape.local_cotangents(step, [only])[edge.place])
                yield Change(
                    _lost(situation, axis, size),
                    f"{words} sums over {size} entries of axis {axis}; by hand entry {entry} alone counts",
                    {edge.source: part - edge.part},
                )
                yield Change(
                    _lost(situation, axis, size),
                    f"{words} sums over {size} entries of axis {axis}; by hand entry {entry} is left out",
                    {edge.source: -part},
                )


def _lost(situation, axis, size) -> Cause:
    batch = next((number for number, name in situation.problem.sizes() if name == "the batch size"), None)
    return "subset_of_batch" if axis == 0 and size == batch else "lost_use"
