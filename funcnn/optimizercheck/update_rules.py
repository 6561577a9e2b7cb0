"""Textbook optimizers in NumPy: one update rule with a switch for every line that implementations write differently.

g is the gradient, α the learning rate and t = 1, 2, … the step. m and v are the first and the second moment.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from funcnn.optimizercheck.sequences import Problem

FirstMoment: TypeAlias = Literal["none", "sum", "mean", "exchanged", "lion"]
"""How gradients are accumulated: ``sum`` is m ← β₁ m + g, ``mean`` is m ← β₁ m + (1−β₁) g, ``exchanged`` is
m ← (1−β₁) m + β₁ g, and ``lion`` is a mean whose sign is the direction."""

SecondMoment: TypeAlias = Literal["none", "mean", "sum", "leaky sum", "maximum", "exchanged"]
"""How squares are accumulated: ``mean`` is v ← β₂ v + (1−β₂) g², ``sum`` is v ← v + g², ``leaky sum`` is v ← β₂ v + g²,
``maximum`` is v ← max(β₂ v, |g| + ε), and ``exchanged`` is v ← (1−β₂) v + β₂ g²."""

Nesterov: TypeAlias = Literal["none", "ahead", "same step", "bare gradient", "added", "damped", "twice", "behind"]
"""The direction as a function of m and g: ``ahead`` is Sutskever's g + μ m, or Dozat's with m corrected for step t + 1;
``same step`` corrects both for t; ``bare gradient`` corrects only m; ``added`` is g + μ m̂ of a mean; ``damped`` is
(1−μ) g + μ m of a sum; ``twice`` is β₁ (β₁ m + (1−β₁) g) + (1−β₁) g; ``behind`` is g − μ v."""

Clip: TypeAlias = Literal["none", "value", "global norm", "leaf norm", "always", "squared norm", "padded norm"]
"""How gradients are clipped: ``always`` scales to the global norm even if the gradient is smaller, ``squared norm``
omits the root of the norm, and ``padded norm`` adds 10⁻⁶ to it, as in PyTorch."""


class UpdateRule(NamedTuple):
    """The update rule of an optimizer, line by line.

    The fields from ``power`` on describe mistakes: their defaults are right.

    Fields:
        rates: α, ``(sequences, steps)``.
        first, b1: accumulation and decay of the first moment.
        second, b2, initial_second: accumulation, decay and initial value of the second moment.
        first_correction, second_correction: the offset of t in the bias correction 1 − βᵗ of a moment; ``None`` for no
            correction.
        eps, eps_root: ε outside and inside the root.
        eps_before_correction: whether ε is added before v is corrected, as in Keras.
        nesterov: the direction.
        clip, bound: clipping of the gradient.
        coupled, decoupled, unscaled: weight decay added to the gradient, added to the direction, or subtracted from the
            parameters without the learning rate; a number, or one for each entry.
        rate_inside: whether the velocity accumulates α g.
        velocity_decay: μ of a velocity that accumulates the scaled updates.
        power: of |g| in the second moment.
        root: whether the root of the second moment is taken.
        resets: what is reset at every step: ``first``, ``second``, ``count``.
        stale: which moments are used before the gradient is accumulated: ``first``, ``second``.
        clip_update: whether the update is clipped instead of the gradient.
        decay_before_clip: whether coupled weight decay is added before the clipping.
        sign_decay: whether weight decay is proportional to the signs of the parameters.
        squared: what the second moment accumulates: ``gradient``, the first ``moment``, or the ``leaf``'s mean square.
        largest_second: whether the direction is divided by the root of the largest second moment so far.
        eps_floor: whether ε is the lower bound of the root.
        correct_with_b1: whether the second moment is corrected with β₁.
        count_leaves: whether the step count increases at every leaf.
        start_with_gradient: whether the first moment after one step is the gradient.
    """

    rates: np.ndarray
    first: FirstMoment = "none"
    b1: float = 0.0
    second: SecondMoment = "none"
    b2: float = 0.0
    initial_second: float = 0.0
    first_correction: int | None = None
    second_correction: int | None = None
    eps: float = 0.0
    eps_root: float = 0.0
    eps_before_correction: bool = False
    nesterov: Nesterov = "none"
    clip: Clip = "none"
    bound: float = 0.0
    coupled: Any = 0.0
    decoupled: Any = 0.0
    unscaled: Any = 0.0
    rate_inside: bool = False
    velocity_decay: float = 0.0
    power: int = 2
    root: bool = True
    resets: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    clip_update: bool = False
    decay_before_clip: bool = False
    sign_decay: bool = False
    squared: Literal["gradient", "moment", "leaf"] = "gradient"
    largest_second: bool = False
    eps_floor: bool = False
    correct_with_b1: bool = False
    count_leaves: bool = False
    start_with_gradient: bool = False


class Simulation(NamedTuple):
    """The updates of a rule, and the quantities from which they are made, ``(sequences, steps, entries)`` each.

    Fields:
        updates: the updates.
        numerators: the direction before the division.
        seconds: the corrected second moment, before ε is added.
    """

    updates: np.ndarray
    numerators: np.ndarray
    seconds: np.ndarray


def simulate(rule: UpdateRule, problem: Problem, path: np.ndarray | None = None) -> Simulation:
    """Apply an update rule to every sequence at once.

    Args:
        rule: the update rule.
        problem: the gradients, and the parameters before the first step.
        path: the parameters at every step; by default they follow the rule's own updates.
    """
    params, steps = problem.params, problem.gradients.shape[1]
    velocity, moments = np.zeros_like(params), _initial_moments(rule, params)
    outputs: tuple[list, list, list] = [], [], []
    with np.errstate(all="ignore"):
        for step in range(steps):
            params = params if path is None else path[:, step]
            rate, decaying = rule.rates[:, step, None], np.sign(params) if rule.sign_decay else params
            g = _effective_gradient(rule, problem.gradients[:, step], decaying, problem.starts)
            numerator, corrected, denominator, scale, moments = _update_moments(
                rule, moments, g, rate, step, problem.starts
            )
            velocity = scale * numerator / denominator + (rule.velocity_decay * velocity if rule.velocity_decay else 0)
            update = -velocity
            if rule.clip_update:
                update = clip(rule.clip, rule.bound, update, problem.starts)
            if np.any(rule.decoupled) or np.any(rule.unscaled):
                update = update - (rate * rule.decoupled + rule.unscaled) * decaying
            for output, value in zip(outputs, (update, numerator, corrected), strict=True):
                output.append(value)
            params = params + update
    return Simulation(*(np.stack(output, axis=1) for output in outputs))


class _Moments(NamedTuple):
    """Both moments, and the largest second moment so far."""

    first: np.ndarray
    second: np.ndarray
    largest: np.ndarray


def _initial_moments(rule, params) -> _Moments:
    zeros = np.zeros_like(params)
    return _Moments(zeros, np.full_like(params, rule.initial_second), zeros)


def _update_moments(rule, moments, g, rate, step, starts):
    """Return numerator, corrected second moment, denominator, remaining factor and moments of one step."""
    initial = _initial_moments(rule, g)
    old_first = initial.first if "first" in rule.resets else moments.first
    old_second = initial.second if "second" in rule.resets else moments.second
    first = g if rule.start_with_gradient and step == 0 else _first_moment(rule, old_first, g, rate)
    squared = first if rule.squared == "moment" else g
    second = _second_moment(rule, old_second, squared, starts)
    t = 1 if "count" in rule.resets else step + 1
    if rule.count_leaves:
        sizes = np.diff([*starts, g.shape[1]])
        t = np.repeat(step * len(starts) + 1 + np.arange(len(starts)), sizes)
    used_first = old_first if "first" in rule.stale else first
    used_second = old_second if "second" in rule.stale else second
    numerator, scale = _numerator(rule, used_first, old_first, g, rate, t)
    decay = rule.b1 if rule.correct_with_b1 else rule.b2
    corrected = used_second / _correction(decay, rule.second_correction, t)
    largest = np.maximum(moments.largest, corrected)
    corrected = largest if rule.largest_second else corrected
    denominator = _denominator(rule, used_second, corrected, t)
    return numerator, corrected, denominator, scale, _Moments(first, second, largest)


def clip(kind: Clip, bound: float, g: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Clip a row of numbers for each sequence; ``starts`` are the places where leaves begin."""
    if kind == "none":
        return g
    if kind == "value":
        return np.clip(g, -bound, bound)
    # Scaled, because the square of 1e200 overflows and the square of 1e-200 underflows.
    peak = np.abs(g).max(axis=1, keepdims=True, initial=0.0)
    unit = np.where((peak > 0) & np.isfinite(peak), peak, 1.0)
    squares = (g / unit) ** 2
    if kind == "leaf norm":
        sizes = np.diff([*starts, g.shape[1]])
        norms = np.repeat(np.sqrt(np.add.reduceat(squares, starts, axis=1)), sizes, axis=1) * unit
    else:
        norms = np.sqrt(squares.sum(axis=1, keepdims=True)) * unit
    norms = norms**2 if kind == "squared norm" else norms
    if kind == "padded norm":
        return g * np.minimum(1, bound / (norms + 1e-6))
    return g * (bound / norms) if kind == "always" else np.where(norms > bound, g / norms * bound, g)


