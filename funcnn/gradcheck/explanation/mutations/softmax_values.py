"""Causes ``mask``, ``activation_derivative`` and ``wrong_operand`` of other values in the place of a softmax's."""

from collections.abc import Iterator

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.mutations.masked_values import known, values_up_to_products
from funcnn.gradcheck.explanation.mutations.softmax import Softmax, find_softmax
from funcnn.gradcheck.explanation.search import Change, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Rule


def generate_softmax_values(situation: Situation) -> Iterator[Mutation]:
    """Yield each softmax with its values masked after it, by blocks, or multiplied by what follows, on the way back."""
    tape = situation.tape
    for place in find_softmax(tape):
        if place.is_log or tape.cotangents[place.h] is None:
            continue
        where = f"the softmax in {situation.where(place.h)}"
        yield from _masked_after(situation, place, where)
        yield from _by_blocks(situation, place, where)
        yield from _multiplied(situation, place, where)


def _masked_after(situation, place: Softmax, where) -> Iterator[Mutation]:
    """Yield the softmax of all scores, of which those that the loss hides are set to 0 afterwards."""
    tape = situation.tape
    step = tape.steps[tape.producer[place.z]] if place.z in tape.producer else None
    if step is None or step.name not in ("select_n", "add"):
        return
    for z in step.inputs:
        if not tape.is_active[z] or np.shape(tape.values[z]) != np.shape(tape.values[place.z]):
            continue
        p = _softmax(tape.values[z], place.axis) * (tape.values[place.h] != 0)
        if not np.allclose(p, tape.values[place.h]):
            others = values_up_to_products(tape, {place.h: p})
            words = f"the mask before {where} is applied by hand after it, with no other sum"
            yield known(tape, "mask", words, {place.h: _rule(z, p, place.axis)}, others)


def _by_blocks(situation, place: Softmax, where) -> Iterator[Mutation]:
    """Yield the softmax with sums over blocks of its entries, in its values or in its derivative alone."""
    tape = situation.tape
    h, d = tape.values[place.h], tape.cotangents[place.h]
    size = h.shape[place.axis]
    for block in (block for block in range(2, size) if size % block == 0):
        words = f"the sum in {where} is by hand that of each block of {block} entries alone"
        inner = _of_blocks(h * d, place.axis, block)
        change = h * (np.sum(h * d, axis=place.axis, keepdims=True) - inner)
        yield Change("activation_derivative", f"{words}, in its derivative", {place.z: change})
        total = _of_blocks(h, place.axis, block)
        p = np.where(total > 0, h / np.where(total > 0, total, 1.0), 0.0)
        others = values_up_to_products(tape, {place.h: p})
        for sums, text in ((block, ""), (size, " in its values")):
            rules = {place.h: _rule(place.z, p, place.axis, sums)}
            yield known(tape, "activation_derivative", words + text, rules, others)


def _multiplied(situation, place: Softmax, where) -> Iterator[Mutation]:
    """Yield the softmax's derivative taken at its product with a constant, such as a dropout mask."""
    tape = situation.tape
    h, d = tape.values[place.h], tape.cotangents[place.h]
    right = h * (d - np.sum(h * d, axis=place.axis, keepdims=True))
    is_used_once = len(situation.edges_by_source.get(place.h, ())) == 1
    for number in _products_after(tape, place.h):
        p, later = tape.values[number], situation.cotangent(number)
        detail = f"the derivative of {where} is taken by hand at the result of {situation.where(number)}"
        for text, first, second, incoming in (
            ("", p, p, d),
            (", outside of the sum", p, h, d),
            (", in the sum", h, p, d),
            (", with the gradient that comes to it", p, p, later),
            (": the gradient that comes to it skips the factor", h, h, later),
        ):
            wrong = first * (incoming - np.sum(second * incoming, axis=place.axis, keepdims=True))
            # With one of several uses alone it is a lost path, and so is nothing.
            if max_abs(wrong) > 1e-9 * max_abs(right) and (incoming is d or is_used_once):
                yield Change("wrong_operand", detail + text, {place.z: wrong - right})


def _products_after(tape, number) -> list[int]:
    """Return the values that a value becomes by constant factors and choices, as by a dropout mask."""
    found, shape = list[int](), np.shape(tape.values[number])
    for position in tape.consumers.get(number, ()):
        step = tape.steps[position]
        is_product = step.name in ("mul", "div", "select_n") and sum(tape.is_active[n] for n in step.inputs) == 1
        if is_product and np.shape(tape.values[step.outputs[0]]) == shape:
            found += [step.outputs[0], *_products_after(tape, step.outputs[0])]
    return found


def _softmax(z, axis) -> np.ndarray:
    p = np.exp(z - np.max(z, axis=axis, keepdims=True))
    return p / p.sum(axis=axis, keepdims=True)


def _of_blocks(values, axis, block) -> np.ndarray:
    """Return the sum over the block of each entry along an axis."""
    moved = np.moveaxis(values, axis, -1)
    sums = moved.reshape(*moved.shape[:-1], -1, block).sum(axis=-1)
    return np.moveaxis(np.repeat(sums, block, axis=-1), -1, axis)


def _rule(source, p, axis, block=None) -> Rule:
    """Return the derivative of a softmax of these values, with sums over blocks."""
    count = block or p.shape[axis]
    return lambda cotangent: [(source, p * (cotangent - _of_blocks(p * cotangent, axis, count)))]
