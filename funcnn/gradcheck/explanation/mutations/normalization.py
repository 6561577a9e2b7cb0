"""Cause ``normalization_term``: the formula of a normalization's backward pass with another term, axis or count."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.activations import descendants
from funcnn.gradcheck.explanation.derivatives import LINEAR_SHAPES
from funcnn.gradcheck.explanation.search import Change, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Rule, Step, Tape, run_step
from funcnn.gradcheck.report import Cause

_MOST_AFTER = 5
_SPREAD = ("broadcast_in_dim", *LINEAR_SHAPES)


class _Normalization(NamedTuple):
    """A value h and x̂ = (h − m) s, with s the same along the axes; ``is_trained`` where m and s are h's own.

    Where the gain γ is multiplied in before x̂ is complete, as in γ (h − m) s, ``x_hat`` is the number of γ x̂.
    """

    h: int
    x_hat: int
    axes: tuple[int, ...]
    scale: np.ndarray
    is_trained: bool
    is_centred: bool
    value: np.ndarray
    gain: np.ndarray | None = None

    def by_value(self, tape: Tape) -> np.ndarray | None:
        """Return the gradient by x̂."""
        d = tape.cotangents[self.x_hat]
        return d if d is None or self.gain is None else d * self.gain


def generate_normalization_formulas(situation: Situation) -> Iterator[Mutation]:
    """Yield each normalization with the formulas that people write for its backward pass."""
    tape = situation.tape
    for place in _find(tape):
        h, d = tape.values[place.h], place.by_value(tape)
        if d is None:
            continue
        right = _right(place, d)
        kind = "normalization" if place.is_trained else "normalization by given statistics"
        where = f"the gradient through the {kind} in {situation.where(place.x_hat)}"
        formulas = (*_formulas(tape, place, d), *_with_gain(tape, place), *_other_scales(situation, place, d))
        for cause, text, wrong in formulas:
            if wrong.shape == h.shape and np.isfinite(wrong).all():
                yield Change(cause, f"{where} is by hand {text}", {place.h: wrong - right})
        for after in _after(tape, place):
            passed = np.reshape(situation.cotangent(after), h.shape)
            text = f"left out up to {situation.where(after)}: the gradient goes on as it is"
            yield Change("normalization_term", f"{where} is by hand {text}", {place.h: passed - right})


def generate_normalizations_of_iterations(situation: Situation) -> Iterator[Mutation]:
    """Yield the normalizations by the same code in every iteration, as of several blocks, with another formula."""
    tape, by_value = situation.tape, dict[int, _Normalization]()
    for place in _find(tape):
        if place.gain is None:
            by_value.setdefault(place.x_hat, place)
    for group in situation.iterations.values if by_value else ():
        places = [by_value[number] for number in group if number in by_value]
        if len(places) < 2:
            continue
        where = f"the gradient through the normalization in {situation.where(places[0].x_hat)}"
        for cause, text, _ in _formulas(tape, places[0], situation.cotangent(places[0].x_hat)):
            rules = {place.x_hat: _rule(tape, place, text) for place in places}
            yield Replacement(cause, f"{where} is by hand {text}, in every iteration", rules)
        for afters in zip(*(_after(tape, place) for place in places), strict=False):
            rules = {place.x_hat: lambda cotangent: [] for place in places}
            rules |= {after: _passed(tape, place, after) for place, after in zip(places, afters, strict=True)}
            text = f"left out up to {situation.where(afters[0])}, in every iteration"
            yield Replacement("normalization_term", f"{where} is by hand {text}", rules)


def _rule(tape, place, text) -> Rule:
    def by_hand(cotangent):
        formulas = _formulas(tape, place, cotangent)
        return [(place.h, next(wrong for _, other, wrong in formulas if other == text))]

    return by_hand


def _passed(tape, place, after) -> Rule:
    """Return the rule by which a value's gradient goes to the right operands, and as it is to what is normalized."""
    right = tape.rule(after)
    return lambda cotangent: [*right(cotangent), (place.h, np.reshape(cotangent, np.shape(tape.values[place.h])))]


def _after(tape, place) -> list[int]:
    """Return the values of the normalization with its gain and its offset."""
    found, number = list[int](), place.x_hat
    while len(found) < _MOST_AFTER:
        steps = [tape.steps[position] for position in tape.consumers.get(number, ())]
        steps = [step for step in steps if step.name in ("mul", "add", *LINEAR_SHAPES)]
        if not steps or np.size(tape.values[steps[0].outputs[0]]) != np.size(tape.values[place.h]):
            break
        number = steps[0].outputs[0]
        found.append(number)
    return [number for number in found if tape.cotangents[number] is not None]