def _effective_gradient(rule, g, params, starts):
    """Return the gradient that enters the moments."""
    # Without decay the parameters are not used, because they may be NaN.
    decay = rule.coupled * params if np.any(rule.coupled) else 0.0
    if rule.clip_update:
        return g + decay
    if rule.decay_before_clip:
        return clip(rule.clip, rule.bound, g + decay, starts)
    return clip(rule.clip, rule.bound, g, starts) + decay


def _first_moment(rule, m, g, rate):
    b1, g = rule.b1, rate * g if rule.rate_inside else g
    rules: dict[str, Callable[[], np.ndarray]] = {
        "none": lambda: g,
        "sum": lambda: b1 * m + g,
        "mean": lambda: b1 * m + (1 - b1) * g,
        "exchanged": lambda: (1 - b1) * m + b1 * g,
        "lion": lambda: rule.b2 * m + (1 - rule.b2) * g,
    }
    return rules[rule.first]()


def _second_moment(rule, v, g, starts):
    b2, square = rule.b2, np.abs(g) ** rule.power
    if rule.squared == "leaf":
        sizes = np.diff([*starts, g.shape[1]])
        square = np.repeat(np.add.reduceat(square, starts, axis=1) / sizes, sizes, axis=1)
    rules: dict[str, Callable[[], np.ndarray]] = {
        "none": lambda: np.ones_like(g),
        "mean": lambda: b2 * v + (1 - b2) * square,
        "sum": lambda: v + square,
        "leaky sum": lambda: b2 * v + square,
        "exchanged": lambda: (1 - b2) * v + b2 * square,
        "maximum": lambda: np.maximum(b2 * v, np.abs(g) + rule.eps),
    }
    return rules[rule.second]()


