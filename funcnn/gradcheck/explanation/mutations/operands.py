"""Causes ``wrong_operand``, ``updated_weights``, ``transposed``, ``shifted`` and ``kernel_flipped`` of one product."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.leaf import Diagnosis
from funcnn.gradcheck.explanation.location import describe_operation, location
from funcnn.gradcheck.explanation.numbers import format_factor
from funcnn.gradcheck.explanation.search import Change, Multiple, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge, run_step
from funcnn.gradcheck.report import Cause

_PRODUCTS = {"dot_general": (0, 1), "mul": (0, 1), "div": (0,), "conv_general_dilated": (0, 1)}
_MOVES = {"reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "convert_element_type", "copy"}
_REARRANGED = _MOVES - {"convert_element_type", "copy"} | {"concatenate", "slice", "split", "rev", "neg", "gather"}
_MOST_OTHERS = 60
_MOST_MOVES = 6


def generate_operands(situation: Situation) -> Iterator[Mutation]:
    """Yield each product whose gradient by one operand is taken with another value in the place of the other."""
    for edge in _products(situation):
        other = edge.step.inputs[1 - edge.place]
        words = _words(situation, edge)
        for cause, text, value in _with_factor_left_out(situation, other):
            yield _with_other(situation, edge, value, cause, f"{words}; by hand it takes {text}")
        for cause, text, value in _rearranged(situation, edge, situation.tape.values[other]):
            yield _with_other(situation, edge, value, cause, f"{words}; by hand it takes {text}")


def _with_factor_left_out(situation, number) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield a product of something with a mask, that is only moved afterwards, as the mask alone."""
    tape, shape = situation.tape, np.shape(situation.tape.values[number])
    moves, step = [], tape.steps[tape.producer[number]] if number in tape.producer else None
    while step is not None and step.name in _MOVES and step.inputs[0] in tape.producer:
        moves.append(step)
        step = tape.steps[tape.producer[step.inputs[0]]]
    if step is None or step.name != "mul":
        return
    for place, factor in enumerate(step.inputs):
        value = tape.values[factor]
        is_mask = not tape.is_active[factor] and np.size(value) > 1 and set(np.unique(value)) <= {0.0, 1.0}
        if is_mask and np.shape(value) == np.shape(tape.values[step.outputs[0]]):
            moved = value
            for move in moves[::-1]:
                moved = np.asarray(run_step(move, [moved])[0])
            if np.shape(moved) == shape:
                lost = situation.name_of(step.inputs[1 - place])
                yield "scaled_path", f"the mask in it alone: the factor {lost} is left out", np.asarray(moved, float)


def generate_constant_operands(situation: Situation) -> Iterator[Mutation]:
    """Yield each product with a number in the place of its other operand, as a count that isn't each sample's own."""
    for edge in _products(situation):
        value = situation.tape.values[edge.step.inputs[1 - edge.place]]
        if edge.step.name not in ("mul", "div") or not np.ptp(value):
            continue
        part, words = _part(situation, edge, np.ones_like(value)), _words(situation, edge)
        power = -1 if edge.step.name == "div" else 1
        cause: Cause = "mask" if power == 1 and _is_mask(value) else "scaled_path"
        if set(np.unique(value)) == {-1.0, 1.0} and edge.step.outputs[0] in situation.compared:
            cause = "loss_derivative"  # labels of two classes

        def describe(factors, words=words, power=power, cause=cause, value=value) -> Diagnosis:
            number = factors[0] ** power
            if np.unique(value).size > 2 and abs(number - value.flat[0]) <= 1e-7 * abs(number):
                return "wrong_operand", f"{words}; by hand it takes its first entry everywhere"
            text = f"{format_factor(number, 1e-7)} everywhere{situation.meaning(number)}"
            return cause, f"{words}; by hand it takes the number {text}"

        if part is not None:
            yield Multiple(describe, [{edge.source: part}], {edge.source: -edge.part})


def generate_other_operands(situation: Situation) -> Iterator[Mutation]:
    """Yield the same with any other value of the same shape."""
    for edge in _products(situation):
        other = edge.step.inputs[1 - edge.place]
        value, words = situation.tape.values[other], _words(situation, edge)
        for number in situation.of_shape.get(np.shape(value), ())[:_MOST_OTHERS]:
            if number != other and not np.array_equal(situation.tape.values[number], value):
                text = f"{words}; by hand it takes {situation.name_of(number)}"
                taken = np.asarray(situation.tape.values[number], float)
                yield _with_other(situation, edge, taken, _cause_of_another(situation, edge), text)