def _right(place, d):
    if not place.is_trained:
        return place.scale * d
    return _formula(d, place.value, place.scale, place.axes, place.is_centred, place.is_centred)


def _formula(d, x_hat, scale, axes, has_mean=True, is_centred=True, count=None, sign=1.0):
    total = np.prod([d.shape[axis] for axis in axes]) if count is None else count
    mean = d.sum(axis=axes, keepdims=True) / total if has_mean else 0.0
    return scale * (d - mean - sign * x_hat * (d * x_hat).sum(axis=axes, keepdims=True) / total)


def _formulas(tape, place, d) -> Iterator[tuple[Cause, str, np.ndarray]]:
    x_hat, scale, axes = place.value, place.scale, place.axes
    h = tape.values[place.h]
    term: Cause = "normalization_term"
    count = int(np.prod([d.shape[axis] for axis in axes]))
    mean = d.mean(axis=axes, keepdims=True)
    centred = place.is_centred
    yield term, "without the term of the mean", _formula(d, x_hat, scale, axes, has_mean=False)
    yield term, "without the term of the variance, x̂ mean(dx̂ x̂)", scale * (d - (mean if centred else 0.0))
    yield term, "that of constants: the mean and the variance are not differentiated", scale * d
    yield term, "with the sign of the variance's term exchanged", _formula(d, x_hat, scale, axes, centred, sign=-1.0)
    yield term, "with the variance's term halved", _formula(d, x_hat, scale, axes, centred, sign=0.5)
    yield term, "with the variance's term doubled", _formula(d, x_hat, scale, axes, centred, sign=2.0)
    yield (
        term,
        f"with sums divided by {count - 1}, one less than the count",
        _formula(d, x_hat, scale, axes, centred, count=count - 1),
    )
    yield term, "with sums in the place of means", _formula(d, x_hat, scale, axes, centred, count=1)
    if not centred:
        yield term, "with the term of a mean, as where it is centred", _formula(d, x_hat, scale, axes)
    own_mean = h.mean(axis=axes, keepdims=True)
    for ddof, words in ((0, "the batch's own statistics"), (1, f"the variance divided by {count - 1}")):
        variance = h.var(axis=axes, keepdims=True, ddof=ddof) if count > ddof else np.ones(())
        epsilon = np.maximum(1 / scale**2 - h.var(axis=axes, keepdims=True), 0.0) if place.is_trained else 0.0
        for extra, more in ((epsilon, ""), (0.0, ", ε left out"), (1e-5, ", ε = 1e-5")):
            s = 1 / np.sqrt(variance + extra)
            own = (h - own_mean) * s
            yield term, f"the formula for training with {words}{more}", _formula(d, own, s, axes)
            yield term, f"that of constants with {words}{more}", s * d
    yield term, "the formula for training of the given statistics", _formula(d, x_hat, scale, axes)
    yield term, "left out: the gradient goes on as it is", d
    yield term, "without 1/σ", _right(place, d) / scale
    yield term, "with 1/σ twice", _right(place, d) * scale
    if place.is_trained:
        yield from _over_fewer_axes(d, x_hat, scale, axes, centred)
    for axis in range(d.ndim):
        if (axis,) != axes and d.shape[axis] > 1:
            yield "wrong_axis", f"with means along axis {axis}", _formula(d, x_hat, scale, (axis,), centred, centred)
    if place.is_trained:
        yield from _over_more_axes(d, x_hat, scale, axes, centred)
        yield from _of_other_groups(d, x_hat, scale, axes, centred)


def _with_gain(tape, place) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield the formulas with γ at another place."""
    x_hat, scale, axes, centred = place.value, place.scale, place.axes, place.is_centred
    term: Cause = "normalization_term"
    gains = [] if place.gain is None else [(place.gain, tape.cotangents[place.x_hat])]
    for position in tape.consumers.get(place.x_hat, ()) if place.gain is None else ():
        step = tape.steps[position]
        if step.name == "mul":
            gamma = tape.values[step.inputs[0] if step.inputs[1] == place.x_hat else step.inputs[1]]
            gains.append((gamma, tape.cotangents[step.outputs[0]]))
    for gamma, dy in gains:
        if dy is not None and np.ndim(gamma):
            outside = _formula(dy, x_hat, scale, axes, centred) if place.is_trained else scale * dy
            yield term, "with γ outside of the means", gamma * outside
            yield "scaled_path", "without γ", outside
            yield "scaled_path", "with γ twice", _formula(dy * gamma**2, x_hat, scale, axes, centred)


def _other_scales(situation, place, d) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield the right formula with another 1/σ that the gradient by hand computes, as of given statistics."""
    for text, value in situation.values_by_hand if place.is_trained else ():
        if value.size == place.scale.size and value.dtype.kind == "f":
            other = place._replace(scale=value.reshape(place.scale.shape))
            yield (
                "normalization_term",
                f"the right one with {text} in the place of 1/σ",
                _right(other, d),
            )


