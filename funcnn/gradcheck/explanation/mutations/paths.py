"""Causes ``lost_path``, ``lost_use``, ``scaled_path``, ``normalization_term`` and ``stop_gradient``."""

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from funcnn.gradcheck.explanation.activations import descendants
from funcnn.gradcheck.explanation.iterations import change_parts
from funcnn.gradcheck.explanation.leaf import Diagnosis
from funcnn.gradcheck.explanation.location import describe_operation, location
from funcnn.gradcheck.explanation.mutations.reductions import is_read
from funcnn.gradcheck.explanation.numbers import format_factor
from funcnn.gradcheck.explanation.search import Change, Known, Multiple, Mutation, Regression, Replacement
from funcnn.gradcheck.explanation.situation import LAYERS, Situation
from funcnn.gradcheck.explanation.tape import Edge, Rule
from funcnn.gradcheck.report import Cause

_MOVES = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "convert_element_type", "copy"}
_WRONG_FACTORS: tuple[tuple[float, Cause, str], ...] = (
    (0.0, "lost_path", "left out"),
    (2.0, "scaled_path", "counted twice"),
    (-1.0, "scaled_path", "taken with the other sign"),
    (0.5, "scaled_path", "taken half"),
)
_MEAN, _VARIANCE = "the mean", "the variance (or mean square)"
_ELEMENTWISE_FUNCTIONS = {
    *("add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "square", "integer_pow", "pow", "max", "min", "log", "exp"),
    *("tanh", "logistic", "erf", "erfc", "log1p", "expm1", "abs", "sign", "select_n", "sin", "cos", "custom_jvp_call"),
    *("convert_element_type", "copy"),
}
_ELEMENTWISE = {
    *("add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "square", "integer_pow", "pow", "max", "log", "exp"),
    *("select_n", "convert_element_type", "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "copy"),
}


def generate_lost_uses(situation: Situation) -> Iterator[Mutation]:
    """Yield each parameter that is used several times without one use, with one use only, and without early uses."""
    for param in situation.tape.params:
        uses = _uses(situation, param)
        if len(uses) < 2:
            continue
        name = situation.name_of(param)
        for number, use in enumerate(uses):
            yield Change(
                "lost_use",
                f"{name} is used {len(uses)} times; by hand the use in {describe_operation(use.step)} is left out",
                _cut([use]),
            )
            yield Change(
                "lost_use",
                f"{name} is used {len(uses)} times; by hand only the use in {describe_operation(use.step)} counts",
                _cut(uses[:number] + uses[number + 1 :]),
            )
            if use.step.name == "gather" and use.source == param:
                read, whole = is_read(situation.tape, use), situation.cotangent(param)
                detail = f"the gradient of {name} by {describe_operation(use.step)} is written by hand over that of"
                yield Change("lost_use", f"{detail} its other uses", {param: np.where(read, use.part - whole, 0.0)})
        terms = {f"use {number + 1}": _cut([use]) for number, use in enumerate(uses[:40])}
        yield Regression(functools.partial(_describe_uses, name), terms, {})
        for number in range(2, len(uses) - 1):
            for kept, word in ((uses[number:], "last"), (uses[:number], "first")):
                yield Change(
                    "lost_use",
                    f"{name} is used {len(uses)} times; by hand only the {word} {len(kept)} uses count",
                    _cut([use for use in uses if use not in kept]),
                )


def _describe_uses(name, texts, factors) -> Diagnosis | None:
    shares = [round(1 - factor, 9) for factor in factors]
    if any(abs(share - round(share * 2) / 2) > 1e-7 for share in shares):
        return None
    counted = " and ".join(f"{text} counts {share:g} times" for text, share in zip(texts, shares, strict=True))
    cause: Cause = "lost_use" if any(abs(share) < 1e-7 for share in shares) else "scaled_path"
    return cause, f"{name} is used several times; by hand {counted}"


def _uses(situation, param) -> list[Edge]:
    """Return the uses of a parameter, looking through transposes and reshapes."""
    found, pending = [], [param]
    by_source: dict[int, list[Edge]] = situation.edges_by_source
    while pending:
        for edge in by_source.get(pending.pop(0), ()):
            if edge.step.name in _MOVES and len(edge.step.outputs) == 1:
                pending.append(edge.step.outputs[0])
            else:
                found.append(edge)
    return found


def generate_normalization(situation: Situation) -> Iterator[Mutation]:
    """Yield each mean and variance that a value is normalized by, taken for a constant, alone and together."""
    terms = statistics(situation)
    for use, words in terms:
        yield Multiple(_describe(situation, _cause_of(words), words), [_cut([use])])
    together: dict[int, list[tuple[Edge, str]]] = {}
    for use, words in terms:
        together.setdefault(use.source, []).append((use, words))
    groups = [*together.values()]
    for count in (1, 2, 3):
        for some in itertools.combinations(groups[:8], count):
            numbers = [group[0][0].source for group in some]
            words = " and ".join(dict.fromkeys(group[0][1] for group in some))
            yield Replacement(
                _cause_of(words),
                f"by hand {words} {'is a constant' if count == 1 else 'are constants'}: "
                "the gradient through it is left out",
                {number: lambda cotangent: [] for number in numbers if number in situation.tape.producer},
            )


def _cause_of(words) -> Cause:
    """Return the cause of statistics that are constants by hand: a total, as of weights, is no mean."""
    return "normalization_term" if _MEAN in words or _VARIANCE in words else "lost_path"


def statistics(situation: Situation) -> list[tuple[Edge, str]]:
    """Return the uses of means, variances and totals beside the values that they are taken of, each in words."""
    tape, found = situation.tape, []
    for number in situation.active_steps:
        step = tape.steps[number]
        if step.name != "reduce_sum" or not tape.values[step.inputs[0]].size > 1:
            continue
        axes = tuple(step.parameters["axes"])
        squared = _is_square(tape, step.inputs[0])
        kind = _VARIANCE if squared else _MEAN if _is_divided_by_number(tape, step.outputs[0]) else "the total"
        words = f"{kind} over axis {', '.join(map(str, axes))}"
        origin = _ancestors(tape, step.inputs[0])
        reached = {step.outputs[0]}
        for later in range(number + 1, len(tape.steps)):
            following = tape.steps[later]
            used = [place for place, source in enumerate(following.inputs) if source in reached]
            if not used or following.name not in _ELEMENTWISE:
                continue
            others = [source for place, source in enumerate(following.inputs) if place not in used]
            is_spread = np.size(tape.values[following.outputs[0]]) > np.size(tape.values[step.outputs[0]])
            meets = is_spread and any(
                tape.is_active[other] and (_ancestors(tape, other) | {other}) & origin for other in others
            )
            if meets and following.name in ("sub", "div", "mul", "add"):
                found += [
                    (edge, words)
                    for edge in situation.edges_by_source.get(following.inputs[used[0]], ())
                    if edge.step is following
                ]
            elif not meets:
                reached |= set(following.outputs)
    return found


def _is_divided_by_number(tape, number) -> bool:
    """Whether a sum is divided by a number, as for a mean."""
    for position in tape.consumers.get(number, ()):
        step = tape.steps[position]
        others = [source for source in step.inputs if source != number]
        if step.name in ("div", "mul") and all(
            not tape.is_active[other] and np.size(np.unique(tape.values[other])) == 1 for other in others
        ):
            return True
        if step.name in _MOVES and _is_divided_by_number(tape, step.outputs[0]):
            return True
    return False


def _is_square(tape, number) -> bool:
    producer = tape.producer.get(number)
    if producer is None:
        return False
    step = tape.steps[producer]
    is_product = step.name == "mul" and step.inputs[0] == step.inputs[1]
    is_power = step.name == "integer_pow" and step.parameters["y"] == 2
    return step.name == "square" or is_product or is_power


def _ancestors(tape, number) -> set[int]:
    found, pending = set[int](), [number]
    while pending:
        producer = tape.producer.get(pending.pop())
        if producer is not None:
            for source in tape.steps[producer].inputs:
                if tape.is_active[source] and source not in found:
                    found.add(source)
                    pending.append(source)
    return found


def generate_paths(situation: Situation) -> Iterator[Mutation]:
    """Yield each use of a value lost, or off by a factor; and each value with all of its uses."""
    for edge in situation.edges:
        if edge.step.name in _MOVES and len(situation.edges_by_source[edge.source]) == 1:
            continue
        words = f"the path to {situation.name_of(edge.source)} through {describe_operation(edge.step)}"
        describe = _describe(situation, _cause_within(situation, [edge]), words)
        if edge.step.name in ("imag", "conj"):
            describe = _conjugated(describe)
        yield Multiple(describe, [_cut([edge])])
    yield from _parts_of_stacks(situation)
    for number, uses in situation.edges_by_source.items():
        if len(uses) > 1 and number in situation.tape.producer:
            words = f"the gradient of {situation.name_of(number)}, in all of its uses"
            yield Multiple(_describe(situation, "lost_path", words), [_cut(uses)])


def _parts_of_stacks(situation) -> Iterator[Mutation]:
    """Yield the values that are joined, as the outputs of each step of time, with only the last, or the first, used."""
    joined: dict[int, list[Edge]] = {}
    for edge in situation.edges:
        if edge.step.name in ("concatenate", "stack", "scan_stack"):
            joined.setdefault(edge.step.outputs[0], []).append(edge)
    for parts in joined.values():
        for lost, word in ((parts[:-1], "last"), (parts[1:], "first")) if len(parts) > 2 else ():
            detail = f"of the {len(parts)} parts of {describe_operation(parts[0].step)} by hand only the {word} counts"
            yield Change("lost_path", detail, _cut(lost))


def generate_paths_of_lines(situation: Situation) -> Iterator[Mutation]:
    """Yield the uses by a line of code together, as in a loop: lost, counted twice, or with the other sign."""
    lines: dict[tuple, list[Edge]] = {}
    for edge in situation.edges:
        lines.setdefault((location(edge.step.origin), edge.step.name, edge.place), []).append(edge)
    for (where, _, _), group in lines.items():
        if len(group) < 2 or len(group) > 200 or not where.line:
            continue
        for some, which in (
            (group, "every time"),
            (group[:-1], "all but the last time"),
            (group[1:], "all but the first time"),
        ):
            for factor, cause, words in _WRONG_FACTORS:
                detail = f"the path through {describe_operation(group[0].step)} is {words} by hand, {which}"
                yield Replacement(cause, detail, _scaled_rules(situation, some, factor))


def _scaled_rules(situation, group: Sequence[Edge], factor):
    tape, rules = situation.tape, dict[int, Rule]()
    places: dict[int, list[int]] = {}
    for edge in group:
        places.setdefault(edge.step.outputs[0], []).append(edge.place)
    for output, scaled in places.items():
        step = tape.steps[tape.producer[output]]
        if len(step.outputs) > 1:
            continue

        def rule(cotangent, step=step, scaled=scaled):
            parts = tape.local_cotangents(step, [cotangent])
            return [
                (source, factor * part if place in scaled else part)
                for place, (source, part) in enumerate(zip(step.inputs, parts, strict=True))
                if part is not None
            ]

        rules[output] = rule
    return rules


def generate_ignored_stops(situation: Situation) -> Iterator[Mutation]:
    """Yield the stops of the loss ignored by hand, all of them and each alone."""
    tape = situation.tape_without_stops
    if tape is None:
        return
    stops = [number for number, step in enumerate(tape.steps) if step.name == "stop_gradient"]
    for ignored in [stops, *([stop] for stop in stops if len(stops) > 1)]:
        rules: dict[int, Rule] = {
            tape.steps[stop].outputs[0]: lambda cotangent: [] for stop in stops if stop not in ignored
        }
        through = tape.wrong_gradient(rules)
        yield Known(
            "stop_gradient",
            f"the loss stops the gradient in {describe_operation(tape.steps[ignored[-1]])}; by hand it goes through",
            [new - old for new, old in zip(through, situation.tape.right_gradient, strict=True)],
        )


def generate_moved_stops(situation: Situation) -> Iterator[Mutation]:
    """Yield the stops of a loop in other iterations than those of the loss."""
    tape = situation.tape_without_stops
    if tape is None:
        return
    inner = Situation(tape, situation.problem, situation.target)
    stopped = {step.outputs[0] for step in tape.steps if step.name == "stop_gradient"}
    chains: dict[tuple[int, tuple[int, ...]], list[list[Edge]]] = {}
    for group in inner.iterations.uses:
        iterations = tuple(number for number, edge in enumerate(group) if edge.source in stopped)
        if iterations and len({edge.source for edge in group}) == len(group):
            chains.setdefault((len(group), iterations), []).append(group)
    for (count, iterations), groups in chains.items():
        for move in (1, -1):
            moved = {iteration + move for iteration in iterations} & set(range(count))
            edges = [group[iteration] for group in groups for iteration in moved]
            if not edges:
                continue
            wrong = tape.wrong_gradient(change_parts(tape, edges, lambda number, d: None))
            places = ", ".join(str(iteration + 1) for iteration in iterations)
            where = f"in iteration{'s' * (len(iterations) > 1)} {places}"
            words = f"{describe_operation(groups[0][0].step)}, {where}; by hand an iteration"
            yield Known(
                "stop_gradient",
                f"the loss stops the gradient before {words} {'later' if move > 0 else 'earlier'}",
                [new - old for new, old in zip(wrong, situation.tape.right_gradient, strict=True)],
            )


def generate_lines(situation: Situation) -> Iterator[Mutation]:
    """Yield several uses of a value by one line of code left out together."""
    for number, uses in situation.edges_by_source.items():
        lines: dict[tuple, list[Edge]] = {}
        for edge in uses:
            lines.setdefault((location(edge.step.origin).file, location(edge.step.origin).line), []).append(edge)
        for (_, line), some in lines.items():
            if line and 1 < len(some) < len(uses):
                words = f"the gradient of {situation.name_of(number)} through the line of"
                detail = f"{words} {describe_operation(some[0].step)} is left out by hand"
                yield Change(_cause_within(situation, some), detail, _cut(some))


def _cause_within(situation, lost: Sequence[Edge]) -> Cause:
    """Return the cause of lost uses: an activation's, if they join others in a function of a value before a layer.

    What is computed from outputs and targets, entry by entry, is the loss's.
    """
    tape, source = situation.tape, lost[0].source
    is_formula = np.size(tape.values[source]) > 1 and all(edge.step.name in _ELEMENTWISE_FUNCTIONS for edge in lost)
    if source in situation.compared and is_formula:
        return "loss_derivative"
    root = _root_of_function(tape, source)
    if root is None:
        return "lost_path"
    shape = np.shape(tape.values[root])
    through, beside = set[int](), {root}
    for step in tape.steps[tape.producer.get(root, -1) + 1 :]:
        active = [number for number in step.inputs if tape.is_active[number]]
        output = step.outputs[0]
        is_part = step.name in _ELEMENTWISE_FUNCTIONS and {*active} <= through | beside
        if not active or not is_part or np.shape(tape.values[output]) != shape:
            continue
        is_through = bool(through & {*active}) or any(edge.step is step for edge in lost)
        # A step that takes what was lost and something beside it joins them.
        is_beside = any(n in beside and not any(e.step is step and e.source == n for e in lost) for n in active)
        if is_through and is_beside and len(step.inputs) > 1:
            after = (tape.steps[tape.producer[number]].name for number in descendants(tape, output))
            return "activation_derivative" if any(name in LAYERS for name in after) else "lost_path"
        (through if is_through else beside).add(output)
    return "lost_path"


def _root_of_function(tape, number) -> int | None:
    """Return the value that a value is an elementwise function of, itself if of no other; ``None`` if of several."""
    shape, roots, pending = np.shape(tape.values[number]), set[int](), [number]
    while pending:
        at = pending.pop()
        step = tape.steps[tape.producer[at]] if at in tape.producer else None
        before = [n for n in step.inputs if tape.is_active[n]] if step is not None else []
        is_function = step is not None and step.name in _ELEMENTWISE_FUNCTIONS
        if is_function and all(np.shape(tape.values[n]) == shape for n in before):
            pending += before
        else:
            roots.add(at)
    return roots.pop() if len(roots) == 1 else None


def _cut(uses: Sequence[Edge]) -> dict[int, np.ndarray]:
    seeds: dict[int, np.ndarray] = {}
    for use in uses:
        seeds[use.source] = seeds[use.source] - use.part if use.source in seeds else -use.part
    return seeds


def _conjugated(describe):
    def described(factors) -> Diagnosis | None:
        if abs(factors[0] - 2) <= 1e-7:
            return "conjugate", "the imaginary part has the other sign by hand: a conjugate is left out, or put in"
        return describe(factors)

    return described


def _describe(situation, cause, words):
    def describe(factors) -> Diagnosis | None:
        share = 1 - factors[0]
        if abs(share) <= 1e-7:
            return cause, f"{words} is left out by hand"
        if not np.isfinite(share) or abs(share) > 1e6 or abs(share) < 1e-6:
            return None
        return (
            "scaled_path" if cause in ("lost_path", "lost_use", "normalization_term") else cause,
            f"{words} is {format_factor(share, 1e-7)} of what it is by autodiff{situation.meaning(share)}",
        )

    return describe