def _correction(decay, offset, t):
    return 1.0 if offset is None else 1 - np.float64(decay) ** (t + offset)


def _numerator(rule, m, old, g, rate, t):
    """Return the direction before it is divided by the root of v, and the remaining factor."""
    b1, offset = rule.b1, rule.first_correction
    if rule.first == "lion":
        return np.sign(b1 * old + (1 - b1) * g), rate
    if rule.rate_inside:
        g, rate = rate * g, np.ones_like(rate)
    now = _correction(b1, offset, t)
    ahead = _correction(b1, None if offset is None else offset + 1, t)
    if rule.first in ("none", "sum"):
        directions = {"none": m / now, "ahead": g + b1 * m, "damped": (1 - b1) * g + b1 * m, "added": g + m}
        directions |= {"behind": g - b1 * m}
    else:
        directions = {
            "none": m / now,
            "ahead": b1 * m / ahead + (1 - b1) * g / now,
            "same step": (b1 * m + (1 - b1) * g) / now,
            "bare gradient": b1 * m / ahead + (1 - b1) * g,
            "added": g + b1 * m / now,
            "twice": (b1 * (b1 * m + (1 - b1) * g) + (1 - b1) * g) / now,
        }
    return directions.get(rule.nesterov, m), rate


def _denominator(rule, second, corrected, t):
    if rule.second in ("none", "maximum"):
        return second
    if rule.eps_before_correction:
        correction = _correction(rule.b2, rule.second_correction, t)
        return (np.sqrt(second + rule.eps_root) + rule.eps) / np.sqrt(correction)
    if rule.eps_floor:
        return np.maximum(np.sqrt(corrected + rule.eps_root), rule.eps)
    inside = corrected + rule.eps_root
    return (np.sqrt(inside) if rule.root else inside) + rule.eps


def describe_rule(rule: UpdateRule) -> str:
    """Return the name and the coefficients of a rule: ``Adam with β₁ = 0.9, β₂ = 0.999, ε = 1e-08, α = 0.05``."""
    numbers = {"β₁": rule.b1, "β₂": rule.b2, "ε": rule.eps, "ε inside the root": rule.eps_root}
    if rule.second == "none":
        name = {"none": "gradient descent", "sum": "momentum", "lion": "Lion"}.get(rule.first, "momentum")
        numbers = {"μ": rule.b1} if rule.first == "sum" else numbers
    else:
        name = {"sum": "Adagrad", "maximum": "Adamax"}.get(rule.second, "RMSprop" if rule.first == "none" else "Adam")
    name = f"Nesterov's {name}" if rule.nesterov != "none" else name
    rates = np.unique(rule.rates[0])
    numbers |= {"μ of the velocity": rule.velocity_decay, "v at the start": rule.initial_second}
    numbers |= {"α": rates[0]} if rates.size == 1 else {}
    for kind, decay in {"coupled": rule.coupled, "decoupled": rule.decoupled}.items():
        numbers |= {f"{kind} weight decay": float(np.max(np.abs(decay), initial=0.0))}
    if rule.clip != "none":
        numbers |= {f"clipping by {rule.clip} at": rule.bound}
    text = ", ".join(f"{word} = {value:.6g}" for word, value in numbers.items() if value)
    return f"{name} with {text}" if text else name
