"""What the mutations of a backward pass are made from."""

import copy
import functools
from collections.abc import Iterator

import jax
import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.activations import Activation, find_activations
from funcnn.gradcheck.explanation.forward_pass import record, record_values
from funcnn.gradcheck.explanation.iterations import MOST_ITERATIONS, Iterations
from funcnn.gradcheck.explanation.location import describe_operation, location
from funcnn.gradcheck.explanation.problem import Problem
from funcnn.gradcheck.explanation.search import Target
from funcnn.gradcheck.explanation.tape import Edge, Step, Tape

_COPIES = ("device_put", "copy", "copy_p", "convert_element_type", "name", "reshape", "broadcast_in_dim", "transpose")
_BY_CONSTANTS = ("squeeze", "expand_dims", "add", "sub", "mul", "neg")
LAYERS = ("dot_general", "conv_general_dilated")
"""The operations of layers: what follows the last of them is the loss, with the last activation."""


class Situation:
    """A loss at a point, the difference to explain, and what was found in the loss.

    Attributes:
        tape: the loss.
        problem: its parameters, sizes and programs.
        target: the difference.
    """

    def __init__(self, tape: Tape, problem: Problem, target: Target):
        self.tape, self.problem, self.target = tape, problem, target

    def of_one_leaf(self, number: int) -> "Situation":
        """Return the same situation with the difference of one leaf alone."""
        situation = copy.copy(self)
        situation.target = self.target.of_one_leaf(number)
        return situation

    def with_first_winners(self) -> "Situation | None":
        """Return the same situation where the first of the entries that tie for a maximum takes all; ``None`` if no
        entries tie.
        """
        tape = self.tape.with_first_winners()
        return Situation(tape, self.problem, self.target.of_tape(tape)) if tape is not None else None

    @functools.cached_property
    def activations(self) -> list[Activation]:
        """The activations, those that span most steps first."""
        found = [
            activation for activation in find_activations(self.tape)
            if self.tape.cotangents[activation.h] is not None
        ]  # fmt: skip
        return sorted(found, key=lambda activation: (activation.z - activation.h, activation.z))

    def activation_groups(self) -> Iterator[tuple[str, list[Activation]]]:
        """Yield the activations of each kind and of each line of code together, where there are several."""
        seen = []
        by_kind: dict[tuple, list[Activation]] = {}
        for activation in self.activations:
            by_kind.setdefault((activation.kind.name,), []).append(activation)
            step = self.tape.steps[self.tape.producer[activation.h]]
            by_kind.setdefault((activation.kind.name, location(step.origin)), []).append(activation)
        for key, group in by_kind.items():
            numbers = {activation.h for activation in group}
            if len(numbers) > 1 and numbers not in seen:
                seen.append(numbers)
                name = "at every place" if len(key) == 1 else f"at every {self.where(group[0].h)}"
                yield name, group
                if len(group) > 2 and len(key) == 1:
                    yield "at all places but the last", group[:-1]
                    yield "at all places but the first", group[1:]
                lines = {location(self.tape.steps[self.tape.producer[activation.h]].origin) for activation in group}
                for period in (2, 3, 4) if len(lines) == 1 and len(group) > 3 else ():
                    # One line of a loop computes several gates in each iteration.
                    for start in range(period) if len(group) % period == 0 else ():
                        yield f"at one of {period} places, from number {start + 1} on", group[start::period]

    @functools.cached_property
    def active_steps(self) -> list[int]:
        """The numbers of the steps through which the gradient flows."""
        return [
            number for number, step in enumerate(self.tape.steps)
            if any(self.tape.cotangents[output] is not None for output in step.outputs)
            and any(self.tape.is_active[source] for source in step.inputs)
        ]  # fmt: skip

    @functools.cached_property
    def tape_without_stops(self) -> Tape | None:
        """The loss with its ``stop_gradient`` taken out, ``None`` if it has none."""
        has_stops = any(step.name == "stop_gradient" for step in self.tape.steps)
        if not has_stops or self.problem.program is None:
            return None
        return record(self.problem.program, self.problem.params, ignores_stops=True)

    @functools.cached_property
    def _tape_by_hand(self) -> Tape | None:
        """The steps and values of the gradient by hand."""
        program = self.problem.gradient_program
        return record_values(program, self.problem.params) if program is not None else None

    @functools.cached_property
    def iterations_by_hand(self) -> dict[tuple[int, tuple[int, ...]], list[tuple[Step, str, list[np.ndarray]]]]:
        """What the gradient by hand computes by the same code in every iteration, by number of iterations and shape.

        Each has the last step, words, and the arrays.
        """
        tape, lines = self._tape_by_hand, dict[tuple, list[int]]()
        if tape is None:
            return {}
        for step in tape.steps:
            value = tape.values[step.outputs[0]]
            if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind == "f":
                lines.setdefault((location(step.origin), step.name, value.shape), []).append(step.outputs[0])
        found: dict[tuple[int, tuple[int, ...]], list[tuple[Step, str, list[np.ndarray]]]] = {}
        for (_, _, shape), numbers in lines.items():
            for group in (numbers, numbers[::2], numbers[1::2]) if len(numbers) > 3 else (numbers,):
                if 1 < len(group) <= MOST_ITERATIONS:
                    step = tape.steps[tape.producer[group[-1]]]
                    words = f"what the gradient by hand computes as {describe_operation(step)}"
                    values = [tape.values[number] for number in group]
                    found.setdefault((len(group), shape), []).append((step, words, values))
        return found

    @functools.cached_property
    def values_by_hand(self) -> list[tuple[str, np.ndarray]]:
        """The values that the gradient by hand computes and the loss does not, each in words."""
        tape = self._tape_by_hand
        found: list[tuple[str, np.ndarray]] = []
        known: dict[tuple, list[np.ndarray]] = {}
        for value in self.tape.values:
            if isinstance(value, np.ndarray):
                known.setdefault(value.shape, []).append(value)
        computed = [(step, tape.values[number]) for step in tape.steps for number in step.outputs] if tape else []
        for step, value in computed:
            if not isinstance(value, np.ndarray) or value.dtype.kind not in "fb" or value.size < 2:
                continue
            others = known.setdefault(value.shape, [])
            if not any(np.array_equal(value, other) for other in others) and len(found) < 150:
                others.append(value)
                found.append((f"what the gradient by hand computes as {describe_operation(step)}", value))
        return found

    @functools.cached_property
    def constants_by_hand(self) -> list[np.ndarray]:
        """The constant arrays of the gradient by hand."""
        tape = self._tape_by_hand
        given = {*tape.params, *tape.producer} if tape else set[int]()
        values = [value for number, value in enumerate(tape.values) if number not in given] if tape else []
        return [
            value for value in values if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size > 1
        ]

    @functools.cached_property
    def right_by_hand(self) -> set[int]:
        """The values whose right gradient the gradient by hand computes on its way."""
        tape, found = self.tape, set[int]()
        for number, cotangent in enumerate(tape.cotangents):
            if cotangent is None or cotangent.size < 4 or not np.ptp(cotangent) or number in tape.params:
                continue
            size = 1e-9 * max_abs(cotangent)
            if any(
                value.shape == cotangent.shape and np.all(np.abs(value - cotangent) <= size)
                for _, value in self.values_by_hand
                if value.dtype.kind == "f"
            ):
                found.add(number)
        return found

    @functools.cached_property
    def edges(self) -> list[Edge]:
        """Every use of a value through which gradient flows, in the order of the loss."""
        tape, found = self.tape, []
        for number in self.active_steps:
            step = tape.steps[number]
            given = [
                np.zeros_like(tape.values[output]) if (part := tape.cotangents[output]) is None else part
                for output in step.outputs
            ]
            for place, part in enumerate(tape.local_cotangents(step, given)):
                if part is not None and tape.is_active[step.inputs[place]] and np.isfinite(part).all():
                    found.append(Edge(step, place, part))
        return found

    def cotangent(self, number: int) -> np.ndarray:
        """Return the gradient of the loss by a value."""
        cotangent = self.tape.cotangents[number]
        return np.zeros_like(self.tape.values[number]) if cotangent is None else cotangent

    @functools.cached_property
    def repeated(self) -> set[int]:
        """The numbers of the steps that a loop repeats, without the first and the last time.

        A mistake in a loop is made every time, or at its ends.
        """
        lines: dict[tuple, list[int]] = {}
        for number, step in enumerate(self.tape.steps):
            where = location(step.origin)
            if where.line:
                lines.setdefault((where, step.name), []).append(number)
        return {number for numbers in lines.values() if len(numbers) > 2 for number in numbers[1:-1]}

    def is_repeated(self, output: int) -> bool:
        """Whether the step that computes a value is one of these."""
        return self.tape.producer.get(output) in self.repeated

    @functools.cached_property
    def compared(self) -> set[int]:
        """The values after the last layer that are computed from its output and from data that joins it there.

        The data are targets: what is computed from both is the loss, and no activation of the network. So is what is
        computed from all pairs of outputs.
        """
        tape, found = self.tape, set[int]()
        everything, before = tape.sources[tape.result], set[int]()
        for step in tape.steps:
            outputs = [number for number in step.outputs if tape.is_active[number]]
            whole = [n for n in step.inputs if tape.is_active[n] and tape.sources[n] == everything]
            joins = any(np.size(tape.values[n]) > 1 for n in step.inputs if not tape.is_active[n])
            is_output = any(self.origin(n) not in tape.params for n in whole)
            joins = joins or (len(whole) == 2 and self._is_of_pairs(step))
            if found & set(step.inputs) or (step.name not in LAYERS and joins and is_output):
                found.update(outputs)
        for step in reversed(tape.steps):
            if step.name in LAYERS or before & set(step.outputs):
                before.update(step.inputs)
        return found - before

    def _is_of_pairs(self, step: Step) -> bool:
        """Whether a step takes a value along two axes, with nothing done to it but constants added or multiplied."""
        roots = []
        for number in step.inputs:
            while (producer := self.tape.producer.get(number)) is not None:
                before = self.tape.steps[producer]
                active = [n for n in before.inputs if self.tape.is_active[n]]
                if len(active) != 1 or before.name not in (*_COPIES, *_BY_CONSTANTS):
                    break
                number = active[0]
            roots.append(number)
        shape = np.shape(self.tape.values[step.outputs[0]])
        return len({*roots}) == 1 and np.ndim(self.tape.values[roots[0]]) < len(shape)

    @functools.cached_property
    def iterations(self) -> Iterations:
        """What the same code does in each iteration of a loop."""
        return Iterations(self.tape, self.edges, self.name_of)

    @functools.cached_property
    def edges_by_source(self) -> dict[int, list[Edge]]:
        """The uses of each value."""
        found: dict[int, list[Edge]] = {}
        for edge in self.edges:
            found.setdefault(edge.source, []).append(edge)
        return found

    def meaning(self, factor: float) -> str:
        """Return what a factor is in this problem, as the end of a sentence; empty if that isn't clear."""
        for value, name in self.problem.sizes():
            for power, words in ((1, ""), (-1, "one over "), (0.5, "the root of "), (-0.5, "one over the root of ")):
                if value > 1 and abs(factor / value**power - 1) < 1e-7:
                    return f"; that is {words}{name}"
        return ""

    def where(self, number: int) -> str:
        """Return the operation that computes a value, in words."""
        producer = self.tape.producer.get(number)
        return self.name_of(number) if producer is None else describe_operation(self.tape.steps[producer])

    def name_of(self, number: int) -> str:
        """Return a value in words: a parameter's path, or the code that computes it."""
        if number in self.tape.params:
            path = self.target.facts.leaves[self.tape.params.index(number)].path
            return path or "the parameter"
        origin = self.origin(number)
        if origin in self.tape.params:
            return self.name_of(origin)
        if origin not in self.tape.producer:
            shape = np.shape(self.tape.values[number])
            argument = self._argument(origin) if shape else ""
            if argument:
                return argument
            return (
                f"an input of shape {shape}" if shape else f"the number {float(np.real(self.tape.values[number])):.6g}"
            )
        return self.where(number)

    def _argument(self, number: int) -> str:
        """Return the path of the argument that a constant is, empty if it is none."""
        value = self.tape.values[number]
        if not isinstance(value, np.ndarray):
            return ""
        for position, argument in enumerate(self.problem.arguments):
            for path, leaf in jax.tree_util.tree_leaves_with_path(argument):
                if (
                    np.shape(leaf) == np.shape(value)
                    and getattr(leaf, "dtype", None) == value.dtype
                    and np.array_equal(leaf, value)
                ):
                    return f"argument {position + 1} after the parameters{jax.tree_util.keystr(path)}"
        return ""

    def origin(self, number: int) -> int:
        """Return the value of which a value is a copy."""
        producer = self.tape.producer.get(number)
        while producer is not None and self.tape.steps[producer].name in _COPIES:
            number = self.tape.steps[producer].inputs[0]
            producer = self.tape.producer.get(number)
        return number

    @functools.cached_property
    def of_shape(self) -> dict[tuple, list[int]]:
        """The numbers of all floating and boolean values by their shape, no value twice."""
        found: dict[tuple, list[int]] = {}
        for number, value in enumerate(self.tape.values):
            if isinstance(value, np.ndarray) and value.dtype.kind in "fbc" and value.size > 1:
                others = found.setdefault(value.shape, [])
                if not any(np.array_equal(value, self.tape.values[other]) for other in others[-30:]):
                    others.append(number)
        return found
