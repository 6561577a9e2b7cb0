"""Optimizers as textbooks print them, in NumPy: one recipe with a switch for every line that people write otherwise.

g is the gradient, α the learning rate, t = 1, 2, … the step; m and v are the first and the second moment.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from funcnn.optimizercheck.sequences import Problem

First: TypeAlias = Literal["none", "sum", "mean", "exchanged", "lion"]
"""How gradients are gathered: ``sum`` is m ← β₁ m + g, ``mean`` m ← β₁ m + (1−β₁) g, ``exchanged`` has β₁ and 1−β₁ in
each other's place, ``lion`` is a mean of which the direction is a sign."""

Second: TypeAlias = Literal["none", "mean", "sum", "leaky sum", "maximum", "exchanged"]
"""How squares are gathered: ``sum`` is v ← v + g², ``leaky sum`` v ← β₂ v + g², ``maximum`` v ← max(β₂ v, |g| + ε)."""

Nesterov: TypeAlias = Literal["none", "ahead", "same step", "bare gradient", "added", "damped", "twice", "behind"]
"""The direction made of m and g: ``ahead`` is Sutskever's g + μ m, or Dozat's with m corrected for step t + 1;
``same step`` corrects both for t, ``bare gradient`` only m; ``added`` is g + μ m̂ of a mean, ``damped`` (1−μ) g + μ m of
a sum, ``twice`` β₁ (β₁ m + (1−β₁) g) + (1−β₁) g, ``behind`` g − μ v."""

Clip: TypeAlias = Literal["none", "value", "global norm", "leaf norm", "always", "squared norm", "padded norm"]
"""How gradients are clipped: ``always`` scales to the global norm also from below, ``squared norm`` lacks its root,
``padded norm`` has PyTorch's 10⁻⁶ added."""


class Recipe(NamedTuple):
    """What an optimizer does, line by line.

    The fields of the first group describe optimizers as they should be, those of the second lines that went wrong.

    Fields:
        rates: α, ``(sequences, steps)``.
        first, b1; second, b2, start: both moments, and v before the first step.
        corrected_first, corrected_second: whether a moment is divided by 1 − βᵗ, as the number by which t is off;
            ``None`` for no.
        eps, eps_root: outside and inside the root.
        eps_before: whether ε is added before v is corrected, as Keras does.
        nesterov: the direction.
        clip, bound: of the gradient.
        coupled, decoupled, unscaled: weight decay added to the gradient, to the direction, or taken off the parameters
            without the learning rate; a number, or one for each entry.
        rate_inside: the velocity gathers α g.
        after: μ of a velocity that gathers the scaled updates.
        power: of |g| in the second moment; ``root``: whether its root is taken.
        forgets: what begins anew at every step: ``first``, ``second``, ``count``.
        late: a moment is used before it takes in the gradient: ``first``, ``second``.
        clips_updates: what is clipped is the update.
        decays_before_clip: coupled weight decay is added before the clipping.
        decays_by_sign: weight decay takes the parameters' signs.
        squares: what the second moment is made of: ``gradient``, the first ``moment``, or the ``leaf``'s mean square.
        keeps_largest: the direction is divided by the root of the largest second moment so far.
        eps_floor: ε is the least that the root may be.
        corrected_by_first: the second moment is corrected with β₁.
        counts_leaves: the count goes on at every leaf.
        begins_whole: the first moment begins as the first gradient.
    """

    rates: np.ndarray
    first: First = "none"
    b1: float = 0.0
    second: Second = "none"
    b2: float = 0.0
    start: float = 0.0
    corrected_first: int | None = None
    corrected_second: int | None = None
    eps: float = 0.0
    eps_root: float = 0.0
    eps_before: bool = False
    nesterov: Nesterov = "none"
    clip: Clip = "none"
    bound: float = 0.0
    coupled: Any = 0.0
    decoupled: Any = 0.0
    unscaled: Any = 0.0
    rate_inside: bool = False
    after: float = 0.0
    power: int = 2
    root: bool = True
    forgets: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    clips_updates: bool = False
    decays_before_clip: bool = False
    decays_by_sign: bool = False
    squares: Literal["gradient", "moment", "leaf"] = "gradient"
    keeps_largest: bool = False
    eps_floor: bool = False
    corrected_by_first: bool = False
    counts_leaves: bool = False
    begins_whole: bool = False


