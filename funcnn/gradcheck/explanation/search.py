"""The search for a wrong backward pass that gives the gradient by hand."""

import copy
import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.directions import Directions, is_explained, is_multiple
from funcnn.gradcheck.explanation.leaf import Diagnosis, Facts
from funcnn.gradcheck.explanation.numbers import is_ratio_of_digits
from funcnn.gradcheck.explanation.tape import Rules, Tape
from funcnn.gradcheck.report import Cause

_logger = logging.getLogger(__name__)
_WORK = 450_000
_RULED_OUT = 0.03  # of a backward pass

Seeds: TypeAlias = Mapping[int, np.ndarray]
"""Changes of the cotangents of some values."""


class Change(NamedTuple):
    """A wrong backward pass that differs from the right one at single values.

    Fields:
        cause: the name of the mistake.
        detail: a sentence.
        seeds: by how much the cotangents of some values are wrong.
    """

    cause: Cause
    detail: str
    seeds: Seeds


class Replacement(NamedTuple):
    """A wrong backward pass with other rules for some values."""

    cause: Cause
    detail: str
    rules: Rules


class Misreading(NamedTuple):
    """A backward pass with the right rules that reads other values than those of the loss."""

    cause: Cause
    detail: str
    others: Mapping[int, np.ndarray]


class Multiple(NamedTuple):
    """A wrong backward pass that differs by a multiple of some terms, fitted to the gradient by hand.

    Fields:
        describe: from the fitted factors to the cause and a sentence, or ``None`` if they have no meaning.
        terms: the seeds of each term.
        rest: what is added before the fit.
    """

    describe: Callable[[Sequence[float]], Diagnosis | None]
    terms: Sequence[Seeds]
    rest: Seeds = MappingProxyType({})


class Regression(NamedTuple):
    """A wrong backward pass that differs by a sum of a few of many terms, fitted to the gradient by hand.

    Fields:
        describe: from the names of the terms and their factors to the cause and a sentence.
        terms: the seeds of each term, by name.
        rest: what is added before the fit.
        most: the largest number of terms.
    """

    describe: Callable[[Sequence[str], Sequence[float]], Diagnosis | None]
    terms: Mapping[str, Seeds]
    rest: Seeds
    most: int = 2


class Known(NamedTuple):
    """A wrong gradient that is computed some other way, as the difference from the right one."""

    cause: Cause
    detail: str
    difference: Sequence[np.ndarray]


Mutation: TypeAlias = Change | Replacement | Misreading | Multiple | Regression | Known


