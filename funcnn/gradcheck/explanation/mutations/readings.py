"""Causes of a backward pass that reads other values than the loss computes: of weights, masks, and constants."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn._numerics.program import jaxpr_constants
from funcnn._tree_checks import same_structure
from funcnn.gradcheck.explanation.activations import descendants
from funcnn.gradcheck.explanation.location import describe_operation
from funcnn.gradcheck.explanation.numbers import format_factor
from funcnn.gradcheck.explanation.search import Known, Misreading, Mutation
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import run_step
from funcnn.gradcheck.report import Cause

_MOVES = {
    *("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "convert_element_type", "copy", "slice"),
    *("dynamic_slice", "gather", "split", "rev", "device_put"),
}
_RATES = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.001, 1e-4)
_MOST_SITES = 40
_MOST_PREFIXES = 40


def generate_other_weights(situation: Situation) -> Iterator[Mutation]:
    """Yield each parameter read on the way back as another array: transposed, reversed, moved, or another."""
    tape = situation.tape
    for param in tape.params:
        name, value = situation.name_of(param), tape.values[param]
        for cause, text, other in _other_arrays(situation, value):
            yield Misreading(cause, f"on the way back {name} is read {text}", move_values(tape, {param: other}))
    for number in _sliced(tape):
        value = tape.values[number]
        for axis in range(np.ndim(value)):
            for move in (1, -1):
                if value.shape[axis] > 2:
                    moved = move_values(tape, {number: np.roll(value, move, axis)})
                    del moved[number]
                    words = f"{situation.name_of(number)} moved by {move} along axis {axis}"
                    yield Misreading("shifted", f"on the way back {words} is read", moved)


def generate_updated_parameters(situation: Situation) -> Iterator[Mutation]:
    """Yield each parameter, and all together, read on the way back after their own update."""
    tape, leaves = situation.tape, situation.target.facts.leaves
    words = "after its own update by a step of"
    for param, leaf in zip(tape.params, leaves, strict=True):
        value = tape.values[param]
        for rate in _rates(situation) if leaf.by_hand.shape == value.shape and value.ndim else ():
            detail = f"on the way back {situation.name_of(param)} is read {words} {format_factor(rate, 1e-9)}"
            yield Misreading("updated_weights", detail, move_values(tape, {param: value - rate * leaf.by_hand}))
    for rate in _rates(situation):
        updated = {
            param: tape.values[param] - rate * leaves[number].by_hand
            for number, param in enumerate(tape.params)
            if np.issubdtype(tape.values[param].dtype, np.floating)
            and leaves[number].by_hand.shape == tape.values[param].shape
        }
        if len(updated) > 1:
            yield Misreading(
                "updated_weights",
                f"on the way back the weights are read after their own update by a step of {format_factor(rate, 1e-9)}",
                move_values(tape, updated),
            )


def _sliced(tape) -> list[int]:
    """Return the values of which several slices are taken, as a convolution by hand does."""
    slices = {number: [tape.steps[position].name for position in used] for number, used in tape.consumers.items()}
    return [number for number, names in slices.items() if names.count("slice") > 1 and np.ndim(tape.values[number])][
        :10
    ]


def _other_arrays(situation, value) -> Iterator[tuple[Cause, str, np.ndarray]]:
    tape = situation.tape
    if value.ndim >= 2 and value.shape[-1] == value.shape[-2]:
        yield "transposed", "transposed where the loss does not, and the other way round", np.swapaxes(value, -1, -2)
    if value.ndim > 2:
        axes = [(axis,) for axis in range(value.ndim)] + list(itertools.combinations(range(value.ndim), 2))
        for some in axes:
            yield "kernel_flipped", f"reversed along axis {', '.join(map(str, some))}", np.flip(value, some)
        for axis in range(value.ndim):
            size = value.shape[axis]
            for kept in range(size) if size <= 9 else ():
                shape = [-1 if other == axis else 1 for other in range(value.ndim)]
                only = value * (np.arange(size) == kept).reshape(shape)
                yield "lost_path", f"with entry {kept} of axis {axis} alone", only
    for axis in range(value.ndim):
        for step in (1, -1):
            if value.shape[axis] > 2:
                yield "shifted", f"moved by {step} along axis {axis}", np.roll(value, step, axis)
    for other in situation.of_shape.get(value.shape, ())[:40]:
        if (not np.array_equal(tape.values[other], value) and not tape.is_active[other]) or other in tape.params:
            yield "wrong_operand", f"as {situation.name_of(other)}", np.asarray(tape.values[other], value.dtype)


def _rates(situation) -> list[float]:
    """Return the numbers that may be a learning rate: those that the gradient by hand uses, and the usual ones."""
    program = situation.problem.gradient_program
    constants = (
        [jnp.asarray(c) if isinstance(c, float) else c for c in jaxpr_constants(program.jaxpr)] if program else []
    )
    constants = [c for c in constants if hasattr(c, "dtype")]
    own = [
        abs(float(c))
        for c in constants
        if np.ndim(c) == 0 and jnp.issubdtype(c.dtype, jnp.floating) and 0 < abs(float(c)) < 2
    ]
    return list(dict.fromkeys([*own[:8], *_RATES]))


def move_values(tape, others):
    """Return the values that change with some values, through operations that only move numbers."""
    changed = dict(others)
    reached = set().union(*(descendants(tape, number) for number in others)) if others else set()
    positions = sorted({tape.producer[number] for number in reached if number in tape.producer})
    for position in positions:
        step = tape.steps[position]
        is_moved = step.name in (*_MOVES, "scan_slice") and step.inputs[0] in changed
        if is_moved and not any(number in changed for number in step.inputs[1:]):
            operands = [changed.get(number, tape.values[number]) for number in step.inputs]
            changed.update(zip(step.outputs, map(np.asarray, run_step(step, operands)), strict=True))
    return changed


def generate_other_losses(situation: Situation) -> Iterator[Mutation]:
    """Yield the gradient of the loss without one mask, factor, or summand; on the whole way back or a part of it."""
    tape = situation.tape
    for cause, text, others in itertools.islice(_other_forwards(situation), _MOST_SITES):
        try:
            changed = tape.replay(others)
        except Exception:  # an operation that takes no other values
            continue
        if any(not np.isfinite(value).all() for value in changed.values() if value.dtype.kind == "f"):
            changed = {
                number: np.nan_to_num(value) if value.dtype.kind == "f" else value for number, value in changed.items()
            }
        yield Misreading(cause, f"it is the gradient of the loss {text}", changed)
        numbers = sorted(changed)
        for end in numbers[:-1][:_MOST_PREFIXES]:
            prefix = {number: changed[number] for number in numbers if number <= end}
            yield Misreading(cause, f"on the way back {situation.where(end)} is computed {text}", prefix)
        for number in numbers[:_MOST_PREFIXES]:
            yield Misreading(
                cause, f"on the way back {situation.where(number)} is computed {text}", {number: changed[number]}
            )


def _other_forwards(situation) -> Iterator[tuple[Cause, str, dict[int, np.ndarray]]]:
    """Yield the cause, the words and the values of losses that differ from this one by one step."""
    yield from _without_constants(situation)
    yield from _without_passive_steps(situation)
    yield from _with_moved_inputs(situation)


def _without_constants(situation) -> Iterator[tuple[Cause, str, dict[int, np.ndarray]]]:
    """Yield the loss without a mask, or without a constant that is added or multiplied."""
    tape = situation.tape
    for position in situation.active_steps:
        step = tape.steps[position]
        output = step.outputs[0]
        shape = np.shape(tape.values[output])
        words = describe_operation(step)
        passive = [place for place, number in enumerate(step.inputs) if not tape.is_active[number]]
        if step.name == "select_n" and len(step.inputs) == 3:
            for place in (1, 2):
                if tape.is_active[step.inputs[place]]:
                    yield (
                        "mask",
                        f"without the mask in {words}",
                        {output: np.broadcast_to(tape.values[step.inputs[place]], shape)},
                    )
        elif step.name in ("mul", "div", "add", "sub") and len(passive) == 1 and passive != [0] * (step.name == "div"):
            kept = tape.values[step.inputs[1 - passive[0]]]
            constant = tape.values[step.inputs[passive[0]]]
            is_mask = step.name == "mul" and np.size(constant) > 1 and set(np.unique(constant)) <= {0.0, 1.0}
            names: dict[str, Cause] = {"mul": "mask" if is_mask else "scaled_path", "div": "scaled_path"}
            if np.shape(kept) == shape:
                sign = -1.0 if step.name == "sub" and passive == [0] else 1.0
                yield names.get(step.name, "wrong_operand"), f"without the constant in {words}", {output: sign * kept}


def _without_passive_steps(situation) -> Iterator[tuple[Cause, str, dict[int, np.ndarray]]]:
    """Yield the loss with an operand in the place of a result, among what no parameter reaches."""
    tape = situation.tape
    for step in tape.steps:
        output = step.outputs[0]
        value = tape.values[output]
        is_passive = not any(tape.is_active[number] for number in (*step.inputs, output))
        if not is_passive or step.name not in ("add", "sub", "mul", "div", "select_n") or np.size(value) < 3:
            continue
        for number in step.inputs:
            part = tape.values[number]
            if isinstance(part, np.ndarray) and part.dtype == value.dtype and part.shape == value.shape:
                words = f"with {situation.name_of(number)} in the place of {situation.where(output)}"
                yield "mask" if step.name == "select_n" else "wrong_operand", words, {output: part}


def _with_moved_inputs(situation) -> Iterator[tuple[Cause, str, dict[int, np.ndarray]]]:
    """Yield the loss with an input moved by one along an axis."""
    tape = situation.tape
    for number, value in enumerate(tape.values):
        if (
            number not in tape.producer
            and not tape.is_active[number]
            and isinstance(value, np.ndarray)
            and value.dtype.kind in "fb"
            and value.size > 2
        ):
            for axis in range(value.ndim):
                if value.shape[axis] > 2:
                    for move in (1, -1):
                        yield (
                            "shifted",
                            f"with {situation.name_of(number)} moved by {move} along axis {axis}",
                            {number: np.roll(value, move, axis)},
                        )


def generate_other_inputs(situation: Situation) -> Iterator[Mutation]:
    """Yield the way back with one input in the place of another, as for targets, and with positions off by one."""
    tape = situation.tape
    passive = [
        number for number, value in enumerate(tape.values)
        if not tape.is_active[number] and isinstance(value, np.ndarray) and value.size > 1
        and value.dtype.kind in "iufb" and not tape.sources[number] and number in tape.consumers
    ]  # fmt: skip
    outer = [number for number in passive if tape.producer.get(number) is None or _is_cut(tape, number)]
    pairs = [
        (number, other) for number, other in itertools.permutations(outer[:_MOST_SITES], 2)
        if tape.values[number].shape == tape.values[other].shape
        and tape.values[number].dtype == tape.values[other].dtype
        and not np.array_equal(tape.values[number], tape.values[other])
    ][:_MOST_SITES]  # fmt: skip
    changes: list[tuple[Cause, str, dict[int, np.ndarray]]] = [
        (*_reading(situation, number, other), {number: tape.values[other]}) for number, other in pairs
    ]
    for number in passive[:_MOST_SITES]:
        value, name = tape.values[number], situation.name_of(number)
        step = tape.steps[tape.producer[number]] if number in tape.producer else None
        changes += [
            ("shifted", f"{name} is read one step further along axis {axis}", {number: value + step})
            for axis, steps in _constant_steps(value)
            for step in (steps, -steps)
        ]
        if step is not None and step.name == "iota":
            changes += [("shifted", f"{name} is read off by {move}", {number: value + move}) for move in (1, -1)]
        elif value.dtype.kind in "iu" and number in outer:
            changes += [
                ("shifted", f"{name} is read moved by {move} along axis {axis}", {number: np.roll(value, move, axis)})
                for axis in range(value.ndim)
                for move in (1, -1)
                if value.shape[axis] > 2
            ]
    for cause, text, others in changes:
        try:
            changed = tape.replay(others)
        except Exception:  # an operation that takes no other values
            continue
        yield Misreading(cause, f"on the way back {text}", changed)
        still = {number: value for number, value in changed.items() if not tape.is_active[number]}
        yield Misreading(cause, f"on the way back {text}", still)


def generate_rotations(situation: Situation) -> Iterator[Mutation]:
    """Yield the rotations by a table of cosines and sines, as for rotary positions, by another angle on the way back.

    A table is two inputs with c² + s² = 1. The angle is that of the position beside, or has the same sign.
    """
    tape = situation.tape
    tables = [
        number for number, value in enumerate(tape.values)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim and value.size > 2
        and not tape.is_active[number] and number in tape.consumers and np.ptp(value) and max_abs(value) <= 1
    ][:_MOST_SITES]  # fmt: skip
    for cosine, sine in itertools.permutations(tables, 2):
        c, s = tape.values[cosine], tape.values[sine]
        if c.shape != s.shape or np.any(np.abs(c**2 + s**2 - 1) > 1e-6):
            continue
        cosines = [number for number in tables if np.array_equal(tape.values[number], c)]
        sines = [number for number in tables if np.array_equal(tape.values[number], s)]
        words = f"on the way back the rotation by {situation.name_of(cosine)} and {situation.name_of(sine)} is"
        yield Misreading("transposed", f"{words} in the same direction, and not back", dict.fromkeys(sines, -s))
        for axis in range(c.ndim):
            turned = (c + 1j * s) * np.roll(c - 1j * s, 1, axis)
            steps = np.delete(turned, 0, axis)
            if (
                c.shape[axis] < 3
                or np.any(np.abs(steps - np.take(steps, [0], axis)) > 1e-6)
                or np.all(np.abs(steps - 1) < 1e-6)
            ):
                continue
            for step, word in ((np.take(steps, [0], axis), "next"), (np.take(steps, [0], axis).conj(), "previous")):
                other = (c + 1j * s) * step
                text = f"{words} that of the {word} position along axis {axis}"
                others = dict.fromkeys(cosines, other.real) | dict.fromkeys(sines, other.imag)
                yield Misreading("shifted", text, others)
                yield Misreading("shifted", text, {cosine: other.real, sine: other.imag})


def _reading(situation, number, other) -> tuple[Cause, str]:
    """Return the cause and the words of one input in the place of another: two sides of a choice are a mask's."""
    tape = situation.tape
    for position in tape.consumers.get(number, ()):
        step = tape.steps[position]
        if step.name == "select_n" and other in step.inputs[1:] and number in step.inputs[1:]:
            return "mask", f"the mask in {describe_operation(step)} is left out"
    return "wrong_operand", f"{situation.name_of(other)} is read for {situation.name_of(number)}"


