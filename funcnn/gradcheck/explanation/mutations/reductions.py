"""Causes ``wrong_axis``, ``mask``, ``transposed``, ``shifted`` and more of sums, maxima, orders and look-ups."""

import itertools
from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.derivatives import unbroadcast
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.search import Change, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge, run_step
from funcnn.gradcheck.report import Cause

_PARTS, _MOST_WINDOWS, _MOST_ENDS = ("slice", "dynamic_slice", "scan_slice"), 64, 64


def generate_reductions(situation: Situation) -> Iterator[Mutation]:
    """Yield each broadcast, sum, maximum, order and look-up with the mistakes that its backward pass invites."""
    tape = situation.tape
    for edge in situation.edges:
        # Of values that are sorted together, each has its own result.
        output = edge.step.outputs[edge.place if edge.step.name == "sort" else 0]
        cotangent = tape.cotangents[output]
        if cotangent is None:
            continue
        is_spread = edge.step.name in _BINARY and np.size(tape.values[edge.source]) < np.size(cotangent)
        family = _spread if is_spread else _FAMILIES.get(edge.step.name)
        if family is None:
            continue
        words = f"the gradient of {situation.name_of(edge.source)} in {describe_operation(edge.step)}"
        source, result = tape.values[edge.source], tape.values[output]
        for cause, text, part in family(edge, cotangent, source, result, situation):
            if np.size(part) == np.size(edge.part):
                change = np.reshape(part, edge.part.shape) - edge.part
                yield Change(cause, f"{words} is by hand {text}", {edge.source: change})


def _broadcast(edge: Edge, d, source, result, situation) -> Iterator[tuple[Cause, str, np.ndarray]]:
    kept = [axis for axis in range(d.ndim) if d.shape[axis] > 1]
    for axis in kept:
        others = tuple(other for other in kept if other != axis)
        if d.shape[axis] == source.size and others:
            yield "wrong_axis", f"summed over axis {', '.join(map(str, others))}", d.sum(axis=others)
    yield "wrong_axis", "the sum of everything", np.full(source.shape, d.sum())
    for axes in itertools.combinations(range(d.ndim), d.ndim - source.ndim) if source.ndim > 1 else ():
        if d.sum(axis=axes).shape == source.shape:
            yield "wrong_axis", f"summed over axis {', '.join(map(str, axes))}", d.sum(axis=axes)
    if d.ndim == source.ndim:
        summed = tuple(axis for axis in range(d.ndim) if source.shape[axis] == 1 and d.shape[axis] > 1)
    else:
        places = edge.step.parameters["broadcast_dimensions"]
        summed = tuple(axis for axis in range(d.ndim) if axis not in places)
    for axis in summed:
        rest = tuple(other for other in summed if other != axis)
        for entry, word in ((0, "first"), (d.shape[axis] - 1, "last")):
            yield (
                _lost(situation, axis, d),
                f"that of the {word} entry of axis {axis} alone",
                np.take(d.sum(axis=rest, keepdims=True), [entry], axis),
            )
            without = np.delete(d, entry, axis).sum(axis=summed)
            yield _lost(situation, axis, d), f"without the {word} entry of axis {axis}", without
        for text, chosen in _ends(d.shape[axis], axis):
            yield _lost(situation, axis, d), text, np.take(d, chosen, axis).sum(axis=summed)


