"""Causes ``transposed`` and ``scaled_path`` of a linear map, such as a rotation.

By hand the map itself is applied on the way back and not its transpose, or nothing, or the transpose for other pairs.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.activations import descendants
from funcnn.gradcheck.explanation.search import Change, Mutation
from funcnn.gradcheck.explanation.situation import Situation

_MOST_PAIRS = 60


def generate_untransposed_maps(situation: Situation) -> Iterator[Mutation]:
    """Yield each linear map between two values of one shape, applied to the gradient as it is."""
    tape, pairs = situation.tape, 0
    for first, value in enumerate(tape.values):
        cotangent = tape.cotangents[first]
        if not tape.is_active[first] or cotangent is None or np.ndim(value) == 0 or np.iscomplexobj(value):
            continue
        for last in sorted(descendants(tape, first)):
            incoming = tape.cotangents[last]
            if incoming is None or incoming.shape != value.shape or pairs >= _MOST_PAIRS:
                continue
            pairs += 1
            forward = _linear_map(tape, first, last)
            right = tape.backward({last: incoming})[first]
            if forward is None or right is None:
                continue
            words = f"from {situation.name_of(first)} to {situation.where(last)} the loss is linear; by hand"
            text = f"{words} the same map is applied on the way back, and not its transpose"
            yield Change("transposed", text, {first: forward(incoming) - right})
            text = f"{words} the map is left out on the way back: the gradient goes on as it is"
            yield Change("scaled_path", text, {first: incoming - right})
            for order, inverse in _other_pairs(incoming.shape[-1]):
                other = tape.backward({last: incoming[..., order]})[first]
                text = f"{words} the last axis is taken on the way back as pairs of neighbours where it is two halves,"
                text += " or the other way round"
                if other is not None:
                    yield Change("transposed", text, {first: other[..., inverse] - right})


def _other_pairs(size) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the orders by which pairs of neighbours become two halves and the other way round, with their inverses."""
    if size > 2 and size % 2 == 0:
        order = np.arange(size).reshape(2, -1).T.ravel()
        yield from itertools.permutations((order, np.argsort(order)))


def _linear_map(tape, first, last):
    """Return the linear part of the map between two values, ``None`` if it isn't linear."""
    value = tape.values[first]
    origin = tape.replay({first: np.zeros_like(value)})[last]
    twice = tape.replay({first: 2 * value})[last]
    once = tape.values[last]
    if np.any(np.abs(twice - 2 * once + origin) > 1e-9 * max_abs(once)):
        return None
    return lambda array: tape.replay({first: array})[last] - origin
