"""Another number in one place of a recipe, where some number gives a candidate's updates."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from funcnn.optimizercheck.comparison import agree
from funcnn.optimizercheck.identification import nice
from funcnn.optimizercheck.recipes import Recipe, simulate
from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.sequences import Problem
from funcnn.optimizercheck.slips import Slip

_TOLD_BY = ("random", "zero", "tiny", "small", "huge", "one step, then zero", "vanishing")
_TOLD_IN = 6
_SIZES = (*np.arange(-12.0, 2.0, 0.5),)
_DECAYS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)


class _Place(NamedTuple):
    """A number of a recipe that may be another, and how to say so."""

    field: str
    cause: OptimizerCause
    words: str
    recipe: Recipe


def fitted(recipe: Recipe, problem: Problem, updates: np.ndarray, spacing: float) -> Iterator[Slip]:
    """The recipe with another number in one place, where some number gives a candidate's updates."""
    few = problem.chosen([name for name in _TOLD_BY if name in problem.names], _TOLD_IN)
    rows = [problem.names.index(name) for name in few.names]
    wanted = updates[rows, :_TOLD_IN]
    for field, cause, words, start in _places(recipe):
        for number in _fits(start._replace(rates=recipe.rates[rows, :_TOLD_IN]), field, few, wanted):
            changed = _with(start, field, number)
            if agree(updates, simulate(changed, problem).updates, problem, spacing):
                yield Slip("sign" if field == "rates" and number < 0 else cause, words.format(number), changed)
                break


def _places(recipe) -> Iterator[_Place]:
    """Every number that plays a part in the recipe, and those of the lines that it hasn't."""
    yield _Place("rates", "rate_scaled", "the learning rate is {:.6g} times the reference's", recipe)
    if recipe.second != "none":
        field = "eps_root" if recipe.eps_root else "eps"
        inside = " inside the root" if recipe.eps_root else ""
        words = f"ε{inside} is {{:.6g}} where the reference has {getattr(recipe, field):g}"
        yield _Place(field, "epsilon_size", words, recipe)
    has_b2 = recipe.second in ("mean", "leaky sum", "maximum") or recipe.first == "lion"
    decays = {"b1": ("β₁ (or μ)", recipe.first != "none"), "b2": ("β₂", has_b2), "after": ("μ", recipe.after)}
    for field, (name, plays) in decays.items():
        if plays:
            words = f"{name} is {{:.6g}} where the reference has {getattr(recipe, field):g}"
            yield _Place(field, "coefficient", words, recipe)
    if recipe.second not in ("none", "maximum"):
        words = f"the second moment begins at {{:.6g}} where the reference's begins at {recipe.start:g}"
        yield _Place("start", "initial_accumulator", words, recipe)
    if recipe.second == "sum":
        words = "v is a mean of squares with β₂ = {:.6g}, as in RMSprop, not their sum"
        for start in dict.fromkeys((recipe.start, 0.0)):
            yield _Place("b2", "accumulation", words, recipe._replace(second="mean", start=start))
        words = "the sum of squares decays, by β₂ = {:.6g} a step"
        yield _Place("b2", "accumulation", words, recipe._replace(second="leaky sum"))
    yield from _decays(recipe)
    yield from _bounds(recipe)


def _decays(recipe) -> Iterator[_Place]:
    for field in ("coupled", "decoupled"):
        old = getattr(recipe, field)
        if np.any(old):
            words = f"the weight decay is {{:.6g}} where the reference has {np.max(np.abs(old)):g}"
            yield _Place(field, "decay_size", words, recipe)
    if not np.any(recipe.coupled) and not np.any(recipe.decoupled):
        words = "a weight decay of {:.6g} is in the gradient, where the reference has none"
        yield _Place("coupled", "decay_added", words, recipe)
        if recipe.first != "none" or recipe.second != "none":
            yield _Place("decoupled", "decay_added", words.replace("in the gradient", "beside the moments"), recipe)


def _bounds(recipe) -> Iterator[_Place]:
    if recipe.clip != "none":
        words = f"gradients are clipped at {{:.6g}} where the reference clips at {recipe.bound:g}"
        yield _Place("bound", "clipping_bound", words, recipe)
        return
    for kind in ("global norm", "value", "leaf norm"):
        words = f"gradients are clipped by {kind} at {{:.6g}}, where the reference clips none"
        yield _Place("bound", "clipping_added", words, recipe._replace(clip=kind))


def _fits(recipe, field, problem, wanted) -> Iterator[float]:
    """Numbers that bring a recipe near the updates: the best of a grid, then Gauss and Newton in one dimension."""
    scale = np.abs(wanted).max(axis=(1, 2), keepdims=True, initial=0.0, where=np.isfinite(wanted))
    scale = np.where(scale > 0, scale, 1.0)
    is_decay = field in ("b1", "b2", "after")
    places = [math.log1p(-decay) for decay in _DECAYS] if is_decay else list(_SIZES)

    def number(place, sign):
        return -math.expm1(min(place, 0.0)) if is_decay else sign * 10.0 ** min(place, 30.0)

    for sign in (1.0, -1.0) if field in ("rates", "coupled", "decoupled") else (1.0,):

        def residual(place, sign=sign):
            gap = (simulate(_with(recipe, field, number(place, sign)), problem).updates - wanted) / scale
            return np.where(np.isfinite(gap), np.clip(gap, -1e9, 1e9), 0.0).ravel()

        best = min(places, key=lambda place: float((residual(place) ** 2).sum()))
        found = number(_refined(residual, best), sign)
        yield from dict.fromkeys((nice(found, 6), nice(found, 12))) if math.isfinite(found) else ()


def _with(recipe, field, number) -> Recipe:
    """A recipe with another number; the learning rate is multiplied by it."""
    return recipe._replace(**{field: number * recipe.rates if field == "rates" else number})


def _refined(residual: Callable[[float], np.ndarray], place: float) -> float:
    first = float((residual(place) ** 2).sum())
    for number in range(25):
        here = residual(place)
        if number == 8 and not float((here**2).sum()) < 1e-6 * first:
            break  # no number is the right one
        slope = (residual(place + 1e-6) - here) / 1e-6
        size = float((slope**2).sum())
        if not size or not math.isfinite(size):
            break
        step = float((slope * here).sum()) / size
        place -= max(-1.0, min(1.0, step))
        if abs(step) < 1e-14:
            break
    return place