class Simulated(NamedTuple):
    """A recipe's updates, ``(sequences, steps, entries)``, and what they are made of before α and ε."""

    updates: np.ndarray
    numerators: np.ndarray
    seconds: np.ndarray


def simulate(recipe: Recipe, problem: Problem, path: np.ndarray | None = None) -> Simulated:
    """Take every step of every sequence at once.

    Args:
        recipe: what to do.
        problem: the gradients, and the parameters before the first step.
        path: the parameters at every step, where they aren't to follow the recipe's own updates.
    """
    params, steps = problem.params, problem.gradients.shape[1]
    velocity, memory = np.zeros_like(params), _begun(recipe, params)
    outputs: tuple[list, list, list] = [], [], []
    with np.errstate(all="ignore"):
        for step in range(steps):
            params = params if path is None else path[:, step]
            rate, decayed = recipe.rates[:, step, None], np.sign(params) if recipe.decays_by_sign else params
            g = _prepared(recipe, problem.gradients[:, step], decayed, problem.starts)
            numerator, corrected, denominator, scale, memory = _moved(recipe, memory, g, rate, step, problem.starts)
            velocity = scale * numerator / denominator + (recipe.after * velocity if recipe.after else 0.0)
            update = -velocity
            if recipe.clips_updates:
                update = clipped(recipe.clip, recipe.bound, update, problem.starts)
            if np.any(recipe.decoupled) or np.any(recipe.unscaled):
                update = update - (rate * recipe.decoupled + recipe.unscaled) * decayed
            for output, value in zip(outputs, (update, numerator, corrected), strict=True):
                output.append(value)
            params = params + update
    return Simulated(*(np.stack(output, axis=1) for output in outputs))


class _Memory(NamedTuple):
    """Both moments, and the largest second one so far."""

    first: np.ndarray
    second: np.ndarray
    largest: np.ndarray


def _begun(recipe, params) -> _Memory:
    zeros = np.zeros_like(params)
    return _Memory(zeros, np.full_like(params, recipe.start), zeros)


def _moved(recipe, memory, g, rate, step, starts):
    """One step of the moments: numerator, corrected second moment, denominator, what is left to multiply by, memory."""
    begun = _begun(recipe, g)
    kept_first = begun.first if "first" in recipe.forgets else memory.first
    kept_second = begun.second if "second" in recipe.forgets else memory.second
    first = g if recipe.begins_whole and step == 0 else _first(recipe, kept_first, g, rate)
    squared = first if recipe.squares == "moment" else g
    second = _second(recipe, kept_second, squared, starts)
    t = 1 if "count" in recipe.forgets else step + 1
    if recipe.counts_leaves:
        sizes = np.diff([*starts, g.shape[1]])
        t = np.repeat(step * len(starts) + 1 + np.arange(len(starts)), sizes)
    used_first = kept_first if "first" in recipe.late else first
    used_second = kept_second if "second" in recipe.late else second
    numerator, scale = _numerator(recipe, used_first, kept_first, g, rate, t)
    decay = recipe.b1 if recipe.corrected_by_first else recipe.b2
    corrected = used_second / _correction(decay, recipe.corrected_second, t)
    largest = np.maximum(memory.largest, corrected)
    corrected = largest if recipe.keeps_largest else corrected
    denominator = _denominator(recipe, used_second, corrected, t)
    return numerator, corrected, denominator, scale, _Memory(first, second, largest)


