"""Cause ``offset_by_parameter``: the penalty of a parameter with another formula, or of a parameter that has none."""

from collections.abc import Iterator

import numpy as np

from funcnn.gradcheck.explanation.search import Known, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge


def generate_penalties(situation: Situation) -> Iterator[Mutation]:
    """Yield the penalties of the loss, as of |w| or w², put on other parameters, left out, or with another formula."""
    tape = situation.tape
    for edge, weight in _penalties(situation):
        slopes = {"2 w": 2 * tape.values[edge.source], "w": tape.values[edge.source]}
        slopes |= {"the sign of w": np.sign(tape.values[edge.source]), "1": np.ones_like(tape.values[edge.source])}
        name = situation.name_of(edge.source)
        for text, slope in slopes.items():
            words = f"the penalty of {name} has by hand the derivative {weight:.6g} times {text}"
            yield _only(situation, tape.params.index(edge.source), weight * slope - edge.part, words)
        for number in sorted(situation.target.wrong):
            param = tape.values[tape.params[number]]
            if tape.params[number] != edge.source and np.isrealobj(param):
                right = 2 * param if edge.step.name != "abs" else np.sign(param)
                other = situation.name_of(tape.params[number])
                words = f"the penalty of {name}, with the weight {weight:.6g}, is put on {other} by hand as well"
                yield _only(situation, number, weight * right, words)


def _penalties(situation) -> Iterator[tuple[Edge, float]]:
    """Yield the absolute values and squares of parameters whose entries all count alike, with their weight."""
    tape = situation.tape
    for edge in situation.edges:
        step = edge.step
        is_square = step.name == "square" or (step.name == "integer_pow" and step.parameters["y"] == 2)
        is_product = step.name == "mul" and step.inputs[0] == step.inputs[1] and edge.place == 0
        if edge.source not in tape.params or not (is_square or is_product or step.name == "abs"):
            continue
        cotangent = tape.cotangents[step.outputs[0]]
        if cotangent is None or np.iscomplexobj(cotangent) or not cotangent.size or np.ptp(cotangent):
            continue
        part = 2 * edge.part if is_product else edge.part
        yield edge._replace(part=part), float(np.ravel(cotangent)[0])


def _only(situation, number, change, words) -> Known:
    """Return a change of the gradient of one parameter."""
    zeros = [np.zeros_like(leaf.reference) for leaf in situation.target.facts.leaves]
    zeros[number] = np.asarray(change)
    return Known("offset_by_parameter", words, zeros)
