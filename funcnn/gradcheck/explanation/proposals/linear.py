"""Cause ``transposed`` of a linear map: by hand the map itself is applied on the way back, and not its transpose."""

from collections.abc import Iterator

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.activations import descendants
from funcnn.gradcheck.explanation.search import Change, Proposal
from funcnn.gradcheck.explanation.situation import Situation

_MOST_PAIRS = 60


def propose_untransposed_maps(situation: Situation) -> Iterator[Proposal]:
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
            yield Change(
                "transposed",
                f"from {situation.name_of(first)} to {situation.where(last)} the loss is linear; "
                "by hand the same map is applied on the way back, and not its transpose",
                {first: forward(incoming) - right},
            )


def _linear_map(tape, first, last):
    """Return the linear part of the map between two values, ``None`` if it isn't linear."""
    value = tape.values[first]
    origin = tape.replay({first: np.zeros_like(value)})[last]
    twice = tape.replay({first: 2 * value})[last]
    once = tape.values[last]
    if np.any(np.abs(twice - 2 * once + origin) > 1e-9 * max_abs(once)):
        return None
    return lambda array: tape.replay({first: array})[last] - origin