def clipped(kind: Clip, bound: float, g: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A row of numbers for each sequence, clipped."""
    if kind == "none":
        return g
    if kind == "value":
        return np.clip(g, -bound, bound)
    # A square of 1e200 would overflow, and one of 1e-200 vanish.
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


def _prepared(recipe, g, params, starts):
    """The gradient that enters the moments."""
    # What has become NaN stays out of what doesn't decay.
    decay = recipe.coupled * params if np.any(recipe.coupled) else 0.0
    if recipe.clips_updates:
        return g + decay
    if recipe.decays_before_clip:
        return clipped(recipe.clip, recipe.bound, g + decay, starts)
    return clipped(recipe.clip, recipe.bound, g, starts) + decay


def _first(recipe, m, g, rate):
    b1, g = recipe.b1, rate * g if recipe.rate_inside else g
    rules: dict[str, Callable[[], np.ndarray]] = {
        "none": lambda: g,
        "sum": lambda: b1 * m + g,
        "mean": lambda: b1 * m + (1 - b1) * g,
        "exchanged": lambda: (1 - b1) * m + b1 * g,
        "lion": lambda: recipe.b2 * m + (1 - recipe.b2) * g,
    }
    return rules[recipe.first]()


def _second(recipe, v, g, starts):
    b2, square = recipe.b2, np.abs(g) ** recipe.power
    if recipe.squares == "leaf":
        sizes = np.diff([*starts, g.shape[1]])
        square = np.repeat(np.add.reduceat(square, starts, axis=1) / sizes, sizes, axis=1)
    rules: dict[str, Callable[[], np.ndarray]] = {
        "none": lambda: np.ones_like(g),
        "mean": lambda: b2 * v + (1 - b2) * square,
        "sum": lambda: v + square,
        "leaky sum": lambda: b2 * v + square,
        "exchanged": lambda: (1 - b2) * v + b2 * square,
        "maximum": lambda: np.maximum(b2 * v, np.abs(g) + recipe.eps),
    }
    return rules[recipe.second]()


def _correction(decay, offset, t):
    return 1.0 if offset is None else 1 - np.float64(decay) ** (t + offset)


def _numerator(recipe, m, kept, g, rate, t):
    """The direction before it is divided by the root of v, and what it is still to be multiplied by."""
    b1, offset = recipe.b1, recipe.corrected_first
    if recipe.first == "lion":
        return np.sign(b1 * kept + (1 - b1) * g), rate
    if recipe.rate_inside:
        g, rate = rate * g, np.ones_like(rate)
    now = _correction(b1, offset, t)
    ahead = _correction(b1, None if offset is None else offset + 1, t)
    if recipe.first in ("none", "sum"):
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
    return directions.get(recipe.nesterov, m), rate


def _denominator(recipe, second, corrected, t):
    if recipe.second in ("none", "maximum"):
        return second
    if recipe.eps_before:
        correction = _correction(recipe.b2, recipe.corrected_second, t)
        return (np.sqrt(second + recipe.eps_root) + recipe.eps) / np.sqrt(correction)
    if recipe.eps_floor:
        return np.maximum(np.sqrt(corrected + recipe.eps_root), recipe.eps)
    inside = corrected + recipe.eps_root
    return (np.sqrt(inside) if recipe.root else inside) + recipe.eps


def described(recipe: Recipe) -> str:
    """A recipe in words: ``Adam with β₁ = 0.9, β₂ = 0.999, ε = 1e-08, α = 0.05``."""
    numbers = {"β₁": recipe.b1, "β₂": recipe.b2, "ε": recipe.eps, "ε inside the root": recipe.eps_root}
    if recipe.second == "none":
        name = {"none": "gradient descent", "sum": "momentum", "lion": "Lion"}.get(recipe.first, "momentum")
        numbers = {"μ": recipe.b1} if recipe.first == "sum" else numbers
    else:
        name = {"sum": "Adagrad", "maximum": "Adamax"}.get(
            recipe.second, "RMSprop" if recipe.first == "none" else "Adam"
        )
    name = f"Nesterov's {name}" if recipe.nesterov != "none" else name
    rates = np.unique(recipe.rates[0])
    numbers |= {"μ of the velocity": recipe.after, "v at the start": recipe.start}
    numbers |= {"α": rates[0]} if rates.size == 1 else {}
    for kind, decay in {"coupled": recipe.coupled, "decoupled": recipe.decoupled}.items():
        numbers |= {f"{kind} weight decay": float(np.max(np.abs(decay), initial=0.0))}
    if recipe.clip != "none":
        numbers |= {f"clipping by {recipe.clip} at": recipe.bound}
    shown = ", ".join(f"{word} = {value:.6g}" for word, value in numbers.items() if value)
    return f"{name} with {shown}" if shown else name