def _over_fewer_axes(d, x_hat, scale, axes, centred) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield the formula with one mean, or both, over some of the axes."""
    mean, product = (a.mean(axis=axes, keepdims=True) for a in (d if centred else 0 * d, d * x_hat))
    for count in range(1, len(axes)):
        for some in itertools.combinations(axes, count):
            few_mean, few_product = (a.mean(axis=some, keepdims=True) for a in (d if centred else 0 * d, d * x_hat))
            words = f"over axis {', '.join(map(str, some))} alone"
            yield "normalization_term", f"with the mean of dx̂ x̂ {words}", scale * (d - mean - x_hat * few_product)
            yield "normalization_term", f"with the mean of dx̂ {words}", scale * (d - few_mean - x_hat * product)
            yield "normalization_term", f"with both means {words}", scale * (d - few_mean - x_hat * few_product)
        for some in itertools.combinations(axes, count):
            part = int(np.prod([d.shape[axis] for axis in some]))
            text = f"with sums divided by {part}, the count along axis {', '.join(map(str, some))} alone"
            yield "normalization_term", text, _formula(d, x_hat, scale, axes, centred, centred, count=part)


def _over_more_axes(d, x_hat, scale, axes, centred) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield the formula with means over further axes."""
    others = [axis for axis in range(d.ndim) if axis not in axes and d.shape[axis] > 1]
    for count in range(1, len(others) + 1):
        for some in itertools.combinations(others, count):
            words = f"with means over axis {', '.join(map(str, some))} as well"
            yield (
                "normalization_term",
                words,
                _formula(d, x_hat, scale, tuple(sorted((*axes, *some))), centred, centred),
            )


def _of_other_groups(d, x_hat, scale, axes, centred) -> Iterator[tuple[Cause, str, np.ndarray]]:
    """Yield the formula with means of groups of entries that aren't neighbours, where an axis is cut into groups."""
    for axis in range(d.ndim - 1):
        first, second = d.shape[axis : axis + 2]
        if min(first, second) < 2 or (axis in axes) == (axis + 1 in axes):
            continue

        def mean(values, axis=axis, first=first, second=second):
            cut = values.reshape(*d.shape[:axis], second, first, *d.shape[axis + 2 :])
            means = np.swapaxes(cut, axis, axis + 1).mean(axis=axes, keepdims=True)
            means = np.swapaxes(np.broadcast_to(means, d.shape), axis, axis + 1)
            return means.reshape(d.shape)

        wrong = scale * (d - (mean(d) if centred else 0.0) - x_hat * mean(d * x_hat))
        words = f"with means of groups along axes {axis} and {axis + 1} whose entries aren't neighbours"
        yield "normalization_term", words, wrong


def _find(tape) -> Iterator[_Normalization]:
    """Yield every normalization, found by its values: x̂ is h less something, times a positive something."""
    with np.errstate(all="ignore"):
        for x_hat, value in enumerate(tape.values):
            if not tape.is_active[x_hat] or np.ndim(value) < 2 or np.iscomplexobj(value) or value.size > 200_000:
                continue
            producer = tape.producer.get(x_hat)
            if producer is None or tape.steps[producer].name not in ("mul", "div"):
                continue
            for h in _sources(tape, producer):
                before = tape.values[h]
                if before.shape == value.shape and h != x_hat and tape.is_active[h]:
                    yield from _as_normalization(tape, h, x_hat, before, value)
            yield from _with_gain_before(tape, x_hat, value)


def _with_gain_before(tape, number, value) -> Iterator[_Normalization]:
    """Yield a product of a value less something, of its own scale, and of a gain that is multiplied in before it."""
    factors = _factors(tape, number)
    centred = [n for n in factors if n in tape.producer and tape.steps[tape.producer[n]].name == "sub"]
    if len(factors) < 3 or len(centred) != 1:
        return
    h = tape.steps[tape.producer[centred[0]]].inputs[0]
    below, before = descendants(tape, h), tape.values[h]
    if np.shape(before) != value.shape or sum(n in below for n in factors) < 2:
        return
    gain, x_hat = _split(tape, number, below)
    is_whole = np.shape(gain) == np.shape(x_hat) == value.shape
    # Where x̂ is a value of its own, the normalization is found without its gain.
    if is_whole and np.ptp(gain) and not any(np.array_equal(tape.values[n], x_hat) for n in _inner(tape, number)):
        yield from _as_normalization(tape, h, number, before, x_hat, gain)