def _spread(edge: Edge, d, source, result, situation) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield the sums of an operand that is broadcast, over other axes than those along which it is."""
    if not source.ndim:
        return
    values = [np.asarray(situation.tape.values[number]) for number in edge.step.inputs]
    wide = {edge.place: np.broadcast_to(source, d.shape)}
    whole = np.asarray(situation.tape.local_cotangents(edge.step, [d], wide)[edge.place])
    summed = tuple(axis for axis in range(d.ndim) if source.shape[axis] == 1 and d.shape[axis] > 1)
    wanted = [size for size in source.shape if size > 1]
    for axes in itertools.combinations(range(d.ndim), len(summed)):
        rest = [d.shape[axis] for axis in range(d.ndim) if axis not in axes and d.shape[axis] > 1]
        if axes != summed and rest == wanted:
            yield "wrong_axis", f"summed over axis {', '.join(map(str, axes))}", whole.sum(axis=axes)
    if edge.step.name == "mul":
        other = np.broadcast_to(values[1 - edge.place], d.shape)
        apart = d.sum(axis=summed) * other.sum(axis=summed)
        count = np.prod([d.shape[axis] for axis in summed])
        yield "wrong_operand", "the product of two sums, and not the sum of the products", apart
        yield "wrong_operand", "the sum of the gradient times the mean of the other factor", apart / count
    yield from _broadcast(edge, whole, source, source, situation)


def _lost(situation, axis, array) -> Cause:
    """Return the cause of entries left out along an axis: of samples, where the axis is the batch's."""
    batch = next((size for size, name in situation.problem.sizes() if name == "the batch size"), None)
    return "subset_of_batch" if axis == 0 and array.shape[0] == batch else "lost_path"


def _ends(size, axis) -> Iterator[tuple[str, list[int]]]:
    """Yield the first entries of an axis and the last ones, in words: of a sum over blocks that leaves a part out."""
    for count in range(2, min(size - 1, _MOST_ENDS)):
        yield f"that of the first {count} of {size} entries of axis {axis} alone", [*range(count)]
        yield f"that of the last {count} of {size} entries of axis {axis} alone", [*range(size - count, size)]


def _only(shape, axis, entry) -> np.ndarray:
    """Return 1 at one entry of an axis, and 0 elsewhere."""
    chosen = np.arange(shape[axis]) == entry
    return np.broadcast_to(chosen.reshape([-1 if other == axis else 1 for other in range(len(shape))]), shape) * 1.0


def _maximum(edge, d, source, result, situation):
    axes = tuple(edge.step.parameters["axes"])
    wide = np.broadcast_to(np.expand_dims(d, axes), source.shape)
    top = source == np.expand_dims(result, axes)
    yield "mask", "that of every entry: where the maximum stands is ignored", wide.copy()
    yield "mask", "given in full to every entry that ties", wide * top
    count = source.size // max(result.size, 1)
    yield "mask", "shared by all entries, as for a mean", wide / count
    for axis in axes:
        for entry, word in ((0, "first"), (source.shape[axis] - 1, "last")):
            chosen = _only(source.shape, axis, entry)
            yield "mask", f"given to the {word} entry of axis {axis}", wide * chosen
        for step in (1, -1):
            yield (
                "shifted",
                f"given to the entry beside the maximum, {step} along axis {axis}",
                np.roll(edge.part, step, axis),
            )
    flat = np.argmax(source)
    yield "mask", "given to the largest entry of all", wide * (np.arange(source.size).reshape(source.shape) == flat)


def _sum(edge, d, source, result, situation):
    axes = tuple(edge.step.parameters["axes"])
    for axis in axes:
        for entry, word in ((0, "first"), (source.shape[axis] - 1, "last")):
            only = _only(source.shape, axis, entry)
            cause = _lost(situation, axis, source)
            yield cause, f"that of the {word} entry of axis {axis} alone", edge.part * only
            yield cause, f"without the {word} entry of axis {axis}", edge.part * (1 - only)
        for text, chosen in _ends(source.shape[axis], axis):
            some = np.zeros_like(edge.part)
            places = (slice(None),) * axis + (chosen,)
            some[places] = edge.part[places]
            yield _lost(situation, axis, source), text, some
    if source.ndim == 2 and source.shape[0] == source.shape[1]:
        yield "wrong_axis", "spread along the other axis", edge.part.T


def _cumulative(edge, d, source, result, situation):
    for axis in range(d.ndim):
        yield _same_axis(edge, axis), f"the sum from the first entry on, along axis {axis}", np.cumsum(d, axis)
        backward = np.flip(np.cumsum(np.flip(d, axis), axis), axis)
        yield _same_axis(edge, axis), f"the sum from the last entry on, along axis {axis}", backward
    yield "lost_path", "that of its own sum alone", d
    total = np.broadcast_to(d.sum(axis=edge.step.parameters["axis"], keepdims=True), d.shape)
    yield "lost_path", "the sum of all", total


