"""Cause ``wrong_operand`` of a function that is called several times, with the values of another call."""

import itertools
from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.location import call_stack
from funcnn.gradcheck.explanation.search import Misreading, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Step

_MOST_PAIRS = 40


def generate_values_of_other_calls(situation: Situation) -> Iterator[Mutation]:
    """Yield each call of a function read on the way back with the values that another call of it computed.

    What was kept of one layer is given to the backward pass of another layer of the same kind.
    """
    tape = situation.tape
    pairs = (pair for calls in _calls(tape) for pair in itertools.permutations(calls, 2))
    for ours, others in itertools.islice(pairs, _MOST_PAIRS):
        if len(ours) != len(others) or any(map(_is_different, ours, others)):
            continue
        read: dict[int, np.ndarray] = {}
        for step, other in zip(ours, others, strict=True):
            for number, instead in zip((*step.inputs, *step.outputs), (*other.inputs, *other.outputs), strict=True):
                value = tape.values[instead]
                if number != instead and np.shape(value) == np.shape(tape.values[number]):
                    read.setdefault(number, value)
        words = f"what {situation.where(others[-1].outputs[0])} computes in another call"
        detail = f"on the way back {situation.where(ours[-1].outputs[0])} is read as {words} of the same function"
        yield Misreading("wrong_operand", detail, read)


def _calls(tape) -> Iterator[list[list[Step]]]:
    """Yield the steps of each call of a function: those whose lines differ in the line of the call alone."""
    found: dict[tuple, dict[tuple, list[Step]]] = {}
    for step in tape.steps:
        lines = call_stack(step.origin)
        for place in range(1, len(lines)):
            inner = (*lines[place - 1][:1], lines[place][0], len(lines) - place, lines[place + 1 :])
            found.setdefault(inner, {}).setdefault(lines[place], []).append(step)
    for calls in found.values():
        if len(calls) > 1:
            yield list(calls.values())


def _is_different(step: Step, other: Step) -> bool:
    return step.name != other.name or len(step.inputs) != len(other.inputs)
