"""The iterations of a loop: what the same code computes each time, in a loop of Python or in a scan."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from funcnn.gradcheck.explanation.location import call_stack
from funcnn.gradcheck.explanation.tape import Edge, Rule, Step, Tape

MOST_ITERATIONS = 64


class Iterations:
    """The steps, the uses and the values of a loss, grouped by the code that they come from.

    Attributes:
        uses: groups of uses of values, one of each iteration, in the order of the loss.
        values: groups of values of one shape likewise, and what each group of uses reads beside its own value.
    """

    def __init__(self, tape: Tape, edges: Sequence[Edge], name_of: Callable[[int], str]):
        self._tape, self._edges, self._name_of = tape, edges, name_of
        self._codes: dict[int, Any] = {}
        self.uses = self._group_uses()
        self.values = self._group_values()

    def _code(self, step: Step) -> tuple:
        """Return the code of a step: its calls, and inside a library function its place there."""
        if id(step.origin) not in self._codes:
            self._codes[id(step.origin)] = call_stack(step.origin)
        inside = id(step.equation) if step.equation is not step.origin and step.equation is not None else 0
        return (*self._codes[id(step.origin)], step.name, inside)

    def _group_uses(self) -> list[list[Edge]]:
        found: dict[tuple, list[Edge]] = {}
        for edge in self._edges:
            if len(edge.step.outputs) == 1:
                found.setdefault((self._code(edge.step), edge.place, edge.part.shape), []).append(edge)
        return [group for key, group in found.items() if 1 < len(group) <= MOST_ITERATIONS and len(key[0]) > 2]

    def _group_values(self) -> list[tuple[int, ...]]:
        tape, found = self._tape, dict[tuple, list[int]]()
        for step in tape.steps:
            for place, output in enumerate(step.outputs):
                value = tape.values[output]
                if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
                    found.setdefault((self._code(step), place, value.shape), []).append(output)
        groups = [tuple(group) for group in found.values() if 1 < len(group) <= MOST_ITERATIONS + 1]
        read = [tuple(_beside(edge) for edge in group) for group in self.uses if len(group[0].step.inputs) == 2]
        return list(dict.fromkeys([*groups, *(group for group in read if len(set(group)) > 1)]))

    def rows(self, own: Sequence[int]) -> Iterator[tuple[str, bool, list[np.ndarray]]]:
        """Yield what may stand in the place of a value of each iteration: words, whether it is the same value of
        another iteration, and the arrays. Values by other code come first, then those of the iterations beside.
        """
        tape, count = self._tape, len(own)
        shape = np.shape(tape.values[own[0]])
        fitting = [group for group in self.values if np.shape(tape.values[group[0]]) == shape]
        name = self._name_of(own[-1])
        seen = {tuple(own)}
        for extra in (0, 1):
            for group in fitting:
                for start in range(extra + 1):
                    chosen = group[start : start + count]
                    if len(group) != count + extra or chosen in seen:
                        continue
                    seen.add(chosen)
                    moved = _move(own, chosen)
                    text = f"{name} of the {moved}" if moved else self._name_of(chosen[-1])
                    yield text, bool(moved), [tape.values[number] for number in chosen]
        arrays = [tape.values[number] for number in own]
        nothing = np.zeros_like(arrays[0])
        for end, words in ((None, ""), (nothing, ", and 0 at the end")):
            yield f"{name} of the next iteration{words}", True, [*arrays[1:], arrays[-1] if end is None else end]
            yield f"{name} of the iteration before{words}", True, [arrays[0] if end is None else end, *arrays[:-1]]
        yield f"{name} of the next iteration, around the end", True, [*arrays[1:], arrays[0]]
        yield f"{name} of the iteration before, around the end", True, [arrays[-1], *arrays[:-1]]
        if count > 2:
            yield f"{name} of the iterations in reversed order", False, arrays[::-1]


def _beside(edge: Edge) -> int:
    """Return the other operand of a step of two."""
    return edge.step.inputs[1 - edge.place]


def _move(own, chosen) -> str:
    """Return the iteration of which some values are those of another group; empty if they are others."""
    if tuple(own[1:]) == tuple(chosen[:-1]):
        return "next iteration"
    return "iteration before" if tuple(own[:-1]) == tuple(chosen[1:]) else ""


def elementwise(source: int, factor: np.ndarray | float) -> Rule:
    """Return the rule that gives a value its result's cotangent times a factor."""
    return lambda cotangent: [(source, factor * cotangent)]


def change_parts(
    tape: Tape, group: Sequence[Edge], change: Callable[[int, np.ndarray], np.ndarray | None]
) -> dict[int, Rule]:
    """Return the rules of a backward pass in which some uses give other cotangents to their values.

    Args:
        tape: the loss.
        group: the uses.
        change: from a use's place in the group and the cotangent of its step's result to what it gives; ``None`` for
            nothing.
    """
    by_output: dict[int, list[int]] = {}
    for number, edge in enumerate(group):
        by_output.setdefault(edge.step.outputs[0], []).append(number)

    def make(numbers) -> Rule:
        step = group[numbers[0]].step

        def rule(cotangent):
            parts = tape.local_cotangents(step, [cotangent])
            for number in numbers:
                parts[group[number].place] = change(number, cotangent)
            return [(source, part) for source, part in zip(step.inputs, parts, strict=True) if part is not None]

        return rule

    return {output: make(numbers) for output, numbers in by_output.items()}
