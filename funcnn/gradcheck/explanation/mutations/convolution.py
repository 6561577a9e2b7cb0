"""Causes ``shifted`` and ``wrong_operand`` of windows, slices and paddings, as of convolutions."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.iterations import change_parts
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.mutations.readings import move_values
from funcnn.gradcheck.explanation.search import Misreading, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Rule


def generate_slices(situation: Situation) -> Iterator[Mutation]:
    """Yield the slices of a value, as for a convolution, read and put back with another start or stride."""
    tape = situation.tape
    groups = [group for group in situation.iterations.uses if group[0].step.name == "slice"]
    sliced = {step.outputs[0]: step for step in tape.steps if step.name == "slice"}
    for group in groups:
        shape = np.shape(tape.values[group[0].source])
        words = f"{situation.name_of(group[0].source)} is cut in {describe_operation(group[0].step)}"
        for cause, text, change in _wrong_slices(group[0].step.parameters):

            def put(number, d, group=group, change=change, shape=shape):
                whole = np.zeros(shape, d.dtype)
                inside, kept = _meet(shape, d.shape, change(group[number].step.parameters, number))
                np.add.at(whole, np.ix_(*inside), d[np.ix_(*kept)])
                return whole

            detail = f"{words}; by hand its gradient is put back {text}"
            rules = change_parts(tape, group, put)
            yield Replacement(cause, detail, rules)
    for products in situation.iterations.uses:
        own = [edge.step.inputs[1 - edge.place] for edge in products] if len(products[0].step.inputs) == 2 else []
        steps = [sliced[number] for number in own if number in sliced]
        if products[0].step.name not in ("dot_general", "mul") or not own or len(steps) < len(own):
            continue
        words = f"{situation.name_of(steps[0].inputs[0])} is cut in {describe_operation(steps[0])}"
        for cause, text, change in _wrong_slices(steps[0].parameters):

            def part(number, d, products=products, steps=steps, change=change):
                edge, step = products[number], steps[number]
                value = tape.values[step.inputs[0]]
                shape = np.shape(tape.values[step.outputs[0]])
                other = np.zeros(shape, value.dtype)
                inside, kept = _meet(value.shape, shape, change(step.parameters, number))
                other[np.ix_(*kept)] = value[np.ix_(*inside)]
                return tape.local_cotangents(edge.step, [d], {1 - edge.place: other})[edge.place]

            detail = f"{words}; for the gradient of {situation.name_of(products[0].source)} it is cut {text}"
            yield Replacement(cause, detail, change_parts(tape, products, part))


def generate_windows(situation: Situation) -> Iterator[Mutation]:
    """Yield windows that start at every few entries read, and put back, one entry apart."""
    tape = situation.tape
    for numbers in situation.iterations.values:
        steps = [tape.steps[tape.producer[number]] for number in numbers if number in tape.producer]
        if len(steps) < len(numbers) or any(step.name != "slice" or step.parameters["strides"] for step in steps):
            continue
        starts = np.array([step.parameters["start_indices"] for step in steps])
        stride = np.gcd.reduce(np.where(np.ptp(starts, axis=0), starts, 0), axis=0)
        factor = np.where(stride > 1, stride, 1)
        if np.array_equal(starts // factor, starts):
            continue
        last = starts.max(axis=0)
        for apart in (starts // factor, last - (last - starts) // factor):
            yield from _windows_apart(situation, numbers, steps, apart, stride)


def _windows_apart(situation, numbers, steps, starts, stride) -> Iterator[Mutation]:
    """Yield windows that are read, and put back, from other starts on."""
    tape = situation.tape
    windows = [
        tuple(slice(first, first + size) for first, size in zip(place, tape.values[number].shape, strict=True))
        for place, number in zip(starts, numbers, strict=True)
    ]
    read = {
        number: tape.values[step.inputs[0]][window]
        for number, step, window in zip(numbers, steps, windows, strict=True)
    }
    words = f"{situation.name_of(steps[0].inputs[0])} is cut in {describe_operation(steps[0])} every {stride.max()}"
    detail = f"{words} entries; by hand it is read without that stride"
    yield Misreading("wrong_operand", detail, move_values(tape, read))
    if tape.is_active[numbers[0]]:
        detail = f"{words} entries; by hand its gradient is put back without that stride"
        yield Replacement("wrong_operand", detail, _put_back(tape, numbers, steps, windows))


def _put_back(tape, numbers, steps, windows) -> dict[int, Rule]:
    """Return the rules by which the gradients of slices are added at these windows."""

    def make(step, window) -> Rule:
        def rule(cotangent):
            whole = np.zeros(np.shape(tape.values[step.inputs[0]]), cotangent.dtype)
            whole[window] += cotangent
            return [(step.inputs[0], whole)]

        return rule

    return {number: make(step, window) for number, step, window in zip(numbers, steps, windows, strict=True)}


def generate_paddings(situation: Situation) -> Iterator[Mutation]:
    """Yield each padded value, and all together, with the gradient cut out from another entry on."""
    tape = situation.tape
    padded = [edge for edge in situation.edges if edge.step.name == "pad" and edge.place == 0]
    plain = [edge for edge in padded if not any(between for *_, between in edge.step.parameters["padding_config"])]
    starts = {
        "at twice the padding": lambda low: 2 * low,
        "at the first entry": lambda low: 0,
        "padded once more in the same direction, and not cut": lambda low: -low,
        "one entry further": lambda low: low + 1 if low else 0,
        "one entry earlier": lambda low: low - 1 if low else 0,
    }
    for group in [[edge] for edge in plain] + ([plain] if len(plain) > 1 else []):
        words = f"the gradient of the padding in {describe_operation(group[0].step)}"
        words += f", as of {len(group)} paddings," if len(group) > 1 else ""
        for text, start in starts.items():

            def cut(number, d, group=group, start=start):
                edge = group[number]
                shape = np.shape(tape.values[edge.source])
                lows = [low for low, _, _ in edge.step.parameters["padding_config"]]
                part = np.zeros(shape, d.dtype)
                inside, kept = _meet(d.shape, shape, ([start(low) for low in lows], [1] * len(lows)))
                part[np.ix_(*kept)] = d[np.ix_(*inside)]
                return part

            yield Replacement("shifted", f"{words} is taken by hand {text}", change_parts(tape, group, cut))


def _wrong_slices(parameters):
    starts, limits = parameters["start_indices"], parameters["limit_indices"]
    strides = parameters["strides"] or (1,) * len(starts)
    if sum(stride > 1 for stride in strides) > 1:
        yield "wrong_operand", "without any stride", _without_strides
    for axis in range(len(starts)):
        if strides[axis] > 1:
            yield "wrong_operand", f"without the stride along axis {axis}", _changed(axis, 1, 0, 1)
            yield (
                "wrong_operand",
                f"with the stride as a dilation along axis {axis}",
                _changed(axis, 1, 0, strides[axis]),
            )
    for axis in range(len(starts)):
        if limits[axis] - starts[axis] > 1:
            for move in (1, -1):
                yield "shifted", f"moved by {move} along axis {axis}", _changed(axis, None, move, 1)


def _without_strides(parameters, number):
    """Return the starts of a slice, and no strides."""
    return list(parameters["start_indices"]), [1] * len(parameters["start_indices"])


def _changed(axis, stride, move, dilation):
    """Return a function from a slice's parameters and its place in the group to its starts and strides by hand."""

    def change(parameters, number):
        starts = list(parameters["start_indices"])
        strides = list(parameters["strides"] or (1,) * len(starts))
        starts[axis] = starts[axis] + move + number * (dilation - 1)
        strides[axis] = stride or strides[axis]
        return starts, strides

    return change


def _meet(whole, part, bounds):
    """Return the indices of a slice that lie inside the whole, along each axis, and their places in the slice."""
    inside, kept = [], []
    for size, count, start, stride in zip(whole, part, *bounds, strict=True):
        places = start + stride * np.arange(count)
        is_inside = (places >= 0) & (places < size)
        inside.append(places[is_inside])
        kept.append(np.flatnonzero(is_inside))
    return inside, kept
