"""Cause ``wrong_operand`` of loops: what the gradient by hand computes in every iteration, in the place of a value."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.iterations import change_parts
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.search import Change, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation

_PRODUCTS = {"dot_general": (0, 1), "mul": (0, 1), "div": (0,)}
_CUTS = {"slice", "dynamic_slice", "gather"}
_MOST_GROUPS = 60


def generate_values_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the products of every iteration with what the gradient by hand computes there as the other operand."""
    yield from _generate(situation, is_of_cotangent=False)


def generate_cotangents_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the products of every iteration with what the gradient by hand computes as the incoming gradient."""
    yield from _generate(situation, is_of_cotangent=True)


def _generate(situation, *, is_of_cotangent) -> Iterator[Mutation]:
    tape = situation.tape
    for group in situation.iterations.uses:
        if group[0].place not in _PRODUCTS.get(group[0].step.name, ()):
            continue
        replaced = [edge.step.outputs[0] if is_of_cotangent else edge.step.inputs[1 - edge.place] for edge in group]
        shape = np.shape(tape.values[replaced[0]])
        if not shape or any(np.shape(tape.values[number]) != shape for number in replaced):
            continue
        words = f"the gradient of {situation.name_of(group[-1].source)} in {describe_operation(group[0].step)} takes "
        words += "another incoming gradient" if is_of_cotangent else f"not {situation.name_of(replaced[-1])}"
        for step, text, values in situation.iterations_by_hand.get((len(group), shape), ())[:_MOST_GROUPS]:
            # An incoming gradient that is computed otherwise is wrong for another reason; one that is cut out is not.
            if is_of_cotangent and step.name not in _CUTS:
                continue
            for others in (values, values[::-1]):

                def part(number, d, group=group, others=others):
                    edge = group[number]
                    if is_of_cotangent:
                        return tape.local_cotangents(edge.step, [others[number]])[edge.place]
                    return tape.local_cotangents(edge.step, [d], {1 - edge.place: others[number]})[edge.place]

                detail = f"{words}, but {text}, in every iteration"
                if len({edge.source for edge in group}) > 1:
                    yield Replacement("wrong_operand", detail, change_parts(tape, group, part))
                else:
                    cotangents = [tape.cotangents[edge.step.outputs[0]] for edge in group]
                    parts = [part(number, d) for number, d in enumerate(cotangents)]
                    change = sum(new - edge.part for new, edge in zip(parts, group, strict=True))
                    yield Change("wrong_operand", detail, {group[0].source: change})