def _product(tape, number) -> Step | None:
    """Return the step that computes a value as a product, a quotient or a spread of others."""
    step = tape.steps[tape.producer[number]] if number in tape.producer else None
    return step if step is not None and step.name in ("mul", "div", *_SPREAD) else None


def _inner(tape, number) -> list[int]:
    """Return a value and the products that it is the product of."""
    step = _product(tape, number)
    if step is None:
        return []
    return [number, *(inner for source in step.inputs for inner in _inner(tape, source))]


def _factors(tape, number) -> list[int]:
    """Return the values that a value is the product or the quotient of."""
    step = _product(tape, number)
    if step is None:
        return [number]
    return [factor for source in step.inputs for factor in _factors(tape, source)]


def _split(tape, number, below) -> tuple[np.ndarray, np.ndarray]:
    """Return a value as the product of what does not depend on some values and of what does."""
    step, value = _product(tape, number), np.asarray(tape.values[number], float)
    if step is None:
        return (np.ones_like(value), value) if number in below else (value, np.ones_like(value))
    parts = zip(*(_split(tape, source, below) for source in step.inputs), strict=True)
    free, bound = (np.asarray(run_step(step, operands)[0], float) for operands in parts)
    return free, bound


def _sources(tape, producer) -> list[int]:
    step = tape.steps[producer]
    found = []
    for number in step.inputs:
        found.append(number)
        inner = tape.producer.get(number)
        if inner is not None and tape.steps[inner].name == "sub":
            found += tape.steps[inner].inputs[:1]
    return found[::-1]


def _as_normalization(tape, h, x_hat, before, value, gain=None) -> Iterator[_Normalization]:
    every = range(before.ndim)
    several = [tuple(axis for axis in every if axis != kept) for kept in every[::-1]] if before.ndim > 2 else []
    several += [tuple(every[1:-1]), tuple(every[2:]), *itertools.combinations(every, 2)] if before.ndim > 3 else []
    for axes in dict.fromkeys([(axis,) for axis in every] + several + _axes_of_sums(tape, before.shape)):
        if not axes or any(before.shape[axis] < 2 for axis in axes):
            continue
        centred = before - before.mean(axis=axes, keepdims=True)
        moved = value - value.mean(axis=axes, keepdims=True)
        scale = np.sqrt((moved**2).sum(axis=axes, keepdims=True) / (centred**2).sum(axis=axes, keepdims=True))
        size = 1e-9 * max_abs(value)
        if not np.isfinite(scale).all() or np.any(np.abs(moved - scale * centred) > size):
            continue
        own_mean = np.all(np.abs(value.mean(axis=axes)) <= size)
        is_given = not any(tape.is_active[number] for number in _others(tape, h, x_hat))
        varies = any(tape.is_active[number] for number in tape.steps[tape.producer[x_hat]].inputs[1:])
        is_own = varies and _depends(tape, h, tape.steps[tape.producer[x_hat]].inputs)
        if own_mean and is_own:
            yield _Normalization(h, x_hat, axes, scale, True, True, value, gain)
        elif np.all(np.abs(value - scale * before) <= size):
            if is_own:  # a product with anything else is no normalization
                yield _Normalization(h, x_hat, axes, scale, True, False, value, gain)
        elif (
            _has_given_statistics(tape, h, x_hat, scale if gain is None else scale * gain)
            if is_own
            else is_given and np.ptp(scale) > 1e-6 * max_abs(scale)
        ):
            yield _Normalization(h, x_hat, axes, scale, False, True, value, gain)


def _has_given_statistics(tape, h, x_hat, scale) -> bool:
    """Whether no gradient goes through the statistics, as where a flag chooses those that are stored."""
    given = tape.cotangents[x_hat]
    found = tape.backward({x_hat: given})[h] if given is not None and given.any() else None
    return found is not None and bool(np.all(np.abs(found - scale * given) <= 1e-9 * max_abs(found)))


def _axes_of_sums(tape, shape) -> list[tuple[int, ...]]:
    """Return the axes of the sums of the loss over arrays of a shape, as for the statistics of groups."""
    sums = [step for step in tape.steps if step.name == "reduce_sum" and np.shape(tape.values[step.inputs[0]]) == shape]
    return [tuple(map(int, step.parameters["axes"])) for step in sums]


def _others(tape, h, x_hat) -> list[int]:
    """Return the operands of the product that is x̂, without the one that is h, or h less something."""
    found = []
    for number in tape.steps[tape.producer[x_hat]].inputs:
        inner = tape.steps[tape.producer[number]] if number in tape.producer else None
        if number != h and not (inner is not None and inner.name == "sub" and inner.inputs[0] == h):
            found.append(number)
    return found


def _depends(tape, h, numbers) -> bool:
    below = descendants(tape, h)
    return sum(number in below or number == h for number in numbers) > 1