class Target:
    """The difference between the gradient by hand and autodiff's, which a mutation must explain.

    Attributes:
        tape: the loss.
        differences: by hand minus autodiff, for each leaf.
        tolerances: for each leaf.
        wrong: the positions of the leaves that are wrong.
        sought: those without a cause so far.
        is_alone: whether a mutation is judged by the wrong leaf alone.
    """

    is_alone = False

    def __init__(self, tape: Tape, facts: Facts, sought: Sequence[int]):
        self.tape, self.facts, self.sought = tape, facts, set(sought)
        self.differences = [leaf.by_hand - leaf.reference for leaf in facts.leaves]
        self.tolerances = [
            _tolerance(leaf, difference) for leaf, difference in zip(facts.leaves, self.differences, strict=True)
        ]
        largest = max((max_abs(leaf.reference) for leaf in facts.leaves), default=0.0)
        self.wrong = {
            number
            for number, leaf in enumerate(facts.leaves)
            if np.any(np.abs(self.differences[number]) > leaf.tolerance)
        }
        self._right = {
            number
            for number, leaf in enumerate(facts.leaves)
            if number not in self.wrong and max_abs(leaf.reference) > 1e-9 * largest
        }

    def of_one_leaf(self, number: int) -> "Target":
        """Return the target of one leaf alone: of a mistake in a line that only its own gradient is computed by."""
        target = copy.copy(self)
        target.sought, target.wrong, target._right, target.is_alone = {number}, {number}, set(), True
        return target

    def of_tape(self, tape: Tape) -> "Target":
        """Return the same target for another tape of the same loss."""
        target = copy.copy(self)
        target.tape = tape
        target.__dict__.pop("directions", None)
        return target

    @functools.cached_property
    def directions(self) -> Directions:
        """Directions of the parameters, along which a change is compared with the difference."""
        return Directions(self.tape)

    def may_explain(self, term: Mapping[int, Any], rest: Mapping[int, Any] | None = None) -> bool:
        """Whether changes may explain a sought leaf: the term, or a multiple of it where there is a rest."""
        for number in frozenset().union(*(self.tape.sources[value] for value in (*term, *(rest or ())))) & self.sought:
            if not self.directions.can_tell(number):
                return True
            there = self.directions.of_difference(number, self.differences[number], self.tolerances[number])
            change = self.directions.of_change(number, term)
            if rest is None and is_explained(change, there):
                return True
            if rest is not None and is_multiple(change, there, self.directions.of_change(number, rest)):
                return True
        return False

    def is_right_before(self, numbers: Iterable[int]) -> bool:
        """Whether a change of the cotangents of some values makes a right leaf wrong: one that is not about zero."""
        return any(self.tape.sources[number] & self._right for number in numbers)

    def explained(self, difference: Sequence[np.ndarray]) -> set[int]:
        """Return the sought leaves that a difference explains; none if a right leaf becomes wrong."""
        found = set()
        for number, (is_there, tolerance) in enumerate(zip(self.differences, self.tolerances, strict=True)):
            if self.is_alone and number not in self.wrong:
                continue
            size = max_abs(difference[number])
            if number not in self.wrong:
                if size > tolerance:
                    return set()
            elif size and np.all(np.abs(is_there - difference[number]) <= tolerance + 1e-12 * size):
                found.add(number)
        return found & self.wrong

    def _is_sparse(self, number: int) -> bool:
        """Whether a leaf is wrong in one or two of its entries, and right in most."""
        wrong = np.sum(np.abs(self.differences[number]) > self.facts.leaves[number].tolerance)
        return bool(wrong < 3 and 2 * wrong < self.differences[number].size)

    def fit(self, terms: Sequence[Sequence[np.ndarray]], rest: Sequence[np.ndarray] | None, numbers: Iterable[int]):
        """Return the factors of some terms by least squares over some leaves, and the difference that they make."""
        numbers = list(numbers)
        units = [1 / max(max_abs(self.differences[number]), 1e-300) for number in numbers]

        def flat(leaves):
            return np.concatenate(
                [np.ravel(leaves[number]) * unit for number, unit in zip(numbers, units, strict=True)]
            )

        wanted = flat(self.differences) - (flat(rest) if rest is not None else 0.0)
        matrix = np.stack([flat(term) for term in terms], axis=1)
        entries = int(np.sum(np.any(matrix != 0, axis=1)))
        if entries < (1 if len(terms) == 1 else 2 * len(terms) + 2) or not np.isfinite(matrix).all():
            return None
        if np.iscomplexobj(matrix) or np.iscomplexobj(wanted):
            matrix = np.concatenate([matrix.real, matrix.imag])
            wanted = np.concatenate([np.real(wanted), np.imag(wanted)])
        factors, _, rank, _ = np.linalg.lstsq(matrix, wanted, rcond=1e-10)
        # One entry is a multiple of any other number: it needs a factor that has a meaning. So do a few of many.
        is_sparse = entries == 1 or all(self._is_sparse(number) for number in numbers)
        if rank < len(terms) or (is_sparse and not all(map(is_ratio_of_digits, map(float, factors)))):
            return None
        made = [
            sum((factor * term[number] for factor, term in zip(factors, terms, strict=True)), 0.0)
            + (rest[number] if rest is not None else 0.0)
            for number in range(len(self.differences))
        ]
        return list(map(float, factors)), made


