"""Cause ``activation_derivative``: left out, doubled, taken of the wrong variable, or another activation's.

Where the function is a part of the loss, as the absolute value of a distance to a target, it is ``loss_derivative``.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.activations import Activation, chosen_slopes, sigmoid
from funcnn.gradcheck.explanation.leaf import Diagnosis
from funcnn.gradcheck.explanation.numbers import format_sum, is_ratio_of_digits
from funcnn.gradcheck.explanation.search import Change, Known, Mutation, Regression, Replacement
from funcnn.gradcheck.explanation.situation import Situation
from funcnn.gradcheck.report import Cause

_MOST_VALUES = 60
_MOST_AT_SOME = 4  # the likely ones
_MOST_OF_PERIODS = 25


def generate_slopes(situation: Situation) -> Iterator[Mutation]:
    """Yield each activation with each wrong derivative."""
    tape = situation.tape
    for activation, cotangent, right in _reached(situation):
        tried: list[np.ndarray] = []
        for text, slope in chosen_slopes(activation, tape):
            known = any(np.array_equal(slope, other) for other in tried)
            if known or not slope.any() or np.array_equal(slope, -right) or _is_of_constant(tape, activation, slope):
                continue
            if slope.size > 1 and np.ptp(slope - right) <= 1e-12 * max_abs(slope) < np.ptp(right):
                continue  # the right one and a constant: a path beside the activation
            tried.append(slope)
            yield _change(situation, activation, text, (slope - right) * cotangent)
        for text, change in {
            "by hand only what is positive of the incoming gradient passes": np.where(cotangent > 0, cotangent, 0.0),
            "by hand it is applied where the incoming gradient is positive too": right * (cotangent > 0) * cotangent,
            **_without_parentheses(tape, activation, cotangent),
        }.items():
            if not change.any() or np.array_equal(change, cotangent):
                continue
            yield Change(
                _cause(situation, activation),
                f"{_sentence(situation, activation)}; {text}",
                {activation.z: change - right * cotangent},
            )
        if activation.kind.name == "ReLU":
            yield _other_side(situation, activation)
        if np.ptp(cotangent):
            yield Change(
                _cause(situation, activation),
                f"{_sentence(situation, activation)}; by hand it replaces the incoming gradient",
                {activation.z: right * (1 - cotangent)},
            )


def _other_side(situation, activation) -> Known:
    """Return the gradient of the loss with min(0, z) in the place of a ReLU."""
    tape, z = situation.tape, situation.tape.values[activation.z]
    others = tape.replay({activation.h: np.minimum(z, 0)})
    wrong = tape.wrong_gradient({activation.h: _elementwise(activation.z, 1.0 * (z < 0))}, others)
    return Known(
        _cause(situation, activation),
        f"by hand the other side of the ReLU in {situation.where(activation.h)} counts: min(0, z) and its derivative",
        [new - old for new, old in zip(wrong, tape.right_gradient, strict=True)],
    )


def _without_parentheses(tape, activation, d) -> dict[str, np.ndarray]:
    """Return the gradients of which only the first term of a derivative is multiplied by the incoming one."""
    h, words = tape.values[activation.h], "by hand it has no parentheses: the gradient is"
    if activation.kind.name == "tanh":
        return {f"{words} d − h²": d - h**2}
    return {f"{words} d h − h": d * h - h} if activation.kind.name == "sigmoid" else {}


def _is_of_constant(tape, activation, slope) -> bool:
    """Whether a slope is the right one times the constant by which z was multiplied: that path's mistake."""
    position = tape.producer.get(activation.z)
    step = tape.steps[position] if position is not None else None
    if step is None or step.name not in ("mul", "div"):
        return False
    right = activation.kind.slope(tape.values[activation.z], tape.values[activation.h])
    constants = [float(tape.values[n]) for n in step.inputs if not tape.is_active[n] and np.size(tape.values[n]) == 1]
    return any(
        constant not in (0, 1) and np.allclose(slope, right * constant**power, rtol=1e-12)
        for constant in constants
        for power in (1, -1)
    )


def generate_slopes_of_groups(situation: Situation) -> Iterator[Mutation]:
    """Yield all activations of a kind, or of a line of code, with each wrong derivative."""
    tape = situation.tape
    for name, group in situation.activation_groups():
        slopes = [dict(chosen_slopes(activation, tape)) for activation in group]
        most = _MOST_OF_PERIODS if name.startswith("at one of") else _MOST_AT_SOME
        texts = itertools.islice(slopes[0], None if name.startswith("at every") else most)
        for text in texts:
            if all(text in of_one for of_one in slopes):
                rules = {
                    activation.h: _elementwise(activation.z, of_one[text])
                    for activation, of_one in zip(group, slopes, strict=True)
                }
                yield Replacement(
                    _cause(situation, *group),
                    f"the derivative of {group[0].kind.name} is {group[0].kind.rule}; by hand it is {text}, {name}",
                    rules,
                )