def _same_axis(edge, axis) -> Cause:
    return "transposed" if axis == edge.step.parameters["axis"] else "wrong_axis"


def _reverse(edge, d, source, result, situation):
    yield "kernel_flipped", "not reversed again", d


def _permuted(edge, d, source, result, situation):
    if d.shape == source.shape:
        yield "transposed", "not transposed back", d
        yield "transposed", "transposed otherwise", np.transpose(d, edge.step.parameters["permutation"])


def _sorted(edge, d, source, result, situation):
    axis, keys = edge.step.parameters["dimension"], situation.tape.values[edge.step.inputs[0]]
    order = np.argsort(keys, axis=axis, kind="stable")
    yield "transposed", "not brought back into the order before the sort", d
    yield "transposed", "sorted once more: the order is applied and not undone", np.take_along_axis(d, order, axis)
    yield "transposed", "in reversed order", np.flip(d, axis)


def _joined(edge, d, source, result, situation):
    tape = situation.tape
    axis, sizes = edge.step.parameters["dimension"], [tape.values[n].shape for n in edge.step.inputs]
    start = 0
    for number, shape in enumerate(sizes):
        part = np.take(d, range(start, start + shape[axis]), axis)
        if number != edge.place and part.shape == source.shape:
            yield "swapped", f"that of part {number} of the concatenation", part
        start += shape[axis]
    width = source.shape[axis]
    for start in range(d.shape[axis] - width + 1):
        part = np.take(d, range(start, start + width), axis)
        if part.shape == source.shape:
            yield "shifted", f"read from entry {start} on", part


def _sliced(edge, d, source, result, situation):
    """Yield a part, as the last step of a sequence, put back elsewhere."""
    read = is_read(situation.tape, edge)
    for axis in range(source.ndim):
        size = source.shape[axis]
        others = tuple(other for other in range(source.ndim) if other != axis)
        entries = np.flatnonzero(read.any(axis=others))
        if 1 < len(entries) < size:
            for move in (1, -1):
                yield "shifted", f"put {move} beside, along axis {axis}", np.roll(edge.part, move, axis)
        if len(entries) != 1 or size < 2:
            continue
        entry, part = int(entries[0]), edge.part.sum(axis=axis, keepdims=True)
        for move in (1, -1):
            if 0 <= entry + move < size:
                text = f"put into entry {entry + move} of axis {axis}, not {entry}"
                yield "shifted", text, part * _only(source.shape, axis, entry + move)
        for other, word in ((0, "first"), (size - 1, "last")):
            if abs(other - entry) > 1:
                text = f"put into the {word} entry of axis {axis}, not {entry}"
                yield "wrong_operand", text, part * _only(source.shape, axis, other)
        yield "mask", f"given to every entry of axis {axis}, not to {entry} alone", np.broadcast_to(part, source.shape)


def _scattered(edge, d, source, result, situation):
    """Yield the gradient of what is written into an array, read from entries side by side and not from those places."""
    for axis in range(d.ndim) if edge.place == 2 and d.ndim == source.ndim else ():
        width = source.shape[axis]
        for start in range(d.shape[axis] - width + 1) if 1 < width < d.shape[axis] else ():
            part = np.take(d, range(start, start + width), axis)
            if part.shape == source.shape:
                yield "wrong_operand", f"read from entries {start} to {start + width - 1} of axis {axis}", part


