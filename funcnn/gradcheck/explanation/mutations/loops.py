"""Causes of mistakes that a backward pass makes in every iteration of a loop, or at one of its ends."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from funcnn.gradcheck.explanation.activations import Activation, descendants
from funcnn.gradcheck.explanation.iterations import MOST_ITERATIONS, Iterations, change_parts, elementwise
from funcnn.gradcheck.explanation.location import call_stack, describe_operation
from funcnn.gradcheck.explanation.search import Change, Misreading, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import LAYERS, Situation
from funcnn.gradcheck.explanation.tape import Edge
from funcnn.gradcheck.report import Cause

_PRODUCTS = {"dot_general": (0, 1), "mul": (0, 1), "div": (0,)}
_ORDER = {"dot_general": 0, "mul": 1, "div": 2}
_MOST_SIZES = 12
_FACTORS: tuple[tuple[float, Cause, str], ...] = (
    (0.0, "lost_path", "left out"),
    (2.0, "scaled_path", "counted twice"),
    (-1.0, "scaled_path", "taken with the other sign"),
)


def generate_paths_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the uses of a value in every iteration lost or off by a factor, and the chain of the iterations cut."""
    iterations = situation.iterations
    by_values: dict[tuple, list[list[Edge]]] = {}
    for group in iterations.uses:
        sources = tuple(edge.source for edge in group)
        if len(set(sources)) == len(sources):
            by_values.setdefault(sources, []).append(group)
        for factor, cause, words in _FACTORS:
            detail = f"the path through {describe_operation(group[0].step)} is {words} by hand, in every iteration"
            yield _scaled(situation, group, factor, cause, detail)
        is_of_iterations = len(group) > 2 and len(set(sources)) == len(sources)
        for lost, which in ((group[:-1], "last"), (group[1:], "first")) if is_of_iterations else ():
            words = f"the path through {describe_operation(group[0].step)} is left out by hand"
            detail = f"{words}, in every iteration but the"
            yield _scaled(situation, lost, 0.0, "lost_path", f"{detail} {which}")
    for sources, groups in by_values.items():
        for factor, cause, words in _FACTORS if len(groups) > 1 else ():
            detail = f"the gradient of {situation.name_of(sources[-1])}, in all of its uses, is {words} by hand"
            together = [edge for group in groups for edge in group]
            yield _scaled(situation, together, factor, cause, f"{detail}, in every iteration")
    chains = {sources: groups for sources, groups in by_values.items() if _is_chain(situation, groups)}
    for sources, groups in chains.items():
        name = situation.name_of(sources[-1])
        yield from _cuts(situation, [name], [[edge for group in groups for edge in group]], len(sources))
        for first, second in itertools.combinations(groups, 2):
            operations = f"{describe_operation(first[0].step)} and {describe_operation(second[0].step)}"
            detail = f"the paths through {operations} are left out by hand, in every iteration"
            yield _scaled(situation, [*first, *second], 0.0, "lost_path", detail)
        if len(groups) > 2:
            for kept in groups:
                cut = [edge for other in groups if other is not kept for edge in other]
                words = f"of the uses of {name} only that in {describe_operation(kept[0].step)} counts by hand"
                yield _scaled(situation, cut, 0.0, "lost_path", f"{words}, in every iteration")
    states = {sources for sources, groups in chains.items() if len(groups) > 1 or groups[0][0].step.name in LAYERS}
    pairs = [pair for pair in itertools.combinations(chains.items(), 2) if pair[0][0] in states or pair[1][0] in states]
    pairs.sort(key=lambda pair: pair[0][0] not in states or pair[1][0] not in states)
    for (one, some), (another, others) in pairs:
        if len(one) == len(another):
            names = [situation.name_of(one[-1]), situation.name_of(another[-1])]
            both = [[edge for group in groups for edge in group] for groups in (some, others)]
            yield from _cuts(situation, names, both, len(one))


def _is_chain(situation, groups) -> bool:
    """Whether each value of these is computed from the one before."""
    sources = [edge.source for edge in groups[0]]
    below = {edge.step.outputs[0] for group in groups for edge in group[:1]}
    for step in situation.tape.steps[situation.tape.producer.get(sources[0], -1) + 1 :]:
        if any(number in below for number in step.inputs):
            below |= set(step.outputs)
            if sources[1] in below:
                return True
    return False