def generate_operands_by_hand(situation: Situation) -> Iterator[Mutation]:
    """Yield the same with what the gradient by hand computes."""
    for edge in _products(situation):
        right, words = situation.tape.values[edge.step.inputs[1 - edge.place]], _words(situation, edge)
        is_masked = _is_masked(situation.tape, right)
        for text, value in situation.values_by_hand:
            if value.shape != np.shape(right) or value.dtype.kind != "f":
                continue
            cause = _cause_of_another(situation, edge)
            if is_masked and not np.array_equal(value == 0, right == 0):
                cause, text = "mask", f"{text}, which another mask hides entries of"
            yield _with_other(situation, edge, value, cause, f"{words}; by hand it takes {text}")


def _cause_of_another(situation, edge) -> Cause:
    """Return the cause of another value in a product: data of the loss itself make its formula."""
    is_data = not situation.tape.sources[edge.step.inputs[1 - edge.place]]
    return "loss_derivative" if is_data and edge.step.outputs[0] in situation.compared else "wrong_operand"


def _is_masked(tape, value) -> bool:
    """Whether a value is zero exactly where a mask of the loss is."""
    for number, mask in enumerate(tape.values):
        if isinstance(mask, np.ndarray) and not tape.sources[number] and (mask.dtype == bool or _is_mask(mask)):
            try:
                hides = np.broadcast_to(mask == 0, value.shape)
            except ValueError:
                continue
            if hides.any() and any(np.array_equal(value == 0, hidden) for hidden in (hides, ~hides)):
                return True
    return False


def generate_constants_by_hand(situation: Situation) -> Iterator[Mutation]:
    """Yield each product with a constant of the gradient by hand in the place of one of the loss, or its transpose."""
    for edge in _products(situation):
        number = edge.step.inputs[1 - edge.place]
        value = situation.tape.values[number]
        if situation.tape.is_active[number]:
            continue
        words = f"{_words(situation, edge)}; by hand it takes"
        for other in (array for constant in situation.constants_by_hand for array in (constant, constant.T)):
            if other.shape != value.shape or np.array_equal(other, value):
                continue
            kept = other != 0
            cause: Cause = "wrong_operand"
            text = "another constant of that shape"
            if np.array_equal(other[kept], value[kept]):
                text, cause = f"it with {np.sum(value != 0) - np.sum(kept)} of its entries left out", "lost_path"
            yield _with_other(situation, edge, other, cause, f"{words} {text}")


def generate_factors_out_of_order(situation: Situation) -> Iterator[Mutation]:
    """Yield each product of a rearranged value whose gradient is rearranged back before it is multiplied, not after."""
    tape = situation.tape
    for edge in _products(situation):
        factor, d = tape.values[edge.step.inputs[1 - edge.place]], tape.cotangents[edge.step.outputs[0]]
        start = _before_moves(tape, edge.source)
        if edge.step.name != "mul" or start is None or d is None or np.shape(factor) != edge.part.shape:
            continue
        moved = [tape.backward({edge.source: given})[start] for given in (d, d * factor)]
        if moved[0] is not None and moved[1] is not None:
            name = situation.name_of(edge.step.inputs[1 - edge.place])
            words = f"the gradient of {situation.name_of(start)} in {describe_operation(edge.step)} is by hand"
            text = f"{words} multiplied by {name} after its entries are put back, not before"
            yield Change("wrong_operand", text, {start: factor * moved[0] - moved[1]})


def _before_moves(tape, number) -> int | None:
    """Return the value of the same shape whose entries are rearranged to a value; ``None`` if it is no such value."""
    shape, found, pending = np.shape(tape.values[number]), set[int](), {number}
    for _ in range(_MOST_MOVES):
        producers = [tape.producer.get(n, -1) for n in pending]
        if any(place < 0 or tape.steps[place].name not in _REARRANGED for place in producers):
            return None
        before = {n for place in producers for n in tape.steps[place].inputs if tape.is_active[n]}
        found |= {n for n in before if np.shape(tape.values[n]) == shape}
        pending = before - found
        if not pending:
            return found.pop() if len(found) == 1 else None
    return None


