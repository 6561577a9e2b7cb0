"""A loss as a list of elementary steps with their values, and its backward pass with rules that can be replaced.

The backward pass runs in NumPy and compiles almost nothing, so hundreds of wrong backward passes can be computed and
compared with a gradient written by hand.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._checks import is_concrete
from funcnn._numerics.program import bind
from funcnn.gradcheck.explanation.derivatives import cotangents, fallback_derivative, to_first_winner
from funcnn.gradcheck.explanation.in_numpy import run_in_numpy

Rule: TypeAlias = Callable[[np.ndarray], Iterable[tuple[int, np.ndarray]]]
"""From the cotangent of a value to the cotangents of earlier values, by number."""

Rules: TypeAlias = Mapping[int, Rule]
"""The rules that replace those of some values."""

_NONE: Mapping[int, Any] = MappingProxyType({})
_PLAIN = {"scatter", "scatter-add", "gather", "dynamic_slice", "dynamic_update_slice", "pad"}
_EXTREMES = ("reduce_max", "reduce_min")
_MAX_STEPS = 3000
MAX_NUMBERS = 30_000_000


class Step(NamedTuple):
    """One elementary operation.

    Fields:
        name: of the primitive; ``scan_slice`` and ``scan_stack`` for what a scan does to its sequences.
        parameters: of the primitive.
        equation: of the program; ``None`` for the two of a scan.
        origin: the equation whose line of code this is: for what a library function does inside, its call.
        inputs, outputs: numbers of values.
    """

    name: str
    parameters: Mapping[str, Any]
    equation: Any
    origin: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Edge(NamedTuple):
    """A use of a value: the step, the operand's place, and the cotangent that it gives to the value."""

    step: Step
    place: int
    part: np.ndarray

    @property
    def source(self) -> int:
        """The number of the value."""
        return self.step.inputs[self.place]


