"""Causes ``scaled_path`` and ``wrong_operand``: a gradient times a power of another value, on the way back."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.search import Change, Mutation
from funcnn.gradcheck.explanation.situation import Situation

_MOST_VALUES, _MOST_FACTORS = 40, 40
_POWERS: dict[float, str] = {
    1: "is put in once more",
    -1: "is left out",
    2: "is put in twice more",
    -2: "is left out twice",
}
_POWERS |= {0.5: "is put in by its root", -0.5: "is left out by its root"}


def generate_factors(situation: Situation) -> Iterator[Mutation]:
    """Yield each value with its gradient multiplied by a power of a value that is broadcast against it."""
    tape = situation.tape
    values = [
        number for number in range(len(tape.values))
        if tape.is_active[number] and tape.cotangents[number] is not None and number not in tape.params
        and np.ndim(tape.values[number]) > 1
    ][:_MOST_VALUES]  # fmt: skip
    for number in values:
        cotangent = situation.cotangent(number)
        words = f"the gradient of {situation.name_of(number)}"
        for name, factor in _factors(situation, np.shape(cotangent)):
            for power, text in _POWERS.items():
                with np.errstate(all="ignore"):
                    times = np.abs(factor) ** power * (np.sign(factor) if power in (1, -1) else 1.0)
                if np.isfinite(times).all():
                    yield Change(
                        "scaled_path",
                        f"in {words} the factor {name} {text} by hand",
                        {number: (times - 1) * cotangent},
                    )


def _factors(situation, shape):
    tape, seen = situation.tape, 0
    for number, value in enumerate(tape.values):
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or not 1 < value.size < np.prod(shape):
            continue
        try:
            is_fitting = np.broadcast_shapes(value.shape, shape) == shape
        except ValueError:
            continue
        if is_fitting and np.ptp(value) and seen < _MOST_FACTORS:
            seen += 1
            yield situation.name_of(number), value
            producer = tape.producer.get(number)
            step = tape.steps[producer] if producer is not None else None
            if step is not None and step.name == "add":
                for place in (0, 1):
                    if np.size(np.unique(tape.values[step.inputs[place]])) == 1:
                        other = tape.values[step.inputs[1 - place]]
                        yield f"by the constant added in {situation.name_of(number)}", other / value