def _cuts(situation, names, chains: Sequence[Sequence[Edge]], count) -> Iterator[Mutation]:
    """Yield chains cut in every iteration, in one iteration, and in every few iterations."""
    name = " and ".join(names)
    cuts = [set(range(count)), *({iteration} for iteration in range(count))]
    cuts += [set(range(start, count, every)) for every in range(2, count) for start in range(every)]
    cuts += [set(range(count - 1)), set(range(1, count))]
    for cut in cuts:
        edges = [
            edge for chain in chains for place, edge in enumerate(chain) if place % count in cut
        ]  # fmt: skip
        numbers = ", ".join(str(iteration + 1) for iteration in sorted(cut))
        where = "in every iteration" if len(cut) == count else f"in iteration{'s' * (len(cut) > 1)} {numbers}"
        text = f"the gradient does not go on by hand from {name} to the iteration before, {where} of {count}"
        yield _scaled(situation, edges, 0.0, "lost_path", text)


def _scaled(situation, group: Sequence[Edge], factor, cause: Cause, detail) -> Mutation:
    if len({edge.source for edge in group}) == 1:
        return Change(cause, detail, {group[0].source: (factor - 1) * sum(edge.part for edge in group)})
    tape = situation.tape

    def change(number, cotangent):
        edge = group[number]
        part = tape.local_cotangents(edge.step, [cotangent])[edge.place]
        return factor * part if factor and part is not None else None

    return Replacement(cause, detail, change_parts(tape, group, change))


def generate_operands_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the products of every iteration with other values in the place of one operand."""
    iterations: Iterations = situation.iterations
    groups = [
        group for group in iterations.uses
        if group[0].place in _PRODUCTS.get(group[0].step.name, ())
        and not situation.target.is_right_before(edge.source for edge in group)
    ]  # fmt: skip
    groups.sort(key=lambda group: _ORDER[group[0].step.name])
    for rearranged in (False, True):
        for group in groups:
            own = [edge.step.inputs[1 - edge.place] for edge in group]
            arrays = [situation.tape.values[number] for number in own]
            words = (
                f"the gradient of {situation.name_of(group[-1].source)} in {describe_operation(group[0].step)} takes "
                f"{situation.name_of(own[-1])}"
            )
            if rearranged:
                for cause, text, change in _rearrangements(group[0], arrays):
                    others = [change(array) for array in arrays]
                    yield _with_operands(situation, group, others, cause, f"{words}; by hand it takes {text}")
                yield from _untransposed_parts(situation, group, arrays, words)
                yield from _without_factor(situation, group, words)
            elif arrays[0].ndim and len(set(own)) > 1:
                for text, is_moved, others in iterations.rows(own):
                    # A factor of the loop that is the next iteration's is this one's new value: another operand.
                    is_new = group[0].step.name == "mul" and situation.tape.is_active[own[-1]] and "of the next" in text
                    cause = "shifted" if is_moved and not is_new else "wrong_operand"
                    detail = f"{words}; by hand it takes {text}, in every iteration"
                    yield _with_operands(situation, group, others, cause, detail)


def generate_numbers_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the products with a number in every iteration, as of the scale of scores, by another number."""
    tape = situation.tape
    sizes = sorted({size for value in tape.values for size in np.shape(value) if 1 < size})[:_MOST_SIZES]
    for group in situation.iterations.uses:
        if group[0].step.name not in ("mul", "div"):
            continue
        numbers = {tuple(np.unique(tape.values[edge.step.inputs[1 - edge.place]])) for edge in group}
        if len(numbers) > 1 or any(tape.is_active[edge.step.inputs[1 - edge.place]] for edge in group):
            continue
        (number, *more) = numbers.pop()
        if more or not number or (group[0].place and group[0].step.name == "div"):
            continue
        words = f"the path through {describe_operation(group[0].step)} is off by hand by the factor"
        own = {f"{number:.6g}, which is in it twice": number, f"{1 / number:.6g}: the number is left out": 1 / number}
        for size, power in itertools.product(sizes, (-0.5, 0.5, -1.0, 1.0)):
            own.setdefault(f"{size**power:.6g}, that is {size} to the power of {power:g}", size**power)
        for text, factor in own.items():
            yield _scaled(situation, group, factor, "scaled_path", f"{words} {text}, in every iteration")


