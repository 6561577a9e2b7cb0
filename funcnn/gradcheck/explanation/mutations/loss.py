"""Cause ``loss_derivative``: the gradient by the values that the loss is taken of has another formula."""

from collections.abc import Iterator

import numpy as np
from scipy.special import softmax

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.activations import descendants, sigmoid
from funcnn.gradcheck.explanation.leaf import Diagnosis
from funcnn.gradcheck.explanation.numbers import format_sum
from funcnn.gradcheck.explanation.search import Change, Mutation, Regression
from funcnn.gradcheck.explanation.situation import LAYERS, Situation

_MOST_VALUES = 5000
_LONGEST_FORMULA = 30


def generate_loss_derivatives(situation: Situation) -> Iterator[Mutation]:
    """Yield each value after the last layer with its gradient as a sum of two or three terms."""
    tape = situation.tape
    for number in _last_values(situation):
        value, cotangent = tape.values[number], situation.cotangent(number)
        words = f"the gradient of the loss by {situation.name_of(number)}"
        for text, changed in _once_more(value, cotangent).items():
            yield Change(
                "activation_derivative",
                f"{words} is multiplied by hand by {text}, which does not belong there",
                {number: changed - cotangent},
            )
        # The loss's derivative is right where a later gradient is right by hand: the mistake is between the two.
        if situation.right_by_hand & (descendants(tape, number) | {number}):
            continue

        terms = _terms(situation, number)

        def by_formula(texts, factors, words=words, terms=terms, cotangent=cotangent) -> Diagnosis:
            formula = f"{words} is by hand {format_sum(factors, texts)}"
            by_hand = sum(factor * terms[text] for factor, text in zip(factors, texts, strict=True))
            if _is_right_but_where_it_is_zero(by_hand, cotangent):
                return "mask", f"{formula}, also for the samples that the loss leaves out"
            return "loss_derivative", formula

        yield Regression(by_formula, {text: {number: term} for text, term in terms.items()}, {number: -cotangent}, 3)


def _is_right_but_where_it_is_zero(by_hand, right) -> bool:
    """Whether a gradient is the right one for some samples, and for all others the right one is zero."""
    rows = right.reshape(len(right), -1) if right.ndim else right
    is_out = ~rows.any(axis=-1) if right.ndim else np.array([False])
    kept = by_hand[~is_out] - right[~is_out]
    return bool(0 < is_out.sum() < len(is_out) and max_abs(kept) <= 1e-7 * max_abs(right))


def generate_loss_gradients_by_hand(situation: Situation) -> Iterator[Mutation]:
    """Yield each value after the last layer with what the gradient by hand computes as its gradient.

    That is a wrong derivative where the loss is a formula. In a long loss, as one that sums over paths, or in the
    gradient of one parameter alone, it is any mistake on the way.
    """
    tape = situation.tape
    for number in _last_values(situation):
        if number in tape.params or situation.right_by_hand & (descendants(tape, number) | {number}):
            continue
        value, name = tape.values[number], situation.name_of(number)
        after = {tape.producer[later] for later in descendants(tape, number)}
        is_formula = len(after) <= _LONGEST_FORMULA and not situation.target.is_alone and not _mixes_rows(tape, number)

        computed = {
            text: {number: np.asarray(term, float)}
            for text, term in situation.values_by_hand
            if term.shape == value.shape
        }
        right = situation.cotangent(number)

        def describe(texts, factors, name=name, is_formula=is_formula, computed=computed, right=right) -> Diagnosis:
            words = f"the gradient of the loss by {name} is wrong: it is {texts[0]}"
            (by_hand,) = computed[texts[0]].values()
            if is_formula and _is_right_but_where_it_is_zero(factors[0] * by_hand, right):
                return "mask", f"{words}, also for the samples that the loss leaves out"
            if (known := _compare(situation, factors[0] * by_hand, right)) is not None:
                return known[0], f"{words}, {known[1]}"
            rest = "the backward pass from there to the parameters is right"
            return ("loss_derivative", words) if is_formula else ("unknown", f"{words}; {rest}")

        if computed:
            yield Regression(describe, computed, {number: -right}, 1)


def _compare(situation, by_hand, right) -> Diagnosis | None:
    """Return how a gradient by hand follows from the right one: by a factor of the loss, or by a mask of it."""
    tape, near = situation.tape, 1e-7 * max(max_abs(right), max_abs(by_hand))
    is_wrong = np.abs(by_hand - right) > near
    for number, value in enumerate(tape.values):
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fb" or np.unique(value).size < 2:
            continue
        if not _fits(value, right):
            continue
        name, factor = situation.name_of(number), np.broadcast_to(1.0 * value, right.shape)
        if not tape.sources[number] and set(np.unique(factor)) == {0.0, 1.0}:
            if not _is_one_hot(factor) and any(np.array_equal(is_wrong, factor == kept) for kept in (0, 1)):
                return "mask", f"and differs where {name} is {factor[is_wrong][0]:.0f}"
        elif np.all(np.abs(by_hand * factor - right) <= near):
            return "scaled_path", f"without the factor {name}"
        elif np.all(np.abs(by_hand - right * factor) <= near):
            return "scaled_path", f"with the factor {name} once more"
    return None