class Tape:
    """A loss at a point: its steps, its values, and its backward pass.

    Attributes:
        steps: every operation, in the order of the loss.
        values: every value by number.
        params: the number of each parameter.
        result: the number of the loss.
        is_active: for each value whether a gradient flows through it.
        sources: for each value the parameters that it is computed from, by their place.
        producer: from a value to the number of the step that computes it.
        consumers: from a value to the numbers of the steps that use it.
        cotangents: the cotangent of each value in the right backward pass; ``None`` without one.
        right_gradient: the gradient of each parameter in it.
        gives_to_first: whether the first of the entries that tie for a maximum takes its cotangent, and they do not
            share it.
    """

    gives_to_first = False

    def __init__(self, params: Sequence[Any], *, ignores_stops: bool = False):
        self.ignores_stops = ignores_stops
        self.steps: list[Step] = []
        self.values: list[Any] = []
        self.params: list[int] = []
        self.result = -1
        self.is_active: list[bool] = []
        self.sources: list[frozenset[int]] = []
        self.producer: dict[int, int] = {}
        self.consumers: dict[int, list[int]] = {}
        self.cotangents: list[np.ndarray | None] = []
        self.right_gradient: list[np.ndarray] = []
        self._constants: dict[int, int] = {}
        self._kept: list[Any] = []
        self._known: dict[Any, tuple[int, ...]] = {}
        self._fallbacks: dict[Any, Callable] = {}
        self.params = [self.add_value(param, is_active=_is_floating(param)) for param in params]
        for place, number in enumerate(self.params):
            self.sources[number] = frozenset([place])

    def add_value(self, value, *, is_active=False) -> int:
        """Record a value and return its number."""
        self.values.append(as_value(value))
        self.is_active.append(is_active)
        self.sources.append(frozenset())
        return len(self.values) - 1

    def constant(self, value) -> int:
        """Return the number of a constant; equal objects have one number."""
        if id(value) not in self._constants:
            self._kept.append(value)
            self._constants[id(value)] = self.add_value(value)
        return self._constants[id(value)]

    def known_outputs(self, name, parameters, inputs) -> list[Any] | None:
        """Return the outputs of an operation that is on the tape already, ``None`` if it isn't."""
        numbers = self._known.get(_key(name, parameters, inputs))
        return None if numbers is None else [self.values[number] for number in numbers]

    def add_step(self, name, parameters, equation, origin, inputs, outputs) -> tuple[int, ...]:
        """Record an operation and return the numbers of its outputs."""
        key = _key(name, parameters, inputs)
        if key is not None and key in self._known:
            return self._known[key]
        if len(self.steps) >= _MAX_STEPS:
            raise ValueError("the program has too many steps")
        active = (name != "stop_gradient" or self.ignores_stops) and any(self.is_active[number] for number in inputs)
        numbers = tuple(self.add_value(out, is_active=active and _is_floating(out)) for out in outputs)
        sources = frozenset().union(*(self.sources[number] for number in inputs))
        for number in numbers:
            self.sources[number] = sources
            self.producer[number] = len(self.steps)
        for number in dict.fromkeys(inputs):
            self.consumers.setdefault(number, []).append(len(self.steps))
        self.steps.append(Step(name, parameters, equation, origin, tuple(inputs), numbers))
        if key is not None:
            self._known[key] = numbers
        return numbers

    def local_cotangents(
        self,
        step: Step,
        given: Sequence[np.ndarray],
        instead: Mapping[int, np.ndarray] = _NONE,
        results: Sequence[np.ndarray] | None = None,
    ) -> list[np.ndarray | None]:
        """Return the cotangent of each input of a step, from those of its outputs, by the right rules.

        ``instead`` has other values for some inputs, by their place, and ``results`` for the outputs.
        """
        inputs = [instead.get(place, self.values[number]) for place, number in enumerate(step.inputs)]
        outputs = [self.values[number] for number in step.outputs] if results is None else results
        active = [self.is_active[number] for number in step.inputs]
        if self.gives_to_first and step.name in _EXTREMES:
            return list(to_first_winner(step.parameters, inputs, outputs, given))
        found = cotangents(step.name, step.parameters, inputs, outputs, given, active)
        if found is not None:
            return found
        key = (_identity(step), tuple(active))
        if key not in self._fallbacks:
            self._fallbacks[key] = fallback_derivative(step.equation, active)
        return self._fallbacks[key](inputs, given)

    def with_first_winners(self) -> "Tape | None":
        """Return the tape on which the first of the entries that tie for a maximum takes its cotangent.

        It is ``None`` if none tie, or if the gradient of a parameter is another one then.
        """
        tape = copy.copy(self)
        tape.gives_to_first = True
        tape.cotangents = tape.backward({tape.result: np.ones_like(tape.values[tape.result])})
        tape.right_gradient = tape.wrong_gradient({})
        is_same = all(map(np.allclose, tape.right_gradient, self.right_gradient))
        has_ties = any(
            ours is not None and other is not None and not np.array_equal(ours, other)
            for step in self.steps if step.name in _EXTREMES
            for ours, other in [(tape.cotangents[step.inputs[0]], self.cotangents[step.inputs[0]])]
        )  # fmt: skip
        return tape if has_ties and is_same else None

    def rule(self, number: int) -> Rule:
        """Return the right rule of a value that is its step's only output."""
        step = self.steps[self.producer[number]]

        def right(cotangent):
            return [
                (source, part)
                for source, part in zip(step.inputs, self.local_cotangents(step, [cotangent]), strict=True)
                if part is not None and self.is_active[source]
            ]

        return right

    def backward(
        self,
        seeds: Mapping[int, np.ndarray],
        rules: Rules = _NONE,
        others: Mapping[int, Any] = _NONE,
    ) -> list[np.ndarray | None]:
        """Return the cotangent of every value, from those of some values.

        Args:
            seeds: the cotangents to begin with.
            rules: instead of the right ones, by the value whose cotangent they take.
            others: what the rules read in the place of some values.
        """
        found: list[np.ndarray | None] = [None] * len(self.values)
        for number, seed in seeds.items():
            found[number] = seed
        last = max((self.producer.get(number, -1) for number in seeds), default=-1)
        for step in reversed(self.steps[: last + 1]):
            given = [found[number] for number in step.outputs]
            if all(part is None for part in given):
                continue
            rule = rules.get(step.outputs[0])
            parts: Iterable[tuple[int, Any]]
            if rule is not None:
                parts = rule(np.asarray(given[0]))
            else:
                full = [
                    np.zeros_like(self.values[number]) if part is None else part
                    for number, part in zip(step.outputs, given, strict=True)
                ]
                instead = (
                    {place: others[number] for place, number in enumerate(step.inputs) if number in others}
                    if others
                    else _NONE
                )
                results = [others.get(number, self.values[number]) for number in step.outputs] if others else None
                parts = zip(step.inputs, self.local_cotangents(step, full, instead, results), strict=True)
            for source, part in parts:
                if part is not None and self.is_active[source]:
                    if np.iscomplexobj(part) and not np.iscomplexobj(self.values[source]):
                        part = part.real
                    before = found[source]
                    found[source] = part if before is None else before + part
        return found

    def gradient(
        self,
        seeds: Mapping[int, np.ndarray],
        rules: Rules = _NONE,
        others: Mapping[int, Any] = _NONE,
    ) -> list[np.ndarray]:
        """Return what the parameters get from the cotangents of some values."""
        found = self.backward(seeds, rules, others)
        return [
            np.zeros_like(self.values[number]) if (part := found[number]) is None else part for number in self.params
        ]

    def wrong_gradient(self, rules: Rules = _NONE, others: Mapping[int, Any] = _NONE) -> list[np.ndarray]:
        """Return the parameters' gradient by a backward pass with other rules, or of other values."""
        return self.gradient({self.result: np.ones_like(self.values[self.result])}, rules, others)

    def replay(self, others: Mapping[int, Any]) -> dict[int, Any]:
        """Return the values that change if some values are others: these, and all that is computed from them."""
        changed = dict(others)
        for step in self.steps:
            if step.outputs[0] in changed or not any(number in changed for number in step.inputs):
                continue
            operands = [changed.get(number, self.values[number]) for number in step.inputs]
            changed.update(zip(step.outputs, map(np.asarray, run_step(step, operands)), strict=True))
        return changed