def _tolerance(leaf, difference) -> float:
    """Return what rounding explains of a leaf that a mutation gives, relative to the larger gradient.

    It is small beside the difference: what is near to the difference by chance explains nothing.
    """
    size = max_abs(leaf.reference)
    share = leaf.tolerance / size if size else 0.0
    wide = max(leaf.tolerance, share * max_abs(leaf.by_hand), 1e-12 * max_abs(leaf.by_hand))
    distance = max_abs(difference)
    return min(wide, 1e-3 * distance) if distance > leaf.tolerance else wide


class ExplainedLeaves(NamedTuple):
    """What explains some leaves."""

    diagnosis: Diagnosis
    explained: set[int]


def search(target: Target, families: Iterable[Iterator[Mutation]], share: float = 1.0) -> list[ExplainedLeaves]:
    """Return what explains the sought leaves: one result for all of them, or several for parts of them.

    A fixed amount of work is done, the same on every machine: ``_WORK`` operations, of which one family may do a
    fifth.

    Args:
        target: what must be explained.
        families: mutations of the backward pass, the most telling first.
        share: of the work.
    """
    with np.errstate(all="ignore"):
        return _search(target, families, share * _WORK)


def _search(target, families, work) -> list[ExplainedLeaves]:
    cost = len(target.tape.steps) + sum(np.size(value) for value in target.tape.values) / 200
    most, tried, partial = work / cost, 0.0, list[ExplainedLeaves]()
    for family in families:
        before = tried
        for mutation in _guarded(family):
            is_tried = not is_ruled_out(target, mutation)
            result = try_mutation(target, mutation) if is_tried else None
            if result is not None and result.explained >= target.sought:
                return [result]
            if result is not None and result.explained & target.sought:
                partial.append(result)
            tried += 1.0 if is_tried else _RULED_OUT
            if tried - before > most / 5:
                break
        if tried > most or set().union(*(result.explained for result in partial)) >= target.sought:
            break
    return _combine(target, partial)


def is_ruled_out(target: Target, mutation: Mutation) -> bool:
    """Whether a mutation explains no sought leaf, by what takes no backward pass."""
    try:
        if isinstance(mutation, Change):
            return target.is_right_before(mutation.seeds) or not target.may_explain(mutation.seeds)
        if isinstance(mutation, Multiple) and len(mutation.terms) == 1:
            return not target.may_explain(mutation.terms[0], mutation.rest)
    except ValueError:  # arrays that don't fit into the loss
        return True
    return False


def _guarded(family: Iterator[Mutation]) -> Iterator[Mutation]:
    """Yield the mutations of a family up to one that can't be made for this loss."""
    try:
        yield from family
    except Exception as error:  # a value of a kind that the family isn't made for; the others may still fit
        _logger.debug("a family of wrong backward passes is left out: %r", error)


def _combine(target, partial) -> list[ExplainedLeaves]:
    """Return the results that explain the most leaves, none twice."""
    left, chosen = set(target.sought), []
    for result in sorted(partial, key=lambda result: -len(result.explained & target.sought)):
        entries = sum(target.differences[number].size for number in result.explained & left)
        if result.explained & left and entries > 2:
            chosen.append(result)
            left -= result.explained
    return chosen


def try_mutation(target: Target, mutation: Mutation) -> ExplainedLeaves | None:
    """Return what a mutation explains, ``None`` if nothing, or if its arrays don't fit into the loss."""
    try:
        return _try(target, mutation)
    except (ValueError, TypeError, IndexError) as error:
        _logger.debug("a wrong backward pass is left out: %r", error)
        return None


def _try(target, mutation) -> ExplainedLeaves | None:
    with np.errstate(all="ignore"):
        if isinstance(mutation, Multiple):
            return _try_multiple(target, mutation)
        if isinstance(mutation, Regression):
            return _try_regression(target, mutation)
        if isinstance(mutation, Change):
            difference: Sequence[np.ndarray] = target.tape.gradient(mutation.seeds)
        elif isinstance(mutation, Replacement | Misreading):
            rules = mutation.rules if isinstance(mutation, Replacement) else {}
            others = mutation.others if isinstance(mutation, Misreading) else {}
            wrong = target.tape.wrong_gradient(rules, others)
            difference = [new - old for new, old in zip(wrong, target.tape.right_gradient, strict=True)]
        else:
            difference = mutation.difference
    explained = target.explained(difference)
    return ExplainedLeaves((mutation.cause, mutation.detail), explained) if explained else None