def _is_one_hot(array) -> bool:
    """Whether every row has one entry that is not zero, as the labels of classes have."""
    return array.ndim > 1 and array.shape[-1] > 1 and bool(np.all((array != 0).sum(axis=-1) == 1))


def _mixes_rows(tape, number) -> bool:
    """Whether the rows of a value meet before the loss is summed, as in a variance."""
    rows, sums = len(tape.values[number]), 0
    for later in sorted(descendants(tape, number)):
        before = [source for source in tape.steps[tape.producer[later]].inputs if tape.is_active[source]]
        is_small = [np.size(tape.values[source]) < rows for source in before]
        sums += np.size(tape.values[later]) < rows and not all(is_small)
        if np.size(tape.values[later]) >= rows and any(is_small) and set(before) & descendants(tape, number):
            return True
    return sums > 1


def _last_values(situation) -> list[int]:
    """Return the values after which no layer follows and which all wrong leaves reach, the earliest first."""
    tape, found = situation.tape, []
    wrong = {tape.params[number] for number in situation.target.wrong}
    for number, value in enumerate(tape.values):
        if not tape.is_active[number] or tape.cotangents[number] is None or not 1 < np.size(value) <= _MOST_VALUES:
            continue
        if not np.isrealobj(value) or not np.isfinite(value).all():
            continue
        if any(tape.steps[tape.producer[later]].name in LAYERS for later in descendants(tape, number)):
            continue
        if all(param == number or number in descendants(tape, param) for param in wrong):
            found.append(number)
    return found[:3]


def _once_more(z, d) -> dict[str, np.ndarray]:
    """Return a gradient multiplied by the derivatives of the usual last activations."""
    p, found = sigmoid(z), {}
    for text, factor in {
        "σ′ = p (1 − p)": p * (1 - p),
        "tanh′ = 1 − tanh²": 1 - np.tanh(z) ** 2,
        "1 − z²": 1 - z**2,
        "z (1 − z)": z * (1 - z),
        "the step of a ReLU": 1.0 * (z > 0),
    }.items():
        found[text] = factor * d
    for axis in range(z.ndim):
        q = softmax(z, axis)
        found["the derivative of a softmax"] = q * (d - (q * d).sum(axis=axis, keepdims=True))
        found["p (1 − p) of a softmax"] = q * (1 - q) * d
    return found


def _terms(situation, number) -> dict[str, np.ndarray]:
    tape = situation.tape
    z = tape.values[number]
    found: dict[str, np.ndarray] = {"1": np.ones_like(z), "z": z}
    shaped = [
        n for n, value in enumerate(tape.values)
        if not tape.is_active[n] and isinstance(value, np.ndarray) and value.dtype.kind in "fb"
        and value.size > 1 and _fits(value, z)
    ]  # fmt: skip
    targets: list[np.ndarray] = []
    for n in shaped:
        y = np.broadcast_to(np.asarray(tape.values[n], float), z.shape)
        # A factor for each of few columns fits any mistake.
        is_number_of_few = np.unique(y).size <= 3 and not set(np.unique(y)) <= {-1.0, 0.0, 1.0}
        if np.ptp(y) and not is_number_of_few and not any(np.array_equal(y, other) for other in targets):
            targets.append(y)
    probabilities = {"σ(z)": sigmoid(z)}
    for axis in range(z.ndim):
        if z.shape[axis] > 1:
            name = "softmax(z)" if axis == z.ndim - 1 else f"softmax(z) along axis {axis}"
            probabilities[name] = softmax(z, axis)
    found |= probabilities
    for index, y in enumerate(targets[:3]):
        name = "y" if index == 0 else f"y{index + 1}"
        found |= {name: y, f"sign(z − {name})": np.sign(z - y), f"sign({name})": np.sign(y), f"{name} z": y * z}
        found |= {f"{name} [{name} z < 1]": y * (y * z < 1), f"[z > {name}]": 1.0 * (z > y)}
        found |= {f"{name}²": y**2, f"|z − {name}|": np.abs(z - y), f"[{name} z < 1]": 1.0 * (y * z < 1)}
        for text, p in list(probabilities.items())[:2]:
            found |= {f"{name} {text}": y * p, f"{name}/{text}": y / p, f"{name}/(1 − {text})": y / (1 - p)}
            found |= {f"(1 − {name})/{text}": (1 - y) / p, f"{name} {text}²": y * p**2}
        for axis in range(z.ndim):
            if z.shape[axis] > 1:
                for move in (1, -1):
                    found[f"{name} moved by {move} along axis {axis}"] = np.roll(y, move, axis)
        if z.ndim > 1:
            found[f"{name} rounded to one-hot"] = 1.0 * (np.arange(z.shape[-1]) == y.argmax(axis=-1)[..., None])
    p = list(probabilities.values())[-1]
    found["[z is the largest]"] = 1.0 * (z == z.max(axis=-1, keepdims=True))
    found |= {"e^z": np.exp(z), "p²": p**2, "tanh(z)": np.tanh(z), "sign(z)": np.sign(z), "z²": z**2}
    return {text: term for text, term in found.items() if np.isfinite(term).all() and term.any()}


def _fits(value, z) -> bool:
    try:
        return np.broadcast_shapes(value.shape, z.shape) == z.shape
    except ValueError:
        return False