def _identity(step: Step) -> Any:
    """Return what steps with the same derivative have in common: the operation and the shapes where that is short."""
    if step.name not in _PLAIN:
        return id(step.equation)
    return step.name, str(step.parameters), tuple(str(atom.aval) for atom in step.equation.invars)


def run_step(step: Step, operands: Sequence[Any]) -> Sequence[Any]:
    """Return the outputs of a step for other inputs."""
    if step.name == "scan_slice":
        return [operands[0][step.parameters["index"]]]
    if step.name == "scan_stack":
        return [np.stack(operands)]
    output = run_in_numpy(step.name, step.parameters, operands)
    return [output] if output is not None else bind(step.equation, operands)


def _key(name, parameters, inputs):
    """Return what makes two operations the same, ``None`` for one that calls another program."""
    if any(hasattr(part, "eqns") or hasattr(part, "jaxpr") or callable(part) for part in parameters.values()):
        return None
    return name, str(parameters), tuple(inputs)


def as_value(value):
    """Return a value as an array of NumPy, a random key and one that is traced as they are."""
    dtype = getattr(value, "dtype", None)
    is_extended = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.extended)
    return value if is_extended or not is_concrete(value) else np.asarray(value)


def _is_floating(value) -> bool:
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, float | complex)
    return bool(jnp.issubdtype(dtype, jnp.inexact))