def generate_slopes_at_other_values(situation: Situation) -> Iterator[Mutation]:
    """Yield each activation with its derivative taken at another value of the loss."""
    tape = situation.tape
    for activation, cotangent, right in _reached(situation):
        for number in situation.of_shape.get(right.shape, ())[:_MOST_VALUES]:
            other = tape.values[number]
            if other.dtype.kind != "f" or number in (activation.z, activation.h):
                continue
            text = f"taken at {situation.name_of(number)}"
            wrong = activation.kind.slope(other, activation.kind.value(other))
            yield _change(situation, activation, text, (wrong - right) * cotangent)


def generate_slopes_by_hand(situation: Situation) -> Iterator[Mutation]:
    """Yield each activation with what the gradient by hand computes in the place of its derivative."""
    for activation, cotangent, right in _reached(situation):
        # A function that is its own derivative keeps its value for the backward pass.
        is_kept = np.array_equal(right, situation.tape.values[activation.h])
        for text, value in situation.values_by_hand:
            if value.shape == right.shape and value.dtype.kind == "f":
                change = _change(situation, activation, text, (value - right) * cotangent)
                yield change._replace(cause="wrong_operand") if is_kept else change


def generate_misplaced_slopes(situation: Situation) -> Iterator[Mutation]:
    """Yield each use of a value with its gradient multiplied by the derivative of an activation that it skips."""
    slopes = [
        (activation, activation.kind.slope(*_parts(situation, activation)[1:])) for activation in situation.activations
    ]
    slopes = [pair for pair in slopes if not pair[0].kind.is_arithmetic]
    for edge in situation.edges:
        if edge.step.name not in ("add", "sub", "mul", "concatenate") or situation.is_repeated(edge.step.outputs[0]):
            continue
        for activation, slope in slopes:
            if slope.shape == edge.part.shape and np.isfinite(slope).all() and np.ptp(slope):
                yield Change(
                    "activation_derivative",
                    f"the path through {situation.where(edge.step.outputs[0])} is multiplied by hand by the derivative "
                    f"of {activation.kind.name} in {situation.where(activation.h)}, which it does not pass",
                    {edge.source: (slope - 1) * edge.part},
                )


def generate_fitted_slopes(situation: Situation) -> Iterator[Mutation]:
    """Yield each activation with a derivative that is a sum of two simple functions of z and h."""
    for activation in situation.activations:
        cotangent, z, h = _parts(situation, activation)
        right = activation.kind.slope(z, h)
        if not cotangent.any() or z.size < 4 or situation.is_repeated(activation.h):
            continue
        functions = {
            "1": np.ones_like(z),
            "h": h,
            "h²": h**2,
            "z": z,
            "z²": z**2,
            "z h": z * h,
            "f′": right,
            "f′²": right**2,
            "[z > 0]": 1.0 * (z > 0),
            "[z < 0]": 1.0 * (z < 0),
            "σ(z)": sigmoid(z),
            "z f′": z * right,
            "h f′": h * right,
        }
        rest = {activation.z: -right * cotangent}
        sentence, cause = _sentence(situation, activation), _cause(situation, activation)

        def describe(texts, factors, cause=cause, sentence=sentence) -> Diagnosis | None:
            # Where differences are summed a constant cancels, but at the ends: any mistake there has one.
            is_constant = any(text == "1" and not is_ratio_of_digits(f) for text, f in zip(texts, factors, strict=True))
            return None if is_constant else (cause, f"{sentence}; by hand it is {format_sum(factors, texts)}")

        yield Regression(describe, {text: {activation.z: slope * cotangent} for text, slope in functions.items()}, rest)


def _reached(situation: Situation) -> Iterator[tuple[Activation, Any, Any]]:
    """Yield each activation that a gradient reaches once: with its cotangent and its derivative."""
    for activation in situation.activations:
        cotangent, z, h = _parts(situation, activation)
        if cotangent.any() and not situation.is_repeated(activation.h):
            yield activation, cotangent, activation.kind.slope(z, h)


def _parts(situation, activation):
    tape = situation.tape
    cotangent = tape.cotangents[activation.h]
    z, h = tape.values[activation.z], tape.values[activation.h]
    return np.zeros_like(h) if cotangent is None else cotangent, z, h


def _change(situation, activation, text, change) -> Change:
    return Change(
        _cause(situation, activation),
        f"{_sentence(situation, activation)}; by hand it is {text}",
        {activation.z: change},
    )


def _cause(situation, *activations: Activation) -> Cause:
    """Return the name of a wrong derivative: of an activation, or of a function in the loss."""
    is_in_loss = all(activation.z in situation.compared for activation in activations)
    return "loss_derivative" if is_in_loss else "activation_derivative"


def _sentence(situation, activation: Activation) -> str:
    kind = activation.kind
    where = situation.where(activation.h)
    return f"the derivative of {kind.name} in {where} is {kind.rule}"


def _elementwise(z, slope):
    return lambda cotangent: [(z, slope * cotangent)]