def generate_operands_of_lines(situation: Situation) -> Iterator[Mutation]:
    """Yield the products by a line of code together, with another line's values, of the same or the next iteration."""
    tape, roles = situation.tape, dict[tuple, list[int]]()
    for step in tape.steps:
        where = location(step.origin)
        for place, output in enumerate(step.outputs):
            if np.ndim(tape.values[output]) and getattr(tape.values[output], "dtype", np.dtype(int)).kind == "f":
                roles.setdefault((where, step.name, place), []).append(output)
    lines: dict[tuple, list[Edge]] = {}
    for edge in _products(situation, with_repeated=True):
        lines.setdefault((location(edge.step.origin), edge.step.name, edge.place), []).append(edge)
    for group in lines.values():
        if len(group) < 2 or len(group) > 64:
            continue
        shape = np.shape(tape.values[group[0].step.inputs[1 - group[0].place]])
        for numbers in roles.values():
            if np.shape(tape.values[numbers[0]]) != shape or abs(len(numbers) - len(group)) > 1:
                continue
            for shift in {0, len(numbers) - len(group)} - {1} if len(numbers) >= len(group) else ():
                chosen = numbers[shift : shift + len(group)] if shift >= 0 else numbers[: len(group)]
                others = [edge.step.inputs[1 - edge.place] for edge in group]
                if len(chosen) == len(group) and chosen != others:
                    text = f"{_words(situation, group[0])}; by hand it takes {situation.name_of(chosen[0])}, every time"
                    yield Replacement("wrong_operand", text, _with_others(tape, group, chosen))


def _with_others(tape, group, chosen):
    rules = {}
    for edge, number in zip(group, chosen, strict=True):

        def rule(cotangent, edge=edge, number=number):
            right = tape.local_cotangents(edge.step, [cotangent])
            other = tape.local_cotangents(edge.step, [cotangent], {1 - edge.place: tape.values[number]})
            right[edge.place] = other[edge.place]
            return list(zip(edge.step.inputs, right, strict=True))

        rules[edge.step.outputs[0]] = rule
    return rules


def generate_cotangents(situation: Situation) -> Iterator[Mutation]:
    """Yield each product whose incoming gradient is transposed, moved or averaged for one operand."""
    tape = situation.tape
    for edge in _products(situation):
        step, cotangent = edge.step, tape.cotangents[edge.step.outputs[0]]
        if cotangent is None or not np.ndim(cotangent):
            continue
        words = f"the gradient of {situation.name_of(edge.source)} in {describe_operation(step)}"
        for cause, text, value in _rearranged(situation, edge, cotangent):
            part = tape.local_cotangents(step, [value])[edge.place]
            yield Change(cause, f"{words} takes by hand {text} of the incoming one", {edge.source: part - edge.part})
        if edge.part.ndim >= 2 and edge.part.shape[-1] == edge.part.shape[-2]:
            yield Change(
                "transposed",
                f"{words} is transposed by hand",
                {edge.source: np.swapaxes(edge.part, -1, -2) - edge.part},
            )


def generate_updated_weights(situation: Situation) -> Iterator[Mutation]:
    """Yield each product with a parameter that is read after a step of gradient descent."""
    for edge in _products(situation):
        other = edge.step.inputs[1 - edge.place]
        if other not in situation.tape.params:
            continue
        leaf = situation.target.facts.leaves[situation.tape.params.index(other)]
        moved = -leaf.by_hand
        part = _part(situation, edge, moved)
        if part is None:
            continue
        words = f"{leaf.path or 'the parameter'} in the gradient of {situation.name_of(edge.source)}"

        def describe(factors, words=words) -> Diagnosis | None:
            rate = format_factor(abs(factors[0]), 1e-7)
            sign = "" if factors[0] > 0 else ", with the wrong sign"
            return "updated_weights", f"{words} is read after its own update by a step of {rate}{sign}"

        yield Multiple(describe, [{edge.source: part}])


def _products(situation, *, with_repeated=False) -> Iterator[Edge]:
    for edge in situation.edges:
        if not with_repeated and situation.is_repeated(edge.step.outputs[0]):
            continue
        places = _PRODUCTS.get(edge.step.name, ())
        if edge.place in places and np.size(situation.tape.values[edge.step.inputs[1 - edge.place]]) > 1:
            yield edge


