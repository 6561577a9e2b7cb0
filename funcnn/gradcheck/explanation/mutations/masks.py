"""Cause ``mask``: a mask ignored, inverted, shifted, applied twice, or another one in its place."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.derivatives import unbroadcast
from funcnn.gradcheck.explanation.search import Change, Known, Misreading, Mutation
from funcnn.gradcheck.explanation.situation import Situation


def generate_masks(situation: Situation) -> Iterator[Mutation]:
    """Yield each mask of the loss with what people do to masks."""
    for z, h, mask in find_masks(situation):
        cotangent = situation.cotangent(h)
        scale = float(mask[mask != 0][0])
        kept = 1.0 * (mask != 0)
        where = f"the mask in {situation.where(h)}"
        for text, other in _wrong_masks(situation, kept, scale):
            # Where nothing comes back through another mask, the path is lost.
            if not np.array_equal(other, mask) and np.any(other * cotangent):
                change = unbroadcast((other - mask) * cotangent, np.shape(situation.tape.values[z]))
                yield Change("mask", f"{where} is {text} by hand", {z: change})


def generate_losses_without_masks(situation: Situation) -> Iterator[Mutation]:
    """Yield the gradient of the loss without one of its masks, in the values and on the way back."""
    tape = situation.tape
    for z, h, mask in find_masks(situation):
        scale = float(mask[mask != 0][0])
        shape = np.shape(tape.values[z])
        unmasked = tape.replay({h: np.broadcast_to(scale * tape.values[z], np.shape(tape.values[h]))})

        def rule(cotangent, z=z, scale=scale, shape=shape):
            return [(z, unbroadcast(scale * cotangent, shape))]

        wrong = tape.wrong_gradient({h: rule}, unmasked)
        yield Known(
            "mask",
            f"it is the gradient of the loss without the mask in {situation.where(h)}",
            [new - old for new, old in zip(wrong, tape.right_gradient, strict=True)],
        )


def _wrong_masks(situation, kept, scale):
    yield "ignored", scale * np.ones_like(kept)
    if scale != 1:
        yield "ignored with its scale", np.ones_like(kept)
        yield "applied without its scale", kept
        yield "applied twice", scale**2 * kept
        yield "applied with the scale of the other entries", kept * (scale / (scale - 1) if scale != 1 else 1)
    yield "inverted", scale * (1 - kept)
    for axis in range(kept.ndim):
        if kept.shape[axis] > 1:
            for step in (1, -1):
                yield f"shifted by {step} along axis {axis}", scale * np.roll(kept, step, axis)
            yield (
                f"that of the first entry of axis {axis}",
                scale * np.broadcast_to(np.take(kept, [0], axis), kept.shape),
            )
    if kept.ndim > 1 and kept.shape[-1] == kept.shape[-2]:
        yield "transposed", scale * np.swapaxes(kept, -1, -2)
    for value in situation.tape.values:
        if isinstance(value, np.ndarray) and value.dtype == bool and value.shape == kept.shape:
            yield "another mask of the loss", scale * value


def generate_pairs(situation: Situation) -> Iterator[Mutation]:
    """Yield each value of all pairs with half of the pairs, in its gradient or in a sum that is read on the way back.

    The half is above, or below, the diagonal.
    """
    tape = situation.tape
    for number, cotangent in enumerate(tape.cotangents):
        if cotangent is None or cotangent.ndim < 2 or number not in tape.producer:
            continue
        shape = cotangent.shape
        sums = [
            step for position in tape.consumers.get(number, ())
            if (step := tape.steps[position]).name == "reduce_sum"
        ]  # fmt: skip
        for axes in dict.fromkeys([(0, 1), (len(shape) - 2, len(shape) - 1)]):
            size = shape[axes[0]]
            if size < 3 or size != shape[axes[1]]:
                continue
            sizes = [size if axis in axes else 1 for axis in range(len(shape))]
            for text, some in (("above", np.triu(np.ones((size, size)))), ("below", np.tril(np.ones((size, size))))):
                kept = some.reshape(sizes)
                detail = f"{situation.name_of(number)} has all pairs of {size}; by hand those {text} the diagonal alone"
                yield Change("lost_path", detail, {number: cotangent * (kept - 1)})
                for step in sums:
                    total = np.sum(tape.values[number] * kept, axis=tuple(step.parameters["axes"]))
                    yield Misreading("lost_path", f"{detail}, where their sum is read", {step.outputs[0]: total})


def generate_masks_by_hand(situation: Situation) -> Iterator[Mutation]:
    """Yield each mask of the loss replaced by one that the gradient by hand computes."""
    for z, h, mask in find_masks(situation):
        scale = float(mask[mask != 0][0])
        for text, value in situation.values_by_hand:
            if value.dtype == bool and value.shape == mask.shape:
                change = (scale * value - mask) * situation.cotangent(h)
                change = unbroadcast(change, np.shape(situation.tape.values[z]))
                yield Change("mask", f"in the place of the mask in {situation.where(h)} stands {text}", {z: change})


def find_masks(situation: Situation) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the values z and h = m z, where m is 0 or one other number and takes no gradient."""
    tape = situation.tape
    for position in situation.active_steps:
        step = tape.steps[position]
        h = step.outputs[0]
        if step.name == "select_n" and len(step.inputs) == 3:
            for place in (1, 2):
                z, other = step.inputs[place], step.inputs[3 - place]
                chosen = np.asarray(tape.values[step.inputs[0]]).astype(int) == place - 1
                if tape.is_active[z] and not tape.is_active[other] and chosen.shape == tape.values[z].shape:
                    yield from _with_scale_before(tape, z, h, 1.0 * chosen)
        elif step.name in ("mul", "div"):
            for place in (0, 1) if step.name == "mul" else (0,):
                z, other = step.inputs[place], step.inputs[1 - place]
                mask = np.asarray(tape.values[other], float) if not tape.is_active[other] else np.ones(())
                numbers = np.unique(mask)
                if tape.is_active[z] and mask.size > 1 and len(numbers) == 2 and 0 in numbers:
                    yield z, h, mask


def _with_scale_before(tape, z, h, mask):
    """Yield a mask, and the same from the value before it was multiplied by a number."""
    if not mask.any():
        return
    yield z, h, mask
    producer = tape.producer.get(z)
    if producer is not None and tape.steps[producer].name in ("mul", "div"):
        step = tape.steps[producer]
        for place, source in enumerate(step.inputs):
            other = step.inputs[1 - place]
            if tape.is_active[source] and not tape.is_active[other] and np.size(np.unique(tape.values[other])) == 1:
                number = float(np.ravel(tape.values[other])[0])
                yield source, h, mask * (1 / number if step.name == "div" else number)