def _constant_steps(value) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the axes along which the entries of floating positions are equally far apart, and how far."""
    for axis in range(value.ndim) if value.dtype.kind == "f" else ():
        steps = np.diff(value, axis=axis)
        if value.shape[axis] > 2 and steps.any() and np.abs(np.ptp(steps, axis=axis)).max() <= 1e-12 * max_abs(value):
            yield axis, np.take(steps, [0], axis)


def _is_cut(tape, number) -> bool:
    return tape.steps[tape.producer[number]].name in _MOVES | {"scan_slice", "iota"}


def generate_other_points(situation: Situation) -> Iterator[Mutation]:
    """Yield the gradient at other parameters: after the update, or at arrays among the arguments."""
    tape = situation.tape
    right = tape.right_gradient
    points: list[tuple[Cause, str, dict[int, np.ndarray]]] = [
        (
            "updated_weights",
            f"at the parameters after an update by a step of {format_factor(rate, 1e-9)}",
            {param: tape.values[param] - rate * gradient for param, gradient in zip(tape.params, right, strict=True)},
        )
        for rate in _rates(situation)[:12]
    ]
    others = _same_tree(situation)
    if others:
        points.append(
            ("wrong_operand", "at other parameters, among the arguments", dict(zip(tape.params, others, strict=True)))
        )
    for cause, text, values in points:
        try:
            there = tape.wrong_gradient({}, tape.replay(values))
        except Exception:  # an operation that takes no other values
            continue
        yield Known(cause, f"it is the gradient {text}", [new - old for new, old in zip(there, right, strict=True)])
        if others and cause == "wrong_operand":
            yield Known("accumulated", f"the gradient {text} is added", there)
    if others:
        for factor in (1.0, 0.9, 0.99, 0.5, 0.1, *_rates(situation)):
            yield Known(
                "accumulated",
                f"{format_factor(factor, 1e-9)} times arrays among the arguments is added, as for momentum",
                [factor * other for other in others],
            )


def _same_tree(situation) -> list[np.ndarray] | None:
    """Return the leaves of an argument that is a tree like the parameters."""
    params = situation.problem.params
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(params)]
    for argument in situation.problem.arguments:
        if (
            same_structure(argument, params)
            and shapes == [np.shape(leaf) for leaf in jax.tree.leaves(argument)]
            and any(shapes)
        ):
            return [np.asarray(leaf) for leaf in jax.tree.leaves(argument)]
    return None
