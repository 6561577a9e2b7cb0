"""Causes ``activation_derivative`` and ``wrong_axis`` of a softmax: a part of its Jacobian, or that of another axis."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from funcnn.gradcheck.explanation.activations import descendants
from funcnn.gradcheck.explanation.leaf import Diagnosis
from funcnn.gradcheck.explanation.numbers import format_factor
from funcnn.gradcheck.explanation.search import Change, Multiple, Mutation, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.explanation.tape import Tape
from funcnn.gradcheck.report import Cause

_OTHER_AXIS = "with p taken along axis"
_WITHOUT_TARGETS = "−p Σ dh, without dh: as if nothing were chosen"


class Softmax(NamedTuple):
    """A softmax or a log-softmax h of z along an axis."""

    z: int
    h: int
    axis: int
    is_log: bool


def generate_softmax(situation: Situation) -> Iterator[Mutation]:
    """Yield each softmax and log-softmax with parts of its derivative left out."""
    tape, found = situation.tape, find_softmax(situation.tape)
    for place in found:
        cotangent = tape.cotangents[place.h]
        if cotangent is None:
            continue
        name = "log-softmax" if place.is_log else "softmax"
        rule = "dh − p Σ dh" if place.is_log else "p (dh − Σ p dh)"
        sentence = f"the derivative of {name} in {situation.where(place.h)} is {rule}; by hand it is"
        right = _right(tape, place, cotangent)
        wrong = dict(_wrong(tape, place, cotangent))
        for text, change in wrong.items():
            yield Change(_cause_of(text), f"{sentence} {text}", {place.z: change - right})
        for text, change in wrong.items():

            def describe(factors, text=text, sentence=sentence) -> Diagnosis:
                return _cause_of(text), f"{sentence} {format_factor(factors[0], 1e-7)} times {text}"

            yield Multiple(describe, [{place.z: change}], {place.z: -right})
    if len(found) > 1:
        texts = [set(dict(_wrong(tape, place, tape.values[place.h]))) for place in found]
        for text in set.intersection(*texts):
            rules = {place.h: _rule(tape, place, text) for place in found}
            yield Replacement(
                _cause_of(text),
                f"the derivative of softmax is p (dh − Σ p dh); by hand it is {text}, at every place",
                rules,
            )


def _cause_of(text) -> Cause:
    """Return the cause: the probabilities of another axis are no other formula."""
    if text == _WITHOUT_TARGETS:
        return "loss_derivative"
    return "wrong_axis" if text.startswith(_OTHER_AXIS) else "activation_derivative"


def _rule(tape, place, text):
    return lambda cotangent: [(place.z, dict(_wrong(tape, place, cotangent))[text])]


def _right(tape, place, cotangent):
    def total(values):
        return values.sum(axis=place.axis, keepdims=True)

    h = tape.values[place.h]
    return cotangent - np.exp(h) * total(cotangent) if place.is_log else h * (cotangent - total(cotangent * h))


def _wrong(tape, place, d):
    h = tape.values[place.h]
    p = np.exp(h) if place.is_log else h

    def total(values, axis=place.axis):
        return values.sum(axis=axis, keepdims=True)

    if place.is_log:
        yield "dh, without the sum", d
        yield _WITHOUT_TARGETS, -p * total(d)
        yield "p dh, without the sum", p * d
        yield "dh − Σ dh, without p", d - total(d)
        yield "dh − p", d - p
        yield "that of softmax", p * (d - total(p * d))
        yield "dh (1 − p), the diagonal alone", d * (1 - p)
        yield "dh + p Σ dh", d + p * total(d)
    else:
        yield "p (1 − p) dh, the diagonal of the Jacobian alone", p * (1 - p) * d
        yield "p dh, without the sum", p * d
        yield "dh, left out", d
        yield "p (dh − Σ dh), without p in the sum", p * (d - total(d))
        yield "p (dh + Σ p dh), with the sum's sign exchanged", p * (d + total(p * d))
        yield "dh − Σ p dh, without the p before it", d - total(p * d)
        yield "dh − p Σ dh, that of log-softmax", d - p * total(d)
        yield "p (dh − the mean of p dh)", p * (d - (p * d).mean(axis=place.axis, keepdims=True))
        yield "p (dh − the mean of dh)", p * (d - d.mean(axis=place.axis, keepdims=True))
        yield "p (1 − p)", p * (1 - p)
        yield "1 − p times dh", (1 - p) * d
        yield "that of tanh, (1 − p²) dh", (1 - p**2) * d
        yield "p² dh", p**2 * d
        yield "dh minus its mean", d - d.mean(axis=place.axis, keepdims=True)
        yield "p − p²", p - p**2
    for axis in range(p.ndim):
        if axis != place.axis % p.ndim and p.shape[axis] > 1:
            where = f"with the sum along axis {axis} and not {place.axis % p.ndim}"
            yield where, (d - p * total(d, axis)) if place.is_log else p * (d - total(p * d, axis))
            z = tape.values[place.z]
            other = np.exp(z - z.max(axis=axis, keepdims=True))
            other = other / other.sum(axis=axis, keepdims=True)
            there = f"{_OTHER_AXIS} {axis} and not {place.axis % p.ndim}"
            yield there, (d - other * total(d, axis)) if place.is_log else other * (d - total(other * d, axis))
            if place.is_log:
                yield f"{there}, and the sum of dh as it is", d - other * total(d)
    everything = tuple(range(p.ndim))
    if p.ndim > 1:
        where = "with the sum over all entries"
        yield where, (d - p * total(d, everything)) if place.is_log else p * (d - total(p * d, everything))


def find_softmax(tape: Tape) -> list[Softmax]:
    """Return every softmax and log-softmax, with the earliest value of which it is one."""
    found = []
    with np.errstate(all="ignore"):
        for h, value in enumerate(tape.values):
            if not (tape.is_active[h] and isinstance(value, np.ndarray) and value.ndim and np.isrealobj(value)):
                continue
            for is_log in (False, True):
                p = np.exp(value) if is_log else value
                if not (np.isfinite(p).all() and (p >= 0).all() and p.size > 1):
                    continue
                for axis in range(p.ndim):
                    if p.shape[axis] > 1 and np.all(np.abs(p.sum(axis=axis) - 1) < 1e-9):
                        z = _origin(tape, h, p, axis)
                        if z is not None:
                            found.append(Softmax(z, h, axis, is_log))
    return found


def _origin(tape, h, p, axis) -> int | None:
    for z in range(h):
        value = tape.values[z]
        if not tape.is_active[z] or np.shape(value) != p.shape or not np.isrealobj(value):
            continue
        gap = np.where(p > 0, np.log(np.where(p > 0, p, 1.0)) - np.where(np.isfinite(value), value, 0.0), np.nan)
        low, high = np.nanmin(gap, axis=axis), np.nanmax(gap, axis=axis)
        hidden = (p == 0) == (value < np.nanmax(np.where(np.isfinite(value), value, np.nan)) - 700)
        if np.all(high - low < 1e-8) and hidden.all() and np.isfinite(gap).any() and h in descendants(tape, z):
            return z
    return None
