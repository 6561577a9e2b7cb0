"""Causes ``activation_derivative`` and ``wrong_operand`` of gates: the derivative of one of them, and their factors."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from funcnn.gradcheck.explanation.activations import Activation, chosen_slopes
from funcnn.gradcheck.explanation.iterations import change_parts, elementwise
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.mutations.layout import parts_of
from funcnn.gradcheck.explanation.mutations.loops import groups_of_activations
from funcnn.gradcheck.explanation.search import Change, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge, Step


def generate_slopes_of_parts(situation: Situation) -> Iterator[Mutation]:
    """Yield the activations that are cut into parts, as those of several gates, with one part's derivative wrong."""
    single = [[activation] for activation in situation.activations if not situation.is_repeated(activation.h)]
    for group in (*groups_of_activations(situation), *single):
        cut = parts_of(situation, group[0].h)
        if cut is None:
            continue
        axis, sizes = cut
        kind, where = group[0].kind, situation.where(group[0].h)
        ends = np.cumsum(sizes)
        slopes = [dict(chosen_slopes(activation, situation.tape)) for activation in group]
        for text, part in itertools.product(slopes[0], range(len(sizes))):
            if not all(text in of_one for of_one in slopes):
                continue
            inside = range(ends[part] - sizes[part], ends[part])
            wrong = [
                _in_part(situation.tape, activation, of_one[text], axis, inside)
                for activation, of_one in zip(group, slopes, strict=True)
            ]
            detail = f"the derivative of {kind.name} in {where} is {kind.rule}; by hand it is {text} in part "
            detail += f"{part + 1} of {len(sizes)} along axis {axis}"
            detail += ", in every iteration" if len(group) > 1 else ""
            yield _with_slopes(situation, group, wrong, detail)


def _in_part(tape, activation: Activation, slope, axis, inside) -> np.ndarray:
    """Return the right derivative with another one in a part."""
    right = activation.kind.slope(tape.values[activation.z], tape.values[activation.h])
    is_inside = np.isin(np.arange(right.shape[axis]), inside)
    shape = [-1 if other == axis else 1 for other in range(right.ndim)]
    return np.where(is_inside.reshape(shape), slope, right)


def _with_slopes(situation, group: Sequence[Activation], slopes, detail) -> Mutation:
    tape = situation.tape
    if len(group) > 1:
        pairs = zip(group, slopes, strict=True)
        rules = {activation.h: elementwise(activation.z, slope) for activation, slope in pairs}
        return Replacement("activation_derivative", detail, rules)
    right = group[0].kind.slope(tape.values[group[0].z], tape.values[group[0].h])
    change = (slopes[0] - right) * situation.cotangent(group[0].h)
    return Change("activation_derivative", detail, {group[0].z: change})


def generate_exchanged_factors(situation: Situation) -> Iterator[Mutation]:
    """Yield sums of two products, as (1 − z) n + z h, with the two factors exchanged in the gradients of n and h."""
    tape = situation.tape
    edges = {(edge.step.outputs[0], edge.place): edge for edge in situation.edges if edge.step.name == "mul"}
    single = [[edge] for edge in edges.values() if not situation.is_repeated(edge.step.outputs[0])]
    for group in (*situation.iterations.uses, *single):
        found = [_other_product(tape, edge) for edge in group] if group[0].step.name == "mul" else []
        others = [step for step in found if step is not None]
        for place in (0, 1) if len(others) == len(group) else ():
            own = [edge.step.inputs[1 - edge.place] for edge in group]
            factors = [step.inputs[1 - place] for step in others]
            if [np.shape(tape.values[n]) for n in own] == [np.shape(tape.values[n]) for n in factors]:
                partners = [edges.get((step.outputs[0], place)) for step in others]
                changed = [*zip(group, factors, strict=True), *zip(partners, own, strict=True)]
                yield _exchanged(situation, [(edge, factor) for edge, factor in changed if edge is not None])


def _other_product(tape, edge: Edge) -> Step | None:
    """Return the product to which that of an edge is added as the first summand."""
    output = edge.step.outputs[0]
    steps = [tape.steps[position] for position in tape.consumers.get(output, ())]
    added = next((step.inputs[1] for step in steps if step.name == "add" and step.inputs[0] == output), -1)
    step = tape.steps[tape.producer[added]] if added in tape.producer else None
    return step if step is not None and step.name == "mul" else None


def _exchanged(situation, changed: Sequence[tuple[Edge, int]]) -> Mutation:
    tape, edges = situation.tape, [edge for edge, _ in changed]

    def part(number, cotangent):
        edge, factor = changed[number]
        return tape.local_cotangents(edge.step, [cotangent], {1 - edge.place: tape.values[factor]})[edge.place]

    names = " and ".join(situation.name_of(edge.source) for edge in (edges[0], edges[-1]))
    detail = f"the factors of {names} in {describe_operation(edges[0].step)} are exchanged by hand in their gradients"
    return Replacement("wrong_operand", detail, change_parts(tape, edges, part))