def _try_multiple(target, mutation) -> ExplainedLeaves | None:
    terms = [target.tape.gradient(seeds) for seeds in mutation.terms]
    rest = target.tape.gradient(mutation.rest) if mutation.rest else None
    touched = {
        number
        for number in range(len(target.differences))
        if any(max_abs(term[number]) > target.tolerances[number] for term in terms)
    }
    touched = touched & target.wrong if target.is_alone else touched
    if not touched or not touched <= target.wrong:
        return None
    for numbers in (touched, *([number] for number in touched if len(touched) > 1)):
        fitted = target.fit(terms, rest, numbers)
        if fitted is None or min(map(abs, fitted[0])) < 1e-7:
            continue
        factors, made = fitted
        explained = target.explained(made)
        diagnosis = mutation.describe(factors) if explained else None
        if diagnosis is not None:
            return ExplainedLeaves(diagnosis, explained)
    return None


def _try_regression(target, mutation) -> ExplainedLeaves | None:
    terms = {name: target.tape.gradient(seeds) for name, seeds in mutation.terms.items()}
    terms = {name: term for name, term in terms.items() if all(np.isfinite(part).all() for part in term)}
    rest = target.tape.gradient(mutation.rest)
    numbers = [
        number
        for number in target.wrong
        if max_abs(rest[number]) > 0 or any(max_abs(term[number]) > 0 for term in terms.values())
    ]
    right = set() if target.is_alone else {*range(len(target.tolerances))} - target.wrong
    if not numbers or any(max_abs(rest[number]) > target.tolerances[number] for number in right):
        return None
    names = list(terms)
    for chosen in _fitting_subsets(target, [terms[name] for name in names], rest, numbers, mutation.most):
        fitted = target.fit([terms[names[place]] for place in chosen], rest, numbers)
        if fitted is None or min(map(abs, fitted[0])) < 1e-7:
            continue
        explained = target.explained(fitted[1])
        diagnosis = mutation.describe([names[place] for place in chosen], fitted[0]) if explained else None
        if diagnosis is not None:
            return ExplainedLeaves(diagnosis, explained)
    return None


def _fitting_subsets(target, terms, rest, numbers, most) -> Iterator[tuple[int, ...]]:
    """Yield the subsets of the terms whose span comes near to the difference, the small ones first."""
    units = [1 / max(max_abs(target.differences[number]), 1e-300) for number in numbers]

    def flat(leaves):
        parts = [np.ravel(leaves[number]) * unit for number, unit in zip(numbers, units, strict=True)]
        return np.concatenate([np.concatenate([part.real, np.imag(part)]) for part in parts])

    wanted = flat(target.differences) - flat(rest)
    matrix = np.stack([flat(term) for term in terms], axis=1)
    lengths = np.linalg.norm(matrix, axis=0)
    usable = lengths > 1e-12 * max(lengths.max(initial=0.0), 1e-300)
    matrix = np.where(usable, matrix / np.where(usable, lengths, 1.0), 0.0)
    total = float(wanted @ wanted) or 1.0
    gram, moments = matrix.T @ matrix, matrix.T @ wanted
    for count in range(1, most + 1):
        subsets = np.array(list(itertools.combinations(np.flatnonzero(usable), count)), dtype=int).reshape(-1, count)
        if not len(subsets) or len(subsets) > 200_000:
            continue
        blocks = gram[subsets[:, :, None], subsets[:, None, :]] + 1e-13 * np.eye(count)
        right = moments[subsets]
        left = total - np.einsum("nk,nk->n", right, np.linalg.solve(blocks, right[..., None])[..., 0])
        for place in np.argsort(left)[:5]:
            if left[place] <= 1e-9 * total:
                yield tuple(subsets[place])