def _looked_up(edge, d, source, result, situation):
    yield from _sliced(edge, d, source, result, situation)
    yield from _assigned(edge, d, source, situation)
    for axis in range(source.ndim):
        for step in (1, -1):
            yield "shifted", f"put {step} beside, along axis {axis}", np.roll(edge.part, step, axis)
            end = 0 if step > 0 else source.shape[axis] - 1
            moved = np.roll(edge.part, step, axis) * (1 - _only(source.shape, axis, end))
            yield "shifted", f"put {step} beside, along axis {axis}, what leaves the array lost", moved
    yield from _some_looked_up(edge, d, situation)
    for axis in range(d.ndim) if source.ndim == 1 < d.ndim else ():
        if d.shape[axis] == source.size:
            others = tuple(other for other in range(d.ndim) if other != axis)
            yield "wrong_axis", f"summed by the places of axis {axis}, not by the entries read", d.sum(axis=others)
    if d.ndim == source.ndim and d.shape[1:] == source.shape[1:]:
        mean = np.broadcast_to(d.mean(axis=0), source.shape)
        yield "wrong_operand", "the mean of all, at every row", mean
        yield "wrong_operand", "the sum of all, at every row", mean * len(d)


def _some_looked_up(edge, d, situation):
    """Yield a look-up's gradient of some entries alone, or with its entries in another order."""

    def back(given):
        return situation.tape.local_cotangents(edge.step, [np.ascontiguousarray(given)])[0]

    for axis in range(d.ndim - 1):
        for entry, word in ((0, "first"), (d.shape[axis] - 1, "last")) if d.shape[axis] > 1 else ():
            only = _only(d.shape, axis, entry)
            cause = "subset_of_batch" if _lost(situation, axis, d) == "subset_of_batch" else "lost_use"
            yield cause, f"that of the {word} entry of axis {axis} alone", back(d * only)
            yield cause, f"without the {word} entry of axis {axis}", back(d * (1 - only))
        if axis + 2 < d.ndim and d.shape[axis] == d.shape[axis + 1]:
            text = f"put back with the axes {axis} and {axis + 1} of what is read exchanged"
            yield "transposed", text, back(np.swapaxes(d, axis, axis + 1))


def _assigned(edge, d, source, situation):
    """Yield what a look-up's gradient is if it is assigned to its entries, and not added."""
    numbers = np.arange(source.size, dtype=float).reshape(source.shape)
    operands = [numbers, *(situation.tape.values[number] for number in edge.step.inputs[1:])]
    read = np.asarray(run_step(edge.step, operands)[0])
    if not np.isfinite(read).all() or len(np.unique(read)) == read.size:
        return
    cause = "lost_use" if situation.origin(edge.source) in situation.tape.params else "lost_path"
    for order, word in ((slice(None), "last"), (slice(None, None, -1), "first")):
        whole = np.zeros(source.size, d.dtype)
        whole[read.ravel().astype(int)[order]] = d.ravel()[order]
        yield cause, f"assigned and not added: where an entry is read again, only the {word} time counts", whole
    places = read.astype(int)
    for axis in range(d.ndim - 1):
        number = np.broadcast_to(np.arange(d.shape[axis]).reshape([-1] + [1] * (d.ndim - axis - 1)), d.shape)
        last = np.full(source.size, -1)
        np.maximum.at(last, places, number)
        kept = situation.tape.local_cotangents(edge.step, [d * (number == last[places])])[0]
        text = f"assigned and not added along axis {axis}: of what reads an entry again there, only the last counts"
        yield cause, text, kept


def _power(edge, d, source, result, situation):
    power = situation.tape.values[edge.step.inputs[1]] if edge.step.name == "pow" else edge.step.parameters["y"]
    if edge.place != 0:
        text = "xⁿ: the logarithm of the base is left out"
        yield "activation_derivative", text, unbroadcast(d * result, source.shape)
        return
    wide = np.broadcast_to(source, d.shape)
    right = np.asarray(situation.tape.local_cotangents(edge.step, [d], {0: wide})[0])
    for text, part in {
        "n xⁿ: the exponent is not lowered": d * power * result,
        "xⁿ⁻¹: the factor n is left out": right / np.where(power == 0, 1.0, power),
        "xⁿ": d * result,
        "(n − 1) xⁿ⁻¹": right * (power - 1.0) / np.where(power == 0, 1.0, power),
        "left out": d,
    }.items():
        yield "activation_derivative", text, unbroadcast(part, source.shape)


