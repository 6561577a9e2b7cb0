"""Cause ``lost_path`` of places at the border that a gradient's sum over places leaves out."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.derivatives import contraction
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.mutations.convolution_forms import is_convolution, specifications
from funcnn.gradcheck.explanation.search import Change, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge

_BINARY = ("add", "sub", "mul", "div")
_LEAST_OF_BLOCKS = 4


def generate_borders(situation: Situation) -> Iterator[Mutation]:
    """Yield each gradient that sums over places, as of pixels or steps of time, without those at the border."""
    tape = situation.tape
    for edge in situation.edges:
        d = tape.cotangents[edge.step.outputs[0]]
        if d is None:
            continue
        for axes in _sets([axis for axis in _places(tape, edge) if axis]):
            for text, low, high in _ends(min(d.shape[axis] for axis in axes), len(axes) == 1):
                inner = tuple(
                    slice(low, size - high) if axis in axes else slice(None) for axis, size in enumerate(d.shape)
                )
                lost = np.array(d)
                lost[inner] = 0
                part = tape.local_cotangents(edge.step, [lost])[edge.place]
                words = f"the gradient of {situation.name_of(edge.source)} in {describe_operation(edge.step)}"
                detail = f"{words} leaves out by hand the {text} along axis {', '.join(map(str, axes))}"
                if part is not None:
                    yield Change("lost_path", detail, {edge.source: -part})


def _ends(size: int, with_blocks: bool) -> Iterator[tuple[str, int, int]]:
    """Yield what may be left out of some entries: in words, and how many of the first and of the last."""
    for text, low, high in (("first entry", 1, 0), ("last entry", 0, 1), ("first and the last entry", 1, 1)):
        if size > low + high:
            yield text, low, high
    if with_blocks and size >= _LEAST_OF_BLOCKS and size % 2 == 0:
        yield "first half", size // 2, 0
        yield "second half", 0, size // 2


def _sets(places: list[int]) -> list[tuple[int, ...]]:
    """Return each axis alone, and all together."""
    alone: list[tuple[int, ...]] = [(axis,) for axis in places]
    return [*alone, tuple(places)] if len(places) > 1 else alone


def _places(tape, edge: Edge) -> list[int]:
    """Return the axes of the incoming gradient over which that of an operand sums."""
    step, shape = edge.step, np.shape(tape.values[edge.source])
    result = np.shape(tape.values[step.outputs[0]])
    if is_convolution(edge):
        return sorted(specifications(step)[2][2:])
    if step.name in _BINARY and len(shape) == len(result):
        return [axis for axis, size in enumerate(result) if shape[axis] < size]
    if step.name == "broadcast_in_dim" and shape:
        places = [int(axis) for axis in step.parameters["broadcast_dimensions"]]
        return [axis for axis, size in enumerate(result) if axis not in places or shape[places.index(axis)] < size]
    if step.name == "dot_general":
        left, right, letters = contraction(step.parameters, *(tape.values[number] for number in step.inputs))
        own = left if edge.place == 0 else right
        return [axis for axis, letter in enumerate(letters) if letter not in own]
    return []
