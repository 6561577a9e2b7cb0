"""Cause ``mask`` of values that a backward pass reads, or computes again, under another mask than the loss's."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from funcnn.gradcheck.explanation.iterations import elementwise
from funcnn.gradcheck.explanation.mutations.masks import find_masks
from funcnn.gradcheck.explanation.search import Known, Misreading, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Rule, Rules, run_step
from funcnn.gradcheck.report import Cause

_PRODUCTS = ("dot_general", "conv_general_dilated")


def generate_masked_values(situation: Situation) -> Iterator[Mutation]:
    """Yield the values behind each mask as they are under another one, up to the next products that read them."""
    tape = situation.tape
    together: dict[str, tuple[dict[int, Rule], dict[int, Any]]] = {}
    for z, h, mask in find_masks(situation):
        is_usual = np.shape(tape.values[z]) == np.shape(tape.values[h]) == np.shape(mask) and mask.any()
        if not is_usual or depends_on_parameters(tape, h):
            continue
        scale, kept = float(mask[mask != 0][0]), mask != 0
        for text, other in _other_masks(kept, scale, is_filled=_hidden(tape, h) != 0):
            masked = _masked(tape, h, z, other)
            if np.array_equal(other, mask) or np.array_equal(masked, tape.values[h]):
                continue
            others = values_up_to_products(tape, {h: masked})
            words = f"the mask in {situation.where(h)} is {text} by hand"
            if any(tape.steps[position].name in _PRODUCTS for number in others for position in _uses(tape, number)):
                yield Misreading("mask", f"{words}, where its result is read", others)
                yield known(tape, "mask", words, {h: elementwise(z, other)}, others)
                rules, read = together.setdefault(text, ({}, {}))
                rules.setdefault(h, elementwise(z, other))
                read.update(others)
    for text, (rules, read) in together.items():
        if len(rules) > 1:
            yield known(tape, "mask", f"{len(rules)} masks of the loss are {text} by hand", rules, read)


def generate_masks_of_choices(situation: Situation) -> Iterator[Mutation]:
    """Yield each mask that chooses in several places, as in a softmax that keeps hidden scores out of its exponential.

    The way back reads another mask wherever the loss reads this one, up to the next products.
    """
    tape, groups = situation.tape, list[tuple[np.ndarray, list[int]]]()
    for step in (tape.steps[position] for position in situation.active_steps):
        number = step.inputs[0]
        value = tape.values[number]
        if step.name != "select_n" or value.dtype != bool or tape.sources[number] or value.all() or not value.any():
            continue
        same = [numbers for mask, numbers in groups if np.array_equal(mask, value)]
        if not same:
            groups.append((value, [number]))
        elif number not in same[0]:
            same[0].append(number)
    for mask, numbers in groups:
        where = f"the mask in {situation.where(numbers[0])}"
        for text, other in _other_masks(mask, 1.0, is_filled=True):
            # A choice takes its second value where the condition holds.
            others = values_up_to_products(tape, dict.fromkeys(numbers, other != 0))
            yield Misreading("mask", f"{where} is {text} by hand, wherever it chooses", others)


def known(tape, cause: Cause, detail: str, rules: Rules, others: Mapping[int, Any]) -> Known:
    """Return the backward pass with other rules that reads other values."""
    wrong = tape.wrong_gradient(rules, others)
    return Known(cause, detail, [new - old for new, old in zip(wrong, tape.right_gradient, strict=True)])


def depends_on_parameters(tape, number) -> bool:
    """Whether the mask that makes a value is computed from parameters, as that of a function in pieces."""
    step = tape.steps[tape.producer[number]]
    return any(tape.sources[source] for source in step.inputs if not tape.is_active[source])


def values_up_to_products(tape, others: Mapping[int, Any]) -> dict[int, Any]:
    """Return the values that change if some values are others, as far as the products that read them."""
    changed = dict(others)
    first = min(tape.producer.get(number, -1) for number in others)
    for step in tape.steps[first + 1 :]:
        is_reached = any(number in changed for number in step.inputs)
        if is_reached and step.name not in _PRODUCTS and step.outputs[0] not in changed:
            operands = [changed.get(number, tape.values[number]) for number in step.inputs]
            changed.update(zip(step.outputs, map(np.asarray, run_step(step, operands)), strict=True))
    return changed


def _uses(tape, number):
    return tape.consumers.get(number, ())


def _masked(tape, h, z, mask) -> np.ndarray:
    """Return a value under another mask: the number that stands for hidden entries where it is 0."""
    step = tape.steps[tape.producer[h]]
    value = tape.values[z]
    if step.name != "select_n":
        return value * mask
    hidden = next(source for source in step.inputs[1:] if not tape.is_active[source])
    return np.where(mask != 0, value * np.where(mask != 0, mask, 1.0), tape.values[hidden])


def _hidden(tape, h) -> float:
    """Return the number that stands for hidden entries, one of them where there are several."""
    step = tape.steps[tape.producer[h]]
    if step.name != "select_n":
        return 0.0
    hidden = next(source for source in step.inputs[1:] if not tape.is_active[source])
    return float(np.ravel(tape.values[hidden])[0])


def _other_masks(kept, scale, is_filled) -> Iterator[tuple[str, np.ndarray]]:
    """Yield other masks. Before a softmax, where a number fills hidden entries, a row keeps at least one entry."""

    def whole(mask):
        return scale * (np.where(np.any(mask, axis=-1, keepdims=True), mask, kept) if is_filled else mask)

    yield "ignored", scale * np.ones(kept.shape)
    if scale != 1:
        yield "ignored with its scale", np.ones(kept.shape)
        yield "applied without its scale", 1.0 * kept
    for axis in range(kept.ndim):
        size = kept.shape[axis]
        for step in (1, -1) if size > 1 else ():
            yield f"that of the entry {step} beside along axis {axis}", whole(np.roll(kept, step, axis))
            end = [slice(None)] * kept.ndim
            end[axis] = slice(0, 1) if step > 0 else slice(size - 1, size)
            for filled in (False, True):
                moved = np.roll(kept, step, axis)
                moved[tuple(end)] = filled
                yield f"moved by {step} along axis {axis}", whole(moved)
        if size > 2:
            yield f"reversed along axis {axis}", whole(np.flip(kept, axis))
        if size > 1:
            first = np.broadcast_to(np.take(kept, [0], axis), kept.shape)
            yield f"that of the first entry of axis {axis}", whole(first)
    if kept.ndim > 1 and kept.shape[-1] == kept.shape[-2]:
        yield "transposed", whole(np.swapaxes(kept, -1, -2))