def generate_terms_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the losses of iterations, as of parts of a batch, each counted again with later ones, or the last alone.

    That is a buffer of gradients that is not cleared after each part, or one that is overwritten.
    """
    tape, lines = situation.tape, dict[tuple, list[int]]()
    for position in situation.active_steps:
        step, number = tape.steps[position], tape.steps[position].outputs[0]
        if not np.ndim(tape.values[number]) and tape.cotangents[number] is not None:
            lines.setdefault((call_stack(step.origin), step.name), []).append(number)
    for numbers in lines.values():
        count = len(numbers)
        is_chain = any(number in descendants(tape, numbers[0]) for number in numbers[1:])
        if not 1 < count <= MOST_ITERATIONS or is_chain:
            continue
        words = f"of {count} losses, each {situation.where(numbers[0])},"
        ways: tuple[tuple[Cause, str, np.ndarray], ...] = (
            ("accumulated", "every one is counted by hand again with each that follows", np.arange(count, 0, -1)),
            ("lost_path", "the last alone counts by hand", np.arange(count) == count - 1),
        )
        for cause, text, times in ways:
            seeds = {
                number: (weight - 1.0) * situation.cotangent(number)
                for number, weight in zip(numbers, times, strict=True)
                if weight != 1
            }
            yield Change(cause, f"{words} {text}", seeds)


def generate_states_of_other_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the values of every iteration read as those of the one beside, and the sums with them, on the way back.

    What else is computed from them is read as it is.
    """
    tape, seen = situation.tape, set[int]()
    for group in situation.iterations.uses:
        own = list(dict.fromkeys(edge.source for edge in group))
        if len(own) < 2 or own[-1] in seen or np.ndim(tape.values[own[-1]]) < 1:
            continue
        seen.add(own[-1])
        for text, is_moved, others in situation.iterations.rows(own):
            if is_moved:
                changed = dict(zip(own, others, strict=True))
                sums: dict[int, np.ndarray] = {}
                for number, other in changed.items():
                    sums |= _sums(tape, number, other - tape.values[number])
                detail = f"{situation.name_of(own[-1])} is read by hand as {text}, in every iteration"
                yield Misreading("shifted", detail, {**sums, **changed})


def _sums(tape, number, change) -> dict[int, np.ndarray]:
    """Return the sums and differences of a value and something else, if the value is another."""
    found = {}
    for position in tape.consumers.get(number, ()):
        step = tape.steps[position]
        if step.name in ("add", "sub") and step.inputs[0] != step.inputs[1]:
            sign = -1 if step.name == "sub" and step.inputs[1] == number else 1
            found[step.outputs[0]] = tape.values[step.outputs[0]] + sign * change
    return found


def _without_factor(situation, group, words) -> Iterator[Mutation]:
    """Yield products of two factors with one left out both on the way back and where the product is read."""
    tape, consumers = situation.tape, dict[int, list[Edge]]()
    if group[0].step.name != "mul":
        return
    for edge in situation.edges:
        if edge.place in _PRODUCTS.get(edge.step.name, ()):
            consumers.setdefault(edge.step.inputs[1 - edge.place], []).append(edge)
    read = {edge.source: later for edge in group for later in consumers.get(edge.step.outputs[0], ())}
    if len(read) < 2 or any(np.shape(tape.values[edge.source]) != edge.part.shape for edge in group):
        return
    both = [*((edge, None) for edge in group), *((later, tape.values[source]) for source, later in read.items())]

    def part(number, cotangent):
        edge, other = both[number]
        if other is None:
            other = np.ones_like(tape.values[edge.step.inputs[1 - edge.place]])
        return tape.local_cotangents(edge.step, [cotangent], {1 - edge.place: other})[edge.place]

    detail = f"{words}; by hand the factor is left out there, and where the product is read, in every iteration"
    yield Replacement("scaled_path", detail, change_parts(tape, [edge for edge, _ in both], part))


def _with_operands(situation, group, others, cause: Cause, detail) -> Mutation:
    tape = situation.tape

    def part(number, cotangent):
        edge = group[number]
        return tape.local_cotangents(edge.step, [cotangent], {1 - edge.place: others[number]})[edge.place]

    if len({edge.source for edge in group}) == 1:
        parts = [part(number, tape.cotangents[edge.step.outputs[0]]) for number, edge in enumerate(group)]
        change = sum(new - edge.part for new, edge in zip(parts, group, strict=True))
        return Change(cause, detail, {group[0].source: change})
    return Replacement(cause, detail, change_parts(tape, group, part))