def _larger(edge, d, source, result, situation):
    other = edge.step.inputs[1 - edge.place]
    if situation.tape.is_active[other]:
        won = 1.0 * (source == result)
        yield "mask", "that of the side that is not taken", unbroadcast(d * (1 - won), source.shape)
        yield "mask", "that of both sides", unbroadcast(d, source.shape)


def generate_overwritten_parts(situation: Situation) -> Iterator[Mutation]:
    """Yield the parts of a value, as overlapping windows, whose gradients are assigned and not added."""
    tape = situation.tape
    for number, uses in situation.edges_by_source.items():
        parts = [edge for edge in uses if edge.step.name in _PARTS and edge.place == 0 and len(edge.step.outputs) == 1]
        if len(parts) < 2 or len(parts) > _MOST_WINDOWS:
            continue
        read = [is_read(tape, edge) for edge in parts]
        if not np.any(np.sum(read, axis=0) > 1):
            continue
        cause: Cause = "lost_use" if number in tape.params else "lost_path"
        words = f"{situation.name_of(number)} is cut in {len(parts)} parts that overlap; by hand their gradients are"
        right = sum(edge.part for edge in parts)
        for order, last in ((slice(None), "last"), (slice(None, None, -1), "first")):
            for is_kept, where in ((True, ", where they are not 0"), (False, "")):
                whole = np.zeros_like(right)
                for edge, inside in zip(parts[order], read[order], strict=True):
                    whole = np.where(inside & (edge.part != 0) if is_kept else inside, edge.part, whole)
                detail = f"{words} assigned and not added{where}: only the {last} part counts"
                yield Change(cause, detail, {number: whole - right})


def is_read(tape, edge) -> np.ndarray:
    """Return where a value is read by a step."""
    ones = np.ones_like(tape.values[edge.step.outputs[0]])
    return np.asarray(tape.local_cotangents(edge.step, [ones])[0]) != 0


def generate_exchanged_sides(situation: Situation) -> Iterator[Mutation]:
    """Yield each choice between two values with its sides exchanged."""
    tape = situation.tape
    for position in situation.active_steps:
        step = tape.steps[position]
        d = tape.cotangents[step.outputs[0]]
        sides = step.inputs[-2:]
        if step.name not in ("max", "min", "select_n") or d is None or not all(tape.is_active[n] for n in sides):
            continue
        parts = tape.local_cotangents(step, [d])[-2:]
        if any(part is None or part.shape != d.shape for part in parts) or sides[0] == sides[1]:
            continue
        where = describe_operation(step)
        if step.name == "select_n" and len(parts) == 2:
            # A condition on a parameter makes a function of pieces, another one a mask.
            pieces: Cause = "loss_derivative" if step.outputs[0] in situation.compared else "activation_derivative"
            cause = pieces if tape.sources[step.inputs[0]] else "mask"
            for side, word in enumerate(("first", "second")):
                kept, lost = sides[side], sides[1 - side]
                yield Change(
                    cause,
                    f"the {word} side of {where} is taken everywhere by hand",
                    {kept: np.asarray(d - parts[side]), lost: -np.asarray(parts[1 - side])},
                )
        first, second = (np.asarray(part) for part in parts)
        yield Change(
            "mask",
            f"the two sides of {where} are exchanged by hand",
            {sides[0]: second - first, sides[1]: first - second},
        )


_BINARY = {"add", "sub", "mul", "div"}
_FAMILIES = {
    "pow": _power,
    "integer_pow": _power,
    "max": _larger,
    "min": _larger,
    "broadcast_in_dim": _broadcast,
    "reduce_max": _maximum,
    "reduce_min": _maximum,
    "reduce_sum": _sum,
    "cumsum": _cumulative,
    "rev": _reverse,
    "transpose": _permuted,
    "sort": _sorted,
    "concatenate": _joined,
    "gather": _looked_up,
    "scatter": _scattered,
    "scatter-add": _scattered,
    "slice": _sliced,
    "dynamic_slice": _sliced,
}