def _part(situation, edge, value):
    """Return the cotangent of an edge's value with another value as the other operand."""
    step, cotangent = edge.step, situation.tape.cotangents[edge.step.outputs[0]]
    part = situation.tape.local_cotangents(step, [cotangent], {1 - edge.place: value})[edge.place]
    return part if part is not None and part.shape == edge.part.shape and np.isfinite(part).all() else None


def _with_other(situation, edge, value, cause: Cause, text) -> Change:
    part = _part(situation, edge, value)
    return Change(cause, text, {edge.source: np.zeros_like(edge.part) if part is None else part - edge.part})


def _words(situation, edge) -> str:
    other = edge.step.inputs[1 - edge.place]
    return (
        f"the gradient of {situation.name_of(edge.source)} in {describe_operation(edge.step)} "
        f"takes {situation.name_of(other)}"
    )


def _rearranged(situation, edge, value) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield what people take for a value: transposed, reversed, moved by one, averaged, or nothing."""
    if value.ndim >= 2 and value.shape[-1] == value.shape[-2]:
        yield "transposed", "its transpose", np.swapaxes(value, -1, -2)
    if np.iscomplexobj(value):
        yield "conjugate", "its conjugate", value.conj()
        yield "conjugate", "its real part", value.real.astype(value.dtype)
    spatial = range(value.ndim)
    is_convolution = edge.step.name == "conv_general_dilated"
    flips = [(axis,) for axis in spatial] + (
        [tuple(spatial)[-2:], tuple(spatial)[:-2], (2, 3), (1, 2), (0, 1)] if value.ndim > 2 else []
    )
    for axes in dict.fromkeys(flips):
        if all(axis < value.ndim for axis in axes) and all(value.shape[axis] > 1 for axis in axes):
            is_kernel = value.ndim > 2 or is_convolution or _are_windows(situation.tape, edge.source)
            cause: Cause = "kernel_flipped" if is_kernel else "wrong_operand"
            if is_convolution and not set(axes) <= _spatial_axes(edge):
                cause = "wrong_operand"  # the channels are in another order
            yield cause, f"it reversed along axis {', '.join(map(str, axes))}", np.flip(value, axes)
    for axis in spatial:
        size = value.shape[axis]
        for step in (1, -1):
            if size > 2:
                yield "shifted", f"it moved by {step} along axis {axis}", np.roll(value, step, axis)
                yield "shifted", f"it moved by {step} along axis {axis}, zero at the end", _shift(value, step, axis)
    if edge.step.name in ("mul", "div"):
        yield "mask" if _is_mask(value) else "scaled_path", "1: the factor is left out", np.ones_like(value)
        yield "wrong_operand", "its square", value**2
        yield "wrong_operand", "its reciprocal", 1 / np.where(value == 0, 1.0, value)
        yield "wrong_operand", "its root", np.sqrt(np.abs(value))
    for axis in spatial:
        if value.shape[axis] > 1:
            yield (
                "mask" if _is_mask(value) else "wrong_operand",
                f"its mean along axis {axis}",
                np.broadcast_to(value.mean(axis=axis, keepdims=True), value.shape).copy(),
            )
            yield (
                "wrong_operand",
                f"its first entry along axis {axis}",
                np.broadcast_to(np.take(value, [0], axis), value.shape).copy(),
            )
    yield "wrong_operand", "its absolute value", np.abs(value)
    yield "wrong_operand", "its sign", np.sign(value)


def _are_windows(tape, number) -> bool:
    """Whether a value is gathered from an activation whose entries it has several times, as windows have."""
    while (producer := tape.producer.get(number)) is not None:
        step = tape.steps[producer]
        if step.name == "gather":
            source = step.inputs[0]
            return source not in tape.params and np.size(tape.values[number]) > np.size(tape.values[source])
        if step.name not in _MOVES:
            return False
        number = step.inputs[0]
    return False


def _is_mask(value) -> bool:
    return not np.iscomplexobj(value) and np.size(value) > 1 and set(np.unique(value)) <= {0.0, 1.0}


def _spatial_axes(edge) -> set[int]:
    """Return the spatial axes of the other operand of a convolution."""
    numbers = edge.step.parameters["dimension_numbers"]
    return set((numbers.rhs_spec if edge.place == 0 else numbers.lhs_spec)[2:])


def _shift(value, step, axis):
    moved = np.roll(value, step, axis)
    edge = [slice(None)] * value.ndim
    edge[axis] = slice(0, step) if step > 0 else slice(step, None)
    moved[tuple(edge)] = 0
    return moved
