"""Causes of mistakes on the short way from a parameter to the values around it, in that parameter's gradient alone.

A bias, a gain or a slope has a line of its own in most backward passes, so that only its own gradient is wrong.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from funcnn.gradcheck.explanation.derivatives import SLOPES
from funcnn.gradcheck.explanation.location import describe_operation, location
from funcnn.gradcheck.explanation.search import Change, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Edge, Step
from funcnn.gradcheck.report import Cause

_MOST_STEPS, _MOST_PATHS = 6, 400


def generate_ways_of_leaves(situation: Situation) -> Iterator[Mutation]:
    """Yield each step after a wrong parameter cut, or left out, on the way to it; once or in every iteration."""
    tape = situation.tape
    for number in sorted(situation.target.wrong):
        param = tape.params[number]
        groups: dict[tuple, list[Sequence[Edge]]] = {}
        for path in _paths(situation, param):
            if len(path) > 1:
                groups.setdefault(tuple(_code(edge) for edge in path), []).append(path)
        for paths in groups.values():
            edge = paths[0][-1]
            words = f"on the way to {situation.name_of(param)} alone, {describe_operation(edge.step)}"
            where = f", in {len(paths)} iterations" if len(paths) > 1 else ""
            lost = np.sum([_pull(situation, path, -path[-1].part) for path in paths], axis=0)
            yield Change("lost_path", f"{words} is a path that is left out by hand{where}", {param: lost})
            cotangents = [tape.cotangents[path[-1].step.outputs[0]] for path in paths]
            if all(d is not None and d.shape == path[-1].part.shape for d, path in zip(cotangents, paths, strict=True)):
                cause = _cause_of(tape, edge.step, edge.place)
                skipped = np.sum(
                    [_pull(situation, path, d - path[-1].part) for d, path in zip(cotangents, paths, strict=True)],
                    axis=0,
                )
                if cause is not None:
                    yield Change(cause, f"{words} is left out by hand{where}: the gradient passes", {param: skipped})


def _code(edge) -> tuple:
    return location(edge.step.origin), edge.step.name, edge.place


def _paths(situation, param) -> Iterator[tuple[Edge, ...]]:
    """Yield the ways from a parameter through at most a few steps, the short ones first."""
    paths: list[tuple[Edge, ...]] = [()]
    count = 0
    for _ in range(_MOST_STEPS):
        longer = []
        for path in paths:
            source = path[-1].step.outputs[0] if path else param
            for edge in situation.edges_by_source.get(source, ()):
                if len(edge.step.outputs) == 1 and count < _MOST_PATHS:
                    count += 1
                    longer.append((*path, edge))
                    yield longer[-1]
        paths = longer


def _pull(situation, path, cotangent) -> np.ndarray:
    """Return what a cotangent of the last edge's source gives to the parameter at the beginning of a way."""
    for edge in path[-2::-1]:
        part = situation.tape.local_cotangents(edge.step, [cotangent])[edge.place]
        cotangent = np.zeros_like(situation.tape.values[edge.source]) if part is None else part
    return cotangent


def _cause_of(tape, step: Step, place) -> Cause | None:
    """Return the cause of a step whose derivative is 1 by hand, ``None`` for one whose derivative is a number."""
    if step.name == "select_n":
        return "mask"
    if step.name in ("mul", "div"):
        other = tape.values[step.inputs[1 - place]]
        is_mask = not tape.is_active[step.inputs[1 - place]] and set(np.unique(other)) <= {0.0, 1.0}
        return None if place and step.name == "div" else "mask" if is_mask else "scaled_path"
    return "activation_derivative" if len(step.inputs) == 1 and step.name in SLOPES else None