def _rearrangements(
    edge: Edge, arrays: Sequence[np.ndarray]
) -> Iterator[tuple[Cause, str, Callable[[np.ndarray], np.ndarray]]]:
    value = arrays[0]
    if np.iscomplexobj(value):
        yield "conjugate", "its conjugate, in every iteration", np.conj
    if edge.step.name in ("mul", "div"):
        is_mask = set(np.concatenate([np.ravel(array) for array in arrays])) == {0.0, 1.0}
        yield "mask" if is_mask else "scaled_path", "1: the factor is left out", np.ones_like
        yield "wrong_operand", "1 minus it", lambda array: 1 - array
        yield "wrong_operand", "its square", np.square
    elif value.ndim >= 2 and value.shape[-1] == value.shape[-2]:
        yield "transposed", "its transpose, in every iteration", lambda array: np.swapaxes(array, -1, -2)
    for axis in range(value.ndim):
        if value.shape[axis] > 2:
            for step in (1, -1):
                yield (
                    "shifted",
                    f"it moved by {step} along axis {axis}, in every iteration",
                    functools.partial(np.roll, shift=step, axis=axis),
                )


def _untransposed_parts(situation, group, arrays, words) -> Iterator[Mutation]:
    """Yield the square parts of a matrix, as the recurrent part of a stack of matrices, not transposed."""
    rows, columns = arrays[0].shape if arrays[0].ndim == 2 else (0, 0)
    if group[0].step.name != "dot_general" or group[0].place != 0 or rows == columns:
        return
    for size in {min(rows, columns), rows - columns, columns - rows, *(s for s in range(2, rows) if columns % s == 0)}:
        if size < 2 or size > min(rows, columns) or columns % size:
            continue
        for start in {0, rows - size}:
            yield _with_operands(
                situation,
                group,
                [_transpose_blocks(array, start, size) for array in arrays],
                "transposed",
                f"{words}; by hand its parts of {size} by {size} are not transposed, from row {start} on",
            )


def _transpose_blocks(array, start, size):
    changed = array.copy()
    for column in range(0, array.shape[1], size):
        block = np.s_[start : start + size, column : column + size]
        changed[block] = array[block].T
    return changed


def generate_slopes_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the activations of every iteration with their derivative at the values of other code or iterations."""
    iterations: Iterations = situation.iterations
    for group in groups_of_activations(situation):
        kind = group[0].kind
        own = [activation.h for activation in group]
        if situation.target.is_right_before(activation.z for activation in group):
            continue
        for text, is_moved, others in (*iterations.rows(own), *iterations.rows([activation.z for activation in group])):
            cause: Cause = "shifted" if is_moved else "activation_derivative"
            candidates = [(f"at {text}", [kind.slope(other, other) for other in others])]
            if not is_moved:
                candidates.append((f"at {text} as z", [kind.slope(other, kind.value(other)) for other in others]))
            for words, slopes in candidates:
                yield Replacement(
                    cause,
                    f"the derivative of {kind.name} in {situation.where(own[0])} is {kind.rule}; by hand it is taken "
                    f"{words}, in every iteration",
                    {
                        activation.h: elementwise(activation.z, slope)
                        for activation, slope in zip(group, slopes, strict=True)
                    },
                )


def generate_misplaced_slopes_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the products of every iteration with an activation's derivative left out of what goes on, or put in."""
    tape = situation.tape
    for group, activations in itertools.product(situation.iterations.uses, groups_of_activations(situation)):
        if group[0].step.name not in ("dot_general", "mul") or abs(len(activations) - len(group)) > 1:
            continue
        if len({edge.source for edge in group}) == 1 and situation.target.is_right_before([group[0].source]):
            continue
        slopes = [
            activation.kind.slope(tape.values[activation.z], tape.values[activation.h]) for activation in activations
        ]
        chosen = slopes[len(slopes) - len(group) :] if len(slopes) >= len(group) else []
        result = np.shape(tape.values[group[0].step.outputs[0]])
        if len(chosen) != len(group) or chosen[0].shape != result or not all(np.all(slope) for slope in chosen):
            continue
        for power, words in ((-1, "without"), (1, "once more with")):

            def part(number, cotangent, group=group, chosen=chosen, power=power):
                edge = group[number]
                return tape.local_cotangents(edge.step, [cotangent * chosen[number] ** power])[edge.place]

            yield Replacement(
                "activation_derivative",
                f"the gradient of {situation.name_of(group[-1].source)} in {describe_operation(group[0].step)} is "
                f"taken by hand {words} the derivative of {situation.where(activations[0].h)}, in every iteration",
                change_parts(tape, group, part),
            )


def groups_of_activations(situation: Situation) -> list[list[Activation]]:
    """Return the activations of every iteration together."""
    by_value = {activation.h: activation for activation in situation.activations[::-1]}
    found = []
    for group in situation.iterations.values:
        some = [by_value[number] for number in group if number in by_value]
        same = len({activation.kind.name for activation in some}) == 1
        if same and len(some) > 1 and len(some) >= len(group) - 1:
            found.append(some)
    return list({tuple(activation.h for activation in group): group for group in found}.values())
